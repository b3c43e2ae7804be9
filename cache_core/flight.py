"""One computation for all who ask for the same thing at the same time."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from functools import partial
from typing import Generic, TypeVar

Result = TypeVar("Result")


class _Flight(Generic[Result]):
    __slots__ = ("task", "waiting")

    def __init__(self, task: asyncio.Task[Result]) -> None:
        self.task = task
        self.waiting = 0


_within: ContextVar[tuple[object, ...]] = ContextVar("glasscache_within", default=())
"""The flights that this task runs in, of all caches: who waited for one of them would for ever."""


class SingleFlight(Generic[Result]):
    """Runs one task per key; those who come while it runs wait for its result.

    The task belongs to nobody: a cancelled caller leaves the others their result, and when the
    last caller is gone the task is cancelled.
    """

    def __init__(self) -> None:
        self._flights: dict[str, _Flight[Result]] = {}
        self._numbers = itertools.count(1)
        self._arriving: dict[int, None] = {}
        # Oldest first: when each ended, in the same numbers as arrivals, and its result.
        self._landed: dict[str, tuple[int, Result]] = {}

    @contextlib.contextmanager
    def arrival(self) -> Iterator[int]:
        """Say that somebody has come who may `run` something, but does not know yet what.

        What ends before they do know is theirs, too: of ten thousand who come at once some are
        always so late that a short task is over.
        """
        number = next(self._numbers)
        self._arriving[number] = None
        try:
            yield number
        finally:
            self._leave(number)

    def _leave(self, number: int) -> None:
        self._arriving.pop(number, None)
        oldest = next(iter(self._arriving), None)
        while self._landed:
            key, (ended, _) = next(iter(self._landed.items()))
            if oldest is not None and ended > oldest:
                break
            del self._landed[key]

    def inside(self, key: str) -> bool:
        """Whether the caller is part of what `run` runs for *key*: waiting would never end."""
        return key in self._flights and (self, key) in _within.get()

    async def run(
        self, key: str, work: Callable[[], Awaitable[Result]], arrival: int | None = None
    ) -> tuple[Result, bool]:
        """Return the result of *work* and whether somebody else had started it.

        Args:
            key: Of what is the same.
            work: Is run by the first.
            arrival: When the caller came.

        Raises:
            Exception: Whatever *work* raised, to everybody who waited for it.
        """
        if arrival is not None:
            landed = self._landed.get(key)
            self._leave(arrival)
            if landed is not None and landed[0] > arrival:
                return landed[1], True
        flight = self._flights.get(key)
        joined = flight is not None
        if flight is None:
            flight = _Flight(asyncio.ensure_future(_as_coroutine(work, (self, key))))
            self._flights[key] = flight
            flight.task.add_done_callback(partial(self._end, key, flight))
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task), joined
        finally:
            flight.waiting -= 1
            if flight.waiting == 0 and not flight.task.done():
                self._land(key, flight)
                flight.task.cancel()

    def _end(self, key: str, flight: _Flight[Result], task: asyncio.Task[Result]) -> None:
        self._land(key, flight)
        if self._arriving and not task.cancelled() and task.exception() is None:
            self._landed.pop(key, None)
            self._landed[key] = (next(self._numbers), task.result())

    def _land(self, key: str, flight: _Flight[Result]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]

    async def close(self) -> None:
        """Cancel what runs."""
        tasks = [flight.task for flight in self._flights.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _as_coroutine(work: Callable[[], Awaitable[Result]], name: object) -> Result:
    _within.set((*_within.get(), name))
    return await work()
