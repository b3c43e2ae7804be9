"""Single flight among replicas, stale answers, eager refresh: on both stores, in real processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from cache_core import MultiLevelCache
from cache_core.model.exceptions import BackendError, ConfigurationError
from cache_core.model.values import Answer, LookupResult
from cache_core.operations.compute.flight import SingleFlight
from cache_core.operations.compute.turns import Lease, Turns
from cache_core.testing import ManualClock, RecordingInstrument
from telemetry import names
from telemetry.metrics import PrometheusInstrument
from tests.support import servers
from tests.support.caches import CacheFactory
from tests.support.inside import inside
from tests.support.patience import PATIENT
from tests.support.processes import ENVIRONMENT
from tests.support.redis_time import age
from tests.support.waiting import until

KEYED = {**PATIENT, "tiers": "l1,l3,l4"}


def leases(cache: MultiLevelCache) -> list[str]:
    """Return the names of the leases in the store."""
    if cache.settings.redis_url:
        with servers.admin(cache.settings.redis_url) as client:
            return [bytes(key).decode() for key in client.keys("*:lease:*")]
    store = cache._parts.store
    found = store._file.select("SELECT key, '' FROM entries WHERE key LIKE '%:lease:%'", ())  # type: ignore[attr-defined]
    return [key for key, _ in found]


class Computer:
    """Computes when it is let, and counts how often."""

    def __init__(self, name: str = "answer") -> None:
        self.name = name
        self.begun = 0
        self.cancelled = 0
        self.go = asyncio.Event()
        self.failure: Exception | None = None

    async def __call__(self) -> str:
        self.begun += 1
        number = self.begun
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.failure is not None:
            raise self.failure
        return f"{self.name} {number}"


def ask(
    cache: MultiLevelCache, compute: Any, user: str | None = "ann", **more: Any
) -> asyncio.Task[str]:
    return asyncio.create_task(cache.get_or_compute("alpha beta", user, compute, **more))


@pytest.fixture
async def two(make_cache: CacheFactory) -> tuple[MultiLevelCache, MultiLevelCache]:
    """Two replicas."""
    return await make_cache(settings=KEYED), await make_cache(settings=KEYED)


Two = tuple[MultiLevelCache, MultiLevelCache]


def later(clock: ManualClock, seconds: float, *caches: MultiLevelCache) -> None:
    """Let *seconds* pass immediately, on either store."""
    if caches[0].redis_client is None:
        clock.advance(seconds)
        return
    for cache in caches:
        age(cache._parts.store, seconds)


# --------------------------------------------------------------------------------- among replicas


@pytest.mark.slow
async def test_ten_thousand_at_once(make_cache: CacheFactory) -> None:
    """Ten thousand identical misses in one process cost one computation."""
    cache = await make_cache(settings={**KEYED, "tiers": "l1"})
    begun: list[int] = []

    async def compute() -> str:
        begun.append(1)
        await asyncio.sleep(0.01)
        return "made"

    found = await asyncio.gather(
        *(cache.get_or_compute("alpha", "ann", compute) for _ in range(10_000))
    )
    assert (len(begun), set(found)) == (1, {"made"})
    await until(lambda: not inside(cache).leases._releasing)
    assert leases(cache) == []


async def test_a_computation_that_asks_for_itself(make_cache: CacheFactory) -> None:
    """It computes what it asked for, and waits neither for itself nor for its own lease."""
    cache = await make_cache(settings=KEYED)

    async def outer() -> str:
        return await cache.get_or_compute("Hello there", "ann", lambda: "inner") + " outer"

    async with asyncio.timeout(5):
        assert await cache.get_or_compute("hello  there?", "ann", outer) == "inner outer"


async def test_replicas_share_a_computation(two: Two) -> None:
    """One of two replicas computes, the other waits for its answer, and no lease is left."""
    watch = Computer()
    tasks = [ask(cache, watch) for cache in two for _ in range(5)]
    await until(lambda: watch.begun)
    await asyncio.sleep(0.3)
    assert len(leases(two[0])) == 1
    watch.go.set()
    assert await asyncio.gather(*tasks) == ["answer 1"] * 10
    assert sum(cache.metrics.joined for cache in two) == 9
    assert not any(inside(cache).leases._held for cache in two)
    await until(lambda: all(not inside(c).leases._releasing for c in two))
    assert leases(two[0]) == []


async def test_what_is_not_shared_is_computed_apart(two: Two) -> None:
    """Another user, no user, another context or history: no caller waits for, or gets, another's."""
    one, other = two
    tasks = [
        ask(one, compute := Computer("first")),
        ask(other, Computer("bob's"), user="bob"),
        ask(other, Computer("nobody's"), user=None),
        ask(one, Computer("nobody's other"), user=None),
        ask(other, Computer("context"), context="x"),
        ask(other, Computer("history"), history=["x"]),
        ask(other, Computer("shared"), user="carl", shared=True),
    ]
    makers = [task.get_coro().cr_frame.f_locals["wanted"].compute for task in tasks]  # type: ignore[union-attr]
    await until(lambda: all(maker.begun for maker in makers))
    for maker in makers:
        maker.go.set()
    assert await asyncio.gather(*tasks) == [f"{maker.name} 1" for maker in makers]
    assert compute.begun == 1
    # Once there is a shared answer it is everybody's who has none of their own.
    assert await other.get_multilevel("alpha beta", "dora") == "shared 1"
    assert await other.get_multilevel("alpha beta", "bob") == "bob's 1"


