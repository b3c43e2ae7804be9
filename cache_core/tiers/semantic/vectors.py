"""The vectors of texts and the search for what is near one, as L2 asks for them."""

from __future__ import annotations

from typing import Protocol

from cache_core.backends.base import Embedder, Neighbour, Vector, VectorIndex


class Vectors(Protocol):
    """The model and the index of shared answers. Vectors and searches are asked for here only."""

    @property
    def embedder(self) -> Embedder:
        """The model, for everything but its vectors."""
        ...

    @property
    def index(self) -> VectorIndex:
        """The index, for everything but searches."""
        ...

    async def embed(self, text: str, *, hurry: bool = False, recorded: bool = True) -> Vector:
        """Return the unit vector of *text*.

        Args:
            text: A message.
            hurry: Whether it has the time limit of a lookup, not that of a put.
            recorded: Whether instruments see it.

        Raises:
            BackendError: If there is none in time, or what the model returned is none.
        """
        ...

    async def search(
        self, context: str, vector: Vector, count: int, *, recorded: bool = True
    ) -> list[Neighbour]:
        """Return up to *count* shared rows of a context, nearest first; raises `BackendError`."""
        ...
