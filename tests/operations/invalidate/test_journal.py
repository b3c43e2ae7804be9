"""Answers computed while a document, a tag, a writer or a similar question is invalidated."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import contextvars
import json
from pathlib import Path
from typing import Any

import pytest

from cache_core import Answer, MultiLevelCache
from cache_core.model.exceptions import BackendError
from cache_core.model.keys import Keys
from cache_core.operations.invalidate.outbox import Request
from cache_core.testing import HashEmbedder
from cache_core.tiers import journal
from cache_core.tiers.denylist import Denylist
from cache_core.tiers.journal import Broad, Journal
from tests.support.caches import CacheFactory
from tests.support.inside import inside
from tests.support.invalidating import take_away
from tests.support.patience import PATIENT
from tests.support.waiting import apart, until

HOW = pytest.mark.parametrize("how", ["document", "tag", "writer", "similar"])


@pytest.fixture(params=[True, False], ids=["here", "another replica"])
async def pair(
    request: pytest.FixtureRequest, make_cache: CacheFactory, tmp_path: Path, store_kind: str
) -> tuple[MultiLevelCache, MultiLevelCache]:
    """The cache that computes, and the one that invalidates: itself, or another."""
    cache = await make_cache(settings=PATIENT)
    if request.param:
        return cache, cache
    # On Redis each process has an index of its own, and learns of the other's a second later.
    apart_too = {"dir": tmp_path / "elsewhere"} if store_kind != "embedded" else {}
    return cache, await make_cache(settings={**PATIENT, **apart_too})


@HOW
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "private"])
async def test_a_put_that_it_overtook_is_not_stored(
    pair: tuple[MultiLevelCache, MultiLevelCache], how: str, shared: bool
) -> None:
    """A put whose lookup came before the invalidation stores nothing, in no tier."""
    cache, other = pair
    seen = await cache.lookup("alpha beta", "ann")
    assert (await apart(take_away(other, how))).complete
    documents = [{"id": "d"}]
    await cache.put("alpha beta", "ann", "old", "faq", documents, tags=["t"], shared=shared,
                    lookup=seen)  # fmt: skip
    for asked in (cache, other):
        found = await apart(asked.lookup("alpha beta", "ann"))
        assert (found.response, found.intent, found.rag_results) == (None, None, None)
        assert (await apart(asked.lookup("beta alpha", "ann"))).response is None


@HOW
async def test_what_came_after_it_is_stored(
    pair: tuple[MultiLevelCache, MultiLevelCache], how: str
) -> None:
    """A put whose lookup came after the invalidation, or without a lookup, is stored."""
    cache, other = pair
    await apart(take_away(other, how))
    await cache._parts.journal.catch_up()
    seen = await cache.lookup("alpha beta", "ann")
    await cache.put("alpha beta", "ann", "new", "faq", [{"id": "d"}], tags=["t"], lookup=seen)
    assert (await apart(cache.lookup("alpha beta", "ann"))).response == "new"
    # Without a lookup it belongs to now, whatever this process was told so far.
    await apart(take_away(other, how))
    await apart(cache.put("gamma", "ann", "newer", None, [{"id": "d"}], tags=["t"]))
    assert (await apart(cache.lookup("gamma", "ann"))).response == "newer"


async def test_a_put_for_another_process_lookup(
    make_cache: CacheFactory, tmp_path: Path, store_kind: str
) -> None:
    """A lookup handed to another task's put is checked against the same invalidations."""
    cache = await make_cache(settings=PATIENT)
    elsewhere = {"dir": tmp_path / "elsewhere"} if store_kind != "embedded" else {}
    other = await make_cache(settings={**PATIENT, **elsewhere})
    for tag, expected in (("u", "new"), ("t", None)):
        seen = await apart(cache.lookup("alpha beta", "ann"))
        assert (await apart(cache.invalidate_tag(tag))).complete
        await apart(other.put("alpha beta", "ann", "new", tags=["t"], lookup=seen))
        assert (await apart(cache.lookup("alpha beta", "ann"))).response == expected


@HOW
async def test_who_invalidates_may_put_what_they_know(make_cache: CacheFactory, how: str) -> None:
    """A caller that invalidates after its lookup, and then puts, does so knowingly."""
    cache = await make_cache(settings=PATIENT)
    await cache.lookup("alpha beta", "ann")
    await take_away(cache, how)
    await cache.put("alpha beta", "ann", "new", None, [{"id": "d"}], tags=["t"], shared=True)
    assert (await cache.lookup("alpha beta", "ann")).response == "new"


