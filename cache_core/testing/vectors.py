"""A vector index that fails when it is told to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from cache_core.breaker import Breaker
from cache_core.embedder import Vector
from cache_core.stores.vectors import Neighbour, Row, VectorIndex
from cache_core.testing.faults import Faults, kept

_T = TypeVar("_T")


class ChaosVectors:
    """A vector index around another one: what *faults* says happens to its calls.

    Give it to a cache with `MultiLevelCache(wrap_index=lambda index: ChaosVectors(index, faults))`.
    It keeps the contract of `VectorIndex`. `corrupt` changes what a row says, never how near it is:
    no cache can tell a wrong distance from a right one.

    Args:
        inner: Does the work.
        faults: What happens.
        search_timeout: Seconds after which a search that hangs fails.
        write_timeout: The same for everything else.
    """

    def __init__(
        self,
        inner: VectorIndex,
        faults: Faults,
        *,
        search_timeout: float = 0.15,
        write_timeout: float = 2.0,
    ) -> None:
        self.inner = inner
        self.faults = faults
        self._search_timeout = search_timeout
        self._write_timeout = write_timeout
        self._seen: list[str] = []

    @property
    def breaker(self) -> Breaker:
        """The inner index's breaker."""
        return self.inner.breaker

    async def open(self) -> None:
        """Open the inner index."""
        await self.inner.open()

    async def close(self) -> None:
        """Close the inner index."""
        await self.inner.close()

    def abandon(self) -> None:
        """Abandon the inner index."""
        self.inner.abandon()

    async def _ask(self, name: str, work: Callable[[], Awaitable[_T]]) -> _T:
        return await self.faults.around(name, work, self.breaker, self._write_timeout)

    async def _change(self, name: str, work: Callable[[], Awaitable[_T]]) -> _T:
        return await self.faults.around(name, work, self.breaker, self._write_timeout, writes=True)

    async def tend(self, now: float) -> None:
        """Do what is due every second."""
        await self._ask("tend", lambda: self.inner.tend(now))

    async def search(self, context: str, vector: Vector, count: int) -> list[Neighbour]:
        """Return the nearest rows, what they say perhaps corrupt."""
        found = await self.faults.around(
            "search",
            lambda: self.inner.search(context, vector, count),
            self.breaker,
            self._search_timeout,
        )
        for near in found:
            kept(self._seen, near.text)
        return [
            near
            if near.text is None
            else replace(near, text=self.faults.garbled(near.text, "search", self._seen))
            for near in found
        ]

    async def add(self, context: str, row: Row) -> bool:
        """Store a row."""
        return await self._change("add", lambda: self.inner.add(context, row))

    def accepts(self, context: str) -> bool:
        """Whether the inner index takes rows of a context."""
        return self.inner.accepts(context)

    async def remove(self, context: str, ids: Sequence[str]) -> int:
        """Remove rows."""
        return await self._change("remove", lambda: self.inner.remove(context, ids))

    async def present(self, context: str, ids: Sequence[str]) -> set[str]:
        """Return those of *ids* that have a row."""
        return await self._ask("present", lambda: self.inner.present(context, ids))

    async def contexts(self) -> Sequence[str]:
        """Return the contexts that have an index."""
        return await self._ask("contexts", self.inner.contexts)

    async def count(self) -> int:
        """Return the number of rows."""
        return await self._ask("count", self.inner.count)
