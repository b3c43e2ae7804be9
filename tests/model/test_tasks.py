"""Background tasks end when they are cancelled, whatever fails in that moment."""

from __future__ import annotations

import asyncio
import contextlib

from cache_core.model.exceptions import BackendError
from cache_core.model.tasks import end_all


async def test_a_failure_in_the_moment_of_the_end_does_not_keep_a_task_alive() -> None:
    """A task that gets the failure instead of its cancellation, and goes on, is ended."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[None] = loop.create_future()
    rounds: list[int] = []

    async def go_round() -> None:
        while True:
            rounds.append(1)
            with contextlib.suppress(BackendError):
                await asyncio.gather(answer, asyncio.sleep(60))
            await asyncio.sleep(60)

    task = loop.create_task(go_round())
    await asyncio.sleep(0)
    # Both in one turn of the loop.
    answer.set_exception(BackendError("backend_error"))
    async with asyncio.timeout(10):
        await end_all([task])
    assert task.cancelled()
    assert rounds == [1]


async def test_a_failed_task_is_no_obstacle() -> None:
    """A task that has ended, in any way, is not waited for, and raises nothing."""

    async def fail() -> None:
        raise ValueError

    task = asyncio.get_running_loop().create_task(fail())
    await asyncio.wait({task})
    await end_all([task])
    await end_all([])
