"""Overload is no outage: queues that are too long open no breaker."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from cache_core import MultiLevelCache
from cache_core.backends.breaker import Breaker, Queueing
from cache_core.backends.deadline import Deadline
from cache_core.backends.embedder.pool import ThreadEmbedder
from cache_core.model.exceptions import BackendError
from cache_core.model.values import OUTCOMES
from tests.support.caches import CacheFactory


@pytest.mark.slow
async def test_many_searches_at_once_are_no_fault(make_cache: CacheFactory) -> None:
    """300 lookups that all reach the index: each ends in one outcome, and no breaker opens."""
    cache: MultiLevelCache = await make_cache()
    await cache.put("something else entirely", None, "answer", shared=True)
    await cache.ready()
    for _ in range(2):
        results = await asyncio.gather(
            *(cache.lookup(f"question {n} about topic {n}", "ann") for n in range(300))
        )
        assert all(result.outcome in OUTCOMES for result in results)
        assert not any(result.response for result in results)
        assert set(_breakers(cache).values()) == {"closed"}
    assert cache.metrics.lookups == 600
    assert cache.metrics.error_reasons.get(("l2", "breaker_open"), 0) == 0


class SlowEncoder:
    """Takes a while for each text."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def encode(self, texts: Any) -> Any:
        import time

        time.sleep(self._seconds * len(texts))
        return np.ones((len(texts), 8), dtype=np.float32) / np.sqrt(8, dtype=np.float32)

    def fits(self, text: str) -> bool:
        return True

    def knows(self, text: str) -> bool:
        return True


async def test_a_queue_before_the_model_is_no_fault(make_cache: CacheFactory) -> None:
    """Texts whose turn does not come in time are `overloaded`; the model is as well as before."""
    embedder = ThreadEmbedder("slow", lambda _: SlowEncoder(0.01))
    cache: MultiLevelCache = await make_cache(
        embedding_model=embedder,
        # Only the embedding's own may run out.
        settings={"exact_budget": 10.0, "lookup_budget": 10.0, "embedding_budget": 0.25},
    )
    try:
        await cache.ready()
        await asyncio.gather(*(cache.lookup(f"question {n}", "ann") for n in range(200)))
        assert _breakers(cache)["embedder"] == "closed"
        assert cache.metrics.error_reasons[("l2", "overloaded")] > 0
        assert cache.metrics.error_reasons.get(("l2", "breaker_open"), 0) == 0
    finally:
        embedder.close()


async def test_a_backend_that_answers_nobody_is_a_fault() -> None:
    """Concurrent calls to a hung backend are one failure, not many."""
    breaker = Breaker("chroma", failures=2)

    async def call(seconds: float) -> str:
        try:
            with breaker, Queueing(breaker):
                async with Deadline(0.05):
                    await asyncio.sleep(seconds)
        except BackendError as error:
            return error.reason
        return "answered"

    assert set(await asyncio.gather(*(call(9) for _ in range(50)))) == {"timeout"}
    assert breaker.state == "closed"
    assert await call(9) == "timeout"
    assert breaker.state != "closed"
    breaker = Breaker("chroma", failures=2)
    found = await asyncio.gather(call(0.01), *(call(9) for _ in range(50)))
    assert found == ["answered", *["overloaded"] * 50]
    assert breaker.state == "closed"


def _breakers(cache: MultiLevelCache) -> dict[str, str]:
    return {name: breaker.state for name, breaker in cache._parts.breakers.items()}
