"""Search of L2: finds the nearest stored questions, judges them, and returns one's answer.

Shared questions are in the vector index; a user's own are in a hash of the keyed store, read while
the embedding runs, so that no search over other users' questions can ever find them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Mapping, Sequence

from cache_core.backends.base import Keyed, Vector
from cache_core.config.lifetimes import KEEP_FACTOR
from cache_core.config.tuning import Tuning
from cache_core.model import envelope
from cache_core.model.exceptions import BackendError, CorruptValueError, InputTooLongError
from cache_core.model.keys import Keys
from cache_core.model.logs import RateLimited
from cache_core.model.question.days import Days, ages
from cache_core.model.values import Entry, Generation, Hit, Miss, Query
from cache_core.tiers.base import tell_locked
from cache_core.tiers.denylist import Denylist
from cache_core.tiers.guards import prepare
from cache_core.tiers.guards.language import readable
from cache_core.tiers.semantic.candidates import Candidate, hides, rank
from cache_core.tiers.semantic.choosing import Choosing
from cache_core.tiers.semantic.private_vectors import KEPT_VECTORS, nearest, sound
from cache_core.tiers.semantic.rows import SharedRows
from cache_core.tiers.semantic.vectors import Vectors

log = RateLimited(logging.getLogger("glasscache"))

_MOST_NEIGHBOURS = 1_280
_WORTH_JUDGING = 0.5
"""Similarity below any sensible threshold."""


class SemanticSearch:
    """Finds the answer to a similar question.

    Args:
        store: Store of private vectors, private entries and generations.
        keys: Names of the entries.
        vectors: The model, and the index of shared entries.
        rows: Removes dead rows.
        denylist: Denylist of entries not to serve, whatever their generation.
        days: Days of the time zone in which answers age.
        choosing: Chooses among what was found.
    """

    def __init__(
        self,
        store: Keyed,
        keys: Keys,
        vectors: Vectors,
        rows: SharedRows,
        denylist: Denylist,
        days: Days,
        choosing: Choosing,
    ) -> None:
        self._store = store
        self._keys = keys
        self._vectors = vectors
        self._rows = rows
        self._denylist = denylist
        self._days = days
        self._choosing = choosing

    async def get(self, query: Query, tuning: Tuning) -> Hit | Miss:
        """Return the answer to the most similar live question that no guard vetoes."""
        if query.history:
            return Miss("has_history")
        embedder = self._vectors.embedder
        if not embedder.ready:
            if embedder.failed:
                raise BackendError("backend_error", "ModelUnavailable")
            return Miss("warming")
        if not embedder.fits(query.text):
            return Miss("truncated")
        if not (readable(query.text, tuning.guards) and embedder.knows(query.text)):
            return Miss("unreadable")
        own = asyncio.ensure_future(self._meanwhile(query, tuning))
        try:
            # Without shared rows only the user's own remain.
            if not self._vectors.index.accepts(query.context) and not await own:
                return Miss("context_limit")
            vector = await self._vectors.embed(query.text, hurry=True, recorded=query.recorded)
            return await self._nearest(query, tuning, vector, own)
        except InputTooLongError:
            return Miss("truncated")
        finally:
            if not own.done():
                own.cancel()
                await asyncio.gather(own, return_exceptions=True)

    async def _meanwhile(self, query: Query, tuning: Tuning) -> dict[str, str] | BackendError:
        """Read the user's own rows and analyse the message, while another thread embeds it."""
        rows = await self._own_rows(query)
        # Afterwards, because the other thread needs the interpreter until it has begun.
        prepare(query.text, tuning.guards)
        return rows

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
        count = self._choosing.looks_at(query, tuning)
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
        answer = self._choosing.answer(query, candidates, tuning, self._store.now())
        if isinstance(answer, Hit):
            return answer
        if failure is not None:
            raise failure
        miss = answer
        if unreadable:
            return miss._replace(reason="corrupt")
        if miss.reason == "cold" and not self._vectors.index.accepts(query.context):
            return miss._replace(reason="context_limit")
        return miss

    async def _shared(self, query: Query, vector: Vector, count: int) -> list[Candidate]:
        found = await self._vectors.search(query.context, vector, count, recorded=query.recorded)
        return [
            Candidate(
                near.id,
                near.similarity,
                "shared",
                self._keys.similar_entry(near.id, query.shared, query.context),
                near.text,
            )
            for near in found
        ]

    def _private(self, query: Query, vector: Vector, rows: dict[str, str]) -> list[Candidate]:
        if query.user is None or not rows:
            return []
        user = query.user
        near = nearest(sound(self._keys.vectors(user, query.context), rows), vector)
        return [
            Candidate(
                tag, similarity, "user", self._keys.similar_entry(tag, user, query.context), None
            )
            for tag, similarity in near
        ]

    async def _judge(self, query: Query, tuning: Tuning, candidates: list[Candidate]) -> None:
        """Fill in each candidate's entry and why it must not be served, in one round trip."""
        floor = min(_WORTH_JUDGING, tuning.lowest_threshold)
        worth = [near for near in candidates if near.similarity >= floor]
        if not worth:
            return
        asked = self._approvals(query, tuning, worth)
        held = self._denylist.held()
        values = await self._confirmations(query, worth, [*asked.values()])
        denied = (self._denylist,) if held is None else (self._denylist, held)
        # A question about today needs an answer of today.
        since = self._days.begin(self._store.now()) if ages(query.text) else -math.inf
        for near in worth:
            near.confirmed = bool(values)
            near.approval = values.get(asked.get(id(near), "")) or ""
            if near.scope == "user":
                near.text = values.get(near.key)
            if near.text is None:
                # Swept, after it expired or was evicted.
                near.dead, near.gone = "expired", True
                continue
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
                self._weigh(query, tuning, near, values, denied)
                if near.dead is None and near.entry.created < since:
                    near.dead = "day_over"
                if near.dead is None and tuning.withholds(near.entry, query.user):
                    near.dead = "other_scope"
                if near.entry.response is None:
                    near.dead = "corrupt"
            removed = near.dead in {"invalidated", "corrupt"} and not any(
                _is_unsure(each, near) for each in denied
            )
            if near.scope == "shared" and removed:
                self._rows.note_dead(query.context, near.tag)

    def _approvals(
        self, query: Query, tuning: Tuning, worth: Sequence[Candidate]
    ) -> dict[int, str]:
        """Return the keys of the approvals of candidates that may have one, by `id`."""
        if not tuning.approve_margin:
            return {}
        least = tuning.lowest_threshold
        return {
            id(near): self._keys.approval(near.tag, query.scope(near.scope), query)
            for near in worth
            if near.similarity >= least
        }

    async def _confirmations(
        self, query: Query, worth: Sequence[Candidate], approvals: Sequence[str]
    ) -> Mapping[str, str | None]:
        """Return the tokens, private entries and approvals of candidates.

        Empty if the store failed.
        """
        names = [self._keys.generation(near.tag) for near in worth]
        names += approvals
        private = [near for near in worth if near.scope == "user"]
        if query.user is not None and private:
            names += [self._keys.own_generation(near.tag, query.user) for near in private]
            names += [near.key for near in private]
            names.append(self._keys.user_generation(query.user))
        try:
            unique = list(dict.fromkeys(names))
            return dict(zip(unique, await self._store.read(unique), strict=True))
        except BackendError:
            return {}

    def _weigh(
        self,
        query: Query,
        tuning: Tuning,
        near: Candidate,
        values: Mapping[str, str | None],
        denied: Sequence[Denylist],
    ) -> None:
        """Set `dead` and `gone` of *near*, which has an entry."""
        entry, now = near.entry or Entry(), self._store.now()
        stamp: str | None = entry.generation
        if values:
            user = query.user or ""
            stamp = Generation(
                values[self._keys.generation(near.tag)],
                values.get(self._keys.own_generation(near.tag, user)),
                values.get(self._keys.user_generation(user)),
            ).stamp(near.scope)
        if any(_denies(each, query, near, entry) for each in denied):
            stamp = None
        ttl = tuning.ttl("l2", entry.intent) if entry.ttl is None else entry.ttl
        # An unconfirmed entry may be invalidated: it must not be stale as well.
        grace = query.grace if values else 0.0
        near.dead = envelope.judge(entry, stamp, now, ttl, grace, query.max_age)
        near.gone = envelope.age(entry, now) > KEEP_FACTOR * ttl

    async def _discard(self, query: Query, near: Candidate) -> None:
        """Delete an unreadable entry."""
        log.limited("unreadable", "l2: an entry could not be read and was deleted")
        with contextlib.suppress(BackendError):
            if near.scope == "user":
                await self._store.delete([near.key])
            else:
                await self._vectors.index.remove(query.context, [near.tag])


def _denies(denylist: Denylist, query: Query, near: Candidate, entry: Entry) -> bool:
    return denylist.denies(entry, near.tag, near.scope, query.user) or _is_unsure(denylist, near)


def _is_unsure(denylist: Denylist, near: Candidate) -> bool:
    """Return whether a pending invalidation may include *near*: withheld, but not removed."""
    if near.scope in denylist.unsure:
        return True
    return not near.confirmed and (denylist.unlisted or near.tag in denylist.rows)
