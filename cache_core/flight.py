"""One computation for all who ask for the same thing at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Generic, TypeVar

Result = TypeVar("Result")


class _Flight(Generic[Result]):
    __slots__ = ("task", "waiting")

    def __init__(self, task: asyncio.Task[Result]) -> None:
        self.task = task
        self.waiting = 0


class SingleFlight(Generic[Result]):
    """Runs one task per key; those who come while it runs wait for its result.

    The task belongs to nobody: a cancelled caller leaves the others their result, and when the
    last caller is gone the task is cancelled.
    """

    def __init__(self) -> None:
        self._flights: dict[str, _Flight[Result]] = {}

    async def run(self, key: str, work: Callable[[], Awaitable[Result]]) -> tuple[Result, bool]:
        """Return the result of *work* and whether somebody else had started it.

        Raises:
            Exception: Whatever *work* raised, to everybody who waited for it.
        """
        flight = self._flights.get(key)
        joined = flight is not None
        if flight is None:
            flight = _Flight(asyncio.ensure_future(_as_coroutine(work)))
            self._flights[key] = flight
            flight.task.add_done_callback(partial(self._land, key, flight))
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task), joined
        finally:
            flight.waiting -= 1
            if flight.waiting == 0 and not flight.task.done():
                self._land(key, flight)
                flight.task.cancel()

    def _land(self, key: str, flight: _Flight[Result], _: object = None) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]

    async def close(self) -> None:
        """Cancel what runs."""
        tasks = [flight.task for flight in self._flights.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _as_coroutine(work: Callable[[], Awaitable[Result]]) -> Result:
    return await work()
