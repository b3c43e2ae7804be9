"""Prometheus metrics of a cache, from the finished records of its operations."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import product
from typing import Any, TypeAlias, get_args

from opentelemetry import trace
from prometheus_client import CollectorRegistry

from cache_core import __version__
from cache_core.backends.breaker import State
from cache_core.config.tuning import GuardName, Tuning
from cache_core.model.values import (
    BYPASS_REASONS,
    ERROR_REASONS,
    LEVELS,
    MISS_REASONS,
    OUTCOMES,
    PUT_OUTCOMES,
    PUT_REASONS,
)
from cache_core.observability.instruments import CacheState
from cache_core.observability.records import (
    APPROVAL_VERDICTS,
    CHANGE_VERDICTS,
    ApprovalRecord,
    ChangeRecord,
    ComputeRecord,
    EmbedRecord,
    InvalidationRecord,
    LabelRecord,
    LookupRecord,
    PutRecord,
    Record,
    RefreshRecord,
    SearchRecord,
    TuneRecord,
    VerdictRecord,
    VerificationRecord,
)
from cache_core.observability.sums import REST

from . import names
from .meters import Meters
from .registry import COUNTING, collectors, is_multiprocess
from .tallies import Distribution, Sum, Tally

_STATES = {"closed": 0, "half_open": 1, "open": 2}
_OF_L2 = frozenset(
    {
        "below_threshold", "guard_veto", "has_history", "truncated", "unreadable",
        "context_limit", "warming", "queued", "overloaded",
        "not_approved", "approval_failed", "approval_late", "approval_budget",
    }
)  # fmt: skip
"""Reasons that only L2 reports."""

_CALLED = ("ok", "error", "timeout")
_GUARDS: tuple[GuardName, ...] = get_args(GuardName)
_PUT_OUTCOMES = ("stored", "queued", "dropped", "bypass")
_PUT_REASONS_SHOWN = ("personal", "promoted", "rate_limited", "withdrawn")
"""Reasons of L1 that a dashboard shows as a rate. All tiers' make 114 series, most of them never
counted; `cache_put_losses_total` has each reason without its tier from the start."""


_INTENTS = 32
"""Most intents with series of their own."""

_ORIGINS = ("cache", "agent")

Exemplar: TypeAlias = trace.SpanContext | None
"""The span by which an observation can be found."""


class PrometheusInstrument:
    """Counts into Prometheus metrics; nearly every valid child exists from the start.

    Without a first zero, Prometheus' `rate` misses the first event. Only tiers' reasons of puts
    and intents come when they are needed.

    What happens is tallied in plain numbers, which the metrics take over when somebody looks, and
    every second.

    Args:
        namespace: Of the cache; the label `cache`.
        registry: Where to register; default: see `current_registry`.
        meters: OpenTelemetry instruments that get the same; default: none.
    """

    def __init__(
        self,
        namespace: str,
        registry: CollectorRegistry | None = None,
        meters: Meters | None = None,
    ) -> None:
        found = collectors(registry)
        self._cache = namespace

        self._tallies: list[Tally] = []

        self._series: list[tuple[Any, tuple[str, ...]]] = []

        def of(metric: names.Metric) -> Any:
            return found[metric.name]

        def child_of(metric: names.Metric, *labels: str) -> Any:
            self._series.append((of(metric), labels))
            return of(metric).labels(namespace, *labels)

        def gauge(metric: names.Metric, *labels: str) -> Any:
            return _Gauge(child_of(metric, *labels), meters, metric, (namespace, *labels))

        def children(metric: names.Metric, gone: float | None = None) -> _Children:
            return _Children(of(metric), namespace, gone, meters, metric)

        def tally(metric: names.Metric, *labels: str, into: Sum | None = None) -> Any:
            child = child_of(metric, *labels)
            made: Tally
            attributes = _attributes(metric, (namespace, *labels))
            if metric.kind == "histogram":
                more = None if meters is None else meters.observer(metric, attributes)
                made = Distribution(child, more, into)
            else:
                more_counts = None if meters is None else meters.counter(metric, attributes)
                made = Sum(child, more_counts, into)
            self._tallies.append(made)
            return made

        def each(
            metric: names.Metric, values: Iterable[str], into: Mapping[str, Sum] | None = None
        ) -> dict[Any, Any]:
            return {
                value: tally(metric, value, into=None if into is None else into[value])
                for value in values
            }

        def pairs(metric: names.Metric, one: Iterable[str], other: Iterable[str]) -> dict[Any, Any]:
            expected = (found for found in product(one, other) if _can_be(*found))
            made = {found: tally(metric, *found) for found in expected}
            return _Tallies(lambda key: tally(metric, *key), made)

        # What is observed of each hit, or lookup, counts it as well: a hit changes few numbers.
        self._cost_saved = tally(names.COST_SAVED)
        self._misses = each(names.MISSES, LEVELS)
        self._latency = each(names.LATENCY, LEVELS)
        self._lookup_seconds = each(names.LOOKUP_SECONDS, OUTCOMES, each(names.LOOKUPS, OUTCOMES))
        self._saved = each(names.SAVED, LEVELS, dict.fromkeys(LEVELS, self._cost_saved))
        self._age = each(names.ENTRY_AGE, LEVELS, each(names.HITS, LEVELS))
        self._similarity = each(names.SIMILARITY, ("hit", "miss"))
        self._vetoes = each(names.GUARD_VETOES, _GUARDS)
        self._spent = each(names.SPENT, ("embedding", "verification", "approval"))
        self._dropped = each(names.DROPPED, names.QUEUES)
        self._invalidations = each(
            names.INVALIDATIONS, ("message", "document", "tag", "answer", "user", "writer")
        )
        self._reasons = pairs(names.MISS_REASONS, LEVELS, MISS_REASONS)
        self._bypasses = each(names.BYPASS_REASONS, BYPASS_REASONS)
        self._errors = pairs(names.ERRORS, LEVELS, ERROR_REASONS)
        self._put_reasons = pairs(names.PUT_REASONS, ("l1",), _PUT_REASONS_SHOWN)
        self._puts = pairs(names.PUTS, LEVELS, _PUT_OUTCOMES)
        self._put_outcomes = each(names.PUT_OUTCOMES, PUT_OUTCOMES)
        self._put_losses = each(names.PUT_LOSSES, PUT_REASONS)
        self._verdicts = pairs(
            names.VERDICTS, ("correct", "wrong"), ("feedback", "review", "verify")
        )
        self._compared = each(names.COMPARED_ANSWERS, CHANGE_VERDICTS)
        self._of_intents = _Tallies(lambda key: tally(names.INTENT_ANSWERS, *key), {})
        self._intents: set[str] = set()
        self._judged_misses = each(names.JUDGED_MISSES, ("right", "wrong", "unknown"))
        self._cancelled = each(names.CANCELLED, LEVELS)
        self._stale = tally(names.STALE_HITS)
        self._embedding = tally(names.EMBEDDING_SECONDS)
        self._tokens = tally(names.EMBEDDING_TOKENS)
        self._search = tally(names.SEARCH_SECONDS)
        self._computing = each(names.COMPUTE_SECONDS, _CALLED)
        self._verifying = _Tallies(lambda key: tally(names.VERIFICATION_SECONDS, key), {})
        self._approvals: dict[str, Any] = {}
        self._lag = gauge(names.EVENT_LOOP_LAG)
        self._isolation = tally(names.ISOLATION_VIOLATIONS)
        self._joins = tally(names.FLIGHT_JOINS)
        self._refreshes = each(names.REFRESHES, ("stored", "error", "skipped", "cancelled"))
        self._changes = tally(names.TUNING_CHANGES)
        self._rejected = tally(names.TUNING_REJECTED)
        self._pending = gauge(names.INVALIDATIONS_PENDING)
        self._threshold = gauge(names.SEMANTIC_THRESHOLD)
        self._ttl = {level: gauge(names.TTL_SECONDS, level) for level in LEVELS}
        self._objective = gauge(names.HIT_RATE_OBJECTIVE)
        self._version = gauge(names.TUNING_VERSION)
        self._up = children(names.BACKEND_UP, gone=0)
        self._breaker = children(names.BREAKER_STATE, gone=0)
        self._entries = children(names.ENTRIES)
        self._servers = children(names.REDIS_SERVER, gone=0)
        self._started = children(names.START_TIME)
        self._open_since: float | None = None
        self._build = gauge(names.BUILD_INFO, __version__)
        self._build.set(1)
        self._reported_dropped: dict[str, int] = {}
        self._tally = tally
        self._transitions: dict[tuple[str, str], Any] = {}
        self._reported_transitions: Mapping[tuple[str, State], int] = {}
        self._one_by_one = threading.Lock()
        self._counting = found[COUNTING]
        self._counting.instruments.add(self)
        self._counting.opened(namespace)

    def record(self, record: Record) -> None:
        """Tally a finished operation; the metrics have it after the next `count`."""
        with self._one_by_one:
            if isinstance(record, LookupRecord):
                self._lookup(record, _exemplar() if record.detailed else None)
            else:
                self._other(record)

    def count(self) -> None:
        """Let the metrics take over what was tallied. May be called in any thread."""
        with self._one_by_one:
            # Later ones first: they count into earlier ones.
            for tally in reversed(self._tallies):
                tally.flush()

    def close(self) -> None:
        """Count what waits; with the last one of the namespace its series go."""
        self.count()
        self._counting.closed(self._cache, self._series)

    def _other(self, record: Record) -> None:
        match record:
            case PutRecord():
                self._put_outcomes[record.outcome].amount += 1
                if record.reason:
                    self._put_losses[record.reason].amount += 1
                if record.intent:
                    self._of_intent(record.intent, "agent")
                for part in record.calls:
                    self._puts[part.level, part.outcome].amount += 1
                    if part.reason:
                        self._put_reasons[part.level, part.reason].amount += 1
            case EmbedRecord():
                self._spend("embedding", record.spent_usd)
                self._tokens.amount += record.tokens
                if record.outcome == "ok":
                    exemplar = _exemplar() if record.detailed else None
                    self._embedding.observe(record.seconds, exemplar)
            case InvalidationRecord():
                self._invalidations[record.kind].amount += 1
            case ChangeRecord():
                self._compared[record.verdict].amount += 1
            case LabelRecord():
                self._judged_misses[record.verdict].amount += 1
            case VerdictRecord():
                self._verdicts[record.verdict, record.source].amount += 1
            case SearchRecord():
                if record.outcome == "ok":
                    self._search.observe(record.seconds)
            case VerificationRecord():
                self._verifying[record.outcome].observe(record.seconds)
                self._spend("verification", record.spent_usd)
            case ApprovalRecord():
                self._expect_approvals()
                self._approvals[record.verdict].amount += 1
                self._spend("approval", record.spent_usd)
                if record.seconds is not None:
                    self._approving.observe(record.seconds)
            case ComputeRecord():
                if record.outcome == "joined":
                    self._joins.amount += 1
                elif record.is_own and record.outcome in _CALLED:
                    called = "timeout" if _is_timeout(record.error_type) else record.outcome
                    self._computing[called].observe(record.seconds)
                for level, usd in record.saved_usd.items():
                    self._saved[level].amount += usd
            case RefreshRecord():
                self._refreshes[record.outcome].amount += 1
            case TuneRecord():
                applied = record.outcome == "applied"
                (self._changes if applied else self._rejected).amount += 1

    def _of_intent(self, intent: str, origin: str) -> None:
        # One that nobody configured may be a model's word for a single user.
        self._of_intents[intent if intent in self._intents else REST, origin].amount += 1

    def _know_intents(self, tuning: Tuning) -> None:
        """Give each intent that *tuning* names series of its own, which it keeps."""
        for intent in sorted({*tuning.shared_intents, *tuning.intents} - self._intents):
            if len(self._intents) < _INTENTS:
                self._intents.add(intent)
                for origin in _ORIGINS:
                    _ = self._of_intents[intent, origin]

    def _expect_approvals(self) -> None:
        """Make the series of a part that few caches have."""
        if not self._approvals:
            self._approvals = {
                verdict: self._tally(names.APPROVALS, verdict) for verdict in APPROVAL_VERDICTS
            }
            self._approving = self._tally(names.APPROVAL_SECONDS)

    def _spend(self, kind: str, usd: float) -> None:
        self._spent[kind].amount += usd
        self._cost_saved.amount -= usd

    def _lookup(self, record: LookupRecord, exemplar: Exemplar) -> None:
        if record.outcome == "cancelled":
            self._cancelled["l1" if record.level is None else record.level].amount += 1
            return
        self._lookup_seconds[record.outcome].observe(record.seconds, exemplar)
        if record.outcome == "bypass":
            self._bypasses[record.reason].amount += 1
        elif record.outcome == "hit" and record.intent:
            self._of_intent(record.intent, "cache")
        for part in record.calls:
            level = part.level
            self._latency[level].observe(part.seconds, exemplar)
            if part.outcome == "hit":
                self._age[level].observe(part.age_seconds or 0.0)
                self._saved[level].amount += part.saved_usd
                if part.stale:
                    self._stale.amount += 1
            elif part.outcome == "miss":
                self._misses[level].amount += 1
                self._reasons[level, part.reason].amount += 1
            else:
                self._errors[level, part.reason].amount += 1
                if part.reason == "isolation":
                    self._isolation.amount += 1
            if level == "l2" and part.similarity is not None:
                self._similarity["hit" if part.outcome == "hit" else "miss"].observe(
                    part.similarity
                )
            if part.guard:
                self._vetoes[part.guard].amount += 1

    def report(self, state: CacheState) -> None:
        """Set the gauges, and let the metrics take over what was tallied."""
        if not state.backends:
            self._open_since = None
        elif self._open_since is None:
            self._open_since = time.time()
        self._started.show({} if self._open_since is None else {(): self._open_since})
        # a model that loads is neither up nor down
        up = {name: works for name, works in state.backends.items() if name not in state.loading}
        self._up.show({(name,): works for name, works in up.items()})
        self._servers.show({(run_id,): 1 for run_id in state.servers})
        self._breaker.show({(name,): _STATES[found] for name, found in state.breakers.items()})
        self._entries.show({(level,): count for level, count in state.entries.items()})
        for level in LEVELS:
            self._ttl[level].set(state.tuning.ttl(level))
        self._threshold.set(state.tuning.semantic_threshold)
        self._objective.set(state.tuning.hit_rate_objective)
        self._version.set(state.tuning.version)
        self._pending.set(state.pending_invalidations)
        self._lag.set(state.loop_lag)
        self._build.set(1)
        with self._one_by_one:  # records come in other threads, and a count walks over all tallies
            self._know_intents(state.tuning)
            if "approver" in state.breakers:
                self._expect_approvals()
        for queue, count in state.dropped.items():
            self._dropped[queue].amount += max(0, count - self._reported_dropped.get(queue, 0))
            self._reported_dropped[queue] = count
        # A cache that was closed and opened again has new breakers, which count from 0.
        before, self._reported_transitions = self._reported_transitions, state.transitions
        for key, count in state.transitions.items():
            if key not in self._transitions:
                self._transitions[key] = self._tally(names.BREAKER_TRANSITIONS, *key)
            self._transitions[key].amount += max(0, count - before.get(key, 0))
        self.count()


class _Tallies(dict[Any, Any]):
    """Tallies by label values; one that was not expected is made when it is needed.

    Args:
        make: Makes it.
        made: The expected ones.
    """

    def __init__(self, make: Callable[[Any], Tally], made: Mapping[Any, Tally]) -> None:
        super().__init__(made)
        self._make = make

    def __missing__(self, key: Any) -> Tally:
        found = self[key] = self._make(key)
        return found


def _can_be(one: str, other: str) -> bool:
    """Return whether a tier may report a reason; a series costs as much while it is 0."""
    return one == "l2" or one not in LEVELS or other not in _OF_L2


def _is_timeout(error_type: str) -> bool:
    """Return whether an exception's type is a timeout, of any library."""
    return "timeout" in error_type.lower() or error_type == "DeadlineExceeded"


