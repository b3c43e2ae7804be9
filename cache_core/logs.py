"""Log lines that an outage cannot turn into a flood."""

from __future__ import annotations

import logging
import time


class RateLimited:
    """A logger that writes at most one line a second per topic, and counts the others."""

    def __init__(self, logger: logging.Logger, seconds: float = 1.0) -> None:
        self._logger = logger
        self._seconds = seconds
        self._next: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def limited(self, topic: str, message: str, *args: object) -> None:
        """Log *message* unless a line of *topic* was written within the last second."""
        now = time.monotonic()
        if now < self._next.get(topic, 0.0):
            self._left_out[topic] = self._left_out.get(topic, 0) + 1
            return
        self._next[topic] = now + self._seconds
        left_out = self._left_out.pop(topic, 0)
        if left_out:
            message += f" ({left_out} more like this)"
        self._logger.warning(message, *args)
