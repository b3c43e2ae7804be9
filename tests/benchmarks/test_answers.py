"""Recognition of the same answer, measured with the packaged model."""

from __future__ import annotations

import pytest

from benchmarks import answers
from benchmarks.policy.simulation import Shares, Told, answer_of, pages_of
from benchmarks.support.docs_table import ANSWER_QUALITY, between
from cache_core.policy.answers import ALIKE, UNLIKE
from tests.support.modules import require


@pytest.mark.slow
def test_the_bounds_in_force_take_no_other_answer_for_the_same() -> None:
    """They are the chosen ones; on the other half at most 1 % of the near misses are taken."""
    require("onnxruntime")
    found = answers.measure()
    assert (found.alike, found.unlike) == (ALIKE, UNLIKE)
    said = [(pair.differs, pair.verdict(ALIKE, UNLIKE)) for pair in found.pairs]
    same = [verdict for differs, verdict in said if differs == answers.SAME]
    near = [verdict for differs, verdict in said
            if differs not in {answers.SAME, answers.SUBJECTS}]  # fmt: skip
    assert same.count("different") == 0
    assert same.count("same") >= 0.45 * len(same)
    assert near.count("same") <= len(near) / 100
    assert ("to different questions", "same") not in said
    assert between(ANSWER_QUALITY.read_text("utf-8"), answers.NAME) == found.table()


def test_wordings_are_told_as_often_as_they_should_be() -> None:
    """A pair has one verdict in either order; without other wordings each answer has its name."""
    assert Told().wording("a", "r1") == "a"
    assert (Told().verdict("a", "a"), Told().verdict("a", "b")) == ("same", "different")
    told = Told(3, Shares(same=0.5, different=0.8, mistaken=0.1))
    wordings = {told.wording("a", f"r{number}") for number in range(100)}
    assert len(wordings) == 3
    assert {answer_of(wording) for wording in wordings} == {"a"}
    paged = Told(3, Shares(same=0.0), pages=pages_of([{"answer_id": "a:b:1"}, {"answer_id": "a:b:2"},
                                                      {"answer_id": "c", "kind": "chitchat"}]))  # fmt: skip
    assert paged.verdict("a:b:1\n0", "a:b:1\n1") == "same"
    assert paged.verdict("a:b:1\n0", "a:b:2\n1") == "different"
    assert paged.verdict("c\n0", "c\n1") == "unknown"
    pairs = [(f"{n}\n0", f"{n}\n1", f"{n + 1}\n0") for n in range(2_000)]
    equal = [told.verdict(one, two) for one, two, _ in pairs]
    other = [told.verdict(one, three) for one, _, three in pairs]
    assert other == [told.verdict(three, one) for one, _, three in pairs]
    assert equal.count("same") / 2_000 == pytest.approx(0.5, abs=0.05)
    assert equal.count("unknown") / 2_000 == pytest.approx(0.5, abs=0.05)
    assert other.count("different") / 2_000 == pytest.approx(0.8, abs=0.05)
    assert other.count("same") / 2_000 == pytest.approx(0.1, abs=0.05)
