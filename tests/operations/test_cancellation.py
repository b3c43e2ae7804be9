"""Cancelled wherever it waits: raised on, the next lookup right, nothing left behind."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import types
from collections.abc import AsyncIterator, Coroutine, Generator
from typing import Any

import pytest

from cache_core import MultiLevelCache
from cache_core.testing import ChaosProxy
from tests.operations.test_learning import ASKED
from tests.support import servers
from tests.support.caches import CacheFactory
from tests.support.inside import inside
from tests.support.patience import PATIENT
from tests.support.waiting import until

KEPT = 12
PLACES = (
    "garden school kitchen house station airport hotel museum library market bakery church bridge "
    "castle factory farm forest beach island mountain river lake city village harbour theatre "
    "stadium hospital prison palace tower temple office"
).split()
BAND = {"approve_margin": 0.1, "approvals_per_minute": 1000}


async def counted(work: Coroutine[Any, Any, Any], stop: int) -> int:
    """Run *work*; the task is cancelled at its suspension number *stop*. Return how many it had."""
    return await _stepped(work, stop)


@types.coroutine
def _stepped(work: Coroutine[Any, Any, Any], stop: int) -> Generator[Any, Any, int]:
    task = asyncio.current_task()
    assert task is not None
    suspensions = 0
    error: BaseException | None = None
    while True:
        try:
            waits_for = work.send(None) if error is None else work.throw(error)
        except StopIteration:
            return suspensions
        suspensions += 1
        if suspensions == stop:
            # It takes effect at this very suspension: asyncio cancels what is waited for.
            task.cancel()
        error = None
        try:
            yield waits_for
        except BaseException as raised:
            error = raised


class Inline:
    """Computes in the caller's own coroutine, so that each of its awaits can be cancelled."""

    def arrival(self) -> Any:
        import contextlib

        return contextlib.nullcontext(1)

    def inside(self, key: str) -> bool:
        return False

    def joining(self, key: str, arrival: int | None = None) -> None:
        return None

    async def run(self, key: str, work: Any, arrival: int | None = None) -> tuple[str, bool]:
        return await work(), False


@pytest.fixture
async def delayed(
    make_cache: CacheFactory, store_kind: str, request: pytest.FixtureRequest
) -> AsyncIterator[MultiLevelCache]:
    """A cache with some answers; on Redis through a proxy by which every reply is late."""
    if store_kind == "embedded":
        cache = await make_cache(settings=PATIENT, approve=approve)
        await filled(cache)
        yield cache
        return
    url = str(request.getfixturevalue(servers.EMPTY[store_kind]))
    async with ChaosProxy("127.0.0.1", servers.port_of(url)) as proxy:
        cache = await make_cache(settings={**PATIENT, "redis_url": proxy.url(url)}, approve=approve)
        await filled(cache)
        proxy.latency = proxy.jitter = 0.001
        yield cache
        await cache.close()


async def filled(cache: MultiLevelCache) -> None:
    for number in range(KEPT):
        await cache.put(f"kept number{number}", f"user {number}", f"answer {number}")


async def all_right(cache: MultiLevelCache, numbers: Any = range(KEPT)) -> None:
    """Each gets their own answer, without waiting."""
    found = await asyncio.gather(
        *(cache.get_multilevel(f"kept number{n}", f"user {n}") for n in numbers)
    )
    assert found == [f"answer {n}" for n in numbers]


async def compute() -> str:
    await asyncio.sleep(0.001)
    return "made"


async def approve(message: str, stored: str, response: str) -> bool:
    await asyncio.sleep(0.001)
    return True


def operation(cache: MultiLevelCache, name: str, message: str) -> Coroutine[Any, Any, Any]:
    match name:
        case "hit":
            return cache.lookup("kept number3", "user 3")
        case "lookup" | "approval":
            return cache.lookup(message, "ann")
        case "put":
            return cache.put(message, "ann", "made", "faq", [{"id": "d"}], tags=["t"])
        case "shared put":
            return cache.put(message, "ann", "made", "faq", [{"id": "d"}], shared=True)
        case "get_or_compute" | "get_or_compute, alone":
            return cache.get_or_compute(message, "ann", compute)
        case "invalidate":
            return cache.invalidate(message)
        case "invalidate_tag":
            return cache.invalidate_tag("t")
        case "forget_user":
            return cache.forget_user("ann")
    raise ValueError(name)


