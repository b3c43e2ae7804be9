"""Traffic under a fault: it asks, compares each answer with its key and user, and counts."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence

import pytest

from cache_core import LookupResult, MultiLevelCache
from tests.support.waiting import until

USERS = ("ann", "bob")
GRACE = 4
"""Times a budget that a busy machine may take."""


def question(number: int) -> str:
    # A word of its own each: the word-based embedder must not take one for another.
    return f"subject{number} matter{number} theme{number}"


def answer(number: int, user: str) -> str:
    """The only right answer: it names its question and its user; those to all name no user."""
    return f"answer to {question(number)} for {'all' if number % 2 else user}"


async def fill(cache: MultiLevelCache, count: int) -> None:
    """Put answers: the odd ones shared, the even ones of each user."""
    for number in range(count):
        for user in USERS:
            await cache.put(
                question(number), user, answer(number, user), shared=bool(number % 2), tags=["t"]
            )


class Asker:
    """Asks a cache, and holds every answer against the right one.

    Attributes:
        outcomes: Of all lookups.
        slowest: Seconds of the slowest one.
    """

    def __init__(self, cache: MultiLevelCache) -> None:
        self.cache = cache
        self.outcomes: Counter[str] = Counter()
        self.slowest = 0.0

    async def ask(self, number: int, user: str = "ann") -> LookupResult:
        started = time.monotonic()
        found = await self.cache.lookup(question(number), user)
        self.slowest = max(self.slowest, time.monotonic() - started)
        self.outcomes[found.outcome] += 1
        assert found.response in {None, answer(number, user)}
        return found

    async def ask_all(self, count: int) -> list[LookupResult]:
        return [await self.ask(number, user) for number in range(count) for user in USERS]

    async def served_by_l1(self, numbers: Sequence[int]) -> None:
        """Wait until every one of these is answered exactly."""

        async def served() -> bool:
            return {(await self.ask(number)).tier for number in numbers} == {"l1"}

        await until(served)
        self.slowest = 0.0

    def in_time(self) -> bool:
        """Return whether no lookup took longer than the whole budget allows, on a busy machine."""
        slowest, self.slowest = self.slowest, 0.0
        return slowest <= GRACE * self.cache.settings.lookup_budget


class Lines:
    """The log of a test, as a rate: no message more than once a second."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "glasscache")
        caplog.clear()
        self._caplog = caplog

    def are_few(self) -> bool:
        """Return whether two lines of the same kind are never less than a second apart."""
        last: dict[tuple[str, str], float] = {}
        for record in self._caplog.records:
            if record.name != "glasscache" or record.levelno < logging.WARNING:
                continue
            kind = record.args[2] if "go on without it" in str(record.msg) else record.args
            key = (str(record.msg).partition(" (%d more")[0], str(kind))
            if record.created - last.get(key, 0.0) < 0.9:
                return False
            last[key] = record.created
        return True

    def text(self) -> str:
        return "\n".join(record.getMessage() for record in self._caplog.records)
