"""Creates the pictures in docs/images: `python -m grafana.pictures.scene`, in six minutes.

The demo's agent and customers on real servers: a healthy cache above its objective, until Redis
hangs. Then `grafana.pictures` draws Prometheus' data.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, cast

import redis.asyncio
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from cache_core import Answer, LookupResult, MultiLevelCache, Settings
from cache_core.cli.demo.agent import Bill, SimulatedLLM
from cache_core.cli.demo.shop import load_knowledge
from cache_core.cli.demo.stack import Stack, free_port, stack
from cache_core.cli.demo.traffic import Request, Traffic
from cache_core.observability.defaults import default_instruments
from grafana.live import Prometheus
from grafana.pictures.answers import Span
from grafana.pictures.draw import draw_all
from telemetry import serve_metrics

NAMESPACE = "shop"
SCRAPE = 2.0
RATE = 15.0
"""Requests a second."""

PHASES = (("fills", 75), ("healthy", 120), ("hangs", 80))
"""Phases and their seconds. Redis hangs for longer than its alert's delay, to the end. The first
lasts until the next minute begins, so that no label of the time axis is cut at its end."""

TUNING = {
    "verify_share": 0.4, "semantic_threshold": 0.87, "approve_margin": 0.05,
    "approvals_per_minute": 600,
}  # fmt: skip

EXPECTED = 'it says "no answer"'
"""End of a problem that is none: what a Redis that hangs does not tell."""

SHOWN = sum(seconds for name, seconds in PHASES if name != "fills")


class Customers:
    """Customers that ask an agent behind a cache.

    Args:
        cache: The cache.
        speed: Factor by which the model answers faster than a real one.
    """

    def __init__(self, cache: MultiLevelCache, speed: float = 1.0) -> None:
        knowledge = load_knowledge()
        self._cache = cache
        self._random = Random(1)
        self._requests: Iterator[Request] = iter(Traffic(knowledge, 1))
        self._llm = SimulatedLLM(knowledge, 1, speed)
        self._bill = Bill()
        self.truth: dict[str, set[str]] = defaultdict(set)

    async def ask(self, seconds: float, rate: float) -> None:
        """Ask at random times."""
        ends = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            while time.monotonic() < ends:
                group.create_task(self._one(next(self._requests)))
                await asyncio.sleep(self._random.expovariate(rate))

    async def _one(self, request: Request) -> None:
        self.truth[request.message].add(request.response)
        with (
            contextlib.suppress(TimeoutError),
            trace.get_tracer("scene").start_as_current_span("invoke_agent"),
        ):
            await self._cache.get_or_compute(
                request.message,
                request.user_id,
                functools.partial(self._compute, request),
                history=request.history,
                share_documents=True,
            )
        if self._random.random() < 0.01:
            await self._cache.invalidate(request.message)
        if self._random.random() < 0.02:
            await self._cache.lookup("", request.user_id)

    async def _compute(self, request: Request, found: LookupResult) -> Answer:
        """Answer as the model would; it fails now and then."""
        if self._random.random() < 0.01:
            raise TimeoutError
        intent = found.intent or await self._llm.classify(request, self._bill)
        documents = found.rag_results or await self._llm.retrieve(request, self._bill)
        response = await self._llm.answer(request, documents, self._bill)
        return Answer(response, intent, documents)


async def play(around: Stack, directory: Path) -> float:
    """Run the phases; return when the last one ended, in seconds since 1970."""
    if around.redis_url is None:
        raise SystemExit("\n".join(around.missing))
    customers: Customers | None = None

    async def is_right(message: str, response: str) -> bool:
        await asyncio.sleep(Random(message).uniform(0.06, 0.2))  # a model is asked
        return customers is not None and response in customers.truth[message]

    async def means_the_same(message: str, stored: str, response: str) -> bool:
        await asyncio.sleep(Random(stored).uniform(0.02, 0.06))  # a small model is
        return customers is not None and response in customers.truth[message]

    async with (
        MultiLevelCache(
            settings=Settings(dir=directory, redis_url=around.redis_url),
            namespace=NAMESPACE,
            sharing="intents",
            shared_intents=load_knowledge().public_intents,
            instruments=default_instruments(NAMESPACE),
            verify=is_right,
            approve=means_the_same,
        ) as cache,
        redis.asyncio.Redis.from_url(around.redis_url) as client,
    ):
        await cache.ready()
        await cache.tune(TUNING, author="scene")
        customers = Customers(cache)
        for name, least in PHASES:
            seconds = least + (-(time.time() + least) % 60 if name == "fills" else 0)
            sys.stdout.write(f"{name}, {seconds:.0f} s\n")
            sys.stdout.flush()
            if name == "hangs":
                await cast("Any", client).client_pause(2 * least * 1_000)
            await customers.ask(seconds, RATE)
        return time.time()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and draw; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m grafana.pictures.scene", description=__doc__)
    parser.add_argument("--to", type=Path, default=Path("docs/images/dashboards"), help="directory")
    parser.add_argument("--hold", type=float, default=0, help="seconds to keep Prometheus after it")
    options = parser.parse_args(arguments)
    trace.set_tracer_provider(TracerProvider())
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        directory = Path(name)
        with stack(directory / "stack", free_port(), f"{SCRAPE:.0f}s") as around:
            _, stop = serve_metrics(around.metrics_port)
            end = asyncio.run(play(around, directory / "cache"))
            (url,) = (place.where for place in around.places if place.name == "prometheus")
            span = Span.back(SHOWN, SCRAPE, end)
            sys.stdout.write(f"{url} --scrape {SCRAPE} --end {span.end:.0f}\n")
            found = draw_all(Prometheus(url, SCRAPE, span.start), span, options.to)
            wrong = [problem for problem in found if not problem.endswith(EXPECTED)]
            sys.stdout.writelines(f"{problem}\n" for problem in wrong)
            sys.stdout.flush()
            time.sleep(options.hold)
            stop()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
