"""What every test of a fault does: asks, compares each answer with its key and user, and counts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from cache_core import LookupResult, MultiLevelCache
from cache_core.settings import Settings
from cache_core.testing import HashEmbedder

USERS = ("ann", "bob")
GRACE = 4
"""Times a budget that a busy machine may take."""


def question(number: int) -> str:
    # A word of its own each: the word-based embedder must not take one for another.
    return f"subject{number} matter{number} theme{number}"


def answer(number: int, user: str) -> str:
    """The only right answer: it names its question and its user; those to all name nobody."""
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
        for _ in range(40):
            tiers = {(await self.ask(number)).tier for number in numbers}
            if tiers == {"l1"}:
                self.slowest = 0.0
                return
        raise AssertionError(f"L1 does not serve: {tiers}")

    def in_time(self) -> bool:
        """Whether no lookup took longer than the whole budget allows, on a busy machine."""
        slowest, self.slowest = self.slowest, 0.0
        return slowest <= GRACE * self.cache.settings.lookup_budget


@contextlib.asynccontextmanager
async def opened(directory: Path, **more: Any) -> AsyncIterator[MultiLevelCache]:
    """Open a cache with budgets as they are by default; it leaves nothing behind."""
    arguments = {name: more.pop(name) for name in list(more) if name not in Settings.model_fields}
    settings = Settings(dir=directory, **more)
    arguments = {"embedding_model": HashEmbedder(), "instruments": (), **arguments}
    cache = MultiLevelCache(settings=settings, **arguments)
    try:
        await cache.initialize()
        yield cache
    finally:
        await cache.close()
    await asyncio.sleep(0)
    left = [task for task in asyncio.all_tasks() if _is_ours(task)]
    assert not left, f"tasks were left: {left}"


def _is_ours(task: asyncio.Task[Any]) -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    place = code.co_filename if code is not None else ""
    return (
        not task.done()
        and any(part in place for part in ("/cache_core/", "/redis/", "/chromadb/"))
        and "/testing/" not in place
    )


async def until(done: Callable[[], Any], seconds: float = 15.0) -> float:
    """Wait until *done* is true; return how many seconds that took."""
    started = time.monotonic()
    while not done():
        assert time.monotonic() - started < seconds, "not within its time"
        await asyncio.sleep(0.02)
    return time.monotonic() - started


class Lines:
    """The log of a test, as a rate: no message more than once a second."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "glasscache")
        caplog.clear()
        self._caplog = caplog

    def are_few(self) -> bool:
        """Whether two lines of the same kind are never less than a second apart."""
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
