"""The index of shared answers on Chroma: embedded in this process, or a `chroma run` server.

This is the one file that knows Chroma's distances. Searches are never filtered: `where` makes them
linear in the collection's size (75 ms at 100,000 rows against 2 ms).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from cache_core.breaker import Breaker
from cache_core.deadline import Deadline
from cache_core.embedder import Vector
from cache_core.exceptions import BackendError, ConfigurationError
from cache_core.stores.vectors import Neighbour, Row

log = logging.getLogger("glasscache")

FLUSH_ROWS = 20
"""Rows written at once: 20 cost a tenth of 20 single ones."""

FLUSH_SECONDS = 0.2
BUFFER_ROWS = 2_000
"""Rows that may wait while Chroma is away; more are dropped and counted."""

_SWEEP_BATCH = 500
_REBUILD_FROM = 1_000
_PAGE = 1_000
_REBUILT = "-rebuilt"
_SWEEP_SECONDS = 30.0
_OPEN_SECONDS = 10.0
_NOT_YET = "Nothing found on disk"
_NOT_YET_SECONDS = 0.02

# Without a low sync_threshold a put gets slower with every row that is not yet in the index file.
_CONFIGURATION = {"hnsw": {"space": "cosine", "sync_threshold": 200, "batch_size": 100}}


class ChromaIndex:
    """Shared answers in Chroma, one collection per context.

    Args:
        namespace, model: Entries of other namespaces or models are in other collections.
        default_context: The context whose collection `collection` is.
        directory: Of the embedded Chroma; a slot in it is taken for this process alone.
        url: Of a Chroma server, instead of *directory*.
        search_timeout, write_timeout: Seconds.
        max_contexts: Collections at most.
        breaker_failures, breaker_probe: See `Breaker`.
    """

    def __init__(
        self,
        *,
        namespace: str,
        model: str,
        default_context: str,
        directory: Path | None = None,
        url: str | None = None,
        search_timeout: float = 0.15,
        write_timeout: float = 2.0,
        max_contexts: int = 64,
        breaker_failures: int = 5,
        breaker_probe: float = 0.25,
    ) -> None:
        identity = hashlib.blake2b(f"{namespace}\0{model}".encode(), digest_size=8).hexdigest()
        # The readable part is for people; Chroma takes no two dots in a row.
        self._prefix = f"gc1-{namespace.replace('.', '_')}-{identity}-"
        self._default_context = default_context
        self._directory = directory
        self._url = url
        self._search_timeout = search_timeout
        self._write_timeout = write_timeout
        self._max_contexts = max_contexts
        self._breaker = Breaker("chroma", failures=breaker_failures, probe_seconds=breaker_probe)
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="glasscache-chroma")
        self._client: Any = None
        self._slot: Any = None
        self._place: str | None = None
        self._collections: dict[str, Any] = {}
        self._buffer: dict[str, dict[str, Row]] = {}
        self._buffered = 0
        self._writing = asyncio.Lock()
        self._flusher: asyncio.Task[None] | None = None
        self._next_sweep = 0.0
        self._deleted: dict[str, int] = {}
        self.dropped = 0
        """Rows lost because Chroma was away too long."""

    @property
    def breaker(self) -> Breaker:
        """The breaker of this Chroma."""
        return self._breaker

    @property
    def place(self) -> str | None:
        """The directory that this process alone uses; `None` for a server's index."""
        return self._place

    @property
    def collection(self) -> Any:
        """The collection of the default context; `None` while Chroma cannot be reached."""
        return self._collections.get(self._default_context)

    async def open(self) -> None:
        """Connect, and find the collections that exist."""
        with contextlib.suppress(BackendError):
            await self._connect()

    async def _connect(self) -> None:
        with self._breaker:
            async with Deadline(_OPEN_SECONDS):
                if self._url:
                    client = await _connect_server(self._url)
                else:
                    client = await self._in_thread(self._open_embedded)
                self._client = client
                found = await self._run(client.list_collections)
                for collection in await self._finish_rebuilds(client, found):
                    if collection.name.startswith(self._prefix):
                        self._collections[collection.name.removeprefix(self._prefix)] = collection
                await self._collection(self._default_context, create=True)

    async def _finish_rebuilds(self, client: Any, found: Sequence[Any]) -> list[Any]:
        """Return the collections, after ending the rebuilds that a crash interrupted."""
        names = {collection.name for collection in found}
        sound: list[Any] = []
        for collection in found:
            original = collection.name.removesuffix(_REBUILT)
            if original == collection.name:
                sound.append(collection)
            elif original in names:
                await self._run(client.delete_collection, collection.name)
            else:
                await self._run(collection.modify, name=original)
                sound.append(collection)
        return sound

    def _open_embedded(self) -> Any:
        from cache_core.stores.chroma_directory import open_directory

        if self._directory is None:
            msg = "an embedded index needs a directory"
            raise ConfigurationError(msg)
        client, self._slot, self._place = open_directory(self._directory)
        return client

    async def close(self) -> None:
        """Write out the buffer and close."""
        if self._flusher is not None:
            self._flusher.cancel()
            await asyncio.gather(self._flusher, return_exceptions=True)
        with contextlib.suppress(BackendError):
            await self._flush()
        client, self._client = self._client, None
        if client is not None and self._url is None:
            with contextlib.suppress(Exception):
                await self._in_thread(client.close)
        elif client is not None:
            with contextlib.suppress(Exception):
                await client._server._cleanup()  # noqa: SLF001 - the async client has no close
        if self._slot is not None:
            self._slot.release()
            self._slot = None
        self._threads.shutdown(wait=False)

    async def tend(self, now: float) -> None:
        """Reconnect, write out, and now and then sweep."""
        if self._client is None:
            await self._connect()
        await self._flush()
        if now >= self._next_sweep or now < self._next_sweep - _SWEEP_SECONDS:
            self._next_sweep = now + _SWEEP_SECONDS
            await self.sweep(now)
            await self._rebuild()
        elif self._breaker.state != "closed":
            await self._call(self._client.heartbeat, timeout=self._write_timeout)

    async def sweep(self, now: float) -> int:
        """Delete the rows dropped by *now*, in batches; return how many."""
        swept = 0
        for context, collection in list(self._collections.items()):
            while True:
                found = await self._call(
                    collection.get,
                    where={"dropped": {"$lt": now}},
                    limit=_SWEEP_BATCH,
                    include=[],
                    timeout=self._write_timeout,
                )
                if not found["ids"]:
                    break
                await self.remove(context, found["ids"])
                swept += len(found["ids"])
        return swept

    async def _rebuild(self) -> None:
        """Copy the embedded collections in which the deleted outnumber the live.

        Chroma neither gives a deleted row's space back nor forgets it in the graph. Rows put
        meanwhile wait in the buffer, where they are found.
        """
        if self._url is not None:
            return
        for context, deleted in list(self._deleted.items()):
            old = self._collections[context]
            live = int(await self._call(old.count, timeout=self._search_timeout))
            if deleted <= max(live, _REBUILD_FROM):
                continue
            async with self._writing:
                self._collections[context] = await self._call(
                    rebuild, client=self._client, old=old, timeout=_OPEN_SECONDS
                )
            self._deleted[context] = 0
            log.info("chroma: rebuilt an index of %d rows after %d deletions", live, deleted)

    async def search(self, context: str, vector: Vector, count: int) -> list[Neighbour]:
        """Return the nearest rows of *context*, those still in the buffer included."""
        buffered = self._search_buffer(context, vector)
        found = await self._search_collection(context, vector, count)
        unique = {neighbour.id: neighbour for neighbour in found}
        unique.update((neighbour.id, neighbour) for neighbour in buffered)
        return sorted(unique.values(), key=lambda near: -near.similarity)[:count]

    async def _search_collection(self, context: str, vector: Vector, count: int) -> list[Neighbour]:
        if self._client is None:
            with self._breaker:
                raise ConnectionError("Chroma is not connected")
        collection = await self._collection(context, create=False)
        if collection is None:
            return []
        search = partial(
            self._call,
            collection.query,
            query_embeddings=vector[np.newaxis, :],
            n_results=count,
            include=["metadatas", "distances"],
            timeout=self._search_timeout,
        )
        try:
            found = await search()
        except BackendError as error:
            # A server says so for a moment while a collection's very first rows are written.
            if _NOT_YET not in str(error):
                raise
            await asyncio.sleep(_NOT_YET_SECONDS)
            found = await search()
        return [
            Neighbour(identity, _similarity(distance), str((metadata or {}).get("entry", "")))
            for identity, distance, metadata in zip(
                found["ids"][0], found["distances"][0], found["metadatas"][0], strict=True
            )
        ]

    def _search_buffer(self, context: str, vector: Vector) -> list[Neighbour]:
        rows = list(self._buffer.get(context, {}).values())
        if not rows:
            return []
        similarities = np.stack([row.vector for row in rows]) @ vector
        return [
            Neighbour(row.id, min(1.0, max(0.0, float(similarity))), row.text)
            for row, similarity in zip(rows, similarities, strict=True)
        ]

    async def add(self, context: str, row: Row) -> bool:
        """Put *row* into the buffer, which is searched, and written out soon."""
        known = self._collections.keys() | self._buffer.keys()
        if context not in known and len(known) >= self._max_contexts:
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

    async def _flush_soon(self) -> None:
        if self._buffered < FLUSH_ROWS:
            await asyncio.sleep(FLUSH_SECONDS)
        with contextlib.suppress(BackendError):
            await self._flush()

    async def _flush(self) -> None:
        async with self._writing:
            for context in list(self._buffer):
                while rows := list(self._buffer[context].values())[: 5 * FLUSH_ROWS]:
                    await self._write(context, rows)
                    # A row that was put again meanwhile is a new object and stays.
                    kept = self._buffer[context]
                    for row in rows:
                        if kept.get(row.id) is row:
                            del kept[row.id]
                            self._buffered -= 1
                del self._buffer[context]

    async def _write(self, context: str, rows: Sequence[Row]) -> None:
        collection = await self._collection(context, create=True)
        await self._call(
            collection.upsert,
            ids=[row.id for row in rows],
            embeddings=np.stack([row.vector for row in rows]),
            metadatas=[{"entry": row.text, "dropped": row.dropped} for row in rows],
            timeout=self._write_timeout,
        )

    async def remove(self, context: str, ids: Sequence[str]) -> int:
        """Delete rows from the buffer and the collection."""
        async with self._writing:
            rows = self._buffer.get(context, {})
            removed = {identity for identity in ids if rows.pop(identity, None) is not None}
            self._buffered -= len(removed)
            stored = await self._stored(context, ids)
            if stored:
                collection = self._collections[context]
                await self._call(collection.delete, ids=stored, timeout=self._write_timeout)
                self._deleted[context] = self._deleted.get(context, 0) + len(stored)
            return len(removed.union(stored))

    async def present(self, context: str, ids: Sequence[str]) -> set[str]:
        """Return those of *ids* that are in the buffer or in the collection."""
        buffered = self._buffer.get(context, {}).keys() & set(ids)
        return buffered.union(await self._stored(context, ids))

    async def _stored(self, context: str, ids: Sequence[str]) -> list[str]:
        collection = await self._collection(context, create=False)
        if collection is None or not ids:
            return []
        found = await self._call(
            collection.get, ids=list(ids), include=[], timeout=self._write_timeout
        )
        return list(found["ids"])

    async def contexts(self) -> Sequence[str]:
        """Return the contexts with a collection, or with rows that wait for one."""
        return sorted(self._collections.keys() | self._buffer.keys())

    async def count(self) -> int:
        """Return the number of rows."""
        stored = 0
        for collection in list(self._collections.values()):
            stored += int(await self._call(collection.count, timeout=self._search_timeout))
        return stored + self._buffered

    async def _collection(self, context: str, *, create: bool) -> Any:
        known = self._collections.get(context)
        if known is not None:
            return known
        if self._client is None:
            raise BackendError("backend_error", "NotConnected")
        name = self._prefix + context
        if create:
            known = await self._run(
                self._client.get_or_create_collection,
                name,
                configuration=_CONFIGURATION,
                embedding_function=None,
            )
        elif self._url:
            known = await self._existing(name)
        if known is not None:
            self._collections[context] = known
        return known

    async def _existing(self, name: str) -> Any:
        """Return the collection that another replica may have made on the server."""
        from chromadb.errors import NotFoundError

        with self._breaker:
            async with Deadline(self._search_timeout):
                try:
                    return await self._client.get_collection(name, embedding_function=None)
                except NotFoundError:
                    return None

    async def _call(self, work: Callable[..., Any], *, timeout: float, **values: Any) -> Any:
        with self._breaker:
            async with Deadline(timeout):
                return await self._run(work, **values)

    async def _run(self, work: Callable[..., Any], *args: Any, **values: Any) -> Any:
        if self._url:
            return await work(*args, **values)
        return await self._in_thread(lambda: work(*args, **values))

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def rebuild(client: Any, old: Any) -> Any:
    """Return a copy of a collection under the same name, without what was deleted in it."""
    name = old.name
    fresh = client.get_or_create_collection(
        name + _REBUILT, configuration=_CONFIGURATION, embedding_function=None
    )
    offset = 0
    while True:
        page = old.get(limit=_PAGE, offset=offset, include=["embeddings", "metadatas"])
        if not page["ids"]:
            break
        fresh.upsert(ids=page["ids"], embeddings=page["embeddings"], metadatas=page["metadatas"])
        offset += len(page["ids"])
    client.delete_collection(name)
    fresh.modify(name=name)
    return fresh


async def _connect_server(url: str) -> Any:
    import chromadb
    from chromadb.config import Settings

    parts = urlsplit(url)
    return await chromadb.AsyncHttpClient(
        host=parts.hostname or "localhost",
        port=parts.port or (443 if parts.scheme == "https" else 8000),
        ssl=parts.scheme == "https",
        settings=Settings(anonymized_telemetry=False),
    )


def _similarity(distance: float) -> float:
    """Return the cosine similarity, 0..1, of Chroma's cosine distance (1 - cosine)."""
    return min(1.0, max(0.0, 1.0 - float(distance)))
