"""Counts of a cache: the source of `cache.metrics` and `get_metrics()`."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cache_core.config.intents import label_of
from cache_core.model.values import LEVELS, OUTCOMES, PUT_OUTCOMES, Level
from cache_core.observability.churn import ChurnWatch
from cache_core.observability.evidence import Evidence
from cache_core.observability.hours import Hours
from cache_core.observability.instruments import CacheState
from cache_core.observability.records import (
    APPROVAL_VERDICTS,
    ApprovalRecord,
    ChangeRecord,
    ComputeRecord,
    EmbedRecord,
    LabelRecord,
    LookupRecord,
    PutRecord,
    Record,
    RefreshRecord,
    TierRecord,
    TuneRecord,
    VerdictRecord,
    VerificationRecord,
)
from cache_core.observability.sums import LATENCIES, NONE, REST, IntentSums, Sums, added
from cache_core.policy.freshness import Freshness

_LATENCIES = 2_000
_INTENTS = 64


@dataclass(slots=True)
class _Intent:
    """Counts of an intent: see `IntentSums`."""

    l1: int = 0
    l2: int = 0
    partial: int = 0
    computed: int = 0
    other_scope: int = 0
    correct: int = 0
    wrong: int = 0
    saved_usd: float = 0.0


class CacheStats:
    """Counts of one cache since its start, or the last `reset`.

    The counting contract:

    - Every completed lookup ends in exactly one of `hit` (has a response), `partial` (only intent
      and/or documents), `miss`, `error` (nothing, and a tier that was needed failed) and `bypass`
      (not cacheable): `sum(outcomes) == lookups`, in an outage too. A cancelled lookup counts only
      as cancelled.
    - A tier counts when it was *needed*, as exactly one of hit, miss and error: L1 always; L2 when
      L1 gave no response; L3 and L4 when L2 gave none either. A tier that is off counts nothing.
    - Every miss and every error has one reason.
    - The overall hit rate is hits / (lookups - bypass), from lookups, never from sums over tiers.
      A tier's rate is its hits / (its hits + misses).
    - Every put that raises no exception ends in exactly one of `PUT_OUTCOMES`, and has
      one reason unless it was stored whole: `sum(put_outcomes) == ` puts. `puts` and `put_reasons`
      count its parts, one per tier that it offered something to.
    - A hit of L1 or L2 saves the answer; L3 and L4 save only where their value was handed out:
      by `lookup`, or by `get_or_compute` to a compute that takes it, once per computation.
      A stale hit saves nothing: it is served because computing failed.

    It is an `Instrument` and a `Sink`; counters are plain integers.

    Attributes:
        hours: The same by hour, for the history in the store; `reset` leaves that as it is.
    """

    def __init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        """Start as a new process: a forked child, whose parent writes what it counted before."""
        self._before = NONE
        self._zero()
        self.hours = Hours(self.sums)

    def reset(self) -> None:
        """Start counting from zero."""
        self._before = self.sums()
        self._zero()

    def _zero(self) -> None:
        # Two event loops may count concurrently; a forked child must not wait for its parent's.
        self._counting = threading.Lock()
        self.churn = ChurnWatch()
        self.lookups = 0
        self.cancelled = 0
        self.outcomes: Counter[str] = Counter(dict.fromkeys(OUTCOMES, 0))
        self.hits: Counter[Level] = Counter(dict.fromkeys(LEVELS, 0))
        self.misses: Counter[Level] = Counter(dict.fromkeys(LEVELS, 0))
        self.errors: Counter[Level] = Counter(dict.fromkeys(LEVELS, 0))
        self.miss_reasons: Counter[tuple[Level, str]] = Counter()
        self.error_reasons: Counter[tuple[Level, str]] = Counter()
        self.bypass_reasons: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.intents: dict[str, _Intent] = {}
        self.hit_latency = [0] * (len(LATENCIES) + 1)
        self.other_latency = [0] * (len(LATENCIES) + 1)
        self.stale_hits = 0
        self.joined = 0
        self.computed = 0
        self.compute_seconds = 0.0
        self.refreshes: Counter[str] = Counter(stored=0, error=0, skipped=0, cancelled=0)
        self.put_outcomes: Counter[str] = Counter(dict.fromkeys(PUT_OUTCOMES, 0))
        self.put_outcome_reasons: Counter[tuple[str, str]] = Counter()
        self.puts: Counter[tuple[Level, str]] = Counter()
        self.put_reasons: Counter[tuple[Level, str]] = Counter()
        self.other_scope_intents: Counter[str] = Counter()
        self.verdicts: Counter[tuple[str, str]] = Counter()
        self.approvals: Counter[str] = Counter(dict.fromkeys(APPROVAL_VERDICTS, 0))
        self.judged_misses: Counter[str] = Counter(right=0, wrong=0, unknown=0)
        self.freshness: dict[str, Freshness] = {}
        self.tunings: Counter[str] = Counter(applied=0, rejected=0)
        self.saved_usd: dict[Level, float] = dict.fromkeys(LEVELS, 0.0)
        self.spent_usd = 0.0
        self.embedding_tokens = 0
        self.dropped = 0
        self.seconds = 0.0
        self._recent: deque[float] = deque(maxlen=_LATENCIES)

    def report(self, state: CacheState) -> None:
        """Do nothing: only finished operations are counted."""

    def record(self, record: Record) -> None:
        """Count a finished operation."""
        with self._counting:
            if isinstance(record, LookupRecord):
                self._lookup(record)
            else:
                self._other(record)

    def note(self, evidence: Evidence) -> None:
        """Compare a lookup without an answer with those before it."""
        where = evidence.where
        if evidence.result.response is None and (where.context or where.history) is not None:
            self.churn.note(evidence.query, where)

    def _other(self, record: Record) -> None:
        match record:
            case EmbedRecord():
                self.spent_usd += record.spent_usd
                self.embedding_tokens += record.tokens
            case VerificationRecord():
                self.spent_usd += record.spent_usd
            case ApprovalRecord():
                self.approvals[record.verdict] += 1
                self.spent_usd += record.spent_usd
            case PutRecord():
                self.put_outcomes[record.outcome] += 1
                if record.reason:
                    self.put_outcome_reasons[record.outcome, record.reason] += 1
                for part in record.calls:
                    self.puts[part.level, part.outcome] += 1
                    if part.reason:
                        self.put_reasons[part.level, part.reason] += 1
                if record.intent:
                    self._intent(record.intent).computed += 1
            case ComputeRecord():
                self.joined += record.outcome == "joined"
                if record.is_own and record.outcome == "ok":
                    self.computed += 1
                    self.compute_seconds += record.seconds
                for level, usd in record.saved_usd.items():
                    self.saved_usd[level] += usd
            case RefreshRecord():
                self.refreshes[record.outcome] += 1
            case VerdictRecord():
                self.verdicts[record.source, record.verdict] += 1
                if record.intent:
                    found = self._intent(record.intent)
                    found.correct += record.verdict == "correct"
                    found.wrong += record.verdict == "wrong"
            case LabelRecord():
                self.judged_misses[record.verdict] += 1
            case ChangeRecord():
                known = record.intent in self.freshness or len(self.freshness) < _INTENTS
                life = self.freshness.setdefault(record.intent if known else "", Freshness())
                if record.failed:
                    life.failed += 1
                elif record.unknown:
                    life.unknown += 1
                else:
                    life.note(record.age, changed=record.changed, expired=record.expired)
            case TuneRecord():
                self.tunings[record.outcome] += 1

    def _lookup(self, record: LookupRecord) -> None:
        if record.outcome == "cancelled":
            self.cancelled += 1
            return
        self.lookups += 1
        self.outcomes[record.outcome] += 1
        seconds, intent = record.seconds, record.intent
        self.seconds += seconds
        self._recent.append(seconds)
        bucket = bisect_left(LATENCIES, seconds)
        found = (self.intents.get(intent) or self._intent(intent)) if intent else None
        if found is not None:
            found.saved_usd += record.saved_usd
        if record.outcome == "hit":
            self.hit_latency[bucket] += 1
            if record.stale:
                self.stale_hits += 1
            if found is None:
                pass
            elif record.level == "l1":
                found.l1 += 1
            else:
                found.l2 += 1
        else:
            self.other_latency[bucket] += 1
            self.reasons[record.reason] += 1
            if record.outcome == "bypass":
                self.bypass_reasons[record.reason] += 1
            if found is not None:
                found.partial += 1
        for part in record.calls:
            self._tier(part)

    def _tier(self, part: TierRecord) -> None:
        level = part.level
        if part.outcome == "hit":
            self.hits[level] += 1
            self.saved_usd[level] += part.saved_usd
        elif part.outcome == "miss":
            self.misses[level] += 1
            self.miss_reasons[level, part.reason] += 1
            if part.reason == "other_scope":
                self._other_scope(part.other_intent)
        else:
            self.errors[level] += 1
            self.error_reasons[level, part.reason] += 1

    def _other_scope(self, intent: str) -> None:
        if intent in self.other_scope_intents or len(self.other_scope_intents) < _INTENTS:
            self.other_scope_intents[intent] += 1
        if label_of(intent):
            self._intent(intent).other_scope += 1

    def _intent(self, label: str) -> _Intent:
        """Return the counts of an intent; those of the rest for one too many."""
        found = self.intents.get(label)
        if found is None:
            name = label if len(self.intents) < _INTENTS else REST
            found = self.intents.setdefault(name, _Intent())
        return found

    def sums(self) -> Sums:
        """Return what was counted since the process started, whatever was reset since."""
        with self._counting:
            now = Sums(
                outcomes=dict(self.outcomes),
                reasons={name: count for name, count in self.reasons.items() if name},
                hits={str(level): count for level, count in self.hits.items()},
                misses=_nested(self.miss_reasons),
                errors=_nested(self.error_reasons),
                saved={str(level): usd for level, usd in self.saved_usd.items()},
                spent_usd=self.spent_usd,
                stale=self.stale_hits,
                hit_latency=tuple(self.hit_latency),
                other_latency=tuple(self.other_latency),
                seconds=self.seconds,
                verdicts=_nested(self.verdicts),
                computed=self.computed,
                compute_seconds=self.compute_seconds,
                joined=self.joined,
                intents={name: IntentSums(**asdict(found)) for name, found in self.intents.items()},
            )
            return added([self._before, now])

    @property
    def l1_hits(self) -> int:
        """Hits of L1."""
        return self.hits["l1"]

    @property
    def l2_hits(self) -> int:
        """Hits of L2."""
        return self.hits["l2"]

    @property
    def l3_hits(self) -> int:
        """Hits of L3."""
        return self.hits["l3"]

    @property
    def l4_hits(self) -> int:
        """Hits of L4."""
        return self.hits["l4"]

    @property
    def l1_misses(self) -> int:
        """Misses of L1."""
        return self.misses["l1"]

    @property
    def l2_misses(self) -> int:
        """Misses of L2."""
        return self.misses["l2"]

    @property
    def l3_misses(self) -> int:
        """Misses of L3."""
        return self.misses["l3"]

    @property
    def l4_misses(self) -> int:
        """Misses of L4."""
        return self.misses["l4"]

    @property
    def cost_saved_usd(self) -> float:
        """Net savings in USD: of hits, less the cost of embeddings, verifications and approvals."""
        return sum(self.saved_usd.values()) - self.spent_usd

    @property
    def hit_rate(self) -> float:
        """Overall hit rate, 0..1."""
        return _ratio(self.outcomes["hit"], self.lookups - self.outcomes["bypass"])

    def _quantiles_ms(self) -> dict[str, float]:
        ordered = sorted(self._recent)
        return {f"p{share}": _quantile_ms(ordered, share / 100) for share in (50, 95, 99)}

    def snapshot(self) -> dict[str, Any]:
        """Return all counts as JSON values."""
        answered = self.lookups - self.outcomes["bypass"]
        percent: dict[str, float] = {"overall": round(100 * self.hit_rate, 2)}
        for level in LEVELS:
            asked = self.hits[level] + self.misses[level]
            percent[level] = round(100 * _ratio(self.hits[level], asked), 2)
        return {
            "hit_rates": percent,
            "average_latency_ms": round(1000 * _ratio(self.seconds, self.lookups), 3),
            "operations": self.lookups,
            "cost_savings_usd": round(self.cost_saved_usd, 6),
            "latency_ms": self._quantiles_ms(),
            "outcomes": dict(self.outcomes),
            "cancelled": self.cancelled,
            "tiers": {
                level: {
                    "hits": self.hits[level],
                    "misses": self.misses[level],
                    "errors": self.errors[level],
                    "served_share": round(_ratio(self.hits[level], answered), 4),
                    "saved_usd": round(self.saved_usd[level], 6),
                }
                for level in LEVELS
            },
            "miss_reasons": _nested(self.miss_reasons),
            "error_reasons": _nested(self.error_reasons),
            "bypass_reasons": dict(self.bypass_reasons),
            "stale_hits": self.stale_hits,
            "joined": self.joined,
            "refreshes": dict(self.refreshes),
            "put_outcomes": dict(self.put_outcomes),
            "put_outcome_reasons": _nested(self.put_outcome_reasons),
            "puts": _nested(self.puts),
            "put_reasons": _nested(self.put_reasons),
            "verdicts": _nested(self.verdicts),
            "approvals": dict(self.approvals),
            "judged_misses": dict(self.judged_misses),
            "missed_hit_rate": round(_missed(self.judged_misses), 4),
            "freshness": {
                intent: found.to_json() for intent, found in sorted(self.freshness.items())
            },
            "tuning": dict(self.tunings),
            "spent_usd": round(self.spent_usd, 6),
            "embedding_tokens": self.embedding_tokens,
        }


def _missed(judged: Mapping[str, int]) -> float:
    """Return the share of the misses of which it is known that would have been right hits."""
    return _ratio(judged["right"], judged["right"] + judged["wrong"])


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _nested(
    counts: Mapping[tuple[str, str], int] | Mapping[tuple[Level, str], int],
) -> dict[str, dict[str, int]]:
    nested: dict[str, dict[str, int]] = {}
    for (level, name), count in sorted(counts.items()):
        nested.setdefault(level, {})[name] = count
    return nested


def _quantile_ms(ordered: list[float], share: float) -> float:
    if not ordered:
        return 0.0
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000, 3)
