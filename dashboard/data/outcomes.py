"""Outcomes of changes: the expected and the actual effect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cache_core.config.intents import unflatten
from cache_core.config.layers import make_tuning
from cache_core.config.live import TuningChange
from cache_core.config.tuning import Tuning
from cache_core.observability.decisions import Decision
from cache_core.observability.verdicts import Verdict
from dashboard.data.estimates import Estimates, rate


@dataclass(frozen=True, slots=True)
class Outcome:
    """Change with its effect.

    Attributes:
        change: The change.
        before: Hit rate recorded since the previous change; 0 to 1; `None` if the log no
            longer has it.
        expected: Hit rate predicted by a replay of the lookups before it; `None` without a
            prediction.
        since, low, high: Hit rate until the next change, and its 95 % interval.
        lookups: Number of lookups since.
        verdicts, wrong: Number of verdicts on hits since, and of wrong ones among them.
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
    until: int | None,
    expected: float | None,
) -> Outcome:
    """Return the effect of *change*.

    Args:
        change: The change.
        decisions, verdicts: All recorded ones.
        until: Version of the next change.
        expected: Result of `expectation`.
    """
    before = _before(change, decisions)
    since = [item for item in decisions if _within(item.tuning_version, change.version, until)]
    judged = [
        item
        for item in verdicts
        if item.level and _within(item.tuning_version, change.version, until)
    ]
    found, low, high, total = rate(since)
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


def _within(version: int, first: int, until: int | None) -> bool:
    return first <= version and (until is None or version < until)


def _before(change: TuningChange, decisions: Sequence[Decision]) -> list[Decision]:
    """Return the decisions under the version that *change* replaced."""
    earlier = [item for item in decisions if item.tuning_version < change.version]
    last = max((item.tuning_version for item in earlier), default=0)
    return [item for item in earlier if item.tuning_version == last]


def expectation(
    change: TuningChange, decisions: Sequence[Decision], tuning: Tuning
) -> float | None:
    """Return the hit rate that the lookups before *change* predict; `None` without a prediction.

    Args:
        change: The change.
        decisions: All recorded decisions.
        tuning: The tuning in force; *change* is undone in it.
    """
    before = _before(change, decisions)
    if not before:
        return None
    flat = {**tuning.flat(), **change.before}
    old = make_tuning(
        ("before", unflatten({name: value for name, value in flat.items() if value is not None}))
    )[0]
    estimates = Estimates(before, [], old)
    predicted = estimates.expected(change.after)
    # one prediction for one field: the combined effect of several is unknown
    if len(predicted) != 1 or estimates.unknown(change.after):
        return None
    return predicted[0][1]
