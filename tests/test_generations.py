"""What was computed before an invalidation is never stored nor served after it, wherever it was."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from cache_core import MultiLevelCache, seen
from cache_core.housekeeping import replicas
from cache_core.keys import Keys
from cache_core.models import Generation, Invalidation, LookupResult, Sighting
from cache_core.seen import Sightings
from cache_core.settings import Settings
from cache_core.stores.base import Write
from cache_core.testing import HashEmbedder, RecordingInstrument
from telemetry.metrics import PrometheusInstrument
from tests import servers
from tests.conftest import CacheFactory
from tests.patient import PATIENT

HOW = pytest.mark.parametrize("how", ["message", "own", "user"])
WHERE = pytest.mark.parametrize("here", [True, False], ids=["here", "another replica"])


async def apart(work: Any) -> Any:
    """Do *work* in a task of its own: what it learns stays there."""
    return await asyncio.create_task(work)


async def take_away(cache: MultiLevelCache, how: str) -> Invalidation:
    if how == "message":
        return await cache.invalidate("alpha beta")
    if how == "own":
        return await cache.invalidate("alpha beta", "ann")
    return await cache.forget_user("ann")


async def refresh(cache: MultiLevelCache) -> None:
    await cache.lookup("alpha beta", "ann")
    await cache.put("alpha beta", "ann", "new")


# ------------------------------------------------------------------------- anywhere, any kind


@HOW
@WHERE
async def test_a_put_in_flight(make_cache: CacheFactory, how: str, here: bool) -> None:
    """A lookup, an invalidation anywhere, and then the put: it is not stored; the next one is."""
    cache = await make_cache(settings=PATIENT)
    other = cache if here else await make_cache(settings=PATIENT)
    await cache.lookup("alpha beta", "ann")
    assert (await apart(take_away(other, how))).complete
    await cache.put("alpha beta", "ann", "old", "faq", [{"id": "d"}])
    for asked in (cache, other):
        result = await apart(asked.lookup("alpha beta", "ann"))
        assert (result.response, result.rag_results) == (None, None)
        assert (await apart(asked.lookup("beta alpha", "ann"))).response is None
    # In a task of its own the put would follow one of those lookups: it is told which.
    result = await apart(cache.lookup("alpha beta", "ann"))
    await cache.put("alpha beta", "ann", "new", lookup=result)
    for asked in (cache, other):
        assert (await apart(asked.lookup("alpha beta", "ann"))).response == "new"
        assert (await apart(asked.lookup("beta alpha", "ann"))).response == "new"


@HOW
async def test_entries_that_arrive_late(make_cache: CacheFactory, how: str) -> None:
    """Entries that come back after they were deleted, as a late write does, are not served."""
    cache = await make_cache(settings=PATIENT)
    await cache.put("alpha beta", "ann", "old", "own", [{"id": "d"}], shared=False)
    keys, store = cache.parts.keys, cache.parts.store
    query = keys.query("alpha beta", "ann")
    names = [keys.entry(level, query.tag, query.user or "", query.context)
             for level in ("l1", "l2", "l3", "l4")]  # fmt: skip
    values = await store.read(names)
    assert None not in values
    rows = await store.rows(keys.vectors(query.user or "", query.context))
    assert (await take_away(cache, how)).complete
    await store.write([Write(n, v or "", 600.0) for n, v in zip(names, values, strict=True)])
    from cache_core.stores.base import RowWrite

    await store.put_rows([RowWrite(keys.vectors(query.user or "", query.context), rows, 600.0)])
    result = await cache.lookup("alpha beta", "ann")
    assert (result.outcome, result.intent, result.rag_results) == ("miss", None, None)
    assert (await cache.lookup("beta alpha", "ann")).response is None


@pytest.mark.parametrize("how", ["own", "user"])
async def test_others_keep_theirs(make_cache: CacheFactory, how: str) -> None:
    """Only the one user's answers go; the next user to ask is not told that one exists."""
    cache = await make_cache(settings=PATIENT)
    await cache.put("alpha beta", "bob", "his")
    await cache.put("alpha beta", "ann", "hers")
    await cache.put("gamma delta", "bob", "shared", shared=True)
    assert "other_scope" in (await cache.lookup("alpha beta", "carl")).reasons
    await take_away(cache, how)
    assert (await cache.lookup("alpha beta", "bob")).response == "his"
    assert (await cache.lookup("gamma delta", "carl")).response == "shared"
    assert (await cache.lookup("alpha beta", "ann")).response is None
    assert "other_scope" not in (await cache.lookup("alpha beta", "carl")).reasons


