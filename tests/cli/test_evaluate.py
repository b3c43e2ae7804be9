"""`glasscache evaluate` on labelled pairs, with the real model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cache_core.cli.app import app

PAIRS = """question1,question2,is_duplicate,category,a_history,b_history
How do I reset my password?,how do I reset my password,1,spelling,,
How can I cancel my booking?,How do I cancel my booking?,yes,wording,,
Is the museum open on 3 May?,Is the museum open on 4 May?,0,numbers,,
Can I pay by card?,Where is the station?,false,other,,
And tomorrow?,and tomorrow?,0,follow-up,"[""Is it open today?""]","[""Does it rain today?""]"
"""


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    path = tmp_path / "pairs.csv"
    path.write_text(PAIRS, encoding="utf-8")
    return str(path)


@pytest.mark.slow
def test_pairs_are_judged_by_kind(pairs: str) -> None:
    """Recall and false hits are counted by kind, columns found by their names, causes named."""
    run = CliRunner().invoke(app, ["evaluate", pairs, "--json", "--threshold", "0.8"])
    assert run.exit_code == 0, run.output
    found = json.loads(run.stdout)
    assert (found["policy"], found["pairs"]) == ("guarded", 5)
    assert (found["equivalent"], found["different"], found["recall"]) == (2, 3, 1.0)
    assert {name: kind["false_hits"] for name, kind in found["kinds"].items()} == {
        "spelling": None, "wording": None, "numbers": 0.0, "other": 0.0, "follow-up": 0.0,
    }  # fmt: skip
    assert found["file"]["columns"]["equivalent"] == ["is_duplicate"]


@pytest.mark.slow
def test_false_hits_over_the_limit_fail_the_command(pairs: str) -> None:
    """Without guards the changed number is served, which ends with 1 under --fail-over."""
    arguments = ["evaluate", pairs, "--json", "--threshold", "0.8", "--policy", "threshold"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    run = CliRunner().invoke(app, [*arguments, "--fail-over", "0.1"])
    assert run.exit_code == 1
    found = json.loads(run.stdout)
    assert found["kinds"]["numbers"]["false_hits"] == 1.0
    assert sum(found["causes"].values()) == 1
