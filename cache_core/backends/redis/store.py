"""Keyed store on Redis: one server, or a Cluster.

Plain commands only (no Lua, no modules), so that least-privilege ACLs and managed services suffice.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from typing import Any

import redis.asyncio as redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from cache_core.backends.base import RowWrite, Write
from cache_core.backends.breaker import Breaker
from cache_core.backends.clock import WallClock
from cache_core.backends.deadline import Deadline
from cache_core.backends.redis.batches import Batches, Rows, new_breaker
from cache_core.backends.redis.foreign import LARGEST_BYTES, ForeignKeys
from cache_core.backends.redis.leases import HeldLeases
from cache_core.backends.redis.line import Commands
from cache_core.backends.redis.replies import (
    end_of,
    is_wrong_type,
    millis,
    next_position,
    row_of,
    set_command,
    stamped,
    stream_of,
    text_of,
)
from cache_core.model.batches import batched
from cache_core.model.exceptions import BackendError, CorruptValueError
from cache_core.model.tasks import heed_cancellation

_KEPT_SECONDS = 10 * 365 * 86_400.0
_LISTENING = 5.0
"""Seconds after which a silent subscription is polled again."""

_TRIM_SLACK = 1.25
"""Factor over its limit at which a hash is trimmed: trimming reads it whole."""

_ROWS_UNSEEN = 1_024
"""Rows of a hash above which it is searched for expired ones."""

_IDENTIFIED_SECONDS = 15.0
"""Seconds between two looks at which servers these are."""

_DELETED_TOGETHER = 1_000
_TRIMMED_KEPT = 10_000
_LONGEST = 61 * 86_400.0
"""Life in seconds where Redis cannot compare expiries: longer than any entry."""


class RedisStore:
    """Keyed store on a Redis server or Cluster.

    Args:
        client: The client to use; it is closed by `close` only if *owned*.
        read_timeout, write_timeout: Seconds for one round trip.
        breaker_failures, breaker_probe: See `Breaker`.
        owned: Whether the client was made for this store.
        largest_bytes: Maximal size of a value of this cache: a larger one is deleted when reading
            it timed out, and read once as the empty text.
    """

    def __init__(
        self,
        client: redis.Redis | RedisCluster,
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
            trips=(breaker_failures, breaker_probe),
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
        self._graded = True
        self._trimmed_at: dict[str, int] = {}
        self._identified_until = 0.0

    @property
    def client(self) -> redis.Redis | RedisCluster:
        """Client of the server, or of the Cluster."""
        return self._batches.client

    @property
    def breaker(self) -> Breaker:
        """The breaker of this Redis."""
        return self._batches.breaker

    @property
    def run_ids(self) -> Sequence[str]:
        """Run ids of the servers, by which others recognise them; the last known ones."""
        return self._batches.run_ids

    async def open(self) -> None:
        """Connect, detect a Cluster, and read the server's clock."""
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
        """Read the server's clock; the first call also detects a Cluster, some identify servers."""
        try:
            await self._clock.follow(self._batches.time)
        except BackendError:
            self._identified_until = 0.0  # another server may answer next
            raise
        if time.monotonic() >= self._identified_until:
            await self._batches.identify()
            self._identified_until = time.monotonic() + _IDENTIFIED_SECONDS

    def now(self) -> float:
        """Return the server's time of the last `tend`, advanced by the monotonic clock."""
        return self._clock.time()

    def read(self, keys: Sequence[str], *, beside: bool = False) -> Awaitable[Sequence[str | None]]:
        """Return the values of *keys*; concurrent calls share a round trip.

        With *beside* the trip begins one turn of the event loop later, so that it has them all.
        """
        ask = self._reads.submit if beside else self._reads.ask
        asked: Awaitable[Sequence[str | None]] = ask(keys)
        return self._read_and_report(keys, asked) if self._foreign.removed else asked

    async def _read_and_report(
        self, keys: Sequence[str], asked: Awaitable[Sequence[str | None]]
    ) -> Sequence[str | None]:
        return self._foreign.report_once(keys, await asked)

    async def write(self, writes: Sequence[Write]) -> None:
        """Store *writes*; concurrent calls share a round trip."""
        await self._writes.submit([set_command(write) for write in writes])

    async def write_new(self, write: Write) -> str:
        """Set unless it exists, and renew the TTL either way."""
        graded = self._graded
        commands: Commands = [(*set_command(write), "NX")]
        if write.ttl is not None:
            commands += self._expiring(write.key, write.ttl)
        commands.append(("GET", write.key))
        try:
            results = await self._foreign.mended("string", [write.key], self._writes, commands)
        except BackendError as error:
            if not (graded and self._refuses_graded(error)):
                raise
            return await self.write_new(write)
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
        now = self.now()
        stamps = sorted((text_of(value) or "", text_of(name) or "") for name, value in pairs)
        found = [(name, row) for value, name in stamps if (row := row_of(value, now)) is not None]
        return dict(found[-newest:] if newest is not None else found)

    async def put_rows(self, writes: Sequence[RowWrite]) -> None:
        """Set fields of hashes, each stamped with its time and life to find the oldest."""
        writes = [write for write in writes if write.rows]
        if not writes:
            return
        now, graded = self.now(), self._graded
        commands: Commands = []
        for write in writes:
            stamp = stamped(now, write.ttl)
            pairs = [part for name, value in write.rows.items() for part in (name, stamp + value)]
            if write.longest:
                commands.append(("HMGET", write.key, *write.rows))
            commands += [("HSET", write.key, *pairs), ("HLEN", write.key)]
            # Without an expiry, the NX of a later write would give a kept hash a short one.
            commands += self._expiring(write.key, write.ttl or _KEPT_SECONDS)
        keys = [write.key for write in writes]
        try:
            results = await self._foreign.mended("hash", keys, self._writes, commands)
        except BackendError as error:
            if not (graded and self._refuses_graded(error)):
                raise
            await self.put_rows(writes)
            return
        replies = iter(results)
        for write in writes:
            before = next(replies) if write.longest else ()
            _, length, *_ = (next(replies) for _ in range(2 + (2 if graded else 1)))
            await self._restore(write, before, now)
            await self._trim(write, int(length))

    def _expiring(self, key: str, seconds: float) -> Commands:
        """Return the commands that extend the life of *key* to at least *seconds* from now.

        Redis before 7 cannot compare: there every hash and token gets the longest life.
        """
        if not self._graded:
            return [("PEXPIRE", key, millis(max(seconds, _LONGEST)))]
        return [("PEXPIRE", key, millis(seconds), "NX"), ("PEXPIRE", key, millis(seconds), "GT")]

    def _refuses_graded(self, error: BackendError) -> bool:
        """Detect, where expiries were compared, a server too old for it; compare none from then on.

        Several calls may be refused at the same time: each is made again.
        """
        refused = "pexpire" in str(error).lower()
        self._graded = self._graded and not refused
        return refused

    async def _restore(self, write: RowWrite, before: Sequence[Any], now: float) -> None:
        """Restore the expiry of rows that had a later one before *write*."""
        ends = math.inf if write.ttl is None else now + write.ttl
        for (name, value), old in zip(write.rows.items(), before, strict=False):
            end = end_of(text_of(old) or "")
            if end is not None and end > max(ends, now):
                life = None if end == math.inf else end - now
                await self._writes.submit([("HSET", write.key, name, stamped(now, life) + value)])

    async def _trim(self, write: RowWrite, length: int) -> None:
        """Delete expired rows, and those over the limit, when a hash has grown much."""
        limit = self._trimmed_at.get(write.key, _ROWS_UNSEEN)
        if write.newest is not None:
            limit = min(limit, int(write.newest * _TRIM_SLACK))
        if length <= limit:
            return
        names = await self.row_names(write.key)
        alive = list(await self.rows(write.key))
        surplus = max(0, len(alive) - write.newest) if write.newest is not None else 0
        gone = sorted(set(names) - set(alive)) + alive[:surplus]
        for batch in batched(gone, _DELETED_TOGETHER):
            await self.delete_rows(write.key, batch)
        if len(self._trimmed_at) >= _TRIMMED_KEPT:
            self._trimmed_at.clear()
        # Reading all of it pays off when half of it may have expired.
        self._trimmed_at[write.key] = max(_ROWS_UNSEEN, 2 * (len(alive) - surplus))

    async def delete_rows(self, key: str, names: Sequence[str]) -> int:
        """Delete fields of a hash."""
        if not names:
            return 0
        return int(
            (await self._foreign.mended("hash", [key], self._writes, [("HDEL", key, *names)]))[0]
        )

    async def claim_row(self, key: str, name: str, value: str) -> bool:
        """Set a field of a hash unless it exists; HSETNX decides, on a Cluster too."""
        command = ("HSETNX", key, name, stamped(self.now(), None) + value)
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
        """Set the lease's expiry while it is held."""
        return await self._leases.while_held(key, token, "PEXPIRE", key, millis(seconds))

    async def release_lease(self, key: str, token: str) -> bool:
        """Unlink the lease while it is held."""
        return await self._leases.while_held(key, token, "UNLINK", key)

    async def row_names(self, key: str) -> Sequence[str]:
        """Return the fields of a hash."""
        found = (await self._foreign.mended("hash", [key], self._patient, [("HKEYS", key)]))[0]
        return [text_of(name) or "" for name in found]

    async def hashes(self, begin: str, end: str, cursor: str = "") -> tuple[Sequence[str], str]:
        """Scan the keys of a server, or of one master of a Cluster after the other."""
        names, more = await self._batches.scan(begin, end, cursor)
        return [name for raw in names if (name := text_of(raw))], more

    async def some_rows(self, key: str, names: Sequence[str]) -> Sequence[str | None]:
        """Return fields of a hash."""
        if not names:
            return []
        found = (
            await self._foreign.mended("hash", [key], self._patient, [("HMGET", key, *names)])
        )[0]
        now = self.now()
        return [None if value is None else row_of(text_of(value) or "", now) for value in found]

    async def publish(self, channel: str) -> None:
        """Publish; a Cluster forwards it to all its nodes."""
        await self._batches.tell_all("PUBLISH", channel, "")

    async def listen(self, channel: str) -> AsyncIterator[None]:
        """Subscribe on a separate connection, so that an application's pool loses none."""
        subscriber: Any = None
        try:
            async with Deadline(self._write_timeout):
                subscriber = _subscriber(self.client)
                await subscriber.subscribe(channel)
            while True:
                # redis-py may lose a cancellation while it connects.
                heed_cancellation()
                message = await subscriber.get_message(timeout=_LISTENING)
                if message is not None:
                    yield
        except Exception as error:
            raise BackendError("backend_error", type(error).__name__, str(error)) from error
        finally:
            # Also after a subscription that was cancelled or failed before it began.
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
        start = next_position(position) if position else "-"
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
    """Return a Cluster's node for commands to all of them; `None` without a Cluster."""
    return client.get_default_node() if isinstance(client, RedisCluster) else None


def _subscriber(client: Any) -> Any:
    """Return a subscriber to the server of *client*, or to a node of its Cluster."""
    origin = _node(client) or client.connection_pool
    # Without retries a lost connection is reported, so that the listener reads what it missed.
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
