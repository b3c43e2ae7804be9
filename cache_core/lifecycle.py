"""One shared cache per process and event loop."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from cache_core.multilevel_cache import MultiLevelCache

_caches: WeakKeyDictionary[asyncio.AbstractEventLoop, MultiLevelCache] = WeakKeyDictionary()


async def get_cache() -> MultiLevelCache:
    """Return this event loop's shared cache, initialised; configured by the environment."""
    from cache_core.multilevel_cache import MultiLevelCache

    loop = asyncio.get_running_loop()
    cache = _caches.get(loop)
    if cache is None:
        cache = _caches[loop] = MultiLevelCache()
    await cache.initialize()
    return cache


async def close_cache() -> None:
    """Close this event loop's shared cache; idempotent. `get_cache` makes a new one."""
    cache = _caches.pop(asyncio.get_running_loop(), None)
    if cache is not None:
        await cache.close()


# A forked child must not use its parent's connections.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_caches.clear)
