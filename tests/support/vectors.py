"""A model and an index without time limits, breaker and instruments."""

from __future__ import annotations

from dataclasses import dataclass

from cache_core.backends.base import Embedder, Neighbour, Vector, VectorIndex


@dataclass(frozen=True)
class PlainVectors:
    """Vectors of a model, and searches of an index, as they are."""

    embedder: Embedder
    index: VectorIndex

    async def embed(self, text: str, *, hurry: bool = False, recorded: bool = True) -> Vector:
        return await self.embedder.embed(text)

    async def search(
        self, context: str, vector: Vector, count: int, *, recorded: bool = True
    ) -> list[Neighbour]:
        return await self.index.search(context, vector, count)
