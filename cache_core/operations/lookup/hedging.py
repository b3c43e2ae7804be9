"""Hedged requests: the fallback starts when the primary is slow, two at a time at most."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar, TypeVarTuple

from cache_core.backends.deadline import LATE_SECONDS

Result = TypeVar("Result")
Args = TypeVarTuple("Args")

AT_ONCE = 2
"""Fallbacks that may run concurrently. Without this limit fifty lookups that wait for each other
are all late, and fifty embeddings make them later."""


class Hedge(Generic[Result, *Args]):
    """One request that may be late; *task* is its fallback, once that was started."""

    __slots__ = ("args", "due", "task")

    def __init__(self, due: float, args: tuple[*Args]) -> None:
        self.due = due
        self.args = args
        self.task: asyncio.Task[Result] | None = None


class Hedging(Generic[Result, *Args]):
    """Starts the fallback of each request that is still watched after a delay.

    One timer serves all requests, as most have ended long before it fires.

    Args:
        delay: Seconds.
        work: The fallback, called with the arguments of `watch`.
    """

    def __init__(self, delay: float, work: Callable[[*Args], Coroutine[Any, Any, Result]]) -> None:
        self._delay = delay
        self._work = work
        self._watched: dict[Hedge[Result, *Args], None] = {}
        self._running: set[asyncio.Task[Result]] = set()
        self._armed_for: float | None = None

    def watch(self, *args: *Args) -> Hedge[Result, *Args]:
        """Start the work with *args* unless `leave` is called before the delay ends."""
        # The event loop is asked for only to set the timer: finding it takes a system call.
        now = time.monotonic()
        hedge: Hedge[Result, *Args] = Hedge(now + self._delay, args)
        self._watched[hedge] = None
        if self._armed_for is None:
            self._arm(now, hedge.due)
        return hedge

    def leave(self, hedge: Hedge[Result, *Args]) -> None:
        """Stop watching a request."""
        self._watched.pop(hedge, None)

    def _arm(self, now: float, due: float) -> None:
        self._armed_for = due
        asyncio.get_running_loop().call_later(due - now, self._ring)

    def _ring(self) -> None:
        now = time.monotonic()
        # A late timer means that the event loop was blocked, not that the primary is slow.
        held_up = self._armed_for is not None and now - self._armed_for > LATE_SECONDS
        self._armed_for = None
        for hedge in list(self._watched):
            if hedge.due > now:
                self._arm(now, hedge.due)
                return
            if held_up:
                self._arm(now, now + self._delay)
                return
            del self._watched[hedge]
            if len(self._running) < AT_ONCE:
                hedge.task = asyncio.get_running_loop().create_task(self._work(*hedge.args))
                self._running.add(hedge.task)
                hedge.task.add_done_callback(self._running.discard)