async def test_a_replica_whose_caller_is_cancelled_is_replaced(two: Two) -> None:
    """The leader's last caller is cancelled: its lease ends, and one follower computes instead."""
    one, other = two
    first, second = Computer("first"), Computer("second")
    leader = ask(one, first)
    await until(lambda: first.begun)
    followers = [ask(other, second) for _ in range(5)]
    await asyncio.sleep(0.2)
    assert second.begun == 0
    leader.cancel()
    await asyncio.gather(leader, return_exceptions=True)
    await until(lambda: second.begun)
    second.go.set()
    assert await asyncio.gather(*followers) == ["second 1"] * 5
    assert (first.begun, first.cancelled, second.begun) == (1, 1, 1)


async def test_a_failure_is_the_leaders(two: Two) -> None:
    """A replica computes immediately for itself when computing fails in the other."""
    one, other = two
    first, second = Computer("first"), Computer("second")
    first.failure = ZeroDivisionError("no")
    leader = ask(one, first)
    await until(lambda: first.begun)
    follower = ask(other, second)
    await asyncio.sleep(0.1)
    first.go.set()
    second.go.set()
    with pytest.raises(ZeroDivisionError):
        await leader
    assert await follower == "second 1"


@pytest.mark.slow
async def test_a_lease_is_renewed(make_cache: CacheFactory, clock: ManualClock) -> None:
    """A computation of many times the lease is not begun twice."""
    settings = {**KEYED, "compute_lease": 0.5}
    one, other = await make_cache(settings=settings), await make_cache(settings=settings)
    compute = Computer()
    tasks = [ask(one, compute)]
    await until(lambda: compute.begun)
    tasks.append(ask(other, compute))
    await asyncio.sleep(2)
    assert compute.begun == 1
    compute.go.set()
    assert await asyncio.gather(*tasks) == ["answer 1"] * 2


async def test_waiting_has_an_end(make_cache: CacheFactory) -> None:
    """After `compute_wait` seconds a replica computes for itself, though another still does."""
    settings = {**KEYED, "compute_wait": 0.2}
    one, other = await make_cache(settings=settings), await make_cache(settings=settings)
    first, second = Computer("first"), Computer("second")
    tasks = [ask(one, first)]
    await until(lambda: first.begun)
    tasks.append(ask(other, second))
    await until(lambda: second.begun)
    second.go.set()
    assert await tasks[1] == "second 1"
    first.go.set()
    # The answer of the one who holds the lease is stored last.
    assert await tasks[0] == "first 1"
    assert await other.get_multilevel("alpha beta", "ann") == "first 1"


