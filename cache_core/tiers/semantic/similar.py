"""Finds stored questions that L2 treats as the same as a given one; for invalidation and put.

A put reaches the index a little later, and another process's index later still. So it first makes
its question known in the keyed store, where an invalidation finds it immediately.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cache_core.backends.base import Keyed, RowWrite, Vector
from cache_core.config.tuning import GuardName, Tuning
from cache_core.model import envelope
from cache_core.model.batches import batched
from cache_core.model.exceptions import BackendError, InputTooLongError
from cache_core.model.keys import PARTITIONS, Keys
from cache_core.model.values import Query, Scope
from cache_core.tiers.guards import veto
from cache_core.tiers.guards.language import readable
from cache_core.tiers.journal import Broad
from cache_core.tiers.semantic.private_vectors import QUANTISED, nearest, pack, private_rows
from cache_core.tiers.semantic.vectors import Vectors

_NEIGHBOURS = 20
"""Shared neighbours judged first; more while all of them may be similar enough."""

_CHUNK = 8
"""Users whose vectors are read together."""

_ARRIVING = "arriving"
_ARRIVING_KEPT = 5_000
"""Newest arriving questions kept, more than one index can buffer; renewed ones count as new."""

_RENEWED_TOGETHER = 200
ARRIVING_SECONDS = 600.0
"""Seconds that a shared row counts as arriving in the indexes, unless renewed."""


_SIGNED = "."
"""Separator of an arriving question's vector and its user; `nearest` ignores what follows."""

_STRICT = frozenset(("letters", "language"))
"""Guards that separate variants of one message, which an invalidation treats as one."""


def _lenient(tuning: Tuning) -> list[GuardName]:
    """Return the guards that exempt a similar message from an invalidation."""
    return [name for name in tuning.guards if name not in _STRICT]


def _signed(packed: str, user: str | None) -> str:
    """Return a packed vector with the digest of the user whose put is arriving."""
    return f"{packed}{_SIGNED}{user or ''}"


def _signature(value: str) -> str | None:
    """Return the user's digest in the row of an arriving question; `None` in older versions'."""
    _, signed, user = value.partition(" ")[2].partition(_SIGNED)
    return user if signed else None


class OwnVector(NamedTuple):
    """Place of the vector of a user's own question.

    Attributes:
        key: Key of the hash that holds it.
        tag: Digest of the message.
        entry: Key of the answer.
    """

    key: str
    tag: str
    entry: str


@dataclass(frozen=True, slots=True)
class Similar:
    """A stored question that L2 would serve for another.

    Attributes:
        tag: Digest of the message.
        own: Its vector, where it is a user's own; `None` for a shared one.
    """

    tag: str
    own: OwnVector | None = None


