"""Recognition of the same answer where neither names nor texts are equal: by facts and vectors.

Facts take a millisecond for 100 characters, in a thread. Vectors take a model: nothing that a user
waits for may ask for those.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from cache_core.backends.embedder.encoder import PACKAGED_MODEL
from cache_core.model.exceptions import BackendError
from cache_core.model.logs import RateLimited, place_of
from cache_core.model.tasks import background, end_all, heed_cancellation, off_loop
from cache_core.policy.answers import (
    AnswerText,
    Verdict,
    judged,
    named_or_equal,
    same_documents,
)
from cache_core.tiers.guards.answers import compare
from cache_core.tiers.semantic.vectors import Vectors

log = RateLimited(logging.getLogger("glasscache"))

WAITING = 32
"""Comparisons by vectors that may wait for the model."""

_REST = 4.0
"""Times as long as a comparison by vectors took that the next one waits: lookups want the model."""

_LONGEST_REST = 2.0
"""Seconds."""


class Recognition:
    """Compares answers, by vectors one pair at a time.

    Args:
        vectors: The model of L2; `None` without L2.
    """

    def __init__(self, vectors: Vectors | None) -> None:
        # Cosines of another model have another scale, for which no bounds were chosen.
        chosen = vectors is not None and _name(vectors) == PACKAGED_MODEL
        self._vectors = vectors if chosen else None
        self._tasks: set[asyncio.Task[None]] = set()
        self._reading: set[asyncio.Task[float | None]] = set()
        self._turn = asyncio.Semaphore(1)
        self._closed = False

    @property
    def full(self) -> bool:
        """True while as many comparisons wait as may, and once this is closed."""
        return self._closed or len(self._tasks) >= WAITING

    def start(self, work: Callable[[], Awaitable[None]]) -> None:
        """Begin with something that asks for vectors, in the background."""
        task = asyncio.get_running_loop().create_task(_quietly(work), context=background())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def forget(self) -> None:
        """Let what asks for vectors end as unknown: it may hold a forgotten user's texts."""
        for task in self._reading:
            task.cancel()

    async def close(self) -> None:
        """Cancel what is in the background."""
        self._closed = True
        await end_all(self._tasks)

    async def at_once(self, one: AnswerText, other: AnswerText) -> Verdict | None:
        """Return what names, texts and facts say of two answers; `None` if vectors may say more.

        The same documents are no proof: a document that was changed is why its answers changed.
        """
        sure = named_or_equal(one, other)
        if sure is not None:
            return "same" if sure else "different"
        facts = await off_loop(compare, one.text, other.text)
        if facts == "conflict":
            return "different"
        if facts == "agree" and same_documents(one, other):
            return "same"
        readable = facts == "agree" and self._reads(one.text) and self._reads(other.text)
        return None if readable else "unknown"

    async def verdict(self, one: AnswerText, other: AnswerText) -> Verdict:
        """Return whether two answers are the same; unknown where nothing tells."""
        sure = named_or_equal(one, other)
        if sure is not None:
            return "same" if sure else "different"
        of_one_source = same_documents(one, other)
        if not (of_one_source or (self._reads(one.text) and self._reads(other.text))):
            return "unknown"
        facts = await off_loop(compare, one.text, other.text)
        if facts == "conflict":
            return "different"
        if of_one_source:
            return "same"
        return await self.by_vectors(one, other, agree=facts == "agree")

    async def by_vectors(self, one: AnswerText, other: AnswerText, *, agree: bool) -> Verdict:
        """Return what the vectors of two answers say, whose facts *agree* or are in doubt."""
        reading = asyncio.create_task(self._in_turn(one.text, other.text))
        self._reading.add(reading)
        reading.add_done_callback(self._reading.discard)
        try:
            similarity = await reading
        except asyncio.CancelledError:
            heed_cancellation()
            return "unknown"
        return "unknown" if similarity is None else judged(similarity, agree=agree)

    def _reads(self, text: str) -> bool:
        """Return whether the model is there and reads the whole *text*."""
        if self._vectors is None or not self._vectors.embedder.ready:
            return False
        embedder = self._vectors.embedder
        return embedder.fits(text) and embedder.knows(text)

    async def _in_turn(self, one: str, other: str) -> float | None:
        """Return the cosine of two answers, so that the model has most of its time for lookups."""
        await self._turn.acquire()
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            return await self._similarity(one, other)
        finally:
            rest = min(_REST * (loop.time() - began), _LONGEST_REST)
            loop.call_later(rest, self._turn.release)

    async def _similarity(self, one: str, other: str) -> float | None:
        """Return the cosine of two answers; `None` if the model did not answer in time."""
        if self._vectors is None:
            return None
        try:
            # Not recorded: instruments show what lookups and puts wait for, and it costs no money.
            ours = await self._vectors.embed(one, recorded=False)
            theirs = await self._vectors.embed(other, recorded=False)
        except BackendError:
            return None
        return float(ours @ theirs)


async def _quietly(work: Callable[[], Awaitable[None]]) -> None:
    try:
        await work()
    except Exception as error:  # noqa: BLE001 - the loop would log it, with the texts
        log.limited("compare", "unexpected %s; please report it", place_of(error))


def _name(vectors: Vectors) -> str:
    return vectors.embedder.model.rpartition("/")[2]
