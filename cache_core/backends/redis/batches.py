"""Batches of commands: one connection for each kind, shared by concurrent callers."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
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

from cache_core.backends.breaker import Breaker
from cache_core.backends.deadline import Deadline
from cache_core.backends.redis.cluster import ClusterNodes, cluster_of
from cache_core.backends.redis.coalescing import Coalescer
from cache_core.backends.redis.line import RAW, Commands, Line
from cache_core.backends.redis.replies import checked, texts_of
from cache_core.model.exceptions import BackendError

log = logging.getLogger("glasscache")

_SCANNED = 500
_GLOB = re.compile(r"[\\*?\[\]]")
_ESCAPED = r"\\\g<0>"

LEAST_VERSION = (5, 0)
"""First version of Redis with streams."""


class Rows(NamedTuple):
    """Request for the rows of a hash."""

    hash: str


Read: TypeAlias = Sequence[str] | Rows
"""Request of one caller: the values of keys, or the rows of a hash."""


class Batches:
    """Access to a Redis server or Cluster: some lanes, one round trip in flight on each.

    So a connection for each lane in use serves any number of lookups and puts, and patient commands
    never delay a lookup.

    Attributes:
        client: The server's client; the Cluster's, once the server is known to be a node of one.
        breaker: The breaker of both.
        version: The server's version; empty while it is unknown.
        run_ids: Run ids of the server, or of the Cluster's primaries; empty while they are unknown.
        reads, hurried, writes, patient: The lanes; the first two have the time limit of a read.

    Args:
        client: The client to use; it is closed by `close` only if *owned*.
        read_timeout, write_timeout: Seconds for one round trip.
        trips: `failures` and `probe_seconds` of the breakers, see `Breaker`.
        backend: The breaker's name.
        owned: Whether the client was made for this store.
        late: Called with the keys and the hashes of a read that timed out.
    """

    def __init__(
        self,
        client: redis.Redis | RedisCluster,
        *,
        read_timeout: float,
        write_timeout: float,
        trips: tuple[int, float],
        owned: bool,
        late: Callable[[Sequence[str], Sequence[str]], None] | None = None,
        backend: str = "redis",
    ) -> None:
        self.client: redis.Redis | RedisCluster = client
        self.breaker = new_breaker(*trips, backend)
        self._lines = [Line(client, owned=owned) for _ in range(4)]
        self._reading, hurrying, writing, waiting = self._lines
        self.reads: Coalescer[Read, Any] = Coalescer(self._read_batch)
        self.hurried = self._lane(hurrying, read_timeout)
        self.writes = self._lane(writing, write_timeout)
        self.patient = self._lane(waiting, write_timeout)
        self._read_timeout = read_timeout
        self._write_timeout = write_timeout
        self._trips = trips
        self._owned = owned
        self._late = late
        self._greeted = False
        self.version = ""
        self.run_ids: tuple[str, ...] = ()
        self._nodes: ClusterNodes | None = None
        if isinstance(client, RedisCluster):
            self._nodes = ClusterNodes(client, *trips)

    @property
    def clustered(self) -> bool:
        """True for a Cluster, once it is known to be one."""
        return self._nodes is not None

    async def close(self) -> None:
        """Fail pending requests, and close the connections of an owned client."""
        for lane in (self.reads, self.hurried, self.writes, self.patient):
            await lane.close()
        for line in self._lines:
            with contextlib.suppress(Exception):
                await line.close()
        if self._owned:
            pool = getattr(self.client, "connection_pool", None)
            manager = getattr(pool, "sentinel_manager", None)
            for client in (self.client, *getattr(manager, "sentinels", ())):
                with contextlib.suppress(Exception):
                    await client.aclose()

    def abandon(self) -> None:
        """Leave the connections to the garbage collector: they belong to the loop that ended."""
        for line in self._lines:
            line.abandon()

    async def time(self) -> float:
        """Return the server's time; the first call also detects its version and a Cluster."""
        with self.breaker:
            async with Deadline(self._write_timeout):
                if not self._greeted:
                    await self._greet()
                seconds, micros = await self._any_node("TIME")
                return int(seconds) + int(micros) / 1_000_000

    async def identify(self) -> None:
        """Read the run ids; where INFO is not allowed, or fails, the known ones stay."""
        with contextlib.suppress(Exception):
            async with Deadline(self._write_timeout):
                client = self.client
                if isinstance(client, RedisCluster):
                    every = await client.info("server", target_nodes=RedisCluster.PRIMARIES)
                    nodes = [every] if "run_id" in every else every.values()
                    found = [node["run_id"] for node in nodes]
                else:
                    found = [(await client.info("server"))["run_id"]]
                self.run_ids = tuple(sorted(map(str, found)))

    async def tell_all(self, *command: Any) -> None:
        """Run a command that a Cluster forwards to all its nodes."""
        with self.breaker:
            async with Deadline(self._write_timeout):
                await self._any_node(*command)

    async def scan(self, begin: str, end: str, cursor: str) -> tuple[list[Any], str]:
        """Return some keys that begin and end so, and the cursor for more; empty at the end.

        Args:
            begin, end: Of the keys' names.
            cursor: Of the call before; empty for the beginning.
        """
        number, _, position = cursor.rpartition(":")
        pattern = f"{_GLOB.sub(_ESCAPED, begin)}*{_GLOB.sub(_ESCAPED, end)}"
        command = ("SCAN", position or "0", "MATCH", pattern, "COUNT", _SCANNED)
        with self.breaker:
            async with Deadline(self._write_timeout):
                if self._nodes is None:
                    position, names = await self.client.execute_command(*command)
                    return names, str(int(position) or "")
                (position, names), more = await self._nodes.scan(int(number or 0), command)
        place = int(number or 0) + (int(position) == 0)
        return names, f"{place}:{int(position)}" if more or int(position) else ""

    async def _greet(self) -> None:
        """Check that the server is new enough, and detect a node of a Cluster."""
        plain = self.client
        if isinstance(plain, redis.Redis):
            version = str((await _info(plain, "server")).get("redis_version", ""))
            self.version = version
            if is_before(version, LEAST_VERSION):
                log.error(
                    "redis: the server is version %s; %s or later is needed, so invalidations, "
                    "the decision log and tuning cannot work on it",
                    version,
                    ".".join(map(str, LEAST_VERSION)),
                )
            await self._detect_cluster(plain)
        self._greeted = True

    async def _detect_cluster(self, plain: redis.Redis) -> None:
        if self._owned and (await _info(plain, "cluster")).get("cluster_enabled") == 1:
            self.client = cluster_of(plain, self._write_timeout)
            self._nodes = ClusterNodes(self.client, *self._trips)
            for line in self._lines:
                await line.close()
            await plain.aclose()
            log.info("redis: a Cluster; reads are split by slot")

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
            if error.reason == "timeout" and self._late is not None:
                self._late(keys, hashes)
            raise
        value = dict(zip(keys, texts_of(raw), strict=True)).__getitem__
        if not hashes:
            return [list(map(value, request)) for request in requests]
        found = dict(zip(hashes, rows, strict=True))
        return [
            checked(found[request.hash], self.breaker)
            if isinstance(request, Rows)
            else list(map(value, request))
            for request in requests
        ]

    async def _fetch(self, keys: list[str], hashes: list[str]) -> tuple[list[Any], list[Any]]:
        commands: Commands = [("MGET", *keys)] if keys else []
        commands += [("HGETALL", name) for name in hashes]
        if not commands:
            return [], []
        replies = await self._reading.run(commands)
        values: Any = replies[0] if keys else []
        if isinstance(values, Exception):
            raise values
        return values, replies[1:] if keys else replies

    async def _read_nodes(self, nodes: ClusterNodes, requests: Sequence[Read]) -> list[Any]:
        """Read as `_read_batch` does, on a Cluster, where each request can fail by itself."""
        keys, hashes = _asked(requests)
        # The keys of an MGET must share a slot.
        client: Any = self.client
        slots: dict[int, list[str]] = {}
        for key in keys:
            slots.setdefault(client.keyslot(key), []).append(key)
        commands: Commands = [("MGET", *group) for group in slots.values()]
        commands += [("HGETALL", name) for name in hashes]
        with self.breaker:
            results = await nodes.run(commands, self._read_timeout, **RAW)
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
                return checked(found[request.hash], self.breaker)
            error = next((failed[key] for key in request if key in failed), None)
            return (
                [values[key] for key in request] if error is None else checked(error, self.breaker)
            )

        return [answer(request) for request in requests]

    def _lane(self, line: Line, timeout: float) -> Coalescer[Commands, list[Any]]:
        return Coalescer(partial(self._run, line, timeout))

    async def _run(self, line: Line, timeout: float, requests: Sequence[Commands]) -> list[Any]:
        """Run the commands of all *requests* in one round trip; each gets its own errors."""
        every = [command for commands in requests for command in commands]
        with self.breaker:
            if self._nodes is not None:
                results = await self._nodes.run(every, timeout, **RAW)
            else:
                async with Deadline(timeout):
                    results = await line.run(every)
        found: list[Any] = []
        for commands in requests:
            own, results = results[: len(commands)], results[len(commands) :]
            failed = next((item for item in own if isinstance(item, Exception)), None)
            found.append(own if failed is None else checked(failed, self.breaker))
        return found


async def _info(client: redis.Redis, section: str) -> Mapping[str, Any]:
    """Return a section of the server's INFO; empty where INFO is not allowed."""
    try:
        found: Mapping[str, Any] = await client.info(section)
    except (AuthenticationError, BusyLoadingError):
        raise
    except ResponseError:
        return {}
    return found


def is_before(version: str, least: tuple[int, ...]) -> bool:
    """Return whether *version* is below *least*; False if it is no number."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return found is not None and (int(found[1]), int(found[2])) < least


def _asked(requests: Sequence[Read]) -> tuple[list[str], list[str]]:
    """Return the keys and the hashes that *requests* ask for, each once."""
    hashes = {item.hash: None for item in requests if isinstance(item, Rows)}
    lists = [item for item in requests if not isinstance(item, Rows)] if hashes else requests
    keys = dict.fromkeys(chain.from_iterable(lists))
    return list(keys), list(hashes)


def new_breaker(failures: int, probe_seconds: float, backend: str = "redis") -> Breaker:
    """Return a breaker that does not count a Redis server's own errors."""
    return Breaker(
        backend,
        failures=failures,
        probe_seconds=probe_seconds,
        answered=(ResponseError, MaxConnectionsError),
    )