async def test_without_leases(make_cache: CacheFactory) -> None:
    """With `compute_lease=0` each replica computes for itself."""
    settings = {**KEYED, "compute_lease": 0}
    one, other = await make_cache(settings=settings), await make_cache(settings=settings)
    compute = Computer()
    tasks = [ask(one, compute), ask(other, compute)]
    await until(lambda: compute.begun == 2)
    assert leases(one) == []
    compute.go.set()
    await asyncio.gather(*tasks)


async def test_a_holder_that_was_replaced_keeps_its_answer_to_itself(two: Two) -> None:
    """It returns its own answer, but what the newer holder stored stays."""
    one, other = two
    slow, quick = Computer("slow"), Computer("quick")
    behind = ask(one, slow)
    await until(lambda: slow.begun)
    # As if the process had stood still for longer than its lease.
    assert await one._parts.store.delete(leases(one)) == 1
    quick.go.set()
    assert await ask(other, quick) == "quick 1"
    slow.go.set()
    assert await behind == "slow 1"
    assert await one.get_multilevel("alpha beta", "ann") == "quick 1"
    assert one.metrics.puts["l1", "bypass"] == 1
    # Nobody stored meanwhile: the answer is as good as any.
    behind = ask(one, slow, context="x")
    await until(lambda: slow.begun == 2)
    await one._parts.store.delete(leases(one))
    assert await behind == "slow 2"
    assert await other.get_multilevel("alpha beta", "ann", context="x") == "slow 2"


@pytest.mark.parametrize("store_kind", ["embedded"])
async def test_a_newer_holders_answer_stays_at_any_age(
    make_cache: CacheFactory, clock: ManualClock
) -> None:
    """`max_age=` is of the lookup: only an answer from before the computation may be replaced."""
    one = await make_cache(settings=KEYED, clock=clock)
    other = await make_cache(settings=KEYED, clock=clock)
    slow, quick = Computer("slow"), Computer("quick")
    behind = ask(one, slow, max_age=1)
    await until(lambda: slow.begun)
    assert await one._parts.store.delete(leases(one)) == 1
    quick.go.set()
    assert await ask(other, quick, max_age=1) == "quick 1"
    clock.advance(2)
    slow.go.set()
    assert await behind == "slow 1"
    assert await one.get_multilevel("alpha beta", "ann") == "quick 1"
    slow.go.clear()
    behind = ask(one, slow, max_age=1)
    await until(lambda: slow.begun == 2)
    await one._parts.store.delete(leases(one))
    slow.go.set()
    assert await behind == "slow 2"
    assert await one.get_multilevel("alpha beta", "ann") == "slow 2"


async def test_closing_gives_leases_back(make_cache: CacheFactory) -> None:
    """A cache that closes leaves no lease; what it still computes reaches its caller only."""
    one, other = await make_cache(settings=KEYED), await make_cache(settings=KEYED)
    compute = Computer()
    task = ask(one, compute)
    await until(lambda: compute.begun)
    await one.close()
    assert leases(other) == []
    compute.go.set()
    assert await task == "answer 1"
    assert not one.is_open
    assert await other.get_multilevel("alpha beta", "ann") is None


# ------------------------------------------------------------------------- the parts themselves


