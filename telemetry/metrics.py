"""Prometheus metrics of a cache, from the finished records of its operations."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias, get_args
from weakref import WeakKeyDictionary, WeakSet

from opentelemetry import trace
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, values
from prometheus_client.metrics_core import Metric as Family

from cache_core import __version__
from cache_core.instrumentation import CacheCall, CacheState
from cache_core.models import ERROR_REASONS, LEVELS, MISS_REASONS, OUTCOMES, Level
from cache_core.tuning import GuardName

from . import names

log = logging.getLogger("glasscache")

_SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
)  # fmt: skip
_SIMILARITIES = (0.5, 0.6, 0.7, 0.75, 0.8, 0.84, 0.87, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99, 1.0)  # fmt: skip # noqa: E501
_AGES = (1, 10, 60, 300, 900, 3_600, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800)
_BUCKETS = {
    names.SIMILARITY.name: _SIMILARITIES,
    names.ENTRY_AGE.name: _AGES,
}
_STATES = {"closed": 0, "half_open": 1, "open": 2}
_GUARDS: tuple[GuardName, ...] = get_args(GuardName)
_PUT_OUTCOMES = ("stored", "queued", "dropped", "bypass")

_MOST_WAITING = 256
_COUNTING = "counting"

Collectors = dict[str, Any]
Exemplar: TypeAlias = dict[str, str] | None

_made: WeakKeyDictionary[CollectorRegistry, Collectors] = WeakKeyDictionary()
_guests: list[_Guest] = []
_lock = threading.Lock()


class _Guest:
    """Shows our metrics in the default registry, until somebody else wants their names.

    An application may define the four published metrics itself, in the default registry: before
    the cache starts or after, in a module that is imported later. Metrics registered in the usual
    way would make the second of the two fail. So ours are in a registry of their own, and this
    collector shows them in the default one without claiming those four names; when the application
    has one of them, it shows nothing, and one log line says how to serve ours.
    """

    def __init__(self, ours: CollectorRegistry, found: Collectors) -> None:
        self.ours = ours
        self._published = [found[metric.name] for metric in names.PUBLISHED]
        self._others = [
            found[metric.name] for metric in names.METRICS if metric not in names.PUBLISHED
        ]
        self._shown = False
        self._probing = threading.Lock()

    def show(self) -> None:
        """Become visible in the default registry, if the application leaves room."""
        try:
            REGISTRY.register(self)
        except ValueError as error:
            self._tell(error)
        else:
            self._shown = True
            self.is_shown()

    def is_shown(self) -> bool:
        """Whether the default registry shows our metrics, all of them."""
        with self._probing:
            if self._shown:
                probe = _Probe(self._published)
                try:
                    REGISTRY.register(probe)
                except ValueError as error:
                    self._shown = False
                    self._tell(error)
                else:
                    REGISTRY.unregister(probe)
            return self._shown

    def describe(self) -> Iterable[Family]:
        """Claim the names besides the published ones."""
        return _Probe(self._others).describe()

    def collect(self) -> Iterable[Family]:
        """Return our metrics."""
        return self.ours.collect() if self.is_shown() else ()

    @staticmethod
    def _tell(error: ValueError) -> None:
        ours = __name__.rpartition(".")[0]
        package = ours if ours == "telemetry" else "cache_core.defaults.telemetry()"
        log.warning(
            "the application has a metric of one of our names in the default Prometheus registry "
            "(%s): all of ours are in %s.current_registry() instead; serve them with "
            "%s.serve_metrics(port)",
            error,
            package,
            package,
        )


class _Probe:
    """Claims the names of *collectors*, and shows nothing."""

    def __init__(self, collectors: Sequence[Any]) -> None:
        self._collectors = collectors

    def describe(self) -> list[Family]:
        return [family for item in self._collectors for family in item.describe()]

    def collect(self) -> Iterable[Family]:
        return ()


def collectors(registry: CollectorRegistry | None = None) -> Collectors:
    """Return every metric by name, made once per registry.

    Args:
        registry: Where to register; default: a registry of this process's unconfigured caches,
            which the default registry shows too, see `current_registry`.

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
    """Return the registry in which this process's unconfigured caches are seen.

    The default one; or one of their own, when the application has metrics of their names there.
    """
    with _lock:
        guest = _guest()
    return REGISTRY if guest.is_shown() else guest.ours


def _guest() -> _Guest:
    if not _guests:
        ours = CollectorRegistry()
        _made[ours] = _register(ours)
        _guests.append(_Guest(ours, _made[ours]))
        _guests[0].show()
    return _guests[0]


