"""`glasscache tune shadow` on the store of an agent."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from cache_core.cli.app import app
from tests.operations.test_learning import ASKED, NEAR, learned
from tests.support.caches import opened
from tests.support.inside import inside
from tests.support.patience import PATIENT


def shadow(directory: Path, *arguments: str) -> str:
    found = CliRunner().invoke(app, ["tune", "shadow", "--dir", str(directory), *arguments])
    assert found.exit_code == 0, found.output
    return found.stdout


async def traffic(directory: Path, *, log: int) -> None:
    """Miss two near questions; the fresh answer to one of them is another one."""
    async with opened(directory, **PATIENT, decisions=log) as cache:
        for word in ("school", "kitchen", "library"):
            text = ASKED.replace("office", word)
            await cache.put(text, "ann", "answer a", shared=True, answer_id="a")
        await learned(cache, NEAR, "a")
        await learned(cache, NEAR.replace("garden", "station"), "b")
        await cache.operator.flush_decisions()
        await inside(cache).learning.tend()


async def test_what_the_policy_would_have_served_is_shown(tmp_path: Path) -> None:
    """For each share: how many lookups, and how many of those answers turned out wrong."""
    await traffic(tmp_path, log=1_000)
    found: dict[str, Any] = json.loads(
        await asyncio.to_thread(
            shadow, tmp_path, "--max-wrong", "0.05", "--max-wrong", "0.0005", "--json"
        )
    )
    strict, loose = found["shares"]
    assert (found["max_wrong"], strict["max_wrong"], loose["max_wrong"]) == (0.0, 0.0005, 0.05)
    assert (strict["lookups"], strict["searched"], strict["hits"]) == (2, 2, 0)
    assert loose["newly"] == {"lookups": 2, "judged": 2, "wrong": 1}
    assert (loose["hit_rate_now"], loose["hit_rate"]) == (0.0, 1.0)
    assert loose["kept"] == {"lookups": 0, "judged": 0, "wrong": 0}
    assert found["intents"] == {}, "of several shares"
    one = await asyncio.to_thread(shadow, tmp_path, "--max-wrong", "0.05")
    assert "By intent, at 0.05" in one
    assert "not known 0.0% 100.0% 2 1 of 2 0 - 0" in " ".join(one.split())
    said = " ".join((await asyncio.to_thread(shadow, tmp_path)).split())
    assert "By intent" not in said
    assert "0.05 100.0% 2 1 of 2 0 - 0" in said
    assert "now: the threshold" in said
    assert "Too few to rely on" in said


async def test_without_figures_it_says_so_instead_of_zero(tmp_path: Path) -> None:
    """An agent that logs no decisions leaves no shadow."""
    await traffic(tmp_path, log=0)
    assert "not warm" in await asyncio.to_thread(shadow, tmp_path)
