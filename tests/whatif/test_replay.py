"""Replaying recorded traffic: what is counted, and that it is right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cache_core.cli.app import app
from cache_core.cli.files.requests import read_rows
from cache_core.model.exceptions import ConfigurationError
from tests.support.paths import ROOT

EVALUATION = ROOT.parent / "shared" / "data" / "traffic.jsonl"

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


@pytest.mark.slow
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


@pytest.mark.slow
def test_auto_shares_what_enough_users_got(tmp_path: Path) -> None:
    """Without regard to the flag: the sixth user has a hit, unless each got an answer of their own.

    Without times nothing is promoted, and a warning says so.
    """
    file = tmp_path / "traffic.jsonl"
    rows = [
        {"message": message, "user_id": user, "answer_id": message, "private": private,
         "t": 960 * number}
        for number, user in enumerate("abcdefgh")
        for message, private in (("are you open", False), ("what do i owe", True))
    ]  # fmt: skip
    file.write_text("\n".join(map(json.dumps, rows)))
    found = replay(str(file), "--scope", "auto", "--no-compare")
    assert (found["hits"], found["private_leaks"]) == (3, 0)
    still = CliRunner().invoke(
        app, ["replay", str(file), "--scope", "auto", "--clock", "none", "--no-compare"]
    )
    assert "nothing is shared" in still.output


@pytest.mark.slow
def test_without_a_clock_nothing_expires(traffic: Path) -> None:
    """`--clock none` keeps the answer that the rows' clock lets expire."""
    assert replay(str(traffic), "--clock", "none")["hits"] == 5


@pytest.mark.slow
def test_the_other_scope_is_shown(traffic: Path) -> None:
    """The report says what the same traffic gives when nothing is shared."""
    found = replay(str(traffic))
    assert found["other_scope"]["scope"] == "all-private"
    assert found["other_scope"]["hits"] == 1
    alone = replay(str(traffic), "--scope", "all-private", "--no-compare")
    assert alone["hits"] == 1
    assert "other_scope" not in alone


@pytest.mark.slow
def test_a_threshold_of_one_leaves_only_exact_answers(traffic: Path) -> None:
    """The threshold is the one that was asked for."""
    assert replay(str(traffic), "--threshold", "1.0")["served_by"]["l2"] == 0


@pytest.mark.slow
def test_the_limit_cuts(traffic: Path) -> None:
    """Only the first rows are replayed."""
    assert replay(str(traffic), "--limit", "2")["requests"] == 2


@pytest.mark.slow
def test_the_table_is_for_people(traffic: Path) -> None:
    """Without --json there is a table with both scopes."""
    result = CliRunner().invoke(app, ["replay", str(traffic)])
    assert result.exit_code == 0
    for word in ("hit rate", "wrong answers", "private answers to others", "all-private"):
        assert word in result.stdout


@pytest.mark.slow
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
    ("text", "said", "code"),
    [
        ("", "has no rows", 1),
        ("not json", "Line 1: not JSON", 1),
        ('{"user_id": "u"}', "Line 1: no column for the message. Columns found: 'user_id'", 1),
        ('{"message": "m", "t": "x"}', "Line 1: t: expected seconds, milliseconds or ISO", 1),
        ('{"message": "m", "private": "perhaps"}', "Line 1: private: expected true or false", 1),
        (b"\xff\xfe\x00", "utf-16", 1),
        (None, "No such file", 2),
    ],
)
def test_a_file_without_anything_to_use_is_refused(
    tmp_path: Path, text: str | bytes | None, said: str, code: int
) -> None:
    """Errors name the place and what is expected; status 1 for a file that was read, else 2."""
    file = tmp_path / "bad.jsonl"
    if text is not None:
        file.write_bytes(text.encode() if isinstance(text, str) else text)
    result = CliRunner().invoke(app, ["replay", str(file)])
    assert result.exit_code == code
    assert isinstance(result.exception, SystemExit)
    assert said in " ".join(result.stderr.split())


@pytest.mark.slow
def test_a_bad_row_is_skipped_and_counted(tmp_path: Path) -> None:
    """Unless the file is read strictly, as the library does it."""
    file = tmp_path / "traffic.jsonl"
    file.write_text("\n".join([*map(json.dumps, ROWS[:2]), '{"message": "x", "t": true}']))
    found = replay(str(file), "--no-compare")
    assert found["requests"] == 2
    assert found["file"]["bad_rows"] == [
        {"line": 3, "error": "t: expected a time, found true/false"}
    ]
    assert CliRunner().invoke(app, ["replay", str(file), "--strict"]).exit_code == 1
    with pytest.raises(ConfigurationError, match=r"traffic\.jsonl: line 3: t: expected a time"):
        read_rows(file)