def _register(registry: CollectorRegistry) -> Collectors:
    # The first to be registered is the first to be collected.
    found: Collectors = {_COUNTING: _Counting()}
    registry.register(found[_COUNTING])
    try:
        for metric in names.METRICS:
            labels = (names.CACHE_LABEL, *metric.labels)
            if metric.kind == "counter":
                found[metric.name] = Counter(metric.name, metric.help, labels, registry=registry)
            elif metric.kind == "gauge":
                found[metric.name] = Gauge(
                    metric.name,
                    metric.help,
                    labels,
                    registry=registry,
                    multiprocess_mode=metric.workers,
                )
            else:
                found[metric.name] = Histogram(
                    metric.name,
                    metric.help,
                    labels,
                    registry=registry,
                    buckets=_BUCKETS.get(metric.name, _SECONDS),
                )
    except ValueError:
        for collector in found.values():
            registry.unregister(collector)
        raise
    return found


class _Counting:
    """Lets the instruments of a registry count what they took note of, before others collect."""

    def __init__(self) -> None:
        self.instruments: WeakSet[PrometheusInstrument] = WeakSet()

    def describe(self) -> Iterable[Family]:
        """Claim no name."""
        return ()

    def collect(self) -> Iterable[Family]:
        """Count, and show nothing: the metrics themselves are collected after this."""
        for instrument in tuple(self.instruments):
            instrument.count()
        return ()


class PrometheusInstrument:
    """Counts into Prometheus metrics; every valid child exists from the start.

    What happened is queued and counted when somebody looks, every second, or when much waits: in
    one go that takes a lookup half the time.

    Args:
        namespace: Of the cache; the label `cache`.
        registry: Where to register; default: see `current_registry`.
    """

    def __init__(self, namespace: str, registry: CollectorRegistry | None = None) -> None:
        found = collectors(registry)
        self._cache = namespace

        def of(metric: names.Metric) -> Any:
            return found[metric.name]

        def each(metric: names.Metric, values: tuple[Any, ...]) -> dict[Any, Any]:
            return {value: of(metric).labels(namespace, value) for value in values}

        self._hits = each(names.HITS, LEVELS)
        self._misses = each(names.MISSES, LEVELS)
        self._latency = each(names.LATENCY, LEVELS)
        self._lookups = each(names.LOOKUPS, OUTCOMES)
        self._lookup_seconds = each(names.LOOKUP_SECONDS, OUTCOMES)
        self._saved = each(names.SAVED, LEVELS)
        self._age = each(names.ENTRY_AGE, LEVELS)
        self._similarity = each(names.SIMILARITY, ("hit", "miss"))
        self._vetoes = each(names.GUARD_VETOES, _GUARDS)
        self._spent = each(names.SPENT, ("embedding", "verification"))
        self._dropped = each(names.DROPPED, names.QUEUES)
        self._invalidations = each(names.INVALIDATIONS, ("message", "document", "tag", "user"))
        self._reasons: dict[tuple[Level, str], Any] = {
            (level, reason): of(names.MISS_REASONS).labels(namespace, level, reason)
            for level in LEVELS
            for reason in MISS_REASONS
        }
        self._errors: dict[tuple[Level, str], Any] = {
            (level, reason): of(names.ERRORS).labels(namespace, level, reason)
            for level in LEVELS
            for reason in ERROR_REASONS
        }
        self._puts: dict[tuple[Level, str], Any] = {
            (level, outcome): of(names.PUTS).labels(namespace, level, outcome)
            for level in LEVELS
            for outcome in _PUT_OUTCOMES
        }
        self._verdicts = {
            (verdict, source): of(names.VERDICTS).labels(namespace, verdict, source)
            for verdict in ("correct", "wrong")
            for source in ("feedback", "review", "verify")
        }
        self._cancelled = each(names.CANCELLED, LEVELS)
        self._cost_saved = of(names.COST_SAVED).labels(namespace)
        self._stale = of(names.STALE_HITS).labels(namespace)
        self._embedding = of(names.EMBEDDING_SECONDS).labels(namespace)
        self._isolation = of(names.ISOLATION_VIOLATIONS).labels(namespace)
        self._joins = of(names.FLIGHT_JOINS).labels(namespace)
        self._pending = of(names.INVALIDATIONS_PENDING).labels(namespace)
        self._threshold = of(names.SEMANTIC_THRESHOLD).labels(namespace)
        self._ttl = each(names.TTL_SECONDS, LEVELS)
        self._objective = of(names.HIT_RATE_OBJECTIVE).labels(namespace)
        self._version = of(names.TUNING_VERSION).labels(namespace)
        self._changes = of(names.TUNING_CHANGES).labels(namespace)
        self._rejected = of(names.TUNING_REJECTED).labels(namespace)
        self._up = _Children(of(names.BACKEND_UP), namespace, gone=0)
        self._breaker = _Children(of(names.BREAKER_STATE), namespace, gone=0)
        self._entries = _Children(of(names.ENTRIES), namespace)
        self._started = _Children(of(names.START_TIME), namespace)
        self._open_since: float | None = None
        of(names.BUILD_INFO).labels(namespace, __version__).set(1)
        self._told_dropped: dict[str, int] = {}
        self._waiting: deque[tuple[CacheCall, Exemplar]] = deque()
        self._one_by_one = threading.Lock()
        found[_COUNTING].instruments.add(self)

    def record(self, call: CacheCall) -> None:
        """Take note of a finished operation; it is counted with the next `count`."""
        self._waiting.append((call, _exemplar()))
        if len(self._waiting) >= _MOST_WAITING:
            self.count()

    def count(self) -> None:
        """Count what waits. May be called in any thread."""
        with self._one_by_one:
            while self._waiting:
                self._count(*self._waiting.popleft())

    def _count(self, call: CacheCall, exemplar: Exemplar) -> None:
        if call.spent_usd:
            kind = "verification" if call.operation == "verdict" else "embedding"
            self._spent[kind].inc(call.spent_usd)
            self._cost_saved.dec(call.spent_usd)
        match call.operation:
            case "lookup":
                self._lookup(call, exemplar)
            case "put":
                for part in call.calls:
                    if part.level is not None:
                        self._puts[part.level, part.outcome].inc()
            case "embed":
                if call.outcome == "ok":
                    self._embedding.observe(call.seconds, exemplar)
            case "invalidate":
                self._invalidations[call.reason].inc()
            case "verdict":
                if call.outcome != "checked":
                    self._verdicts[call.outcome, call.reason].inc()
            case "compute":
                if call.outcome == "joined":
                    self._joins.inc()
            case "tune":
                (self._changes if call.outcome == "applied" else self._rejected).inc()

    def _lookup(self, call: CacheCall, exemplar: Exemplar) -> None:
        if call.outcome == "cancelled":
            self._cancelled["l1" if call.level is None else call.level].inc()
            return
        self._lookups[call.outcome].inc()
        self._lookup_seconds[call.outcome].observe(call.seconds, exemplar)
        for part in call.calls:
            level = part.level
            if level is None:
                continue
            self._latency[level].observe(part.seconds, exemplar)
            if part.outcome == "hit":
                self._hits[level].inc()
                age = part.age_seconds or 0.0
                self._age[level].observe(age)
                if part.ttl_seconds is not None and age > part.ttl_seconds:
                    self._stale.inc()
                if part.saved_usd:
                    self._saved[level].inc(part.saved_usd)
                    self._cost_saved.inc(part.saved_usd)
            elif part.outcome == "miss":
                self._misses[level].inc()
                self._reasons[level, part.reason].inc()
            else:
                self._errors[level, part.reason].inc()
                if part.reason == "isolation":
                    self._isolation.inc()
            if level == "l2" and part.similarity is not None:
                self._similarity["hit" if part.outcome == "hit" else "miss"].observe(
                    part.similarity
                )
            if part.guard:
                self._vetoes[part.guard].inc()

    def report(self, state: CacheState) -> None:
        """Set the gauges, and count what waits."""
        self.count()
        if not state.backends:
            self._open_since = None
        elif self._open_since is None:
            self._open_since = time.time()
        self._started.show({} if self._open_since is None else {(): self._open_since})
        self._up.show({(name,): works for name, works in state.backends.items()})
        self._breaker.show({(name,): _STATES[found] for name, found in state.breakers.items()})
        self._entries.show({(level,): count for level, count in state.entries.items()})
        for level in LEVELS:
            self._ttl[level].set(state.tuning.ttl(level))
        self._threshold.set(state.tuning.semantic_threshold)
        self._objective.set(state.tuning.hit_rate_objective)
        self._version.set(state.tuning.version)
        self._pending.set(state.pending_invalidations)
        for queue, count in state.dropped.items():
            self._dropped[queue].inc(max(0, count - self._told_dropped.get(queue, 0)))
            self._told_dropped[queue] = count


