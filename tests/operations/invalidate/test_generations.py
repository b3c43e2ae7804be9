"""Answers computed before an invalidation are never stored nor served after it, anywhere."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from cache_core import MultiLevelCache
from cache_core.backends.base import Write
from cache_core.config.settings import Settings
from cache_core.model.generations import origin
from cache_core.model.keys import Keys
from cache_core.model.values import Generation, Invalidation, LookupResult, Sighting
from cache_core.operations import sightings as seen
from cache_core.operations.sightings import Sightings
from cache_core.testing import ChaosStore, Faults, HashEmbedder, RecordingInstrument
from telemetry.metrics import PrometheusInstrument
from tests.support import servers
from tests.support.caches import CacheFactory, opened
from tests.support.inside import inside
from tests.support.invalidating import take_away
from tests.support.patience import PATIENT
from tests.support.waiting import apart, until

BUDGETS = {"embedding_budget": 5, "search_budget": 5, "lookup_budget": 5, "put_budget": 1}
HOW = pytest.mark.parametrize("how", ["message", "own", "user"])
WHERE = pytest.mark.parametrize("here", [True, False], ids=["here", "another replica"])


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
    keys, store = cache._parts.keys, cache._parts.store
    query = keys.query("alpha beta", "ann")
    names = [keys.entry(level, query, query.user or "")
             for level in ("l1", "l2", "l3", "l4")]  # fmt: skip
    values = await store.read(names)
    assert None not in values
    rows = await store.rows(keys.vectors(query.user or "", query.context))
    assert (await take_away(cache, how)).complete
    await store.write([Write(n, v or "", 600.0) for n, v in zip(names, values, strict=True)])
    from cache_core.backends.base import RowWrite

    await store.put_rows([RowWrite(keys.vectors(query.user or "", query.context), rows, 600.0)])
    result = await cache.lookup("alpha beta", "ann")
    assert (result.outcome, result.intent, result.rag_results) == ("miss", None, None)
    assert (await cache.lookup("beta alpha", "ann")).response is None


@pytest.mark.parametrize("how", ["own", "user"])
async def test_others_keep_theirs(make_cache: CacheFactory, how: str) -> None:
    """Only the one user's answers go; the next user does not learn that one exists."""
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
    both = asyncio.Event()

    async def compute() -> str:
        begun.append(len(begun) + 1)
        number = begun[-1]
        await both.wait()
        return f"answer {number}"

    first = asyncio.create_task(cache.get_or_compute("alpha beta", "ann", compute))
    await until(lambda: begun)
    await apart(take_away(other, how))
    second = asyncio.create_task(cache.get_or_compute("alpha beta", "ann", compute))
    await until(lambda: len(begun) == 2)
    both.set()
    assert await asyncio.gather(first, second) == ["answer 1", "answer 2"]
    assert await apart(other.get_multilevel("alpha beta", "ann")) == "answer 2"


async def test_warming_while_a_message_is_invalidated(make_cache: CacheFactory) -> None:
    """An operator's answer is not stored past an invalidation during the warming."""
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
    assert cache._family.sightings.take(cache._parts.keys.query("alpha", "ann")) is not None
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
    """A put may follow a lost lookup if more of them wait for puts than are remembered."""
    monkeypatch.setattr(seen, "SIGHTINGS_KEPT", 3)
    now = [0.0]
    sightings = Sightings(clock=lambda: now[0])
    keys = Keys("default", b"x" * 32)

    async def look(number: int) -> None:
        query = keys.query(f"message {number}", "ann")
        saw = Sighting(query.tag, query.user, Generation("p1"), exact=query.exact)
        sightings.note(saw, answered=False)

    def put(number: int) -> Sighting | None:
        return sightings.take(keys.query(f"message {number}", "ann"))

    for number in range(4):
        await apart(look(number))
    for number in (1, 2, 3):
        found = put(number)
        assert found is not None
        assert found.generation == Generation("p1")
    lost = put(0)
    assert lost is not None
    assert (lost.generation, lost.forgotten, lost.position) == (None, True, "")
    # Nothing was ever looked up of it.
    assert put(9) is None
    now[0] = 4_000.0
    assert put(0) is None


