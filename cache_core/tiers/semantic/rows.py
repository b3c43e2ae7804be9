"""Rows of shared answers: added, replicated, and removed once they are dead or outdated."""

from __future__ import annotations

from cache_core.backends.base import KeyValueStore, Row, VectorIndex, Write
from cache_core.model import envelope
from cache_core.model.keys import Keys
from cache_core.model.values import Entry, NotStored, Query
from cache_core.tiers.semantic.replication import IndexFeed
from cache_core.tiers.semantic.similar import SimilarQuestions

_MOST_LATE = 10_000
_TOGETHER = 1_000


class SharedRows:
    """Rows that this process adds to the vector index, and dead ones that it found there.

    A row is written a little after its put. In between, an invalidation in another process or an
    erasure cannot remove it; while the store is unavailable the row would be served, unconfirmed.
    So each is checked once it has been written.

    Args:
        store: Store of the generations.
        keys: Names of the generations.
        index: Gets the rows.
        feed: Log from which other processes build their indexes.
        similar: Keeps rows findable by invalidations until they are in the index.
    """

    def __init__(
        self,
        store: KeyValueStore,
        keys: Keys,
        index: VectorIndex,
        feed: IndexFeed,
        similar: SimilarQuestions,
    ) -> None:
        self._store = store
        self._keys = keys
        self._index = index
        self._feed = feed
        self.similar = similar
        self._dead: dict[str, set[str]] = {}
        self._late: dict[tuple[str, str], Entry] = {}
        self._waited: set[tuple[str, str]] = set()
        self.refused_contexts = 0
        """Puts rejected because the namespace has too many contexts."""

    def accepts(self, context: str) -> bool:
        """Return whether the index has room for *context*; count a put if not."""
        accepted = self._index.accepts(context)
        self.refused_contexts += not accepted
        return accepted

    async def add(self, context: str, row: Row, write: Write | None, entry: Entry) -> NotStored:
        """Add a row.

        Args:
            context: Digest of the context.
            row: The row, with its envelope.
            write: The same envelope, for an index of this process alone; `None` if the store has
                it.
            entry: The envelope's entry.

        Raises:
            BackendError: If a backend failed.
        """
        if not await self._index.add(context, row):
            self.refused_contexts += 1
            return "context_limit"
        if self._feed.own_index:
            if write is not None:
                await self._store.write([write])
            await self._feed.put(context, row)
        if len(self._late) < _MOST_LATE:
            # Without its texts, which would take memory.
            self._late[context, row.id] = Entry(
                created=entry.created,
                generation=entry.generation,
                writer=entry.writer,
                writer_token=entry.writer_token,
            )
        return ""

    async def text_of(self, query: Query) -> str | None:
        """Return the envelope that only the index has of a message; `None` without one.

        Raises:
            BackendError: If the index failed.
        """
        if self._feed.own_index:
            return None
        return (await self._index.texts(query.context, [query.tag])).get(query.tag)

    def note_dead(self, context: str, tag: str) -> None:
        """Have `tend` remove a row that must not be served any more."""
        self._dead.setdefault(context, set()).add(tag)

    async def keep_findable(self) -> None:
        """Keep rows findable by invalidations while the index is unavailable.

        Raises:
            BackendError: If the store failed.
        """
        late = list(self._late)
        if self._index.breaker.state != "closed":
            self._waited.update(late)
        await self.similar.renew_arriving([tag for _, tag in late])

    async def tend(self) -> None:
        """Remove outdated and dead rows; earlier puts must have been written.

        Raises:
            BackendError: If a backend failed; the rest is removed next time.
        """
        await self._remove_outdated()
        dead = dict(self._dead)
        self._dead.clear()
        for context, tags in dead.items():
            await self._index.remove(context, sorted(tags))

    async def _remove_outdated(self) -> None:
        """Remove rows whose message or writer was invalidated before they were written.

        So are rows that waited until they were no longer findable: an invalidation of a similar
        question may have missed them. A newer put of the same message stays.
        """
        late = list(self._late.items())[:_TOGETHER]
        if not late:
            return
        tokens = {self._keys.generation(tag) for (_, tag), _ in late}
        writers = {self._keys.user_generation(entry.writer) for _, entry in late if entry.writer}
        names = [*tokens, *writers]
        found = dict(zip(names, await self._store.read(names), strict=True))
        lost = await self.similar.not_arriving(
            [place[1] for place, _ in late if place in self._waited]
        )
        outdated: dict[str, dict[str, Entry]] = {}
        for (context, tag), entry in late:
            message = found[self._keys.generation(tag)]
            writer = found.get(self._keys.user_generation(entry.writer))
            overtaken = message != entry.generation or (
                entry.writer and writer != entry.writer_token
            )
            if overtaken or ((context, tag) in self._waited and tag in lost):
                outdated.setdefault(context, {})[tag] = entry
        for context, entries in outdated.items():
            texts = await self._index.texts(context, list(entries))
            same = [tag for tag, text in texts.items() if envelope.is_of(text, entries[tag])]
            await self._index.remove(context, same)
        for place, entry in late:
            # A row that was put again meanwhile is checked again.
            if self._late.get(place) is entry:
                del self._late[place]
                self._waited.discard(place)
