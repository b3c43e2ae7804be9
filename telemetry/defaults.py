"""What watches a cache that nobody configured."""

from __future__ import annotations

from cache_core.instrumentation import Instrument

from .metrics import PrometheusInstrument
from .tracing import TracingInstrument


def default_instruments(namespace: str) -> list[Instrument]:
    """Return Prometheus metrics and OpenTelemetry spans; registers the metrics."""
    return [PrometheusInstrument(namespace), TracingInstrument(namespace)]
