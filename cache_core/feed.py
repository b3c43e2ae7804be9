"""What processes with a semantic index of their own tell each other, through the keyed store.

Without a Chroma server every process has its own index of shared answers: the agent's workers, the
command line. Each puts its shared answers and invalidations into one log, and does to its own
index, about every second, what the others did to theirs.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from cache_core import envelope
from cache_core.embedder import Embedder, Vector
from cache_core.exceptions import BackendError
from cache_core.keys import Keys
from cache_core.logs import RateLimited
from cache_core.sealing import SealError
from cache_core.stored import are_numbers, are_plain, from_store
from cache_core.stores.base import KeyValueStore, RowWrite
from cache_core.stores.vectors import Row, VectorIndex
from cache_core.vetoes import is_place

log = logging.getLogger("glasscache")
limited = RateLimited(log)

KEPT = 20_000
"""Records that the log keeps: so many shared answers a new index is built from."""

_BATCH = 500
_ANY_TEXT = "dimension"
_LIFE = 61 * 86_400.0


@dataclass(frozen=True, slots=True)
class Record:
    """One thing that a process did to its index.

    Attributes:
        kind: `put` or `invalidate`.
        by: The replica that did it.
        tags: The messages concerned; one for a put.
        context: Of a put.
        vector: Of a put, as text.
        dropped: When a put's row may be swept.
        text: The message that was invalidated; empty when only tags are.
        threshold: Of the invalidation: what is at least so similar goes too.
        at: The store's time of an invalidation; 0 in records of older versions.
    """

    kind: Literal["put", "invalidate"]
    by: str
    tags: Sequence[str]
    context: str = ""
    vector: str = ""
    dropped: float = 0.0
    text: str = ""
    threshold: float = 0.0
    at: float = 0.0


@dataclass(slots=True)
class IndexFeed:
    """The log of a namespace's indexes, seen from one process.

    Args:
        store: Holds the log.
        keys: Names it.
        index: This process's own.
        place: Where that index is kept; `None` for a server's, which everybody sees anyway.
        replica: Name of this process in the log.
        model: Makes the vectors of this index.
    """

    store: KeyValueStore
    keys: Keys
    index: VectorIndex
    place: str | None
    replica: str
    model: Embedder
    _position: str | None = field(default=None)
    _ahead: str = field(default="")
    _dimension: int = field(default=0)
    _told: bool = field(default=False)

    @property
    def own_index(self) -> bool:
        """Whether others cannot see this process's index."""
        return self.place is not None

    async def put(self, context: str, row: Row) -> None:
        """Tell the others of a shared answer; its envelope must be in the store already."""
        if self.own_index:
            await self._append(
                Record("put", self.replica, [row.id], context, pack(row.vector), row.dropped)
            )

    async def invalidated(self, tags: Sequence[str], text: str, threshold: float) -> None:
        """Tell the others what was invalidated."""
        now = self.store.now()
        await self._append(
            Record("invalidate", self.replica, list(tags), text=text, threshold=threshold, at=now)
        )

    async def _append(self, record: Record) -> None:
        values = {name: getattr(record, name) for name in Record.__slots__}
        if self.keys.sealer is not None and record.text:
            values["text"] = self.keys.sealer.seal(record.text, self._log)
        await self.store.append(self._log, [json.dumps(values)], keep=KEPT)

    async def forget(self, tags: Collection[str]) -> int:
        """Remove the records of shared answers to messages, with their vectors."""
        wanted, position, removed = set(tags), "", 0
        while found := await self.store.after(self._log, position, _BATCH):
            gone = [
                at
                for at, text in found
                if (record := _parse(text)) is not None
                and record.kind == "put"
                and not wanted.isdisjoint(record.tags)
            ]
            await self.store.remove(self._log, gone)
            removed += len(gone)
            position = found[-1][0]
        return removed

    @property
    def _log(self) -> str:
        return self.keys.own(f"feed{self.keys.model}")

    async def apply(self, invalidate: Callable[[Record], Awaitable[None]]) -> None:
        """Do to the own index what others did since the last time.

        What needs the model waits for it: nothing is served from this index meanwhile. What was
        invalidated is removed all the same, as far as its tags tell.

        Args:
            invalidate: Carries out an invalidation.

        Raises:
            BackendError: If the store or the index failed; what is left is applied next time.
        """
        if self.place is None:
            return
        if self._position is None:
            kept = await self.store.rows(self.keys.own("applied"))
            found = kept.get(self.place, "")
            # What is no place in a log is asked for in vain for ever.
            self._position = self._ahead = found if is_place(found) else ""
        if not self.model.ready:
            await self._go_ahead(invalidate)
            if self.model.failed and not self._told:
                self._told = True
                log.error(
                    "l2: the model cannot be loaded, so this process serves nothing by similarity; "
                    "what others share waits in the store for one that can load it"
                )
            return
        try:
            await self._apply_all(invalidate)
        except BackendError:
            await self._go_ahead(invalidate)
            raise

    async def _go_ahead(self, invalidate: Callable[[Record], Awaitable[None]]) -> None:
        """Remove what was invalidated, by its tags alone, beyond what was applied so far."""
        while found := await self.store.after(self._log, self._ahead, _BATCH):
            for position, text in found:
                record = _parse(text)
                if record is not None and record.by != self.replica and record.kind == "invalidate":
                    await invalidate(replace(record, text=""))
                self._ahead = position

    async def _apply_all(self, invalidate: Callable[[Record], Awaitable[None]]) -> None:
        applied = self.keys.own("applied")
        place, self._position = self.place or "", self._position or ""
        while found := await self.store.after(self._log, self._position, _BATCH):
            for position, text in found:
                record = _parse(text)
                if record is not None and record.by != self.replica:
                    record = self._opened(record)
                    await self._apply(record, invalidate)
                self._position = position
            await self.index.tend(self.store.now())
            await self.store.put_rows([RowWrite(applied, {place: self._position}, _LIFE)])
            if len(found) < _BATCH:
                break
        self._ahead = self._position

    def _opened(self, record: Record) -> Record:
        """Return a record with its text, or without where it cannot be read: by its tags alone."""
        if self.keys.sealer is None or not record.text:
            return record
        try:
            return replace(record, text=self.keys.sealer.open(record.text, self._log))
        except SealError:
            return replace(record, text="")

    async def _apply(self, record: Record, invalidate: Callable[[Record], Awaitable[None]]) -> None:
        if record.kind == "invalidate":
            await invalidate(record)
            return
        if not record.tags:
            return
        # Whatever comes first into an index decides on its dimension: it must not be another's.
        self._dimension = self._dimension or (await self.model.embed(_ANY_TEXT)).size
        vector = unpack(record.vector, self._dimension)
        if vector is None:
            limited.limited("vector", "l2: what another process shared has no vector of this model")
            return
        tag = record.tags[0]
        key = self.keys.entry("l2", tag, self.keys.shared, record.context)
        text, token = await self.store.read([key, self.keys.generation(tag)])
        # While the store is away a row is served as it is: none may come in that is outdated.
        if text is not None and self._is_current(text, key, token):
            await self.index.add(record.context, Row(tag, vector, text, record.dropped))

    def _is_current(self, text: str, key: str, token: str | None) -> bool:
        try:
            entry = envelope.decode(text, key, (self.keys.shared,), self.keys.sealer)
        except envelope.LockedError:
            return True
        except (envelope.CorruptError, envelope.ForeignError):
            return False
        return entry.generation == token


def pack(vector: Vector) -> str:
    """Return *vector* as text: half precision, which changes a cosine by 0.00004 at most."""
    return base64.b64encode(vector.astype("float16").tobytes()).decode("ascii")


def unpack(text: str, dimension: int) -> Vector | None:
    """Return the unit vector of *dimension* values in *text*; `None` for what is none."""
    import numpy as np

    try:
        values = np.frombuffer(base64.b64decode(text, validate=True), dtype=np.float16)
    except (binascii.Error, ValueError):
        return None
    vector = values.astype(np.float32)
    length = float(np.linalg.norm(vector))
    if vector.size != dimension or not 0 < length < float("inf"):
        return None
    return vector / length


def _parse(text: str) -> Record | None:
    try:
        values: Any = from_store(text)
        record = Record(**values)
    except (TypeError, ValueError):
        return None
    sound = (
        record.kind in ("put", "invalidate")
        and isinstance(record.tags, list)
        # A name that no store can be asked for would fail for ever, and hold up all that follows.
        and are_plain([record.by, record.context, record.vector, *record.tags])
        and isinstance(record.text, str)
        and are_numbers([record.dropped, record.threshold, record.at])
        and 0 <= record.threshold <= 1
    )
    return record if sound else None
