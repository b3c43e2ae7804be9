"""Outcomes of changes: the expected and the actual effect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cache_core.config.intents import unflatten
from cache_core.config.layers import make_tuning
from cache_core.config.live import TuningChange
from cache_core.config.tuning import Tuning
from cache_core.observability.decisions import Decision
from cache_core.observability.verdicts import Verdict
from dashboard.data.estimates import Estimates, rate

LEAST = 200
"""Fewest lookups whose hit rate is shown: of fewer, the interval is 14 points wide and more."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Change with its effect.

    Attributes:
        change: The change.
        before: Hit rate recorded since the previous change; 0 to 1; `None` if the log no
            longer has it.
        expected: Hit rate predicted by a replay of the lookups before it; `None` without a
            prediction.
        without: Hit rate that a replay of the lookups since has with the old value; `None` without
            a replay.
        since, low, high: Hit rate until the next change, and its 95 % interval.
        lookups: Number of lookups since.
        verdicts, wrong: Number of verdicts on hits since, and of wrong ones among them.
    """

    change: TuningChange
    before: float | None
    expected: float | None
    without: float | None
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
    without: float | None,
) -> Outcome:
    """Return the effect of *change*.

    Args:
        change: The change.
        decisions, verdicts: All recorded ones.
        until: Version of the next change.
        expected: Result of `expectation`.
        without: Result of `without_it`.
    """
    before = _before(change, decisions)
    since = since_change(change, decisions, until)
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
        without=without,
        since=found if total else None,
        low=low,
        high=high,
        lookups=total,
        verdicts=len(judged),
        wrong=sum(not item.correct for item in judged),
    )


def since_change(
    change: TuningChange, decisions: Sequence[Decision], until: int | None
) -> list[Decision]:
    """Return the decisions under *change*, up to version *until*."""
    return [item for item in decisions if _within(item.tuning_version, change.version, until)]


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
    return _alone(before, _with(tuning, change.before), change.after)


def without_it(change: TuningChange, since: Sequence[Decision], tuning: Tuning) -> float | None:
    """Return the hit rate that the lookups since *change* had had with the old value.

    Args:
        change: The change.
        since: The decisions under it.
        tuning: The tuning in force.
    """
    if len(since) < LEAST:
        return None
    return _alone(since, _with(tuning, change.after), change.before)


def _with(tuning: Tuning, values: Mapping[str, Any]) -> Tuning:
    flat = {**tuning.flat(), **values}
    kept = {name: value for name, value in flat.items() if value is not None}
    return make_tuning(("then", unflatten(kept)))[0]


def _alone(
    decisions: Sequence[Decision], tuning: Tuning, changes: Mapping[str, Any]
) -> float | None:
    """Return the hit rate by a replay with *changes*; `None` for more than one field."""
    estimates = Estimates(decisions, [], tuning)
    predicted = estimates.expected(changes)
    # one prediction for one field: the combined effect of several is unknown
    if len(predicted) != 1 or estimates.unknown(changes):
        return None
    return predicted[0][1]
