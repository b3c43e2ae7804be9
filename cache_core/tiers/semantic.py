"""L2: answers to questions that mean the same.

Shared answers are in a vector index; a user's own are in a hash of the keyed store, read while the
embedding runs, so that no search over other people's questions can ever find them.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import copy
import logging
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from cache_core import envelope
from cache_core.embedder import Embedder, Vector
from cache_core.exceptions import BackendError, CorruptValueError
from cache_core.feed import IndexFeed
from cache_core.guards import veto
from cache_core.keys import PARTITIONS, Keys
from cache_core.models import (
    Entry,
    Generation,
    Hit,
    Level,
    Miss,
    MissReason,
    NotStored,
    Query,
    Scope,
)
from cache_core.stores.base import KeyValueStore, RowWrite, Write
from cache_core.stores.vectors import Row, VectorIndex
from cache_core.tiers.keyed import KEPT
from cache_core.tuning import MAX_TTL, Tuning
from cache_core.vetoes import Vetoes

log = logging.getLogger("glasscache")

PRIVATE_VECTORS = 64
"""Questions remembered per user and context; the newest."""

NEIGHBOURS = 5
"""Shared neighbours looked at first; more only while all of them are dead."""

_MOST_NEIGHBOURS = 1_280
_WORTH_JUDGING = 0.5
"""Below this similarity nobody would set a threshold."""

_QUANTISED = 0.001
"""By what a private similarity may be too low: its vector is kept in 8 bits a value."""

_WAITING_PUTS = 1_000
_CHUNK = 8


@dataclass(slots=True)
class _Candidate:
    """A stored question near the one that was asked."""

    tag: str
    similarity: float
    scope: Scope
    key: str
    text: str | None
    entry: Entry | None = None
    dead: MissReason | None = None
    gone: bool = False
    guard: str = ""
    confirmed: bool = True


@dataclass(frozen=True, slots=True)
class Similar:
    """A stored question that L2 would serve for another: where it is."""

    tag: str
    context: str
    vectors_key: str | None


class SemanticTier:
    """The semantic tier.

    Args:
        store: Holds private vectors, private entries and generations.
        keys: Names of the entries.
        index: Holds shared entries.
        embedder: Makes vectors for lookups, in a hurry.
        patient: The same for puts and invalidations, which may wait longer.
        feed: Tells other processes of shared answers.
        vetoes: What must not be served, whatever its generation.
        alone: Whether no keyed tier reads the message's generation before this one.
    """

    level: Level = "l2"

    def __init__(
        self,
        store: KeyValueStore,
        keys: Keys,
        index: VectorIndex,
        embedder: Embedder,
        patient: Embedder,
        feed: IndexFeed,
        vetoes: Vetoes | None = None,
        *,
        alone: bool = False,
    ) -> None:
        self._vetoes = vetoes or Vetoes()
        self._alone = alone
        self._store = store
        self._keys = keys
        self._index = index
        self._embedder = embedder
        self._patient = patient
        self._feed = feed
        self._waiting: deque[tuple[Query, Entry, Scope, Tuning]] = deque(maxlen=_WAITING_PUTS)
        self._dead: dict[str, set[str]] = {}
        self.dropped = 0
        """Puts lost because too many waited for the model."""
        self.refused_contexts = 0
        """Puts not made because the namespace has too many contexts."""

    def unobserved(self, index: VectorIndex, embedder: Embedder) -> SemanticTier:
        """Return the same tier with other ways to its backends: what it is asked, nobody counts."""
        tier = copy.copy(self)
        tier._index, tier._embedder, tier._patient = index, embedder, embedder  # noqa: SLF001
        return tier

    async def get(self, query: Query, tuning: Tuning) -> Hit | Miss:
        """Return the answer to the most similar live question that no guard vetoes."""
        if not self._alone:
            return await self._get(query, tuning)
        reading = asyncio.ensure_future(self._generation(query))
        try:
            answer = await self._get(query, tuning)
            return answer._replace(generation=await reading)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _generation(self, query: Query) -> Generation | None:
        try:
            return Generation(*await self._store.read(self._keys.generations(query)))
        except BackendError:
            return None

    async def _get(self, query: Query, tuning: Tuning) -> Hit | Miss:
        if query.history:
            return Miss("has_history")
        if not self._embedder.ready:
            if self._embedder.failed:
                raise BackendError("backend_error", "ModelUnavailable")
            return Miss("warming")
        if not self._embedder.fits(query.text):
            return Miss("truncated")
        if not self._embedder.knows(query.text):
            return Miss("unreadable")
        own = asyncio.ensure_future(self._own_rows(query))
        try:
            # Nothing shared can be found here, which leaves the user's own.
            if not self._index.accepts(query.context) and not await own:
                return Miss("context_limit")
            vector = await self._embedder.embed(query.text)
            return await self._nearest(query, tuning, vector, own)
        finally:
            if not own.done():
                own.cancel()
                await asyncio.gather(own, return_exceptions=True)

    async def _own_rows(self, query: Query) -> dict[str, str] | BackendError:
        if query.user is None:
            return {}
        key = self._keys.vectors(query.user, query.context)
        try:
            return dict(await self._store.rows(key, PRIVATE_VECTORS, hurry=True))
        except BackendError as error:
            return error

    async def _nearest(
        self,
        query: Query,
        tuning: Tuning,
        vector: Vector,
        own: asyncio.Future[dict[str, str] | BackendError],
    ) -> Hit | Miss:
        failure: BackendError | None = None
        candidates: list[_Candidate] = []
        count = NEIGHBOURS
        while True:
            try:
                shared = await self._shared(query, vector, count)
            except BackendError as error:
                shared, failure = [], error
            rows = await own
            unreadable = isinstance(rows, CorruptValueError)
            if isinstance(rows, BackendError):
                failure = failure or (None if unreadable else rows)
                rows = {}
            private = self._private(query, vector, rows)[:count]
            candidates = sorted([*shared, *private], key=_rank)
            await self._judge(query, tuning, candidates)
            floor = min(_WORTH_JUDGING, tuning.lowest_threshold)
            if count >= _MOST_NEIGHBOURS:
                break
            if not (_hides(shared, count, floor) or _hides(private, count, floor)):
                break
            count *= 4
        hit = self._best(candidates, tuning)
        if hit is not None:
            return hit
        if failure is not None:
            raise failure
        miss = _miss(candidates, tuning, self._store.now())
        if unreadable:
            return miss._replace(reason="corrupt")
        if miss.reason == "cold" and not self._index.accepts(query.context):
            return miss._replace(reason="context_limit")
        return miss

    async def _shared(self, query: Query, vector: Vector, count: int) -> list[_Candidate]:
        return [
            _Candidate(
                near.id,
                near.similarity,
                "shared",
                self._keys.entry("l2", near.id, query.shared, query.context),
                near.text,
            )
            for near in await self._index.search(query.context, vector, count)
        ]

    def _private(self, query: Query, vector: Vector, rows: dict[str, str]) -> list[_Candidate]:
        if query.user is None or not rows:
            return []
        user = query.user
        near = nearest(rows, vector)
        return [
            _Candidate(
                tag, similarity, "user", self._keys.entry("l2", tag, user, query.context), None
            )
            for tag, similarity in near
        ]

    async def _judge(self, query: Query, tuning: Tuning, candidates: list[_Candidate]) -> None:
        """Fill in each candidate's entry and why it must not be served, in one round trip."""
        floor = min(_WORTH_JUDGING, tuning.lowest_threshold)
        worth = [near for near in candidates if near.similarity >= floor]
        if not worth:
            return
        asked = {near.tag: self._keys.generation(near.tag) for near in worth}
        own: dict[str, str] = {}
        if query.user is not None:
            private = [near for near in worth if near.scope == "user"]
            own = {near.tag: self._keys.own_generation(near.tag, query.user) for near in private}
            own.update({near.key: near.key for near in private})
            if private:
                own[query.user] = self._keys.user_generation(query.user)
        names = [*asked.values(), *own.values()]
        try:
            values = dict(zip(names, await self._store.read(names), strict=True))
        except BackendError:
            values = {}
        now = self._store.now()
        for near in worth:
            near.confirmed = bool(values)
            if near.scope == "user":
                near.text = values.get(near.key)
            if near.text is None:
                # Expired or evicted, and swept: nothing is left that could be unreadable.
                near.dead, near.gone = "expired", True
                continue
            try:
                near.entry = envelope.decode(near.text, near.key, query.readable)
            except envelope.CorruptError:
                near.dead = "corrupt"
                await self._discard(query, near)
            except envelope.ForeignError:
                await self._discard(query, near)
                raise BackendError("isolation") from None
            else:
                entry = near.entry
                stamp: str | None = entry.generation
                if values:
                    stamp = Generation(
                        values[asked[near.tag]],
                        values.get(own.get(near.tag, "")),
                        values.get(own.get(query.user or "", "")),
                    ).stamp(near.scope)
                vetoed = self._vetoes.forbid(near.tag, near.scope, query.user)
                unsure = near.scope in self._vetoes.unsure
                if not values:
                    unsure = unsure or self._vetoes.unlisted or near.tag in self._vetoes.rows
                if vetoed or unsure:
                    stamp = None
                ttl = tuning.ttl("l2", entry.intent) if entry.ttl is None else entry.ttl
                near.dead = envelope.judge(entry, stamp, now, ttl)
                shares = tuning.shares(entry.intent)
                if near.dead is None and entry.withheld(query.user, shares=shares):
                    near.dead = "other_scope"
                near.gone = envelope.age(entry, now) > KEPT * ttl
                near.guard = veto(query.text, entry.message or "", tuning.guards) or ""
                if entry.response is None:
                    near.dead = "corrupt"
            if near.scope == "shared" and near.dead in {"invalidated", "corrupt"}:
                self._dead.setdefault(query.context, set()).add(near.tag)

    async def _discard(self, query: Query, near: _Candidate) -> None:
        """Delete what must not stay where it was found."""
        log.warning("l2: an entry could not be read and was deleted")
        with contextlib.suppress(BackendError):
            if near.scope == "user":
                await self._store.delete([near.key])
            else:
                await self._index.remove(query.context, [near.tag])

    def _best(self, candidates: Sequence[_Candidate], tuning: Tuning) -> Hit | None:
        now = self._store.now()
        for near in candidates:
            if near.entry is None or near.dead or near.guard:
                continue
            if near.similarity < tuning.threshold(near.entry.intent):
                continue
            return Hit(
                near.entry,
                near.scope,
                envelope.age(near.entry, now),
                near.similarity,
                near.tag,
                near.confirmed,
            )
        return None

    async def put(self, query: Query, entry: Entry, scope: Scope, tuning: Tuning) -> NotStored:
        """Store the answer; while the model is loading, as soon as it has loaded."""
        if query.history:
            return "has_history"
        if not self._embedder.ready:
            full = len(self._waiting) == _WAITING_PUTS
            self.dropped += full
            self._waiting.append((query, entry, scope, tuning))
            return "queued"
        if not self._embedder.fits(query.text):
            return "truncated"
        if not self._embedder.knows(query.text):
            return "unreadable"
        if scope == "shared" and not self._index.accepts(query.context):
            self.refused_contexts += 1
            return "context_limit"
        vector = await self._patient.embed(query.text)
        digest = query.scope(scope)
        key = self._keys.entry("l2", query.tag, digest, query.context)
        part = entry._replace(scope=digest, message=query.text, rag_results=None)
        text = envelope.encode(part, key)
        kept = KEPT * (tuning.ttl("l2", entry.intent) if entry.ttl is None else entry.ttl)
        if scope == "shared":
            row = Row(query.tag, vector, text, entry.created + kept)
            return await self._put_shared(query.context, row, Write(key, text, kept))
        vectors = self._keys.vectors(digest, query.context)
        await self._store.write([Write(key, text, kept)])
        owner = {vectors: f"{digest} {query.context}"}
        await self._store.put_rows(
            [
                RowWrite(self._keys.own(PARTITIONS + self._keys.model), owner, KEPT * MAX_TTL),
                RowWrite(vectors, {query.tag: pack(vector)}, KEPT * MAX_TTL, PRIVATE_VECTORS),
            ]
        )
        return ""

    async def _put_shared(self, context: str, row: Row, write: Write) -> NotStored:
        if not await self._index.add(context, row):
            self.refused_contexts += 1
            return "context_limit"
        if self._feed.own_index:
            await self._store.write([write])
            await self._feed.put(context, row)
        return ""

    def forget_waiting(self, user: str) -> None:
        """Drop a user's puts that wait for the model."""
        kept = [item for item in self._waiting if item[0].user != user]
        self._waiting.clear()
        self._waiting.extend(kept)

    def forget_waiting_messages(self, tags: Collection[str], user: str | None = None) -> None:
        """Drop the puts of messages that wait for the model; with *user*, their private ones."""
        kept = [
            item
            for item in self._waiting
            if item[0].tag not in tags
            or (user is not None and (item[0].user != user or item[2] == "shared"))
        ]
        self._waiting.clear()
        self._waiting.extend(kept)

    async def tend(self) -> None:
        """Make the puts that waited for the model; remove rows that were found dead."""
        while self._waiting and self._embedder.ready:
            first = self._waiting[0]
            # What was invalidated meanwhile, by anybody, would only lie there: of a user who was
            # forgotten nothing may.
            if await self._is_current(*first[:3]):
                await self.put(*first)
                if first[2] == "user" and not await self._is_current(*first[:3]):
                    await self._erase(first[0])
            if self._waiting and self._waiting[0] is first:
                self._waiting.popleft()
        dead = dict(self._dead)
        self._dead.clear()
        for context, tags in dead.items():
            await self._index.remove(context, sorted(tags))

    async def _is_current(self, query: Query, entry: Entry, scope: Scope) -> bool:
        tokens = await self._store.read(self._keys.generations(query))
        return Generation(*tokens).stamp(scope) == entry.generation

    async def _erase(self, query: Query) -> None:
        """Erase a user's own answer to a message."""
        user = query.scope("user")
        await self._store.delete([self._keys.entry("l2", query.tag, user, query.context)])
        await self._store.delete_rows(self._keys.vectors(user, query.context), [query.tag])

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
        vector = await self._patient.embed(text)
        found: list[Similar] = []
        partitions = await self._store.rows(self._keys.own(PARTITIONS + self._keys.model))
        wanted = [
            (key, *owner.partition(" ")[::2])
            for key, owner in partitions.items()
            if user is None or owner.startswith(user)
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
        try:
            stored = envelope.decode(value or "", key, (scope,))
        except (envelope.CorruptError, envelope.ForeignError):
            return similarity >= tuning.semantic_threshold
        if similarity < tuning.threshold(stored.intent):
            return False
        return veto(text, stored.message or "", tuning.guards) is None

    def _serves(self, text: str) -> bool:
        """Whether L2 serves *text* at all; raises `BackendError` while that cannot be known."""
        if self._embedder.failed:
            return False
        if not self._embedder.ready:
            raise BackendError("backend_error", "ModelLoading")
        return self._embedder.fits(text) and self._embedder.knows(text)

    async def similar_shared(self, text: str, tuning: Tuning) -> list[Similar]:
        """Return the shared ones of `similar`."""
        if not self._serves(text):
            return []
        return await self._similar_everywhere(text, await self._patient.embed(text), tuning)

    async def _similar_everywhere(self, text: str, vector: Vector, tuning: Tuning) -> list[Similar]:
        found: list[Similar] = []
        for context in await self._index.contexts():
            found += await self._similar_in(text, vector, context, tuning)
        return found

    async def _similar_in(
        self, text: str, vector: Vector, context: str, tuning: Tuning
    ) -> list[Similar]:
        count = 4 * NEIGHBOURS
        while True:
            near = await self._index.search(context, vector, count)
            if len(near) < count or near[-1].similarity < tuning.lowest_threshold:
                break
            count *= 4
        shared = self._keys.shared
        return [
            Similar(row.id, context, None)
            for row in near
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


def _rank(near: _Candidate) -> float:
    """Return where a candidate stands, the least first: a user's own before the like shared."""
    return -near.similarity - (_QUANTISED if near.scope == "user" else 0.0)


def _needed(near: _Candidate, tuning: Tuning) -> float:
    """Return the similarity from which a candidate's answer is served."""
    return tuning.threshold(near.entry.intent if near.entry is not None else None)


def _hides(found: Sequence[_Candidate], count: int, floor: float) -> bool:
    """Whether live rows may be behind these: dead ones only, as many as asked for, all similar."""
    return (
        len(found) == count and all(near.dead for near in found) and found[-1].similarity >= floor
    )


def _miss(candidates: Sequence[_Candidate], tuning: Tuning, now: float) -> Miss:
    """Return why none of *candidates*, nearest first, was served."""
    # What may be swept at any time counts as swept, so that a miss has one reason.
    candidates = [near for near in candidates if not near.gone]
    live = [near for near in candidates if not near.dead]
    similarity = max((near.similarity for near in live), default=None)
    best = next((near for near in live if not near.guard), None)
    above = [near for near in candidates if near.similarity >= _needed(near, tuning)]
    refused = next((near for near in above if near.guard and not near.dead), None)
    vetoed = "" if refused is None else refused.guard
    dead = next((near.dead for near in above if near.dead), None)
    reason: MissReason
    if vetoed:
        reason = "guard_veto"
    elif dead:
        reason = dead
    else:
        reason = "below_threshold" if live else "cold"
    expired = next(
        (near.entry for near in above if near.dead == "expired" and near.entry and not near.guard),
        None,
    )
    return Miss(
        reason,
        similarity,
        None if best is None else best.similarity,
        vetoed,
        matched="" if best is None else best.tag,
        scope="" if best is None else best.scope,
        expired_age=None if expired is None else envelope.age(expired, now),
        nearest=getattr(refused or best or next(iter(live), None), "entry", None),
    )


def pack(vector: Vector) -> str:
    """Return *vector* as int8 in base64, scaled to its largest value.

    The scale is not kept: it cancels out in a cosine, which changes by 0.0003.
    """
    import numpy as np

    scale = float(np.abs(vector).max()) / 127 or 1.0
    quantised = np.rint(vector / scale).astype(np.int8)
    return base64.b64encode(quantised.tobytes()).decode("ascii")


def nearest(rows: Mapping[str, str], vector: Vector) -> list[tuple[str, float]]:
    """Return (tag, cosine 0..1) of packed *rows*, nearest first; unreadable rows are left out."""
    import numpy as np

    tags: list[str] = []
    matrix: list[np.ndarray] = []
    for tag, packed in rows.items():
        try:
            values = np.frombuffer(base64.b64decode(packed, validate=True), dtype=np.int8)
        except (binascii.Error, ValueError):
            continue
        if values.shape == vector.shape:
            tags.append(tag)
            matrix.append(values)
    if not matrix:
        return []
    stacked = np.stack(matrix).astype(np.float32)
    cosines = (stacked @ vector) / np.linalg.norm(stacked, axis=1).clip(1e-9)
    order = np.argsort(-cosines)
    return [(tags[i], min(1.0, max(0.0, float(cosines[i])))) for i in order]
