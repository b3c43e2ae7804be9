"""L2: answers to questions that mean the same.

Shared answers are in a vector index; a user's own are in a hash of the keyed store, read while the
embedding runs, so that no search over other people's questions can ever find them.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
from collections import deque
from collections.abc import Collection

from cache_core import envelope
from cache_core.embedder import Embedder, Vector
from cache_core.exceptions import BackendError, CorruptValueError
from cache_core.feed import IndexFeed
from cache_core.guards import veto
from cache_core.keys import Keys
from cache_core.logs import RateLimited
from cache_core.models import (
    Entry,
    Generation,
    Hit,
    Level,
    Miss,
    NotStored,
    Query,
    Scope,
)
from cache_core.recent import RecentInvalidations
from cache_core.stores.base import KeyValueStore, Write
from cache_core.stores.vectors import Row, VectorIndex
from cache_core.tiers.base import tell_locked
from cache_core.tiers.candidates import Candidate, best, hides, no_answer, rank
from cache_core.tiers.keyed import KEPT
from cache_core.tiers.private_vectors import KEPT_VECTORS, nearest, pack, private_rows
from cache_core.tiers.similar import SimilarQuestions
from cache_core.tuning import Tuning
from cache_core.vetoes import Vetoes

log = RateLimited(logging.getLogger("glasscache"))

NEIGHBOURS = 5
"""Shared neighbours looked at first; more only while all of them are dead."""

_MOST_NEIGHBOURS = 1_280
_WORTH_JUDGING = 0.5
"""Below this similarity nobody would set a threshold."""

_WAITING_PUTS = 1_000
_Waiting = tuple[Query, Entry, Scope, Tuning, str]
"""A put, and up to where the log of broad invalidations was known when it came."""

_LOOKED_AFTER = 10_000
_LOOKED_AFTER_AT_ONCE = 1_000


class SemanticTier:
    """The semantic tier.

    Args:
        store: Holds private vectors, private entries and generations.
        keys: Names of the entries.
        index: Holds shared entries.
        embedder: Makes vectors for lookups, in a hurry.
        patient: The same for puts, which may wait longer.
        feed: Tells other processes of shared answers.
        similar: Finds what an invalidation would have taken with it.
        recent: What puts that waited for the model are held against.
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
        similar: SimilarQuestions,
        recent: RecentInvalidations,
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
        self._similar = similar
        self._recent = recent
        self._waiting: deque[_Waiting] = deque(maxlen=_WAITING_PUTS)
        self._dead: dict[str, set[str]] = {}
        self._written_late: dict[tuple[str, str], Entry] = {}
        self._waited: set[tuple[str, str]] = set()
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
            return dict(await self._store.rows(key, KEPT_VECTORS, hurry=True))
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
        candidates: list[Candidate] = []
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
            candidates = sorted([*shared, *private], key=rank)
            await self._judge(query, tuning, candidates)
            floor = min(_WORTH_JUDGING, tuning.lowest_threshold)
            if count >= _MOST_NEIGHBOURS:
                break
            if not (hides(shared, count, floor) or hides(private, count, floor)):
                break
            count *= 4
        hit = best(candidates, tuning, self._store.now())
        if hit is not None:
            return hit
        if failure is not None:
            raise failure
        miss = no_answer(candidates, tuning, self._store.now())
        if unreadable:
            return miss._replace(reason="corrupt")
        if miss.reason == "cold" and not self._index.accepts(query.context):
            return miss._replace(reason="context_limit")
        return miss

    async def _shared(self, query: Query, vector: Vector, count: int) -> list[Candidate]:
        return [
            Candidate(
                near.id,
                near.similarity,
                "shared",
                self._keys.entry("l2", near.id, query.shared, query.context),
                near.text,
            )
            for near in await self._index.search(query.context, vector, count)
        ]

    def _private(self, query: Query, vector: Vector, rows: dict[str, str]) -> list[Candidate]:
        if query.user is None or not rows:
            return []
        user = query.user
        near = nearest(rows, vector)
        return [
            Candidate(
                tag, similarity, "user", self._keys.entry("l2", tag, user, query.context), None
            )
            for tag, similarity in near
        ]

    async def _judge(self, query: Query, tuning: Tuning, candidates: list[Candidate]) -> None:
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
            # It may be one that is invalidated, or not: withheld, and not removed.
            unsure = near.scope in self._vetoes.unsure
            if not values:
                unsure = unsure or self._vetoes.unlisted or near.tag in self._vetoes.rows
            try:
                near.entry = envelope.decode(near.text, near.key, query.readable, self._keys.sealer)
            except envelope.LockedError:
                tell_locked()
                near.dead = "corrupt"
                continue
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
                vetoed = vetoed or self._vetoes.outdated(entry)
                if vetoed or unsure:
                    stamp = None
                ttl = tuning.ttl("l2", entry.intent) if entry.ttl is None else entry.ttl
                # What cannot be confirmed may be invalidated: then it must not be stale, too.
                near.dead = envelope.judge(entry, stamp, now, ttl, query.grace if values else 0.0)
                if near.dead is None and tuning.withholds(entry, query.user):
                    near.dead = "other_scope"
                near.gone = envelope.age(entry, now) > KEPT * ttl
                near.guard = veto(query.text, entry.message or "", tuning.guards) or ""
                if entry.response is None:
                    near.dead = "corrupt"
            if near.scope == "shared" and near.dead in {"invalidated", "corrupt"} and not unsure:
                self._dead.setdefault(query.context, set()).add(near.tag)

    async def _discard(self, query: Query, near: Candidate) -> None:
        """Delete what must not stay where it was found."""
        log.limited("unreadable", "l2: an entry could not be read and was deleted")
        with contextlib.suppress(BackendError):
            if near.scope == "user":
                await self._store.delete([near.key])
            else:
                await self._index.remove(query.context, [near.tag])

    async def put(self, query: Query, entry: Entry, scope: Scope, tuning: Tuning) -> NotStored:
        """Store the answer; while the model is loading, as soon as it has loaded."""
        if query.history:
            return "has_history"
        if not self._embedder.ready:
            return self.put_later(query, entry, scope, tuning, self._recent.position)
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
        text = envelope.encode(part, key, self._keys.sealer)
        kept = KEPT * (tuning.ttl("l2", entry.intent) if entry.ttl is None else entry.ttl)
        if scope == "shared":
            row = Row(query.tag, vector, text, entry.created + kept)
            write = Write(key, text, kept)
            return await self._put_shared(query.context, row, write, entry)
        await self._store.put_rows(private_rows(self._keys, query, pack(vector)))
        await self._store.write([Write(key, text, kept)])
        return ""

    async def _put_shared(self, context: str, row: Row, write: Write, entry: Entry) -> NotStored:
        if not await self._index.add(context, row):
            self.refused_contexts += 1
            return "context_limit"
        if self._feed.own_index:
            await self._store.write([write])
            await self._feed.put(context, row)
        if len(self._written_late) < _LOOKED_AFTER:
            # Without its texts.
            self._written_late[context, row.id] = Entry(
                generation=entry.generation, writer=entry.writer, writer_token=entry.writer_token
            )
        return ""

    async def keep_findable(self) -> None:
        """Have what waits for the index found by invalidations, however long that is away.

        Raises:
            BackendError: If the store failed.
        """
        late = list(self._written_late)
        if self._index.breaker.state != "closed":
            self._waited.update(late)
        await self._similar.renew_arriving([tag for _, tag in late])

    async def _remove_outdated(self) -> None:
        """Remove rows that reached the index after their message, or writer, was invalidated.

        Rows are written out a little later than they are put. Whoever invalidated the message in
        between, or forgot the writer, in another process, could not remove what was not there yet;
        while the store is away it would be served, unconfirmed. Where somebody put it anew since,
        that goes, too: a miss. So does what waited while more were put than are kept for
        invalidations to find: one of a similar question may have missed it.
        """
        late = list(self._written_late.items())[:_LOOKED_AFTER_AT_ONCE]
        if not late:
            return
        tokens = {self._keys.generation(tag) for (_, tag), _ in late}
        writers = {self._keys.user_generation(entry.writer) for _, entry in late if entry.writer}
        names = [*tokens, *writers]
        found = dict(zip(names, await self._store.read(names), strict=True))
        lost = await self._similar.not_arriving(
            [place[1] for place, _ in late if place in self._waited]
        )
        outdated: dict[str, list[str]] = {}
        for (context, tag), entry in late:
            message = found[self._keys.generation(tag)]
            writer = found.get(self._keys.user_generation(entry.writer))
            overtaken = message != entry.generation or (
                entry.writer and writer != entry.writer_token
            )
            if overtaken or ((context, tag) in self._waited and tag in lost):
                outdated.setdefault(context, []).append(tag)
        for context, tags in outdated.items():
            await self._index.remove(context, tags)
        for place, entry in late:
            # One that was put again meanwhile is looked after again.
            if self._written_late.get(place) is entry:
                del self._written_late[place]
                self._waited.discard(place)

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

    def put_later(
        self, query: Query, entry: Entry, scope: Scope, tuning: Tuning, position: str
    ) -> NotStored:
        """Store the answer when the model has loaded; hold it against what is after *position*."""
        self.dropped += len(self._waiting) == _WAITING_PUTS
        self._waiting.append((query, entry, scope, tuning, position))
        return "queued"

    async def tend(self) -> None:
        """Make the puts that waited for the model; remove rows that are dead or outdated.

        What the index was given before has been written out.
        """
        try:
            await self._put_waiting()
        finally:
            await self._remove_outdated()
            dead = dict(self._dead)
            self._dead.clear()
            for context, tags in dead.items():
                await self._index.remove(context, sorted(tags))

    async def _put_waiting(self) -> None:
        while self._waiting and self._embedder.ready:
            first = self._waiting[0]
            try:
                await self._put_waited(*first)
            except BackendError:
                if self._waiting and self._waiting[0] is first:
                    # The next time others have their turn before it.
                    self._waiting.rotate(-1)
                raise
            if self._waiting and self._waiting[0] is first:
                self._waiting.popleft()

    async def _put_waited(
        self, query: Query, entry: Entry, scope: Scope, tuning: Tuning, position: str
    ) -> None:
        # What was invalidated meanwhile, by anybody, would only lie there: of a user who was
        # forgotten nothing may.
        if not await self._is_current(query, entry, scope):
            return
        await self._store.put_rows(await self._similar.arrival(query, scope))
        recent, _ = await self._recent.since(position)
        if recent is not None and not await self._similar.overtaken(
            query, entry.intent, scope, recent, tuning
        ):
            await self.put(query, entry, scope, tuning)
        if scope == "user" and not await self._is_current(query, entry, scope):
            await self._erase(query)

    async def _is_current(self, query: Query, entry: Entry, scope: Scope) -> bool:
        tokens = await self._store.read(self._keys.generations(query))
        current = Generation(*tokens)
        return current.stamp(scope) == entry.generation and current.user == entry.writer_token

    async def _erase(self, query: Query) -> None:
        """Erase a user's own answer to a message."""
        user = query.scope("user")
        await self._store.delete([self._keys.entry("l2", query.tag, user, query.context)])
        await self._store.delete_rows(self._keys.vectors(user, query.context), [query.tag])