@HOW
async def test_others_go_on(make_cache: CacheFactory, how: str) -> None:
    """An invalidation holds against nothing that it does not concern."""
    cache = await make_cache(settings=PATIENT)
    seen = await cache.lookup("gamma delta", "bob")
    await apart(take_away(cache, how))
    await cache.put("gamma delta", "bob", "kept", None, [{"id": "e"}], tags=["u"], shared=True,
                    lookup=seen)  # fmt: skip
    assert (await cache.lookup("gamma delta", "eve")).response == "kept"


@pytest.mark.parametrize("how", ["document", "tag", "similar"])
@pytest.mark.slow
async def test_a_computation_that_it_overtook(
    pair: tuple[MultiLevelCache, MultiLevelCache], how: str
) -> None:
    """Its caller gets the answer; no caller that comes after the invalidation does."""
    cache, other = pair
    begun = 0

    async def compute() -> Answer:
        nonlocal begun
        begun += 1
        number = begun
        await asyncio.sleep(0.5 if number == 1 else 0)
        return Answer(f"answer {number}", rag_results=[{"id": "d"}], tags=("t",))

    first = asyncio.create_task(cache.get_or_compute("alpha beta", "ann", compute))
    while not begun:
        await asyncio.sleep(0.005)
    assert (await apart(take_away(other, how))).complete
    await cache._parts.journal.catch_up()
    second = asyncio.create_task(cache.get_or_compute("alpha beta", "ann", compute))
    assert await asyncio.gather(first, second) == ["answer 1", "answer 2"]
    assert (await apart(other.lookup("alpha beta", "ann"))).response == "answer 2"


async def test_warming_while_its_tag_is_invalidated(make_cache: CacheFactory) -> None:
    """Items warmed before the invalidation of their tag are not served after it."""
    cache = await make_cache(settings=PATIENT)
    items = [(f"topic number{number}", None, "provided") for number in range(40)]

    async def invalidated_midway(_: int) -> None:
        await cache.invalidate_tag("t")

    tasks: list[asyncio.Task[None]] = []

    def progress(done: int) -> None:
        if not tasks:
            tasks.append(asyncio.create_task(invalidated_midway(done)))

    await cache.warm_cache(items, tags=["t"], progress=progress)
    await asyncio.gather(*tasks)
    found = [await cache.get_multilevel(message, "eve") for message, _, _ in items]
    assert found == [None] * 40


class GatedEmbedder(HashEmbedder):
    """Embeds what makes a put known immediately, and what L2 stores when it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.gate = asyncio.Event(), asyncio.Event()

    async def embed(self, text: str) -> Any:
        if self.calls:
            self.asked.set()
            await self.gate.wait()
        return await super().embed(text)


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "private"])
async def test_invalidated_between_its_being_known_and_its_row(
    make_cache: CacheFactory, tmp_path: Path, store_kind: str, shared: bool
) -> None:
    """A similar question's invalidation finds what is in no index yet."""
    gated = GatedEmbedder()
    cache = await make_cache(settings=PATIENT, embedding_model=gated)
    elsewhere = {"dir": tmp_path / "elsewhere"} if store_kind != "embedded" else {}
    other = await make_cache(settings={**PATIENT, **elsewhere})
    put = asyncio.ensure_future(cache.put("alpha beta", "ann", "old", shared=shared))
    await gated.asked.wait()
    assert (await other.invalidate("beta alpha")).complete
    gated.gate.set()
    await put
    for asked in (cache, other):
        for words in ("alpha beta", "beta alpha"):
            assert (await apart(asked.lookup(words, "ann"))).response is None


async def test_what_was_put_since_stays(
    make_cache: CacheFactory, tmp_path: Path, store_kind: str
) -> None:
    """Another process's index follows the invalidation later, and takes nothing newer with it."""
    cache = await make_cache(settings=PATIENT)
    elsewhere = {"dir": tmp_path / "elsewhere"} if store_kind != "embedded" else {}
    other = await make_cache(settings={**PATIENT, **elsewhere})
    await cache.put("alpha beta", "ann", "old", shared=True)
    assert (await apart(cache.invalidate("alpha beta"))).complete
    await apart(cache.put("alpha beta", "ann", "new", shared=True))
    await apart(cache.put("beta alpha", "ann", "new too", shared=True))
    await other._parts.semantic.index.tend(other._parts.store.now())
    for follower in (other, cache):
        await inside(follower).invalidator.apply(follower.tuning)
    assert (await cache.lookup("alpha beta", "eve")).response == "new"
    assert (await cache.lookup("beta alpha", "eve")).response == "new too"


