"""Warm start of the demo: the requests of another day, replayed before the customers come."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from itertools import islice

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from cache_core import MultiLevelCache
from cache_core.cli.console import counted, err, out
from cache_core.cli.demo.agent import Agent, SimulatedLLM
from cache_core.cli.demo.options import Options
from cache_core.cli.demo.shop import Knowledge
from cache_core.cli.demo.traffic import Traffic
from cache_core.cli.demo.truth import Truth

_LONGEST = 12.0
"""Seconds after which the replay ends, however many requests are left."""

_CONCURRENT = 4
_NO_TIME = 1e6
"""Speed-up of the simulated LLM: its answers are known already."""


@dataclass(frozen=True, slots=True)
class Warmed:
    """Replay before the start.

    Attributes:
        requests: Number of replayed requests.
        hit_rate: Their hit rate, 0 to 1, from an empty cache on.
        seconds: Duration.
    """

    requests: int
    hit_rate: float
    seconds: float

    def __str__(self) -> str:
        """Sentence for the board and the terminal."""
        return (
            f"warmed with {counted(self.requests, 'requests')} of another day in "
            f"{self.seconds:.1f} s ({self.hit_rate:.0%} hits)"
        )


async def warm_up(
    cache: MultiLevelCache, knowledge: Knowledge, truth: Truth, options: Options
) -> Warmed | None:
    """Replay the requests of another seed, as fast as the cache takes them; count nothing of it."""
    if not options.warm_requests:
        return None
    llm = SimulatedLLM(knowledge, options.seed, _NO_TIME)
    agent = Agent(cache, llm, share_documents=options.share)
    requests = islice(Traffic(knowledge, options.seed + 1), options.warm_requests)
    started = time.monotonic()
    async with _progress(options) as advance, _quiet():

        async def work() -> None:
            for request in requests:
                if time.monotonic() - started > _LONGEST:
                    return
                await truth.add(await agent.answer(request))
                advance()

        async with asyncio.TaskGroup() as group:
            for _ in range(_CONCURRENT):
                group.create_task(work())
        await truth.judge()
    stats = cache.metrics
    found = Warmed(stats.lookups, stats.hit_rate, time.monotonic() - started)
    cache.reset_metrics()
    return found


@contextlib.asynccontextmanager
async def _quiet() -> AsyncIterator[None]:
    """Leave out warnings: as many requests as the machine can take are more than it should get."""
    log = logging.getLogger("glasscache")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


@contextlib.asynccontextmanager
async def _progress(options: Options) -> AsyncIterator[Callable[[], None]]:
    console = out if options.live else err
    shown = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=console,
        transient=True, disable=options.as_json or not console.is_terminal,
    )  # fmt: skip
    with shown:
        task = shown.add_task(
            "warming up with the requests of another day", total=options.warm_requests
        )
        yield lambda: shown.advance(task)
