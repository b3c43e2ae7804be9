"""The page *Review* says what the next verdict is worth, and when there are enough."""

from __future__ import annotations

import pytest

from cache_core.observability.decisions import Decision
from cache_core.observability.verdicts import Verdict
from dashboard.data.worth import in_words, worth


def hit(number: int, similarity: float, level: str = "l2") -> Decision:
    """Return a hit of its own pair."""
    same = level == "l1"
    return Decision(
        at=1.0, lookup_id=f"h{number}", outcome="hit", level=level, reason="", reasons=(),
        similarity=None if same else similarity, unvetoed=None if same else similarity,
        threshold=0.95, age_seconds=1.0, seconds=0.01, saved_usd=0.03, message=f"m{number}",
        matched=f"m{number}" if same else f"n{number}", user="u", intent="faq", tuning_version=0,
    )  # fmt: skip


def verdict(item: Decision, *, correct: bool = True) -> Verdict:
    """Return a review of a hit."""
    return Verdict(
        1.0, item.lookup_id, "correct" if correct else "wrong", "review", item.level,
        item.unvetoed, item.message, item.matched, item.user, item.intent,
    )  # fmt: skip


def test_a_verdict_where_few_are_lowers_the_bound() -> None:
    """The bound is what Wilson's interval has for the verdicts, and for one more that is right."""
    hits = [hit(number, 0.965) for number in range(100)]
    found = worth(hits, [verdict(item) for item in hits[:20]], hits[50])
    z2 = 1.96**2
    assert found.now.high == pytest.approx(z2 / (20 + z2))
    assert found.if_right.high == pytest.approx(z2 / (21 + z2))
    assert (found.similarity, found.judged, found.hits) == (0.96, 20, 1.0)
    said = in_words(found, 0.01)
    assert f"At most {z2 / (20 + z2):.2%} of the recorded hits are wrong" in said
    assert f"If this answer is right: {z2 / (21 + z2):.2%}" in said
    assert "20 verdicts between 0.96 and 0.97" in said


def test_enough_is_said() -> None:
    """Once the bound is within the limit, more verdicts only serve a lower threshold."""
    hits = [hit(number, 0.965) for number in range(400)]
    judged = [verdict(item) for item in hits]
    assert "You have enough verdicts for 1%" in in_words(worth(hits, judged, hits[0]), 0.01)
    wrong = [verdict(item, correct=number > 20) for number, item in enumerate(hits)]
    assert "enough" not in in_words(worth(hits, wrong, hits[0]), 0.01)


def test_a_pair_that_was_not_served_serves_a_lower_threshold() -> None:
    """A verdict on it changes nothing that is known of today's hits."""
    near = hit(1, 0.9)._replace(outcome="miss", level="")
    found = worth([hit(2, 0.0, "l1"), hit(3, 0.97), near], [], near)
    assert found.hits == 0
    assert "No recorded hit is as similar as this pair" in in_words(found, 0.01)
    assert "0 verdicts between 0.90 and 0.91; 5 make it count as judged" in in_words(found, 0.01)