async def test_a_taken_lease_whose_taker_is_cancelled_is_given_back(two: Two) -> None:
    """A caller cancelled before the store's reply holds no lease, and blocks no other."""
    held = Turns(two[0]._parts.store, 60, 60)
    taking = asyncio.create_task(held.take("gc1:x:{a}:lease:1"))
    await asyncio.sleep(0)
    taking.cancel()
    await asyncio.gather(taking, return_exceptions=True)
    await until(lambda: not held._releasing)
    found = await held.take("gc1:x:{a}:lease:1")
    assert isinstance(found, Lease)
    await held.close()
    assert leases(two[0]) == []
    with pytest.raises(BackendError):
        await held.take("gc1:x:{a}:lease:1")


async def test_late_arrivals_share_what_landed() -> None:
    """A caller that arrived before a flight ended has its result, even if it asks afterwards."""
    flight: SingleFlight[str] = SingleFlight()
    runs: list[int] = []

    async def work() -> str:
        runs.append(1)
        return f"result {len(runs)}"

    with flight.arrival() as early, flight.arrival() as first:
        assert await flight.run("a", work, first) == ("result 1", False)
        with flight.arrival() as late:
            assert await flight.run("a", work, late) == ("result 2", False)
        assert await flight.run("b", work, None) == ("result 3", False)
        assert await flight.run("a", work, early) == ("result 2", True)
    assert (flight._landed, flight._arriving) == ({}, {})


# ------------------------------------------------------------------------------------ invalidated


@pytest.mark.parametrize("how", ["message", "own", "user"])
async def test_invalidated_while_replicas_wait(two: Two, how: str) -> None:
    """An answer computed before an invalidation is not stored; only earlier callers get it."""
    one, other = two
    compute = Computer()
    before = [ask(one, compute)]
    await until(lambda: compute.begun)
    before.append(ask(other, compute))
    await asyncio.sleep(0.1)

    async def invalidate() -> None:
        if how == "user":
            await other.forget_user("ann")
        else:
            await other.invalidate("alpha beta", "ann" if how == "own" else None)

    await asyncio.create_task(invalidate())
    after = Computer("after")
    fresh = ask(other, after)
    await until(lambda: after.begun)
    after.go.set()
    assert await fresh == "after 1"
    compute.go.set()
    old = await asyncio.gather(*before)
    assert old[0] == "answer 1"
    assert old[1] in {"after 1", "answer 2"}
    for cache in two:
        assert await cache.get_multilevel("alpha beta", "ann") == "after 1"


# ------------------------------------------------------------------------------------ stale


@pytest.fixture
async def aged(make_cache: CacheFactory, clock: ManualClock) -> Callable[..., Any]:
    """Make a cache with an answer that is some seconds old."""

    async def make(seconds: float, tuning: dict[str, Any], **more: Any) -> MultiLevelCache:
        ttl = {"l1_ttl": 30.0, "l2_ttl": 30.0}
        watch = more.pop("instruments", ())
        cache: MultiLevelCache = await make_cache(
            settings={**PATIENT, **more}, clock=clock, instruments=watch
        )
        await cache.tune({**ttl, **tuning}, author="a test")
        await cache.put("alpha beta", "ann", "old", "faq", [{"id": "doc"}], tags=["t"])
        later(clock, seconds, cache)
        return cache

    return make


async def fails() -> str:
    raise ZeroDivisionError("the model is away")


