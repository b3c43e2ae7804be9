"""`glasscache dump` and `glasscache load`: a file that only its owner reads, and what became of it."""

from __future__ import annotations

import asyncio
import gzip
import json
import secrets
import stat
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cache_core import MultiLevelCache, Settings
from cache_core.cli.app import app
from tests.support.patience import PATIENT


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory with a shared and a private answer, without L2."""
    monkeypatch.setenv("CACHE_TIERS", "l1")
    monkeypatch.setenv("CACHE_KEY", "the same in both caches")
    found = tmp_path / "data"
    asyncio.run(_put(found))
    return found


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def document(*arguments: object, code: int = 0) -> dict[str, Any]:
    """Return what is not zero in a command's JSON."""
    result = run(*arguments, "--json")
    assert result.exit_code == code, result.output
    return {name: value for name, value in json.loads(result.stdout).items() if value}


async def _put(directory: Path) -> None:
    async with _cache(directory) as cache:
        await cache.put("When?", "ann", "At nine.", shared=True)
        await cache.put("Where?", "ann", "Here.")


def _cache(directory: Path) -> MultiLevelCache:
    fixed = {**PATIENT, "dir": directory, "tiers": {"l1"}, "key": "the same in both caches"}
    return MultiLevelCache(settings=Settings(**fixed), instruments=())


def ask(directory: Path, message: str) -> str | None:
    async def asked() -> str | None:
        async with _cache(directory) as cache:
            return await cache.get_multilevel(message, "ann")

    return asyncio.run(asked())


@pytest.mark.parametrize("name", ["answers.jsonl", "answers.jsonl.gz"])
def test_answers_move_by_a_file(data: Path, tmp_path: Path, name: str) -> None:
    """The file is its owner's alone and whole; what is loaded is served, a second time nothing."""
    file, other = tmp_path / name, tmp_path / "other"
    assert document("dump", file, "--dir", data, "--private") == {"dumped": 2, "file": str(file)}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert (file.read_bytes()[:2] == b"\x1f\x8b") == name.endswith("gz")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [name]

    what = {"loaded": 2, "whole": True, "dry_run": True}
    assert document("load", file, "--dir", other, "--dry-run") == what
    assert ask(other, "Where?") is None
    assert document("load", file, "--dir", other) == {"loaded": 2, "whole": True}
    assert document("load", file, "--dir", other) == {"present": 2, "whole": True}
    assert (ask(other, "When?"), ask(other, "Where?")) == ("At nine.", "Here.")


def test_what_is_left_out_is_said(data: Path, tmp_path: Path) -> None:
    """Private answers stay, an existing file is not overwritten, and a dry run writes none."""
    file = tmp_path / "answers.jsonl"
    said = run("dump", file, "--dir", data, "--dry-run").stdout
    assert "left out: answers of single users (--private)" in said
    assert not file.exists()
    assert run("dump", file, "--dir", data).exit_code == 0
    again = run("dump", file, "--dir", data)
    assert (again.exit_code, "exists" in again.output) == (2, True)
    said = run("load", file, "--dir", tmp_path / "other").stdout
    assert "1   stored" in said


def test_a_cut_file_is_loaded_as_far_as_it_goes(data: Path, tmp_path: Path) -> None:
    """The entries that are there are stored, and the exit code is 1."""
    file = tmp_path / "answers.jsonl"
    run("dump", file, "--dir", data, "--private")
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:2]))
    assert document("load", file, "--dir", tmp_path / "other", code=1) == {"loaded": 1}
    packed = gzip.compress("".join(lines).encode())
    file.write_bytes(packed[:-12])
    assert "was cut" in run("load", file, "--dir", tmp_path / "third").output
    file.write_text("question,answer\n")
    other = run("load", file, "--dir", tmp_path / "other")
    assert (other.exit_code, "first line" in other.output) == (2, True)


def test_a_readable_file_is_loaded_beside_keys_only_on_demand(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With CACHE_ENCRYPTION_KEYS the error names `--plain`, which loads it."""
    file, other = tmp_path / "answers.jsonl", tmp_path / "other"
    run("dump", file, "--dir", data)
    monkeypatch.setenv("CACHE_ENCRYPTION_KEYS", secrets.token_urlsafe(32) + "=")
    found = run("load", file, "--dir", other)
    assert (found.exit_code, "--plain" in found.output) == (2, True)
    assert document("load", file, "--dir", other, "--plain") == {"loaded": 1, "whole": True}
