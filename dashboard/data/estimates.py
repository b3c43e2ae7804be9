"""Estimates of a change's effect, computed once from a snapshot of the log, then only read."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from cache_core.config.intents import INTENT_PREFIX, unflatten
from cache_core.config.layers import make_tuning
from cache_core.config.looser import loosened
from cache_core.config.tuning import Tuning
from cache_core.model.values import LEVELS, Level
from cache_core.observability.decisions import Decision
from cache_core.observability.judged import LEAST_EVIDENCE, wilson
from cache_core.observability.verdicts import Verdict
from cache_core.operations.learning import Label
from cache_core.whatif import (
    GRID,
    Recommendation,
    ShadowEstimate,
    SharingEstimate,
    ThresholdEstimate,
    TtlEstimate,
    TtlRecommendation,
    TtlReport,
    recommend_ttl,
    shadows,
    shadows_by_intent,
    sharing,
    thresholds,
    ttls,
)
from cache_core.whatif.threshold import recommend_from

_UNPROVEN = frozenset({"max_wrong", "guards", "sharing", "personal", "promote_after"})
"""Fields for whose loosening the log has no evidence."""


class Estimates:
    """Estimates over one snapshot of the log.

    Args:
        decisions: Decisions, oldest first.
        verdicts: Verdicts, oldest first.
        tuning: The tuning in force.
        freshness: Comparisons of answers, by replica; see `recommend_ttl`.
        labels: Labels of misses, oldest first.
    """

    def __init__(
        self,
        decisions: Sequence[Decision],
        verdicts: Sequence[Verdict],
        tuning: Tuning,
        freshness: Sequence[Mapping[str, Any]] = (),
        labels: Sequence[Label] = (),
    ) -> None:
        self.decisions = decisions
        self.verdicts = verdicts
        self.tuning = tuning
        self.freshness = freshness
        self.labels = labels
        self.taken = time.time()
        self._ttls: dict[tuple[Level, float], TtlReport] = {}
        self._recommendations: dict[float, Recommendation] = {}
        self._moved: dict[str, ThresholdEstimate] = {}
        self._shadows: dict[float, ShadowEstimate] = {}
        self._shadows_by_intent: dict[float, dict[str, ShadowEstimate]] = {}

    @cached_property
    def curve(self) -> list[ThresholdEstimate]:
        """The effect of each threshold, ascending."""
        return thresholds(self.decisions, self.verdicts, tuning=self.tuning)

    def at(self, threshold: float) -> ThresholdEstimate | None:
        """Return the estimate nearest to *threshold*; `None` below the tried ones."""
        if not self.curve or threshold < GRID[0] - 0.005:
            return None
        return min(self.curve, key=lambda item: abs(item.threshold - threshold))

    def shadow(self, max_wrong: float) -> ShadowEstimate:
        """Return what the learned policy would have served within *max_wrong*."""
        if max_wrong not in self._shadows:
            (self._shadows[max_wrong],) = shadows(
                self.decisions, self.verdicts, self.labels, tuning=self.tuning, shares=[max_wrong]
            )
        return self._shadows[max_wrong]

    def shadow_by_intent(self, max_wrong: float) -> dict[str, ShadowEstimate]:
        """Return the same for each intent, most lookups first."""
        if max_wrong not in self._shadows_by_intent:
            self._shadows_by_intent[max_wrong] = shadows_by_intent(
                self.decisions, self.verdicts, self.labels, tuning=self.tuning, max_wrong=max_wrong
            )
        return self._shadows_by_intent[max_wrong]

    def ttl(self, level: Level, proposed: float | None = None) -> TtlReport:
        """Return the effects of other TTLs of a tier, including *proposed*."""
        seconds = self.tuning.ttl(level) if proposed is None else proposed
        if (level, seconds) not in self._ttls:
            self._ttls[level, seconds] = ttls(
                self.decisions, tuning=self.tuning, level=level, candidates=[seconds]
            )
        return self._ttls[level, seconds]

    def ttl_at(self, level: Level, seconds: float) -> TtlEstimate:
        """Return the effect of one TTL of a tier."""
        found = self.ttl(level, seconds).estimates
        return next(item for item in found if item.ttl_seconds == seconds)

    def recommend_ttl(self, level: Level) -> TtlRecommendation:
        """Return the recommended TTL of a tier of answers."""
        return recommend_ttl(self.decisions, self.freshness, tuning=self.tuning, level=level)

    def unjudged(self, changes: Mapping[str, Any]) -> bool:
        """Return whether *changes* serve answers more widely, of which too few were judged."""
        then, now = self.proposed(changes), self.at(self.tuning.semantic_threshold)
        if then is not None and now is not None and then.hits > now.hits and not then.enough:
            return True
        after = self._after(changes)
        if after is None:
            return False
        unproven = _UNPROVEN.intersection(loosened(self.tuning, after))
        share = changes.get("max_wrong")
        if share and not any(name.endswith(".max_wrong") for name in changes):
            found = self.shadow(share)
            if found.enough and found.newly.judged >= LEAST_EVIDENCE:
                unproven -= {"max_wrong"}
        return bool(unproven)

    @property
    def price(self) -> str:
        """The price by which money is computed, in words."""
        own, default = self.tuning.saves("l1", None), Tuning().saves("l1", None)
        source = "the default price" if own == default else "your price"
        return f"at {own:.6g} USD an answer ({source}), or its own cost_usd"

    @cached_property
    def sharing(self) -> list[SharingEstimate]:
        """The effect of sharing each intent."""
        return sharing(self.decisions, tuning=self.tuning)

    def recommend(self, max_wrong_share: float) -> Recommendation:
        """Return the recommended threshold for a limit on the wrong share."""
        if max_wrong_share not in self._recommendations:
            self._recommendations[max_wrong_share] = recommend_from(
                self.curve, tuning=self.tuning, max_wrong_share=max_wrong_share
            )
        return self._recommendations[max_wrong_share]

    def proposed(self, changes: Mapping[str, Any]) -> ThresholdEstimate | None:
        """Return the effect of the thresholds among *changes*, of all and of single intents."""
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
        """Return the hit rate of each of *changes* alone, where it can be estimated.

        Thresholds, of all and of single intents, are combined.
        """
        found: list[tuple[str, float]] = []
        estimate = self.proposed(changes)
        if estimate is not None:
            found.append(("semantic_threshold", estimate.hit_rate))
        share = changes.get("max_wrong")
        if share and self.shadow(share).searched:
            found.append(("max_wrong", self.shadow(share).hit_rate))
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
        """Return those of *changes* that no replay can estimate."""
        known = {"semantic_threshold", "l1_ttl", "l2_ttl", "sharing", "shared_intents"}
        if changes.get("max_wrong"):
            known.add("max_wrong")
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
            # an out-of-bounds value is rejected, with the reason, when it is applied
            return None

    @cached_property
    def hit_rate(self) -> float:
        """The recorded hit rate, 0 to 1."""
        return rate(self.decisions)[0]


def rate(decisions: Sequence[Decision]) -> tuple[float, float, float, int]:
    """Return the hit rate of *decisions*, its 95 % interval (Wilson), and the number of lookups."""
    total = sum(item.outcome != "bypass" for item in decisions)
    hits = sum(item.outcome == "hit" for item in decisions)
    low, high = wilson(hits, total)
    return (hits / total if total else 0.0), low, high, total
