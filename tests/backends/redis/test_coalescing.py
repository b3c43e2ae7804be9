"""Requests that wait at the same time share a round trip."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cache_core.backends.redis.coalescing import Coalescer
from cache_core.model.exceptions import BackendError


async def test_one_batch_in_flight() -> None:
    """Requests that come while a batch travels wait and go together in the next one."""
    batches: list[list[int]] = []
    running = 0

    async def run(requests: Any) -> list[int]:
        nonlocal running
        running += 1
        assert running == 1
        batches.append(list(requests))
        await asyncio.sleep(0.01)
        running -= 1
        return [10 * request for request in requests]

    coalescer: Coalescer[int, int] = Coalescer(run, limit=3)
    first = coalescer.submit(1)
    await asyncio.sleep(0.002)
    rest = [coalescer.submit(number) for number in range(2, 7)]
    assert await asyncio.gather(first, *rest) == [10, 20, 30, 40, 50, 60]
    assert batches == [[1], [2, 3, 4], [5, 6]]


async def test_an_error_reaches_every_waiter_of_the_batch() -> None:
    """Each waiter of a failed batch gets an exception of its own, and the next batch runs."""
    fail = True

    async def run(requests: Any) -> list[int]:
        if fail:
            raise BackendError("timeout", "TimeoutError")
        return list(requests)

    coalescer: Coalescer[int, int] = Coalescer(run)
    errors = await asyncio.gather(*map(coalescer.submit, range(3)), return_exceptions=True)
    assert [getattr(error, "reason", None) for error in errors] == ["timeout"] * 3
    assert len({id(error) for error in errors}) == 3
    fail = False
    assert await coalescer.submit(7) == 7


async def test_what_nobody_waits_for_is_not_sent() -> None:
    """A request whose waiter was cancelled before the batch left is omitted from it."""
    sent: list[int] = []

    async def run(requests: Any) -> list[int]:
        sent.extend(requests)
        await asyncio.sleep(0)
        return list(requests)

    coalescer: Coalescer[int, int] = Coalescer(run)
    kept, dropped = coalescer.submit(1), coalescer.submit(2)
    dropped.cancel()
    assert await kept == 1
    assert sent == [1]


async def test_the_next_batch_leaves_before_who_was_served_goes_on() -> None:
    """So the backend is at work while they are."""
    happened: list[str] = []

    async def run(requests: Any) -> list[int]:
        happened.append(f"sent {list(requests)}")
        await asyncio.sleep(0.01)
        return list(requests)

    coalescer: Coalescer[int, int] = Coalescer(run, limit=2)

    async def wait(number: int) -> None:
        happened.append(f"got {await coalescer.submit(number)}")

    await asyncio.gather(*map(wait, range(3)))
    assert happened == ["sent [0, 1]", "sent [2]", "got 0", "got 1", "got 2"]


async def test_a_single_read_is_not_held_up() -> None:
    """A read with nothing in flight is sent alone; if it is cancelled the others are still sent."""
    batches: list[list[int]] = []
    released = asyncio.Event()

    async def run(requests: Any) -> list[int | Exception]:
        batches.append(list(requests))
        await released.wait()
        return [BackendError("timeout", "Late") if request < 0 else request for request in requests]

    coalescer: Coalescer[int, Any] = Coalescer(run)
    alone = asyncio.ensure_future(coalescer.ask(1))
    await asyncio.sleep(0)
    others = [asyncio.ensure_future(coalescer.ask(number)) for number in (2, -3)]
    await asyncio.sleep(0)
    assert batches == [[1]]
    alone.cancel()
    released.set()
    found = await asyncio.wait_for(asyncio.gather(*others, return_exceptions=True), 1)
    assert batches == [[1], [2, -3]]
    assert found[0] == 2
    assert isinstance(found[1], BackendError)
    with pytest.raises(BackendError):
        await coalescer.ask(-4)
    assert await coalescer.ask(5) == 5


async def test_closing_fails_who_still_waits() -> None:
    """Nobody waits for ever for a coalescer that was closed, not even before its first batch."""

    async def run(requests: Any) -> list[int]:
        await asyncio.sleep(60)
        return list(requests)

    coalescer: Coalescer[int, int] = Coalescer(run)
    waiting = coalescer.submit(1)
    await coalescer.close()
    with pytest.raises(BackendError):
        await asyncio.wait_for(waiting, 1)
    travelling = coalescer.submit(2)
    await asyncio.sleep(0.01)
    await coalescer.close()
    with pytest.raises(BackendError):
        await asyncio.wait_for(travelling, 1)
