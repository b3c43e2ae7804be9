"""L2: answers to questions with the same meaning."""

from __future__ import annotations

import asyncio

from cache_core.backends.base import Keyed, Row, Write
from cache_core.config.lifetimes import kept_seconds
from cache_core.config.tuning import Tuning
from cache_core.model import envelope
from cache_core.model.exceptions import BackendError, InputTooLongError
from cache_core.model.keys import Keys
from cache_core.model.values import Entry, Generation, Hit, Level, Miss, NotStored, Query, Scope
from cache_core.tiers.guards.language import readable
from cache_core.tiers.semantic.foreign import ForeignNotice
from cache_core.tiers.semantic.private_vectors import pack, private_rows
from cache_core.tiers.semantic.rows import SharedRows
from cache_core.tiers.semantic.search import SemanticSearch
from cache_core.tiers.semantic.similar import SimilarQuestions
from cache_core.tiers.semantic.vectors import Vectors
from cache_core.tiers.semantic.waiting import WaitingPuts


class SemanticTier:
    """The semantic tier.

    Args:
        store: Store of private vectors, private entries and generations.
        keys: Names of the entries.
        search: Finds the answer to a similar question.
        vectors: Makes vectors for puts, which may wait.
        rows: Adds shared answers to the index.
        waiting: Puts that wait for the model.
        alone: Whether no keyed tier reads the message's generation before this one.
    """

    level: Level = "l2"

    def __init__(
        self,
        store: Keyed,
        keys: Keys,
        search: SemanticSearch,
        vectors: Vectors,
        rows: SharedRows,
        waiting: WaitingPuts,
        *,
        alone: bool = False,
    ) -> None:
        self._store = store
        self._keys = keys
        self._search = search
        self._vectors = vectors
        self._embedder = vectors.embedder
        self._alone = alone
        self._notice = ForeignNotice()
        self.rows = rows
        self.waiting = waiting

    @property
    def ready(self) -> bool:
        """True once puts need not wait for the model."""
        return self._embedder.ready

    @property
    def similar(self) -> SimilarQuestions:
        """Finds stored questions that L2 treats as the same."""
        return self.rows.similar

    async def get(self, query: Query, tuning: Tuning) -> Hit | Miss:
        """Return the answer to the most similar live question that no guard vetoes."""
        if not self._alone:
            return await self._search.get(query, tuning)
        reading = asyncio.ensure_future(self._generation(query))
        try:
            answer = await self._search.get(query, tuning)
            return answer._replace(generation=await reading)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _generation(self, query: Query) -> Generation | None:
        try:
            return Generation(*await self._store.read(self._keys.generations(query)))
        except BackendError:
            return None

    async def put(self, query: Query, entry: Entry, scope: Scope, tuning: Tuning) -> NotStored:
        """Store the answer; while the model is loading, queue it."""
        if query.history:
            return "has_history"
        if not self._embedder.ready:
            return self.waiting.add(query, entry, scope, tuning)
        if not self._embedder.fits(query.text):
            return "truncated"
        understood = readable(query.text, tuning.guards)
        self._notice.note(foreign=not understood)
        if not (understood and self._embedder.knows(query.text)):
            return "unreadable"
        if scope == "shared" and not self.rows.accepts(query.context):
            return "context_limit"
        try:
            # Counted already, when the put made itself known.
            vector = await self._vectors.embed(query.text, recorded=False)
        except InputTooLongError:
            return "truncated"
        digest = query.scope(scope)
        key = self._keys.similar_entry(query.tag, digest, query.context)
        part = entry._replace(scope=digest, message=query.text, rag_results=None, tagged=False)
        text = envelope.encode(part, key, self._keys.sealer)
        kept = kept_seconds(entry, "l2", tuning)
        if scope == "shared":
            row = Row(query.tag, vector, text, entry.created + kept)
            write = Write(key, text, kept)
            return await self.rows.add(query.context, row, write, entry)
        await self._store.put_rows(private_rows(self._keys, query, pack(vector), kept))
        await self._store.write([Write(key, text, kept)])
        return ""

    async def tend(self) -> None:
        """Make the puts that waited for the model; remove dead and outdated rows.

        The index must have written its earlier rows.

        Raises:
            BackendError: If a backend failed; the rest is done next time.
        """
        try:
            await self.waiting.make(self.put)
        finally:
            await self.rows.tend()
