"""The keyed store on Redis: one server, or a Cluster.

Plain commands only (no Lua, no modules), so that a least-privilege ACL and managed services do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import redis.asyncio as redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, BusyLoadingError, ResponseError

from cache_core.breaker import Breaker
from cache_core.clock import WallClock
from cache_core.exceptions import BackendError
from cache_core.stores.base import RowWrite, Write
from cache_core.stores.coalescing import Coalescer

log = logging.getLogger("glasscache")

_KEPT_SECONDS = 10 * 365 * 86_400.0
_TRIM_SLACK = 1.25
"""A hash is trimmed when it is this much over its limit: trimming reads it whole."""

_RAW: dict[str, Any] = {"NEVER_DECODE": True}
"""With a pool of decode_responses=True one undecodable value would fail everybody's reads."""


def connect(url: str, *, timeout: float, connections: int = 64) -> redis.Redis:
    """Return a client that fails fast.

    redis-py's defaults retry a stopped server for a minute. RESP2, because redis-py 8.1 hands out
    connections that the server closed under RESP3 (redis-py #4252).
    """
    return redis.Redis.from_url(
        url,
        protocol=2,
        socket_timeout=timeout,
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
            answered=(ResponseError,),
        )
        self._clock = WallClock()
        self._reads: Coalescer[Sequence[str], Sequence[str | None]] = Coalescer(self._read_batch)
        self._writes: Coalescer[Sequence[Write], None] = Coalescer(self._write_batch)
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
        await self._reads.close()
        await self._writes.close()
        if self._owned:
            with contextlib.suppress(Exception):
                await self.client.aclose()

    async def tend(self) -> None:
        """Read the server's clock; on the first contact also ask whether it is a Cluster."""
        with self._breaker:
            async with asyncio.timeout(self._write_timeout):
                if not self._cluster_known:
                    await self._detect_cluster()
                seconds, micros = await self._command("TIME", target=True)
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
                **{name: options[name] for name in kept if options.get(name) is not None},
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
        return await self._reads.submit(keys)

    async def write(self, writes: Sequence[Write]) -> None:
        """Store *writes*; concurrent calls share a round trip."""
        await self._writes.submit(writes)

    async def _read_batch(self, requests: Sequence[Sequence[str]]) -> list[Sequence[str | None]]:
        unique = list(dict.fromkeys(key for keys in requests for key in keys))
        if not unique:
            return [[] for _ in requests]
        with self._breaker:
            async with asyncio.timeout(self._read_timeout):
                raw = await self._mget(unique)
        values = dict(zip(unique, map(_text, raw), strict=True))
        return [[values[key] for key in keys] for keys in requests]

    async def _mget(self, keys: list[str]) -> list[Any]:
        client: Any = self.client
        if not isinstance(client, RedisCluster):
            return list(await client.execute_command("MGET", *keys, **_RAW))
        slots: dict[int, list[str]] = {}
        for key in keys:
            slots.setdefault(client.keyslot(key), []).append(key)
        pipe = client.pipeline()
        for group in slots.values():
            pipe.execute_command("MGET", *group, **_RAW)
        found: dict[str, Any] = {}
        for group, values in zip(slots.values(), await pipe.execute(), strict=True):
            found.update(zip(group, values, strict=True))
        return [found[key] for key in keys]

    async def _write_batch(self, requests: Sequence[Sequence[Write]]) -> list[None]:
        with self._breaker:
            async with asyncio.timeout(self._write_timeout):
                pipe = self._pipeline()
                for writes in requests:
                    for write in writes:
                        pipe.set(write.key, write.value, px=_millis(write.ttl))
                await pipe.execute()
        return [None] * len(requests)

    async def write_new(self, write: Write) -> str:
        """Set unless it exists, and renew the TTL either way."""
        with self._breaker:
            async with asyncio.timeout(self._write_timeout):
                pipe = self._pipeline()
                pipe.set(write.key, write.value, px=_millis(write.ttl), nx=True)
                if write.ttl is not None:
                    pipe.pexpire(write.key, _millis(write.ttl) or 1)
                pipe.execute_command("GET", write.key, **_RAW)
                results = await pipe.execute()
        return _text(results[-1]) or write.value

    async def delete(self, keys: Sequence[str]) -> int:
        """Unlink *keys*."""
        if not keys:
            return 0
        pipe = self._pipeline()
        for key in keys:
            # Not pipe.unlink(): on a Cluster's pipeline that is a coroutine that nobody awaits.
            pipe.execute_command("UNLINK", key)
        return sum(await self._execute(pipe))

    async def rows(self, key: str, newest: int | None = None) -> Mapping[str, str]:
        """Return the rows of a hash, newest last."""
        raw = await self._call("HGETALL", key, timeout=self._read_timeout)
        pairs = raw.items() if isinstance(raw, Mapping) else zip(raw[::2], raw[1::2], strict=True)
        stamped = sorted((_text(value) or "", _text(name) or "") for name, value in pairs)
        chosen = stamped[-newest:] if newest is not None else stamped
        return {name: value.partition(" ")[2] for value, name in chosen}

    async def put_rows(self, writes: Sequence[RowWrite]) -> None:
        """Set fields of hashes, each stamped with the time so that the oldest can be dropped."""
        stamp = f"{self.now():017.6f} "
        writes = [write for write in writes if write.rows]
        pipe = self._pipeline()
        for write in writes:
            pipe.hset(
                write.key, mapping={name: stamp + value for name, value in write.rows.items()}
            )
            pipe.hlen(write.key)
            # A hash that is kept gets the longest life there is.
            pipe.pexpire(write.key, _millis(write.ttl or _KEPT_SECONDS) or 1)
        lengths = (await self._execute(pipe))[1::3]
        for write, length in zip(writes, lengths, strict=True):
            if write.newest is not None and length > write.newest * _TRIM_SLACK:
                everything = await self.rows(write.key)
                oldest = list(everything)[: len(everything) - write.newest]
                await self.delete_rows(write.key, oldest)

    async def delete_rows(self, key: str, names: Sequence[str]) -> int:
        """Delete fields of a hash."""
        if not names:
            return 0
        return int(await self._call("HDEL", key, *names))

    async def append(self, log: str, values: Sequence[str], *, keep: int) -> None:
        """Add to a stream."""
        pipe = self._pipeline()
        for value in values:
            pipe.xadd(log, {"v": value}, maxlen=keep, approximate=True)
        await self._execute(pipe)

    async def after(self, log: str, position: str, count: int) -> list[tuple[str, str]]:
        """Read a stream forward."""
        start = f"({position}" if position else "-"
        return _stream(await self._call("XRANGE", log, start, "+", "COUNT", count))

    async def remove(self, log: str, positions: Sequence[str]) -> None:
        """Delete entries of a stream."""
        if positions:
            await self._call("XDEL", log, *positions)

    async def last(self, log: str, count: int) -> list[tuple[str, str]]:
        """Read a stream's end."""
        found = _stream(await self._call("XREVRANGE", log, "+", "-", "COUNT", count))
        return found[::-1]

    def _pipeline(self) -> Any:
        return self.client.pipeline(transaction=False)

    async def _execute(self, pipe: Any) -> list[Any]:
        with self._breaker:
            async with asyncio.timeout(self._write_timeout):
                return list(await pipe.execute())

    async def _call(self, *args: Any, timeout: float | None = None) -> Any:
        with self._breaker:
            async with asyncio.timeout(timeout or self._write_timeout):
                return await self._command(*args)

    async def _command(self, *args: Any, target: bool = False) -> Any:
        if target and isinstance(self.client, RedisCluster):
            node = self.client.get_default_node()
            return await self.client.execute_command(*args, target_nodes=node)
        return await self.client.execute_command(*args, **_RAW)


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
