"""Answers that are not stored: returned, counted by their reason, and no harm to what is there."""

from __future__ import annotations

from typing import Any

import pytest

from cache_core import Answer, MultiLevelCache
from tests.support.caches import CacheFactory
from tests.support.patience import PATIENT

REFUSAL = "I'm sorry, but I can't help with that."
pytestmark = pytest.mark.parametrize("store_kind", ["embedded"])


async def test_what_is_not_stored_is_returned_and_counted(make_cache: CacheFactory) -> None:
    """Each case has its one reason; the intent and documents beside it are stored."""
    cache: MultiLevelCache = await make_cache(settings=PATIENT)
    for made, reason in (
        (Answer(REFUSAL), "refused"),
        (Answer("It costs 5 euros and", finish_reason="length"), "cut_short"),
        (Answer('{"error": "no stock"}', intent="stock", rag_results=[{"id": "d"}]), "failed"),
    ):
        assert await cache.get_or_compute("alpha", "ann", lambda made=made: made) == made.response
        assert cache.get_metrics()["put_reasons"]["l1"] == {reason: 1}
        assert cache.get_metrics()["put_reasons"]["l2"] == {reason: 1}
        found = await cache.lookup("alpha", "ann")
        assert found.response is None
        cache.reset_metrics()
    assert (found.intent, found.rag_results) == ("stock", [{"id": "d"}])


async def test_what_is_not_stored_leaves_the_older_answer(make_cache: CacheFactory) -> None:
    """A regeneration that ends in a refusal costs nobody the answer that is there."""
    cache: MultiLevelCache = await make_cache(settings=PATIENT)
    await cache.put("alpha", "ann", "good")
    made = await cache.get_or_compute("alpha", "ann", lambda: REFUSAL, no_lookup=True)
    assert made == REFUSAL
    assert (await cache.lookup("alpha", "ann")).response == "good"
    await cache.warm_cache([("beta", None, REFUSAL)])
    assert (await cache.lookup("beta", "ann")).response == REFUSAL


@pytest.mark.parametrize(
    ("says", "response", "reason"),
    [
        (lambda message, response: "alpha" not in message, "fine", "not_cacheable"),
        (lambda message, response: True, REFUSAL, None),
        (lambda message, response: None, REFUSAL, "refused"),
        (lambda message, response: 1 / 0, "fine", "rule_failed"),
        (lambda message, response: "no", "fine", "rule_failed"),
    ],
)
async def test_the_application_decides_first(
    make_cache: CacheFactory, says: Any, response: str, reason: str | None
) -> None:
    """Its rule stores and withholds whatever it says; one that fails stores nothing."""
    cache: MultiLevelCache = await make_cache(settings=PATIENT, cacheable=says)
    await cache.put("alpha", "ann", response)
    stored = (await cache.lookup("alpha", "ann")).response
    assert stored == (response if reason is None else None)
    assert cache.metrics.put_reasons["l1", reason or ""] == (reason is not None)
