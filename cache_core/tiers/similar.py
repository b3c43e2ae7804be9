"""Which questions L2 would serve for another: what an invalidation has to find, or a put to fear.

A put reaches the index a little after it was made, and that of another process later still. So it
makes its question known in the keyed store first, where an invalidation finds it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cache_core import envelope
from cache_core.embedder import Embedder, Vector
from cache_core.exceptions import BackendError
from cache_core.guards import veto
from cache_core.keys import PARTITIONS, Keys
from cache_core.models import Query, Scope
from cache_core.recent import Broad
from cache_core.stores.base import KeyValueStore, RowWrite
from cache_core.stores.vectors import VectorIndex
from cache_core.tiers.private_vectors import QUANTISED, nearest, pack, private_rows
from cache_core.tuning import Tuning

_NEIGHBOURS = 20
"""Shared neighbours looked at first; more while all of them may be similar enough."""

_CHUNK = 8
"""Users whose vectors are read together."""

_ARRIVING = "arriving"
_ARRIVING_KEPT = 5_000
"""More than can wait for one index. The newest are kept, and what is renewed is new."""

_RENEWED_TOGETHER = 200
ARRIVING_SECONDS = 600.0
"""How long a shared row is taken to be on its way into the indexes, unless that is renewed."""


@dataclass(frozen=True, slots=True)
class Similar:
    """A stored question that L2 would serve for another: where it is."""

    tag: str
    context: str
    vectors_key: str | None


class SimilarQuestions:
    """Finds what L2 would serve for a message, whoever asks, and in any context.

    Args:
        store: Holds private vectors and entries.
        keys: Names of the entries.
        index: Holds shared entries.
        embedder: Makes vectors; may be waited for.
    """

    def __init__(
        self, store: KeyValueStore, keys: Keys, index: VectorIndex, embedder: Embedder
    ) -> None:
        self._store = store
        self._keys = keys
        self._index = index
        self._embedder = embedder

    async def similar(
        self,
        text: str,
        tuning: Tuning,
        *,
        user: str | None = None,
        progress: Callable[[int], None] = lambda _: None,
    ) -> list[Similar]:
        """Return every stored question whose answer L2 would serve for *text*, in any context.

        Args:
            text: A message.
            tuning: For threshold and guards.
            user: Only this user's private ones; `None` for everybody's.
            progress: Called with the number of private partitions read.

        Raises:
            BackendError: If the store, the index or the embedder failed.
        """
        found = await self.similar_shared(text, tuning) if user is None else []
        return found + await self.similar_private(text, tuning, user=user, progress=progress)

    async def similar_private(
        self,
        text: str,
        tuning: Tuning,
        *,
        user: str | None = None,
        progress: Callable[[int], None] = lambda _: None,
    ) -> list[Similar]:
        """Return the private ones of `similar`."""
        if not self._serves(text):
            return []
        vector = await self._embedder.embed(text)
        found: list[Similar] = []
        partitions = await self._store.rows(self._keys.own(PARTITIONS + self._keys.model))
        wanted = [
            (key, *owner.partition(" ")[::2])
            for key, owner in partitions.items()
            if self._keys.owns(key) and (user is None or owner.startswith(user))
        ]
        for start in range(0, len(wanted), _CHUNK):
            chunk = wanted[start : start + _CHUNK]
            hashes = await asyncio.gather(*(self._store.rows(key) for key, _, _ in chunk))
            gone = [key for (key, _, _), rows in zip(chunk, hashes, strict=True) if not rows]
            await self._store.delete_rows(self._keys.own(PARTITIONS + self._keys.model), gone)
            for (key, owner, context), rows in zip(chunk, hashes, strict=True):
                near = [
                    (tag, similarity)
                    for tag, similarity in nearest(rows, vector)
                    if similarity >= tuning.lowest_threshold
                ]
                names = [self._keys.entry("l2", tag, owner, context) for tag, _ in near]
                stored = await self._store.read(names) if names else []
                for (tag, similarity), name, value in zip(near, names, stored, strict=True):
                    if self._answers(text, similarity, value, name, owner, tuning):
                        found.append(Similar(tag, context, key))
            progress(len(chunk))
        return found

    def _answers(
        self,
        text: str,
        similarity: float,
        value: str | None,
        key: str,
        scope: str,
        tuning: Tuning,
    ) -> bool:
        """Whether the stored envelope *value* is similar enough to *text*, and no guard vetoes."""
        if value is None:
            # It may be on its way, with an intent of any threshold.
            return True
        try:
            stored = envelope.decode(value or "", key, (scope,), self._keys.sealer)
        except (envelope.CorruptError, envelope.ForeignError):
            return similarity >= tuning.semantic_threshold
        if similarity < tuning.threshold(stored.intent):
            return False
        return veto(text, stored.message or "", tuning.guards) is None

    @property
    def unable(self) -> bool:
        """Whether this process never can: its model could not be loaded."""
        return self._embedder.failed

    def _serves(self, text: str) -> bool:
        """Whether L2 serves *text* at all; raises `BackendError` while that cannot be known.

        Where the model cannot be loaded here, other processes may have it, and serve.
        """
        if self._embedder.failed:
            raise BackendError("backend_error", "ModelUnavailable")
        if not self._embedder.ready:
            raise BackendError("backend_error", "ModelLoading")
        return self._embedder.fits(text) and self._embedder.knows(text)

    async def similar_shared(
        self, text: str, tuning: Tuning, *, before: float | None = None
    ) -> list[Similar]:
        """Return the shared ones of `similar`, and what is on its way into an index anywhere.

        Args:
            text: A message.
            tuning: For threshold and guards.
            before: Only what was put before this time of the store, and is in the index.
        """
        if not self._serves(text):
            return []
        vector = await self._embedder.embed(text)
        found: list[Similar] = []
        arriving = await self._arriving(vector, tuning) if before is None else set()
        for context in await self._index.contexts():
            found += await self._similar_in(text, vector, context, tuning, before)
            # What is there already was judged by its text.
            arriving -= set(await self._index.present(context, sorted(arriving)))
        return found + [Similar(tag, "", None) for tag in sorted(arriving)]

    async def _arriving(self, vector: Vector, tuning: Tuning) -> set[str]:
        """Return the tags of the questions like *vector* that were put a moment ago."""
        oldest = self._store.now() - ARRIVING_SECONDS
        rows: dict[str, str] = {}
        for tag, value in (await self._store.rows(self._arriving_key)).items():
            at, _, packed = value.partition(" ")
            with contextlib.suppress(ValueError):
                if float(at) >= oldest:
                    rows[tag] = packed
        least = tuning.lowest_threshold - QUANTISED
        return {tag for tag, similarity in nearest(rows, vector) if similarity >= least}

    @property
    def _arriving_key(self) -> str:
        return self._keys.own(_ARRIVING + self._keys.model)

    async def arrival(self, query: Query, scope: Scope) -> list[RowWrite]:
        """Return the rows by which `similar` finds *query* from now on; none if L2 won't store it.

        Raises:
            BackendError: If the embedder failed.
        """
        ready = self._embedder.ready and not query.history
        if not ready or not (self._embedder.fits(query.text) and self._embedder.knows(query.text)):
            return []
        if scope == "shared" and not self._index.accepts(query.context):
            return []
        packed = pack(await self._embedder.embed(query.text))
        if scope == "user":
            return private_rows(self._keys, query, packed)
        return [self._arriving_rows({query.tag: self._arriving_row(packed)})]

    async def renew_arriving(self, tags: Sequence[str]) -> None:
        """Have questions that still wait for their index found for as long again.

        Raises:
            BackendError: If the store failed.
        """
        for start in range(0, len(tags), _RENEWED_TOGETHER):
            chunk = tags[start : start + _RENEWED_TOGETHER]
            found = await self._store.some_rows(self._arriving_key, chunk)
            rows = {
                tag: self._arriving_row(value.partition(" ")[2])
                for tag, value in zip(chunk, found, strict=True)
                if value
            }
            if rows:
                await self._store.put_rows([self._arriving_rows(rows)])

    async def not_arriving(self, tags: Sequence[str]) -> set[str]:
        """Return those of *tags* that are not found as on their way into the indexes any more.

        Raises:
            BackendError: If the store failed.
        """
        found = await self._store.some_rows(self._arriving_key, tags)
        return {tag for tag, value in zip(tags, found, strict=True) if value is None}

    def _arriving_row(self, packed: str) -> str:
        return f"{self._store.now():.0f} {packed}"

    def _arriving_rows(self, rows: Mapping[str, str]) -> RowWrite:
        return RowWrite(self._arriving_key, rows, ARRIVING_SECONDS, _ARRIVING_KEPT)

    async def forget_arriving(self, tags: Sequence[str]) -> None:
        """Remove the vectors of questions that are, or were, on their way into the indexes."""
        await self._store.delete_rows(self._arriving_key, tags)

    async def overtaken(
        self,
        query: Query,
        intent: str | None,
        scope: Scope,
        invalidations: Sequence[Broad],
        tuning: Tuning,
    ) -> bool:
        """Whether one of *invalidations* is of a message for which L2 would serve *query*'s answer.

        Args:
            query: The question of a put.
            intent: Of its answer.
            scope: In which L2 stores it.
            invalidations: That came since its answer began to be computed.
            tuning: For the guards and the intents' thresholds.

        Raises:
            BackendError: If that cannot be known: the embedder failed, or is loading.
        """
        concerned = [
            item
            for item in invalidations
            if item.text and (not item.user or (scope, item.user) == ("user", query.user))
        ]
        if not concerned or not self._serves(query.text):
            return False
        stored = await self._embedder.embed(query.text)
        for item in concerned:
            if not self._serves(item.text):
                continue
            at = tuning.model_copy(update={"semantic_threshold": item.threshold})
            invalidated = await self._embedder.embed(item.text)
            near = float(invalidated @ stored) + QUANTISED >= at.threshold(intent)
            if near and veto(item.text, query.text, tuning.guards) is None:
                return True
        return False

    async def _similar_in(
        self, text: str, vector: Vector, context: str, tuning: Tuning, before: float | None
    ) -> list[Similar]:
        count = _NEIGHBOURS
        while True:
            near = await self._index.search(context, vector, count)
            if len(near) < count or near[-1].similarity < tuning.lowest_threshold:
                break
            count *= 4
        shared = self._keys.shared
        return [
            Similar(row.id, context, None)
            for row in near
            if before is None or envelope.created(row.text or "") < before
            if self._answers(
                text,
                row.similarity,
                row.text,
                self._keys.entry("l2", row.id, shared, context),
                shared,
                tuning,
            )
        ]

    async def forget(self, found: Sequence[Similar]) -> None:
        """Remove what `similar` returned."""
        by_context: dict[str, list[str]] = {}
        for item in found:
            if item.vectors_key is None:
                by_context.setdefault(item.context, []).append(item.tag)
            else:
                await self._store.delete_rows(item.vectors_key, [item.tag])
        for context, tags in by_context.items():
            await self._index.remove(context, tags)

    async def forget_messages(self, tags: Sequence[str]) -> int:
        """Remove the shared answers to messages, in every context; return how many there were."""
        removed = 0
        for context in await self._index.contexts():
            removed += await self._index.remove(context, tags)
        return removed

    async def count_messages(self, tags: Sequence[str]) -> int:
        """Return how many shared answers to messages there are, in all contexts."""
        found = 0
        for context in await self._index.contexts():
            found += len(await self._index.present(context, tags))
        return found