def test_forgotten_lookups_count_as_the_oldest_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many were forgotten, the oldest place of those of the last hour holds."""
    monkeypatch.setattr(seen, "SIGHTINGS_KEPT", 1)
    now = [0.0]
    sightings = Sightings(clock=lambda: now[0])
    keys = Keys("default", b"x" * 32)

    def look(number: int, generation: Generation | None = Generation("p1")) -> None:  # noqa: B008
        query = keys.query(f"message {number}", "ann")
        sighting = Sighting(query.tag, query.user, generation, str(number), exact=query.exact)
        contextvars.Context().run(sightings.note, sighting, answered=False)

    def put(number: int) -> Sighting | None:
        return sightings.take(keys.query(f"message {number}", "ann"))

    for number in range(1, 60):
        look(number)
        now[0] += 100.0
    found = put(40)
    assert found is not None
    assert 22 <= int(found.position) <= 24
    # One that did not reach the store has seen nothing: all invalidations hold against it.
    look(98, None)
    look(99)
    found = put(98)
    assert found is not None
    assert not found.forgotten


@pytest.mark.parametrize("way", ["message", "own", "document", "tag", "user"])
async def test_a_put_after_a_forgotten_lookup(
    make_cache: CacheFactory, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """It is held against what was invalidated since that lookup, and not against what was before."""
    monkeypatch.setattr(seen, "SIGHTINGS_KEPT", 1)
    cache = await make_cache(settings=PATIENT)

    async def invalidate(message: str) -> None:
        match way:
            case "message":
                await cache.invalidate(message)
            case "own":
                await cache.invalidate(message, "ann")
            case "document":
                await cache.invalidate_document("doc")
            case "tag":
                await cache.invalidate_tag("tag")
            case "user":
                await cache.forget_user("ann")

    async def put(message: str) -> str | None:
        documents = [{"id": "doc"}]
        await apart(cache.put(message, "ann", "a", rag_results=documents, tags=["tag"]))
        return (await apart(cache.lookup(message, "ann"))).response

    assert await put("alpha") == "a"
    await apart(invalidate("alpha"))
    for message in ("alpha", "gamma"):
        await apart(cache.lookup(message, "ann"))
    assert await put("alpha") == "a"
    await apart(cache.lookup("epsilon", "ann"))
    await apart(cache.lookup("zeta", "ann"))
    await apart(invalidate("epsilon"))
    assert await put("epsilon") is None


async def test_a_token_that_expired_is_no_invalidation(make_cache: CacheFactory) -> None:
    """An answer computed for longer than the old one is kept is stored, unless invalidated."""
    cache = await make_cache(settings=PATIENT)
    for between in (False, True):
        await cache.put("alpha", "ann", "old")
        result = await apart(cache.lookup("alpha", "ann"))
        token = cache._parts.keys.generation(result.sighting.tag)
        if between:
            await apart(cache.invalidate("alpha"))
        await cache._parts.store.delete([token])
        await apart(cache.put("alpha", "ann", "new", lookup=result))
        assert (await apart(cache.lookup("alpha", "ann"))).response == (None if between else "new")


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
    """Neither counts, nor embeddings, nor money, nor spans show an explanation."""
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
    done = asyncio.Event()

    async def compute() -> str:
        begun.append("")
        await done.wait()
        return "made"

    async with MultiLevelCache(
        settings=fixed, embedding_model=HashEmbedder(), instruments=()
    ) as cache:
        assert not cache.is_open

        def ask(message: str = "alpha", user: str | None = "ann", **more: Any) -> Any:
            return asyncio.create_task(cache.get_or_compute(message, user, compute, **more))

        callers = [ask() for _ in range(50)]
        await until(lambda: cache.metrics.lookups == len(callers))
        callers[0].cancel()
        done.set()
        results = await asyncio.gather(*callers, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert results[1:] == ["made"] * 49
        assert len(begun) == 1
        done.clear()
        # Another user, context, history or invalidation is another computation; "" has none.
        others = [ask(user="bob"), ask(context="x"), ask(history=["y"]), ask(user=None),
                  ask(user=None), ask(standalone="alpha beta"), ask()]  # fmt: skip
        await until(lambda: len(begun) == 1 + len(others))
        assert not (await cache.invalidate("alpha")).complete
        others.append(ask())
        await until(lambda: len(begun) == 1 + len(others))
        done.set()
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


@pytest.mark.server
@pytest.mark.parametrize("how", ["message", "tag"])
async def test_invalidated_while_redis_is_stopped(
    stoppable: tuple[str, int], tmp_path: Path, how: str
) -> None:
    """Nothing of it is served from that moment on, here; and nowhere once Redis is back."""
    url, pid = stoppable
    async with (
        opened(tmp_path / "a", redis_url=url, **BUDGETS) as cache,
        opened(tmp_path / "b", redis_url=url, **BUDGETS) as other,
    ):
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
            pending = cache._parts.denylist
            assert pending.unlisted if how == "tag" else pending.unsure
            # Told again and again it stays one.
            for _ in range(3):
                again = cache.invalidate("alpha beta") if how == "message" else (
                    cache.invalidate_tag("t"))  # fmt: skip
                await again
            assert cache.is_open
            assert 1 <= inside(cache).invalidator.steps.pending <= 4
            assert len(inside(cache).invalidator.steps.waiting) <= 8
        running = inside(cache)
        # Not for a moment when it is back.
        while running.invalidator.steps.pending:
            for words in ("beta alpha", "alpha beta") if how == "message" else ():
                assert (await cache.lookup(words, "bob")).response is None
            await asyncio.sleep(0.01)
        for asked in (cache, other):
            await until(lambda asked=asked: asked._parts.store.breaker.state == "closed")
            assert (await asked.lookup("alpha beta", "bob")).response is None
            assert (await asked.lookup("beta alpha", "bob")).response is None
        assert (await cache.lookup("delta gamma", "bob")).response == "kept"
        assert (await cache.lookup("epsilon zeta", "ann")).response == "hers"
        left = (pending.messages, pending.own, pending.users, pending.unsure, pending.unlisted)
        assert not any(left)


@pytest.mark.server
@pytest.mark.parametrize("how", ["message", "tag"])
async def test_what_another_invalidation_may_concern_is_withheld_and_not_removed(
    stoppable: tuple[str, int], tmp_path: Path, how: str
) -> None:
    """Once it is confirmed, what it did not concern is served again."""
    url, pid = stoppable
    async with opened(tmp_path, redis_url=url, **BUDGETS) as cache:
        await cache.put("alpha beta", "ann", "old", shared=True, tags=["t"])
        await cache.put("gamma delta", "ann", "kept", shared=True)
        semantic, running = cache._parts.semantic, inside(cache)
        assert semantic is not None
        async with stopped(pid):
            work = cache.invalidate("alpha beta") if how == "message" else cache.invalidate_tag("t")
            assert not (await work).complete
            # Long enough for what is found to be dead to be removed.
            for _ in range(15):
                assert (await cache.lookup("delta gamma", "bob")).response is None
                await asyncio.sleep(0.1)
        await until(lambda: not running.invalidator.steps.pending)
        await until(lambda: cache._parts.store.breaker.state == "closed")
        await semantic.tier.tend()
        assert (await cache.lookup("delta gamma", "bob")).response == "kept"
        assert (await cache.lookup("beta alpha", "bob")).response is None


async def test_what_was_invalidated_takes_nothing_more_with_it(make_cache: CacheFactory) -> None:
    """Its vector goes, too: without its text no guard would spare what others put for the same."""
    asked = " ".join(f"word{number}" for number in range(40)) + " costs {} euros"
    cache = await make_cache()
    await cache.put(asked.format(5), "ann", "ann's")
    assert (await cache.invalidate(asked.format(5))).removed == 2
    await cache.put(asked.format(5), "bob", "bob's")
    assert await cache.invalidate(asked.format(50)) == Invalidation(0, complete=True)
    assert await cache.get_multilevel(asked.format(5), "bob") == "bob's"


@pytest.mark.server
async def test_retries_do_not_replace_tokens_again(
    stoppable: tuple[str, int], tmp_path: Path
) -> None:
    """A confirmed step, or one that arrived anyway, is not repeated."""
    url, pid = stoppable
    async with opened(tmp_path / "a", redis_url=url, **BUDGETS) as cache:
        await cache.put("alpha beta", "ann", "old")
        running = inside(cache)
        keys, store = cache._parts.keys, cache._parts.store
        name = keys.generation(keys.query("alpha beta", "ann").tag)
        # The embedder fails: the message is invalidated, the similar ones wait.
        embedder = cache._parts.semantic.embedder  # type: ignore[union-attr]
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
        assert origin((await store.read([name]))[0] or "") in planned


HELD: contextvars.ContextVar[str] = contextvars.ContextVar("held", default="")
"""Part of a name: reads of such a one are held, in the context of a lookup."""


class HeldReads(ChaosStore):
    """Store that holds values back, after they were read, until it is told to go on."""

    def __init__(self, inner: Any, faults: Faults) -> None:
        super().__init__(inner, faults, read_timeout=20.0)
        self.has_read, self.go_on = asyncio.Event(), asyncio.Event()

    async def read(self, names: Any, **how: Any) -> Any:  # type: ignore[override]
        """Return the values as they were when they were read."""
        values = await super().read(names, **how)
        held = HELD.get()
        if held and any(held in name for name in names):
            self.has_read.set()
            await self.go_on.wait()
        return values


@HOW
@pytest.mark.parametrize("tier", ["l1", "l2"])
async def test_confirmed_while_an_answer_is_read(
    make_cache: CacheFactory, how: str, tier: str
) -> None:
    """An answer read with the generation of before is not served, though nothing is pending now."""
    faults, stores = Faults(seed=1), []

    def wrapped(store: Any) -> HeldReads:
        stores.append(HeldReads(store, faults))
        return stores[-1]

    settings = {**PATIENT, "tiers": frozenset({tier})}
    cache = await make_cache(settings=settings, wrap_store=wrapped)
    await cache.put("alpha beta", "ann", "old")
    changes = {"write", "write_new", "put_rows", "append", "delete", "delete_rows"}
    faults.always("throw", only=frozenset(changes))
    assert not (await apart(take_away(cache, how))).complete

    async def ask() -> LookupResult:
        HELD.set(cache._parts.keys.query("alpha beta", "ann").tag)
        return await cache.lookup("alpha beta", "ann")

    asked = asyncio.create_task(ask())
    await stores[0].has_read.wait()
    faults.never()
    async with asyncio.timeout(20):
        while inside(cache).invalidator.steps.pending:
            await inside(cache).invalidator.steps.retry()
            await asyncio.sleep(0.01)
    stores[0].go_on.set()
    assert (await asked).response is None


@pytest.mark.server
async def test_forgotten_while_redis_is_stopped(stoppable: tuple[str, int], tmp_path: Path) -> None:
    """A computation from before it is not stored when Redis is back."""
    url, pid = stoppable
    async with opened(tmp_path / "a", redis_url=url, **BUDGETS) as cache:
        await cache.put("alpha beta", "ann", "old")
        result = await cache.lookup("gamma delta", "ann")
        async with stopped(pid):
            assert not (await apart(cache.forget_user("ann"))).complete
        running = inside(cache)
        while running.invalidator.steps.pending:
            assert (await apart(cache.lookup("alpha beta", "ann"))).response is None
        await cache.put("gamma delta", "ann", "old", lookup=result)
        assert (await apart(cache.lookup("gamma delta", "ann"))).response is None
        assert (await apart(cache.lookup("alpha beta", "ann"))).response is None


# ------------------------------------------------------------------------- opening and closing


@pytest.mark.slow
async def test_a_chroma_that_accepts_and_never_answers(tmp_path: Path) -> None:
    """The cache opens without waiting for it, L1 works, and heartbeats stay on time."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        fixed = Settings(dir=tmp_path, chroma_url=url, **PATIENT)  # type: ignore[arg-type]
        warm = MultiLevelCache(settings=Settings(dir=tmp_path / "warm"), instruments=(),
                               embedding_model=HashEmbedder())  # fmt: skip
        async with warm:  # importing Chroma takes its time once
            pass
        cache = MultiLevelCache(settings=fixed, embedding_model=HashEmbedder(), instruments=())
        await asyncio.wait_for(cache.initialize(), 20)
        beats: set[float] = set()
        async with asyncio.timeout(60):
            while len(beats) < 4:
                await cache.put("alpha", "ann", "answer")
                assert (await cache.lookup("alpha", "ann")).tier == "l1"
                beats |= {replica.at for replica in await cache._parts.fleet.alive()}
                await asyncio.sleep(0.1)
        assert cache.is_open
        assert not inside(cache).state().backends["chroma"]
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
