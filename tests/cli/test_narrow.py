"""Output of every command on narrow terminals: nothing is cut."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cache_core import MultiLevelCache
from cache_core.cli import console, export, tune
from cache_core.cli.app import app
from cache_core.config.settings import Settings
from cache_core.testing import HashEmbedder
from tests.support.patience import PATIENT

FRAMES = re.compile(r"[\s\d.,%\-…─-╿▀-▟⠀-⣿]")
WIDE = 250

COMMANDS = {
    "settings": ["settings"],
    "settings NAME": ["settings", "e"],
    "stats": ["stats", "DIR"],
    "tune show": ["tune", "show", "DIR"],
    "tune shadow": ["tune", "shadow", "--max-wrong", "0.01", "DIR"],
    "tune history": ["tune", "history", "DIR"],
    "tune set": ["tune", "set", "l1_ttl=2h", "guards=numbers,negation", "--dry-run", "DIR"],
    "explain": ["explain", "How long does the delivery of a bicycle take?", "--user", "u1", "DIR"],
    "invalidate": ["invalidate", "How long does it take?", "--dry-run", "DIR"],
    "warm": ["warm", "FILE", "--dry-run", "DIR"],
    "replay": ["replay", "FILE"],
    "evaluate": ["evaluate", "FILE"],
    "reembed": ["reembed", "--dry-run", "DIR"],
    "doctor": ["doctor", "DIR"],
    "export": ["export", "alerts", "OUT"],
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with lookups of several outcomes, and changes of the tuning."""
    directory = tmp_path_factory.mktemp("store")

    async def fill() -> None:
        settings = Settings(dir=directory, redis_url=None, **PATIENT)
        async with MultiLevelCache(
            settings=settings, embedding_model=HashEmbedder(), instruments=()
        ) as cache:
            for user in ("u1", "u2"):
                for message in ("How long does delivery take?", "May I return it?"):
                    found = await cache.lookup(message, user)
                    await cache.put(message, user, "Three days.", "delivery", lookup=found)
                    await cache.lookup(message, user)
            changes = {
                "shared_intents": [f"an_intent_with_a_long_name_{n}" for n in range(6)],
                "puts_per_minute": 123_456.0,
                "intent.an_intent_with_a_long_name_1.semantic_threshold": 0.97,
            }
            await cache.tune(changes, author="somebody with a name", note="a reason " * 12)
            await cache.operator.flush_decisions()

    asyncio.run(fill())
    return directory


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    directory = tmp_path_factory.mktemp("files")
    kinds: dict[str, dict[str, object]] = {
        "replay": {"message": "Where is my order?", "user_id": "u1", "answer_id": "a", "t": 1.0},
        "warm": {"query": "How long does delivery take, also abroad?", "response": "Three days. " * 9},
        "evaluate": {"question1": "Where is it?", "question2": "Where is my order?", "is_duplicate": 1},
    }  # fmt: skip
    for name, row in kinds.items():
        rows = [json.dumps({key: f"{value} {n}" if isinstance(value, str) and " " in value else value
                            for key, value in row.items()}) for n in range(4)]  # fmt: skip
        (directory / f"{name}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return {name: str(directory / f"{name}.jsonl") for name in kinds}


@pytest.mark.slow
@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_cuts_anything(
    name: str, width: int, store: Path, files: dict[str, str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A narrow terminal has every character of a wide one, in no line that is too long."""
    for variable, value in PATIENT.items():
        monkeypatch.setenv(f"CACHE_{variable.upper()}", str(value))
    # without a second column of names, as settings has it
    reference = 77 if name == "settings" and width == 60 else WIDE
    given = {"DIR": ["--dir", str(store)], "FILE": [files.get(name, "")], "OUT": [str(tmp_path / "out")]}  # fmt: skip

    def printed(columns: int) -> str:
        for terminal in (console.out, console.err):
            monkeypatch.setattr(terminal, "_width", columns)
        words = [part for word in COMMANDS[name] for part in given.get(word, [word])]
        if name == "export":
            words[-1] += str(columns)
        result = CliRunner().invoke(app, words)
        assert result.exit_code in {0, 1}, result.output
        return result.stdout

    narrow, wide = printed(width), printed(reference)
    assert narrow.strip()
    assert "…" not in narrow
    assert characters(narrow) == characters(wide)
    tables = [line for line in narrow.splitlines() if "/" not in line]
    assert max(map(len, tables), default=0) <= width


def characters(text: str) -> Counter[str]:
    """Count the characters that are no digits, marks, spaces or frames: figures differ by run."""
    return Counter(FRAMES.sub("", text))


HELPS = [
    [*prefix, str(command.name)]
    for prefix, group in (((), app), (("tune",), tune.app), (("export",), export.app))
    for command in group.registered_commands
]


@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize("words", HELPS, ids=" ".join)
def test_no_help_cuts_anything_or_has_programmers_words(
    words: list[str], width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A help fits, and says what an option takes in words."""
    monkeypatch.setenv("COLUMNS", str(width))
    result = CliRunner().invoke(app, [*words, "--help"])
    assert result.exit_code == 0, result.exception
    said = result.output
    assert max(map(len, said.splitlines())) <= width
    assert width == 60 or "…" not in said, "at 60 a long word may end with the mark"
    assert not re.search(r"<(bool|int|str|float|path|list)|INTEGER|x>=|x<=|range\]", said)