async def test_stale_when_computing_fails(aged: Callable[..., Any]) -> None:
    """An expired answer is served while `stale_seconds` allows it, marked, counted, worth nothing."""
    registry, watch = CollectorRegistry(), RecordingInstrument()
    instruments = (PrometheusInstrument("default", registry), watch)
    cache = await aged(45.0, {"stale_seconds": 60.0}, instruments=instruments)
    saved = cache.get_metrics()["cost_savings_usd"]
    assert (await cache.lookup("alpha beta", "ann")).response is None
    assert await cache.get_or_compute("alpha beta", "ann", fails) == "old"
    result = await cache.lookup("alpha beta", "ann", allow_stale=True)
    assert (result.response, result.stale, result.tier, result.outcome) == (
        "old",
        True,
        "l1",
        "hit",
    )
    assert result.age_seconds is not None
    assert result.age_seconds > 30
    figures = cache.get_metrics()
    assert figures["stale_hits"] == 2
    # The lookup handed out intent and documents; the stale hits, and what failed, saved nothing.
    assert figures["cost_savings_usd"] == pytest.approx(saved + 0.006)
    for instrument in instruments[:1]:
        instrument.count()
    assert registry.get_sample_value(names.STALE_HITS.name, {"cache": "default"}) == 2
    assert [call.stale for call in watch.of("lookup")] == [False, False, True, True]
    assert [call.outcome for call in watch.of("compute")] == ["error"]
    # For others it does not exist, stale or not.
    assert (await cache.lookup("alpha beta", "bob", allow_stale=True)).response is None
    with pytest.raises(ZeroDivisionError):
        await cache.get_or_compute("alpha beta", "bob", fails)
    assert await cache.get_or_compute("alpha beta", "ann", fails, no_store=True) == "old"


async def test_stale_by_similarity(aged: Callable[..., Any]) -> None:
    """L2's answers may be stale, too, under the same rules."""
    cache = await aged(45.0, {"stale_seconds": 60.0})
    assert await cache.get_or_compute("beta alpha", "ann", fails) == "old"
    result = await cache.lookup("beta alpha", "ann", allow_stale=True)
    assert (result.response, result.stale, result.tier) == ("old", True, "l2")
    assert (await cache.lookup("beta alpha", "bob", allow_stale=True)).response is None


@pytest.mark.parametrize("tuning", [{}, {"stale_seconds": 0.1}], ids=["off", "too old"])
async def test_not_stale_beyond_its_time(aged: Callable[..., Any], tuning: dict[str, Any]) -> None:
    """Without `stale_seconds`, or past them, what compute raises is raised."""
    cache = await aged(45.0, tuning)
    with pytest.raises(ZeroDivisionError):
        await cache.get_or_compute("alpha beta", "ann", fails)
    result = await cache.lookup("alpha beta", "ann", allow_stale=True)
    assert (result.response, result.stale) == (None, False)


@pytest.mark.parametrize("how", ["message", "own", "user", "tag", "document"])
async def test_never_stale_after_an_invalidation(aged: Callable[..., Any], how: str) -> None:
    """An invalidated answer is not served when computing fails, in flight or not."""
    cache = await aged(45.0, {"stale_seconds": 60.0})

    async def invalidate() -> None:
        match how:
            case "user":
                await cache.forget_user("ann")
            case "tag":
                await cache.invalidate_tag("t")
            case "document":
                await cache.invalidate_document("doc")
            case _:
                await cache.invalidate("alpha beta", "ann" if how == "own" else None)

    async def fails_late() -> str:
        await asyncio.create_task(invalidate())
        raise ZeroDivisionError

    for message in ("alpha beta", "beta alpha"):
        with pytest.raises(ZeroDivisionError):
            await cache.get_or_compute(message, "ann", fails_late)
        assert (await cache.lookup(message, "ann", allow_stale=True)).response is None


async def test_a_fresh_answer_is_not_marked(aged: Callable[..., Any]) -> None:
    """`allow_stale` changes nothing about an answer that is within its TTL."""
    cache = await aged(0.0, {"stale_seconds": 60.0, "l1_ttl": 600.0})
    result = await cache.lookup("alpha beta", "ann", allow_stale=True)
    assert (result.response, result.stale) == ("old", False)
    assert cache.metrics.stale_hits == 0
    assert cache.get_metrics()["cost_savings_usd"] == pytest.approx(0.036)


async def test_anything_fresh_before_anything_stale(aged: Callable[..., Any]) -> None:
    """An own answer that expired stands back for a shared one."""
    cache = await aged(45.0, {"stale_seconds": 60.0})
    await cache.put("alpha beta", "bob", "shared", shared=True)
    result = await cache.lookup("alpha beta", "ann", allow_stale=True)
    assert (result.response, result.stale, result.tier) == ("shared", False, "l1")


