"""Rate-limited logging, so that an outage does not flood the log."""

from __future__ import annotations

import logging
import math
import time
from pathlib import PurePath
from types import TracebackType


def place_of(error: BaseException) -> str:
    """Return the type of *error* and where it was raised, for a log line.

    Its own text is left out: it may quote a message, an answer or a document.
    """
    last: TracebackType | None = error.__traceback__
    if last is None:
        return type(error).__name__
    while last.tb_next is not None:
        last = last.tb_next
    file = PurePath(last.tb_frame.f_code.co_filename).name
    return f"{type(error).__name__} at {file}:{last.tb_lineno}"


class RateLimited:
    """Logger that writes at most one line a second per topic, and counts the others.

    Args:
        logger: The logger that writes them.
        seconds: Seconds between two lines of a topic.
        longest: Longest pause in seconds: each line of a topic that continues doubles it; a topic
            that was quiet for as long starts again.
    """

    def __init__(
        self, logger: logging.Logger, seconds: float = 1.0, longest: float | None = None
    ) -> None:
        self._logger = logger
        self._seconds = seconds
        self._longest = longest or seconds
        self._next: dict[str, float] = {}
        self._pause: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def limited(
        self, topic: str, message: str, *args: object, level: int = logging.WARNING
    ) -> None:
        """Log *message* unless a line of *topic* was written recently."""
        now = time.monotonic()
        following = self._next.get(topic, -math.inf)
        if now < following:
            self._left_out[topic] = self._left_out.get(topic, 0) + 1
            return
        pause = self._seconds
        if now < following + self._longest:
            pause = min(self._longest, 2 * self._pause.get(topic, self._seconds))
        self._next[topic], self._pause[topic] = now + pause, pause
        left_out = self._left_out.pop(topic, 0)
        if left_out:
            message += f" ({left_out} more like this)"
        self._logger.log(level, message, *args)
