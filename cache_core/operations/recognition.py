"""Recognition of the same answer where neither names nor texts are equal: by facts and vectors.

Facts take a millisecond for 100 characters, in a thread. Vectors take a model: nothing that a user
waits for may ask for those.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from cache_core.backends.base import Embedder, Vector
from cache_core.backends.embedder.encoder import PACKAGED_MODEL, is_packaged
from cache_core.backends.embedder.identity import identity_of
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
"""Comparisons that may wait for vectors."""

_KEPT = 1_000
"""Answers whose vectors are kept, those compared last: 1.5 MB."""

_REST = 4.0
"""Times as long as an embedding took that the next one waits: lookups want the model."""

_LONGEST_REST = 2.0
"""Seconds."""

_PATIENCE = 60.0
"""Seconds for which a comparison waits for its vectors: copies of an answer that may have changed
are served meanwhile."""


class Recognition:
    """Compares answers, by vectors with at most one embedding for each put.

    Two answers that were never compared need two, so such a pair waits for the next put.

    Args:
        vectors: The model of L2; `None` without L2.
    """

    def __init__(self, vectors: Vectors | None) -> None:
        # Cosines of another model have another scale, for which no bounds were chosen.
        chosen = vectors is not None and _is_packaged(vectors.embedder)
        self._vectors = vectors if chosen else None
        self._tasks: set[asyncio.Task[None]] = set()
        self._reading: set[asyncio.Task[float | None]] = set()
        self._turn = asyncio.Semaphore(1)
        self._allowed = asyncio.Semaphore(0)
        self._rests_until = 0.0
        self._kept: OrderedDict[str, Vector] = OrderedDict()
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

    def allow(self) -> None:
        """Allow one embedding, for a put; what an earlier put did not need is not saved up."""
        if self._allowed.locked():
            self._allowed.release()

    def forget(self) -> None:
        """Let what asks for vectors end as unknown, and drop those: of a forgotten user's texts."""
        self._kept.clear()
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
        reading = asyncio.create_task(self._similarity(one.text, other.text))
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

    async def _similarity(self, one: str, other: str) -> float | None:
        """Return the cosine of two answers; `None` if their vectors were not there in time."""
        if self._vectors is None:
            return None
        try:
            async with asyncio.timeout(_PATIENCE):
                ours = await self._vector(self._vectors, one)
                theirs = await self._vector(self._vectors, other)
        except (BackendError, TimeoutError):
            return None
        return float(ours @ theirs)

    async def _vector(self, vectors: Vectors, text: str) -> Vector:
        """Return the vector of an answer; if none is kept, it is made once a put allows that."""
        if text not in self._kept:
            async with self._turn:
                # Another pair may have had it made meanwhile.
                if text not in self._kept:
                    await self._allowed.acquire()
                    await self._make(vectors, text)
        self._kept.move_to_end(text)
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return self._kept[text]

    async def _make(self, vectors: Vectors, text: str) -> None:
        """Make and keep a vector, so that the model has most of its time for lookups."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._rests_until - loop.time())
        began = loop.time()
        try:
            # Not recorded: instruments show what lookups and puts wait for, and it costs no money.
            self._kept[text] = await vectors.embed(text, recorded=False)
        finally:
            ended = loop.time()
            self._rests_until = ended + min(_REST * (ended - began), _LONGEST_REST)


async def _quietly(work: Callable[[], Awaitable[None]]) -> None:
    try:
        await work()
    except Exception as error:  # noqa: BLE001 - the loop would log it, with the texts
        log.limited("compare", "unexpected %s; please report it", place_of(error))


def _is_packaged(embedder: Embedder) -> bool:
    return is_packaged(embedder.model) or identity_of(embedder) == PACKAGED_MODEL
