"""Index of shared answers on Chroma: embedded in this process, or a `chroma run` server.

Only this file uses Chroma's distances. Searches are never filtered: `where` makes them linear in
the collection's size (75 ms at 100,000 rows against 2 ms).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import re
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from chromadb.errors import InvalidArgumentError, NotFoundError

from cache_core.backends.base import FormerRow, Limits, Neighbour, Row, Vector
from cache_core.backends.breaker import Breaker
from cache_core.backends.chroma.client import (
    PATIENT_SECONDS,
    SERVER_SECONDS,
    ChromaClient,
    DiskFullError,
    NotYetError,
)
from cache_core.backends.chroma.directory import can_be_embedded, is_thin_client
from cache_core.backends.chroma.rebuild import SYNC_THRESHOLD
from cache_core.model.batches import batched
from cache_core.model.exceptions import BackendError
from cache_core.model.logs import RateLimited
from cache_core.model.tasks import background

__all__ = ["ChromaIndex", "Limits", "can_be_embedded", "is_thin_client"]

log = logging.getLogger("glasscache")
limited = RateLimited(log)

FLUSH_ROWS = 20
"""Rows written together: 20 cost a tenth of 20 single ones."""

FLUSH_SECONDS = 0.2
BUFFER_ROWS = 2_000
"""Rows buffered while Chroma is unavailable; more are dropped and counted."""

OPEN_SECONDS = 0.2
"""Time that `open` waits for a server: a silent one must not delay the agent's start."""

_WRITE_BYTES = 4 * 1_048_576
"""Characters of text in one write: a larger one might time out on every attempt."""

_REFUSED = (InvalidArgumentError, TypeError, UnicodeError)
"""Errors of a row, not of Chroma."""

_SWEEP_BATCH = 500
_REBUILD_FROM = 1_000
_SWEEP_SECONDS = 30.0
_NOT_YET_SECONDS = 0.02


_DEFAULT = Limits()