class SimilarQuestions:
    """Finds stored questions that L2 would serve for a message, of any user and context.

    Args:
        store: Store of private vectors and entries.
        keys: Names of the entries.
        vectors: The model, asked without hurry, and the index of shared entries.
    """

    def __init__(self, store: Keyed, keys: Keys, vectors: Vectors) -> None:
        self._store = store
        self._keys = keys
        self._vectors = vectors
        self._embedder = vectors.embedder
        self._index = vectors.index

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
            tuning: Gives threshold and guards.
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
        vector = await self._vectors.embed(text)
        found: list[Similar] = []
        partitions = await self._store.rows(self._keys.own(PARTITIONS + self._keys.model))
        wanted = [
            (key, *owner.partition(" ")[::2])
            for key, owner in partitions.items()
            if self._keys.owns(key) and (user is None or owner.startswith(user))
        ]
        for chunk in batched(wanted, _CHUNK):
            hashes = await asyncio.gather(*(self._store.rows(key) for key, _, _ in chunk))
            gone = [key for (key, _, _), rows in zip(chunk, hashes, strict=True) if not rows]
            await self._store.delete_rows(self._keys.own(PARTITIONS + self._keys.model), gone)
            for (key, owner, context), rows in zip(chunk, hashes, strict=True):
                near = [
                    (tag, similarity)
                    for tag, similarity in nearest(rows, vector)
                    if similarity >= tuning.lowest_threshold
                ]
                names = [self._keys.similar_entry(tag, owner, context) for tag, _ in near]
                stored = await self._store.read(names) if names else []
                for (tag, similarity), name, value in zip(near, names, stored, strict=True):
                    if self._answers(text, similarity, value, name, owner, tuning):
                        found.append(Similar(tag, OwnVector(key, tag, name)))
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
        """Return whether *value*, an envelope, is similar enough to *text*, and no guard vetoes."""
        if value is None:
            # It may be arriving, with an intent of any threshold.
            return True
        try:
            stored = envelope.decode(value or "", key, (scope,), self._keys.sealer)
        except (envelope.CorruptError, envelope.ForeignError):
            return similarity >= tuning.reach()
        if similarity < tuning.reach(stored.intent):
            return False
        return veto(text, stored.message or "", _lenient(tuning)) is None

    @property
    def unable(self) -> bool:
        """True once loading the model has failed: this process cannot search."""
        return self._embedder.failed

    def _serves(self, text: str) -> bool:
        """Return whether L2 serves *text* at all; raises `BackendError` while that is unknown.

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
        """Return the shared ones of `similar`, and those arriving in any index.

        Args:
            text: A message.
            tuning: Gives threshold and guards.
            before: Only rows in the index, put before this time of the store.
        """
        if not self._serves(text):
            return []
        vector = await self._vectors.embed(text)
        found: list[Similar] = []
        arriving = await self._arriving(vector, tuning) if before is None else set()
        for context in await self._index.contexts():
            found += await self._similar_in(text, vector, context, tuning, before)
            # Rows in the index were judged by their text.
            arriving -= (await self._index.texts(context, sorted(arriving))).keys()
        return found + [Similar(tag) for tag in sorted(arriving)]

    async def _arriving(self, vector: Vector, tuning: Tuning) -> set[str]:
        """Return the tags of arriving questions that are similar to *vector*."""
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

    async def arrival(
        self, query: Query, scope: Scope, tuning: Tuning, life: float
    ) -> list[RowWrite]:
        """Return the rows by which `similar` finds *query*; none if L2 won't store it.

        Args:
            query: The question of a put.
            scope: Scope in which L2 stores it.
            tuning: Gives the guards.
            life: Seconds that the answer is kept.

        Raises:
            BackendError: If the embedder failed.
        """
        ready = self._embedder.ready and not query.history
        if not ready or not (self._embedder.fits(query.text) and self._embedder.knows(query.text)):
            return []
        if not readable(query.text, tuning.guards):
            return []
        if scope == "shared" and not self._index.accepts(query.context):
            return []
        try:
            packed = pack(await self._vectors.embed(query.text))
        except InputTooLongError:
            return []
        if scope == "user":
            return private_rows(self._keys, query, packed, life)
        return [self._arriving_rows({query.tag: self._arriving_row(_signed(packed, query.user))})]

    async def renew_arriving(self, tags: Sequence[str]) -> None:
        """Extend the time in which arriving questions are found.

        Raises:
            BackendError: If the store failed.
        """
        for chunk in batched(tags, _RENEWED_TOGETHER):
            found = await self._store.some_rows(self._arriving_key, chunk)
            rows = {
                tag: self._arriving_row(value.partition(" ")[2])
                for tag, value in zip(chunk, found, strict=True)
                if value
            }
            if rows:
                await self._store.put_rows([self._arriving_rows(rows)])

    async def not_arriving(self, tags: Sequence[str]) -> set[str]:
        """Return those of *tags* that no longer count as arriving.

        Raises:
            BackendError: If the store failed.
        """
        found = await self._store.some_rows(self._arriving_key, tags)
        return {tag for tag, value in zip(tags, found, strict=True) if value is None}

    def _arriving_row(self, packed: str) -> str:
        return f"{self._store.now():.0f} {packed}"

    def _arriving_rows(self, rows: Mapping[str, str]) -> RowWrite:
        return RowWrite(self._arriving_key, rows, ARRIVING_SECONDS, _ARRIVING_KEPT)

    async def forget_arriving(self, tags: Sequence[str], user: str) -> None:
        """Remove the vectors of a user's arriving questions."""
        for chunk in batched(tags, _RENEWED_TOGETHER):
            found = await self._store.some_rows(self._arriving_key, chunk)
            theirs = [
                tag
                for tag, value in zip(chunk, found, strict=True)
                if value is not None and _signature(value) in {None, user}
            ]
            await self._store.delete_rows(self._arriving_key, theirs)

    async def overtaken(
        self,
        query: Query,
        intent: str | None,
        scope: Scope,
        invalidations: Sequence[Broad],
        tuning: Tuning,
    ) -> bool:
        """Return whether one of *invalidations* is of a message similar to *query*.

        Args:
            query: The question of a put.
            intent: Intent of its answer.
            scope: Scope in which L2 stores it.
            invalidations: Invalidations since the computation of its answer began.
            tuning: Gives the guards and the intents' thresholds.

        Raises:
            BackendError: If this is unknown: the embedder failed, or is loading.
        """
        concerned = [
            item
            for item in invalidations
            if item.text and (not item.user or (scope, item.user) == ("user", query.user))
        ]
        if not concerned or not self._serves(query.text):
            return False
        stored = await self._vectors.embed(query.text)
        for item in concerned:
            if not self._serves(item.text):
                continue
            at = tuning.model_copy(update={"semantic_threshold": item.threshold})
            invalidated = await self._vectors.embed(item.text)
            near = float(invalidated @ stored) + QUANTISED >= at.reach(intent)
            if near and veto(item.text, query.text, _lenient(tuning)) is None:
                return True
        return False

    async def _similar_in(
        self, text: str, vector: Vector, context: str, tuning: Tuning, before: float | None
    ) -> list[Similar]:
        count = _NEIGHBOURS
        while True:
            near = await self._vectors.search(context, vector, count)
            if len(near) < count or near[-1].similarity < tuning.lowest_threshold:
                break
            count *= 4
        shared = self._keys.shared
        return [
            Similar(row.id)
            for row in near
            if before is None or envelope.created(row.text or "") < before
            if self._answers(
                text,
                row.similarity,
                row.text,
                self._keys.similar_entry(row.id, shared, context),
                shared,
                tuning,
            )
        ]

    async def shared_entry(self, query: Query) -> str | None:
        """Return the envelope of a message's shared answer in the index; `None` if it has none."""
        return (await self._index.texts(query.context, [query.tag])).get(query.tag)

    async def forget_messages(self, tags: Sequence[str]) -> int:
        """Remove the shared answers to messages in all contexts; return how many there were."""
        removed = 0
        for context in await self._index.contexts():
            removed += await self._index.remove(context, tags)
        return removed

    async def forget_own(self, vectors: Sequence[OwnVector]) -> None:
        """Remove vectors of users' own questions whose entry no longer exists.

        Raises:
            BackendError: If the store failed.
        """
        for chunk in batched(vectors, _RENEWED_TOGETHER):
            values = await self._store.read([vector.entry for vector in chunk])
            gone: dict[str, list[str]] = {}
            for vector, value in zip(chunk, values, strict=True):
                if value is None:
                    gone.setdefault(vector.key, []).append(vector.tag)
            for key, tags in gone.items():
                await self._store.delete_rows(key, tags)

    async def forget_written(self, tags: Sequence[str], user: str) -> int:
        """Remove, beyond recovery, the shared answers to messages that a user wrote.

        Each row is judged by itself: another user may have replaced it, in some contexts or all.

        Args:
            tags: The messages.
            user: The user's digest.

        Returns:
            Number of rows removed.

        Raises:
            BackendError: If the store or the index failed.
        """
        removed = 0
        for context in await self._index.contexts():
            removed += await self.forget_rows(context, tags, user)
            await self._index.purge(context)
        await self.forget_arriving(tags, user)
        return removed

    async def forget_rows(self, context: str, tags: Sequence[str], user: str) -> int:
        """Remove those of a context's answers to messages that *user* wrote, or that are damaged.

        Returns:
            Number of rows removed.

        Raises:
            BackendError: If the index failed.
        """
        texts = await self._index.texts(context, tags)
        theirs = [tag for tag, text in texts.items() if envelope.may_be_by(text, user)]
        return await self._index.remove(context, theirs)

    async def forget_gone(self, tags: Sequence[str]) -> None:
        """Remove, beyond recovery, the shared answers to messages whose entry no longer exists.

        For an index of this process alone: its entries have a copy in the store.

        Raises:
            BackendError: If the store or the index failed.
        """
        for context in await self._index.contexts():
            await self._index.remove(context, await self._without_entry(context, tags))
            await self._index.purge(context)

    async def _without_entry(self, context: str, tags: Sequence[str]) -> list[str]:
        found: list[str] = []
        for chunk in batched(tags, _RENEWED_TOGETHER):
            names = [self._keys.similar_entry(tag, self._keys.shared, context) for tag in chunk]
            values = await self._store.read(names)
            found += [tag for tag, value in zip(chunk, values, strict=True) if value is None]
        return found

    async def count_messages(self, tags: Sequence[str]) -> int:
        """Return the number of shared answers to messages in all contexts."""
        found = 0
        for context in await self._index.contexts():
            found += len(await self._index.texts(context, tags))
        return found
