"""The embedder and the vector index with a deadline, a breaker and a scope around each call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from cache_core.breaker import Breaker, Queueing
from cache_core.deadline import Deadline
from cache_core.embedder import Embedder, Remembering, Vector
from cache_core.instrumentation import Instruments
from cache_core.logs import RateLimited
from cache_core.stores.vectors import Neighbour, Row, VectorIndex

_UNIT_WITHIN = 1e-3
"""By what the length of a vector may differ from 1 before it is scaled."""


class InvalidVectorError(Exception):
    """What an embedder returned is no vector to search with."""


class VectorCheck:
    """Checks what an embedder returns; one for all who use the same embedder.

    A vector must have one axis, real and finite values, a length that is not 0, and as many values
    as the first one had. It is made a float32 unit vector if it is not: cosines rely on it.
    """

    def __init__(self) -> None:
        self._dimension: int | None = None

    def __call__(self, given: object) -> Vector:
        """Return *given* as a unit vector; raises `InvalidVectorError`."""
        import numpy as np  # of the `semantic` extra

        if not isinstance(given, np.ndarray):
            given = np.asarray(given)
        if given.dtype.kind not in "fiu":
            raise InvalidVectorError(f"values of type {given.dtype}, not float32")
        if given.ndim != 1 or given.size == 0:
            raise InvalidVectorError(f"an array of shape {given.shape}, not (dimension,)")
        if self._dimension is not None and given.size != self._dimension:
            msg = f"{given.size} values, where the first vector had {self._dimension}"
            raise InvalidVectorError(msg)
        length = float(np.linalg.norm(given.astype(np.float64)))
        if not np.isfinite(length):
            raise InvalidVectorError("a vector with values that are not finite")
        if length == 0:
            raise InvalidVectorError("a vector of zeros")
        self._dimension = given.size
        if abs(length - 1) > _UNIT_WITHIN:
            given = given.astype(np.float64) / length
        return given.astype(np.float32, copy=False)


class ObservedEmbedder:
    """An embedder whose `embed` ends within *budget* seconds, is checked and is recorded.

    Args:
        inner: Does the work.
        instruments: Told of every embedding.
        breaker: Of the embedder.
        budget: Seconds for one embedding.
        price: Returns what one embedding costs, in USD.
        check: Of *inner*'s vectors; one for all who share it.
    """

    def __init__(
        self,
        inner: Embedder,
        instruments: Instruments,
        breaker: Breaker,
        budget: float,
        price: Callable[[], float],
        check: VectorCheck | None = None,
    ) -> None:
        self._inner = inner
        self._check = check or VectorCheck()
        self._log = RateLimited(logging.getLogger("glasscache"))
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

    def forget(self) -> None:
        """Let the model keep nothing of what was asked."""
        if isinstance(self._inner, Remembering):
            self._inner.forget()

    def fits(self, text: str) -> bool:
        """Whether the model reads the whole *text*."""
        return self._inner.fits(text)

    def knows(self, text: str) -> bool:
        """Whether the model knows every part of *text*: it cannot tell unknown parts apart."""
        return self._inner.knows(text)

    def close(self) -> None:
        """Leave the inner one alone: the caches of a process share it."""

    async def embed(self, text: str) -> Vector:
        """Return the vector of *text*.

        Raises:
            BackendError: After *budget* seconds: `overloaded` while others were served, else
                `timeout`. Also for a vector that is none.
        """
        with self._instruments.operation("embed") as call, self.breaker, Queueing(self.breaker):
            async with Deadline(self._budget):
                given: object = await self._inner.embed(text)
            try:
                vector = self._check(given)
            except (InvalidVectorError, ValueError, TypeError) as error:
                self._log.limited(
                    "vector",
                    "l2: the embedder %r returned %s; it is not used",
                    self.model,
                    error if isinstance(error, InvalidVectorError) else "what is no array",
                )
                raise
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