@HOW
@WHERE
async def test_nobody_joins_from_before(make_cache: CacheFactory, how: str, here: bool) -> None:
    """A caller who comes after an invalidation, made anywhere, does not get what began before."""
    cache = await make_cache(settings=PATIENT)
    other = cache if here else await make_cache(settings=PATIENT)
    begun: list[int] = []

    async def compute() -> str:
        begun.append(len(begun) + 1)
        number = begun[-1]
        await asyncio.sleep(0.3)
        return f"answer {number}"

    first = asyncio.create_task(cache.get_or_compute("alpha beta", "ann", compute))
    while not begun:
        await asyncio.sleep(0.005)
    await apart(take_away(other, how))
    second = asyncio.create_task(cache.get_or_compute("alpha beta", "ann", compute))
    assert await asyncio.gather(first, second) == ["answer 1", "answer 2"]
    assert await apart(other.get_multilevel("alpha beta", "ann")) == "answer 2"


async def test_warming_while_a_message_is_invalidated(make_cache: CacheFactory) -> None:
    """What an operator provides is not stored past an invalidation during the warming."""
    cache = await make_cache(settings=PATIENT)
    items = [(f"topic number{n}", None, "provided") for n in range(40)]
    done: list[Invalidation] = []
    pending: list[asyncio.Task[None]] = []

    async def invalidate() -> None:
        done.append(await cache.invalidate("topic number39"))

    def progress(_: int) -> None:
        if not pending:
            pending.append(asyncio.create_task(invalidate()))

    stored = await cache.warm_cache(items, progress=progress)
    await asyncio.gather(*pending)
    assert done[0].complete
    assert (await cache.lookup("topic number39", "ann")).response is None
    assert (await cache.lookup("topic number3", "ann")).response == "provided"
    assert stored in {39, 40}


@HOW
async def test_with_only_l2(make_cache: CacheFactory, how: str) -> None:
    """The promise does not hang on a keyed tier being on."""
    cache = await make_cache(settings={**PATIENT, "tiers": "l2"})
    await cache.lookup("alpha beta", "ann")
    await apart(take_away(cache, how))
    await cache.put("alpha beta", "ann", "old")
    assert (await apart(cache.lookup("beta alpha", "ann"))).response is None
    await apart(cache.invalidate("gamma"))
    await refresh(cache)
    assert (await cache.lookup("beta alpha", "ann")).response == "new"


# ------------------------------------------------------------------------- which lookup a put follows


async def test_lookup_and_put_in_different_tasks(make_cache: CacheFactory) -> None:
    """Without `lookup=` a put follows the oldest lookup that no put has followed."""
    cache = await make_cache(settings=PATIENT)
    await apart(cache.lookup("alpha", "ann"))
    await apart(cache.invalidate("alpha"))
    await apart(cache.lookup("alpha", "ann"))
    await apart(cache.put("alpha", "ann", "old"))
    assert (await apart(cache.lookup("alpha", "bob"))).response is None
    assert cache._lookups.sightings.take(cache.parts.keys.query("alpha", "ann")) is not None
    await apart(cache.put("alpha", "ann", "free"))
    assert (await apart(cache.lookup("alpha", "ann"))).response == "free"


async def test_a_result_of_another_message_says_nothing(make_cache: CacheFactory) -> None:
    """A `lookup=` that does not belong to the put is as none seen: nothing invalidated is stored."""
    cache = await make_cache(settings=PATIENT)
    await cache.invalidate("alpha")
    other = await cache.lookup("gamma", "ann")
    made_by_hand = LookupResult(None, None, None, "miss")
    for result in (other, made_by_hand):
        await cache.put("alpha", "ann", "old", lookup=result)
        assert (await cache.lookup("alpha", "ann")).response is None
    await cache.put("delta", "ann", "never invalidated", lookup=other)
    assert (await cache.lookup("delta", "ann")).response == "never invalidated"