async def test_a_fresh_answer_of_l2_before_a_stale_one_of_l1(aged: Callable[..., Any]) -> None:
    """L1's answers expire sooner: what L2 still has is not stale."""
    cache = await aged(45.0, {"stale_seconds": 60.0, "l2_ttl": 600.0})
    result = await cache.lookup("alpha beta", "ann", allow_stale=True)
    assert (result.response, result.stale, result.tier) == ("old", False, "l2")


async def test_bounds_of_stale_and_refresh(cache: MultiLevelCache) -> None:
    """Both are live values with bounds, and off unless somebody tuned them."""
    assert (cache.tuning.stale_seconds, cache.tuning.refresh_share) == (0.0, 0.0)
    for wrong in ({"stale_seconds": -1}, {"refresh_share": 0.6}, {"refresh_share": True}):
        with pytest.raises(ConfigurationError):
            await cache.tune(wrong, author="a test")


# ------------------------------------------------------------------------------------ refresh

REFRESH = {"l1_ttl": 30.0, "l2_ttl": 30.0, "refresh_share": 0.5}


@pytest.fixture
async def ageing(
    make_cache: CacheFactory, clock: ManualClock, store_kind: str
) -> Callable[..., Any]:
    """Make a cache with an answer in the last part of its life."""

    async def make(tuning: dict[str, Any] | None = None, **more: Any) -> MultiLevelCache:
        cache: MultiLevelCache = await make_cache(settings={**KEYED, **more}, clock=clock)
        await cache.tune({**REFRESH, **(tuning or {})}, author="a test")
        await cache.put("alpha beta", "ann", "old")
        later(clock, 16, cache)
        return cache

    return make


async def test_a_hit_near_its_end_is_made_anew_once(ageing: Callable[..., Any]) -> None:
    """The hit is served immediately; in the background one computation replaces it."""
    cache = await ageing()
    compute = Computer("new")
    for _ in range(20):
        assert await cache.get_or_compute("alpha beta", "ann", compute) == "old"
    await until(lambda: compute.begun)
    assert compute.begun == 1
    compute.go.set()
    await until(lambda: cache.metrics.refreshes["stored"])
    result = await cache.lookup("alpha beta", "ann")
    assert (result.response, result.outcome) == ("new 1", "hit")
    assert result.age_seconds is not None
    assert result.age_seconds < 1
    assert await cache.get_or_compute("alpha beta", "ann", compute) == "new 1"
    assert compute.begun == 1
    assert cache.get_metrics()["refreshes"] == {
        "stored": 1,
        "error": 0,
        "skipped": 0,
        "cancelled": 0,
    }
    await until(lambda: not inside(cache).leases._releasing)
    assert leases(cache) == []


@pytest.mark.parametrize("why", ["off", "young", "own ttl"])
async def test_a_hit_that_is_not_near_its_end(
    make_cache: CacheFactory, clock: ManualClock, why: str
) -> None:
    """Nothing is made anew that has time left, or unless it was asked for."""
    cache = await make_cache(settings=KEYED, clock=clock)
    share = 0.0 if why == "off" else 0.01 if why == "own ttl" else 0.5
    await cache.tune({**REFRESH, "l1_ttl": 0.5, "refresh_share": share}, author="a test")
    await cache.put("alpha beta", "ann", "old", ttl=600.0 if why == "own ttl" else None)
    assert await cache.get_or_compute("alpha beta", "ann", fails) == "old"
    await asyncio.sleep(0.05)
    assert sum(cache.metrics.refreshes.values()) == 0