class _Children:
    """The children of a gauge that come and go with what they are about.

    Args:
        gauge: Of any cache.
        namespace: Of the cache whose children these are.
        gone: In multiprocess mode, where no value can be taken back, what stands for none; default:
            the last one stays.
    """

    def __init__(self, gauge: Any, namespace: str, gone: float | None = None) -> None:
        self._gauge = gauge
        self._gone = gone
        self._namespace = namespace
        self._shown: set[tuple[str, ...]] = set()

    def show(self, found: Mapping[tuple[str, ...], float]) -> None:
        """Show these values by their labels, and no others that were shown before."""
        for labels, value in found.items():
            self._gauge.labels(self._namespace, *labels).set(value)
        for labels in self._shown - found.keys():
            if getattr(values.ValueClass, "_multiprocess", False):
                if self._gone is not None:
                    self._gauge.labels(self._namespace, *labels).set(self._gone)
            else:
                with contextlib.suppress(KeyError):  # another cache of the namespace was closed
                    self._gauge.remove(self._namespace, *labels)
        self._shown = set(found)


def _exemplar() -> Exemplar:
    """Return the ids of the current span, if it is sampled: it can then be found by them."""
    context = trace.get_current_span().get_span_context()
    if not (context.is_valid and context.trace_flags.sampled):
        return None
    return {
        "trace_id": trace.format_trace_id(context.trace_id),
        "span_id": trace.format_span_id(context.span_id),
    }
