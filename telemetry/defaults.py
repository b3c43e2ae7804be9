"""Default instruments of a cache."""

from __future__ import annotations

import logging

from cache_core.model.exceptions import ConfigurationError
from cache_core.observability.instruments import Instrument

from .metrics import PrometheusInstrument
from .serving import multiprocess_directory
from .tracing import TracingInstrument

log = logging.getLogger("glasscache")


def default_instruments(namespace: str) -> list[Instrument]:
    """Return Prometheus metrics, which it registers, and OpenTelemetry spans."""
    spans = TracingInstrument(namespace)
    try:
        multiprocess_directory()
    except ConfigurationError as error:
        log.warning("metrics are off: %s", error)
        return [spans]
    return [PrometheusInstrument(namespace), spans]
