"""Attacks that once succeeded, and must not again."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache_core import MultiLevelCache
from cache_core.backends.base import Row
from cache_core.backends.embedder.pool import ThreadEmbedder
from cache_core.operations.invalidate.steps import GiveTokens, Job
from cache_core.testing import HashEmbedder
from cache_core.tiers.semantic.replication import pack
from tests.support.caches import CacheFactory
from tests.support.inside import inside
from tests.support.patience import PATIENT


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        ("我要取消订单", "我要取消订阅"),
        ("I feel 😀", "I feel 😡"),
        ("model ① price", "model ② price"),
        ("note \ud800", "note \udfff"),
    ],
)
async def test_what_the_model_does_not_know_is_not_matched_by_similarity(
    make_cache: CacheFactory, real_embedder: ThreadEmbedder, stored: str, asked: str
) -> None:
    """Unknown characters all look alike to the model: such questions are left to exact matching."""
    cache: MultiLevelCache = await make_cache(embedding_model=real_embedder, settings=PATIENT)
    await cache.put(stored, None, "answer", shared=True)
    result = await cache.lookup(asked, "bob")
    assert result.response is None
    assert "unreadable" in result.reasons
    assert (await cache.lookup(stored, "bob")).tier == "l1"


async def test_a_conversation_that_grows_while_its_answer_is_made(cache: MultiLevelCache) -> None:
    """An agent's compute may append to the history that it gave: the answer belongs to the old."""
    history: list[dict[str, str]] = [{"role": "user", "content": "Delete A?"}]
    before = [dict(turn) for turn in history]

    def compute() -> str:
        history.append({"role": "user", "content": "yes"})
        return "A deleted. Also delete B?"

    await cache.get_or_compute("yes", "u", compute, history=history)
    assert (await cache.lookup("yes", "u", history=history)).response is None
    kept = await cache.lookup("yes", "u", history=before)
    assert kept.response == "A deleted. Also delete B?"


@pytest.mark.slow
async def test_a_user_with_large_documents_is_forgotten(make_cache: CacheFactory) -> None:
    """Erasing does not read what it erases."""
    cache: MultiLevelCache = await make_cache(settings={**PATIENT, "tiers": "l1,l4"})
    for number in range(60):
        documents = [{"id": f"d{number}", "text": "x" * 200_000}]
        await cache.put(f"topic {number}", "heavy", "answer", rag_results=documents)
    done = await cache.forget_user("heavy")
    assert done.complete
    assert done.removed == 120
    assert (await cache.lookup("topic 7", "heavy")).outcome == "miss"


class Renamed(HashEmbedder):
    """Another model, to which two different questions look alike."""

    async def embed(self, text: str) -> Any:
        return await super().embed({"please delete account": "kindly cancel order"}.get(text, text))


async def test_vectors_of_two_models_never_meet(make_cache: CacheFactory) -> None:
    """Replicas with different models share exact answers, and no similar ones."""
    one: MultiLevelCache = await make_cache(embedding_model=HashEmbedder("A"), settings=PATIENT)
    other: MultiLevelCache = await make_cache(embedding_model=Renamed("B"), settings=PATIENT)
    await one.put("kindly cancel order", "u", "cancelled", shared=True)
    await one.put("kindly cancel order", "w", "cancelled, private")
    await other.ready()
    for user in ("v", "w"):
        assert (await other.lookup("please delete account", user)).response is None
    assert (await other.lookup("kindly cancel order", "v")).tier == "l1"


async def test_a_malformed_feed_record_is_passed_over(make_cache: CacheFactory) -> None:
    """One bad record does not keep the others from being applied."""
    one: MultiLevelCache = await make_cache(settings=PATIENT)
    feed = one._parts.semantic.feed if one._parts.semantic is not None else None
    assert feed is not None
    bad = [
        {"kind": "put", "by": "x", "tags": ["a"], "vector": 5},
        {"kind": "invalidate", "by": "x", "tags": ["a"], "text": 5, "threshold": "x"},
    ]
    await one._parts.store.append(feed._log.name, [*map(json.dumps, bad), "[[[[", "5"], keep=100)
    good = {"kind": "invalidate", "by": "x", "tags": ["a"], "text": "", "threshold": 0.9}
    await one._parts.store.append(feed._log.name, [json.dumps(good)], keep=100)
    applied: list[str] = []

    async def invalidate(record: Any) -> None:
        applied.extend(record.tags)

    await feed.apply(invalidate)
    assert applied == ["a"]


