"""Opening, closing and reopening: `get_cache`, one cache after another loop, a store that is down."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from cache_core import MultiLevelCache, Settings, close_cache, get_cache
from cache_core.testing import HashEmbedder
from tests.support import servers
from tests.support.caches import CacheFactory
from tests.support.patience import PATIENT
from tests.support.waiting import until


async def test_get_cache_is_one_per_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """get_cache returns the same open cache until close_cache, which may be called twice."""
    monkeypatch.setenv("CACHE_TIERS", "l1,l3,l4")
    first, again = await asyncio.gather(get_cache(), get_cache())
    assert first is again
    assert first.is_open
    await close_cache()
    assert not first.is_open
    await close_cache()
    second = await get_cache()
    assert second is not first
    await close_cache()


def test_each_loop_has_a_cache_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two event loops, one after the other, get different caches on the same data."""
    monkeypatch.setenv("CACHE_TIERS", "l1,l3,l4")

    async def put() -> MultiLevelCache:
        cache = await get_cache()
        await cache.put("alpha", "ann", "answer")
        await close_cache()
        return cache

    async def get() -> tuple[MultiLevelCache, str | None]:
        cache = await get_cache()
        found = await cache.get_multilevel("alpha", "ann")
        await close_cache()
        return cache, found

    first = asyncio.run(put())
    second, found = asyncio.run(get())
    assert first is not second
    assert found == "answer"


def test_one_cache_in_two_runs_of_asyncio(
    store_kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """A cache that was closed in one asyncio.run works in the next one."""
    url = request.getfixturevalue("empty_redis") if store_kind == "redis" else None
    fixed = Settings(dir=tmp_path, redis_url=url)
    cache = MultiLevelCache(settings=fixed, embedding_model=HashEmbedder(), instruments=())

    async def put() -> None:
        await cache.put("alpha", "ann", "answer")
        await cache.close()

    async def get() -> str | None:
        found = await cache.get_multilevel("alpha", "ann")
        await cache.close()
        return found

    asyncio.run(put())
    assert asyncio.run(get()) == "answer"


def test_a_cache_left_open_by_an_ended_loop(tmp_path: Path) -> None:
    """A cache that was not closed before its loop ended still works in the next loop."""
    cache = MultiLevelCache(
        settings=Settings(dir=tmp_path), embedding_model=HashEmbedder(), instruments=()
    )

    async def put() -> None:
        await cache.put("alpha beta", "ann", "answer", shared=True)

    async def get() -> tuple[str | None, str | None]:
        await cache.ready()
        exact = await cache.get_multilevel("alpha beta", "bob")
        similar = await cache.get_multilevel("beta alpha", "bob")
        await cache.close()
        return exact, similar

    asyncio.run(put())
    assert asyncio.run(get()) == ("answer", "answer")


async def test_use_reopens_a_closed_cache(make_cache: Any) -> None:
    """Closing is idempotent, and the next use opens the cache again with what it had."""
    cache = await make_cache()
    await cache.put("alpha", "ann", "answer")
    await cache.close()
    await cache.close()
    assert not cache.is_open
    assert (cache.redis_client, cache.chroma_collection) == (None, None)
    assert await cache.get_multilevel("alpha", "ann") == "answer"


@pytest.fixture
async def cache(make_cache: CacheFactory) -> MultiLevelCache:
    made: MultiLevelCache = await make_cache(settings=PATIENT)
    return made


@pytest.mark.server
@pytest.mark.parametrize("key", [None, "a secret of the operator"])
async def test_redis_away_at_the_start(tmp_path: Path, key: str | None) -> None:
    """Lookups end as errors within their budget, and soon after Redis comes up all is well."""
    port = servers.free_port()
    url = servers.redis_url(port)
    fixed = Settings(dir=tmp_path, redis_url=url, key=key)
    cache = MultiLevelCache(settings=fixed, embedding_model=HashEmbedder(), instruments=())
    await cache.initialize()
    for _ in range(20):
        started = time.monotonic()
        found = await cache.lookup("alpha", "ann")
        assert time.monotonic() - started < 5
        assert (found.outcome, found.response) == ("error", None)
    await cache.put("alpha", "ann", "dropped")
    assert await cache.get_or_compute("beta", "ann", lambda: "made") == "made"
    assert not (await cache.invalidate("alpha")).complete
    with servers.redis_server(tmp_path, port=port):

        async def answered() -> bool:
            await cache.put("alpha", "ann", "answer")
            return bool(await cache.get_multilevel("alpha", "ann") == "answer")

        await until(answered)
        await cache.close()
    assert sum(cache.metrics.outcomes.values()) == cache.metrics.lookups


async def test_closing_while_redis_is_away(tmp_path: Path) -> None:
    """A cache whose store was never reached closes immediately and leaves nothing."""
    fixed = Settings(dir=tmp_path, redis_url=servers.redis_url(servers.free_port()))
    async with MultiLevelCache(
        settings=fixed, embedding_model=HashEmbedder(), instruments=()
    ) as cache:
        assert (await cache.lookup("alpha", "ann")).outcome == "error"
    assert len(asyncio.all_tasks()) == 1
