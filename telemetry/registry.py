"""Registry of our metrics, and their display in the default registry."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import Counter as Counted
from collections.abc import Iterable, Sequence
from typing import Any, Protocol
from weakref import WeakKeyDictionary, WeakSet

from prometheus_client import REGISTRY, CollectorRegistry, Gauge, values
from prometheus_client.metrics_core import Metric as Family

from . import names
from .buckets import bounds_of
from .tallies import BareCounter, BulkHistogram

log = logging.getLogger("glasscache")

CLOSED_SECONDS = 300.0
"""Seconds for which the series of a closed cache stay: for several scrapes, or one push."""

COUNTING = "counting"
"""Key under which `collectors` has the collector that makes instruments count."""

Collectors = dict[str, Any]

Series = Sequence[tuple[Any, tuple[str, ...]]]
"""Metrics, each with the values of its labels besides the cache."""

_made: WeakKeyDictionary[CollectorRegistry, Collectors] = WeakKeyDictionary()
_guests: list[_Guest] = []
_lock = threading.Lock()


class _Guest:
    """Collector that shows our metrics in the default registry, unless a name of them is taken.

    An application may define metrics of any of our names itself in the default registry, before
    the cache starts or after, in a module imported later. Metrics registered in the usual way would
    make the second of the two fail. So ours are in a registry of their own, and this collector
    shows them in the default one without claiming a name; if the application has one of them, it
    shows nothing, and one log line says how to serve ours.
    """

    def __init__(self, ours: CollectorRegistry) -> None:
        self.ours = ours
        self._shown = True
        self._looking = threading.Lock()

    def is_shown(self) -> bool:
        """Return whether the default registry shows our metrics, all of them."""
        with self._looking:
            taken = _taken(self.ours) if self._shown else ""
            if taken:
                self._shown = False
                self._warn(taken)
            return self._shown

    def describe(self) -> Iterable[Family]:
        """Claim no name: the application's own metric may come later."""
        return ()

    def collect(self) -> Iterable[Family]:
        """Return our metrics."""
        return self.ours.collect() if self.is_shown() else ()

    @staticmethod
    def _warn(taken: str) -> None:
        ours = __name__.rpartition(".")[0]
        package = ours if ours == "telemetry" else "cache_core.observability.defaults.telemetry()"
        log.warning(
            "the application has a metric of one of our names in the default Prometheus registry "
            "(%s): all of ours are in %s.current_registry() instead; serve them with "
            "%s.serve_metrics(port)",
            taken,
            package,
            package,
        )


def _taken(ours: CollectorRegistry) -> str:
    """Return the names of *ours* that the default registry has, too.

    Registering a collector to find out would, for that moment, claim them: a module that another
    thread imports then would fail.
    """
    mine, theirs = (item._names_to_collectors for item in (ours, REGISTRY))  # noqa: SLF001
    return ", ".join(sorted(name for name in mine if name in theirs))


def collectors(registry: CollectorRegistry | None = None) -> Collectors:
    """Return all metrics by name, created once per registry.

    Args:
        registry: The registry to use; default: one of this process's unconfigured caches, which
            the default registry shows too, see `current_registry`.

    Raises:
        ValueError: If *registry* has metrics of one of our names.
    """
    with _lock:
        if registry is None:
            return _made[_guest().ours]
        if registry not in _made:
            _made[registry] = _register(registry)
        return _made[registry]


def current_registry() -> CollectorRegistry:
    """Return the registry that shows this process's unconfigured caches.

    It is the default one, or one of their own if the application has metrics of their names there.
    """
    with _lock:
        guest = _guest()
    return REGISTRY if guest.is_shown() else guest.ours


def _guest() -> _Guest:
    if not _guests:
        ours = CollectorRegistry()
        _made[ours] = _register(ours)
        _guests.append(_Guest(ours))
        REGISTRY.register(_guests[0])
        _guests[0].is_shown()
    return _guests[0]


def _register(registry: CollectorRegistry) -> Collectors:
    # the first to be registered is the first to be collected
    found: Collectors = {COUNTING: CountsFirst()}
    registry.register(found[COUNTING])
    try:
        for metric in names.METRICS:
            labels = (names.CACHE_LABEL, *metric.labels)
            if metric.kind == "counter":
                found[metric.name] = BareCounter(
                    metric.name, metric.help, labels, registry=registry
                )
            elif metric.kind == "gauge":
                found[metric.name] = Gauge(
                    metric.name,
                    metric.help,
                    labels,
                    registry=registry,
                    multiprocess_mode=metric.workers,
                )
            else:
                found[metric.name] = BulkHistogram(
                    metric.name,
                    metric.help,
                    labels,
                    registry=registry,
                    buckets=bounds_of(metric),
                )
    except ValueError:
        for collector in found.values():
            registry.unregister(collector)
        raise
    return found


class Counts(Protocol):
    """Instrument that records first, and counts later."""

    def count(self) -> None:
        """Count what was recorded."""
        ...


class CountsFirst:
    """Collector that makes the instruments of a registry count before others collect.

    It also removes the series of closed caches: after some minutes, so that their last values are
    collected, or immediately when another cache is closed.
    """

    def __init__(self) -> None:
        self.instruments: WeakSet[Counts] = WeakSet()
        self._open: Counted[str] = Counted()
        self._leaving: dict[str, Series] = {}
        self._until = 0.0
        self._lock = threading.Lock()

    def opened(self, namespace: str) -> None:
        """Record that a cache of *namespace* counts here."""
        with self._lock:
            self._open[namespace] += 1
            self._leaving.pop(namespace, None)

    def closed(self, namespace: str, series: Series) -> None:
        """Record that one is closed; the last one of a namespace takes its *series* along."""
        with self._lock:
            self._open[namespace] -= 1
            if self._open[namespace] <= 0 and not is_multiprocess():
                del self._open[namespace]
                self._remove()
                self._leaving[namespace] = series
                self._until = time.monotonic() + CLOSED_SECONDS

    def _remove(self) -> None:
        while self._leaving:
            namespace, series = self._leaving.popitem()
            for metric, labels in series:
                with contextlib.suppress(KeyError):
                    metric.remove(namespace, *labels)

    def describe(self) -> Iterable[Family]:
        """Claim no name."""
        return ()

    def collect(self) -> Iterable[Family]:
        """Count; return nothing, as the metrics themselves are collected after this."""
        with self._lock:
            if time.monotonic() >= self._until:
                self._remove()
        for instrument in tuple(self.instruments):
            instrument.count()
        return ()


def is_multiprocess() -> bool:
    """Return whether values are in the files of several processes, which keep every series."""
    return bool(getattr(values.ValueClass, "_multiprocess", False))
