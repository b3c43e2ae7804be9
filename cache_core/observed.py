"""The embedder and the vector index with a deadline, a breaker and a scope around each call."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cache_core.breaker import Breaker
from cache_core.deadline import Deadline
from cache_core.embedder import Embedder, Vector
from cache_core.instrumentation import Instruments
from cache_core.stores.vectors import Neighbour, Row, VectorIndex


class ObservedEmbedder:
    """An embedder whose `embed` ends within *budget* seconds and is recorded.

    Args:
        inner: Does the work.
        instruments: Told of every embedding.
        breaker: Of the embedder.
        budget: Seconds for one embedding.
        price: Returns what one embedding costs, in USD.
    """

    def __init__(
        self,
        inner: Embedder,
        instruments: Instruments,
        breaker: Breaker,
        budget: float,
        price: Callable[[], float],
    ) -> None:
        self._inner = inner
        self._instruments = instruments
        self._budget = budget
        self._price = price
        self.breaker = breaker

    @property
    def model(self) -> str:
        """Name of the model."""
        return self._inner.model

    @property
    def ready(self) -> bool:
        """Whether the model is loaded."""
        return self._inner.ready

    @property
    def failed(self) -> bool:
        """Whether the model could not be loaded."""
        return self._inner.failed

    def start(self) -> None:
        """Begin to load in the background."""
        self._inner.start()

    async def wait_ready(self) -> None:
        """Wait until the model is loaded."""
        await self._inner.wait_ready()

    def fits(self, text: str) -> bool:
        """Whether the model reads the whole *text*."""
        return self._inner.fits(text)

    def knows(self, text: str) -> bool:
        """Whether the model knows every part of *text*: it cannot tell unknown parts apart."""
        return self._inner.knows(text)

    def close(self) -> None:
        """Leave the inner one alone: the caches of a process share it."""

    async def embed(self, text: str) -> Vector:
        """Return the vector of *text*; raises `BackendError` after *budget* seconds."""
        with self._instruments.operation("embed") as call, self.breaker:
            async with Deadline(self._budget):
                vector = await self._inner.embed(text)
            call.spent_usd = self._price()
            return vector


class ObservedIndex:
    """A vector index whose `search` is recorded."""

    def __init__(self, inner: VectorIndex, instruments: Instruments) -> None:
        self._inner = inner
        self._instruments = instruments

    @property
    def breaker(self) -> Breaker:
        """The breaker of the index."""
        return self._inner.breaker

    async def open(self) -> None:
        """Connect."""
        await self._inner.open()

    async def close(self) -> None:
        """Write out what waits, and give everything back."""
        await self._inner.close()

    def abandon(self) -> None:
        """Give everything back after the event loop has ended."""
        self._inner.abandon()

    async def tend(self, now: float) -> None:
        """Do what is due every second."""
        await self._inner.tend(now)

    async def search(self, context: str, vector: Vector, count: int) -> list[Neighbour]:
        """Return up to *count* rows, nearest first."""
        with self._instruments.operation("search"):
            return await self._inner.search(context, vector, count)

    async def add(self, context: str, row: Row) -> bool:
        """Store a row."""
        return await self._inner.add(context, row)

    def accepts(self, context: str) -> bool:
        """Whether `add` takes rows of a context."""
        return self._inner.accepts(context)

    async def remove(self, context: str, ids: Sequence[str]) -> int:
        """Remove rows."""
        return await self._inner.remove(context, ids)

    async def present(self, context: str, ids: Sequence[str]) -> set[str]:
        """Return those of *ids* that have a row."""
        return await self._inner.present(context, ids)

    async def contexts(self) -> Sequence[str]:
        """Return the contexts that have an index."""
        return await self._inner.contexts()

    async def count(self) -> int:
        """Return the number of rows."""
        return await self._inner.count()
