"""Embeddings and searches with a deadline, a breaker and a scope around each."""

from __future__ import annotations

import logging

from cache_core.backends.base import Embedder, Neighbour, Vector, VectorIndex
from cache_core.backends.breaker import Breaker, Queueing
from cache_core.backends.deadline import Deadline
from cache_core.config.live import LiveTuning
from cache_core.config.settings import Settings
from cache_core.model.logs import RateLimited
from cache_core.observability.instruments import Instruments
from cache_core.observability.records import EmbedRecord, SearchRecord

_UNRECORDED = Instruments()
_UNIT_WITHIN = 1e-3
"""Deviation of a vector's length from 1 above which it is scaled."""


class InvalidVectorError(Exception):
    """An embedder returned an unusable vector."""


class VectorCheck:
    """Checks the vectors of one embedder.

    A vector must have one axis, real and finite values, a length other than 0, and as many values
    as the first one. It is converted to a float32 unit vector: cosines rely on it.
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


class ObservedVectors:
    """A model and an index; each embedding is checked and ends in time, and all is recorded.

    Args:
        embedder: Makes the vectors.
        index: Is searched, within its own time limits.
        settings: Time limits of an embedding, and those of the embedder's breaker.
        instruments: Notified of every embedding and search.
        live: The tuning in force, with the cost of one embedding.
    """

    def __init__(
        self,
        embedder: Embedder,
        index: VectorIndex,
        settings: Settings,
        instruments: Instruments,
        live: LiveTuning,
    ) -> None:
        self.embedder = embedder
        self.index = index
        self.breaker = Breaker(
            "embedder", failures=settings.breaker_failures, probe_seconds=settings.breaker_probe
        )
        self.breaker.where = embedder.model
        self._settings = settings
        self._instruments = instruments
        self._live = live
        self._check = VectorCheck()
        self._log = RateLimited(logging.getLogger("glasscache"))

    async def embed(self, text: str, *, hurry: bool = False, recorded: bool = True) -> Vector:
        """Return the vector of *text*.

        Raises:
            BackendError: After its time: `overloaded` while others were served, else `timeout`.
                Also for an invalid vector.
        """
        instruments = self._instruments if recorded else _UNRECORDED
        budget = self._settings.embedding_budget if hurry else self._settings.put_budget
        with instruments.operation(EmbedRecord()) as record, self.breaker, Queueing(self.breaker):
            async with Deadline(budget):
                given: object = await self.embedder.embed(text)
            try:
                vector = self._check(given)
            except (InvalidVectorError, ValueError, TypeError) as error:
                self._log.limited(
                    "vector",
                    "l2: the embedder %r returned %s; it is not used",
                    self.embedder.model,
                    error if isinstance(error, InvalidVectorError) else "what is no array",
                )
                raise
            record.spent_usd = self._live.current.embedding_usd
            return vector

    async def search(
        self, context: str, vector: Vector, count: int, *, recorded: bool = True
    ) -> list[Neighbour]:
        """Return up to *count* rows of a context, nearest first."""
        with (self._instruments if recorded else _UNRECORDED).operation(SearchRecord()):
            return await self.index.search(context, vector, count)
