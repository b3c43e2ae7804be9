"""Index of shared answers in memory, for processes that cannot have one on disk.

Rows come from replication, which has the last 20,000 shared answers of all processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cache_core.backends.base import Neighbour, Row, Vector
from cache_core.backends.breaker import Breaker

MOST_ROWS = 10_000
"""Rows kept in all contexts together; searching them blocks the event loop for about 2 ms."""


class _Context:
    """Rows of one context, their vectors in one array."""

    def __init__(self, dimension: int) -> None:
        self.rows: list[Row] = []
        self.places: dict[str, int] = {}
        self._vectors: npt.NDArray[np.float32] = np.empty((64, dimension), np.float32)

    def fits(self, vector: Vector) -> bool:
        return vector.shape == self._vectors.shape[1:]

    def put(self, row: Row) -> None:
        place = self.places.get(row.id, len(self.rows))
        if place == len(self.rows):
            self.rows.append(row)
            self.places[row.id] = place
            if place == len(self._vectors):
                self._vectors = np.concatenate([self._vectors, np.empty_like(self._vectors)])
        self.rows[place], self._vectors[place] = row, row.vector

    def remove(self, identity: str) -> None:
        """Remove a row and move the last one to its place."""
        place, last = self.places.pop(identity), self.rows.pop()
        if place < len(self.rows):
            self.rows[place], self.places[last.id] = last, place
            self._vectors[place] = self._vectors[len(self.rows)]

    def nearest(self, vector: Vector, count: int) -> list[Neighbour]:
        similarities = self._vectors[: len(self.rows)] @ vector
        nearest = np.argsort(-similarities)[:count]
        return [
            Neighbour(
                self.rows[place].id,
                min(1.0, max(0.0, float(similarities[place]))),
                self.rows[place].text,
            )
            for place in nearest
        ]


class MemoryIndex:
    """The newest shared answers, in memory.

    Args:
        max_contexts: Maximal number of contexts.
        most_rows: Maximal number of rows; a new one evicts the oldest.
    """

    place = ""
    """Empty: a new process replicates from the beginning of the log."""
    connected = True
    collection: Any = None
    dropped = 0

    def __init__(self, max_contexts: int = 64, most_rows: int = MOST_ROWS) -> None:
        self.breaker = Breaker("chroma")
        self._contexts: dict[str, _Context] = {}
        self._order: dict[tuple[str, str], None] = {}
        self._max_contexts = max_contexts
        self._most_rows = most_rows

    async def open(self) -> None:
        """Do nothing: it is open."""

    async def close(self) -> None:
        """Do nothing: all rows are in the replication log."""

    def abandon(self) -> None:
        """Do nothing."""

    async def tend(self, now: float) -> None:
        """Remove the rows that were dropped by *now*."""
        for name, context in list(self._contexts.items()):
            await self.remove(name, [row.id for row in context.rows if row.dropped < now])

    async def search(self, context: str, vector: Vector, count: int) -> list[Neighbour]:
        """Return up to *count* rows of a context, nearest first."""
        rows = self._contexts.get(context)
        return rows.nearest(vector, count) if rows is not None and rows.fits(vector) else []

    async def add(self, context: str, row: Row) -> bool:
        """Store a row; False if there are too many contexts."""
        if not self.accepts(context):
            return False
        rows = self._contexts.setdefault(context, _Context(row.vector.size))
        if rows.fits(row.vector):
            rows.put(row)
            self._order.pop((context, row.id), None)
            self._order[context, row.id] = None
            if len(self._order) > self._most_rows:
                oldest, identity = next(iter(self._order))
                await self.remove(oldest, [identity])
        return True

    def accepts(self, context: str) -> bool:
        """Return whether a context has rows, or may get some."""
        return context in self._contexts or len(self._contexts) < self._max_contexts

    async def remove(self, context: str, ids: Sequence[str]) -> int:
        """Remove rows; return how many there were."""
        present = list(await self.texts(context, ids))
        for identity in present:
            self._contexts[context].remove(identity)
            del self._order[context, identity]
        if present and not self._contexts[context].rows:
            del self._contexts[context]
        return len(present)

    async def purge(self, context: str) -> None:
        """Do nothing: removed rows leave no trace."""

    async def texts(self, context: str, ids: Sequence[str]) -> dict[str, str]:
        """Return the texts of those of *ids* that have a row."""
        rows = self._contexts.get(context)
        if rows is None:
            return {}
        return {one: rows.rows[rows.places[one]].text for one in ids if one in rows.places}

    async def contexts(self) -> Sequence[str]:
        """Return the contexts that have rows."""
        return sorted(self._contexts)

    async def count(self) -> int:
        """Return the number of rows in all contexts."""
        return len(self._order)
