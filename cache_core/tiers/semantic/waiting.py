"""Puts that wait for the embedding model to load."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeAlias

from cache_core.backends.base import Embedder, KeyValueStore
from cache_core.config.lifetimes import kept_seconds
from cache_core.config.tuning import Tuning
from cache_core.model import envelope
from cache_core.model.exceptions import BackendError
from cache_core.model.keys import Keys
from cache_core.model.values import Entry, Generation, NotStored, Query, Scope
from cache_core.tiers.denylist import Denylist
from cache_core.tiers.journal import Journal
from cache_core.tiers.semantic.similar import SimilarQuestions

_MOST = 1_000


Put: TypeAlias = Callable[[Query, Entry, Scope, Tuning], Awaitable[NotStored]]


class _Waiting(NamedTuple):
    """A put, with the journal's position when it was queued."""

    query: Query
    entry: Entry
    scope: Scope
    tuning: Tuning
    position: str


class WaitingPuts:
    """Queue of the newest `_MOST` puts.

    Each is checked against the invalidations that any process made meanwhile.

    Args:
        store: Store of entries and generations.
        keys: Names of both.
        similar: Makes a put findable by invalidations, and finds those that it has missed.
        journal: Log of broad invalidations.
        denylist: Denylist of entries not to put.
        embedder: The model that is waited for.
    """

    def __init__(
        self,
        store: KeyValueStore,
        keys: Keys,
        similar: SimilarQuestions,
        journal: Journal,
        denylist: Denylist,
        embedder: Embedder,
    ) -> None:
        self._store = store
        self._keys = keys
        self._similar = similar
        self._journal = journal
        self._denylist = denylist
        self._embedder = embedder
        self._puts: deque[_Waiting] = deque(maxlen=_MOST)
        self.dropped = 0
        """Puts lost because too many waited."""

    def add(
        self, query: Query, entry: Entry, scope: Scope, tuning: Tuning, position: str | None = None
    ) -> NotStored:
        """Queue a put.

        Args:
            query: The question.
            entry: Its answer.
            scope: Scope in which L2 stores it.
            tuning: Tuning in force at the put.
            position: Journal position after which invalidations concern the put; default: now's.
        """
        if position is None:
            position = self._journal.position
        self.dropped += len(self._puts) == _MOST
        self._puts.append(_Waiting(query, entry, scope, tuning, position))
        return "queued"

    def forget(self, user: str) -> None:
        """Drop a user's puts."""
        kept = [waiting for waiting in self._puts if waiting.query.user != user]
        self._puts.clear()
        self._puts.extend(kept)

    async def make(self, put: Put) -> None:
        """Make the puts, oldest first, if the model has loaded.

        Raises:
            BackendError: If a backend failed; the rest is made next time.
        """
        while self._puts and self._embedder.ready:
            first = self._puts[0]
            try:
                await self._make(first, put)
            except BackendError:
                if self._puts and self._puts[0] is first:
                    # The others are tried before it next time.
                    self._puts.rotate(-1)
                raise
            if self._puts and self._puts[0] is first:
                self._puts.popleft()

    async def _make(self, waiting: _Waiting, put: Put) -> None:
        query, entry, scope, tuning, position = waiting
        # An invalidated answer would only take space; one of an erased user must not be stored.
        if self._denylist.denies(entry, query.tag, scope, query.user):
            return
        if not await self._is_current(waiting) or await self._is_older(waiting):
            return
        life = kept_seconds(entry, "l2", tuning)
        await self._store.put_rows(await self._similar.arrival(query, scope, tuning, life))
        recent, _ = await self._journal.since(position)
        if recent is not None and not await self._similar.overtaken(
            query, entry.intent, scope, recent, tuning
        ):
            await put(query, entry, scope, tuning)
        if scope == "user" and not await self._is_current(waiting):
            tag, user, context = _place(waiting)
            await self._store.delete([self._keys.similar_entry(tag, user, context)])
            await self._store.delete_rows(self._keys.vectors(user, context), [tag])

    async def _is_current(self, waiting: _Waiting) -> bool:
        tokens = await self._store.read(self._keys.generations(waiting.query))
        current, entry = Generation(*tokens), waiting.entry
        return (
            current.stamp(waiting.scope) == entry.generation and current.user == entry.writer_token
        )

    async def _is_older(self, waiting: _Waiting) -> bool:
        """Return whether any process has put a newer answer meanwhile."""
        created = waiting.entry.created
        place = _place(waiting)
        if any(_place(other) == place and other.entry.created > created for other in self._puts):
            return True
        (text,) = await self._store.read([self._keys.similar_entry(*place)])
        if text is None and waiting.scope == "shared":
            # Entries of an index that all processes share are in it alone.
            text = await self._similar.shared_entry(waiting.query)
        return text is not None and envelope.created(text) > created


def _place(waiting: _Waiting) -> tuple[str, str, str]:
    """Return the tag, scope and context under which the answer is stored."""
    query = waiting.query
    return query.tag, query.scope(waiting.scope), query.context
