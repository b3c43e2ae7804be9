"""Examination of Redis servers: what they report of themselves, and what the cache's user may do.

Nothing is written: commands are only queued in a transaction that is never executed, where the
server checks the user's rights anyway.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import redis.asyncio as redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError

from cache_core.backends.deadline import Deadline
from cache_core.backends.redis.batches import new_breaker
from cache_core.backends.redis.client import pool_like
from cache_core.backends.redis.replies import text_of

_SECONDS = 10.0
"""For a whole examination: a slow server is to be measured, not taken for an unavailable one."""

_PROBE_SECONDS = 3.0
"""For an answer in another scheme, which comes immediately or never."""

_TRIPS = 5
_SLOTS = 16_384
_CONFIG = ("save", "appendfsync")

Reply = TypeVar("Reply")


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """State of one Redis server.

    Attributes:
        address: Host and port, or the path of a socket.
        info: Fields of INFO; empty where the user may not read it.
        config: Some values of CONFIG GET; empty where the user may not read them.
        lacking: Commands of the cache that the user may not run, or that the server does not know.
        barred: `keys` or `channels`, if the user may not use those of the cache's prefix.
        round_trip: Median of a GET, in seconds.
        skew: Seconds by which the server's clock is ahead of this machine's, at least; `None` if
            unknown.
        uncovered: Slots of a Cluster that no server has.
        down: Error of a master of a Cluster that cannot be reached; empty if it can.
    """

    address: str
    info: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, str] = field(default_factory=dict)
    lacking: tuple[str, ...] = ()
    barred: tuple[str, ...] = ()
    round_trip: float = 0.0
    skew: float | None = None
    uncovered: int = 0
    down: str = ""


async def examine(client: redis.Redis, key: str, where: str) -> list[ServerFacts]:
    """Return the facts of a server; of a node of a Cluster, those of all its masters.

    Args:
        client: Client of the server.
        key: Name of a key that the cache's user may use and that does not exist.
        where: The setting that names the server, for errors.

    Raises:
        BackendError: If a server is unavailable.
    """
    breaker = new_breaker(1, 1.0)
    breaker.where = where
    with breaker:
        async with Deadline(_SECONDS):
            first = await _server(client, key)
            if first.info.get("cluster_enabled") != 1:
                return [first]
            untyped: Any = client
            places, uncovered = _slots(await _reply(untyped.execute_command("CLUSTER SLOTS")))
            found = []
            for host, port in places:
                async with _node(client, host, port) as node:
                    try:
                        found.append(await _server(node, key, uncovered))
                    except (RedisError, OSError) as error:
                        down = f"{type(error).__name__}: {error}"
                        found.append(ServerFacts(f"{host}:{port}", down=down))
            return found or [replace(first, uncovered=uncovered)]


@asynccontextmanager
async def _node(client: redis.Redis, host: str, port: int) -> AsyncIterator[redis.Redis]:
    """Yield a client of another node, with the login and options of *client*."""
    pool = pool_like(client)
    pool.connection_kwargs.update(host=host, port=port)
    node = redis.Redis(connection_pool=pool)
    try:
        yield node
    finally:
        await pool.disconnect()


def _slots(reply: Any) -> tuple[list[tuple[str, int]], int]:
    """Return the addresses of a Cluster's masters, and the number of slots that no one has."""
    ranges = reply if isinstance(reply, list) else []
    places = {(text_of(of[2][0]) or "", int(of[2][1])) for of in ranges}
    covered = sum(int(of[1]) - int(of[0]) + 1 for of in ranges)
    uncovered = _SLOTS - covered if isinstance(reply, list) else 0
    return sorted(place for place in places if place[0]), uncovered


async def _server(client: redis.Redis, key: str, uncovered: int = 0) -> ServerFacts:
    options = client.connection_pool.connection_kwargs
    address = options.get("path") or f"{options.get('host', '')}:{options.get('port', 6379)}"
    await _reply(client.get(key))  # connects
    trips = [await _timed(lambda: _reply(client.get(key))) for _ in range(_TRIPS)]
    info = await _reply(client.info())
    config: dict[str, str] = {}
    for name in _CONFIG:
        found: Mapping[Any, Any] = await _reply(client.config_get(name)) or {}
        config.update({str(key): str(value) for key, value in found.items()})
    clustered = bool(info and info.get("cluster_enabled") == 1)
    denied = await _denied(client, key, clustered=clustered)
    return ServerFacts(
        str(address),
        info or {},
        config,
        tuple(name for name, what in denied.items() if what == "command"),
        tuple(sorted({what for what in denied.values() if what != "command"})),
        statistics.median(trips),
        await _skew(client),
        uncovered,
    )


