"""ASGI application to mount in the agent's own: metrics and health of its cache.

Plain ASGI, so that it needs no framework and works with any: FastAPI, Starlette, Litestar, Quart.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, NamedTuple, TypeAlias

from prometheus_client.exposition import choose_encoder

from cache_core.model.exceptions import ConfigurationError
from cache_core.model.remedies import OPENING
from cache_core.multilevel_cache import MultiLevelCache, get_cache, shared_cache
from cache_core.runtime.problems import Problem

from .serving import scraped_registry

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class _Answer(NamedTuple):
    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()


def asgi_app(cache: MultiLevelCache | None = None) -> App:
    """Return an ASGI application with the metrics and the health of a cache.

    Mount it under any prefix, as in `app.mount("/ops", asgi_app(cache))`, or serve it alone:

    - `/metrics`: for Prometheus, in the text format or, on request, in OpenMetrics with
      exemplars; in multiprocess mode the sum over all workers.
    - `/cache/metrics`: this process's `cache.get_metrics()` as JSON.
    - `/health/live`: 200 while the process serves.
    - `/health/ready`: 200 when the store was reached and the model is loaded, else 503 with the
      backends that are not ready and remedies. It never waits; the first call opens the cache.

    No path needs a login: keep the prefix away from the public, as with any metrics.

    Args:
        cache: The cache; default: that of `get_cache()` in the serving event loop.

    Raises:
        ConfigurationError: If Prometheus multiprocess mode is requested and cannot work.
    """
    scraped_registry()
    return _Application(cache)


class _Application:
    def __init__(self, cache: MultiLevelCache | None) -> None:
        self._given = cache
        self._opening: asyncio.Task[Any] | None = None
        self._was_open = False
        self._routes: Mapping[str, Callable[[Mapping[bytes, bytes]], Awaitable[_Answer]]] = {
            "/metrics": self._metrics,
            "/cache/metrics": self._cache_metrics,
            "/health/live": self._live,
            "/health/ready": self._ready,
        }
        self._by_length = sorted(self._routes, key=len, reverse=True)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live_on(receive, send)
        elif scope["type"] == "http":
            await _send(send, scope["method"], await self._answer(scope))
        else:
            await send({"type": "websocket.close"})

    async def _answer(self, scope: Mapping[str, Any]) -> _Answer:
        # Servers and frameworks differ in whether the path still has the prefix of the mount, and
        # with root_path= also that of a proxy, which a request to the process itself lacks.
        path = str(scope["path"]).rstrip("/")
        inner = path.removeprefix(scope.get("root_path", ""))
        known = (name for name in (inner, *self._by_length) if path.endswith(name))
        route = next((self._routes[name] for name in known if name in self._routes), None)
        if route is None:
            return _json(404, {"error": "not found", "paths": list(self._routes)})
        if scope["method"] not in {"GET", "HEAD"}:
            refused = _json(405, {"error": "only GET and HEAD"})
            return refused._replace(headers=((b"allow", b"GET, HEAD"),))
        return await route(dict(scope["headers"]))

    @property
    def _cache(self) -> MultiLevelCache | None:
        return self._given or shared_cache()

    async def _metrics(self, headers: Mapping[bytes, bytes]) -> _Answer:
        encode, content_type = choose_encoder(headers.get(b"accept", b"").decode("latin-1"))

        def text() -> bytes:
            made: bytes = encode(scraped_registry())
            return gzip.compress(made, 1) if packed else made

        packed = b"gzip" in headers.get(b"accept-encoding", b"").lower()
        # in a thread: encoding takes milliseconds that must not delay a lookup
        body = await asyncio.to_thread(text)
        more = ((b"content-encoding", b"gzip"),) if packed else ()
        return _Answer(200, body, content_type, (*more, (b"vary", b"accept, accept-encoding")))

    async def _cache_metrics(self, _: Mapping[bytes, bytes]) -> _Answer:
        cache = self._cache
        if cache is None:
            return _json(503, {"error": "no cache yet: await get_cache(), or asgi_app(cache)"})
        return _json(200, cache.get_metrics())

    async def _live(self, _: Mapping[bytes, bytes]) -> _Answer:
        return _json(200, {"alive": True})

    async def _ready(self, _: Mapping[bytes, bytes]) -> _Answer:
        self._open()
        cache = self._cache
        failed = self._failure()
        if failed:
            problems = [{"backend": "cache", "do": failed}]
        elif cache is None:
            problems = [{"backend": "cache", "do": OPENING}]
        else:
            problems = [_shown(problem) for problem in cache.problems]
        found: dict[str, Any] = {"ready": not problems}
        if cache is not None:
            found["cache"], found["replica"] = cache.namespace, cache.replica
        if problems:
            found["problems"] = problems
        return _json(503 if problems else 200, found)

    def _open(self) -> None:
        """Start opening the cache, once.

        A process that gets traffic only when ready would otherwise never open it. A cache that was
        closed is not opened again.
        """
        cache = self._cache
        self._was_open = self._was_open or (cache is not None and cache.is_open)
        if self._opening is None and not self._was_open:
            opening = get_cache() if self._given is None else self._given.initialize()
            self._opening = asyncio.get_running_loop().create_task(opening)

    def _failure(self) -> str:
        """Return the reason why the cache could not be opened; empty if it could."""
        task = self._opening
        if task is None or not task.done() or task.cancelled():
            return ""
        error = task.exception()
        if isinstance(error, ConfigurationError):
            return str(error)
        return (
            "" if error is None else f"opening it failed with {type(error).__name__}: see the log"
        )


def _shown(problem: Problem) -> dict[str, str]:
    error = {"error": problem.error} if problem.error else {}
    return {"backend": problem.backend, **error, "do": problem.do}


def _json(status: int, value: Mapping[str, Any]) -> _Answer:
    return _Answer(status, json.dumps(value, default=str).encode())


async def _send(send: Send, method: str, answer: _Answer) -> None:
    headers = [
        (b"content-type", answer.content_type.encode()),
        (b"content-length", str(len(answer.body)).encode()),
        (b"cache-control", b"no-store"),
        (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
        (b"x-content-type-options", b"nosniff"),
        (b"x-frame-options", b"DENY"),
        (b"referrer-policy", b"no-referrer"),
        *answer.headers,
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    body = b"" if method == "HEAD" else answer.body
    await send({"type": "http.response.body", "body": body})


async def _live_on(receive: Receive, send: Send) -> None:
    """Follow the server's lifespan if this is the whole application."""
    while True:
        event = str((await receive())["type"])
        await send({"type": f"{event}.complete"})
        if event == "lifespan.shutdown":
            return
