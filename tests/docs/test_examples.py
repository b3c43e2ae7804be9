"""The examples run as they are written, offline, and show what they promise."""

from __future__ import annotations

import pytest

from tests.support import processes
from tests.support.paths import ROOT

EXAMPLES = ROOT / "examples"

OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Output of two runs over the same directory."""
    directory = tmp_path_factory.mktemp("examples")
    return [processes.run_script(EXAMPLES / "agent.py", directory, **OFFLINE) for _ in range(2)]


@pytest.mark.slow
def test_the_agent_shows_every_kind_of_decision(runs: list[str]) -> None:
    """The example's first run has hits of L1 and L2, a partial, a veto, and nobody else's answer."""
    shown = runs[0]
    turns = [turn.splitlines() for turn in shown.split("\n\n")[1:9]]
    assert len(turns) == 8
    for question, answer, decision in turns:
        user = question.partition(":")[0]
        other = "bob" if user == "ann" else "ann"
        assert answer.startswith("  -> ")
        assert other not in answer
        assert " ms" in decision
    decisions = [decision.strip() for _, _, decision in turns]
    outcomes = [decision.partition(";")[0] for decision in decisions]
    assert outcomes == ["miss", "hit", "hit", "miss", "partial", "hit", "miss", "miss"]
    assert "from l1" in decisions[1]
    assert "from l2, similarity 0.9" in decisions[2]
    assert "other_scope" in decisions[4]
    assert "guard_veto" in decisions[7]
    assert "l2 miss: the nearest question is not similar enough" in shown
    assert "Lookups: 10" in shown
    assert "'overall': 40.0" in shown
    assert "CACHE_SHARED_INTENTS" in shown


@pytest.mark.slow
def test_answers_outlive_the_agent(runs: list[str]) -> None:
    """Run again over the same directory, every question of the example is a hit."""
    shown = runs[1]
    assert "'overall': 100.0" in shown
    assert "'miss': 0" in shown