def _attributes(metric: names.Metric, values: tuple[str, ...]) -> dict[str, str]:
    """Return the labels of a series, by name."""
    return dict(zip((names.CACHE_LABEL, *metric.labels), values, strict=True))


class _Gauge:
    """A gauge's child, and the same in OpenTelemetry."""

    def __init__(
        self, child: Any, meters: Meters | None, metric: names.Metric, values: tuple[str, ...]
    ) -> None:
        self._child = child
        self._show = None if meters is None else meters.gauge(metric, _attributes(metric, values))

    def set(self, value: float) -> None:
        """Set it."""
        self._child.set(value)
        if self._show is not None:
            self._show(value)


class _Children:
    """The children of a gauge that come and go with what they are about.

    Args:
        gauge: Of any cache.
        namespace: Of the cache whose children these are.
        gone: In multiprocess mode, where no value can be taken back, what stands for none; `None`:
            the last one stays.
        meters: OpenTelemetry instruments that get the same, if any.
        metric: The gauge's definition.
    """

    def __init__(
        self,
        gauge: Any,
        namespace: str,
        gone: float | None,
        meters: Meters | None,
        metric: names.Metric,
    ) -> None:
        self._gauge = gauge
        self._meters = meters
        self._metric = metric
        self._gone = gone
        self._namespace = namespace
        self._shown: set[tuple[str, ...]] = set()

    def show(self, found: Mapping[tuple[str, ...], float]) -> None:
        """Show these values by their labels, and no others that were shown before."""
        for labels, value in found.items():
            self._gauge.labels(self._namespace, *labels).set(value)
            if self._meters is not None:
                values = (self._namespace, *labels)
                self._meters.show(self._metric, _attributes(self._metric, values), value)
        for labels in self._shown - found.keys():
            if is_multiprocess():
                if self._gone is not None:
                    self._gauge.labels(self._namespace, *labels).set(self._gone)
            else:
                with contextlib.suppress(KeyError):  # another cache of the namespace was closed
                    self._gauge.remove(self._namespace, *labels)
        self._shown = set(found)


def _exemplar() -> Exemplar:
    """Return the current span, if it is sampled."""
    context = trace.get_current_span().get_span_context()
    return context if context.trace_flags & trace.TraceFlags.SAMPLED and context.is_valid else None
