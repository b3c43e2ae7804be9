"""Replication of embedded vector indexes, through a log in the keyed store.

Without a Chroma server every process has its own index of shared answers: the agent's workers, the
command line. Each appends its shared answers and invalidations to one log, and applies those of the
others to its own index about every second.
"""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from cache_core.backends.base import KeyValueStore, Row, RowWrite, Vector
from cache_core.backends.log import Log
from cache_core.model import envelope
from cache_core.model.exceptions import BackendError
from cache_core.model.keys import Keys
from cache_core.model.logs import RateLimited
from cache_core.model.stored import Format, Moment, Plain, Share
from cache_core.tiers.denylist import is_place
from cache_core.tiers.semantic.vectors import Vectors

log = logging.getLogger("glasscache")
limited = RateLimited(log)

ROWS_KEPT = 20_000
"""Records kept in the log: a new index is built from so many shared answers."""

_BATCH = 500
_ANY_TEXT = "dimension"
_LIFE = 61 * 86_400.0


@dataclass(frozen=True, slots=True)
class FeedRecord:
    """Change that a process made to its index.

    Attributes:
        kind: `put`, `invalidate`, or `gone`: entries of these messages were erased; newer entries
            in their place stay.
        by: The replica that made it.
        tags: The messages concerned; one for a put.
        context: A put's context.
        vector: A put's vector, as text.
        dropped: The store's time after which a put's row may be swept.
        text: The invalidated message; empty if only *tags* are invalidated.
        threshold: Least similarity to *text* of messages that are invalidated too.
        at: The store's time of an invalidation; 0 in records of older versions.
    """

    kind: Literal["put", "invalidate", "gone"]
    by: Plain
    # `Plain`, because a name that no store accepts would fail forever and block all that follows.
    tags: Sequence[Plain]
    context: Plain = ""
    vector: Plain = ""
    dropped: Moment = 0.0
    text: str = ""
    threshold: Share = 0.0
    at: Moment = 0.0


FORMAT = Format(FeedRecord)


