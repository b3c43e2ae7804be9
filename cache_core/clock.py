"""Time as the cache sees it."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Seconds since the epoch, by which entries age. Tests and replays move their own."""

    def time(self) -> float:
        """Return the current time in seconds."""
        ...


class WallClock:
    """The machine's clock, immune to jumps between two calls of `set`."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def time(self) -> float:
        """Return seconds since the epoch."""
        return time.monotonic() + self._offset

    def set(self, now: float) -> None:
        """Correct the clock: *now* is what the store's server says."""
        self._offset = now - time.monotonic()


class ManualClock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def time(self) -> float:
        """Return the time it was set to."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self.now += seconds
