"""Decisions of the policy: what is served within a share of wrong hits, and what is learned."""

from __future__ import annotations

import math
from random import Random

import pytest

from cache_core.policy import curve
from cache_core.policy.decide import (
    MARGIN,
    NEVER,
    Decision,
    Near,
    allowed,
    decide,
    risk_of,
    shadow,
    weigh,
)
from cache_core.policy.evidence import Evidence
from cache_core.policy.limits import LEAST_SIMILARITY, MAX_WRONG
from cache_core.policy.prior import PRIOR


def decided(
    *neighbours: Near,
    evidence: Evidence | None = None,
    max_wrong: float = 0.01,
    doubtful: bool = False,
) -> Decision:
    return decide(
        neighbours, Evidence() if evidence is None else evidence, max_wrong, lambda _: doubtful
    )


def near(similarity: float, answer: int = 0) -> Near:
    return Near(similarity, str(answer), answer)


def test_the_prior_is_a_belief_that_rises_with_similarity() -> None:
    """The shipped weights sum to 1, and a nearer neighbour is never less likely right."""
    assert math.isclose(sum(PRIOR), 1.0)
    assert len(PRIOR) == len(curve.GRID)
    chances = [curve.chance(PRIOR, number / 100) for number in range(60, 101)]
    assert chances == sorted(chances)


def test_an_unknown_answer_is_served_no_looser_than_the_prior_allows() -> None:
    """Without evidence a near neighbour is served, and one in the middle is not."""
    assert decided(near(0.97)).place == 0
    far = decided(near(0.72))
    assert (far.place, far.held) == (None, "not_sure")
    assert far.chance < far.needed


def test_right_labels_lower_what_an_answer_needs_and_wrong_ones_raise_it() -> None:
    """Some right candidates below the threshold open it; one wrong candidate closes it again."""
    evidence = Evidence()
    crowd = [near(0.78)] * 3
    strict = {"evidence": evidence, "max_wrong": 0.0025}
    assert decided(*crowd, **strict).place is None
    for _ in range(4):
        evidence.learn("0", 0.75, right=True)
    assert decided(*crowd, **strict).place == 0
    assert decided(*[near(0.78, 1)] * 3, **strict).place is None
    evidence.learn("0", 0.85, right=False)
    assert decided(*crowd, **strict).place is None


def test_a_different_answer_almost_as_near_holds_back() -> None:
    """Within the margin nothing is served, however sure; outside it is; the same answer helps."""
    assert decided(near(0.97), near(0.97 - MARGIN / 2, 1)).held == "different_answer_near"
    assert decided(near(0.97), near(0.97 - 2 * MARGIN, 1)).place == 0
    assert decided(near(0.97), near(0.96)).place == 0
    assert decided(near(1.0), near(0.98, 1)).place == 0


def test_support_and_doubt_change_what_is_needed() -> None:
    """Neighbours with the same answer lower the needed chance, a swapped word raises it."""
    alone = decided(near(0.9)).needed
    assert decided(near(0.9), near(0.8), near(0.75)).needed < alone
    assert decided(near(0.9), doubtful=True).needed > alone


def test_a_smaller_share_of_wrong_hits_needs_more() -> None:
    """The risk of a hit rises with the share that may be wrong, from nothing to everything."""
    risks = [risk_of(share) for share in (0.0, 0.001, 0.005, 0.01, 0.02, 0.2, 1.0)]
    assert risks == sorted(risks)
    assert (risks[0], risks[-1]) == (0.0, 1.0)
    assert decided(near(0.999), max_wrong=0.0).place is None


def test_nothing_far_is_served_whatever_was_learned() -> None:
    """Below the least similarity no evidence opens an answer."""
    evidence = Evidence()
    for _ in range(50):
        evidence.learn("0", 0.6, right=True)
    found = decided(*[near(LEAST_SIMILARITY - 0.01)] * 5, evidence=evidence, max_wrong=0.05)
    assert found.held == "nothing_near"


def test_bad_verdicts_tighten_immediately_and_good_ones_relax() -> None:
    """The first wrong verdict raises what is needed; enough right ones restore it."""
    evidence = Evidence()
    before = decided(near(0.9), evidence=evidence).needed
    evidence.judge(correct=False)
    assert decided(near(0.9), evidence=evidence).needed > before
    for _ in range(200):
        evidence.judge(correct=True)
    assert decided(near(0.9), evidence=evidence).needed == pytest.approx(before)


def test_memory_is_bounded() -> None:
    """The answers learned of longest ago are forgotten first."""
    evidence = Evidence(kept=2)
    for key in "abca":
        evidence.learn(key, 0.8, right=False)
    assert len(evidence) == 2
    assert evidence.chance("b", 0.8) == Evidence().chance("b", 0.8)


def test_a_decision_reads_as_one_line() -> None:
    """Whatever is decided, a person can read why."""
    assert str(decided(near(0.97))).endswith("1 agree")
    assert "almost as near" in str(decided(near(0.97), near(0.96, 1)))
    assert str(decided()) == "no question is near enough"


def test_the_shadow_is_where_the_decision_turns() -> None:
    """For any neighbours and verdicts: just below the least share nothing is served, at it is."""
    random = Random(5)
    turned = never = 0
    for _ in range(300):
        evidence = Evidence()
        for _ in range(random.randrange(200)):
            evidence.judge(correct=random.random() > 0.02)
        for _ in range(random.randrange(4)):
            evidence.learn("0", random.uniform(0.7, 0.9), right=random.random() < 0.8)
        found = weigh(
            [near(random.uniform(0.7, 1.0))] * random.randrange(1, 4),
            evidence.chance("0", random.uniform(0.7, 1.0)),
            lambda _: random.random() < 0.5,
        )
        least = shadow(found, evidence).least
        if least == NEVER:
            never += 1
            assert allowed(found, evidence, MAX_WRONG).place is None
            continue
        turned += 1
        assert allowed(found, evidence, least).place == 0
        assert allowed(found, evidence, least - 0.0001).place is None
    assert turned > 100
    assert never > 10


def test_guards_compare_only_what_may_decide() -> None:
    """A different answer that is not vetoed ends it; two of the same answer are enough."""
    asked: list[int] = []

    def left(place: int) -> bool:
        asked.append(place)
        return True

    found = weigh([near(0.95), near(0.94, 1), *[near(0.93)] * 5], 0.9, lambda _: False, left)
    assert (found.held, asked) == ("different_answer_near", [1])
    asked.clear()
    found = weigh([near(0.95), near(0.8, 1), *[near(0.93)] * 5], 0.9, lambda _: False, left)
    assert (found.held, found.part, asked) == ("", 1.0, [2, 3])


def test_wordings_of_one_answer_have_one_name_until_one_turns_out_to_be_another() -> None:
    """However they were found, and in bounded memory."""
    evidence = Evidence(kept=3)
    assert evidence.first("a") == "a"
    evidence.link("a", "b")
    evidence.link("c", "d")
    evidence.link("d", "b")
    assert len({evidence.first(key) for key in "abcd"}) == 1
    evidence.link("b", "c")
    assert evidence.first("a") == evidence.first("c")
    evidence.part("a", "b")
    assert evidence.first("a") != evidence.first("b")
    for number in range(9):
        evidence.link("x", f"y{number}")
    assert evidence.first("y0") == "y0"
    assert evidence.first("y8") == evidence.first("x")
    evidence.clear()
    assert evidence.first("y8") == "y8"
