"""Decisions of the policy: what is served within a share of wrong hits, and what is learned."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container
from random import Random

import pytest

from cache_core.policy import curve
from cache_core.policy.decide import (
    ALONE,
    DOUBTFUL,
    IDENTICAL,
    MARGIN,
    NEVER,
    SUPPORT,
    Decision,
    Given,
    Near,
    Weighed,
    allowed_risk,
    decide,
    risk_of,
    shadow,
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
        found = Given(
            [near(random.uniform(0.7, 1.0))] * random.randrange(1, 4),
            evidence,
            lambda _: random.random() < 0.5,
        )
        least = shadow(found, evidence).least
        if least == NEVER:
            never += 1
            assert not found.served(allowed_risk(evidence, MAX_WRONG))
            continue
        turned += 1
        assert found.served(allowed_risk(evidence, least))
        assert not found.served(allowed_risk(evidence, least - 0.0001))
    assert turned > 100
    assert never > 10


class Asked(Weighed):
    """Notes which texts it had to compare.

    Args:
        chance: Of the nearest one.
        answers: Similarity of each neighbour, and whether it has the nearest one's answer.
        vetoed: Places of those that a guard vetoes.
        doubt: Whether the nearest one differs by a word.
    """

    def __init__(
        self,
        chance: float,
        *answers: tuple[float, bool],
        vetoed: Container[int] = (),
        doubt: bool = False,
    ) -> None:
        super().__init__([similarity for similarity, _ in answers], chance)
        self._answers, self._vetoed, self._doubt = answers, vetoed, doubt
        self.compared: list[int] = []

    def alike(self, place: int) -> bool:
        return self._answers[place][1]

    def left(self, place: int) -> bool:
        self.compared.append(place)
        return place not in self._vetoed

    def doubtful(self) -> bool:
        self.compared.append(0)
        return self._doubt


def test_texts_are_compared_only_where_that_may_decide() -> None:
    """A different answer that is not vetoed ends it; two of the same answer are enough."""
    alike = [(0.93, True)] * 5
    asked = Asked(0.9, (0.95, True), (0.94, False), *alike)
    assert not asked.served(0.5)
    assert (asked.held, asked.compared) == ("different_answer_near", [1])
    for chance, risk, served, compared in (
        (0.9, 0.4, True, []),  # sure enough alone and in doubt
        (0.9, 0.05, False, []),  # not sure enough with support and without doubt
        (0.9, 0.2, True, [0]),  # without doubt its support does not matter
        (0.9, 0.1, True, [0, 2, 3]),
    ):
        asked = Asked(chance, (0.95, True), (0.8, False), *alike)
        assert (asked.served(risk), asked.compared) == (served, compared)
    assert str(asked.decision(0.1)).endswith("3 or more agree")


def _by_the_letter(asked: Asked, risk: float) -> Decision:
    """Return what the rules say of neighbours, each of them read once and in full."""
    near = [(at, similarity, alike) for at, (similarity, alike) in enumerate(asked._answers)
            if at == 0 or at not in asked._vetoed]  # fmt: skip
    if not near or near[0][1] < LEAST_SIMILARITY:
        return Decision(None, "nothing_near")
    nearest = near[0][1]
    if nearest < IDENTICAL and any(
        similarity > nearest - MARGIN and not alike for _, similarity, alike in near
    ):
        return Decision(None, "different_answer_near", asked.chance)
    support = min(SUPPORT, sum(alike for _, _, alike in near))
    part = 1.0 if support >= SUPPORT else ALONE
    if nearest < IDENTICAL and asked._doubt:
        part *= DOUBTFUL
    needed = 1.0 - risk * part
    if asked.chance >= needed:
        return Decision(0, "", asked.chance, needed, support)
    return Decision(None, "not_sure", asked.chance, needed, support)


def test_what_is_left_out_decides_nothing() -> None:
    """Whatever is near, a decision is to the bit what it is if every text is compared."""
    random = Random(7)
    seen = Counter[str]()
    for _ in range(20_000):
        top = random.choice((1.0, random.uniform(0.65, 1.0)))
        answers = sorted(
            ((top - random.choice((0.0, random.uniform(0.0, 0.3))), random.random() < 0.8)
             for _ in range(random.randrange(11))), reverse=True,
        )  # fmt: skip
        if answers:
            answers[0] = (answers[0][0], True)
        risk = random.choice((0.0, 0.25, 0.42, 1.0, random.random()))
        chance = random.choice((1.0 - risk * random.choice((1.0, 0.5, 0.25)), random.random()))
        vetoed = {place for place in range(1, 11) if random.random() < 0.3}
        asked = Asked(chance, *answers, vetoed=vetoed, doubt=random.random() < 0.3)
        expected = _by_the_letter(asked, risk)
        served = asked.served(risk)
        assert served is (expected.place == 0)
        assert asked.decision(risk) == expected
        seen[expected.held or "served"] += 1
    assert min(seen.values()) > 500, seen
    assert len(seen) == 4


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
