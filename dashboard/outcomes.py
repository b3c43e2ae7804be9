"""What became of a change that was made: what was expected, and what came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cache_core.decisions import Decision
from cache_core.intent_tuning import unflatten
from cache_core.live_tuning import TuningChange
from cache_core.tuning import Tuning
from cache_core.tuning_layers import make_tuning
from cache_core.verdicts import Verdict
from dashboard.estimates import Estimates, rate


@dataclass(frozen=True, slots=True)
class Outcome:
    """A change, and what came of it.

    Attributes:
        change: That was made.
        before: Hit rate recorded before it, since the change before; 0..1; `None` if the log no
            longer has that.
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
    until: int | None,
    expected: float | None,
) -> Outcome:
    """Return what came of *change*.

    Args:
        change: That was made.
        decisions, verdicts: All that are recorded.
        until: The version that the next change made.
        expected: As `expectation` returns it.
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
    """Return what was recorded under the version that *change* replaced."""
    earlier = [item for item in decisions if item.tuning_version < change.version]
    last = max((item.tuning_version for item in earlier), default=0)
    return [item for item in earlier if item.tuning_version == last]


def expectation(
    change: TuningChange, decisions: Sequence[Decision], tuning: Tuning
) -> float | None:
    """Return the hit rate that what was recorded before *change* predicts; `None` if nothing is.

    Args:
        change: That was made.
        decisions: All that are recorded.
        tuning: In force now; what *change* changed is put back.
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
    # One prediction for one field: what several do together is not known.
    if len(predicted) != 1 or estimates.unknown(change.after):
        return None
    return predicted[0][1]
