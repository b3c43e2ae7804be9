"""An invalidation of what many users have an answer to, beside other users' lookups."""

from __future__ import annotations

import asyncio
import gc
import time

import pytest

from cache_core import MultiLevelCache
from tests.conftest import CacheFactory
from tests.support.patience import PATIENT

pytestmark = pytest.mark.slow

USERS = 800
TOGETHER = 50
"""Puts at the same time; many more would be turned away."""
LONGEST_ROUND = 0.01
"""Seconds of CPU; with the vectors of all users in one round it is twice that."""


async def _put_for_all(cache: MultiLevelCache) -> None:
    """Store a private answer for every user, of every other one to the same question."""
    for first in range(0, USERS, TOGETHER):
        async with asyncio.TaskGroup() as group:
            for user in range(first, first + TOGETHER):
                message = f"subject {user}" if user % 2 else "alpha beta"
                group.create_task(cache.put(message, f"user {user}", "an answer"))


async def _steps(until: asyncio.Event) -> list[float]:
    """Return the seconds of CPU that each round of the event loop took."""
    steps, last = [], time.thread_time()
    while not until.is_set():
        await asyncio.sleep(0)
        now = time.thread_time()
        steps.append(now - last)
        last = now
    return steps


async def _lookups(cache: MultiLevelCache, until: asyncio.Event) -> list[str | None]:
    """Return the responses that somebody else got meanwhile."""
    responses = []
    while not until.is_set():
        responses.append((await cache.lookup("gamma delta", "ann")).response)
        await asyncio.sleep(0.001)
    return responses


async def _invalidate(cache: MultiLevelCache, *, dry_run: bool) -> float:
    """Invalidate the question while somebody else asks another one.

    Return the longest round of the event loop, in seconds of CPU.
    """
    done = asyncio.Event()
    gc.disable()
    try:
        async with asyncio.TaskGroup() as group:
            steps = group.create_task(_steps(done))
            lookups = group.create_task(_lookups(cache, done))
            invalidation = await cache.invalidate("alpha beta", dry_run=dry_run)
            done.set()
    finally:
        gc.enable()
    # In L1 and in L2.
    assert (invalidation.removed, invalidation.complete) == (USERS, True)
    assert len(lookups.result()) > 1
    assert set(lookups.result()) == {"another answer"}
    return max(steps.result())


async def test_a_message_of_many_users(make_cache: CacheFactory) -> None:
    """All private answers to it are found, those of a few users in each round of the event loop."""
    cache = await make_cache(settings=PATIENT)
    await _put_for_all(cache)
    await cache.put("gamma delta", "ann", "another answer")
    rounds = [await _invalidate(cache, dry_run=True) for _ in range(3)]
    assert min(rounds) < LONGEST_ROUND
    for user in range(0, USERS, 40):
        assert (await cache.lookup("beta alpha", f"user {user}")).response == "an answer"
    await _invalidate(cache, dry_run=False)
    for user in range(0, USERS, 40):
        assert (await cache.lookup("alpha beta", f"user {user}")).response is None
        assert (await cache.lookup("beta alpha", f"user {user}")).response is None
        kept = await cache.lookup(f"subject {user + 1}", f"user {user + 1}")
        assert kept.response == "an answer"
