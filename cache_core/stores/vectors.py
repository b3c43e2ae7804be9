"""What an index of shared answers can do, whoever keeps it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from cache_core.breaker import Breaker
from cache_core.embedder import Vector


@dataclass(frozen=True, slots=True)
class Row:
    """One shared answer in the index.

    Attributes:
        id: Tag of the message; one row per message and context.
        vector: The message's unit vector.
        text: The entry's envelope.
        dropped: The store's time, in seconds, after which the row may be swept.
    """

    id: str
    vector: Vector
    text: str
    dropped: float


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A row near a vector.

    Attributes:
        id: Of the row.
        similarity: The cosine, clipped to 0..1.
        text: The row's; `None` if it was removed while it was being searched.
    """

    id: str
    similarity: float
    text: str | None


class VectorIndex(Protocol):
    """Shared answers by similarity, in one index per context.

    Coroutines raise `BackendError` and nothing else.
    """

    @property
    def breaker(self) -> Breaker:
        """The breaker of the backend behind this index."""
        ...

    async def open(self) -> None:
        """Connect. Never raises: an unreachable backend is tried again by `tend`."""
        ...

    async def close(self) -> None:
        """Write out what waits, and give everything back; idempotent."""
        ...

    def abandon(self) -> None:
        """Give everything back after the event loop has ended; idempotent. What waits is lost."""
        ...

    async def tend(self, now: float) -> None:
        """Do what is due every second: reconnect, write out, sweep what was dropped by *now*."""
        ...

    async def search(self, context: str, vector: Vector, count: int) -> list[Neighbour]:
        """Return up to *count* rows of a context, nearest first."""
        ...

    async def add(self, context: str, row: Row) -> bool:
        """Store a row, found by `search` from now on; False if there are too many contexts."""
        ...

    def accepts(self, context: str) -> bool:
        """Whether `add` takes rows of a context: it has an index, or may get one."""
        ...

    async def remove(self, context: str, ids: Sequence[str]) -> int:
        """Remove rows; return how many there were. They are not found any more."""
        ...

    async def present(self, context: str, ids: Sequence[str]) -> set[str]:
        """Return those of *ids* that have a row."""
        ...

    async def contexts(self) -> Sequence[str]:
        """Return the contexts that have an index."""
        ...

    async def count(self) -> int:
        """Return the number of rows in all contexts."""
        ...


WrapIndex: TypeAlias = Callable[[VectorIndex], VectorIndex]
"""Returns what is to be used in the place of an index: something around it."""
