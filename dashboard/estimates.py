"""What a change would have done, computed once from a look at the log, then only read."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cache_core.decisions import Decision
from cache_core.live_tuning import TuningChange
from cache_core.models import LEVELS, Level
from cache_core.tuning import Tuning, make_tuning, unflatten
from cache_core.verdicts import Verdict
from cache_core.whatif import (
    Recommendation,
    SharingEstimate,
    ThresholdEstimate,
    TtlReport,
    recommend,
    sharing,
    thresholds,
    ttls,
)

GRID = tuple(round(0.5 + number / 100, 2) for number in range(51))
_Z = 1.96


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
        self._ttls: dict[Level, TtlReport] = {}
        self._recommendations: dict[float, Recommendation] = {}

    @cached_property
    def curve(self) -> list[ThresholdEstimate]:
        """What each threshold would have done, ascending."""
        return thresholds(self.decisions, self.verdicts, tuning=self.tuning, grid=GRID)

    def at(self, threshold: float) -> ThresholdEstimate | None:
        """Return the estimate nearest to *threshold*; `None` below those that were tried."""
        if not self.curve or threshold < GRID[0] - 0.005:
            return None
        return min(self.curve, key=lambda item: abs(item.threshold - threshold))

    def ttl(self, level: Level) -> TtlReport:
        """Return what other TTLs of a tier would have done."""
        if level not in self._ttls:
            self._ttls[level] = ttls(self.decisions, tuning=self.tuning, level=level)
        return self._ttls[level]

    @cached_property
    def sharing(self) -> list[SharingEstimate]:
        """What sharing each intent would have done."""
        return sharing(self.decisions, tuning=self.tuning)

    def recommend(self, max_wrong_share: float) -> Recommendation:
        """Return the threshold that keeps the wrong share within a limit."""
        if max_wrong_share not in self._recommendations:
            self._recommendations[max_wrong_share] = recommend(
                self.decisions, self.verdicts, tuning=self.tuning,
                max_wrong_share=max_wrong_share, grid=GRID,
            )  # fmt: skip
        return self._recommendations[max_wrong_share]

    def expected(self, changes: Mapping[str, Any]) -> list[tuple[str, float]]:
        """Return the hit rate that each of *changes* alone would have had, where that is known."""
        found: list[tuple[str, float]] = []
        threshold = changes.get("semantic_threshold")
        if threshold is not None and (estimate := self.at(float(threshold))) is not None:
            found.append(("semantic_threshold", estimate.hit_rate))
        for level in LEVELS[:2]:
            value = changes.get(f"{level}_ttl")
            if value is not None:
                report = ttls(
                    self.decisions, tuning=self.tuning, level=level, candidates=[float(value)]
                )
                estimate_ = next(i for i in report.estimates if i.ttl_seconds == float(value))
                found.append((f"{level}_ttl", estimate_.hit_rate))
        intents = self._newly_shared(changes)
        if intents:
            won = sum(item.misses_other_scope for item in self.sharing if item.intent in intents)
            lookups = sum(item.outcome != "bypass" for item in self.decisions)
            if lookups:
                found.append(("shared_intents", self.hit_rate + won / lookups))
        return found

    def _newly_shared(self, changes: Mapping[str, Any]) -> set[str]:
        try:
            after = make_tuning(("proposed", unflatten({**self.tuning.flat(), **changes})))[0]
        except ValueError:
            return set()
        return {item.intent for item in self.sharing if item.intent and after.shares(item.intent)}

    @cached_property
    def hit_rate(self) -> float:
        """The recorded one, 0..1."""
        return rate(self.decisions)[0]


def rate(decisions: Sequence[Decision]) -> tuple[float, float, float, int]:
    """Return the hit rate of *decisions*, its 95 % interval (Wilson), and of how many lookups."""
    total = sum(item.outcome != "bypass" for item in decisions)
    hits = sum(item.outcome == "hit" for item in decisions)
    if not total:
        return 0.0, 0.0, 1.0, 0
    share = hits / total
    centre = share + _Z * _Z / (2 * total)
    spread = _Z * math.sqrt(share * (1 - share) / total + _Z * _Z / (4 * total * total))
    scale = 1 + _Z * _Z / total
    return share, (centre - spread) / scale, (centre + spread) / scale, total


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was expected of a change, and what came of it.

    Attributes:
        change: That was made.
        before: Hit rate recorded before it, 0..1; `None` if the log no longer has that.
        expected: Hit rate that the replay of what was recorded before it predicts; `None` where
            nothing is predicted.
        since, low, high: Hit rate since, until the next change, and its 95 % interval.
        lookups: Recorded since.
        verdicts, wrong: Given on hits since, and how many of them were wrong.
    """

    change: TuningChange
    before: float | None
    expected: float | None
    since: float | None
    low: float
    high: float
    lookups: int
    verdicts: int
    wrong: int


def outcome(
    change: TuningChange,
    decisions: Sequence[Decision],
    verdicts: Sequence[Verdict],
    tuning: Tuning,
    until: float | None,
) -> Outcome:
    """Return what came of *change*.

    Args:
        change: That was made.
        decisions, verdicts: All that are recorded.
        tuning: In force now; what *change* changed is put back for the prediction.
        until: When the next change was made.
    """
    before = [item for item in decisions if item.tuning_version < change.version]
    since = [
        item
        for item in decisions
        if item.tuning_version >= change.version and (until is None or item.at < until)
    ]
    found, low, high, total = rate(since)
    judged = [item for item in verdicts if item.tuning_version >= change.version and item.level]
    expected = None
    if before:
        flat = {**tuning.flat(), **change.before}
        flat = {name: value for name, value in flat.items() if value is not None}
        old = make_tuning(("before", unflatten(flat)))[0]
        predicted = Estimates(before, verdicts, old).expected(change.after)
        # One prediction for one field: what several do together is not known.
        expected = predicted[0][1] if len(predicted) == 1 else None
    return Outcome(
        change=change,
        before=rate(before)[0] if before else None,
        expected=expected,
        since=found if total else None,
        low=low,
        high=high,
        lookups=total,
        verdicts=len(judged),
        wrong=sum(not item.correct for item in judged),
    )
