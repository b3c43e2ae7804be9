"""`glasscache replay`: what it prints of recorded traffic."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cache_core.cli.app import app

DAY = 86_400.0


def replay(tmp_path: Path, rows: list[dict[str, object]]) -> str:
    file = tmp_path / "traffic.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    result = CliRunner().invoke(app, ["replay", str(file)])
    assert result.exit_code == 0, result.output
    return " ".join(result.stdout.split())


def row(user: str, intent: str, at: float, *, private: bool) -> dict[str, object]:
    message = f"What about my {intent}?"
    return {"message": message, "user_id": user, "intent": intent, "private": private, "t": at}


@pytest.mark.slow
def test_reasons_and_money_are_in_words(tmp_path: Path) -> None:
    """Misses have words, no codes; two days of rows say what 30 days save."""
    rows = [row("u1", "account", 0.0, private=True), row("u1", "account", 60.0, private=True),
            row("u2", "account", 61.0, private=True), row("u3", "parcel", 2 * DAY, private=True)]  # fmt: skip
    said = replay(tmp_path, rows)
    assert "L1 missed: nothing stored 2, another user has it 1" in said
    assert "other_scope" not in said
    assert "At the file's pace that is 0.54 USD in 30 days." in said
    assert (
        "1 lookup missed an answer of another user; the file says it is private: account." in said
    )
    assert "CACHE_SHARED_INTENTS" not in said
    assert "in 30 days" not in replay(tmp_path, rows[:3])


@pytest.mark.slow
def test_what_the_file_calls_private_is_not_advised(tmp_path: Path) -> None:
    """Advice on sharing names the intents that are not to be shared."""
    rows = [row(user, intent, 0.0, private=private)
            for intent, private in (("account", True), ("delivery", False)) for user in ("u1", "u2")]  # fmt: skip
    for one in rows:
        if one["intent"] == "delivery":
            del one["private"]
    said = replay(tmp_path, rows)
    assert "Do not share account: the file says that it is private." in said
