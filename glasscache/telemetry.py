"""Telemetry of a cache: Prometheus metrics and OpenTelemetry spans.

The same objects as in this distribution's package `telemetry`, also where the application has a
module of that name itself. Importing this has no effect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from telemetry import (
        PrometheusInstrument,
        SpanExport,
        TracingInstrument,
        asgi_app,
        configure,
        current_registry,
        default_instruments,
        scraped_registry,
        serve_metrics,
    )
else:
    from cache_core.observability.defaults import telemetry as _found

    _ours = _found()
    PrometheusInstrument = _ours.PrometheusInstrument
    SpanExport = _ours.SpanExport
    TracingInstrument = _ours.TracingInstrument
    asgi_app = _ours.asgi_app
    configure = _ours.configure
    current_registry = _ours.current_registry
    default_instruments = _ours.default_instruments
    scraped_registry = _ours.scraped_registry
    serve_metrics = _ours.serve_metrics

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