class ChromaIndex:
    """Shared answers in Chroma, one collection per context.

    Args:
        namespace, model: Entries of other namespaces or models are in other collections, and so are
            vectors of another dimension than the collections of *model* have.
        default_context: The context of `collection`.
        directory: Directory of the embedded Chroma; this process takes a slot in it for itself.
        url: URL of a Chroma server, instead of *directory*.
        limits: Time limits and others.
    """

    def __init__(
        self,
        *,
        namespace: str,
        model: str,
        default_context: str,
        directory: Path | None = None,
        url: str | None = None,
        limits: Limits = _DEFAULT,
    ) -> None:
        self._namespace = namespace
        self._model = model
        self._dimension: int | None = None
        self._fitting: set[str] = set()
        self._breaker = Breaker(
            "chroma",
            failures=limits.breaker_failures,
            probe_seconds=limits.breaker_probe,
            answered=(NotFoundError, InvalidArgumentError, DiskFullError, NotYetError),
        )
        self._chroma = ChromaClient(
            _prefix(namespace, model),
            default_context,
            directory,
            url,
            limits.write_timeout,
            self._breaker,
        )
        self._default_context = default_context
        self._limits = limits
        self._buffer: dict[str, dict[str, Row]] = {}
        self._buffered = 0
        self._writing = asyncio.Lock()
        self._opener: asyncio.Task[None] | None = None
        self._flusher: asyncio.Task[None] | None = None
        self._rebuilder: asyncio.Task[None] | None = None
        self._next_sweep = 0.0
        self._deleted: dict[str, int] = {}
        self.dropped = 0
        """Rows lost because Chroma was unavailable too long, or rejected them."""

    @property
    def breaker(self) -> Breaker:
        """The breaker of this Chroma."""
        return self._breaker

    @property
    def place(self) -> str | None:
        """The directory that this process alone uses; `None` for a server's index."""
        return self._chroma.place

    @property
    def connected(self) -> bool:
        """True once Chroma was reached."""
        return self._chroma.connected

    @property
    def collection(self) -> Any:
        """The collection of the default context; `None` while Chroma cannot be reached."""
        return self._chroma.collections.get(self._default_context)

    async def open(self) -> None:
        """Connect and list the collections; continue in the background with a slow server."""
        if self._opener is None or self._opener.done():
            # Detached from the caller's context (no span): the caller may not wait for its end.
            self._opener = asyncio.get_running_loop().create_task(
                self._open(), context=background()
            )
        await asyncio.wait({self._opener}, timeout=None if self._chroma.embedded else OPEN_SECONDS)

    async def _opened(self, timeout: float) -> None:
        """Wait for a running `open`: Chroma is not unavailable before it was tried."""
        if self._opener is not None and not self._opener.done():
            await asyncio.wait({self._opener}, timeout=timeout)

    async def _open(self) -> None:
        with contextlib.suppress(BackendError):
            await self._chroma.connect()

    async def close(self) -> None:
        """Write the buffer and close, abandoning a rebuild."""
        if self._buffered:
            # A server that is slow to connect must not cost what was put meanwhile.
            await self._opened(self._limits.write_timeout)
        tasks = [task for task in (self._opener, self._flusher) if task is not None]
        self._opener = self._flusher = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(BackendError):
            await self._flush()
        await self._chroma.close()

    def abandon(self) -> None:
        """Release the directory without the event loop, losing the buffer."""
        self._opener = self._flusher = None
        self._buffer.clear()
        self._buffered = 0
        self._chroma.abandon()

    async def tend(self, now: float) -> None:
        """Reconnect, write the buffer, and sweep every 30 seconds."""
        await self._opened(SERVER_SECONDS)
        await self._chroma.mend()
        if not self._chroma.connected:
            await self._chroma.connect()
        await self._flush()
        if now >= self._next_sweep or now < self._next_sweep - _SWEEP_SECONDS:
            self._next_sweep = now + _SWEEP_SECONDS
            await self.sweep(now)
            await self._begin_rebuild()
        elif self._breaker.state != "closed":
            await self._chroma.heartbeat()

    async def sweep(self, now: float) -> int:
        """Delete rows dropped by *now*, in batches, and empty collections; return the row count."""
        swept = 0
        for context in await self.contexts():
            while True:
                found = await self._chroma.ask(
                    context,
                    "get",
                    where={"dropped": {"$lt": now}},
                    limit=_SWEEP_BATCH,
                    include=[],
                    timeout=self._limits.write_timeout,
                )
                if found is None or not found["ids"]:
                    break
                await self.remove(context, found["ids"])
                swept += len(found["ids"])
            async with self._writing:
                if context not in self._buffer:
                    await self._chroma.drop_if_empty(context)
        await self._chroma.sweep_others(now, _SWEEP_BATCH)
        return swept

    async def rows_of(self, digest: str, identity: str) -> AsyncIterator[Sequence[FormerRow]]:
        """Yield the rows of another model."""
        await self._opened(PATIENT_SECONDS)
        collections = await self._chroma.of_model(_prefix(self._namespace, identity))
        for context, collection in collections.items():
            read = 0
            while True:
                get = partial(
                    collection.get, limit=_SWEEP_BATCH, offset=read, include=["metadatas"]
                )
                found = await self._chroma.call(get, timeout=PATIENT_SECONDS)
                if not found["ids"]:
                    break
                read += len(found["ids"])
                yield [
                    FormerRow(context, identity, _text(metadata) or "", _dropped(metadata))
                    for identity, metadata in zip(found["ids"], found["metadatas"], strict=True)
                ]

    async def drop_model(self, digest: str, identity: str) -> None:
        """Delete the collections of another model."""
        await self._opened(PATIENT_SECONDS)
        prefix = _prefix(self._namespace, identity)
        for context in await self._chroma.of_model(prefix):
            await self._chroma.delete(prefix + context)

    async def _begin_rebuild(self) -> None:
        """Rebuild, in the background, an embedded collection with mostly deleted rows."""
        if not self._chroma.embedded or (self._rebuilder and not self._rebuilder.done()):
            return
        for context, deleted in list(self._deleted.items()):
            live = await self._chroma.ask(context, "count", timeout=self._limits.search_timeout)
            if live is None:
                del self._deleted[context]
            elif deleted > max(live, _REBUILD_FROM):
                rebuild = self._rebuild(context, deleted)
                self._rebuilder = asyncio.get_running_loop().create_task(rebuild)
                return

    async def _rebuild(self, context: str, deleted: int) -> None:
        replaced = await self._chroma.rebuild(context)
        # After a failure it is not tried again before as many more were deleted.
        self._deleted[context] = max(0, self._deleted.get(context, 0) - deleted)
        if replaced:
            log.info("chroma: rebuilt an index after %d deletions", deleted)

    async def search(self, context: str, vector: Vector, count: int) -> list[Neighbour]:
        """Return the nearest rows of *context*, including buffered ones."""
        await self._opened(self._limits.search_timeout)
        buffered = self._search_buffer(context, vector)
        found = await self._search_collection(context, vector, count)
        unique = {neighbour.id: neighbour for neighbour in found}
        unique.update((neighbour.id, neighbour) for neighbour in buffered)
        return sorted(unique.values(), key=lambda near: -near.similarity)[:count]

    async def _search_collection(self, context: str, vector: Vector, count: int) -> list[Neighbour]:
        deadline = time.monotonic() + self._limits.search_timeout
        search = partial(
            self._chroma.ask,
            context,
            "query",
            query_embeddings=vector[np.newaxis, :],
            n_results=count,
            include=["metadatas", "distances"],
        )
        while True:
            try:
                found = await search(timeout=max(0.001, deadline - time.monotonic()))
                break
            except BackendError as error:
                if self._leave(context, error, vector.size):
                    continue
                if not isinstance(error.__cause__, NotYetError):
                    raise
                # If it lasts, it is a failure like any other.
                if time.monotonic() + _NOT_YET_SECONDS >= deadline:
                    self._breaker.fail(error.__cause__)
                    raise
            await asyncio.sleep(_NOT_YET_SECONDS)
        if found is None:
            return []
        if found["ids"][0]:
            self._fitting.add(context)
        return [
            Neighbour(identity, _similarity(distance), _text(metadata))
            for identity, distance, metadata in zip(
                found["ids"][0], found["distances"][0], found["metadatas"][0], strict=True
            )
        ]

    def _leave(self, context: str, error: BackendError, dimension: int) -> bool:
        """Switch to an index of *dimension* if *error* reports another one; return whether it did.

        A model with the same name had vectors of that other dimension. They are not compared, and
        stay until they expire, for other processes. Where vectors of this process fitted before,
        only the one vector is wrong.
        """
        other = isinstance(error.__cause__, InvalidArgumentError) and "dimension" in str(error)
        if not other or context in self._fitting or self._dimension == dimension:
            return False
        log.warning(
            "chroma: the index of this model has vectors of another dimension (%s): it gets one of "
            "its own for those of %d values, which is empty at first",
            error,
            dimension,
        )
        self._dimension = dimension
        self._deleted.clear()
        self._chroma.rename(_prefix(self._namespace, f"{self._model}\0{dimension}"))
        return True

    def _search_buffer(self, context: str, vector: Vector) -> list[Neighbour]:
        rows = [
            row
            for row in self._buffer.get(context, {}).values()
            if row.vector.shape == vector.shape
        ]
        if not rows:
            return []
        similarities = np.stack([row.vector for row in rows]) @ vector
        return [
            Neighbour(row.id, min(1.0, max(0.0, float(similarity))), row.text)
            for row, similarity in zip(rows, similarities, strict=True)
        ]

    async def add(self, context: str, row: Row) -> bool:
        """Add *row* to the buffer, which is searched immediately and written soon."""
        if not self.accepts(context):
            return False
        rows = self._buffer.setdefault(context, {})
        if row.id not in rows:
            if self._buffered >= BUFFER_ROWS:
                self.dropped += 1
                return True
            self._buffered += 1
        rows[row.id] = row
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.get_running_loop().create_task(self._flush_soon())
        return True

    def accepts(self, context: str) -> bool:
        """Return whether *context* has a collection or buffered rows, or may get one."""
        known = self._known
        return context in known or len(known) < self._limits.max_contexts

    @property
    def _known(self) -> set[str]:
        return self._chroma.collections.keys() | self._buffer.keys()

    async def _flush_soon(self) -> None:
        if self._buffered < FLUSH_ROWS:
            await asyncio.sleep(FLUSH_SECONDS)
        with contextlib.suppress(BackendError):
            await self._flush()

    async def _flush(self) -> None:
        async with self._writing:
            for context in list(self._buffer):
                while rows := _written_together(self._buffer[context].values()):
                    await self._write(context, rows)
                    # A row that was put again meanwhile is a new object and stays.
                    kept = self._buffer[context]
                    for row in rows:
                        if kept.get(row.id) is row:
                            del kept[row.id]
                            self._buffered -= 1
                del self._buffer[context]

    async def _write(self, context: str, rows: Sequence[Row]) -> None:
        """Write *rows*, dropping only those that Chroma rejects."""
        await self._opened(self._limits.write_timeout)
        try:
            await self._upsert(context, rows)
        except BackendError as error:
            if self._leave(context, error, rows[0].vector.size):
                await self._write(context, rows)
                return
            if not isinstance(error.__cause__, _REFUSED):
                raise
            if len(rows) > 1:
                for row in rows:
                    await self._write(context, [row])
                return
            self.dropped += 1
            limited.limited(
                "refused", "chroma: a row was rejected and dropped: %s", error.error_type
            )

    async def _upsert(self, context: str, rows: Sequence[Row]) -> None:
        await self._chroma.ask(
            context,
            "upsert",
            create=True,
            ids=[row.id for row in rows],
            embeddings=np.stack([row.vector for row in rows]),
            metadatas=[{"entry": row.text, "dropped": row.dropped} for row in rows],
            timeout=self._limits.write_timeout,
        )
        self._fitting.add(context)

    async def remove(self, context: str, ids: Sequence[str]) -> int:
        """Delete rows from the buffer and the collection."""
        async with self._writing:
            rows = self._buffer.get(context, {})
            removed = {identity for identity in ids if rows.pop(identity, None) is not None}
            self._buffered -= len(removed)
            stored = await self._stored(context, ids)
            if stored:
                await self._chroma.ask(
                    context, "delete", ids=stored, timeout=self._limits.write_timeout
                )
                self._deleted[context] = self._deleted.get(context, 0) + len(stored)
            return len(removed.union(stored))

    async def purge(self, context: str) -> None:
        """Make Chroma write its log to the index: removed rows stay readable in it until then.

        It does so after `sync_threshold` records: here deletions of rows that never existed.
        """
        async with self._writing:
            await self._chroma.ask(
                context,
                "delete",
                ids=[f"none-{number}" for number in range(SYNC_THRESHOLD)],
                timeout=self._limits.write_timeout,
            )

    async def texts(self, context: str, ids: Sequence[str]) -> dict[str, str]:
        """Return the texts of those of *ids* in the buffer or the collection."""
        found: dict[str, str] = {}
        # Otherwise a row could move from one to the other between the two reads.
        async with self._writing:
            for batch in batched(ids, _SWEEP_BATCH):
                stored = await self._get(context, batch, "metadatas")
                if stored is not None:
                    pairs = zip(stored["ids"], stored["metadatas"], strict=True)
                    found |= {identity: _text(metadata) or "" for identity, metadata in pairs}
            buffered = self._buffer.get(context, {})
            return found | {one: buffered[one].text for one in ids if one in buffered}

    async def _stored(self, context: str, ids: Sequence[str]) -> list[str]:
        found = await self._get(context, ids)
        return [] if found is None else list(found["ids"])

    async def _get(self, context: str, ids: Sequence[str], *include: str) -> Any:
        if not ids:
            return None
        await self._opened(self._limits.write_timeout)
        return await self._chroma.ask(
            context,
            "get",
            ids=list(ids),
            include=list(include),
            timeout=self._limits.write_timeout,
        )

    async def contexts(self) -> Sequence[str]:
        """Return the contexts with a collection or buffered rows."""
        await self._opened(self._limits.write_timeout)
        await self._chroma.discover()
        return sorted(self._known)

    async def count(self) -> int:
        """Return the number of rows."""
        stored = 0
        for context in list(self._chroma.collections):
            found = await self._chroma.ask(context, "count", timeout=self._limits.search_timeout)
            stored += int(found or 0)
        return stored + self._buffered


