"""The keyed store on Redis: one server, or a Cluster.

Plain commands only (no Lua, no modules), so that a least-privilege ACL and managed services do.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import redis.asyncio as redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    MaxConnectionsError,
    ResponseError,
)

from cache_core.breaker import Breaker
from cache_core.clock import WallClock
from cache_core.deadline import Deadline
from cache_core.exceptions import BackendError
from cache_core.stores.base import RowWrite, Write
from cache_core.stores.coalescing import Coalescer

log = logging.getLogger("glasscache")

_KEPT_SECONDS = 10 * 365 * 86_400.0
_LISTENING = 5.0
"""Seconds after which a silent subscription is looked after."""

_TRIM_SLACK = 1.25
"""A hash is trimmed when it is this much over its limit: trimming reads it whole."""

_RAW: dict[str, Any] = {"NEVER_DECODE": True}
"""With a pool of decode_responses=True one undecodable value would fail everybody's reads."""


def connect(url: str, *, timeout: float, connections: int = 64) -> redis.Redis:
    """Return a client that fails fast.

    redis-py's defaults retry a stopped server for a minute. RESP2, because redis-py 8.1 hands out
    connections that the server closed under RESP3 (redis-py #4252). Commands have no time limit
    of redis-py's: it takes a task and two timers each, a third of a GET, and the store's own
    deadline covers the whole batch.
    """
    return redis.Redis.from_url(
        url,
        protocol=2,
        socket_timeout=None,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 1),
        max_connections=connections,
        health_check_interval=0,
    )


