"""What watches a cache that nobody configured."""

from __future__ import annotations

import logging

from cache_core.exceptions import ConfigurationError
from cache_core.instrumentation import Instrument

from .metrics import PrometheusInstrument
from .serving import multiprocess_directory
from .tracing import TracingInstrument

log = logging.getLogger("glasscache")


def default_instruments(namespace: str) -> list[Instrument]:
    """Return Prometheus metrics and OpenTelemetry spans; registers the metrics."""
    spans = TracingInstrument(namespace)
    try:
        multiprocess_directory()
    except ConfigurationError as error:
        log.warning("metrics are off: %s", error)
        return [spans]
    return [PrometheusInstrument(namespace), spans]
