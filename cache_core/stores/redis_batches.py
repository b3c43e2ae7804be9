"""One connection for each kind of command, shared by all who have something to ask at the time."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

import redis.asyncio as redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    MaxConnectionsError,
    ResponseError,
)

from cache_core.breaker import Breaker
from cache_core.deadline import Deadline
from cache_core.exceptions import BackendError
from cache_core.stores.coalescing import Coalescer
from cache_core.stores.redis_cluster import ClusterNodes, cluster_of
from cache_core.stores.redis_replies import checked, texts_of

log = logging.getLogger("glasscache")

_RAW: dict[str, Any] = {"NEVER_DECODE": True}
"""With a pool of decode_responses=True one undecodable value would fail everybody's reads."""

Commands: TypeAlias = list[tuple[Any, ...]]
"""What one caller wants done, in order."""


class Rows(NamedTuple):
    """A hash whose rows one caller wants to know."""

    hash: str


Read: TypeAlias = Sequence[str] | Rows
"""What one caller wants to know: the values of keys, or the rows of a hash."""


class Batches:
    """The way to a Redis server or Cluster: three lanes, one round trip in flight on each.

    So three connections serve any number of lookups and puts, and what is patient never stands
    before a lookup.

    Attributes:
        client: Of the server; once that is known to be one, of the Cluster.
        breaker: Of both.
        reads, writes, patient: The lanes.

    Args:
        client: The client to use; it is closed by `close` only if *owned*.
        read_timeout, write_timeout: Seconds for one round trip.
        failures, probe_seconds: See `Breaker`.
        owned: Whether the client was made for this store.
        late: Told of the keys and the hashes of a read that took too long.
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        read_timeout: float,
        write_timeout: float,
        failures: int,
        probe_seconds: float,
        owned: bool,
        late: Callable[[Sequence[str], Sequence[str]], None],
    ) -> None:
        self.client: redis.Redis | RedisCluster = client
        self.breaker = new_breaker(failures, probe_seconds)
        self.reads: Coalescer[Read, Any] = Coalescer(self._read_batch)
        self.writes: Coalescer[Commands, list[Any]] = Coalescer(self._command_batch)
        self.patient: Coalescer[Commands, list[Any]] = Coalescer(self._command_batch)
        self._read_timeout = read_timeout
        self._write_timeout = write_timeout
        self._per_node = (failures, probe_seconds)
        self._owned = owned
        self._late = late
        self._cluster_known = not owned
        self._nodes: ClusterNodes | None = None
        # Only one round trip of reads is in flight: it keeps its connection, as to take it from
        # the pool and give it back is a tenth of a GET. An application's pool keeps its own.
        self._line = client.client() if owned else client

    async def close(self) -> None:
        """Fail what waits, and close the connections of an owned client."""
        for lane in (self.reads, self.writes, self.patient):
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

    async def time(self) -> float:
        """Return the server's time; on the first contact also ask whether it is a Cluster."""
        with self.breaker:
            async with Deadline(self._write_timeout):
                if not self._cluster_known:
                    await self._detect_cluster()
                seconds, micros = await self._any_node("TIME")
                return int(seconds) + int(micros) / 1_000_000

    async def tell_all(self, *command: Any) -> None:
        """Run a command that a Cluster passes on to all its nodes."""
        with self.breaker:
            async with Deadline(self._write_timeout):
                await self._any_node(*command)

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

    async def _any_node(self, *command: Any) -> Any:
        """Ask the server, or any node of the Cluster."""
        if self._nodes is not None:
            return await self._nodes.any_node(*command, timeout=self._write_timeout)
        return await self.client.execute_command(*command)

    async def _read_batch(self, requests: Sequence[Read]) -> list[Any]:
        """Read values and hashes for all *requests* in one round trip."""
        if self._nodes is not None:
            return await self._read_nodes(self._nodes, requests)
        keys, hashes = _asked(requests)
        try:
            with self.breaker:
                async with Deadline(self._read_timeout):
                    raw, rows = await self._fetch(keys, hashes)
        except BackendError as error:
            if error.reason == "timeout":
                self._late(keys, hashes)
            raise
        value = dict(zip(keys, texts_of(raw), strict=True)).__getitem__
        if not hashes:
            return [list(map(value, request)) for request in requests]
        found = dict(zip(hashes, rows, strict=True))
        return [
            checked(found[request.hash]) if isinstance(request, Rows) else list(map(value, request))
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

    async def _read_nodes(self, nodes: ClusterNodes, requests: Sequence[Read]) -> list[Any]:
        """Do what `_read_batch` does on a Cluster, where each request can fail by itself."""
        keys, hashes = _asked(requests)
        # One MGET may only ask for keys of one slot.
        client: Any = self.client
        slots: dict[int, list[str]] = {}
        for key in keys:
            slots.setdefault(client.keyslot(key), []).append(key)
        commands: Commands = [("MGET", *group) for group in slots.values()]
        commands += [("HGETALL", name) for name in hashes]
        with self.breaker:
            results = await nodes.run(commands, self._read_timeout, **_RAW)
        found: dict[str, Any] = dict(zip(hashes, results[len(slots) :], strict=True))
        failed: dict[str, Exception] = {}
        values: dict[str, str | None] = {}
        for group, items in zip(slots.values(), results[: len(slots)], strict=True):
            if isinstance(items, Exception):
                failed.update(dict.fromkeys(group, items))
            else:
                values.update(zip(group, texts_of(items), strict=True))

        def answer(request: Read) -> Any:
            if isinstance(request, Rows):
                return checked(found[request.hash])
            error = next((failed[key] for key in request if key in failed), None)
            return [values[key] for key in request] if error is None else checked(error)

        return [answer(request) for request in requests]

    async def _command_batch(self, requests: Sequence[Commands]) -> list[Any]:
        """Run the commands of all *requests* in one round trip; each gets its own errors."""
        with self.breaker:
            if self._nodes is not None:
                every = [command for commands in requests for command in commands]
                results = await self._nodes.run(every, self._write_timeout, **_RAW)
            else:
                results = await self._run(requests)
        found: list[Any] = []
        for commands in requests:
            own, results = results[: len(commands)], results[len(commands) :]
            failed = next((item for item in own if isinstance(item, Exception)), None)
            found.append(own if failed is None else checked(failed))
        return found

    async def _run(self, requests: Sequence[Commands]) -> list[Any]:
        pipe = self._pipeline()
        for commands in requests:
            for command in commands:
                pipe.execute_command(*command, **_RAW)
        async with Deadline(self._write_timeout):
            return list(await pipe.execute(raise_on_error=False))

    def _pipeline(self) -> Any:
        return self.client.pipeline(transaction=False)


def _asked(requests: Sequence[Read]) -> tuple[list[str], list[str]]:
    """Return the keys and the hashes that *requests* ask for, each once."""
    hashes = {item.hash: None for item in requests if isinstance(item, Rows)}
    lists = [item for item in requests if not isinstance(item, Rows)] if hashes else requests
    keys = dict.fromkeys(chain.from_iterable(lists))
    return list(keys), list(hashes)


def new_breaker(failures: int, probe_seconds: float) -> Breaker:
    """Return a breaker for which a server that refuses something is there."""
    return Breaker(
        "redis",
        failures=failures,
        probe_seconds=probe_seconds,
        answered=(ResponseError, MaxConnectionsError),
    )