class RedisStore:
    """The keyed store on a Redis server or Cluster.

    Args:
        client: The client to use; it is closed by `close` only if *owned*.
        read_timeout, write_timeout: Seconds for one round trip.
        breaker_failures, breaker_probe: See `Breaker`.
        owned: Whether the client was made for this store.
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        read_timeout: float = 0.05,
        write_timeout: float = 0.5,
        breaker_failures: int = 5,
        breaker_probe: float = 0.25,
        owned: bool = True,
    ) -> None:
        self.client: redis.Redis | RedisCluster = client
        self._owned = owned
        self._read_timeout = read_timeout
        self._write_timeout = write_timeout
        self._breaker = Breaker(
            "redis",
            failures=breaker_failures,
            probe_seconds=breaker_probe,
            answered=(ResponseError, MaxConnectionsError),
        )
        self._clock = WallClock()
        # Three lanes, one round trip in flight on each: three connections serve any number of
        # lookups and puts, and what is patient never stands before a lookup.
        self._reads: Coalescer[_Read, Any] = Coalescer(self._read_batch)
        self._writes: Coalescer[_Commands, list[Any]] = Coalescer(self._command_batch)
        self._patient: Coalescer[_Commands, list[Any]] = Coalescer(self._command_batch)
        self._cluster_known = not owned

    @property
    def breaker(self) -> Breaker:
        """The breaker of this Redis."""
        return self._breaker

    async def open(self) -> None:
        """Connect, find out whether this is a Cluster, and read the server's clock."""
        with contextlib.suppress(BackendError):
            await self.tend()

    async def close(self) -> None:
        """Close the connections of an owned client."""
        for lane in (self._reads, self._writes, self._patient):
            await lane.close()
        if self._owned:
            with contextlib.suppress(Exception):
                await self.client.aclose()

    def abandon(self) -> None:
        """Leave the connections to the garbage collector: they belong to the loop that ended."""

    async def tend(self) -> None:
        """Read the server's clock; on the first contact also ask whether it is a Cluster."""
        with self._breaker:
            async with Deadline(self._write_timeout):
                if not self._cluster_known:
                    await self._detect_cluster()
                client: Any = self.client
                node: dict[str, Any] = {}
                if isinstance(client, RedisCluster):
                    node = {"target_nodes": client.get_default_node()}
                seconds, micros = await client.execute_command("TIME", **node)
                self._clock.set(int(seconds) + int(micros) / 1_000_000)

    async def _detect_cluster(self) -> None:
        plain = self.client
        if not isinstance(plain, redis.Redis):
            return
        try:
            info = await plain.info("cluster")
        except (AuthenticationError, BusyLoadingError):
            raise
        except ResponseError:
            info = {}
        if info.get("cluster_enabled") == 1:
            options = plain.connection_pool.connection_kwargs
            kept = ("host", "port", "username", "password", "protocol")
            self.client = RedisCluster(
                **{
                    name: value
                    for name, value in options.items()
                    if value is not None and (name in kept or name.startswith("ssl_"))
                },
                ssl="SSL" in plain.connection_pool.connection_class.__name__,
                socket_timeout=self._write_timeout,
                socket_connect_timeout=self._write_timeout,
            )
            await plain.aclose()
            log.info("redis: a Cluster; reads are split by slot")
        self._cluster_known = True

    def now(self) -> float:
        """Return the server's time, as of the last `tend`, moved on by the monotonic clock."""
        return self._clock.time()

    async def read(self, keys: Sequence[str]) -> Sequence[str | None]:
        """Return the values of *keys*; concurrent calls share a round trip."""
        found: Sequence[str | None] = await self._reads.ask(_Read(keys))
        return found

    async def write(self, writes: Sequence[Write]) -> None:
        """Store *writes*; concurrent calls share a round trip."""
        await self._writes.submit([_set(write) for write in writes])

    async def write_new(self, write: Write) -> str:
        """Set unless it exists, and renew the TTL either way."""
        commands: _Commands = [(*_set(write), "NX")]
        if write.ttl is not None:
            commands.append(("PEXPIRE", write.key, _millis(write.ttl)))
        commands.append(("GET", write.key))
        results = await self._writes.submit(commands)
        return _text(results[-1]) or write.value

    async def delete(self, keys: Sequence[str]) -> int:
        """Unlink *keys*."""
        return sum(await self._writes.submit([("UNLINK", key) for key in keys])) if keys else 0

    async def rows(
        self, key: str, newest: int | None = None, *, hurry: bool = False
    ) -> Mapping[str, str]:
        """Return the rows of a hash, newest last."""
        if hurry:
            raw = await self._reads.ask(_Read((key,), rows=True))
        else:
            raw = (await self._patient.submit([("HGETALL", key)]))[0]
        pairs = raw.items() if isinstance(raw, Mapping) else zip(raw[::2], raw[1::2], strict=True)
        stamped = sorted((_text(value) or "", _text(name) or "") for name, value in pairs)
        chosen = stamped[-newest:] if newest is not None else stamped
        return {name: value.partition(" ")[2] for value, name in chosen}

    async def put_rows(self, writes: Sequence[RowWrite]) -> None:
        """Set fields of hashes, each stamped with the time so that the oldest can be dropped."""
        stamp = f"{self.now():017.6f} "
        writes = [write for write in writes if write.rows]
        commands: _Commands = []
        for write in writes:
            pairs = [part for name, value in write.rows.items() for part in (name, stamp + value)]
            commands.append(("HSET", write.key, *pairs))
            commands.append(("HLEN", write.key))
            # A hash that is kept gets the longest life there is.
            commands.append(("PEXPIRE", write.key, _millis(write.ttl or _KEPT_SECONDS)))
        lengths = (await self._writes.submit(commands))[1::3] if commands else []
        for write, length in zip(writes, lengths, strict=True):
            if write.newest is not None and length > write.newest * _TRIM_SLACK:
                everything = await self.rows(write.key)
                oldest = list(everything)[: len(everything) - write.newest]
                await self.delete_rows(write.key, oldest)

    async def delete_rows(self, key: str, names: Sequence[str]) -> int:
        """Delete fields of a hash."""
        return int((await self._writes.submit([("HDEL", key, *names)]))[0]) if names else 0

    async def claim_row(self, key: str, name: str, value: str) -> bool:
        """Set a field of a hash unless it exists; HSETNX decides, on a Cluster too."""
        stamp = f"{self.now():017.6f} "
        return bool((await self._patient.submit([("HSETNX", key, name, stamp + value)]))[0])

    async def row_names(self, key: str) -> Sequence[str]:
        """Return the fields of a hash."""
        return [_text(name) or "" for name in (await self._patient.submit([("HKEYS", key)]))[0]]

    async def some_rows(self, key: str, names: Sequence[str]) -> Sequence[str | None]:
        """Return fields of a hash."""
        if not names:
            return []
        found = (await self._patient.submit([("HMGET", key, *names)]))[0]
        texts = [_text(value) for value in found]
        return [None if text is None else text.partition(" ")[2] for text in texts]

    async def publish(self, channel: str) -> None:
        """Publish; a Cluster passes it on to all its nodes."""
        client: Any = self.client
        node = _node(client)
        with self._breaker:
            async with Deadline(self._write_timeout):
                await client.execute_command(
                    "PUBLISH", channel, "", **({"target_nodes": node} if node else {})
                )

    async def listen(self, channel: str) -> AsyncIterator[None]:
        """Subscribe, on a connection of its own: an application's pool loses none to it."""
        try:
            async with Deadline(self._write_timeout):
                subscriber = _subscriber(self.client)
                await subscriber.subscribe(channel)
        except Exception as error:
            raise BackendError("backend_error", type(error).__name__, str(error)) from error
        try:
            while True:
                message = await subscriber.get_message(timeout=_LISTENING)
                if message is not None:
                    yield
        except Exception as error:
            raise BackendError("backend_error", type(error).__name__, str(error)) from error
        finally:
            with contextlib.suppress(Exception):
                await subscriber.connection_pool.disconnect()

    async def append(self, log: str, values: Sequence[str], *, keep: int) -> None:
        """Add to a stream."""
        await self._patient.submit(
            [("XADD", log, "MAXLEN", "~", keep, "*", "v", value) for value in values]
        )

    async def after(self, log: str, position: str, count: int) -> list[tuple[str, str]]:
        """Read a stream forward."""
        start = f"({position}" if position else "-"
        found = await self._patient.submit([("XRANGE", log, start, "+", "COUNT", count)])
        return _stream(found[0])

    async def remove(self, log: str, positions: Sequence[str]) -> None:
        """Delete entries of a stream."""
        if positions:
            await self._patient.submit([("XDEL", log, *positions)])

    async def last(self, log: str, count: int) -> list[tuple[str, str]]:
        """Read a stream's end."""
        found = await self._patient.submit([("XREVRANGE", log, "+", "-", "COUNT", count)])
        return _stream(found[0])[::-1]

    async def _read_batch(self, requests: Sequence[_Read]) -> list[Any]:
        """Read values and hashes for all *requests* in one round trip."""
        keys = list(
            dict.fromkeys(key for request in requests if not request.rows for key in request.keys)
        )
        hashes = list(dict.fromkeys(request.keys[0] for request in requests if request.rows))
        with self._breaker:
            async with Deadline(self._read_timeout):
                raw, rows = await self._fetch(keys, hashes)
        values = dict(zip(keys, map(_text, raw), strict=True))
        found = dict(zip(hashes, rows, strict=True))
        return [
            _checked(found[request.keys[0]])
            if request.rows
            else [values[key] for key in request.keys]
            for request in requests
        ]

    async def _fetch(self, keys: list[str], hashes: list[str]) -> tuple[list[Any], list[Any]]:
        client: Any = self.client
        cluster = isinstance(client, RedisCluster)
        if not cluster and not hashes:
            return (list(await client.execute_command("MGET", *keys, **_RAW)) if keys else []), []
        # On a Cluster one MGET may only ask for keys of one slot.
        slots: dict[int, list[str]] = {}
        for key in keys:
            slots.setdefault(client.keyslot(key) if cluster else 0, []).append(key)
        pipe = self._pipeline()
        for group in slots.values():
            pipe.execute_command("MGET", *group, **_RAW)
        for name in hashes:
            pipe.execute_command("HGETALL", name, **_RAW)
        results = await pipe.execute(raise_on_error=False)
        found: dict[str, Any] = {}
        for group, values in zip(slots.values(), results[: len(slots)], strict=True):
            if isinstance(values, Exception):
                raise values
            found.update(zip(group, values, strict=True))
        return [found[key] for key in keys], results[len(slots) :]

    async def _command_batch(self, requests: Sequence[_Commands]) -> list[Any]:
        """Run the commands of all *requests* in one round trip; each gets its own errors."""
        pipe = self._pipeline()
        for commands in requests:
            for command in commands:
                pipe.execute_command(*command, **_RAW)
        with self._breaker:
            async with Deadline(self._write_timeout):
                results = list(await pipe.execute(raise_on_error=False))
        found: list[Any] = []
        for commands in requests:
            own, results = results[: len(commands)], results[len(commands) :]
            failed = next((item for item in own if isinstance(item, Exception)), None)
            found.append(own if failed is None else _checked(failed))
        return found

    def _pipeline(self) -> Any:
        return self.client.pipeline(transaction=False)


