"""Requests that control themselves: `max_age`, `no_lookup`, `no_store` and `max_wrong` of a call."""

from __future__ import annotations

import pytest

from cache_core import MultiLevelCache
from cache_core.testing import ManualClock
from tests.operations.test_learning import ASKED, NEAR
from tests.support.caches import CacheFactory
from tests.support.patience import PATIENT

EMBEDDED = pytest.mark.parametrize("store_kind", ["embedded"])


@EMBEDDED
async def test_an_answer_older_than_max_age_is_replaced(
    make_cache: CacheFactory, clock: ManualClock
) -> None:
    """It is a miss in both tiers, for that reason, and what is computed then is served to all."""
    cache: MultiLevelCache = await make_cache(settings=PATIENT, clock=clock)
    await cache.put("alpha beta", "ann", "old", rag_results=[{"id": "d"}])
    clock.advance(100)
    assert (await cache.lookup("alpha beta", "ann", max_age=101)).response == "old"
    found = await cache.lookup("alpha beta", "ann", max_age=99)
    assert (found.response, found.rag_results, found.reasons) == (None, None, ("too_old", "cold"))
    assert cache.get_metrics()["miss_reasons"]["l2"]["too_old"] == 1
    assert await cache.get_or_compute("alpha beta", "ann", lambda: "new", max_age=99) == "new"
    assert await cache.get_or_compute("alpha beta", "ann", lambda: "x", max_age=99) == "new"


async def test_a_new_answer_replaces_the_old_one_in_every_tier(make_cache: CacheFactory) -> None:
    """Neither the exact nor the similar question gets the old one, whoever the new one is for."""
    cache: MultiLevelCache = await make_cache(settings=PATIENT)
    for number, shared in enumerate([False, True, True, False]):
        made = await cache.get_or_compute(
            "alpha beta", "ann", lambda number=number: f"answer {number}", shared=shared,
            no_lookup=True,
        )  # fmt: skip
        assert made == f"answer {number}"
        assert (await cache.lookup("alpha beta", "ann")).response == made
        similar = await cache.lookup("Alpha  beta?", "ann")
        assert (similar.response, similar.tier) == (made, "l2")
    assert cache.metrics.bypass_reasons["declined"] == 4


@EMBEDDED
async def test_a_declined_lookup_knows_of_invalidations(make_cache: CacheFactory) -> None:
    """An answer that was invalidated while it was computed anew is not stored."""
    cache: MultiLevelCache = await make_cache(settings=PATIENT)
    other: MultiLevelCache = await make_cache(settings=PATIENT)

    async def compute() -> str:
        await other.invalidate("alpha")
        return "outdated"

    assert await cache.get_or_compute("alpha", "ann", compute, no_lookup=True) == "outdated"
    assert (await cache.lookup("alpha", "ann")).response is None
    result = await cache.lookup("alpha", "ann", no_lookup=True)
    assert (result.outcome, result.reasons) == ("bypass", ("declined",))
    await cache.put("alpha", "ann", "new", lookup=result)
    assert (await cache.lookup("alpha", "ann")).response == "new"


@EMBEDDED
async def test_nothing_is_stored_of_a_call_that_wants_it_so(make_cache: CacheFactory) -> None:
    """Its answer is returned and counted, no text of it is captured, and a stored one is served."""
    cache: MultiLevelCache = await make_cache(settings={**PATIENT, "capture_message_content": True})
    for number in range(2):
        made = await cache.get_or_compute(
            "alpha", "ann", lambda number=number: f"answer {number}", no_store=True
        )
        assert made == f"answer {number}"
    assert cache.get_metrics()["put_reasons"]["l1"]["declined"] == 2
    assert {item.message_text for item in cache.recent()} == {""}
    await cache.put("alpha", "ann", "stored")
    assert await cache.get_or_compute("alpha", "ann", lambda: "x", no_store=True) == "stored"


@EMBEDDED
async def test_a_call_sets_its_own_share_of_wrong_hits(make_cache: CacheFactory) -> None:
    """0 serves no similar question; more goes only as far as the tuning in force."""
    cache: MultiLevelCache = await make_cache(settings=PATIENT)
    for word in ("school", "kitchen", "library"):
        await cache.put(ASKED.replace("office", word), "ann", "a", shared=True, answer_id="a")
    assert (await cache.lookup(NEAR, "bob", max_wrong=0.2)).reasons[-1] == "below_threshold"
    await cache.tune({"semantic_threshold": 0.9}, author="ann")
    assert (await cache.lookup(NEAR, "bob", max_wrong=0.05)).response == "a"
    assert (await cache.lookup(NEAR, "bob")).response == "a"
    assert (await cache.lookup(NEAR, "bob", max_wrong=0)).reasons[-1] == "unsure"
    await cache.tune({"semantic_threshold": 0.95, "max_wrong": 0.0005}, author="ann")
    assert (await cache.lookup(NEAR, "bob")).response is None
    assert (await cache.lookup(NEAR, "bob", max_wrong=0.05)).response == "a"
