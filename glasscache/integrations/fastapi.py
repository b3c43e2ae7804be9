"""FastAPI and Starlette with a cache: its life, and a dependency.

`FastAPI(lifespan=lifespan(cache))` opens the cache with the application and closes it with it;
`cache: Annotated[MultiLevelCache, Depends(current_cache)]` has it in a route.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from starlette.requests import HTTPConnection

from cache_core import MultiLevelCache

Lifespan = Callable[[Any], AbstractAsyncContextManager[None]]


def lifespan(cache: MultiLevelCache, inner: Lifespan | None = None) -> Lifespan:
    """Return a lifespan that has the cache open, around another one."""

    @asynccontextmanager
    async def open_cache(app: Any) -> AsyncIterator[None]:
        async with cache:
            app.state.glasscache = cache
            if inner is None:
                yield
                return
            async with inner(app):
                yield

    return open_cache


def current_cache(connection: HTTPConnection) -> MultiLevelCache:
    """Return the cache of the application, as a dependency."""
    found: MultiLevelCache = connection.app.state.glasscache
    return found