OPERATIONS = ("hit", "lookup", "approval", "put", "shared put", "get_or_compute", "get_or_compute, alone",
              "invalidate", "invalidate_tag", "forget_user")  # fmt: skip
REMOVE = ("invalidate", "invalidate_tag", "forget_user")


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATIONS)
async def test_cancelled_at_every_await(
    delayed: MultiLevelCache, name: str, request: pytest.FixtureRequest
) -> None:
    """At the first suspension, the second, ... to the last: `CancelledError`, and all is well."""
    cache = delayed
    if name == "get_or_compute":
        inside(cache).computing._flight = Inline()  # type: ignore[assignment]
    if name == "approval":
        await cache.tune(BAND, author="test")
        await cache.put(ASKED, "bob", "made", shared=True)
    points = 0
    while True:
        message = f"question number{points}"
        if name == "approval":
            message = ASKED.replace("office", PLACES[points])
        if name in REMOVE:
            await asyncio.create_task(cache.put(message, "ann", "made", tags=["t"]))
        others = asyncio.create_task(all_right(cache, range(0, KEPT, 3)))
        await asyncio.sleep(0)
        task = asyncio.create_task(counted(operation(cache, name, message), points + 1))
        await asyncio.wait([task], timeout=60)
        await others
        if not task.cancelled():
            # How often it waits depends on what is there to be done.
            assert task.result() <= points, "it was cancelled, and went on"
            break
        points += 1
        await all_right(cache)
        found = await asyncio.create_task(cache.lookup(message, "ann"))
        assert found.response in {None, "made"}
        assert (await cache.lookup(message, "bob")).response in {
            None, "made" if name in {"shared put", "approval"} else None
        }  # fmt: skip
    # An exact hit of the embedded store waits for nothing.
    assert points >= (0 if name == "hit" else 1)
    running = inside(cache)
    async with asyncio.timeout(30):
        while running.leases._releasing or running.invalidator.steps.pending:
            await asyncio.sleep(0.02)
    assert not running.leases._held
    assert (running.computing._flight.__dict__ or {"_flights": {}}).get("_flights") in ({}, None)
    if name == "approval":
        approvals = running._approvals
        assert approvals is not None
        await until(lambda: not approvals._flights)
        assert cache.get_metrics()["approvals"]["approved"] >= points
    if name in REMOVE:
        # What was still to be done is done.
        assert (await cache.lookup(message, "ann")).response is None
    if cache.redis_client is not None:
        # Reads, writes and patient commands keep one each. Others are used now and then; one that
        # leaked is never given back.
        async with asyncio.timeout(30):
            while len(cache.redis_client.connection_pool._in_use_connections) > 3:
                await asyncio.sleep(0.005)
        with servers.admin(request.getfixturevalue("empty_redis")) as client:
            assert list(client.keys("*:lease:*")) == []
    # What was cancelled can be done.
    await asyncio.create_task(operation(cache, "put", "question again"))  # type: ignore[arg-type]
    assert (await cache.lookup("question again", "ann")).response == "made"
    print(f"{name}: {points} points")


async def test_what_is_cancelled_counts_as_cancelled(delayed: MultiLevelCache) -> None:
    """A cancelled lookup is in no outcome; the counts balance."""
    cache = delayed
    before = cache.metrics.lookups
    tasks = [asyncio.create_task(cache.lookup(f"question {n}", "ann")) for n in range(20)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    cancelled = sum(task.cancelled() for task in tasks)
    assert cache.metrics.cancelled == cancelled
    assert cache.metrics.lookups == before + 20 - cancelled


@pytest.mark.slow
def test_a_storm_of_cancellations() -> None:
    """Half of some thousand lookups cancelled or out of time: none wrong, no connection leaks."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.storm", "--lookups", "3000", "--json"],
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for side in ("glasscache", "redis-py"):
        assert found[side]["wrong"] == 0
        assert found[side]["asked"] == 3_000
    ours = found["glasscache"]
    assert ours["stopped"] > 500
    assert (ours["leaked_connections"], ours["leaked_tasks"], ours["raised"]) == (0, 0, 0)
    assert ours["answered"] + ours["missed"] + ours["stopped"] == 3_000
