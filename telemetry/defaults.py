"""Default instruments of a cache."""

from __future__ import annotations

import logging

from cache_core.model.exceptions import ConfigurationError
from cache_core.observability.instruments import Instrument

from .meters import Meters
from .metrics import PrometheusInstrument
from .serving import multiprocess_directory
from .tracing import TracingInstrument

log = logging.getLogger("glasscache")


def default_instruments(namespace: str, *, otel_metrics: bool = True) -> list[Instrument]:
    """Return Prometheus metrics, which it registers, and OpenTelemetry spans.

    Args:
        namespace: Of the cache.
        otel_metrics: Whether the metrics also go to a `MeterProvider` that the application sets.
    """
    spans = TracingInstrument(namespace)
    try:
        multiprocess_directory()
    except ConfigurationError as error:
        log.warning("metrics are off: %s", error)
        return [spans]
    meters = Meters() if otel_metrics else None
    return [PrometheusInstrument(namespace, meters=meters), spans]