async def _timed(call: Callable[[], Awaitable[Any]]) -> float:
    start = time.perf_counter()
    await call()
    return time.perf_counter() - start


async def _reply(call: Awaitable[Reply]) -> Reply | None:
    """Return the reply; `None` for an error that the server answers, such as a missing right."""
    try:
        return await call
    except ResponseError:
        return None


async def _skew(client: redis.Redis) -> float | None:
    """Return the seconds by which the server's clock is ahead, at least; 0 if that is unsure."""
    before = time.time()
    reply = await _reply(client.time())
    after = time.time()
    if reply is None:
        return None
    seconds, micros = reply
    now = seconds + micros / 1_000_000
    return float(max(now - after, 0.0) + min(now - before, 0.0))


# ------------------------------------------------------------------------------- rights


def commands(key: str, *, clustered: bool = False) -> dict[str, tuple[Any, ...]]:
    """Return each command that the keyed store needs, by its name in an ACL, on one key."""
    own = {
        "ping": (), "time": (), "info": (), "select": (0,), "command": ("COUNT",),
        "get": (key,), "mget": (key,), "set": (key, ""), "unlink": (key,), "type": (key,),
        "strlen": (key,), "pexpire": (key, 1), "hmget": (key, ""), "hgetall": (key,),
        "hkeys": (key,), "hlen": (key,), "hstrlen": (key, ""), "hset": (key, "", ""),
        "hsetnx": (key, "", ""), "hdel": (key, ""), "xadd": (key, "*", "", ""),
        "xrange": (key, "-", "+"), "xrevrange": (key, "+", "-"), "xdel": (key, "0-1"),
        "publish": (key, ""), "subscribe": (key,), "unsubscribe": (key,), "unwatch": (),
    }  # fmt: skip
    found: dict[str, tuple[Any, ...]] = {name: (name, *rest) for name, rest in own.items()}
    if clustered:
        found["cluster|slots"] = ("cluster", "slots")
    return found


async def _denied(client: redis.Redis, key: str, *, clustered: bool) -> dict[str, str]:
    """Return what the user is denied of each command that fails: `command`, `keys`, `channels`.

    Without MULTI the others are not tried: they would be executed.
    """
    pool: Any = client.connection_pool
    connection: AbstractConnection = await pool.get_connection()
    first: dict[str, tuple[Any, ...]] = {name: (name,) for name in ("multi", "exec")}
    try:
        found = await _denials(connection, {"watch": ("watch", key), **first})
        if not found["multi"] and not (await _denials(connection, {"": ("multi",)}))[""]:
            found |= await _denials(connection, commands(key, clustered=clustered))
    finally:
        # Nothing was executed: the server drops the transaction with its connection.
        await connection.disconnect()
        await pool.release(connection)
    return {name: what for name, what in found.items() if what}


async def _denials(
    connection: AbstractConnection, tried: Mapping[str, tuple[Any, ...]]
) -> dict[str, str]:
    """Send commands in one round trip; return what of each is denied, empty for nothing."""
    for command in tried.values():
        await connection.send_command(*command)
    return {name: await _denial(connection) for name in tried}


async def _denial(connection: AbstractConnection) -> str:
    try:
        await connection.read_response()
    except NoPermissionError as error:
        text = str(error)
        return "keys" if " key" in text else "channels" if " channel" in text else "command"
    except ResponseError as error:
        return "command" if "unknown command" in str(error).lower() else ""
    return ""


# ---------------------------------------------------------------------------------- TLS


async def answers_otherwise(url: str) -> bool:
    """Return whether the server of *url* answers with TLS where that has none, or the reverse.

    No login is sent. False for a URL of another kind.
    """
    scheme, _, rest = url.partition("://")
    others = {"redis": "rediss", "rediss": "redis"}
    if scheme not in others:
        return False
    host = rest.rpartition("@")[2].partition("?")[0]
    trust: dict[str, Any] = {"ssl_cert_reqs": "none"} if scheme == "redis" else {}
    client = redis.Redis.from_url(
        f"{others[scheme]}://{host}", retry=Retry(NoBackoff(), 0), protocol=2, **trust
    )
    try:
        async with Deadline(_PROBE_SECONDS):
            await client.ping()
    except (ResponseError, AuthenticationError):
        return True
    except (RedisError, OSError, ValueError):
        return False
    finally:
        await client.aclose()
    return True