async def test_a_refresh_that_fails(ageing: Callable[..., Any]) -> None:
    """The old answer is served while a refresh fails, and the next hit tries again."""
    cache = await ageing()
    for number in (1, 2):
        assert await cache.get_or_compute("alpha beta", "ann", fails) == "old"
        await until(lambda number=number: cache.metrics.refreshes["error"] == number)  # type: ignore[misc]
        running = inside(cache)
        # While its lease is held, another hit skips the refresh.
        await until(lambda: not running.computing.refreshing and not running.leases._releasing)  # noqa: B023


@pytest.mark.parametrize("store_kind", ["embedded"])
@pytest.mark.parametrize("intent", [None, "faq"])
async def test_a_refresh_that_is_not_stored(ageing: Callable[..., Any], intent: str | None) -> None:
    """A refusal leaves the old answer, also where its intent is stored; it is asked for once."""
    cache = await ageing()
    compute = Computer("I'm sorry, but I can't help with")
    compute.go.set()
    for _ in range(2):
        assert await cache.get_or_compute("alpha beta", "ann", compute, intent=intent) == "old"
        await until(lambda: not inside(cache).computing.refreshing)
    assert compute.begun == 1
    assert cache.get_metrics()["refreshes"]["skipped"] == 1


async def test_a_refresh_of_what_is_invalidated(ageing: Callable[..., Any]) -> None:
    """An answer that a refresh began to compute before an invalidation is not stored after it."""
    cache = await ageing()
    compute = Computer("new")
    assert await cache.get_or_compute("alpha beta", "ann", compute) == "old"
    await until(lambda: compute.begun)
    await asyncio.create_task(cache.invalidate("alpha beta"))
    compute.go.set()
    await until(lambda: not inside(cache).computing.refreshing)
    assert (await cache.lookup("alpha beta", "ann")).response is None


async def test_replicas_refresh_once(make_cache: CacheFactory, ageing: Callable[..., Any]) -> None:
    """While one replica makes an answer anew the others go on serving the old one."""
    one = await ageing()
    other = await make_cache(settings=KEYED, clock=one._engine._given.clock)
    await until(lambda: other.tuning.refresh_share == 0.5)
    if other.redis_client is not None:
        later(ManualClock(), 16, other)
    compute = Computer("new")
    assert await one.get_or_compute("alpha beta", "ann", compute) == "old"
    await until(lambda: compute.begun)
    assert await other.get_or_compute("alpha beta", "ann", compute) == "old"
    await until(lambda: other.metrics.refreshes["skipped"])
    assert compute.begun == 1
    compute.go.set()
    await until(lambda: one.metrics.refreshes["stored"])
    assert await other.get_multilevel("alpha beta", "ann") == "new 1"


async def test_refreshes_are_bounded_and_end_with_the_cache(
    make_cache: CacheFactory, clock: ManualClock, store_kind: str
) -> None:
    """Eight run together, the others are skipped and counted; closing cancels them."""
    cache = await make_cache(settings=KEYED, clock=clock)
    await cache.tune(REFRESH, author="a test")
    for number in range(12):
        await cache.put(f"question {number}", "ann", "old")
    later(clock, 16, cache)
    compute = Computer()
    for number in range(12):
        assert await cache.get_or_compute(f"question {number}", "ann", compute) == "old"
    await until(lambda: compute.begun == 8)
    assert cache.metrics.refreshes["skipped"] == 4
    computing = inside(cache).computing
    await cache.close()
    assert compute.cancelled == 8
    assert not computing.refreshing
    assert cache.metrics.refreshes["cancelled"] == 8


async def test_a_refresh_knows_the_label_and_nothing_else(
    make_cache: CacheFactory, clock: ManualClock, store_kind: str
) -> None:
    """Sharing by intent goes on; documents are retrieved anew."""
    cache = await make_cache(settings=KEYED, clock=clock, shared_intents=["faq"])
    await cache.tune(REFRESH, author="a test")
    await cache.put("alpha beta", "ann", "old", "faq", [{"id": 1}])
    later(clock, 16, cache)
    got: list[LookupResult] = []

    def compute(result: LookupResult) -> Answer:
        got.append(result)
        return Answer("new")

    assert await cache.get_or_compute("alpha beta", "bob", compute) == "old"
    await until(lambda: cache.metrics.refreshes["stored"])
    assert (got[0].response, got[0].intent, got[0].rag_results) == (None, "faq", None)
    assert await cache.get_multilevel("alpha beta", "carl") == "new"