async def test_what_is_on_its_way_and_not_alike_stays(make_cache: CacheFactory) -> None:
    """A question already in the index is judged by its text, guards included."""
    cache = await make_cache(settings=PATIENT)
    await cache.put("room number 12", "ann", "kept", shared=True)
    await apart(cache.invalidate("room number 13"))
    assert (await cache.lookup("room number 12", "eve")).response == "kept"


async def test_a_put_that_waited_for_the_model(
    make_cache: CacheFactory, tmp_path: Path, store_kind: str
) -> None:
    """A similar question was invalidated while the model was loading: it does not reach L2."""
    if store_kind == "embedded":
        pytest.skip("two processes on one file: tests of the command line")
    slow = HashEmbedder()
    slow.ready = False
    cache = await make_cache(settings=PATIENT, embedding_model=slow)
    other = await make_cache(settings={**PATIENT, "dir": tmp_path / "elsewhere"})
    await cache.put("alpha beta", "ann", "old", shared=True)
    assert (await other.invalidate("beta alpha")).complete
    slow.ready = True
    await cache._parts.semantic.tier.tend()
    for asked in (cache, other):
        assert (await apart(asked.lookup("beta alpha", "eve"))).response is None


async def test_the_model_comes_in_the_middle_of_a_put(
    make_cache: CacheFactory, tmp_path: Path, store_kind: str
) -> None:
    """A put that has not made itself known is not stored immediately, though the model is there."""
    slow = HashEmbedder()
    slow.ready = False
    cache = await make_cache(settings=PATIENT, embedding_model=slow)
    elsewhere = {"dir": tmp_path / "elsewhere"} if store_kind != "embedded" else {}
    other = await make_cache(settings={**PATIENT, **elsewhere})
    writer = inside(cache).writer
    held = writer._held

    async def held_and_loaded(*args: Any) -> Any:
        read_to = await held(*args)
        slow.ready = True
        assert (await apart(other.invalidate("beta alpha"))).complete
        return read_to

    writer._held = held_and_loaded
    await cache.put("alpha beta", "ann", "old")
    writer._held = held
    await cache._parts.semantic.tier.tend()
    for asked in (cache, other):
        assert (await apart(asked.lookup("beta alpha", "ann"))).response is None


async def test_a_text_that_cannot_be_embedded_holds_no_other_up(make_cache: CacheFactory) -> None:
    """A waiting put that the model fails for is dropped alone; the others are made."""
    slow = HashEmbedder()
    slow.ready = False
    cache = await make_cache(settings=PATIENT, embedding_model=slow)
    await inside(cache).housekeeper.close()
    await cache.put("alpha beta", "ann", "one", shared=True)
    await cache.put("gamma delta", "ann", "two", shared=True)
    slow.ready = True
    embed = slow.embed

    async def picky(text: str) -> Any:
        if text == "alpha beta":
            raise RuntimeError("not this one")
        return await embed(text)

    slow.embed = picky
    for _ in range(3):
        with contextlib.suppress(BackendError):
            await cache._parts.semantic.tier.tend()
    assert (await cache.lookup("delta gamma", "eve")).response == "two"


# ------------------------------------------------------------------------- an index that is lost


