"""A Chroma server's connections: none is lost, nor what was put before there was one."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from cache_core.backends.base import Limits, Row
from cache_core.backends.chroma import client, index
from cache_core.backends.chroma.index import ChromaIndex
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


def _index(url: str) -> ChromaIndex:
    limits = Limits(search_timeout=10.0, write_timeout=20.0)
    return ChromaIndex(namespace="late", model="m", default_context="none", url=url, limits=limits)


async def test_what_was_put_before_the_connection_is_written_at_the_close(
    chroma_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index closed while its server is being connected waits for it, and writes its rows."""
    monkeypatch.setattr(client, "SERVER_SECONDS", 20.0)
    with monkeypatch.context() as patched:
        patched.setattr(index, "OPEN_SECONDS", 0.0)
        early = _index(chroma_url)
        await early.open()
    await early.add("none", Row("a", np.ones(8, np.float32) / np.sqrt(8), "text", 1e12))
    assert not early.connected
    await early.close()
    late = _index(chroma_url)
    await late.open()
    try:
        await until(lambda: late.connected, 60)
        assert await late.texts("none", ["a"]) == {"a": "text"}
    finally:
        await late.close()