def _prefix(namespace: str, model: str) -> str:
    """Return the prefix of the names of a namespace's collections of one model."""
    identity = hashlib.blake2b(f"{namespace}\0{model}".encode(), digest_size=8).hexdigest()
    # The readable part is for people; Chroma takes no two dots in a row.
    return f"gc1-{re.sub(r'[^0-9A-Za-z_-]', '_', namespace)}-{identity}-"


def _written_together(rows: Iterable[Row]) -> list[Row]:
    """Return the first rows that fit one write: of one dimension, few, and not too large."""
    batch: list[Row] = []
    size = 0
    for row in rows:
        size += len(row.text)
        if batch and (
            len(batch) == 5 * FLUSH_ROWS
            or size > _WRITE_BYTES
            or row.vector.shape != batch[0].vector.shape
        ):
            break
        batch.append(row)
    return batch


def _text(metadata: Mapping[str, Any] | None) -> str | None:
    """Return a row's text; a row without metadata was deleted after its vector was found."""
    return None if metadata is None else str(metadata.get("entry", ""))


def _dropped(metadata: Mapping[str, Any] | None) -> float:
    """Return a row's expiry; 0 if it has none."""
    found = (metadata or {}).get("dropped")
    return float(found) if isinstance(found, (int, float)) else 0.0


def _similarity(distance: float) -> float:
    """Return the cosine similarity, 0..1, of Chroma's cosine distance (1 - cosine)."""
    return min(1.0, max(0.0, 1.0 - float(distance)))
