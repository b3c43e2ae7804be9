"""Evidence on a staged change: its bounds hold whatever the logs have dropped, and whoever judged."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from cache_core.config.stage import Stage
from cache_core.observability.decisions import Decision
from cache_core.observability.staged import StageEvidence
from cache_core.observability.verdicts import Source, Verdict

KEPT = 100
"""Lookups that the log keeps."""


def hits(count: int, *, stands_for: float = 1.0, level: str = "l2") -> list[Decision]:
    """Hits of different users on different questions, under version 1."""
    return [
        Decision(
            1.0, f"id-{n}", "hit", level, "", (), 0.955, 0.955, 0.95, 1.0, 0.01, 0.0,
            f"message-{n}", f"matched-{n}", f"user-{n}", "", 1, stands_for=stands_for,
        )
        for n in range(count)
    ]  # fmt: skip


def verdicts(
    decisions: Sequence[Decision], wrong: int, source: Source = "review", user: str | None = None
) -> list[Verdict]:
    """Verdicts on *decisions*, of which the first *wrong* ones are wrong."""
    return [
        Verdict(
            1.0, item.lookup_id, "wrong" if n < wrong else "correct", source, item.level,
            item.unvetoed, item.message, item.matched, item.user if user is None else user,
            "", item.threshold, item.tuning_version,
        )
        for n, item in enumerate(decisions)
    ]  # fmt: skip


def test_hits_stay_counted_when_the_log_drops_them() -> None:
    """Verdicts that are read again have the hits counted before as their denominator."""
    seen, found = StageEvidence(1, KEPT), hits(10_000)
    said = verdicts(found[::334], 1_000)
    for start in range(0, 10_000, 50):
        seen.add(found[start : start + 50], [])
        seen.add([], [item for item in said if item.lookup_id in _ids(found[start : start + 50])])
    assert (seen.wrong, seen.broken(Stage())) == (30, "")
    before = seen.least_wrong()
    assert before == pytest.approx(0.002, abs=0.001)
    seen.forget_verdicts()
    seen.add([], said)
    assert seen.least_wrong() == before


def test_verdicts_on_hits_that_were_not_counted_do_not_count() -> None:
    """A replica that starts late sees all verdicts, but only the last of the hits."""
    found = hits(10_000)
    late = StageEvidence(1, KEPT)
    late.add(found[-KEPT:], verdicts(found[:12], 12))
    assert late.broken(Stage()) == ""
    late.add([], verdicts(found[-3:], 3))
    assert "at least 1.0% of the hits are wrong (15 of 15 judged)" in late.broken(Stage())


def test_a_verdict_may_come_before_its_lookup() -> None:
    """Feedback is logged immediately, the lookup up to a second later: it counts."""
    seen, found = StageEvidence(1, KEPT), hits(KEPT)
    seen.add([], verdicts(found[:10], 10))
    assert seen.broken(Stage()) == ""
    seen.add(found, [])
    assert seen.broken(Stage())


def test_a_sampled_hit_counts_for_all_that_it_stands_for() -> None:
    """Seven known wrong hits of 10,000 are few, although 250 rows stand for them."""
    seen, found = StageEvidence(1, 250), hits(250, stands_for=40.0)
    seen.add(found, verdicts(found[:7], 7))
    assert seen.lookups == 10_000
    assert seen.least_wrong() < 0.001
    assert seen.broken(Stage()) == ""


def test_complaints_are_no_sample() -> None:
    """Five users complain of five among 10,000 hits: that is known, not more."""
    seen, found = StageEvidence(1, 10_000), hits(10_000)
    seen.add(found, verdicts(found[:5], 5, "feedback"))
    assert 0 < seen.least_wrong() < 0.001
    assert seen.broken(Stage()) == ""


@pytest.mark.parametrize(("user", "broken"), [("mallory", False), ("", False), (None, True)])
def test_feedback_counts_once_per_user(user: str | None, broken: bool) -> None:
    """Nobody ends a stage alone, however often they complain; many users do."""
    seen, found = StageEvidence(1, KEPT), hits(KEPT)
    seen.add(found, verdicts(found[:20], 20, "feedback", user))
    assert bool(seen.broken(Stage())) is broken


def test_a_random_sample_speaks_for_all_hits_of_l2() -> None:
    """Checks by `verify` bound the share of all, also on hits that the log has dropped."""
    seen, found = StageEvidence(1, 10_000), hits(10_000)
    seen.add(found[300:], verdicts(found[:300], 30, "verify"))
    assert seen.least_wrong() == pytest.approx(0.07, abs=0.005)
    exact = [item._replace(lookup_id=f"{item.lookup_id}x") for item in hits(9_700, level="l1")]
    seen.add(exact, [])
    assert seen.least_wrong() == pytest.approx(0.035, abs=0.003)


def test_feedback_does_not_overrule_a_check() -> None:
    """A user who praises what `verify` found wrong hides nothing; an operator's review does."""
    seen, found = StageEvidence(1, KEPT), hits(KEPT)
    seen.add(found, verdicts(found, 10, "verify"))
    broken = seen.broken(Stage())
    assert broken
    seen.add([], verdicts(found, 0, "feedback"))
    assert seen.broken(Stage()) == broken
    seen.add([], verdicts(found, 0, "review"))
    assert seen.broken(Stage()) == ""


def test_a_lookup_counts_once() -> None:
    """Rows that the erasure of a user writes again at the log's end are the same lookups."""
    seen, found = StageEvidence(1, KEPT), hits(KEPT)
    seen.add(found, [])
    seen.add([item._replace(matched_text="", response_text="") for item in found], [])
    assert seen.lookups == KEPT


def test_only_so_many_verdicts_are_kept() -> None:
    """A long stage does not fill the memory: the oldest verdicts beyond the log's limit go."""
    seen, found = StageEvidence(1, 20_000), hits(12_000)
    seen.add(found, verdicts(found, 2_000))
    assert (seen.judged, seen.wrong) == (10_000, 0)


def _ids(decisions: Sequence[Decision]) -> set[str]:
    return {item.lookup_id for item in decisions}
