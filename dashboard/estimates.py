"""What a change would have done, computed once from a look at the log, then only read."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from cache_core.decisions import Decision
from cache_core.intent_tuning import INTENT_PREFIX, unflatten
from cache_core.models import LEVELS, Level
from cache_core.tuning import Tuning
from cache_core.tuning_layers import make_tuning
from cache_core.verdicts import Verdict
from cache_core.whatif import (
    GRID,
    Recommendation,
    SharingEstimate,
    ThresholdEstimate,
    TtlEstimate,
    TtlReport,
    recommend,
    sharing,
    thresholds,
    ttls,
)
from cache_core.whatif.evidence import wilson


class Estimates:
    """What-if over one look at the log.

    Args:
        decisions: Oldest first.
        verdicts: Oldest first.
        tuning: In force.
    """

    def __init__(
        self, decisions: Sequence[Decision], verdicts: Sequence[Verdict], tuning: Tuning
    ) -> None:
        self.decisions = decisions
        self.verdicts = verdicts
        self.tuning = tuning
        self.taken = time.time()
        self._ttls: dict[tuple[Level, float], TtlReport] = {}
        self._recommendations: dict[float, Recommendation] = {}
        self._moved: dict[str, ThresholdEstimate] = {}

    @cached_property
    def curve(self) -> list[ThresholdEstimate]:
        """What each threshold would have done, ascending."""
        return thresholds(self.decisions, self.verdicts, tuning=self.tuning)

    def at(self, threshold: float) -> ThresholdEstimate | None:
        """Return the estimate nearest to *threshold*; `None` below those that were tried."""
        if not self.curve or threshold < GRID[0] - 0.005:
            return None
        return min(self.curve, key=lambda item: abs(item.threshold - threshold))

    def ttl(self, level: Level, proposed: float | None = None) -> TtlReport:
        """Return what other TTLs of a tier would have done, *proposed* among them."""
        seconds = self.tuning.ttl(level) if proposed is None else proposed
        if (level, seconds) not in self._ttls:
            self._ttls[level, seconds] = ttls(
                self.decisions, tuning=self.tuning, level=level, candidates=[seconds]
            )
        return self._ttls[level, seconds]

    def ttl_at(self, level: Level, seconds: float) -> TtlEstimate:
        """Return what one TTL of a tier would have done."""
        found = self.ttl(level, seconds).estimates
        return next(item for item in found if item.ttl_seconds == seconds)

    @cached_property
    def sharing(self) -> list[SharingEstimate]:
        """What sharing each intent would have done."""
        return sharing(self.decisions, tuning=self.tuning)

    def recommend(self, max_wrong_share: float) -> Recommendation:
        """Return the threshold that keeps the wrong share within a limit."""
        if max_wrong_share not in self._recommendations:
            self._recommendations[max_wrong_share] = recommend(
                self.decisions, self.verdicts, tuning=self.tuning, max_wrong_share=max_wrong_share
            )
        return self._recommendations[max_wrong_share]

    def proposed(self, changes: Mapping[str, Any]) -> ThresholdEstimate | None:
        """Return what the thresholds among *changes*, of all and of single intents, would do."""
        moved = {name: new for name, new in changes.items() if name.endswith("semantic_threshold")}
        if not moved or not self.decisions:
            return None
        key = repr(sorted(moved.items()))
        if key not in self._moved:
            after = self._after(moved)
            if after is None:
                return None
            (self._moved[key],) = thresholds(self.decisions, self.verdicts, tuning=after, grid=[])
        return self._moved[key]

    def expected(self, changes: Mapping[str, Any]) -> list[tuple[str, float]]:
        """Return the hit rate that each of *changes* alone would have had, where that is known.

        Thresholds, of all and of single intents, are taken together.
        """
        found: list[tuple[str, float]] = []
        estimate = self.proposed(changes)
        if estimate is not None:
            found.append(("semantic_threshold", estimate.hit_rate))
        for level in LEVELS[:2]:
            seconds = changes.get(f"{level}_ttl")
            if seconds is not None:
                found.append((f"{level}_ttl", self.ttl_at(level, float(seconds)).hit_rate))
        intents = self._newly_shared(changes)
        if intents:
            won = sum(item.misses_other_scope for item in self.sharing if item.intent in intents)
            lookups = sum(item.outcome != "bypass" for item in self.decisions)
            if lookups:
                found.append(("shared_intents", self.hit_rate + won / lookups))
        return found

    def unknown(self, changes: Mapping[str, Any]) -> list[str]:
        """Return which of *changes* no replay says anything about."""
        known = {"semantic_threshold", "l1_ttl", "l2_ttl", "sharing", "shared_intents"}
        return [
            name
            for name in changes
            if name not in known
            and not (
                name.startswith(INTENT_PREFIX) and name.endswith((".semantic_threshold", ".shared"))
            )
        ]

    def _newly_shared(self, changes: Mapping[str, Any]) -> set[str]:
        after = self._after(changes)
        if after is None:
            return set()
        return {item.intent for item in self.sharing if item.intent and after.shares(item.intent)}

    def _after(self, changes: Mapping[str, Any]) -> Tuning | None:
        flat = {**self.tuning.flat(), **changes}
        kept = {name: value for name, value in flat.items() if value is not None}
        try:
            return make_tuning(("proposed", unflatten(kept)))[0]
        except ValueError:
            # What is out of bounds is refused when it is applied, with the reason.
            return None

    @cached_property
    def hit_rate(self) -> float:
        """The recorded one, 0..1."""
        return rate(self.decisions)[0]


def rate(decisions: Sequence[Decision]) -> tuple[float, float, float, int]:
    """Return the hit rate of *decisions*, its 95 % interval (Wilson), and of how many lookups."""
    total = sum(item.outcome != "bypass" for item in decisions)
    hits = sum(item.outcome == "hit" for item in decisions)
    low, high = wilson(hits, total)
    return (hits / total if total else 0.0), low, high, total
