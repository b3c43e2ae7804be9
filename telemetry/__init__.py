"""How a cache is seen from outside: Prometheus metrics and OpenTelemetry spans."""

from .defaults import default_instruments
from .metrics import PrometheusInstrument, current_registry
from .serving import serve_metrics
from .tracing import TracingInstrument

__all__ = [
    "PrometheusInstrument",
    "TracingInstrument",
    "current_registry",
    "default_instruments",
    "serve_metrics",
]
