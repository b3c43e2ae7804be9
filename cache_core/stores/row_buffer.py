"""Rows that wait to be written to a vector index, and are found meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cache_core.embedder import Vector
from cache_core.stores.vectors import Neighbour, Row

FLUSH_ROWS = 20
"""Rows written at once: 20 cost a tenth of 20 single ones."""

BUFFER_ROWS = 2_000
"""Rows that may wait while the index is away; more are dropped and counted."""

_WRITE_BYTES = 4 * 1_048_576
"""Text written at once, in characters: more might not arrive within its time, however often."""


class RowBuffer:
    """Rows by context and id; the newest of an id is the one that waits."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, Row]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def contexts(self) -> set[str]:
        """The contexts that have rows here."""
        return set(self._rows)

    def put(self, context: str, row: Row) -> bool:
        """Keep *row*; return whether there was room."""
        rows = self._rows.setdefault(context, {})
        if row.id not in rows:
            if self._count >= BUFFER_ROWS:
                return False
            self._count += 1
        rows[row.id] = row
        return True

    def search(self, context: str, vector: Vector) -> list[Neighbour]:
        """Return all rows of *context* that can be compared with *vector*, in no order."""
        rows = [
            row for row in self._rows.get(context, {}).values() if row.vector.shape == vector.shape
        ]
        if not rows:
            return []
        similarities = np.stack([row.vector for row in rows]) @ vector
        return [
            Neighbour(row.id, min(1.0, max(0.0, float(similarity))), row.text)
            for row, similarity in zip(rows, similarities, strict=True)
        ]

    def batch(self, context: str) -> list[Row]:
        """Return the first rows that can be one write: alike in dimension, few, and not too large.

        They stay until they are `written`; without any, the context goes.
        """
        batch: list[Row] = []
        size = 0
        for row in self._rows.get(context, {}).values():
            size += len(row.text)
            if batch and (
                len(batch) == 5 * FLUSH_ROWS
                or size > _WRITE_BYTES
                or row.vector.shape != batch[0].vector.shape
            ):
                break
            batch.append(row)
        if not batch:
            self._rows.pop(context, None)
        return batch

    def written(self, context: str, rows: Sequence[Row]) -> None:
        """Let go of *rows*; one that was put again meanwhile is a new object and stays."""
        kept = self._rows.get(context, {})
        for row in rows:
            if kept.get(row.id) is row:
                del kept[row.id]
                self._count -= 1

    def remove(self, context: str, ids: Sequence[str]) -> set[str]:
        """Let go of rows; return the ids of those that were here."""
        rows = self._rows.get(context, {})
        removed = {identity for identity in ids if rows.pop(identity, None) is not None}
        self._count -= len(removed)
        return removed

    def present(self, context: str, ids: Sequence[str]) -> set[str]:
        """Return those of *ids* that are here."""
        return self._rows.get(context, {}).keys() & set(ids)

    def clear(self) -> None:
        """Let go of everything."""
        self._rows.clear()
        self._count = 0