@pytest.mark.parametrize("store_kind", ["redis"])
async def test_a_vector_of_another_dimension_in_the_feed(
    make_cache: CacheFactory, tmp_path: Path
) -> None:
    """Even as the first row of an index it does not come in: what is shared next is served."""
    there = {**PATIENT, "dir": tmp_path / "elsewhere"}
    other: MultiLevelCache = await make_cache(settings=PATIENT)
    cache: MultiLevelCache = await make_cache(settings=there)
    await other.put("alpha beta", "ann", "answer", shared=True)
    store, semantic = other._parts.store, other._parts.semantic
    assert semantic is not None
    feed = semantic.feed
    ((position, text),) = await store.after(feed._log.name, "", 10)
    await store.remove(feed._log.name, [position])
    vector = pack(np.ones(8, dtype=np.float32))
    await store.append(
        feed._log.name, [json.dumps({**json.loads(text), "vector": vector})], keep=100
    )
    await cache.ready()
    await cache.put("gamma delta", "ann", "right", shared=True)
    await cache.ready()
    assert (await cache.lookup("delta gamma", "bob")).response == "right"
    assert cache._parts.semantic is not None
    await cache._parts.semantic.index.tend(store.now())
    assert (await cache.lookup("delta gamma", "bob")).response == "right"
    assert cache._parts.semantic.engine.dropped == 0


class Unloadable(HashEmbedder):
    """A model that cannot be loaded, until it can."""

    def __init__(self) -> None:
        super().__init__()
        self.ready, self.failed = False, True


