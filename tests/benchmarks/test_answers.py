"""Recognition of the same answer, measured with the packaged model."""

from __future__ import annotations

import pytest

from benchmarks import answers
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
    assert same.count("same") >= len(same) / 2
    assert near.count("same") <= len(near) / 100
    assert ("to different questions", "same") not in said
    assert between(ANSWER_QUALITY.read_text("utf-8"), answers.NAME) == found.table()
