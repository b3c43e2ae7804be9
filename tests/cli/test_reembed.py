"""`glasscache reembed`, with the real model, killed in between."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cache_core import MultiLevelCache, Settings
from cache_core.backends.embedder.pool import ThreadEmbedder
from cache_core.cli.app import app
from cache_core.testing import HashEmbedder
from tests.support.patience import PATIENT
from tests.support.waiting import wait_until

TOPICS = ("refunds", "delivery", "invoices", "returns", "warranty", "opening hours") * 5


def run(*arguments: str) -> Any:
    result = CliRunner().invoke(app, ["reembed", *arguments, "--json"])
    assert result.exit_code == 0, result.output
    return {fate: number for fate, number in json.loads(result.stdout).items() if number}


def _moved(directory: Path) -> int:
    """Return the number of answers in the feed of the model that came last."""
    (file,) = directory.glob("*.db")
    with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as read:
        rows = read.execute("SELECT log, count(*) FROM logs WHERE log LIKE '%{feed%' GROUP BY log")
        found = sorted(count for _, count in rows)
    return found[0] if len(found) > 1 else 0


@pytest.mark.slow
def test_it_goes_on_after_it_was_killed(
    tmp_path: Path, real_embedder: ThreadEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Moved answers are recognised, the others are moved, and rephrased questions are answered."""
    monkeypatch.setenv("CACHE_PUT_BUDGET", "20")
    data = tmp_path / "data"
    fixed = Settings(**{**PATIENT, "dir": data})
    asyncio.run(_put_with_another_model(fixed))
    everything = {"moved": 31, "dry_run": True}
    assert run("--dir", str(data), "--dry-run") == everything

    command = "from cache_core.cli.app import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", command, "reembed", "--rate", "8", "--dir", str(data)],
        env={**os.environ, "CACHE_DIR": str(data)},
    )
    wait_until(lambda: _moved(data) > 0, "the first answers are moved", seconds=60)
    process.kill()
    process.wait()

    found = run("--dir", str(data))
    assert 0 < found["moved"] < 31
    assert found["moved"] + found["present"] == 31
    assert run("--dir", str(data)) == {"present": 31}
    asyncio.run(_ask(fixed, real_embedder))


async def _put_with_another_model(settings: Settings) -> None:
    old = MultiLevelCache(settings=settings, embedding_model=HashEmbedder(), instruments=())
    async with old:
        for number, topic in enumerate(TOPICS):
            question = f"Where can I read about {topic} in chapter {number}?"
            await old.put(question, None, f"answer {number}", shared=True)
        await old.put("How do I get my money back?", "ann", "by post")


async def _ask(settings: Settings, model: ThreadEmbedder) -> None:
    new = MultiLevelCache(settings=settings, embedding_model=model, instruments=())
    async with new:
        await new.ready()
        hit = await new.lookup("Where can I read about the refunds in chapter 0?", "bob")
        assert (hit.response, hit.tier) == ("answer 0", "l2")
        hit = await new.lookup("How can I get my money back?", "ann")
        assert (hit.response, hit.tier) == ("by post", "l2")


def test_a_store_without_other_models(tmp_path: Path) -> None:
    """There is nothing to do, and the command says so."""
    result = CliRunner().invoke(app, ["reembed", "--dir", str(tmp_path)])
    assert result.exit_code == 0
    assert "No answer was stored with another model" in result.stdout
