"""Admission of concurrent puts: limits them to the number that can finish in time.

A put takes several round trips. A thousand concurrent ones that share each of them are all half
done when their time ends, and none is stored, although one after the other most would have been. So
a few write together, the others wait in order, and late ones are rejected immediately.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType

TOGETHER = 32
"""Puts that write concurrently: enough to share round trips, few enough to end in milliseconds."""

_FEWEST = 48
"""Puts that must end, while others wait, before their rate is meaningful: they end in groups."""

_NEWEST_WEIGHS = 0.2
"""Weight of the last duration in their moving average."""


class Admission:
    """Admits puts in order.

    Args:
        budget: Seconds that a put may take, including its waiting.
        clock: Monotonic seconds.
    """

    def __init__(self, budget: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._budget = budget
        self.clock = clock
        self._writing = 0
        self._waiting: deque[tuple[asyncio.Future[bool], float]] = deque()
        self._seconds = 0.0
        # Counted only while others wait.
        self._ended = 0
        self._first_ended = 0.0

    def turn(self) -> Turn:
        """Return a put's turn, to be entered."""
        return Turn(self)

    async def enter(self) -> float | None:
        """Wait for a turn; return the seconds left to write, or `None` if rejected."""
        now = self.clock()
        if self._writing < TOGETHER:
            self._writing += 1
            return self._budget
        if not self._waiting:
            self._ended = 0
        if self._is_late(len(self._waiting) + 1, now + self._budget):
            return None
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, now + self._budget))
        try:
            admitted = await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result():
                self._next()
            raise
        return max(0.001, now + self._budget - self.clock()) if admitted else None

    def leave(self, seconds: float) -> None:
        """Record the end of a put, after *seconds* of writing."""
        # More says nothing of the store: the event loop stood still meanwhile, as it does while
        # thousands of puts begin, and those that begin last still have time.
        seconds = min(seconds, self._budget / 2)
        newest = _NEWEST_WEIGHS if self._seconds else 1.0
        self._seconds += newest * (seconds - self._seconds)
        if not self._ended:
            self._first_ended = self.clock()
        self._ended += 1
        self._next()
        while self._waiting and self._is_late(len(self._waiting), self._waiting[-1][1]):
            turn, _ = self._waiting.pop()
            if not turn.done():
                turn.set_result(False)

    def _next(self) -> None:
        self._writing -= 1
        while self._waiting and self._writing < TOGETHER:
            turn, deadline = self._waiting.popleft()
            if turn.done():
                continue
            # With less than half of the usual time left, a put would only delay the others.
            admitted = self.clock() + self._seconds / 2 < deadline
            self._writing += admitted
            turn.set_result(admitted)

    def _is_late(self, place: int, deadline: float) -> bool:
        """Return whether the put at *place* in the queue, from 1, would miss *deadline*."""
        if self._ended < _FEWEST:
            return False
        now = self.clock()
        each = (now - self._first_ended) / self._ended
        return now + place * each > deadline


class Turn:
    """One put's turn: `async with admission.turn() as seconds`."""

    __slots__ = ("_admission", "_since")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._since: float | None = None

    async def __aenter__(self) -> float | None:
        left = await self._admission.enter()
        if left is not None:
            self._since = self._admission.clock()
        return left

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._since is not None:
            self._admission.leave(self._admission.clock() - self._since)
