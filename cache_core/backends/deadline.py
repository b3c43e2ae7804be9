"""Time limit that distinguishes a late backend from a blocked event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

LATE_SECONDS = 0.002
"""Delay of a timer that shows that the agent or the machine blocked the event loop."""


class PatientTimer:
    """Calls back after some seconds, later if the event loop was blocked meanwhile.

    When the timer itself is late, an answer may have arrived unread: a busy agent must not make its
    backends look unavailable. So the timer is extended once, by its delay, at most by *seconds*.

    Args:
        seconds: Seconds from now.
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
    """Ends its body with `TimeoutError` after some seconds of a `PatientTimer`.

    It distinguishes its own cancellation from others as `asyncio.timeout` does, at half the cost:
    every round trip has one.

    Args:
        seconds: Seconds from entering.
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
        # Breaks a reference cycle: with one per round trip the collector would be busy.
        del self._timer
        if not self._expired:
            return
        ours = self._task.uncancel() <= self._before
        if ours and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise TimeoutError from error
