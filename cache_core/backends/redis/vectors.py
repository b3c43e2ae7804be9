"""Index of shared answers in Redis' vector sets: one for each context, several in a Cluster.

Every replica sees a row as soon as it is added, and no longer once it is removed. A search is one
round trip, to all sets of its context at the same time, and brings the texts and the vectors: the
set's own similarities, of 8 bits a value, only preselect.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

import redis.asyncio as redis
from redis.asyncio.cluster import RedisCluster

from cache_core.backends.base import FormerRow, Limits, Neighbour, Row, Vector
from cache_core.backends.breaker import Breaker
from cache_core.backends.clock import WallClock
from cache_core.backends.redis.batches import Batches, is_before
from cache_core.backends.redis.foreign import ForeignKeys
from cache_core.backends.redis.line import Commands
from cache_core.backends.redis.replies import is_wrong_type, millis, text_of
from cache_core.backends.redis.vector_rows import content, found_in, neighbours, pack, text_in
from cache_core.backends.redis.vector_sets import (
    LEAST_VERSION,
    Place,
    context_of,
    field_of,
    is_value,
    new_value,
    places_of,
)
from cache_core.model.batches import batched
from cache_core.model.exceptions import BackendError
from cache_core.model.logs import RateLimited

log = logging.getLogger("glasscache")
limited = RateLimited(log)

BACKEND = "vectors"
"""Name of the breaker: the keyed store on the same Redis has its own."""

CLUSTER_SHARDS = 8
"""Sets of one context in a Cluster: a set is one key, so it is on one node. Each is searched."""

EF = 100
"""Candidates that a search keeps, as many as Chroma's; `benchmarks/vectors.py` has the recall."""

_UNAVAILABLE = {"ConnectionError", "TimeoutError", "BusyLoadingError", "ClusterDownError"}

_SPARE = 4
"""Rows beyond the requested ones, because 8 bits may change the order."""

_SWEEP_SECONDS = 30.0
_SWEPT_TOGETHER = 100
_SWEPT_MOST = 5_000
"""Rows swept of one set in one turn; the rest at the next `tend`."""

_SHORTEST = 3_600.0
_LONGEST = 61 * 86_400.0
_RENEWED = 60.0
"""Seconds by which a set's life has to grow before it is extended."""

_LONGEST_ROW = 10 * 365 * 86_400.0