async def test_what_was_forgotten_counts_as_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """When more lookups wait for their puts than are remembered, a put may follow a lost one."""
    monkeypatch.setattr(seen, "KEPT", 3)
    now = [0.0]
    sightings = Sightings(clock=lambda: now[0])
    keys = Keys("default", b"x" * 32)

    async def look(number: int) -> None:
        query = keys.query(f"message {number}", "ann")
        sightings.note(Sighting(query.tag, query.user, Generation("p1")), answered=False)

    def put(number: int) -> Sighting | None:
        return sightings.take(keys.query(f"message {number}", "ann"))

    for number in range(4):
        await apart(look(number))
    for number in (1, 2, 3):
        found = put(number)
        assert found is not None
        assert found.generation == Generation("p1")
    lost, unknown = put(0), put(9)
    assert lost is not None
    assert lost.generation is None
    assert unknown is not None
    assert unknown.generation is None
    now[0] = 4_000.0
    assert put(9) is None


async def test_a_task_remembers_its_last_messages_however_often_it_asks(
    make_cache: CacheFactory,
) -> None:
    """A put for everybody is held against its lookup, though others came in between, again."""
    cache = await make_cache(settings=PATIENT)
    await cache.lookup("alpha beta", "ann")
    for number in range(60):
        await cache.lookup(f"helper {number % 3}", f"user {number % 5}")
    await apart(cache.invalidate("alpha beta"))
    await cache.put("alpha beta", None, "old", shared=True)
    assert (await apart(cache.lookup("alpha beta", "bob"))).response is None


# ------------------------------------------------------------------------- explain


async def test_explain_is_not_observed(make_cache: CacheFactory) -> None:
    """Neither counts, nor embeddings, nor money, nor spans tell of an explanation."""
    registry, watch = CollectorRegistry(), RecordingInstrument()
    instruments = (PrometheusInstrument("default", registry), watch)
    cache = await make_cache(settings=PATIENT, instruments=instruments)
    await cache.put("alpha beta", "ann", "hers")
    await cache.put("gamma delta", "ann", "shared", shared=True)

    def counted() -> dict[Any, float]:
        return {
            (sample.name, *sample.labels.items()): sample.value
            for family in registry.collect()
            for sample in family.samples
            if family.type in {"counter", "histogram"}
        }

    before = counted(), len(watch.recorded), len(watch.opened), cache.get_metrics()["operations"]
    for user in ("ann", "bob", None):
        explained = await cache.explain("beta alpha", user)
        assert [item.level for item in explained] == ["l1", "l2", "l3", "l4"]
    assert {item.outcome for item in await cache.explain("delta gamma", "bob")} == {"hit", "miss"}
    after = counted(), len(watch.recorded), len(watch.opened), cache.get_metrics()["operations"]
    assert after == before


# ------------------------------------------------------------------------- single flight