@pytest.mark.slow
def test_answers_do_not_cross_the_contexts_of_the_rows(tmp_path: Path) -> None:
    """Two tenants ask the same and get different answers: hits of their own, none of them wrong."""
    rows = [
        {"message": "When do you open?", "user_id": f"{tenant}{number}", "private": False,
         "answer_id": tenant, "context": {"tenant": tenant}}
        for number in range(10)
        for tenant in ("acme", "globex")
    ]  # fmt: skip
    file = tmp_path / "contexts.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    found = replay(str(file), "--no-compare")
    assert (found["hits"], found["wrong"]) == (18, 0)
    assert found["file"]["columns"]["context"] == ["context"]
    together = replay(str(file), "--no-compare", "--map", "context=")
    assert (together["hits"], together["wrong"]) == (19, 10)
    assert together["file"]["passed_over"] == ["context"]
    assert replay(str(file), "--no-compare", "--context", "all of them")["hits"] == 19


@pytest.mark.slow
def test_chats_are_replayed(tmp_path: Path) -> None:
    """Each chat is a user of its own; sharing is compared with, as no row says what is private."""
    turns = [{"role": "system", "content": "You help."}, {"role": "user", "content": "Where is it?"},
             {"role": "assistant", "content": "Level 1."}, {"role": "user", "content": "And when?"},
             {"role": "assistant", "content": "At nine."}]  # fmt: skip
    file = tmp_path / "chats.jsonl"
    file.write_text("\n".join([json.dumps({"messages": turns})] * 3))
    found = replay(str(file))
    assert (found["requests"], found["hits"]) == (6, 0)
    assert found["other_scope"]["scope"] == "all-shared"
    assert found["other_scope"]["hits"] == 4
    said = CliRunner().invoke(app, ["replay", str(file), "--scope", "all-shared", "--no-compare"])
    told = " ".join(said.output.split())
    assert "message and context and history <- 'messages'" in told
    assert "3 chats without a user_id: each counts as a user of its own" in told
    assert "6 requests without a time" in told


@pytest.mark.slow
@pytest.mark.parametrize("later", ["2026-11-02T06:00:00Z", 1_793_599_200, 1_793_599_200_000])
def test_time_passes_by_times_as_logs_write_them(tmp_path: Path, later: Any) -> None:
    """Under any of their names, in any of their forms, newest first: then answers expire."""
    first = {"message": "alpha", "user_id": 42, "timestamp": "2026-11-01T00:00:00Z"}
    file = tmp_path / "log.jsonl"
    file.write_text("\n".join(map(json.dumps, [{**first, "timestamp": later}, first])))
    found = replay(str(file), "--no-compare")
    assert found["hits"] == 0
    assert found["miss_reasons"]["l2"] == {"cold": 1, "expired": 1}
    assert replay(str(file), "--no-compare", "--clock", "none")["hits"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(("hours", "hits"), [(1, 1), (3, 0)])
def test_days_end_at_the_times_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int, hits: int
) -> None:
    """An answer of today, given at ten in the evening, is served before midnight alone."""
    monkeypatch.setenv("CACHE_TIMEZONE", "UTC")
    monkeypatch.setenv("CACHE_L1_TTL", "1d")
    row = {"message": "Are you open today?", "user_id": "ann", "t": 1_793_570_400}
    later = {**row, "t": row["t"] + hours * 3_600}
    file = tmp_path / "log.jsonl"
    file.write_text("\n".join(map(json.dumps, [row, later])))
    assert replay(str(file), "--no-compare")["hits"] == hits


@pytest.mark.slow
def test_rows_without_a_user_are_reported(tmp_path: Path) -> None:
    """They get what is shared, and the command says what that means and how to name a user."""
    file = tmp_path / "prompts.csv"
    file.write_text(
        "prompt,completion,session\nWhere is it?,Level 1.,s1\nWhere is it?,Level 1.,s1\n"
    )
    result = CliRunner().invoke(app, ["replay", str(file), "--no-compare"])
    told = " ".join(result.output.split())
    assert "2 requests without a user_id" in told
    assert "passed over: 'completion', 'session'" in told
    named = replay(str(file), "--no-compare", "--map", "user_id=session")
    assert named["hits"] == 1


@pytest.mark.slow
@pytest.mark.skipif(not EVALUATION.exists(), reason=f"no evaluation data at {EVALUATION}")
def test_real_traffic_is_answered_rightly() -> None:
    """On the first 800 rows of real questions: hits, hardly a wrong one, and no leak."""
    found = replay(str(EVALUATION), "--limit", "800", "--no-compare", "--clock", "none")
    assert found["private_leaks"] == 0
    assert found["hit_rate"] > 0.1
    assert found["wrong_share"] <= 0.007
