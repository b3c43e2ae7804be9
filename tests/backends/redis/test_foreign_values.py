"""Values in Redis that are not ours: too large, or of another type."""

from __future__ import annotations

import asyncio

import pytest
import redis.asyncio as redis

from cache_core import MultiLevelCache
from tests.support import servers
from tests.support.caches import CacheFactory
from tests.support.patience import PATIENT

pytestmark = pytest.mark.parametrize("store_kind", ["redis"], indirect=True)


async def test_a_huge_value_in_redis_is_corrupt_once(
    make_cache: CacheFactory, empty_redis: str
) -> None:
    """A value too large to be read in time is detected, deleted, and counted as corrupt."""
    cache: MultiLevelCache = await make_cache(settings={"tiers": "l1", "exact_budget": 0.05})
    await cache.put("alpha", "ann", "answer")
    keys = cache._parts.keys
    query = keys.query("alpha", "ann")
    name = keys.entry("l1", query, query.scope("user"))
    async with redis.Redis(port=servers.port_of(empty_redis)) as client:  # an administrator
        await client.set(name, b"x" * 300_000_000)
        for _ in range(200):
            assert (await cache.lookup("alpha", "ann")).response is None
            if not await client.exists(name):
                break
            await asyncio.sleep(0.05)
        assert not await client.exists(name)
    await asyncio.sleep(0.3)
    await cache.lookup("alpha", "ann")
    await cache.lookup("alpha", "ann")
    assert cache.metrics.miss_reasons[("l1", "corrupt")] == 1
    await cache.put("alpha", "ann", "again")
    assert (await cache.lookup("alpha", "ann")).response == "again"


async def test_keys_of_another_type_are_replaced(
    make_cache: CacheFactory, empty_redis: str
) -> None:
    """A list under each of our names: nothing fails for longer than once."""
    cache: MultiLevelCache = await make_cache(settings=PATIENT)
    await cache.put("alpha beta", "ann", "answer", intent="greet", rag_results=[{"id": "d"}])
    async with redis.Redis(port=servers.port_of(empty_redis)) as client:  # an administrator
        names = [name async for name in client.scan_iter("gc1:*}*:*")]
        mine = [name for name in names if b"replica" not in name]
        assert len(mine) >= 6
        for name in mine:
            await client.delete(name)
            await client.rpush(name, "no value")
        first = await cache.lookup("beta alpha", "ann")
        assert (first.response, "corrupt" in first.reasons) == (None, True)
        await cache.put("alpha beta", "ann", "again", intent="greet", rag_results=[{"id": "d"}])
        assert (await cache.lookup("alpha beta", "ann")).tier == "l1"
        assert (await cache.lookup("beta alpha", "ann")).tier == "l2"
        assert cache.metrics.miss_reasons[("l2", "corrupt")] == 1
        done = await cache.forget_user("ann")
        assert done.complete
