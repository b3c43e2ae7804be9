"""The keyed store on Redis: one server, or a Cluster.

Plain commands only (no Lua, no modules), so that a least-privilege ACL and managed services do.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from typing import Any

import redis.asyncio as redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from cache_core.breaker import Breaker
from cache_core.clock import WallClock
from cache_core.deadline import Deadline
from cache_core.exceptions import BackendError, CorruptValueError
from cache_core.stores.base import RowWrite, Write
from cache_core.stores.redis_batches import Batches, Commands, Rows, new_breaker
from cache_core.stores.redis_foreign import LARGEST_BYTES, ForeignKeys
from cache_core.stores.redis_leases import HeldLeases
from cache_core.stores.redis_replies import (
    is_wrong_type,
    millis,
    set_command,
    stream_of,
    text_of,
)

_KEPT_SECONDS = 10 * 365 * 86_400.0
_LISTENING = 5.0
"""Seconds after which a silent subscription is looked after."""

_TRIM_SLACK = 1.25
"""A hash is trimmed when it is this much over its limit: trimming reads it whole."""


class RedisStore:
    """The keyed store on a Redis server or Cluster.

    Args:
        client: The client to use; it is closed by `close` only if *owned*.
        read_timeout, write_timeout: Seconds for one round trip.
        breaker_failures, breaker_probe: See `Breaker`.
        owned: Whether the client was made for this store.
        largest_bytes: What is larger is no value of this cache: it is deleted, and read once as the
            empty text, when reading it took too long.
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
        largest_bytes: int = LARGEST_BYTES,
    ) -> None:
        self._batches = Batches(
            client,
            read_timeout=read_timeout,
            write_timeout=write_timeout,
            failures=breaker_failures,
            probe_seconds=breaker_probe,
            owned=owned,
            late=lambda keys, hashes: self._foreign.inspect_soon(keys, hashes),  # noqa: PLW0108 - made after this
        )
        self._reads = self._batches.reads
        self._writes = self._batches.writes
        self._patient = self._batches.patient
        self._foreign = ForeignKeys(self._patient, largest_bytes)
        self._leases = HeldLeases(
            self._batches, new_breaker(breaker_failures, breaker_probe), write_timeout
        )
        self._write_timeout = write_timeout
        self._clock = WallClock()

    @property
    def client(self) -> redis.Redis | RedisCluster:
        """The client of the server, or of the Cluster."""
        return self._batches.client

    @property
    def breaker(self) -> Breaker:
        """The breaker of this Redis."""
        return self._batches.breaker

    async def open(self) -> None:
        """Connect, find out whether this is a Cluster, and read the server's clock."""
        with contextlib.suppress(BackendError):
            await self.tend()

    async def close(self) -> None:
        """Close the connections of an owned client."""
        await self._foreign.close()
        await self._batches.close()

    def abandon(self) -> None:
        """Leave the connections to the garbage collector: they belong to the loop that ended."""
        self._batches.abandon()

    async def tend(self) -> None:
        """Read the server's clock; on the first contact also ask whether it is a Cluster."""
        self._clock.set(await self._batches.time())

    def now(self) -> float:
        """Return the server's time, as of the last `tend`, moved on by the monotonic clock."""
        return self._clock.time()

    def read(self, keys: Sequence[str]) -> Awaitable[Sequence[str | None]]:
        """Return the values of *keys*; concurrent calls share a round trip."""
        asked: Awaitable[Sequence[str | None]] = self._reads.ask(keys)
        return self._read_and_tell(keys, asked) if self._foreign.removed else asked

    async def _read_and_tell(
        self, keys: Sequence[str], asked: Awaitable[Sequence[str | None]]
    ) -> Sequence[str | None]:
        return self._foreign.tell_once(keys, await asked)

    async def write(self, writes: Sequence[Write]) -> None:
        """Store *writes*; concurrent calls share a round trip."""
        await self._writes.submit([set_command(write) for write in writes])

    async def write_new(self, write: Write) -> str:
        """Set unless it exists, and renew the TTL either way."""
        commands: Commands = [(*set_command(write), "NX")]
        if write.ttl is not None:
            commands.append(("PEXPIRE", write.key, millis(write.ttl)))
        commands.append(("GET", write.key))
        results = await self._foreign.mended("string", [write.key], self._writes, commands)
        return text_of(results[-1]) or write.value

    async def delete(self, keys: Sequence[str]) -> int:
        """Unlink *keys*."""
        return sum(await self._writes.submit([("UNLINK", key) for key in keys])) if keys else 0

    async def rows(
        self, key: str, newest: int | None = None, *, hurry: bool = False
    ) -> Mapping[str, str]:
        """Return the rows of a hash, newest last."""
        if hurry:
            try:
                raw = await self._reads.ask(Rows(key))
            except BackendError as error:
                if not is_wrong_type(error):
                    raise
                await self._foreign.remove_others("hash", [key])
                raise CorruptValueError(error.reason, error.error_type) from error
        else:
            raw = (await self._foreign.mended("hash", [key], self._patient, [("HGETALL", key)]))[0]
        pairs = raw.items() if isinstance(raw, Mapping) else zip(raw[::2], raw[1::2], strict=True)
        stamped = sorted((text_of(value) or "", text_of(name) or "") for name, value in pairs)
        chosen = stamped[-newest:] if newest is not None else stamped
        return {name: value.partition(" ")[2] for value, name in chosen}

    async def put_rows(self, writes: Sequence[RowWrite]) -> None:
        """Set fields of hashes, each stamped with the time so that the oldest can be dropped."""
        stamp = f"{self.now():017.6f} "
        writes = [write for write in writes if write.rows]
        commands: Commands = []
        for write in writes:
            pairs = [part for name, value in write.rows.items() for part in (name, stamp + value)]
            commands.append(("HSET", write.key, *pairs))
            commands.append(("HLEN", write.key))
            # A hash that is kept gets the longest life there is.
            commands.append(("PEXPIRE", write.key, millis(write.ttl or _KEPT_SECONDS)))
        keys = [write.key for write in writes]
        results = (
            await self._foreign.mended("hash", keys, self._writes, commands) if commands else []
        )
        lengths = results[1::3]
        for write, length in zip(writes, lengths, strict=True):
            if write.newest is not None and length > write.newest * _TRIM_SLACK:
                everything = await self.rows(write.key)
                oldest = list(everything)[: len(everything) - write.newest]
                await self.delete_rows(write.key, oldest)

    async def delete_rows(self, key: str, names: Sequence[str]) -> int:
        """Delete fields of a hash."""
        if not names:
            return 0
        return int(
            (await self._foreign.mended("hash", [key], self._writes, [("HDEL", key, *names)]))[0]
        )

    async def claim_row(self, key: str, name: str, value: str) -> bool:
        """Set a field of a hash unless it exists; HSETNX decides, on a Cluster too."""
        stamp = f"{self.now():017.6f} "
        command = ("HSETNX", key, name, stamp + value)
        return bool((await self._foreign.mended("hash", [key], self._patient, [command]))[0])

    async def take_lease(self, key: str, token: str, seconds: float) -> str:
        """Set unless it exists; the server decides who is first."""
        commands: Commands = [
            ("SET", key, token, "PX", millis(seconds), "NX"),
            ("GET", key),
        ]
        results = await self._foreign.mended("string", [key], self._writes, commands)
        return text_of(results[-1]) or ""

    async def renew_lease(self, key: str, token: str, seconds: float) -> bool:
        """Set its expiry, while it is held."""
        return await self._leases.while_held(key, token, "PEXPIRE", key, millis(seconds))

    async def release_lease(self, key: str, token: str) -> bool:
        """Unlink it, while it is held."""
        return await self._leases.while_held(key, token, "UNLINK", key)

    async def row_names(self, key: str) -> Sequence[str]:
        """Return the fields of a hash."""
        found = (await self._foreign.mended("hash", [key], self._patient, [("HKEYS", key)]))[0]
        return [text_of(name) or "" for name in found]

    async def some_rows(self, key: str, names: Sequence[str]) -> Sequence[str | None]:
        """Return fields of a hash."""
        if not names:
            return []
        found = (
            await self._foreign.mended("hash", [key], self._patient, [("HMGET", key, *names)])
        )[0]
        texts = [text_of(value) for value in found]
        return [None if text is None else text.partition(" ")[2] for text in texts]

    async def publish(self, channel: str) -> None:
        """Publish; a Cluster passes it on to all its nodes."""
        await self._batches.tell_all("PUBLISH", channel, "")

    async def listen(self, channel: str) -> AsyncIterator[None]:
        """Subscribe, on a connection of its own: an application's pool loses none to it."""
        subscriber: Any = None
        try:
            async with Deadline(self._write_timeout):
                subscriber = _subscriber(self.client)
                await subscriber.subscribe(channel)
            while True:
                message = await subscriber.get_message(timeout=_LISTENING)
                if message is not None:
                    yield
        except Exception as error:
            raise BackendError("backend_error", type(error).__name__, str(error)) from error
        finally:
            # Also of a subscription that was cancelled, or failed, before it began.
            if subscriber is not None:
                with contextlib.suppress(Exception):
                    await subscriber.connection_pool.disconnect()

    async def append(self, log: str, values: Sequence[str], *, keep: int) -> None:
        """Add to a stream."""
        commands: Commands = [
            ("XADD", log, "MAXLEN", "~", keep, "*", "v", value) for value in values
        ]
        await self._foreign.mended("stream", [log], self._patient, commands)

    async def after(self, log: str, position: str, count: int) -> list[tuple[str, str]]:
        """Read a stream forward."""
        start = f"({position}" if position else "-"
        command = ("XRANGE", log, start, "+", "COUNT", count)
        found = await self._foreign.mended("stream", [log], self._patient, [command])
        return stream_of(found[0])

    async def remove(self, log: str, positions: Sequence[str]) -> None:
        """Delete entries of a stream."""
        if positions:
            await self._patient.submit([("XDEL", log, *positions)])

    async def last(self, log: str, count: int) -> list[tuple[str, str]]:
        """Read a stream's end."""
        command = ("XREVRANGE", log, "+", "-", "COUNT", count)
        found = await self._foreign.mended("stream", [log], self._patient, [command])
        return stream_of(found[0])[::-1]


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