async def test_one_computation_while_the_store_was_never_reached(tmp_path: Path) -> None:
    """50 callers share one computation; the first one's cancellation does not end it."""
    fixed = Settings(dir=tmp_path, redis_url=servers.redis_url(servers.free_port()))
    begun: list[str] = []

    async def compute() -> str:
        begun.append("")
        await asyncio.sleep(0.3)
        return "made"

    async with MultiLevelCache(
        settings=fixed, embedding_model=HashEmbedder(), instruments=()
    ) as cache:
        assert not cache.is_open

        def ask(message: str = "alpha", user: str | None = "ann", **more: Any) -> Any:
            return asyncio.create_task(cache.get_or_compute(message, user, compute, **more))

        callers = [ask() for _ in range(50)]
        while not begun:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        callers[0].cancel()
        results = await asyncio.gather(*callers, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert results[1:] == ["made"] * 49
        assert len(begun) == 1
        # Another user, context, history or invalidation is another computation; "" has none.
        others = [ask(user="bob"), ask(context="x"), ask(history=["y"]), ask(user=None),
                  ask(user=None), ask(standalone="alpha beta"), ask()]  # fmt: skip
        await asyncio.sleep(0.05)
        assert not (await cache.invalidate("alpha")).complete
        others.append(ask())
        await asyncio.gather(*others)
        assert len(begun) == 1 + len(others)


# ------------------------------------------------------------------------- the store is away


@pytest.fixture
async def stoppable(tmp_path: Path) -> AsyncIterator[tuple[str, int]]:
    """A redis-server of the test's own, and its process id."""
    with servers.redis_server(tmp_path) as url:
        with servers.admin(url) as client:
            pid = int(client.info("server")["process_id"])
        try:
            yield url, pid
        finally:
            os.kill(pid, signal.SIGCONT)


@contextlib.asynccontextmanager
async def stopped(pid: int) -> AsyncIterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextlib.asynccontextmanager
async def opened(url: str, directory: Path, **more: Any) -> AsyncIterator[MultiLevelCache]:
    fixed = Settings(dir=directory, redis_url=url, embedding_budget=5, search_budget=5,
                     lookup_budget=5, put_budget=1, **more)  # fmt: skip
    async with MultiLevelCache(
        settings=fixed, embedding_model=HashEmbedder(), instruments=()
    ) as cache:
        yield cache


async def until(done: Any, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("how", ["message", "tag"])
async def test_invalidated_while_redis_is_stopped(
    stoppable: tuple[str, int], tmp_path: Path, how: str
) -> None:
    """Nothing of it is served from that moment on, here; and nowhere once Redis is back."""
    url, pid = stoppable
    async with opened(url, tmp_path / "a") as cache, opened(url, tmp_path / "b") as other:
        await cache.put("alpha beta", "ann", "old", shared=True, tags=["t"])
        await cache.put("gamma delta", "ann", "kept", shared=True)
        await cache.put("epsilon zeta", "ann", "hers")
        assert (await cache.lookup("beta alpha", "bob")).tier == "l2"
        async with stopped(pid):
            assert (await cache.lookup("beta alpha", "bob")).reasons[-1] == "unconfirmed"
            work = cache.invalidate("alpha beta") if how == "message" else cache.invalidate_tag("t")
            started = time.monotonic()
            done = await work
            assert time.monotonic() - started < 5
            assert (done.complete, done.pending) == (False, ("redis",))
            for words in ("beta alpha", "alpha beta"):
                assert (await cache.lookup(words, "bob")).response is None
            pending = cache.parts.vetoes
            assert pending.unlisted if how == "tag" else pending.unsure
            # Told again and again it stays one.
            for _ in range(3):
                again = cache.invalidate("alpha beta") if how == "message" else (
                    cache.invalidate_tag("t"))  # fmt: skip
                await again
            assert cache._engine.running is not None
            assert 1 <= cache._engine.running.invalidator.steps.pending <= 4
            assert len(cache._engine.running.invalidator.steps.waiting) <= 8
        running = cache._engine.running
        # Not for a moment when it is back.
        while running.invalidator.steps.pending:
            for words in ("beta alpha", "alpha beta") if how == "message" else ():
                assert (await cache.lookup(words, "bob")).response is None
            await asyncio.sleep(0.01)
        for asked in (cache, other):
            await until(lambda asked=asked: asked.parts.store.breaker.state == "closed")
            assert (await asked.lookup("alpha beta", "bob")).response is None
            assert (await asked.lookup("beta alpha", "bob")).response is None
        assert (await cache.lookup("delta gamma", "bob")).response == "kept"
        assert (await cache.lookup("epsilon zeta", "ann")).response == "hers"
        left = (pending.messages, pending.own, pending.users, pending.unsure, pending.unlisted)
        assert not any(left)


@pytest.mark.parametrize("how", ["message", "tag"])
async def test_what_another_invalidation_may_concern_is_withheld_and_not_removed(
    stoppable: tuple[str, int], tmp_path: Path, how: str
) -> None:
    """Once it is confirmed, what it did not concern is served again."""
    url, pid = stoppable
    async with opened(url, tmp_path) as cache:
        await cache.put("alpha beta", "ann", "old", shared=True, tags=["t"])
        await cache.put("gamma delta", "ann", "kept", shared=True)
        semantic, running = cache.parts.semantic, cache._engine.running
        assert semantic is not None
        assert running is not None
        async with stopped(pid):
            work = cache.invalidate("alpha beta") if how == "message" else cache.invalidate_tag("t")
            assert not (await work).complete
            # Long enough for what is found to be dead to be removed.
            for _ in range(15):
                assert (await cache.lookup("delta gamma", "bob")).response is None
                await asyncio.sleep(0.1)
        await until(lambda: not running.invalidator.steps.pending)
        await until(lambda: cache.parts.store.breaker.state == "closed")
        await semantic.tier.tend()
        assert (await cache.lookup("delta gamma", "bob")).response == "kept"
        assert (await cache.lookup("beta alpha", "bob")).response is None


async def test_retries_do_not_replace_tokens_again(
    stoppable: tuple[str, int], tmp_path: Path
) -> None:
    """What is confirmed, or has arrived all the same, is not repeated."""
    url, pid = stoppable
    async with opened(url, tmp_path / "a") as cache:
        await cache.put("alpha beta", "ann", "old")
        running = cache._engine.running
        assert running is not None
        keys, store = cache.parts.keys, cache.parts.store
        name = keys.generation(keys.query("alpha beta", "ann").tag)
        # The embedder fails: the message is invalidated, the similar ones wait.
        embedder = cache.parts.semantic.embedder._inner  # type: ignore[union-attr]
        embedder.failure = ConnectionError("away")
        assert not (await cache.invalidate("alpha beta")).complete
        token = (await store.read([name]))[0]
        await asyncio.sleep(1.2)
        assert running.invalidator.steps.pending == 1
        assert (await store.read([name]))[0] == token
        await cache.put("alpha beta", "ann", "new")
        embedder.failure = None
        await until(lambda: running.invalidator.steps.pending == 0)
        assert (await store.read([name]))[0] == token
        # A write that timed out arrives as soon as Redis goes on.
        async with stopped(pid):
            assert not (await cache.invalidate("gamma delta")).complete
            planned = {step.job.token for step in running.invalidator.steps.waiting}
        await until(lambda: running.invalidator.steps.pending == 0)
        name = keys.generation(keys.query("gamma delta", "ann").tag)
        assert (await store.read([name]))[0] in planned


async def test_forgotten_while_redis_is_stopped(stoppable: tuple[str, int], tmp_path: Path) -> None:
    """A computation from before it is not stored when Redis is back."""
    url, pid = stoppable
    async with opened(url, tmp_path / "a") as cache:
        await cache.put("alpha beta", "ann", "old")
        result = await cache.lookup("gamma delta", "ann")
        async with stopped(pid):
            assert not (await apart(cache.forget_user("ann"))).complete
        running = cache._engine.running
        assert running is not None
        while running.invalidator.steps.pending:
            assert (await apart(cache.lookup("alpha beta", "ann"))).response is None
        await cache.put("gamma delta", "ann", "old", lookup=result)
        assert (await apart(cache.lookup("gamma delta", "ann"))).response is None
        assert (await apart(cache.lookup("alpha beta", "ann"))).response is None


# ------------------------------------------------------------------------- opening and closing


async def test_a_chroma_that_accepts_and_never_answers(tmp_path: Path) -> None:
    """The cache opens without waiting for it, L1 works, and heartbeats stay on time."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        fixed = Settings(dir=tmp_path, chroma_url=f"http://127.0.0.1:{deaf.getsockname()[1]}")
        warm = MultiLevelCache(settings=Settings(dir=tmp_path / "warm"), instruments=(),
                               embedding_model=HashEmbedder())  # fmt: skip
        async with warm:  # importing Chroma takes its time once
            pass
        cache = MultiLevelCache(settings=fixed, embedding_model=HashEmbedder(), instruments=())
        started = time.monotonic()
        await cache.initialize()
        assert time.monotonic() - started < 2.0
        beats: set[float] = set()
        while time.monotonic() - started < 5:
            await cache.put("alpha", "ann", "answer")
            assert (await cache.lookup("alpha", "ann")).tier == "l1"
            beats |= {beat["at"] for beat in await replicas(cache.parts)}
            await asyncio.sleep(0.1)
        assert len(beats) >= 4
        assert cache._engine.running is not None
        assert not cache._engine.running.housekeeper.state().backends["chroma"]
        await cache.close()
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1


async def test_a_cancelled_close_closes(empty_redis: str, tmp_path: Path) -> None:
    """Cancelling `close` leaves neither tasks nor connections."""
    fixed = Settings(dir=tmp_path, redis_url=empty_redis, **PATIENT)  # type: ignore[arg-type]
    cache = MultiLevelCache(settings=fixed, embedding_model=HashEmbedder(), instruments=())
    with servers.admin(empty_redis) as watch:
        before = len(watch.client_list())
        await cache.initialize()
        await cache.put("alpha", "ann", "answer")
        assert len(watch.client_list()) > before
        closing = asyncio.create_task(cache.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)
        assert closing.cancelled()
        await until(lambda: len(asyncio.all_tasks()) == 1)
        await until(lambda: len(watch.client_list()) == before)


async def test_a_context_too_many_is_not_embedded(make_cache: CacheFactory) -> None:
    """L2 asks its index whether there is room before it embeds."""
    embedder = HashEmbedder()
    cache = await make_cache(settings={**PATIENT, "max_contexts": 1}, embedding_model=embedder)
    await cache.put("alpha beta", "ann", "answer", shared=True)
    embedder.calls.clear()
    await cache.put("alpha beta", "ann", "answer", shared=True, context="another")
    assert embedder.calls == []