@pytest.mark.parametrize("how", ["document", "tag", "writer"])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "private"])
async def test_an_index_that_was_lost(
    pair: tuple[MultiLevelCache, MultiLevelCache], how: str, shared: bool
) -> None:
    """Entries name their labels, too: no tier serves them after that, in any process."""
    cache, other = pair
    await cache.put("alpha beta", "ann", "old", "faq", [{"id": "d"}], tags=["t"], shared=shared)
    await cache.put("gamma delta", "bob", "kept", None, [{"id": "e"}], tags=["u"], shared=shared)
    keys, store = cache._parts.keys, cache._parts.store
    user = keys.user("ann") or ""
    labels = {"document": keys.label("document", "d"), "tag": keys.label("tag", "t")}
    await store.delete([keys.index(how, labels.get(how, user))])
    assert (await apart(take_away(other, how))).complete
    for asked in (cache, other):
        await asked._parts.journal.catch_up()
        found = await apart(asked.lookup("alpha beta", "ann"))
        assert (found.response, found.intent, found.rag_results) == (None, None, None)
        assert (await apart(asked.lookup("beta alpha", "ann"))).response is None
        assert (await apart(asked.lookup("gamma delta", "bob"))).response == "kept"
    # What is put from then on is served.
    await apart(cache.put("alpha beta", "ann", "new", None, [{"id": "d"}], tags=["t"]))
    assert (await apart(other.lookup("alpha beta", "ann"))).response == "new"


# ------------------------------------------------------------------------------ without an index


@pytest.fixture
async def blind(make_cache: CacheFactory) -> MultiLevelCache:
    """A cache without L2."""
    cache: MultiLevelCache = await make_cache(settings={**PATIENT, "tiers": "l1,l4"})
    return cache


async def beaten(*caches: MultiLevelCache) -> None:
    """Wait until each has given a sign of life."""
    for cache in caches:
        while cache.replica not in {item.name for item in await cache._parts.fleet.alive()}:
            await asyncio.sleep(0.02)


async def test_who_has_l2_searches_for_who_has_not(
    make_cache: CacheFactory, blind: MultiLevelCache
) -> None:
    """A replica with L2 finds similar answers for an invalidation by one without."""
    cache = await make_cache(settings=PATIENT)
    await beaten(cache)
    await cache.put("alpha beta", "ann", "hers", shared=False)
    await cache.put("beta alpha gamma", "ann", "kept", shared=True)
    await cache.put("alpha  beta", "bob", "shared", shared=True)
    assert (await apart(blind.invalidate("beta alpha"))).complete
    for user in ("ann", "eve"):
        assert (await apart(cache.lookup("alpha beta", user))).response is None
        assert (await apart(cache.lookup("beta alpha", user))).response is None
    assert (await cache.lookup("beta alpha gamma", "eve")).response == "kept"
    assert blind._parts.journal.unsearched == []


async def test_only_ones_own(make_cache: CacheFactory, blind: MultiLevelCache) -> None:
    """An invalidation for one user by a replica without L2 leaves others' answers."""
    cache = await make_cache(settings=PATIENT)
    await beaten(cache)
    await cache.put("alpha beta", "ann", "hers")
    await cache.put("alpha beta", "bob", "his")
    assert (await apart(blind.invalidate("beta alpha", "ann"))).complete
    assert (await apart(cache.lookup("alpha beta", "ann"))).response is None
    assert (await apart(cache.lookup("beta alpha", "bob"))).response == "his"


async def test_who_cannot_read_the_text_of_who_searched(make_cache: CacheFactory) -> None:
    """Its key is newer: that it was searched is known all the same."""
    old, new = (base64.b64encode(bytes([number]) * 32).decode() for number in range(2))
    cache = await make_cache(settings={**PATIENT, "encryption_keys": f"{new},{old}"})
    unable = {**PATIENT, "encryption_keys": old, "tiers": "l1,l4"}
    blind = await make_cache(settings=unable)
    await beaten(cache)
    await cache.put("alpha beta", "ann", "old", shared=True)
    assert (await apart(blind.invalidate("beta alpha"))).complete
    assert (await apart(cache.lookup("alpha beta", "eve"))).response is None


@pytest.mark.slow
async def test_it_is_pending_while_nobody_has(
    make_cache: CacheFactory, blind: MultiLevelCache
) -> None:
    """Without a replica that has searched the invalidation stays pending."""
    cache = await make_cache(settings=PATIENT)
    await beaten(cache)
    await cache.put("alpha beta", "ann", "old", shared=True)
    running = inside(cache)
    await running.housekeeper.close()
    await running.housekeeper._beat()
    done = await apart(blind.invalidate("beta alpha"))
    assert (done.complete, done.pending) == (False, ("chroma",))
    assert inside(blind).invalidator.steps.pending == 1
    await running.housekeeper._follow_invalidations()
    assert (await apart(cache.lookup("alpha beta", "eve"))).response is None
    await inside(blind).invalidator.steps.retry()
    assert inside(blind).invalidator.steps.pending == 0


