"""Worker: one cache in a process of its own that looks up stored answers until it is stopped.

    python -m benchmarks.peers.fault_worker NAME REDIS_PORT CHROMA_PORT

prints `ready`, then one JSON line per lookup: its start, duration and result.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

ENTRIES = 50
_PAUSE = 0.01

Get = Callable[[int], Awaitable[str | None]]
Put = Callable[[int, str], Awaitable[Any]]


def _key(number: int) -> str:
    return f"What does article {number} cost?"


async def glasscache(redis_port: int, chroma_port: int) -> tuple[Get, Put]:
    """Set up this project's cache, all four tiers."""
    from cache_core import MultiLevelCache
    from cache_core.config.settings import Settings

    settings = Settings(
        redis_url=f"redis://127.0.0.1:{redis_port}/0",
        chroma_url=f"http://127.0.0.1:{chroma_port}",
        dir=Path(tempfile.mkdtemp()),
    )
    cache = MultiLevelCache(settings=settings)
    await cache.ready()

    async def get(number: int) -> str | None:
        return await cache.get_multilevel(_key(number), "ann")

    async def put(number: int, value: str) -> None:
        await cache.put(_key(number), "ann", value)

    return get, put


async def redisvl(redis_port: int, _: int) -> tuple[Get, Put]:
    """Set up redisvl's EmbeddingsCache: its cache that needs no search module."""
    from redisvl.extensions.cache.embeddings import EmbeddingsCache

    cache = EmbeddingsCache(redis_url=f"redis://127.0.0.1:{redis_port}")

    async def get(number: int) -> str | None:
        found = await cache.aget(_key(number), "model")
        return found["metadata"]["answer"] if found else None

    async def put(number: int, value: str) -> None:
        await cache.aset(_key(number), "model", [0.1] * 384, {"answer": value})

    return get, put


async def litellm(redis_port: int, _: int) -> tuple[Get, Put]:
    """Set up LiteLLM's cache of completions on Redis."""
    from litellm.caching.caching import Cache

    cache = Cache(type="redis", host="127.0.0.1", port=str(redis_port))

    def asked(number: int) -> dict[str, Any]:
        return {"model": "gpt-4o", "messages": [{"role": "user", "content": _key(number)}]}

    async def get(number: int) -> str | None:
        found = await cache.async_get_cache(**asked(number))
        return found if found is None else str(found["answer"])

    async def put(number: int, value: str) -> None:
        await cache.async_add_cache({"answer": value}, **asked(number))

    return get, put


async def cashews(redis_port: int, _: int) -> tuple[Get, Put]:
    """Set up cashews on Redis."""
    from cashews import Cache

    cache = Cache()
    cache.setup(f"redis://127.0.0.1:{redis_port}/0")

    async def get(number: int) -> str | None:
        found: str | None = await cache.get("cashews:" + _key(number))
        return found

    async def put(number: int, value: str) -> None:
        await cache.set("cashews:" + _key(number), value, expire=3600)

    return get, put


async def aiocache(redis_port: int, _: int) -> tuple[Get, Put]:
    """Set up aiocache on Redis, with its JSON serializer."""
    from aiocache import Cache
    from aiocache.serializers import JsonSerializer

    cache = Cache(Cache.REDIS, endpoint="127.0.0.1", port=redis_port, serializer=JsonSerializer())

    async def get(number: int) -> str | None:
        found: str | None = await cache.get("aiocache:" + _key(number))
        return found

    async def put(number: int, value: str) -> None:
        await cache.set("aiocache:" + _key(number), value, ttl=3600)

    return get, put


PEERS: dict[str, Callable[[int, int], Awaitable[tuple[Get, Put]]]] = {
    "glasscache": glasscache,
    "redisvl": redisvl,
    "litellm": litellm,
    "cashews": cashews,
    "aiocache": aiocache,
}
"""Caches to compare; each set up as in its documentation, with no option changed."""


async def work(name: str, redis_port: int, chroma_port: int) -> None:
    """Store, print `ready`, and look up until standard input ends."""
    get, put = await PEERS[name](redis_port, chroma_port)
    for number in range(ENTRIES):
        await put(number, f"answer {number}")
        await get(number)
    print("ready", flush=True)
    ended = asyncio.ensure_future(asyncio.to_thread(sys.stdin.read))
    number = 0
    while not ended.done():
        number = (number + 1) % ENTRIES
        at, started = time.time(), time.perf_counter()
        try:
            found = await get(number)
        except Exception as error:  # noqa: BLE001 - that is what is counted
            outcome = f"raised {type(error).__name__}"
        else:
            right = found == f"answer {number}"
            outcome = "right" if right else "none" if found is None else "wrong"
        print(json.dumps([at, time.perf_counter() - started, outcome]), flush=True)
        if outcome == "none":
            # put lost answers again, as an agent would
            try:
                await put(number, f"answer {number}")
            except Exception as error:  # noqa: BLE001 - as above
                print(json.dumps([time.time(), 0.0, f"put raised {type(error).__name__}"]))
        await asyncio.sleep(_PAUSE)
    sys.stdout.flush()
    os._exit(0)  # a client that hangs must not hold up the others


if __name__ == "__main__":
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    logging.disable(logging.CRITICAL)
    asyncio.run(work(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
