"""A Chroma server's connections: none is lost, whatever becomes of the lookups."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any
from urllib.parse import urlsplit

from cache_core.testing import ChaosProxy
from tests.support.waiting import until


def _connections(cache: Any) -> list[Any]:
    client = cache._parts.semantic.engine._chroma._client
    return list(client._server._get_client()._transport._pool.connections)


async def test_cancelled_lookups_leave_no_connection_behind(make_cache, chroma_url) -> None:
    """Storms of cancelled lookups leave no connection to the server open."""
    chance = Random(7)
    server = urlsplit(chroma_url)
    async with ChaosProxy(server.hostname, server.port) as proxy:
        proxy.latency = 0.01
        cache = await make_cache(
            settings={"chroma_url": proxy.url(chroma_url)}, namespace="storm", sharing="all"
        )
        await cache.ready()
        await until(lambda: cache.state.backends["chroma"], 60)
        for _ in range(30):
            lookups = [
                asyncio.create_task(cache.lookup(f"{chance.random()}", "ann")) for _ in range(10)
            ]
            await asyncio.sleep(chance.random() * 0.03)
            for lookup in lookups:
                lookup.cancel()
            await asyncio.gather(*lookups, return_exceptions=True)
        # Neither open nor closed for good is what cancelled requests left behind.
        await until(lambda: all(each.is_idle() for each in _connections(cache)), 60)
