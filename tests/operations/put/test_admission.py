"""Many concurrent puts: as many are stored as get done in time, the others are dropped immediately."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from cache_core.operations.put.admission import TOGETHER, Admission
from cache_core.testing import ChaosStore, Faults

CacheFactory = Callable[..., Any]
L1 = frozenset({"l1"})


class Seconds:
    """A clock that puts move on by writing."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def crowd(
    puts: int, each: float, budget: float = 1.0, begins: float = 0.0
) -> tuple[list[str], float]:
    """Return how each of *puts* ended, and when all had.

    Args:
        puts: Their number.
        each: Seconds in which the store does one.
        budget: Seconds that one may take.
        begins: Seconds of the event loop that the beginning of one takes.
    """
    clock = Seconds()
    admission = Admission(budget, clock)
    writer = asyncio.Lock()
    ends: dict[int, str] = {}

    async def put(number: int) -> None:
        clock.now += begins
        async with admission.turn() as left:
            if left is None:
                ends[number] = f"turned away at {clock.now:.2f}"
                return
            started = clock.now
            async with writer:
                await asyncio.sleep(0)
                clock.now += each
            ends[number] = "stored" if clock.now - started <= left else "late"

    await asyncio.gather(*(put(number) for number in range(puts)))
    return [ends[number] for number in range(puts)], clock.now


@pytest.mark.parametrize("puts", [1, 32, 33, 500, 1_000, 5_000])
async def test_what_can_be_stored_is(puts: int) -> None:
    """A store that takes 700 a second takes about 700 of any number within its second."""
    ends, seconds = await crowd(puts, 1 / 700)
    stored = ends.count("stored")
    assert stored == puts if puts <= 500 else 600 <= stored <= 701
    assert ends.count("late") <= TOGETHER
    assert seconds <= 1.1
    # The oldest go first.
    assert ends[: min(puts, 500)].count("stored") == min(puts, 500)


async def test_a_crowd_that_takes_longer_to_begin_than_a_put_may() -> None:
    """The first ones have no time left once the loop is free; those that began last do."""
    ends, _ = await crowd(300, 1 / 700, begins=0.01)
    assert ends[:TOGETHER].count("late") == TOGETHER
    assert ends[-60:].count("stored") == 60


@pytest.mark.slow
async def test_the_rest_is_rejected_immediately() -> None:
    """A put that cannot end in time is dropped without waiting."""
    ends, _ = await crowd(5_000, 1 / 700)
    early = sum(end.startswith("turned away at 0") and float(end[-4:]) < 0.2 for end in ends)
    assert early > 4_000


async def test_who_is_cancelled_while_waiting_takes_no_turn() -> None:
    """Cancelled before or after it was given a turn, a put leaves it to the next."""
    admission = Admission(60.0)
    go = asyncio.Event()
    done: list[int] = []

    async def put(number: int) -> None:
        async with admission.turn() as left:
            assert left is not None
            await go.wait()
            done.append(number)

    tasks = [asyncio.create_task(put(number)) for number in range(4 * TOGETHER)]
    await asyncio.sleep(0)
    for task in tasks[TOGETHER : 2 * TOGETHER]:
        task.cancel()
    go.set()
    await asyncio.sleep(0)
    for task in tasks[2 * TOGETHER : 3 * TOGETHER : 2]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert len(done) == 4 * TOGETHER - sum(task.cancelled() for task in tasks)
    async with admission.turn() as left:
        assert left == 60.0


@pytest.mark.slow
@pytest.mark.parametrize("tiers", [L1, frozenset({"l1", "l2", "l3", "l4"})], ids=len)
async def test_a_thousand_puts_at_once(make_cache: CacheFactory, tiers: frozenset[str]) -> None:
    """Some are stored, whole and readable; each of the others is counted as dropped, once."""
    budgets = {"exact_budget": 5.0, "lookup_budget": 30.0, "put_budget": 4.0}
    cache = await make_cache(settings={"tiers": tiers, **budgets})
    await cache.ready()
    await asyncio.gather(
        *(cache.put(f"put number {n}", f"u{n % 20}", f"a{n}") for n in range(1_000))
    )
    outcomes = cache.get_metrics()["put_outcomes"]
    assert sum(outcomes.values()) == 1_000
    assert outcomes["stored"] >= TOGETHER
    parts = cache.get_metrics()["puts"]["l1"]
    assert sum(parts.values()) == 1_000
    found = [await cache.lookup(f"put number {n}", f"u{n % 20}") for n in range(1_000)]
    # One whose time ended on the way may have arrived all the same.
    assert parts["stored"] <= sum(result.tier == "l1" for result in found) < parts["stored"] + 64


async def test_a_store_that_hangs_lets_no_caller_wait_longer(make_cache: CacheFactory) -> None:
    """Puts behind others that hang end within the budget, and the next are stored."""
    faults = Faults(seed=1)
    cache = await make_cache(
        settings={"tiers": L1, "put_budget": 0.5},
        wrap_store=lambda store: ChaosStore(store, faults, write_timeout=30.0),
    )
    faults.always("hang", only=frozenset({"write", "write_new", "put_rows"}))
    loop = asyncio.get_running_loop()
    started = loop.time()
    await asyncio.gather(*(cache.put(f"put {n}", "ann", "a") for n in range(10 * TOGETHER)))
    assert loop.time() - started < 15
    assert cache.get_metrics()["put_outcomes"]["dropped"] == 10 * TOGETHER
    faults.never()
    async with asyncio.timeout(20):
        while (await cache.lookup("alpha", "ann")).response is None:
            await cache.put("alpha", "ann", "answer")