# ------------------------------------------------------------------------------------ processes

CHILD = """
import asyncio, json, os, sys
from pathlib import Path
from cache_core import MultiLevelCache
from cache_core.testing import HashEmbedder

begun = Path(os.environ["BEGUN"])

async def compute():
    with begun.open("a") as file:
        file.write(f"{os.getpid()}\\n")
    first = len(begun.read_text().split()) == 1
    await asyncio.sleep(float(os.environ["FIRST"]) if first else 0.5)
    return f"answer of {os.getpid()}"

async def main():
    cache = MultiLevelCache(namespace="many", embedding_model=HashEmbedder(), instruments=())
    await cache.initialize()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    found = await asyncio.gather(*(cache.get_or_compute("alpha", "ann", compute) for _ in range(20)))
    print(json.dumps(sorted(set(found))), flush=True)
    await cache.close()

asyncio.run(main())
"""


class Fleet:
    """Eight processes that ask for the same concurrently."""

    def __init__(self, directory: Path, **environment: str) -> None:
        self.begun = directory / "begun"
        self.begun.touch()
        script = directory / "child.py"
        script.write_text(CHILD)
        settings = {
            **os.environ, **ENVIRONMENT, "CACHE_TIERS": "l1,l3,l4", "BEGUN": str(self.begun),
            "CACHE_DIR": str(directory / "cache"), "FIRST": "0.5", **environment,
        }  # fmt: skip
        self.processes = [
            subprocess.Popen(
                [sys.executable, str(script)], env=settings, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )
            for _ in range(8)
        ]  # fmt: skip

    def start(self) -> None:
        for process in self.processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()

    @property
    def computed(self) -> list[int]:
        """Process ids of those that began to compute, in order."""
        return [int(line) for line in self.begun.read_text().split()]

    def answers(self, besides: int = 0) -> list[str]:
        found: set[str] = set()
        for process in self.processes:
            if process.pid != besides:
                out, problem = process.communicate(timeout=60)
                assert process.returncode == 0, problem
                found |= set(json.loads(out))
        return sorted(found)

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()


@pytest.fixture
def environment(store_kind: str, request: pytest.FixtureRequest) -> dict[str, str]:
    return {"REDIS_URL": request.getfixturevalue("empty_redis")} if store_kind == "redis" else {}


@pytest.mark.slow
def test_eight_processes_at_once(environment: dict[str, str], tmp_path: Path) -> None:
    """One computation for 160 callers in eight processes, all of whom get its answer."""
    fleet = Fleet(tmp_path, **environment)
    with contextlib.closing(contextlib.ExitStack()) as stack:
        stack.callback(fleet.end)
        fleet.start()
        answers = fleet.answers()
        assert len(fleet.computed) == 1
        assert answers == [f"answer of {fleet.computed[0]}"]


@pytest.mark.slow
def test_the_holder_is_killed(environment: dict[str, str], tmp_path: Path) -> None:
    """SIGKILL for the process that computes: exactly one more does, once the lease has ended."""
    fleet = Fleet(tmp_path, **environment, FIRST="600", CACHE_COMPUTE_LEASE="3")
    with contextlib.closing(contextlib.ExitStack()) as stack:
        stack.callback(fleet.end)
        fleet.start()
        deadline = time.monotonic() + 60
        while not fleet.computed:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.5)
        (holder,) = fleet.computed
        os.kill(holder, signal.SIGKILL)
        answers = fleet.answers(besides=holder)
        assert len(fleet.computed) == 2
        assert answers == [f"answer of {fleet.computed[1]}"]
