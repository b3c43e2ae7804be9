"""Outcomes of changes: the same lookups under the old value, and previews of going back."""

from __future__ import annotations

from typing import Any

import pytest

from cache_core.config.live import TuningChange
from cache_core.config.tuning import Tuning
from cache_core.observability.decisions import Decision
from dashboard.data.outcomes import LEAST, outcome, since_change, without_it
from dashboard.data.words import described, short, undone


def lookup(number: int, similarity: float, version: int, threshold: float) -> Decision:
    """Return a lookup whose nearest question, stored before the log began, is this similar."""
    hit = similarity >= threshold
    return Decision(
        at=float(number), lookup_id=f"h{number}", outcome="hit" if hit else "miss",
        level="l2" if hit else "", reason="", reasons=(), similarity=similarity,
        unvetoed=similarity, threshold=threshold, age_seconds=1.0, seconds=0.01, saved_usd=0.03,
        message=f"m{number}", matched=f"stored{number}", user="u", intent="faq",
        tuning_version=version, scope="shared",
    )  # fmt: skip


def change(version: int, before: dict[str, Any], after: dict[str, Any]) -> TuningChange:
    """Return a change of a version."""
    return TuningChange(version, 1.0, "ana", "", before, after)


LOWER = change(1, {"semantic_threshold": 0.95}, {"semantic_threshold": 0.85})


def test_warm_up_is_not_taken_for_the_effect() -> None:
    """Traffic that became easier raises the hit rate; the replay says what the change added."""
    # before: every second at 0.97; since: all at 0.97 but for a tenth at 0.9
    log = [lookup(n, 0.97 if n % 2 else 0.5, 0, 0.95) for n in range(400)]
    log += [lookup(n, 0.9 if n % 10 == 0 else 0.97, 1, 0.85) for n in range(400, 800)]
    tuning = Tuning(semantic_threshold=0.85, version=1)
    since = since_change(LOWER, log, None)
    without = without_it(LOWER, since, tuning)
    found = outcome(LOWER, log, [], None, None, without)
    assert found.before == pytest.approx(0.5)
    assert found.since == pytest.approx(1.0)
    assert found.without == pytest.approx(0.9)


def test_few_lookups_say_nothing() -> None:
    """Below the least number of lookups there is no replay to show."""
    log = [lookup(n, 0.97, 1, 0.85) for n in range(LEAST - 1)]
    assert without_it(LOWER, log, Tuning(semantic_threshold=0.85, version=1)) is None


def test_going_back_over_several_changes() -> None:
    """A preview shows each field once, from now to then; what was changed back is not in it."""
    changes = [
        change(3, {"l2_ttl": 3600.0}, {"l2_ttl": 86400.0}),
        change(2, {"l2_ttl": 86400.0, "l1_ttl": 3600.0}, {"l2_ttl": 3600.0, "l1_ttl": 5400.0}),
        LOWER,
    ]
    assert undone(changes, 1) == ["TTL of L1, exact answers: 90m → 1h"]
    assert len(undone(changes, 0)) == 2
    assert undone(changes, 3) == []
    assert described(change(4, {"max_wrong": 0.0}, {"max_wrong": 0.005})).endswith("off → 0.5%")


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0s"), (90, "90s"), (5_400, "90m"), (86_400, "1d"), (0.2, "0.2s")]
)
def test_durations_are_written_as_they_are_read(seconds: float, said: str) -> None:
    """A duration has the notation that `tune set` accepts."""
    assert short(seconds) == said
