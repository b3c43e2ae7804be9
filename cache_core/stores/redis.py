"""The keyed store on Redis: one server, or a Cluster.

Plain commands only (no Lua, no modules), so that a least-privilege ACL and managed services do.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Literal, NamedTuple, TypeAlias

import redis.asyncio as redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    MaxConnectionsError,
    ResponseError,
    WatchError,
)

from cache_core.breaker import Breaker
from cache_core.clock import WallClock
from cache_core.deadline import Deadline
from cache_core.exceptions import BackendError, CorruptValueError
from cache_core.logs import RateLimited
from cache_core.stores.base import RowWrite, Write
from cache_core.stores.coalescing import Coalescer
from cache_core.stores.redis_cluster import ClusterNodes, cluster_of

log = logging.getLogger("glasscache")
_log = RateLimited(log)

_KEPT_SECONDS = 10 * 365 * 86_400.0
_LISTENING = 5.0
"""Seconds after which a silent subscription is looked after."""

_TRIM_SLACK = 1.25
"""A hash is trimmed when it is this much over its limit: trimming reads it whole."""

LARGEST_BYTES = 16 * 1_048_576
"""No value of the cache's is larger; a read that takes too long may have met one that is."""

_MOST_ROWS = 200_000
_INSPECTED = 512

_RAW: dict[str, Any] = {"NEVER_DECODE": True}
"""With a pool of decode_responses=True one undecodable value would fail everybody's reads."""


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
        self._leasing = asyncio.Lock()
        # Of its own: a node of a Cluster that is away must not close the others.
        self._leases = Breaker(
            "redis",
            failures=breaker_failures,
            probe_seconds=breaker_probe,
            answered=(ResponseError, MaxConnectionsError),
        )
        self._cluster_known = not owned
        self._nodes: ClusterNodes | None = None
        self._per_node = (breaker_failures, breaker_probe)
        # Only one round trip of reads is in flight: it keeps its connection, as to take it from
        # the pool and give it back is a tenth of a GET. An application's pool keeps its own.
        self._line = client.client() if owned else client
        self._largest_bytes = largest_bytes
        self._inspecting: asyncio.Task[None] | None = None
        self._removed: set[str] = set()

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
        if self._inspecting is not None:
            self._inspecting.cancel()
            await asyncio.gather(self._inspecting, return_exceptions=True)
        for lane in (self._reads, self._writes, self._patient):
            await lane.close()
        if self._owned:
            with contextlib.suppress(Exception):
                await self._line.aclose()
            with contextlib.suppress(Exception):
                await self.client.aclose()

    def abandon(self) -> None:
        """Leave the connections to the garbage collector: they belong to the loop that ended."""
        if self._owned:
            self._line.connection = None

    async def tend(self) -> None:
        """Read the server's clock; on the first contact also ask whether it is a Cluster."""
        with self._breaker:
            async with Deadline(self._write_timeout):
                if not self._cluster_known:
                    await self._detect_cluster()
                seconds, micros = await self._any_node("TIME")
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
            self.client = cluster_of(plain, self._write_timeout)
            self._nodes = ClusterNodes(self.client, *self._per_node)
            await self._line.aclose()
            await plain.aclose()
            log.info("redis: a Cluster; reads are split by slot")
        self._cluster_known = True

    def now(self) -> float:
        """Return the server's time, as of the last `tend`, moved on by the monotonic clock."""
        return self._clock.time()

    async def read(self, keys: Sequence[str]) -> Sequence[str | None]:
        """Return the values of *keys*; concurrent calls share a round trip."""
        found: Sequence[str | None] = await self._reads.ask(keys)
        return self._told_once(keys, found) if self._removed else found

    def _told_once(self, keys: Sequence[str], found: Sequence[str | None]) -> list[str | None]:
        """Return *found* with the empty text for what was removed: no value of the cache's."""
        told = list(found)
        for place, key in enumerate(keys):
            if key in self._removed:
                self._removed.discard(key)
                told[place] = "" if told[place] is None else told[place]
        return told

    async def write(self, writes: Sequence[Write]) -> None:
        """Store *writes*; concurrent calls share a round trip."""
        await self._writes.submit([_set(write) for write in writes])

    async def write_new(self, write: Write) -> str:
        """Set unless it exists, and renew the TTL either way."""
        commands: _Commands = [(*_set(write), "NX")]
        if write.ttl is not None:
            commands.append(("PEXPIRE", write.key, _millis(write.ttl)))
        commands.append(("GET", write.key))
        results = await self._mended("string", [write.key], self._writes, commands)
        return _text(results[-1]) or write.value

    async def delete(self, keys: Sequence[str]) -> int:
        """Unlink *keys*."""
        return sum(await self._writes.submit([("UNLINK", key) for key in keys])) if keys else 0

    async def rows(
        self, key: str, newest: int | None = None, *, hurry: bool = False
    ) -> Mapping[str, str]:
        """Return the rows of a hash, newest last."""
        if hurry:
            try:
                raw = await self._reads.ask(_Rows(key))
            except BackendError as error:
                if not _is_wrong_type(error):
                    raise
                await self._remove_others("hash", [key])
                raise CorruptValueError(error.reason, error.error_type) from error
        else:
            raw = (await self._mended("hash", [key], self._patient, [("HGETALL", key)]))[0]
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
        keys = [write.key for write in writes]
        results = await self._mended("hash", keys, self._writes, commands) if commands else []
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
        return int((await self._mended("hash", [key], self._writes, [("HDEL", key, *names)]))[0])

    async def claim_row(self, key: str, name: str, value: str) -> bool:
        """Set a field of a hash unless it exists; HSETNX decides, on a Cluster too."""
        stamp = f"{self.now():017.6f} "
        command = ("HSETNX", key, name, stamp + value)
        return bool((await self._mended("hash", [key], self._patient, [command]))[0])

    async def take_lease(self, key: str, token: str, seconds: float) -> str:
        """Set unless it exists; the server decides who is first."""
        commands: _Commands = [
            ("SET", key, token, "PX", _millis(seconds), "NX"),
            ("GET", key),
        ]
        results = await self._mended("string", [key], self._writes, commands)
        return _text(results[-1]) or ""

    async def renew_lease(self, key: str, token: str, seconds: float) -> bool:
        """Set its expiry, while it is held."""
        return await self._while_held(key, token, "PEXPIRE", key, _millis(seconds))

    async def release_lease(self, key: str, token: str) -> bool:
        """Unlink it, while it is held."""
        return await self._while_held(key, token, "UNLINK", key)

    async def _while_held(self, key: str, token: str, *command: Any) -> bool:
        """Run *command* if *key* holds *token*; return whether it was run.

        WATCH makes comparing and running one step without a script: the server refuses the
        transaction if anybody else wrote the key since, even if what was sent is read only after
        the server stood still and the lease went to somebody else. One at a time: whatever number
        of leases is held, it takes one connection more.
        """
        async with self._leasing:
            with self._leases:
                async with Deadline(self._write_timeout):
                    return await self._compare_and_run(key, token, command)

    async def _compare_and_run(self, key: str, token: str, command: Sequence[Any]) -> bool:
        client: Any = self.client
        async with client.pipeline(transaction=True) as pipe:
            await pipe.watch(key)
            if _text(await pipe.get(key)) != token:
                return False
            pipe.multi()
            pipe.execute_command(*command)
            try:
                return bool((await pipe.execute())[0])
            except WatchError:
                return False

    async def row_names(self, key: str) -> Sequence[str]:
        """Return the fields of a hash."""
        found = (await self._mended("hash", [key], self._patient, [("HKEYS", key)]))[0]
        return [_text(name) or "" for name in found]

    async def some_rows(self, key: str, names: Sequence[str]) -> Sequence[str | None]:
        """Return fields of a hash."""
        if not names:
            return []
        found = (await self._mended("hash", [key], self._patient, [("HMGET", key, *names)]))[0]
        texts = [_text(value) for value in found]
        return [None if text is None else text.partition(" ")[2] for text in texts]

    async def publish(self, channel: str) -> None:
        """Publish; a Cluster passes it on to all its nodes."""
        with self._breaker:
            async with Deadline(self._write_timeout):
                await self._any_node("PUBLISH", channel, "")

    async def _any_node(self, *command: Any) -> Any:
        """Ask the server, or any node of the Cluster."""
        if self._nodes is not None:
            return await self._nodes.any_node(*command, timeout=self._write_timeout)
        return await self.client.execute_command(*command)

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
        commands: _Commands = [
            ("XADD", log, "MAXLEN", "~", keep, "*", "v", value) for value in values
        ]
        await self._mended("stream", [log], self._patient, commands)

    async def after(self, log: str, position: str, count: int) -> list[tuple[str, str]]:
        """Read a stream forward."""
        start = f"({position}" if position else "-"
        command = ("XRANGE", log, start, "+", "COUNT", count)
        found = await self._mended("stream", [log], self._patient, [command])
        return _stream(found[0])

    async def remove(self, log: str, positions: Sequence[str]) -> None:
        """Delete entries of a stream."""
        if positions:
            await self._patient.submit([("XDEL", log, *positions)])

    async def last(self, log: str, count: int) -> list[tuple[str, str]]:
        """Read a stream's end."""
        command = ("XREVRANGE", log, "+", "-", "COUNT", count)
        found = await self._mended("stream", [log], self._patient, [command])
        return _stream(found[0])[::-1]

    async def _mended(
        self,
        kind: Literal["string", "hash", "stream"],
        keys: Sequence[str],
        lane: Coalescer[_Commands, list[Any]],
        commands: _Commands,
    ) -> list[Any]:
        """Run *commands*; where one of *keys* is not of its *kind*, delete it and run them again.

        Such a key is under this cache's names, but not its own: left alone, it fails for ever.
        """
        try:
            return await lane.submit(commands)
        except BackendError as error:
            if not _is_wrong_type(error):
                raise
        await self._remove_others(kind, keys)
        return await lane.submit(commands)

    async def _remove_others(self, kind: str, keys: Sequence[str]) -> None:
        """Delete those of *keys* that hold another kind of value than *kind*."""
        types = await self._patient.submit([("TYPE", key) for key in keys])
        other = [
            key
            for key, found in zip(keys, types, strict=True)
            if _text(found) not in {kind, "none"}
        ]
        if other:
            _log.limited("keys", "redis: %d keys were no %s of this cache's and were deleted",
                        len(other), kind)  # fmt: skip
            await self.delete(other)

    def _inspect_soon(self, keys: Sequence[str], hashes: Sequence[str]) -> None:
        """Look, in nobody's time, whether a read took too long because of what it read."""
        if self._inspecting is None or self._inspecting.done():
            # In no context: no lookup waits for it.
            self._inspecting = asyncio.get_running_loop().create_task(
                self._inspect(keys[:_INSPECTED], hashes[:_INSPECTED]),
                context=contextvars.Context(),
            )

    async def _inspect(self, keys: Sequence[str], hashes: Sequence[str]) -> None:
        with contextlib.suppress(BackendError):
            commands: _Commands = [("STRLEN", key) for key in keys]
            commands += [("HLEN", key) for key in hashes]
            # Each for itself: a key of another kind is refused, and that of no other.
            found = await asyncio.gather(
                *(self._patient.submit([command]) for command in commands), return_exceptions=True
            )
            sizes = [0 if isinstance(item, BaseException) else int(item[0]) for item in found]
            large = [
                key for key, size in zip(keys, sizes, strict=False) if size > self._largest_bytes
            ]
            hashed = dict(zip(hashes, sizes[len(keys) :], strict=True))
            large += [key for key, rows in hashed.items() if rows > _MOST_ROWS]
            for key, rows in hashed.items():
                if 0 < rows <= _INSPECTED and await self._has_large_row(key):
                    large.append(key)
            if large:
                _log.limited(
                    "values",
                    "redis: %d values larger than %d bytes were no values of this cache's and "
                    "were deleted",
                    len(large),
                    self._largest_bytes,
                )
                await self.delete(large)
                self._removed.update(key for key in large if key not in hashed)

    async def _has_large_row(self, key: str) -> bool:
        names = await self.row_names(key)
        if not names:
            return False
        lengths = await self._patient.submit([("HSTRLEN", key, name) for name in names])
        return max(map(int, lengths)) > self._largest_bytes

    async def _read_batch(self, requests: Sequence[_Read]) -> list[Any]:
        """Read values and hashes for all *requests* in one round trip."""
        if self._nodes is not None:
            return await self._read_nodes(self._nodes, requests)
        keys, hashes = _asked(requests)
        try:
            with self._breaker:
                async with Deadline(self._read_timeout):
                    raw, rows = await self._fetch(keys, hashes)
        except BackendError as error:
            if error.reason == "timeout":
                self._inspect_soon(keys, hashes)
            raise
        values = dict(zip(keys, _texts(raw), strict=True))
        if not hashes:
            return [list(map(values.__getitem__, request)) for request in requests]
        found = dict(zip(hashes, rows, strict=True))
        return [
            _checked(found[request.hash])
            if isinstance(request, _Rows)
            else list(map(values.__getitem__, request))
            for request in requests
        ]

    async def _fetch(self, keys: list[str], hashes: list[str]) -> tuple[list[Any], list[Any]]:
        if not hashes:
            line: Any = self._line
            return await line.execute_command("MGET", *keys, **_RAW) if keys else [], []
        pipe = self._pipeline()
        if keys:
            pipe.execute_command("MGET", *keys, **_RAW)
        for name in hashes:
            pipe.execute_command("HGETALL", name, **_RAW)
        results = await pipe.execute(raise_on_error=False)
        values = results.pop(0) if keys else ()
        if isinstance(values, Exception):
            raise values
        return list(values), results

    async def _read_nodes(self, nodes: ClusterNodes, requests: Sequence[_Read]) -> list[Any]:
        """Do what `_read_batch` does on a Cluster, where each request can fail by itself."""
        keys, hashes = _asked(requests)
        # One MGET may only ask for keys of one slot.
        client: Any = self.client
        slots: dict[int, list[str]] = {}
        for key in keys:
            slots.setdefault(client.keyslot(key), []).append(key)
        commands: _Commands = [("MGET", *group) for group in slots.values()]
        commands += [("HGETALL", name) for name in hashes]
        with self._breaker:
            results = await nodes.run(commands, self._read_timeout, **_RAW)
        found: dict[str, Any] = dict(zip(hashes, results[len(slots) :], strict=True))
        failed: dict[str, Exception] = {}
        values: dict[str, str | None] = {}
        for group, items in zip(slots.values(), results[: len(slots)], strict=True):
            if isinstance(items, Exception):
                failed.update(dict.fromkeys(group, items))
            else:
                values.update(zip(group, _texts(items), strict=True))

        def answer(request: _Read) -> Any:
            if isinstance(request, _Rows):
                return _checked(found[request.hash])
            error = next((failed[key] for key in request if key in failed), None)
            return [values[key] for key in request] if error is None else _checked(error)

        return [answer(request) for request in requests]

    async def _command_batch(self, requests: Sequence[_Commands]) -> list[Any]:
        """Run the commands of all *requests* in one round trip; each gets its own errors."""
        with self._breaker:
            if self._nodes is not None:
                every = [command for commands in requests for command in commands]
                results = await self._nodes.run(every, self._write_timeout, **_RAW)
            else:
                results = await self._run(requests)
        found: list[Any] = []
        for commands in requests:
            own, results = results[: len(commands)], results[len(commands) :]
            failed = next((item for item in own if isinstance(item, Exception)), None)
            found.append(own if failed is None else _checked(failed))
        return found

    async def _run(self, requests: Sequence[_Commands]) -> list[Any]:
        pipe = self._pipeline()
        for commands in requests:
            for command in commands:
                pipe.execute_command(*command, **_RAW)
        async with Deadline(self._write_timeout):
            return list(await pipe.execute(raise_on_error=False))

    def _pipeline(self) -> Any:
        return self.client.pipeline(transaction=False)


