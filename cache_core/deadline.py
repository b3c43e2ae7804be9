"""A time limit that can tell a late backend from an event loop that stood still."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

LATE_SECONDS = 0.002
"""A timer that fires so much late shows that the loop was held up, by the agent or the machine."""


class PatientTimer:
    """Calls back after some seconds, unless the event loop was held up meanwhile.

    When the timer itself is late, an answer may have arrived and only waits to be read: a busy
    agent must not make its backends look dead. So the loop gets as long again as it was late, at
    most *seconds*, once.

    Args:
        seconds: From now.
        expired: Called at the end.
    """

    __slots__ = ("_due", "_expired", "_graced", "_handle", "_loop", "_seconds")

    def __init__(self, seconds: float, expired: Callable[[], None]) -> None:
        self._seconds = seconds
        self._expired = expired
        self._graced = False
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time() + seconds
        self._handle = self._loop.call_at(self._due, self._fire)

    def _fire(self) -> None:
        now = self._loop.time()
        late = now - self._due
        if late > LATE_SECONDS and not self._graced:
            self._graced = True
            self._due = now + min(late, self._seconds)
            self._handle = self._loop.call_at(self._due, self._fire)
        else:
            self._expired()

    def cancel(self) -> None:
        """Never call back."""
        self._handle.cancel()


class Deadline:
    """Ends its body with `TimeoutError` after some seconds, as a `PatientTimer` counts them.

    It tells its own cancellation from others as `asyncio.timeout` does, at half the price: one is
    around every round trip.

    Args:
        seconds: From entering.
    """

    __slots__ = ("_before", "_expired", "_seconds", "_task", "_timer")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            msg = "a deadline needs a task"
            raise RuntimeError(msg)
        self._task, self._before, self._expired = task, task.cancelling(), False
        self._timer = PatientTimer(self._seconds, self._expire)
        return self

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        # The two hold each other: there is one for every round trip, too many for the collector.
        del self._timer
        if not self._expired:
            return
        ours = self._task.uncancel() <= self._before
        if ours and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise TimeoutError from error
