"""Embeddings and searches with a deadline, a breaker and a scope around each."""

from __future__ import annotations

from cache_core.backends.base import Embedder, Neighbour, Vector, VectorIndex, metered
from cache_core.backends.breaker import Breaker, Queueing
from cache_core.backends.deadline import Deadline
from cache_core.backends.embedder.vectors import VectorCheck
from cache_core.config.live import LiveTuning
from cache_core.config.settings import Settings
from cache_core.model.exceptions import BackendError, InputTooLongError
from cache_core.observability.instruments import Instruments
from cache_core.observability.records import EmbedRecord, SearchRecord

_UNRECORDED = Instruments()


class ObservedVectors:
    """A model and an index; each embedding is checked and ends in time, and all is recorded.

    Args:
        embedder: Makes the vectors.
        index: Is searched, within its own time limits.
        settings: Time limits of an embedding, and those of the embedder's breaker.
        instruments: Notified of every embedding and search.
        live: The tuning in force, with the prices of embeddings.
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
        self._check = VectorCheck(embedder.model)
        self._metered = metered(embedder)

    async def embed(self, text: str, *, hurry: bool = False, recorded: bool = True) -> Vector:
        """Return the vector of *text*.

        Raises:
            BackendError: After its time: `overloaded` while others were served, else `timeout`.
                Also for an invalid vector.
        """
        instruments = self._instruments if recorded else _UNRECORDED
        budget = self._settings.embedding_budget if hurry else self._settings.put_budget
        with instruments.operation(EmbedRecord()) as record, self.breaker, Queueing(self.breaker):
            try:
                async with Deadline(budget):
                    given: object = await self.embedder.embed(text)
            except BackendError as error:
                self._count_failure(error)
                raise
            finally:
                self._charge(record)
            vector = self._check(given)
            if self._metered is None:
                record.spent_usd = self._live.current.embedding_usd
            return vector

    def _count_failure(self, error: BackendError) -> None:
        """Count a failure of the model; a text that is too long, or a full queue, is none."""
        if error.reason in {"backend_error", "timeout"} and not isinstance(
            error, InputTooLongError
        ):
            self.breaker.fail(error)
            self.breaker.last = self.breaker.named(error.copy())

    def _charge(self, record: EmbedRecord) -> None:
        """Fill in what a metered model used since the last record.

        A request costs money even if the lookup that caused it has ended, and a vector that was
        kept costs none.
        """
        if self._metered is None:
            return
        tuning, usage = self._live.current, self._metered.take_usage()
        record.tokens = usage.tokens
        record.spent_usd = (
            usage.tokens / 1e6 * tuning.embedding_tokens_usd + usage.texts * tuning.embedding_usd
        )

    async def search(
        self, context: str, vector: Vector, count: int, *, recorded: bool = True
    ) -> list[Neighbour]:
        """Return up to *count* rows of a context, nearest first."""
        with (self._instruments if recorded else _UNRECORDED).operation(SearchRecord()):
            return await self.index.search(context, vector, count)