class RedisVectors:
    """Shared answers in vector sets.

    Args:
        client: The client to use; it is closed by `close` only if *owned*.
        name: Returns the name of a key of the namespace.
        model: Digest of the model: other models' rows are in other sets.
        default_context: A context that is always accepted.
        limits: Time limits and others.
        owned: Whether the client was made for this index.
    """

    place: str | None = None
    """None: all processes share the index."""
    collection: Any = None

    def __init__(
        self,
        client: redis.Redis | RedisCluster,
        *,
        name: Callable[[str], str],
        model: str,
        default_context: str,
        limits: Limits,
        owned: bool = True,
    ) -> None:
        self._batches = Batches(
            client,
            read_timeout=limits.search_timeout,
            write_timeout=limits.write_timeout,
            trips=(limits.breaker_failures, limits.breaker_probe),
            owned=owned,
            backend=BACKEND,
        )
        self._foreign = ForeignKeys(self._batches.patient)
        self._clock = WallClock()
        self._name = name
        self._model = model
        self._default_context = default_context
        self._most = limits.max_contexts
        self._record = name("vectors")
        self._values: dict[str, str] = {}
        self._extended: dict[str, float] = {}
        self._next_sweep = 0.0
        self.connected = False
        """True once the existing sets are known."""
        self.dropped = 0
        """Rows that could not be stored: no direction, or no text."""

    @property
    def breaker(self) -> Breaker:
        """The breaker of searches and writes."""
        return self._batches.breaker

    async def lacks(self) -> str:
        """Return what the server lacks for this index; empty if nothing.

        Raises:
            BackendError: If it is unavailable.
        """
        await self._clock.follow(self._batches.time)
        if is_before(self._batches.version, LEAST_VERSION):
            return f"this Redis is {self._batches.version}, and vector sets need 8.2 or later"
        tried = [self._batches.patient.submit([command]) for command in self._harmless()]
        for found in await asyncio.gather(*tried, return_exceptions=True):
            if not isinstance(found, BackendError):
                continue
            if "unknown command" in str(found):
                return "this Redis has no vector sets; 8.2 or later has"
            if found.error_type == "NoPermissionError":
                return "the Redis user may not use vector sets (docs/servers.md has the ACL)"
            if found.reason != "backend_error" or found.error_type in _UNAVAILABLE:
                raise found
        return ""

    def _harmless(self) -> Commands:
        """Return each command that the index needs, in a form that changes nothing."""
        key = self._name("vectors-none")
        return [
            ("VCARD", key),
            ("VADD", key, "FP32", "no vector", "none"),
            ("VSIM", key, "ELE", "none"),
            ("VREM", key, "none"),
            ("VGETATTR", key, "none"),
            ("ZADD", key, "no number", "none"),
            ("ZREM", key, "none"),
            ("ZRANGEBYSCORE", key, 0, 0),
        ]

    async def open(self) -> None:
        """Connect, detect a Cluster, and read which sets there are."""
        with contextlib.suppress(BackendError):
            await self._connect()

    async def _connect(self) -> None:
        await self._clock.follow(self._batches.time)
        await self._places()
        self.connected = True

    async def close(self) -> None:
        """Close the connections of an owned client."""
        await self._batches.close()

    def abandon(self) -> None:
        """Leave the connections to the garbage collector: they belong to the loop that ended."""
        self._batches.abandon()

    async def tend(self, now: float) -> None:
        """Check the connection, read which sets there are, and sweep every 30 seconds."""
        await self._connect()
        if now >= self._next_sweep or now < self._next_sweep - _SWEEP_SECONDS:
            self._next_sweep = now + _SWEEP_SECONDS
            await self.sweep(now)

    async def sweep(self, now: float) -> int:
        """Remove rows dropped by *now*, of all models, and empty sets; return the row count."""
        swept = 0
        self._extended.clear()
        await self._batches.patient.submit([("PEXPIRE", self._record, millis(_LONGEST))])
        for place in await self._places():
            for key in self._sets(place):
                swept += await self._sweep(key, now)
            await self._forget_empty(place)
        return swept

    async def _sweep(self, key: str, now: float) -> int:
        swept = 0
        while swept < _SWEPT_MOST:
            command = ("ZRANGEBYSCORE", _times(key), "-inf", f"({now}", "LIMIT", 0, _SWEPT_TOGETHER)
            (found,) = await self._mended("zset", [_times(key)], [command])
            if not found:
                return swept
            await self._mended("vectorset", [key], _removing(key, [text_of(one) for one in found]))
            swept += len(found)
        self._next_sweep = 0.0
        return swept

    async def _forget_empty(self, place: Place) -> None:
        """Remove a context without rows from the record; not the default one."""
        if context_of(place.field, self._model) == self._default_context:
            return
        if not await self._size([place]):
            await self._batches.patient.submit([("HDEL", self._record, place.field)])
            self._values.pop(place.field, None)

    async def search(self, context: str, vector: Vector, count: int) -> list[Neighbour]:
        """Return the nearest rows of *context*."""
        field = field_of(self._model, vector.size, context)
        for _ in range(2):
            known = self._values.get(field)
            place = None if known is None else Place(field, known)
            keys = [] if place is None else self._sets(place)
            current, replies = await self._ask(field, keys, vector, count + _SPARE)
            if current == known:
                rows = [row for key, reply in zip(keys, replies, strict=True)
                        for row in found_in(key, reply)]  # fmt: skip
                return neighbours(rows, vector)[:count]
            self._learn(field, current)
        return []

    async def _ask(
        self, field: str, keys: Sequence[str], vector: Vector, count: int
    ) -> tuple[str | None, list[Any]]:
        """Search some sets, and read the value of *field* in the same round trip."""
        options = ("WITHSCORES", "WITHATTRIBS", "COUNT", count, "EF", max(EF, count))
        values = vector.astype("<f4").tobytes()
        commands: Commands = [("HMGET", self._record, field)]
        commands += [("VSIM", key, "FP32", values, *options) for key in keys]
        try:
            (found, *replies) = await self._batches.hurried.ask(commands)
        except BackendError as error:
            if not is_wrong_type(error):
                raise
            await self._remove_foreign(keys)
            return None, []
        return _valid(found[0]), replies

    async def _remove_foreign(self, keys: Sequence[str]) -> None:
        await self._foreign.remove_others("hash", [self._record])
        if keys:
            await self._foreign.remove_others("vectorset", keys)
            await self._foreign.remove_others("zset", [_times(key) for key in keys])

    def _learn(self, field: str, value: str | None) -> None:
        if value is None:
            self._values.pop(field, None)
        else:
            self._values[field] = value

    async def add(self, context: str, row: Row) -> bool:
        """Store *row*: every replica finds it from then on."""
        if not self.accepts(context):
            return False
        field = field_of(self._model, row.vector.size, context)
        for _ in range(3):
            place = Place(field, self._values.get(field) or await self._register(field))
            key = self._sets(place)[place.shard(row.id)]
            try:
                packed = pack(key, row)
            except ValueError as error:
                self.dropped += 1
                limited.limited("refused", "vectors: a row was rejected and dropped: %s",
                                type(error).__name__)  # fmt: skip
                return True
            commands = [*self._adding(key, row, packed), ("HMGET", self._record, field)]
            *_, found = await self._mended("vectorset", [key], commands)
            current = _valid(found[0])
            self._learn(field, current)
            # Otherwise the sets were forgotten meanwhile, and no search would find the row.
            if current == place.value:
                return True
        raise BackendError("backend_error", "SetsForgotten", "the record of sets keeps changing")

    def _adding(self, key: str, row: Row, packed: bytes) -> Commands:
        """Return the commands that add a row: its expiry first, so that no row is without one."""
        values = row.vector.astype("<f4").tobytes()
        commands: Commands = [
            ("ZADD", _times(key), row.dropped, row.id),
            # With CAS the server looks for the row's place without blocking others.
            ("VADD", key, "FP32", values, row.id, "CAS", "Q8", "SETATTR", packed),
        ]
        now = self._clock.time()
        if row.dropped > self._extended.get(key, 0.0) + _RENEWED:
            life = millis(min(max(row.dropped - now, _SHORTEST), _LONGEST_ROW))
            for name in (key, _times(key)):
                commands += [("PEXPIRE", name, life, "NX"), ("PEXPIRE", name, life, "GT")]
            self._extended[key] = row.dropped
        return commands

    async def _register(self, field: str) -> str:
        """Return the value of *field* in the record, a new one if it has none."""
        value = new_value(CLUSTER_SHARDS if self._batches.clustered else 1)
        commands: Commands = [
            ("HSETNX", self._record, field, value),
            ("HMGET", self._record, field),
            ("PEXPIRE", self._record, millis(_LONGEST)),
        ]
        _, found, _ = await self._mended("hash", [self._record], commands)
        current = _valid(found[0])
        if current is None:
            await self._batches.writes.submit([("HSET", self._record, field, value)])
        self._values[field] = current or value
        return self._values[field]

    def accepts(self, context: str) -> bool:
        """Return whether *context* has sets, or may get some."""
        known = self._known()
        return context in known or len(known) < self._most

    def _known(self) -> set[str]:
        found = {context_of(field, self._model) for field in self._values}
        return {context for context in found if context is not None} | {self._default_context}

    async def remove(self, context: str, ids: Sequence[str]) -> int:
        """Remove rows: no replica finds them from then on."""
        removed = 0
        for key, own in await self._where(context, ids):
            for batch in batched(own, _SWEPT_TOGETHER):
                replies = await self._mended("vectorset", [key], _removing(key, batch))
                removed += sum(map(bool, replies[:-1]))
        return removed

    async def purge(self, context: str) -> None:
        """Do nothing: a removed row leaves no trace in Redis' memory."""

    async def texts(self, context: str, ids: Sequence[str]) -> dict[str, str]:
        """Return the texts of those of *ids* that have a row; empty for damaged rows."""
        found: dict[str, str] = {}
        for key, own in await self._where(context, ids):
            for batch in batched(own, _SWEPT_TOGETHER):
                commands: Commands = [("VGETATTR", key, identity) for identity in batch]
                replies = await self._mended("vectorset", [key], commands)
                found |= {
                    one: text_in(key, one, packed)
                    for one, packed in zip(batch, replies, strict=True)
                    if packed is not None
                }
        return found

    async def _where(self, context: str, ids: Sequence[str]) -> list[tuple[str, list[str]]]:
        """Return the sets of a context, each with those of *ids* that belong to it."""
        if not ids:
            return []
        found: list[tuple[str, list[str]]] = []
        for place in await self._places():
            if context_of(place.field, self._model) != context:
                continue
            for number, key in enumerate(self._sets(place)):
                own = [identity for identity in ids if place.shard(identity) == number]
                if own:
                    found.append((key, own))
        return found

    async def contexts(self) -> Sequence[str]:
        """Return the contexts that have sets."""
        found = {context_of(place.field, self._model) for place in await self._places()}
        return sorted(context for context in found if context is not None)

    async def count(self) -> int:
        """Return the number of rows."""
        places = await self._places()
        return await self._size(
            [place for place in places if context_of(place.field, self._model) is not None]
        )

    async def _size(self, places: Iterable[Place]) -> int:
        keys = [key for place in places for key in self._sets(place)]
        if not keys:
            return 0
        commands: Commands = [("VCARD", key) for key in keys]
        return sum(map(int, await self._mended("vectorset", keys, commands)))

    async def rows_of(self, digest: str, identity: str) -> AsyncIterator[Sequence[FormerRow]]:
        """Yield the rows of another model."""
        for place in await self._places():
            context = context_of(place.field, digest)
            if context is None:
                continue
            for key in self._sets(place):
                read = 0
                while ids := await self._listed(key, read):
                    read += len(ids)
                    yield await self._contents(key, context, ids)

    async def _listed(self, key: str, offset: int) -> list[str]:
        command = ("ZRANGEBYSCORE", _times(key), "-inf", "+inf", "LIMIT", offset, _SWEPT_TOGETHER)
        (found,) = await self._mended("zset", [_times(key)], [command])
        return [text_of(one) or "" for one in found]

    async def _contents(self, key: str, context: str, ids: Sequence[str]) -> list[FormerRow]:
        commands: Commands = [("VGETATTR", key, identity) for identity in ids]
        replies = await self._mended("vectorset", [key], commands)
        found = [content(key, *pair) for pair in zip(ids, replies, strict=True)]
        return [
            FormerRow(context, identity, *row)
            for identity, row in zip(ids, found, strict=True)
            if row is not None
        ]

    async def drop_model(self, digest: str, identity: str) -> None:
        """Delete the sets of another model."""
        for place in await self._places():
            if context_of(place.field, digest) is None or digest == self._model:
                continue
            commands: Commands = [
                ("UNLINK", name) for key in self._sets(place) for name in (key, _times(key))
            ]
            await self._batches.patient.submit([*commands, ("HDEL", self._record, place.field)])

    async def _places(self) -> list[Place]:
        """Read the record: the sets of all models; those of this one are known from then on."""
        (reply,) = await self._mended("hash", [self._record], [("HGETALL", self._record)])
        places, invalid = places_of(reply)
        if invalid:
            await self._batches.patient.submit([("HDEL", self._record, *invalid)])
        self._values = {
            place.field: place.value
            for place in places
            if context_of(place.field, self._model) is not None
        }
        return places

    async def _mended(self, kind: Any, keys: Sequence[str], commands: Commands) -> list[Any]:
        """Run *commands* as a put does; again once keys of another type are removed."""
        try:
            return await self._batches.writes.submit(commands)
        except BackendError as error:
            if not is_wrong_type(error):
                raise
        await self._foreign.remove_others("hash", [self._record])
        await self._foreign.remove_others(kind, keys)
        if kind == "vectorset":
            await self._foreign.remove_others("zset", [_times(key) for key in keys])
        return await self._batches.writes.submit(commands)

    def _sets(self, place: Place) -> list[str]:
        """Return the names of the sets of *place*."""
        token = place.value.partition(".")[0]
        return [self._name(f"vectors-{token}-{number}") for number in range(place.shards)]


def _times(key: str) -> str:
    """Return the name of the sorted set with the expiries of a set's rows, in the same slot."""
    return f"{key}:dropped"


def _removing(key: str, ids: Sequence[Any]) -> Commands:
    """Return the commands that remove rows of a set; no row is left without an expiry."""
    return [*(("VREM", key, identity) for identity in ids), ("ZREM", _times(key), *ids)]


def _valid(reply: Any) -> str | None:
    value = text_of(reply)
    return value if is_value(value) else None
