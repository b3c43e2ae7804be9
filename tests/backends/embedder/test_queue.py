"""The queue before the model: batches, its limit, failures, the budget of a lookup."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from cache_core import ConfigurationError
from cache_core.backends.embedder.pool import QUEUE_LIMIT, ThreadEmbedder
from cache_core.model.exceptions import BackendError
from tests.support.caches import CacheFactory
from tests.support.waiting import until


class SlowEncoder:
    """An encoder that waits until it is let go, and notes what it was given."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.batches: list[list[str]] = []
        self.failure: Exception | None = None

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        if list(texts) != ["warm up"]:
            self.go.wait(10)
            self.batches.append(list(texts))
            if self.failure is not None:
                raise self.failure
        return np.eye(8, dtype=np.float32)[[len(text) % 8 for text in texts]]

    def knows(self, text: str) -> bool:
        return True

    def fits(self, text: str) -> bool:
        return True


@pytest.fixture
async def slow() -> Any:
    encoder = SlowEncoder()
    made = ThreadEmbedder("slow", load=lambda _: encoder)
    await made.wait_ready()
    yield made, encoder
    encoder.go.set()
    made.close()


async def test_what_waits_together_is_encoded_once(slow: Any) -> None:
    """A text that many wait for is encoded once, and one whose callers are all cancelled not at all."""
    embedder, encoder = slow
    first = asyncio.ensure_future(embedder.embed("first"))
    await asyncio.sleep(0.05)
    many = [asyncio.ensure_future(embedder.embed("same")) for _ in range(10)]
    dropped = asyncio.ensure_future(embedder.embed("nobody's"))
    await asyncio.sleep(0.05)
    dropped.cancel()
    await asyncio.sleep(0)
    encoder.go.set()
    await asyncio.gather(first, *many)
    assert encoder.batches == [["first"], ["same"]]
    await embedder.embed("same")
    assert len(encoder.batches) == 2


async def test_what_is_being_encoded_is_not_encoded_again() -> None:
    """By another worker that is idle: its callers get the vector of the first."""
    encoder = SlowEncoder()
    embedder = ThreadEmbedder("slow", load=lambda _: encoder, workers=3)
    await embedder.wait_ready()
    try:
        first = asyncio.ensure_future(embedder.embed("same"))
        await until(lambda: embedder._busy == 1)
        others = [asyncio.ensure_future(embedder.embed("same")) for _ in range(9)]
        another = asyncio.ensure_future(embedder.embed("another"))
        await until(lambda: embedder._busy == 2)
        encoder.go.set()
        vectors = await asyncio.gather(first, *others)
        await another
        assert sorted(encoder.batches) == [["another"], ["same"]]
        assert all(vector is vectors[0] for vector in vectors)
    finally:
        encoder.go.set()
        embedder.close()


async def test_workers_start_when_a_text_finds_none_idle() -> None:
    """One text after the other needs one thread; five at the same time as many as allowed."""
    encoder = SlowEncoder()
    embedder = ThreadEmbedder("slow", load=lambda _: encoder, workers=3)
    await embedder.wait_ready()
    try:
        encoder.go.set()
        for number in range(5):
            await until(lambda: embedder._idle == 1)
            await embedder.embed(f"alone {number}")
        assert len(embedder._threads) == 1
        encoder.go.clear()
        texts = [asyncio.ensure_future(embedder.embed(f"together {n}")) for n in range(5)]
        await until(lambda: embedder._busy == 3)
        assert len(embedder._threads) == 3
        encoder.go.set()
        await asyncio.gather(*texts)
    finally:
        encoder.go.set()
        embedder.close()
    assert not any(thread.is_alive() for thread in embedder._threads)


async def test_texts_that_wait_for_the_model_are_shared_among_workers() -> None:
    """The thread that loads it is not alone with what was asked for meanwhile."""
    encoder = SlowEncoder()
    loading = threading.Event()

    def load(name: str) -> SlowEncoder:
        loading.wait(10)
        return encoder

    embedder = ThreadEmbedder("slow", load=load, workers=2)
    texts = [asyncio.ensure_future(embedder.embed(f"early {n}")) for n in range(4)]
    await asyncio.sleep(0)
    loading.set()
    try:
        await until(lambda: embedder._busy == 2)
    finally:
        encoder.go.set()
        await asyncio.gather(*texts)
        embedder.close()


async def test_what_ran_out_of_time_is_not_encoded(slow: Any, make_cache: CacheFactory) -> None:
    """A text whose lookup has ended is dropped from the queue, and counted as its lookup is."""
    embedder, encoder = slow
    cache = await make_cache(embedding_model=embedder, settings={"embedding_budget": 0.1})
    held = asyncio.ensure_future(embedder.embed("held"))
    await until(lambda: embedder._busy == 1)
    found = await cache.lookup("late", "ann")
    assert found.outcome == "error"
    encoder.go.set()
    await held
    await embedder.embed("next")
    assert encoder.batches == [["held"], ["next"]]


async def test_what_is_forgotten_while_it_is_encoded_is_not_kept(slow: Any) -> None:
    """Its caller gets the vector, and it is encoded again for the next."""
    embedder, encoder = slow
    text = asyncio.ensure_future(embedder.embed("erased"))
    await until(lambda: embedder._busy == 1)
    embedder.forget()
    encoder.go.set()
    await text
    await embedder.embed("erased")
    assert encoder.batches == [["erased"], ["erased"]]


async def test_a_full_queue_rejects_immediately(slow: Any) -> None:
    """Beyond its limit the queue answers `overloaded` instead of growing."""
    embedder, encoder = slow
    waiting = [asyncio.ensure_future(embedder.embed(f"t{n}")) for n in range(QUEUE_LIMIT + 40)]
    await asyncio.sleep(0.1)
    refused = [task for task in waiting if task.done()]
    assert refused
    assert {task.exception().reason for task in refused} == {"overloaded"}  # type: ignore[union-attr]
    encoder.go.set()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_failing_model_fails_every_waiter(slow: Any) -> None:
    """An error of the model reaches every waiting caller, and the next text is tried again."""
    embedder, encoder = slow
    encoder.failure = MemoryError("too much")
    encoder.go.set()
    errors = await asyncio.gather(*(embedder.embed("a") for _ in range(3)), return_exceptions=True)
    assert [(type(e), e.error_type) for e in errors] == [(BackendError, "MemoryError")] * 3
    encoder.failure = None
    assert (await embedder.embed("a")).shape == (8,)


async def test_a_model_that_cannot_be_loaded(caplog: pytest.LogCaptureFixture) -> None:
    """Failed loading is logged, raises to its waiting callers, and embedding fails."""

    def load(name: str) -> Any:
        raise OSError("no such file")

    embedder = ThreadEmbedder("broken", load=load)
    with pytest.raises(ConfigurationError, match="broken"):
        await embedder.wait_ready()
    assert embedder.failed
    with pytest.raises(BackendError):
        await embedder.embed("a")
    assert "embedding model 'broken' failed: OSError: no such file" in caplog.text


async def test_a_slow_embedding_costs_its_budget_and_no_more(
    slow: Any, make_cache: CacheFactory
) -> None:
    """An embedding that hangs is a timeout of L2; the lookup ends within its budget."""
    embedder, _ = slow
    cache = await make_cache(embedding_model=embedder, settings={"embedding_budget": 0.1})
    started = time.monotonic()
    found = await cache.lookup("alpha", "ann")
    assert time.monotonic() - started < 5
    # Which of the two is known first depends on the machine.
    assert (found.outcome, set(found.reasons)) == ("error", {"cold", "timeout"})
