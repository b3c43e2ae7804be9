"""Contenders of a benchmark, measured in turns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

_WARM_UP = 50


@dataclass(slots=True)
class Contender:
    """Way to answer a message, with its times.

    Attributes:
        name: Name in the table.
        call: Answers the message with a number; returns whether that went as intended.
        settle: Completes the work that the calls deferred.
        seconds: Duration of each call by one task alone.
        crowded: Duration of each call by many tasks.
        rates: Calls per second by many tasks, per round.
        cpu: Seconds of CPU of this process per call of many tasks, per round.
        astray: Number of calls that did not go as intended, which must be few.
    """

    name: str
    call: Callable[[int], Awaitable[bool]]
    settle: Callable[[], Awaitable[Any]] | None = None
    seconds: list[float] = field(default_factory=list)
    crowded: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    astray: int = 0

    async def timed(self, number: int) -> float:
        """Make one call; return its duration."""
        started = time.perf_counter()
        right = await self.call(number)
        seconds = time.perf_counter() - started
        self.astray += not right
        return seconds


async def measure_alone(contenders: Sequence[Contender], calls: int, *, pause: float = 0.0) -> None:
    """Measure the contenders in turns, call by call, so that noise affects all alike.

    Args:
        contenders: They are measured alone, one after the other.
        calls: Number of calls of each.
        pause: Seconds after each call, for the work that it has deferred.
    """
    order = list(contenders)
    for number in range(-_WARM_UP, calls):
        # the contender after an expensive one finds colder caches, so rotate
        order.append(order.pop(0))
        for contender in order if number % 2 else reversed(order):
            seconds = await contender.timed(number)
            if number >= 0:
                contender.seconds.append(seconds)
            if pause:
                await asyncio.sleep(pause)