@dataclass(frozen=True, slots=True)
class _Read:
    """What one caller wants to know: the values of keys, or the rows of one hash."""

    keys: Sequence[str]
    rows: bool = False


_Commands: TypeAlias = list[tuple[Any, ...]]
"""What one caller wants done, in order."""


def _node(client: Any) -> Any:
    """Return the node of a Cluster to send what concerns all of them; `None` without a Cluster."""
    return client.get_default_node() if isinstance(client, RedisCluster) else None


def _subscriber(client: Any) -> Any:
    """Return a subscriber to the server of *client*, or to a node of its Cluster."""
    origin = _node(client) or client.connection_pool
    # Without a retry a lost connection is told, so that whoever listens asks what they missed.
    own = {
        "decode_responses": False,
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": 10,
    }
    options = {**origin.connection_kwargs, **own}
    pool: Any = redis.ConnectionPool(
        connection_class=origin.connection_class, max_connections=1, **options
    )
    return redis.Redis(connection_pool=pool).pubsub()


def _set(write: Write) -> tuple[Any, ...]:
    life = () if write.ttl is None else ("PX", _millis(write.ttl))
    return ("SET", write.key, write.value, *life)


def _checked(result: Any) -> Any:
    """Return *result*, or as a `BackendError` what Redis refused."""
    if isinstance(result, Exception):
        return BackendError("backend_error", type(result).__name__, str(result))
    return result


def _millis(seconds: float | None) -> int | None:
    return None if seconds is None else max(1, int(seconds * 1000))


def _text(value: Any) -> str | None:
    """Return a reply as text; what is not UTF-8 becomes text that no envelope equals."""
    if value is None or isinstance(value, str):
        return value
    return bytes(value).decode("utf-8", "replace")


def _stream(reply: Any) -> list[tuple[str, str]]:
    """Return (id, value) of stream entries, whichever form redis-py parsed them into."""
    found: list[tuple[str, str]] = []
    for position, fields in reply or ():
        pairs = dict(
            fields.items()
            if isinstance(fields, Mapping)
            else zip(fields[::2], fields[1::2], strict=True)
        )
        value = pairs.get(b"v", pairs.get("v"))
        found.append((_text(position) or "", _text(value) or ""))
    return found
