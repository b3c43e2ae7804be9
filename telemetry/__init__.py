"""Telemetry of a cache: Prometheus metrics and OpenTelemetry spans.

Importing this has no effect. An application calls `configure()` to export spans, and
`serve_metrics()` or `asgi_app()` to show metrics.
"""

from .defaults import default_instruments
from .exporters import SpanExport, configure
from .http import asgi_app
from .metrics import PrometheusInstrument
from .registry import current_registry
from .serving import scraped_registry, serve_metrics
from .tracing import TracingInstrument

__all__ = [
    "PrometheusInstrument",
    "SpanExport",
    "TracingInstrument",
    "asgi_app",
    "configure",
    "current_registry",
    "default_instruments",
    "scraped_registry",
    "serve_metrics",
]
