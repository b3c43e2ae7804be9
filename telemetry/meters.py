"""The cache's metrics as OpenTelemetry instruments, for an application with a `MeterProvider`.

They have the names and labels of the Prometheus metrics, so that rules and dashboards work on what
a collector writes to Prometheus, too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from opentelemetry import metrics
from prometheus_client import REGISTRY

from cache_core import __version__

from . import names
from .buckets import bounds_of

log = logging.getLogger("glasscache")

_UNSET = ("_ProxyMeterProvider", "NoOpMeterProvider")

_PROMETHEUS = "opentelemetry.exporter.prometheus"
"""Package whose reader shows what goes to a provider in the default Prometheus registry."""

Attributes = Mapping[str, str]


class Meters:
    """OpenTelemetry instruments, made when the application has set a provider.

    Args:
        provider: Where metrics go; default: the global provider, once there is one.
    """

    def __init__(self, provider: metrics.MeterProvider | None = None) -> None:
        self._given = provider
        self._used: metrics.MeterProvider | None = None
        self._made: dict[str, Any] = {}
        self._broken = False

    def counter(self, metric: names.Metric, attributes: Attributes) -> Callable[[float], None]:
        """Return how to add to one series of a counter."""
        return partial(self.count, metric, attributes)

    def observer(
        self, metric: names.Metric, attributes: Attributes
    ) -> Callable[[list[float]], None]:
        """Return how to add to one series of a histogram."""
        return partial(self.observe, metric, attributes)

    def gauge(self, metric: names.Metric, attributes: Attributes) -> Callable[[float], None]:
        """Return how to set one series of a gauge."""
        return partial(self.show, metric, attributes)

    def count(self, metric: names.Metric, attributes: Attributes, amount: float) -> None:
        """Add *amount* to a counter."""
        instrument = self._instrument(metric, "counter" if metric.kind == "counter" else "sum")
        if instrument is not None:
            instrument.add(amount, attributes)

    def observe(self, metric: names.Metric, attributes: Attributes, values: list[float]) -> None:
        """Add *values* to a histogram."""
        instrument = self._instrument(metric, "histogram")
        if instrument is not None:
            for value in values:
                instrument.record(value, attributes)

    def show(self, metric: names.Metric, attributes: Attributes, value: float) -> None:
        """Set a gauge."""
        instrument = self._instrument(metric, "gauge")
        if instrument is not None:
            instrument.set(value, attributes)

    def _instrument(self, metric: names.Metric, kind: str) -> Any:
        """Return the instrument of a metric; `None` without a provider."""
        provider = self._provider()
        if provider is None:
            return None
        if provider is not self._used:
            self._used, self._made = provider, {}
        if metric.name not in self._made:
            self._made[metric.name] = self._make(provider, metric, kind)
        return self._made[metric.name]

    def _provider(self) -> metrics.MeterProvider | None:
        if self._given is not None:
            return self._given
        if self._broken:
            return None
        try:
            found = metrics.get_meter_provider()
        except Exception:  # noqa: BLE001 - OTEL_PYTHON_METER_PROVIDER names none, which was logged
            self._broken = True
            return None
        if type(found).__name__ in _UNSET:
            return None
        if found is not self._used and _is_in_prometheus():
            self._broken = True
            log.info(
                "OpenTelemetry's Prometheus exporter serves the registry that has the cache's "
                "metrics already: they do not go to the MeterProvider, too"
            )
            return None
        return found

    @staticmethod
    def _make(provider: metrics.MeterProvider, metric: names.Metric, kind: str) -> Any:
        meter = provider.get_meter(names.TRACER, __version__)
        make: dict[str, Any] = {
            "counter": meter.create_counter,
            "sum": meter.create_up_down_counter,
            "gauge": meter.create_gauge,
            "histogram": meter.create_histogram,
        }
        unit = "s" if metric.name.endswith("_seconds") else ""
        more: dict[str, Any] = {}
        if kind == "histogram":
            more["explicit_bucket_boundaries_advisory"] = bounds_of(metric)
        try:
            return make[kind](metric.name, unit=unit, description=metric.help, **more)
        except TypeError:  # before version 1.30 the API takes no boundaries
            return make[kind](metric.name, unit=unit, description=metric.help)


def _is_in_prometheus() -> bool:
    """Return whether a reader of OpenTelemetry shows its metrics in the default registry."""
    found = tuple(REGISTRY._collector_to_names)  # noqa: SLF001
    return any(type(collector).__module__.startswith(_PROMETHEUS) for collector in found)
