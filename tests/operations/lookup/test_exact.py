"""Exact means exact: no lookup gets the answer to a variant of its message."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cache_core import MultiLevelCache
from cache_core.model.values import Query
from tests.support.caches import CacheFactory
from tests.support.patience import PATIENT
from tests.support.votes import vote

KEYED = {**PATIENT, "tiers": "l1,l3,l4"}


VARIANTS = (
    "git branch -d main",
    "git branch -D main",
    "git  branch -d main",
    "git branch -d main!",
)


async def test_no_variant_gets_the_answer_to_another(make_cache: CacheFactory) -> None:
    """Response, intent and documents are of one message to the letter, with a history too."""
    cache: MultiLevelCache = await make_cache(settings=KEYED)
    for place in ({}, {"history": ["earlier"]}, {"context": "c"}):
        for text in VARIANTS:
            result = await cache.lookup(text, "ann", **place)
            assert (result.outcome, result.reasons) == ("miss", ("cold",)), text
            await cache.put(text, "ann", f"to {text}", f"of {text}", [{"id": text}], **place)
        for text in VARIANTS:
            assert (await cache.lookup(text, "ann", **place)).response == f"to {text}"


async def test_intents_and_documents_are_of_one_message(make_cache: CacheFactory) -> None:
    """L3 and L4 tell messages apart as L1 does."""
    cache: MultiLevelCache = await make_cache(settings=KEYED)
    for text in VARIANTS:
        await cache.put(text, "ann", None, f"of {text}", [{"id": text}])
    for text in VARIANTS:
        result = await cache.lookup(text, "ann")
        assert (result.intent, result.rag_results) == (f"of {text}", [{"id": text}])
        assert (await cache.lookup(text.upper() + "?", "ann")).outcome == "miss"


async def test_a_mark_is_of_one_message(make_cache: CacheFactory) -> None:
    """Another user's answer is reported for the very same message only."""
    cache: MultiLevelCache = await make_cache(settings=KEYED)
    await cache.put("chmod -r", "ann", "recursive no")
    assert (await cache.lookup("chmod -r", "bob")).reasons == ("other_scope", "cold")
    assert (await cache.lookup("chmod -R", "bob")).reasons == ("cold",)


@pytest.mark.parametrize("tiers", ["l1,l3,l4", "l1,l2,l3,l4"])
@pytest.mark.parametrize("whose", [None, "ann"])
async def test_an_invalidation_takes_looser_variants(
    make_cache: CacheFactory, tiers: str, whose: str | None
) -> None:
    """Invalidating a message takes its variants in case, space and final signs, everywhere."""
    settings = {**PATIENT, "tiers": tiers}
    cache: MultiLevelCache = await make_cache(settings=settings)
    other: MultiLevelCache = await make_cache(settings=settings)
    places: list[dict[str, Any]] = [{}, {"context": {"a": 1}}, {"history": ["x"]}]
    for place in places:
        for text in VARIANTS:
            await cache.put(text, "ann", "old", "label", [{"id": 1}], **place)
    done = await other.invalidate("GIT branch -d MAIN?", whose)
    assert done.complete
    assert done.removed >= len(places) * len(VARIANTS)
    for place in places:
        for text in VARIANTS:
            assert (await cache.lookup(text, "ann", **place)).response is None


async def test_an_answer_computed_before_a_variant_was_invalidated(
    make_cache: CacheFactory,
) -> None:
    """It is not stored: the variants share a generation."""
    cache: MultiLevelCache = await make_cache(settings=KEYED)
    other: MultiLevelCache = await make_cache(settings=KEYED)
    found = await cache.lookup("git branch -D main", "ann")
    await asyncio.create_task(other.invalidate("git branch -d main"))
    await cache.put("git branch -D main", "ann", "old", lookup=found)
    assert (await cache.lookup("git branch -D main", "ann")).response is None


async def test_a_lookup_of_a_variant_does_not_hide_an_older_one(make_cache: CacheFactory) -> None:
    """A put is held against the lookup of its own message, not of a newer variant of it."""
    cache: MultiLevelCache = await make_cache(settings=KEYED)
    other: MultiLevelCache = await make_cache(settings=KEYED)
    await cache.lookup("chmod -r", "ann")
    # In a task of its own: what a task invalidates itself does not hold against its puts.
    await asyncio.create_task(other.invalidate("chmod -r"))
    await cache.lookup("chmod -R", "ann")
    await cache.put("chmod -r", "ann", "of before")
    await cache.put("chmod -R", "ann", "of after")
    assert (await cache.lookup("chmod -r", "ann")).response is None
    assert (await cache.lookup("chmod -R", "ann")).response == "of after"


async def test_variants_are_computed_apart(make_cache: CacheFactory) -> None:
    """Messages that differ in a letter's case do not join each other's computation."""
    cache: MultiLevelCache = await make_cache(settings=KEYED)
    both = asyncio.Barrier(2)

    async def compute(text: str) -> str:
        await both.wait()
        return text

    found = await asyncio.gather(
        *(cache.get_or_compute(text, "ann", lambda text=text: compute(text))  # type: ignore[misc]
          for text in VARIANTS[:2])
    )  # fmt: skip
    assert found == list(VARIANTS[:2])
    assert [await cache.get_multilevel(text, "ann") for text in VARIANTS[:2]] == found


async def test_votes_are_for_one_message(make_cache: CacheFactory) -> None:
    """Answers to variants do not promote each other."""
    cache: MultiLevelCache = await make_cache(settings=KEYED)
    await cache.tune({"sharing": "auto", "promote_after": 2}, author="test")
    await vote(cache, "chmod -r", "ann", "same")
    await vote(cache, "chmod -R", "bob", "same")
    assert (await cache.lookup("chmod -R", "cem")).response is None
    await vote(cache, "chmod -R", "dan", "same")
    assert (await cache.lookup("chmod -R", "cem")).response == "same"
    assert (await cache.lookup("chmod -r", "cem")).response is None


async def test_what_an_older_version_stored_is_cold(make_cache: CacheFactory) -> None:
    """Its exact entries had no exact digest in their key: they are not found, and go along."""
    from cache_core.backends.base import RowWrite, Write

    cache: MultiLevelCache = await make_cache(settings=KEYED)
    await cache.put("chmod -R", "ann", "new")
    keys, store = cache._parts.keys, cache._parts.store
    query: Query = keys.query("chmod -r", "ann")
    old = keys.entry("l1", query, query.scope("user")).replace(query.exact + ":", "")
    [text] = await store.read([keys.entry("l1", keys.query("chmod -R", "ann"), query.user or "")])
    await store.write([Write(old, text or "", 600.0)])
    await store.put_rows([RowWrite(keys.index("message", query.tag), {old: "user"}, 600.0)])
    assert (await cache.lookup("chmod -r", "ann")).outcome == "miss"
    assert (await cache.invalidate("chmod -r")).complete
    assert await store.read([old]) == [None]
