"""Sums of what caches counted in a period, and their arithmetic.

They name tiers, outcomes, reasons and intent labels: no text, no user, no key.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from cache_core.model.stored import Format, Number, Whole

LATENCIES = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
)  # fmt: skip
"""Upper bounds, in seconds, of the buckets by which latencies are counted; the last has none."""

REST = "*"
"""Name of all intents, or prices, beyond those that are counted apart; no intent has it."""

_INTENTS = 50
"""Intents of a period that are counted apart: those with the most lookups."""

_PRICES = 8
_CENTS = 6
"""Decimals of a stored sum of money or time."""

Count = Annotated[Whole, Field(ge=0)]
Counts = tuple[Count, ...]
_Name = Annotated[str, Field(pattern=r"\A[\w:.*-]{1,64}\z")]
_Buckets = Annotated[Counts, Field(min_length=len(LATENCIES) + 1, max_length=len(LATENCIES) + 1)]
_Reasons = Mapping[_Name, Mapping[_Name, Count]]

_NOTHING: Mapping[str, Any] = {}
_NO_LATENCY = (0,) * (len(LATENCIES) + 1)


class IntentSums(NamedTuple):
    """Sums of one intent.

    Attributes:
        l1, l2: Lookups that these tiers answered with an answer of the intent.
        partial: Lookups that found only the intent, or documents with it.
        computed: Answers of the intent that the agent computed, refreshes included. A miss has no
            intent until then.
        other_scope: Lookups that missed although another user had an answer of the intent.
        correct, wrong: Verdicts on its answers.
        saved_usd: Saved by the lookups that found it.
    """

    l1: Count = 0
    l2: Count = 0
    partial: Count = 0
    computed: Count = 0
    other_scope: Count = 0
    correct: Count = 0
    wrong: Count = 0
    saved_usd: Number = 0.0

    @property
    def hits(self) -> int:
        """Lookups answered."""
        return self.l1 + self.l2

    @property
    def asked(self) -> int:
        """Lookups answered, and answers computed because there was none."""
        return self.hits + self.computed

    @property
    def hit_rate(self) -> float | None:
        """Share of *asked* that were hits, 0 to 1; `None` without any."""
        return self.hits / self.asked if self.asked else None


class Sums(NamedTuple):
    """Sums of a period, over all replicas.

    Attributes:
        outcomes: Lookups by outcome; each has exactly one.
        reasons: Lookups without an answer by their one reason.
        hits: By tier: lookups that it had something for.
        misses, errors: By tier and reason.
        saved: USD saved, by tier.
        spent_usd: Spent on embeddings and verifications.
        unanswered_usd: Price of the answers to lookups that ended as partial, miss or error.
        prices: Answers saved, by the price in force then, in USD, of an answer without one of its
            own.
        stale: Hits older than their TTL: they save nothing.
        hit_latency, other_latency: Lookups with and without an answer, by latency: see `LATENCIES`.
        seconds: Duration of all lookups.
        verdicts: By source and verdict.
        computed, compute_seconds: Computations by `get_or_compute`, and their duration.
        joined: Callers that waited for another's computation.
        intents: Sums of each intent; of a miss it is known once its answer was computed.
    """

    outcomes: Mapping[_Name, Count] = _NOTHING
    reasons: Mapping[_Name, Count] = _NOTHING
    hits: Mapping[_Name, Count] = _NOTHING
    misses: _Reasons = _NOTHING
    errors: _Reasons = _NOTHING
    saved: Mapping[_Name, Number] = _NOTHING
    spent_usd: Number = 0.0
    unanswered_usd: Number = 0.0
    prices: Mapping[_Name, Count] = _NOTHING
    stale: Count = 0
    hit_latency: _Buckets = _NO_LATENCY
    other_latency: _Buckets = _NO_LATENCY
    seconds: Number = 0.0
    verdicts: Mapping[_Name, Mapping[_Name, Count]] = _NOTHING
    computed: Count = 0
    compute_seconds: Number = 0.0
    joined: Count = 0
    intents: Mapping[_Name, IntentSums] = _NOTHING

    @property
    def lookups(self) -> int:
        """All lookups."""
        return sum(self.outcomes.values())

    @property
    def answerable(self) -> int:
        """Lookups without those that bypassed the cache."""
        return self.lookups - self.outcomes.get("bypass", 0)

    @property
    def answered(self) -> int:
        """Lookups that were hits."""
        return self.outcomes.get("hit", 0)

    @property
    def hit_rate(self) -> float | None:
        """The overall hit rate, 0 to 1; `None` without lookups that could be answered."""
        return _share(self.answered, self.answerable)

    def served(self, level: str) -> float | None:
        """Return the share of the answerable lookups that a tier had something for, 0 to 1."""
        return _share(self.hits.get(level, 0), self.answerable)

    def tier_rate(self, level: str) -> float | None:
        """Return the hit rate of a tier: its hits / (its hits + misses), 0 to 1."""
        hits = self.hits.get(level, 0)
        return _share(hits, hits + sum(self.misses.get(level, {}).values()))

    @property
    def saved_usd(self) -> float:
        """Gross saving: of all tiers."""
        return sum(self.saved.values())

    @property
    def net_usd(self) -> float:
        """Saving less what embeddings and verifications cost."""
        return self.saved_usd - self.spent_usd

    @property
    def full_usd(self) -> float:
        """Cost of these lookups had there been no cache."""
        return self.saved.get("l1", 0.0) + self.saved.get("l2", 0.0) + self.unanswered_usd

    @property
    def saved_share(self) -> float | None:
        """Net saving as a share of *full_usd*; `None` where nothing had a price."""
        return self.net_usd / self.full_usd if self.full_usd > 0 else None

    @property
    def saved_seconds(self) -> float | None:
        """Time saved by hits, at the mean duration of a computation; `None` if none was measured.

        Computations outside `get_or_compute` are not measured.
        """
        return self.answered * self.compute_seconds / self.computed if self.computed else None

    @property
    def wrong(self) -> int:
        """Verdicts that an answer was wrong."""
        return sum(found.get("wrong", 0) for found in self.verdicts.values())

    @property
    def judged(self) -> int:
        """Verdicts."""
        return sum(sum(found.values()) for found in self.verdicts.values())

    def quantile(self, share: float, *, hits_only: bool = False) -> float | None:
        """Return a quantile of the latency in seconds, linear within its bucket.

        Args:
            share: Which one, 0 to 1; 0.5 is the median.
            hits_only: Whether lookups without an answer are left out.

        Returns:
            The quantile, as Prometheus' `histogram_quantile` has it; `None` without lookups.
        """
        buckets = self.hit_latency if hits_only else _sum_of(self.hit_latency, self.other_latency)
        rank, below = share * sum(buckets), 0
        if not sum(buckets):
            return None
        for number, count in enumerate(buckets[: len(LATENCIES)]):
            if count and below + count >= rank:
                low = LATENCIES[number - 1] if number else 0.0
                return low + (LATENCIES[number] - low) * (rank - below) / count
            below += count
        return LATENCIES[-1]

    def within(self, seconds: float) -> float | None:
        """Return the share of hits within one of `LATENCIES`, 0 to 1; `None` without hits."""
        fast = sum(self.hit_latency[: LATENCIES.index(seconds) + 1])
        return _share(fast, sum(self.hit_latency))


NONE = Sums()


class StoredSums(NamedTuple):
    """Sums in the store.

    Attributes:
        sums: The sums.
        writers: Names of the last rows that were merged into these: they are not added again.
    """

    sums: Sums
    writers: tuple[_Name, ...] = ()


FORMAT = Format(StoredSums, (1,))


def added(every: Iterable[Sums]) -> Sums:
    """Return the sum of *every*."""
    return reduce(lambda first, second: _joined(first, second, operator.add), every, NONE)


def since(later: Sums, earlier: Sums) -> Sums:
    """Return what was counted between two states of the same counters, without zeros."""
    return Sums._make(_nonzero(value) for value in _joined(later, earlier, operator.sub))


def lean(sums: Sums) -> Sums:
    """Return *sums* as they are stored: without zeros, of bounded size, money rounded."""
    intents = _largest(sums.intents, _INTENTS, lambda found: found.asked + found.partial)
    prices = _largest(sums.prices, _PRICES, lambda count: count)
    bounded = sums._replace(intents=intents, prices=prices)
    return Sums._make(_rounded(_nonzero(value)) for value in bounded)


def _largest(
    counts: Mapping[str, Any], keep: int, size: Callable[[Any], float]
) -> Mapping[str, Any]:
    """Return the *keep* largest of *counts*, and the sum of the others under `REST`."""
    if len(counts) <= keep:
        return counts
    names = sorted(counts, key=lambda name: (name == REST, -size(counts[name]), name))
    rest = [counts[name] for name in names[keep:]]
    kept = {name: counts[name] for name in names[:keep]}
    return {**kept, REST: reduce(lambda a, b: _joined(a, b, operator.add), rest)}


def _joined(first: Any, second: Any, how: Callable[[Any, Any], Any]) -> Any:
    """Return two trees of numbers added, or subtracted where all of *second* is in *first*."""
    # most are numbers, and to ask whether one is a mapping takes as long as ten additions
    if isinstance(first, (int, float)):
        return how(first, second)
    if isinstance(first, Mapping):
        both = {name: _joined(first[name], second[name], how) for name in first if name in second}
        return {**first, **second, **both}
    make = getattr(type(first), "_make", tuple)
    return make(_joined(*pair, how) for pair in zip(first, second, strict=True))


def _nonzero(tree: Any) -> Any:
    """Return a tree of numbers without the names whose numbers are all 0."""
    if not isinstance(tree, Mapping):
        return tree
    inner = {name: _nonzero(value) for name, value in tree.items()}
    return {
        name: value
        for name, value in inner.items()
        if (any(value) if isinstance(value, tuple) else value)
    }


def _rounded(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {name: _rounded(value) for name, value in tree.items()}
    if isinstance(tree, tuple):
        return getattr(type(tree), "_make", tuple)(map(_rounded, tree))
    return round(tree, _CENTS) if isinstance(tree, float) else tree


def _sum_of(first: Sequence[int], second: Sequence[int]) -> Sequence[int]:
    return [a + b for a, b in zip(first, second, strict=True)]


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
