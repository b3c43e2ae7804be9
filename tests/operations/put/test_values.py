"""Values of a put: ranges, types, sizes; a bad one is named and nothing is stored."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from cache_core import MultiLevelCache
from cache_core.model.exceptions import BackendError
from cache_core.testing import ChaosStore, Faults
from tests.support.caches import CacheFactory
from tests.support.patience import PATIENT

HUGE = pytest.param(10**400, id="huge")


@pytest.fixture
async def cache(make_cache: CacheFactory) -> MultiLevelCache:
    made: MultiLevelCache = await make_cache(settings=PATIENT)
    return made


@pytest.mark.parametrize("ttl", [-1, 0, 0.0, math.nan, math.inf, -math.inf, HUGE, 2_592_001])
async def test_ttls_out_of_range(cache: MultiLevelCache, ttl: Any) -> None:
    """A TTL that is not more than 0 and at most 30 days is a ValueError that names it."""
    with pytest.raises(ValueError, match="ttl"):
        await cache.put("alpha", "ann", "answer", ttl=ttl)
    assert (await cache.lookup("alpha", "ann")).response is None


@pytest.mark.parametrize("cost", [-0.01, math.nan, math.inf, HUGE])
async def test_costs_out_of_range(cache: MultiLevelCache, cost: Any) -> None:
    """A cost that is negative or no finite number is a ValueError that names it."""
    with pytest.raises(ValueError, match="cost_usd"):
        await cache.put("alpha", "ann", "answer", cost_usd=cost)


@pytest.mark.parametrize(
    "values",
    [
        {"response": 5}, {"response": b"a"}, {"intent": ["faq"]}, {"ttl": "60"}, {"ttl": True},
        {"cost_usd": "free"}, {"tags": "tag"}, {"tags": [5]}, {"tags": b"tag"}, {"tags": None},
        {"rag_results": "text"}, {"rag_results": {"id": 1}}, {"rag_results": 5},
        {"rag_results": b"bytes"}, {"document_ids": "id"}, {"document_ids": [""]},
        {"document_ids": [5]},
    ],
)  # fmt: skip
async def test_values_of_the_wrong_type(cache: MultiLevelCache, values: Any) -> None:
    """A put of a wrong type raises a TypeError that names the argument, and stores nothing."""
    with pytest.raises(TypeError, match=next(iter(values))):
        await cache.put("alpha", "ann", **{"response": "answer", **values})
    assert (await cache.lookup("alpha", "ann")).outcome == "miss"


async def test_documents_that_contain_themselves(cache: MultiLevelCache) -> None:
    """A cycle in the documents costs the documents, not the answer."""
    cycle: list[Any] = []
    cycle.append(cycle)
    await cache.put("alpha", "ann", "a", rag_results=cycle)
    assert (await cache.lookup("alpha", "ann")).response == "a"


async def test_tags_may_come_from_a_set(cache: MultiLevelCache) -> None:
    """Tags in any collection invalidate."""
    await cache.put("alpha", "ann", "answer", tags={"one", "two"})
    assert (await cache.invalidate_tag("two")).complete
    assert (await cache.lookup("alpha", "ann")).response is None


async def test_a_put_of_nothing(cache: MultiLevelCache) -> None:
    """A put without a response, intent or documents stores nothing and is no error."""
    await cache.put("alpha", "ann")
    await cache.put("alpha", "ann", "")
    assert (await cache.lookup("alpha", "ann")).reasons == ("cold",)


async def test_answers_that_are_too_large(make_cache: CacheFactory) -> None:
    """A part above the limit is not stored, and the other parts are."""
    cache = await make_cache(settings={**PATIENT, "max_value_bytes": 1_000})
    await cache.put("alpha", "ann", "x" * 1_001)
    await cache.put("beta", "ann", "x", rag_results=["x" * 1_001])
    await cache.put("gamma", "ann", "x" * 1_000)
    assert [(await cache.lookup(text, "ann")).outcome for text in ("alpha", "beta", "gamma")] == [
        "miss", "hit", "hit",
    ]  # fmt: skip
    assert "left_out" in (await cache.lookup("alpha", "ann")).reasons


@pytest.mark.parametrize(
    "item",
    [("only two", "ann"), "text", 5, None, ("q", "ann", 5), (5, "ann", "a"), ("q", 5, "a"), {}],
)
async def test_warming_with_a_bad_item_stores_nothing(cache: MultiLevelCache, item: Any) -> None:
    """A bad item among good ones is refused by its number before anything is stored."""
    with pytest.raises((TypeError, ValueError), match="item 1"):
        await cache.warm_cache([("alpha", "ann", "answer"), item])
    assert (await cache.lookup("alpha", "ann")).response is None


async def test_warming_outlasts_a_late_reply(make_cache: CacheFactory) -> None:
    """Reads that fail are made again, and what is warmed is stored."""
    faults = Faults()
    cache = await make_cache(settings=PATIENT, wrap_store=lambda store: ChaosStore(store, faults))
    faults.always("throw", only=frozenset({"read"}))
    warming = asyncio.create_task(cache.warm_cache([("alpha", None, "answer")]))
    async with asyncio.timeout(20):
        while not faults.injected["throw"]:
            await asyncio.sleep(0.01)
        faults.never()
        assert await warming == 1
    assert (await cache.lookup("alpha", "ann")).response == "answer"


async def test_warming_without_a_store_ends(make_cache: CacheFactory) -> None:
    """A store that goes on failing raises, once a put's budget is over."""
    faults = Faults()
    cache = await make_cache(
        settings={**PATIENT, "put_budget": 0.3},
        wrap_store=lambda store: ChaosStore(store, faults),
    )
    with faults.during("throw", only=frozenset({"read"})), pytest.raises(BackendError):
        async with asyncio.timeout(20):
            await cache.warm_cache([("alpha", None, "answer")])
    assert faults.injected["throw"] > 1