@pytest.mark.slow
async def test_it_is_pending_while_another_invalidation_has_the_rest_to_do(
    make_cache: CacheFactory, blind: MultiLevelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An invalidation taken over by another of the same message is pending for its caller."""
    cache = await make_cache(settings=PATIENT)
    await beaten(cache)
    await cache.put("alpha beta", "ann", "old", shared=True)
    running, semantic = inside(cache), cache._parts.semantic
    assert semantic is not None
    await running.housekeeper.close()
    await running.housekeeper._beat()

    async def away(*_: Any, **__: Any) -> Any:
        raise BackendError("timeout", "TimeoutError")

    with monkeypatch.context() as patch:
        for name in ("search", "remove"):
            patch.setattr(semantic.index, name, away)
        assert not (await apart(blind.invalidate("beta alpha"))).complete
        await running.housekeeper._follow_invalidations()
        assert not (await apart(cache.invalidate("beta alpha"))).complete
        await running.invalidator.steps.retry()
        await blind._parts.journal.catch_up()
        assert len(blind._parts.journal.unsearched) == 1
    # The second time for who had its turn before what it waits for.
    for _ in range(2):
        await running.invalidator.steps.retry()
    await blind._parts.journal.catch_up()
    assert blind._parts.journal.unsearched == []
    assert running.invalidator.steps.pending == 0


async def test_one_with_a_higher_threshold_does_not_take_over_the_search(
    make_cache: CacheFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would find less than the one before has to."""
    cache = await make_cache(settings=PATIENT)
    words = "alpha beta gamma delta epsilon zeta eta theta iota"
    await cache.put(f"{words} kappa", "ann", "old", shared=True)
    running, semantic = inside(cache), cache._parts.semantic
    assert semantic is not None

    async def away(*_: Any, **__: Any) -> Any:
        raise BackendError("timeout", "TimeoutError")

    with monkeypatch.context() as patch:
        patch.setattr(semantic.index, "search", away)
        for threshold in (0.9, 0.99):
            at = cache._engine.tuning.model_copy(update={"semantic_threshold": threshold})
            done = await running.invalidator.make(Request("message", words), at)
            assert not done.complete
    await until(lambda: not running.invalidator.steps.pending)
    assert (await apart(cache.lookup(f"{words} kappa", "eve"))).response is None


async def test_who_opens_later_searches_first(
    make_cache: CacheFactory, blind: MultiLevelCache
) -> None:
    """A replica that opens later searches for what was invalidated before it serves."""
    first = await make_cache(settings=PATIENT)
    await first.put("alpha beta", "ann", "old", shared=True)
    await first.put("alpha beta", "bob", "his", shared=False)
    await first.close()
    # Nobody who lives serves anything similar.
    assert (await apart(blind.invalidate("beta alpha"))).complete
    assert len(blind._parts.journal.unsearched) == 1
    later = await make_cache(settings=PATIENT)
    await until(lambda: not later._parts.journal.unsearched)
    for user in ("ann", "bob"):
        assert (await apart(later.lookup("alpha beta", user))).response is None


# -------------------------------------------------------------------------- lookups of elsewhere


async def test_what_was_looked_up_before_the_cache_was_closed(make_cache: CacheFactory) -> None:
    """A lookup from before a close still knows which invalidations came after it."""
    cache = await make_cache(settings=PATIENT)
    other = await make_cache(settings=PATIENT)
    await apart(cache.invalidate_tag("u"))
    seen = await cache.lookup("alpha beta", "ann")
    await cache.close()
    await apart(other.invalidate_document("d"))
    await cache.initialize()
    await cache.put("alpha beta", "ann", "old", None, [{"id": "d"}], lookup=seen)
    assert (await apart(cache.lookup("alpha beta", "ann"))).response is None


async def test_what_another_cache_looked_up(make_cache: CacheFactory) -> None:
    """A lookup handed to another cache keeps its place among the invalidations."""
    cache = await make_cache(settings=PATIENT)
    for number in range(3):
        await apart(cache.invalidate_tag(f"u{number}"))
    seen = await cache.lookup("alpha beta", "ann")
    other = await make_cache(settings=PATIENT)
    await apart(cache.invalidate_document("d"))
    await other.put("alpha beta", "ann", "old", None, [{"id": "d"}], lookup=seen)
    assert (await apart(other.lookup("alpha beta", "ann"))).response is None


async def test_the_lookup_of_another_message_says_when(make_cache: CacheFactory) -> None:
    """It tells nothing of this message's generation, but after which invalidations it was."""
    cache = await make_cache(settings=PATIENT)
    await apart(cache.invalidate_document("d"))
    seen = await cache.lookup("gamma", "ann")
    await cache.put("alpha beta", "ann", "new", None, [{"id": "d"}], lookup=seen)
    assert (await apart(cache.lookup("alpha beta", "ann"))).response == "new"


async def test_the_file_was_damaged_and_begun_anew(
    make_cache: CacheFactory, store_kind: str
) -> None:
    """An invalidation in the new log follows all that this process has read of the old one."""
    if store_kind != "embedded":
        pytest.skip("a server goes on with its positions")
    cache = await make_cache(settings=PATIENT)
    for number in range(3):
        await apart(cache.invalidate_tag(f"u{number}"))
    cache._parts.store._file._damaged = True
    await cache._parts.store.tend()
    seen = await cache.lookup("alpha beta", "ann")
    await apart(cache.invalidate_document("d"))
    await cache.put("alpha beta", "ann", "old", None, [{"id": "d"}], lookup=seen)
    assert (await apart(cache.lookup("alpha beta", "ann"))).response is None


# -------------------------------------------------------------------------- while it goes on


@pytest.mark.parametrize("how", ["document", "tag", "writer"])
async def test_what_is_put_before_an_invalidation_ends_is_found_by_the_next(
    make_cache: CacheFactory, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The labels of what came after its token are not removed with those from before."""
    cache = await make_cache(settings=PATIENT)
    how_put: Any = {"shared": True, "tags": ["t"], "rag_results": [{"id": "d"}]}
    await cache.put("alpha beta", "ann", "old", **how_put)
    entries = inside(cache).invalidator._entries
    original = entries.delete_of

    async def with_a_put(tags: Any) -> int:
        removed: int = await original(tags)
        monkeypatch.undo()
        # In a context that knows nothing of the invalidation.
        new = cache.put("alpha beta", "ann", "new", **how_put)
        await asyncio.get_running_loop().create_task(new, context=contextvars.Context())
        return removed

    monkeypatch.setattr(entries, "delete_of", with_a_put)
    assert (await apart(take_away(cache, how))).complete
    assert (await apart(cache.lookup("alpha beta", "ann"))).response == "new"
    done = await apart(take_away(cache, how))
    assert done.complete
    assert done.removed
    found = await apart(cache.lookup("alpha beta", "ann"))
    assert (found.response, found.rag_results) == (None, None)


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "private"])
async def test_an_intent_with_a_lower_threshold_on_its_way(
    make_cache: CacheFactory, shared: bool
) -> None:
    """A put that is being embedded is invalidated by the lowest threshold of any intent."""
    gated = GatedEmbedder()
    cache = await make_cache(settings=PATIENT, embedding_model=gated)
    other = await make_cache(settings=PATIENT)
    await cache.tune({"intent.chat.semantic_threshold": 0.3}, author="test")
    await until(lambda: other.tuning.lowest_threshold == 0.3)
    put = asyncio.ensure_future(cache.put("alpha beta", "ann", "old", "chat", shared=shared))
    await gated.asked.wait()
    assert (await other.invalidate("beta gamma")).complete
    gated.gate.set()
    await put
    assert (await apart(cache.lookup("alpha beta", "ann"))).response is None


# ------------------------------------------------------------------------------------- the log


@pytest.fixture
async def logs(make_cache: CacheFactory) -> tuple[Journal, Journal]:
    """The log of one namespace, seen from two processes."""
    cache = await make_cache(settings=PATIENT)
    await inside(cache).housekeeper.close()
    keys: Keys = cache._parts.keys
    both = tuple(Journal(cache._parts.store, keys, Denylist()) for _ in range(2))
    for one in both:
        await one.open()
    return both[0], both[1]


async def test_each_is_read_once_and_in_order(logs: Any) -> None:
    """Concurrent readers take each record once, in order, at positions that all agree on."""
    here, there = logs
    begun, places = there.position, []
    for number in range(3):
        await here.note(Broad(f"i{number}", labels=["x"]))
        places.append(here.position)
    assert there.position == begun
    # Many who read at once take each of them once.
    await asyncio.gather(*(there.catch_up() for _ in range(20)))
    assert there.position == places[-1]
    for reader in logs:
        # A place is the same one for everybody.
        found = [(await reader.since(at))[0] for at in (begun, *places)]
        assert [[item.token for item in items] for items in found] == [
            ["i0", "i1", "i2"], ["i1", "i2"], ["i2"], [],
        ]  # fmt: skip


async def test_a_record_that_is_removed_while_many_read_hides_no_other(
    logs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record removed during a read hides none of the others."""
    here, there = logs
    begun = there.position
    await here.note(Broad("i1", labels=["x"]))
    waits = asyncio.Event()
    original = there._store.after

    async def late(*args: Any) -> Any:
        await waits.wait()
        return await original(*args)

    monkeypatch.setattr(there._store, "after", late)
    slow = asyncio.create_task(there.since(begun))
    await asyncio.sleep(0)
    monkeypatch.undo()
    await there.catch_up()
    await here._store.remove(here._log.name, [there._read_to])
    await here.note(Broad("i2", labels=["x"]))
    waits.set()
    assert [item.token for item in (await slow)[0]] == ["i1", "i2"]


async def test_who_opens_later_begins_at_the_end(logs: Any) -> None:
    """A reader that opens later begins at the end, and knows nothing of what was before."""
    here, there = logs
    await here.note(Broad("i1", labels=["x"]))
    await there.open()
    begun = there.position
    await there.catch_up()
    assert there.position == begun
    assert (await there.since(begun))[0] == []
    # What was looked up before it was open may have come before it.
    assert [item.token for item in (await there.since(""))[0]] == ["i1"]


async def test_too_many_to_know(logs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A put that missed invalidations is rejected: they may concern it."""
    here, there = logs
    begun = there.position
    await here.note(Broad("first", labels=["x"]))
    first = here.position
    for number in range(journal.INVALIDATIONS_KEPT):
        await here.note(Broad(f"i{number}", labels=["x"]))
    for reader in logs:
        assert (await reader.since(begun))[0] is None
        assert len((await reader.since(first))[0]) == journal.INVALIDATIONS_KEPT


@pytest.mark.parametrize(
    "garbage", ["", "[]", '{"token": 1}', "{" * 5_000, '{"token": "i", "labels": []}']
)
async def test_what_cannot_be_read_may_have_been_any(logs: Any, garbage: str) -> None:
    """An unreadable record counts as an invalidation of anything."""
    here, _ = logs
    await here._store.append(here._log.name, [garbage], keep=10)
    readable = garbage == '{"token": "i", "labels": []}'
    found = (await here.since(here.position))[0]
    assert (found is not None) is readable
    assert (await here.since(here.position))[0] == []


async def test_what_a_user_invalidated_of_their_own_is_forgotten(make_cache: CacheFactory) -> None:
    """Erasing a user removes their invalidations from the log, and keeps others' tokens."""
    cache = await make_cache(settings=PATIENT)
    await cache.invalidate("alpha beta", "ann")
    await cache.invalidate("alpha beta", "bob")
    log = cache._parts.journal
    assert len(await log._store.after(log._log.name, "", 10)) == 2
    await cache.forget_user("ann")
    left = [text for _, text in await log._store.after(log._log.name, "", 10)]
    ann, bob = (cache._parts.keys.user(name) for name in ("ann", "bob"))
    assert not any(ann in text for text in left)
    assert [bob in text for text in left] == [True, False, False]
    # The new tokens say that somebody was forgotten, not who.
    assert [json.loads(text)["text"] for text in left] == ["alpha beta", "", ""]


async def test_nothing_of_a_forgotten_user_stays(make_cache: CacheFactory) -> None:
    """Neither the log nor the list of arriving rows has the digest of an erased user."""
    cache = await make_cache(settings=PATIENT)
    await cache.put("alpha beta", "ann", "hers", shared=True)
    await cache.invalidate_writer("ann")
    await apart(cache.put("alpha gamma", "ann", "hers", shared=True))
    await cache.forget_user("ann")
    log, similar = cache._parts.journal, cache._parts.semantic.similar
    digest = cache._parts.keys.user("ann")
    assert all(digest not in text for _, text in await log._store.after(log._log.name, "", 10))
    tag = cache._parts.keys.query("alpha gamma", None).tag
    assert tag not in await log._store.rows(similar._arriving_key)