@dataclass(slots=True)
class IndexFeed:
    """Replication log of a namespace's indexes, in one process.

    Args:
        store: Store of the log.
        keys: Name and encryption of the log.
        vectors: The model, and this process's index.
        place: Directory of that index; empty for one in memory; `None` for a server's, which all
            processes share.
        replica: Name of this process in the log.
    """

    store: KeyValueStore
    keys: Keys
    vectors: Vectors
    place: str | None
    replica: str
    _log: Log[FeedRecord] = field(init=False)
    _position: str | None = field(default=None)
    _ahead: str = field(default="")
    _dimension: int = field(default=0)
    _logged: bool = field(default=False)

    def __post_init__(self) -> None:
        name, sealer = self.keys.own(f"feed{self.keys.model}"), self.keys.sealer
        self._log = Log(self.store, name, FORMAT, ROWS_KEPT, sealed=("text",), sealer=sealer)

    @property
    def own_index(self) -> bool:
        """True if the index is this process's alone."""
        return self.place is not None

    async def put(self, context: str, row: Row) -> None:
        """Append a shared answer; its envelope must be in the store already."""
        if self.own_index:
            await self._log.append(
                [FeedRecord("put", self.replica, [row.id], context, pack(row.vector), row.dropped)]
            )

    async def invalidated(
        self, tags: Sequence[str], text: str = "", threshold: float = 0.0
    ) -> None:
        """Append an invalidation."""
        now = self.store.now()
        await self._log.append(
            [
                FeedRecord(
                    "invalidate", self.replica, list(tags), text=text, threshold=threshold, at=now
                )
            ]
        )

    async def forget(self, tags: Collection[str]) -> None:
        """Remove the records of shared answers to messages whose entry no longer exists.

        Raises:
            BackendError: If the store failed.
        """
        wanted = set(tags)
        async for page in self._log.pages():
            shared = [
                (at, self.keys.similar_entry(record.tags[0], self.keys.shared, record.context))
                for at, record in page
                if record.kind == "put" and not wanted.isdisjoint(record.tags)
            ]
            values = await self.store.read([name for _, name in shared]) if shared else ()
            gone = [at for (at, _), value in zip(shared, values, strict=True) if value is None]
            await self._log.remove(gone)

    async def forget_texts(self, messages: Collection[str]) -> None:
        """Reduce the invalidations of *messages* to their tags.

        A process that has not read one yet only removes these tags, and serves no similar message
        either: their tokens were replaced.

        Raises:
            BackendError: If the store failed.
        """
        wanted = set(messages)

        def change(record: FeedRecord) -> FeedRecord:
            if not record.text or wanted.isdisjoint(record.tags):
                return record
            return FeedRecord("gone", self.replica, record.tags)

        await self._log.rewrite(change)

    async def gone(self, tags: Sequence[str]) -> None:
        """Append that entries of some messages were erased."""
        if tags:
            await self._log.append([FeedRecord("gone", self.replica, list(tags))])

    async def apply(self, invalidate: Callable[[FeedRecord], Awaitable[None]]) -> None:
        """Apply the changes of other processes since the last call.

        Changes that need the model wait for it: nothing is served from this index meanwhile. The
        tags of invalidations are removed anyway.

        Args:
            invalidate: Carries out an invalidation.

        Raises:
            BackendError: If the store or the index failed; the rest is applied next time.
        """
        if self.place is None:
            return
        if self._position is None:
            kept = await self.store.rows(self.keys.own("applied"))
            found = kept.get(self.place, "")
            # An invalid position would match nothing and stall replication for good.
            self._position = self._ahead = found if is_place(found) else ""
        if not self.vectors.embedder.ready:
            await self._go_ahead(invalidate)
            if self.vectors.embedder.failed and not self._logged:
                self._logged = True
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

    async def _go_ahead(self, invalidate: Callable[[FeedRecord], Awaitable[None]]) -> None:
        """Apply later invalidations ahead of time, by their tags alone."""
        while found := await self._log.since(self._ahead, _BATCH):
            for position, record in found:
                if record is not None and record.by != self.replica and record.kind != "put":
                    await invalidate(replace(record, text=""))
                self._ahead = position

    async def _apply_all(self, invalidate: Callable[[FeedRecord], Awaitable[None]]) -> None:
        applied = self.keys.own("applied")
        place, self._position = self.place or "", self._position or ""
        while found := await self._log.since(self._position, _BATCH):
            for position, record in found:
                if record is not None and record.by != self.replica:
                    # A record that cannot be decrypted is applied by its tags alone.
                    await self._apply(self._log.opened(record), invalidate)
                self._position = position
            await self.vectors.index.tend(self.store.now())
            if place:
                await self.store.put_rows([RowWrite(applied, {place: self._position}, _LIFE)])
            if len(found) < _BATCH:
                break
        self._ahead = self._position

    async def _apply(
        self, record: FeedRecord, invalidate: Callable[[FeedRecord], Awaitable[None]]
    ) -> None:
        if record.kind != "put":
            await invalidate(record)
            return
        if not record.tags:
            return
        # The first row of an index sets its dimension, so it must be one of this model.
        self._dimension = (
            self._dimension
            or (await self.vectors.embed(_ANY_TEXT, hurry=True, recorded=False)).size
        )
        vector = unpack(record.vector, self._dimension)
        if vector is None:
            limited.limited(
                "vector", "l2: an answer of another process has no vector of this model"
            )
            return
        tag = record.tags[0]
        key = self.keys.similar_entry(tag, self.keys.shared, record.context)
        text, token = await self.store.read([key, self.keys.generation(tag)])
        # While the store is unavailable rows are served unchecked: an outdated one must not enter.
        if text is not None and self._is_current(text, key, token):
            await self.vectors.index.add(record.context, Row(tag, vector, text, record.dropped))

    def _is_current(self, text: str, key: str, token: str | None) -> bool:
        try:
            entry = envelope.decode(text, key, (self.keys.shared,), self.keys.sealer)
        except envelope.LockedError:
            return True
        except (envelope.CorruptError, envelope.ForeignError):
            return False
        return entry.generation == token


def pack(vector: Vector) -> str:
    """Return *vector* as text, in half precision: a cosine changes by 0.00004 at most."""
    return base64.b64encode(vector.astype("float16").tobytes()).decode("ascii")


def unpack(text: str, dimension: int) -> Vector | None:
    """Return the unit vector of *dimension* values in *text*; `None` if it is invalid."""
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
