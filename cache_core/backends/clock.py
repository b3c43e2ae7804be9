"""Time as the cache sees it."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

from cache_core.model.logs import RateLimited


class Clock(Protocol):
    """Seconds since the epoch, by which entries age. Tests and replays move their own."""

    def time(self) -> float:
        """Return the current time in seconds."""
        ...


BACK_SECONDS = 1.0
"""Largest backward correction of a clock; a larger step means that the clock was set back."""

log = RateLimited(logging.getLogger("glasscache"), 60.0)


_ticks: Callable[[], float] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    if hasattr(time, "CLOCK_BOOTTIME")
    else time.monotonic
)
"""Returns monotonic seconds, including time suspended where the platform counts it."""


class WallClock:
    """The machine's clock, immune to jumps between two calls of `set`."""

    def __init__(self) -> None:
        self._offset = time.time() - _ticks()
        self._corrected = False

    def time(self) -> float:
        """Return seconds since the epoch."""
        return _ticks() + self._offset

    async def follow(self, server: Callable[[], Awaitable[float]]) -> None:
        """Set the clock to the time that *server* returns."""
        asked = _ticks()
        now = await server()
        self.set(now, late=_ticks() - asked)

    def set(self, now: float, *, late: float = 0.0) -> None:
        """Set the clock to *now*, the time of the store's server.

        Once a server has set it, it is not set back by more than a second: expired entries would be
        served again.

        Args:
            now: Seconds since the epoch.
            late: Seconds that the reply took at most, by which it may be later than *now*.
        """
        offset = now - _ticks()
        if self._corrected and offset < self._offset - BACK_SECONDS:
            # a late reply looks like a clock that was set back
            if offset + late < self._offset - BACK_SECONDS:
                log.limited(
                    "clock",
                    "the store's clock was set back by %.0f s: entries age by the time before",
                    self._offset - offset,
                )
            return
        self._offset, self._corrected = offset, True


class ManualClock:
    """Clock that only `advance` moves."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def time(self) -> float:
        """Return the time it was set to."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self.now += seconds
