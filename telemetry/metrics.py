"""Prometheus metrics of a cache, from the finished records of its operations."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, TypeAlias, get_args

from opentelemetry import trace
from prometheus_client import CollectorRegistry, values

from cache_core import __version__
from cache_core.instrumentation import CacheCall, CacheState
from cache_core.models import ERROR_REASONS, LEVELS, MISS_REASONS, OUTCOMES, Level
from cache_core.tuning import GuardName

from . import names
from .registry import COUNTING, collectors

_STATES = {"closed": 0, "half_open": 1, "open": 2}
_GUARDS: tuple[GuardName, ...] = get_args(GuardName)
_PUT_OUTCOMES = ("stored", "queued", "dropped", "bypass")

_MOST_WAITING = 256

Exemplar: TypeAlias = dict[str, str] | None


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
        found[COUNTING].instruments.add(self)

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