@pytest.mark.parametrize("store_kind", ["redis"])
async def test_without_a_model_the_feed_goes_on_by_tags(
    make_cache: CacheFactory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An invalidated entry is removed from its index; a step that needs the model waits for it."""
    model = Unloadable()
    there = {**PATIENT, "dir": tmp_path / "elsewhere"}
    other: MultiLevelCache = await make_cache(settings=PATIENT)
    cache: MultiLevelCache = await make_cache(settings=there, embedding_model=model)
    mine = cache._parts.semantic
    assert mine is not None
    for message in ("alpha beta", "gamma delta"):
        await other.put(message, "ann", f"answer to {message}", shared=True)
        query = cache._parts.keys.query(message, "ann")
        vector = await HashEmbedder().embed(message)
        await mine.index.add(query.context, Row(query.tag, vector, "envelope", 1e12))
    assert (await other.invalidate("alpha beta")).complete
    assert (await other.invalidate("gamma delta")).complete
    for _ in range(2):
        await inside(cache).invalidator.apply(cache.tuning)
        assert await mine.index.count() == 0
    assert caplog.text.count("the model cannot be loaded, so this process") == 1
    await other.put("epsilon zeta", "ann", "later", shared=True)
    model.ready, model.failed = True, False
    await cache.ready()
    assert (await cache.lookup("zeta epsilon", "bob")).response == "later"


async def test_an_absurd_number_in_an_envelope_is_corrupt(cache: MultiLevelCache) -> None:
    """A number that no float holds is read as garbage, and the entry is deleted."""
    await cache.put("alpha", "ann", "answer")
    keys = cache._parts.keys
    query = keys.query("alpha", "ann")
    name = keys.entry("l1", query, query.scope("user"))
    text = (await cache._parts.store.read([name]))[0] or ""
    from cache_core.backends.base import Write

    values = json.loads(text)
    values["t"] = 10**400
    await cache._parts.store.write([Write(name, json.dumps(values), 60)])
    assert "corrupt" in (await cache.lookup("alpha", "ann")).reasons
    assert (await cache._parts.store.read([name])) == [None]


@pytest.mark.parametrize("between", ["message", "user", "tag", "warm"])
async def test_only_what_a_task_invalidated_itself_is_known_to_it(
    make_cache: CacheFactory, between: str
) -> None:
    """Invalidating, or warming, something else does not forgive what others invalidated."""
    cache: MultiLevelCache = await make_cache(settings=PATIENT)

    async def others() -> None:
        await cache.invalidate("alpha beta")
        await cache.forget_user("eve")

    await cache.lookup("alpha beta", "ann")
    await cache.lookup("gamma delta", "eve")
    await cache.lookup("epsilon", "ann")
    await asyncio.create_task(others())
    if between == "message":
        await cache.invalidate("zeta")
    elif between == "user":
        await cache.forget_user("bob")
    elif between == "tag":
        await cache.invalidate_tag("zeta")
    else:
        await cache.warm_cache([("zeta", None, "provided")])
    await cache.invalidate("epsilon")
    await cache.put("alpha beta", "ann", "old")
    await cache.put("gamma delta", "eve", "old")
    await cache.put("epsilon", "ann", "computed knowing of it")
    assert (await cache.lookup("alpha beta", "ann")).response is None
    assert (await cache.lookup("gamma delta", "eve")).response is None
    assert (await cache.lookup("epsilon", "ann")).response == "computed knowing of it"


async def test_a_retry_does_not_bring_back_what_others_invalidated(
    make_cache: CacheFactory,
) -> None:
    """A token whose write seemed to fail may have been seen, and replaced: it never comes again."""
    cache: MultiLevelCache = await make_cache(settings=PATIENT)
    running = inside(cache)
    execute = running.invalidator._execute
    step = GiveTokens(Job(), (cache._parts.keys.query("alpha", None).tag,))
    await execute(step, again=False)
    seen = await cache.lookup("alpha", "ann")
    await cache.invalidate("alpha")
    await execute(step, again=True)
    await cache.put("alpha", "ann", "old", lookup=seen)
    assert (await cache.lookup("alpha", "ann")).response is None
    # Nobody replaced it since: what is computed now is not lost to another repetition.
    seen = await cache.lookup("alpha", "ann")
    await execute(step, again=True)
    await cache.put("alpha", "ann", "new", lookup=seen)
    assert (await cache.lookup("alpha", "ann")).response == "new"


class Held(HashEmbedder):
    """An embedder that keeps one text waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()
        self.asked = asyncio.Event()

    async def embed(self, text: str) -> Any:
        if text == "beta alpha" and text in self.calls:
            self.asked.set()
            await self.go.wait()
        return await super().embed(text)


async def test_an_invalidation_is_not_complete_before_it_is_made(make_cache: CacheFactory) -> None:
    """One that is asked for twice concurrently is not left to the other, and called complete."""
    held = Held()
    cache: MultiLevelCache = await make_cache(embedding_model=held, settings=PATIENT)
    other: MultiLevelCache = await make_cache(settings=PATIENT)
    await cache.put("alpha beta", "ann", "old")
    twice = [asyncio.create_task(cache.invalidate("beta alpha")) for _ in range(2)]
    await asyncio.wait_for(held.asked.wait(), 10)
    await asyncio.wait(twice, timeout=0.3, return_when=asyncio.FIRST_COMPLETED)
    served = (await other.lookup("alpha beta", "ann")).response
    complete = [task.result().complete for task in twice if task.done()]
    held.go.set()
    await asyncio.gather(*twice)
    assert served is None or not any(complete)
    assert (await other.lookup("alpha beta", "ann")).response is None


async def test_a_put_that_waits_for_the_model_of_a_user_who_was_forgotten(
    make_cache: CacheFactory,
) -> None:
    """Another replica's forgetting reaches it, too: nothing of them is written afterwards."""
    loading = HashEmbedder()
    one: MultiLevelCache = await make_cache(embedding_model=loading, settings=PATIENT)
    other: MultiLevelCache = await make_cache(settings=PATIENT)
    loading.ready = False
    await one.put("alpha beta", "ann", "private")
    await one.put("gamma delta", "bob", "his")
    assert (await other.forget_user("ann")).complete
    loading.ready = True
    await one.ready()
    keys, store = one._parts.keys, one._parts.store
    query = keys.query("alpha beta", "ann")
    assert query.user is not None
    name = keys.entry("l2", query, query.user)
    assert await store.read([name]) == [None]
    assert not await store.rows(keys.vectors(query.user, query.context))
    assert (await one.lookup("delta gamma", "bob")).response == "his"