class _Rows(NamedTuple):
    """A hash whose rows one caller wants to know."""

    hash: str


_Read: TypeAlias = Sequence[str] | _Rows
"""What one caller wants to know: the values of keys, or the rows of a hash."""


def _asked(requests: Sequence[_Read]) -> tuple[list[str], list[str]]:
    """Return the keys and the hashes that *requests* ask for, each once."""
    keys = dict.fromkeys(
        chain.from_iterable([item for item in requests if not isinstance(item, _Rows)])
    )
    hashes = dict.fromkeys([item.hash for item in requests if isinstance(item, _Rows)])
    return list(keys), list(hashes)


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
    if isinstance(result, BackendError):
        return result.copy()
    if isinstance(result, Exception):
        return BackendError("backend_error", type(result).__name__, str(result))
    return result


def _is_wrong_type(error: BackendError) -> bool:
    """Whether Redis refused a command because the key holds another kind of value."""
    return "WRONGTYPE" in str(error)


def _millis(seconds: float | None) -> int | None:
    return None if seconds is None else max(1, int(seconds * 1000))


def _text(value: Any) -> str | None:
    """Return a reply as text; what is not UTF-8 becomes text that no envelope equals."""
    if value is None or isinstance(value, str):
        return value
    text: str = value.decode("utf-8", "replace")
    return text


def _texts(values: Iterable[Any]) -> list[str | None]:
    return [
        value if value is None or isinstance(value, str) else value.decode("utf-8", "replace")
        for value in values
    ]


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
