"""Caches of tests: how they are made, and the check that follows every test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from cache_core import MultiLevelCache
from cache_core.config.settings import Settings
from cache_core.model.values import LEVELS, PUT_OUTCOMES
from cache_core.observability.stats import CacheStats
from cache_core.testing import HashEmbedder

_open: set[int] = set()
"""Ids of the caches that `opened` has open."""

CacheFactory = Callable[..., Any]
"""Type of the fixture `make_cache`."""


def check_balance(stats: CacheStats) -> None:
    """Assert the counting contract."""
    assert sum(stats.outcomes.values()) == stats.lookups
    assert sum(stats.bypass_reasons.values()) == stats.outcomes["bypass"]
    answerable = stats.lookups - stats.outcomes["bypass"]
    for level in LEVELS:
        asked = stats.hits[level] + stats.misses[level] + stats.errors[level]
        assert asked <= answerable
        reasons = sum(n for (of, _), n in stats.miss_reasons.items() if of == level)
        assert reasons == stats.misses[level]
        reasons = sum(n for (of, _), n in stats.error_reasons.items() if of == level)
        assert reasons == stats.errors[level]
    l1 = stats.hits["l1"] + stats.misses["l1"] + stats.errors["l1"]
    assert l1 in {0, answerable}, "L1 is asked by every lookup, or it is off"
    assert stats.hits["l1"] + stats.hits["l2"] == stats.outcomes["hit"]
    assert stats.outcomes["partial"] <= stats.hits["l3"] + stats.hits["l4"]
    assert set(stats.put_outcomes) == set(PUT_OUTCOMES)
    for outcome in ("partial", "dropped", "bypass"):
        reasons = sum(n for (of, _), n in stats.put_outcome_reasons.items() if of == outcome)
        assert reasons == stats.put_outcomes[outcome], "a put that loses something says why"
    for level in LEVELS:
        lost = sum(n for (of, outcome), n in stats.puts.items() if of == level
                   and outcome in {"dropped", "bypass"})  # fmt: skip
        reasons = sum(n for (of, _), n in stats.put_reasons.items() if of == level)
        assert lost <= reasons, "a part that is not stored has a reason"


@contextlib.asynccontextmanager
async def opened(directory: Path, **more: Any) -> AsyncIterator[MultiLevelCache]:
    """Open a cache with budgets as they are by default; it leaves nothing behind."""
    before = asyncio.all_tasks()
    arguments = {name: more.pop(name) for name in list(more) if name not in Settings.model_fields}
    settings = Settings(dir=directory, **more)
    arguments = {"embedding_model": HashEmbedder(), "instruments": (), **arguments}
    cache = MultiLevelCache(settings=settings, **arguments)
    try:
        _open.add(id(cache))
        await cache.initialize()
        yield cache
    finally:
        _open.discard(id(cache))
        await cache.close()
    await asyncio.sleep(0)
    left = [task for task in asyncio.all_tasks() - before if _is_ours(task)]
    if left and _open:
        # They may be calls of another cache that is still open; those end.
        await asyncio.wait(left, timeout=30.0)
        left = [task for task in left if not task.done()]
    assert not left, f"tasks were left: {left}"


def _is_ours(task: asyncio.Task[Any]) -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    place = code.co_filename if code is not None else ""
    return (
        not task.done()
        and any(part in place for part in ("/cache_core/", "/redis/", "/chromadb/"))
        and "/testing/" not in place
    )
