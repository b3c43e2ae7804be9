"""docs/files.md: every file and command in it gives what the page shows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cache_core.cli.app import app
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "files.md"
_BLOCK = re.compile(r"(?:`([\w.]+)`:\n\n)?```(text|sh)\n(.*?)\n```", re.DOTALL)


def examples() -> list[tuple[str, str]]:
    """Return each command with what it shows."""
    blocks = [
        (name, kind, text) for name, kind, text in _BLOCK.findall(PAGE.read_text()) if not name
    ]
    kinds = [kind for _, kind, _ in blocks]
    assert kinds == ["sh", "text"] * (len(kinds) // 2), "each command stands before its output"
    texts = [text for _, _, text in blocks]
    return list(zip(texts[::2], texts[1::2], strict=True))


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the files of the page."""
    for name, kind, text in _BLOCK.findall(PAGE.read_text()):
        if name:
            assert kind == "text"
            (tmp_path / name).write_text(text + "\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize(("command", "shown"), examples(), ids=lambda value: value[:60])
def test_the_page_shows_what_the_commands_print(command: str, shown: str, directory: Path) -> None:
    """Line by line, whatever the width of the terminal."""
    assert command.startswith("glasscache ")
    result = CliRunner().invoke(app, shlex.split(command)[1:], env={"COLUMNS": "80"})
    assert result.exception is None or isinstance(result.exception, SystemExit)
    printed = " ".join(result.output.split())
    for line in shown.splitlines():
        assert " ".join(line.split()) in printed


def test_every_option_of_the_page_exists() -> None:
    """Every option that the text names belongs to one of the two commands, or to another one."""
    known = set()
    for command in ("warm", "replay", "explain", "invalidate"):
        known |= set(re.findall(r"--[\w-]+", CliRunner().invoke(app, [command, "--help"]).output))
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", PAGE.read_text()))
    assert named - known == set()
