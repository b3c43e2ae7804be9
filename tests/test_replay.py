"""Replaying recorded traffic: what is counted, and that it is right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cache_core.cli.app import app
from cache_core.exceptions import ConfigurationError
from cache_core.replay import read_rows

EVALUATION = Path(__file__).parents[2] / "shared" / "data" / "traffic.jsonl"

ROWS: list[dict[str, Any]] = [
    {"message": "How long does delivery take?", "user_id": "a", "answer_id": "delivery",
     "private": False, "t": 0},
    {"message": "how long does delivery take", "user_id": "b", "answer_id": "delivery",
     "private": False, "t": 10},
    {"message": "How long does the delivery take?", "user_id": "c", "answer_id": "delivery",
     "private": False, "t": 20},
    {"message": "Where is my order?", "user_id": "a", "answer_id": "order-a", "private": True,
     "t": 30},
    {"message": "Where is my order?", "user_id": "b", "answer_id": "order-b", "private": True,
     "t": 40},
    {"message": "Where is my order?", "user_id": "a", "answer_id": "order-a", "private": True,
     "t": 50},
    {"message": "yes", "user_id": "a", "answer_id": "yes-1", "private": False,
     "history": ["Shall I cancel it?"], "t": 60},
    {"message": "yes", "user_id": "a", "answer_id": "yes-2", "private": False,
     "history": ["Shall I send it again?"], "t": 70},
    {"message": "How long does delivery take?", "user_id": "d", "answer_id": "changed",
     "private": False, "t": 80},
    {"message": "How long does delivery take?", "user_id": "e", "answer_id": "delivery",
     "private": False, "t": 80 + 3 * 86_400},
]  # fmt: skip


@pytest.fixture
def traffic(tmp_path: Path) -> Path:
    file = tmp_path / "traffic.jsonl"
    file.write_text("\n".join(map(json.dumps, ROWS)))
    return file


def replay(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["replay", *arguments, "--json"])
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_hits_wrong_answers_and_expiry_are_counted(traffic: Path) -> None:
    """By the rows' clock the last question finds its answer expired."""
    found = replay(str(traffic))
    assert found["requests"] == 10
    assert found["hits"] == 4
    assert found["served_by"] == {"l1": 3, "l2": 1}
    assert found["wrong"] == 1
    assert found["wrong_share"] == 0.25
    assert found["private_leaks"] == 0
    assert found["miss_reasons"]["l1"]["other_scope"] == 1
    assert found["hit_rate"] == 0.4
    assert found["scope"] == "private-flag"
    assert found["clock"] == "rows"
    assert sum(found["outcomes"].values()) == found["requests"]


def test_without_a_clock_nothing_expires(traffic: Path) -> None:
    """`--clock none` keeps the answer that the rows' clock lets expire."""
    assert replay(str(traffic), "--clock", "none")["hits"] == 5


def test_the_other_scope_is_shown(traffic: Path) -> None:
    """The report says what the same traffic gives when nothing is shared."""
    found = replay(str(traffic))
    assert found["other_scope"]["scope"] == "all-private"
    assert found["other_scope"]["hits"] == 1
    alone = replay(str(traffic), "--scope", "all-private", "--no-compare")
    assert alone["hits"] == 1
    assert "other_scope" not in alone


def test_a_threshold_of_one_leaves_only_exact_answers(traffic: Path) -> None:
    """The threshold is the one that was asked for."""
    assert replay(str(traffic), "--threshold", "1.0")["served_by"]["l2"] == 0


def test_the_limit_cuts(traffic: Path) -> None:
    """Only the first rows are replayed."""
    assert replay(str(traffic), "--limit", "2")["requests"] == 2


def test_the_table_is_for_people(traffic: Path) -> None:
    """Without --json there is a table with both scopes."""
    result = CliRunner().invoke(app, ["replay", str(traffic)])
    assert result.exit_code == 0
    for word in ("hit rate", "wrong answers", "private answers to others", "all-private"):
        assert word in result.stdout


def test_no_hits_are_not_called_a_missing_answer_id(tmp_path: Path) -> None:
    """Without hits there is nothing to judge, and the table says that."""
    file = tmp_path / "traffic.jsonl"
    rows = [{"message": text, "user_id": "ann", "answer_id": text} for text in ("alpha", "beta")]
    file.write_text("\n".join(map(json.dumps, rows)))
    result = CliRunner().invoke(app, ["replay", str(file), "--no-compare"])
    assert result.exit_code == 0
    assert "no hits" in result.output
    assert "no answer_id" not in result.output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no rows"),
        ("not json", "line 1: not JSON"),
        ("[]", "line 1: expected an object"),
        ('{"user_id": "u"}', "line 1: expected an object with at least a text 'message'"),
        ('{"message": "m"}\n{"message": "m", "history": "x"}', "line 2: history must be list"),
        ('{"message": "m", "t": "x"}', "line 1: t must be int or float"),
        ('{"message": "m", "t": true}', "line 1: t must be int or float, not bool"),
        ('{"message": "m", "private": "yes"}', "line 1: private must be bool"),
    ],
)
def test_a_malformed_file_names_its_line(tmp_path: Path, text: str, said: str) -> None:
    """What is wrong, where, and what is expected."""
    file = tmp_path / "bad.jsonl"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as raised:
        read_rows(file)
    assert said in str(raised.value)
    result = CliRunner().invoke(app, ["replay", str(file)])
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_a_missing_or_undecodable_file_is_told(tmp_path: Path) -> None:
    """No file, and one that is not text."""
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_rows(tmp_path / "nothing.jsonl")
    file = tmp_path / "binary.jsonl"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        read_rows(file)


@pytest.mark.skipif(not EVALUATION.exists(), reason=f"no evaluation data at {EVALUATION}")
def test_real_traffic_is_answered_rightly() -> None:
    """On the first 2,000 rows of real questions: hits, hardly a wrong one, and no leak."""
    found = replay(str(EVALUATION), "--limit", "2000", "--no-compare", "--clock", "none")
    assert found["private_leaks"] == 0
    assert found["hit_rate"] > 0.2
    assert found["wrong_share"] <= 0.007
