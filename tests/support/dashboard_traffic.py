"""The demo's agent and customers, in phases: `python -m tests.support.dashboard_traffic`.

Its arguments are a directory, the URL of Redis and the port of /metrics. Each line that it reads is
a phase: `quiet`, `busy`, or `tuned`, which is a change of the tuning and then as busy. It goes on with
the last one until it is killed. There are two caches; the second one is asked little.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from cache_core import MultiLevelCache
from cache_core.cli.demo.shop import load_knowledge
from cache_core.config.settings import Settings
from cache_core.model.exceptions import BackendError
from cache_core.observability.defaults import default_instruments
from cache_core.testing import HashEmbedder
from grafana.pictures.scene import NAMESPACE, Customers
from telemetry import serve_metrics
from tests.support.patience import PATIENT

RATES = {"quiet": 3.0, "busy": 25.0, "tuned": 25.0}
"""Requests a second."""

SECOND, SECOND_RATE = "faq", 2.0
SPEED = 20.0


async def agrees(message: str, response: str) -> bool:
    """Check a semantic hit: every fifth is wrong."""
    return hash((message, response)) % 5 > 0


async def approves(message: str, stored: str, response: str) -> bool:
    """Approve an answer in doubt: every second one."""
    return hash((message, stored, response)) % 2 > 0


def cache_on(directory: str, redis_url: str, namespace: str) -> MultiLevelCache:
    """Return one of the caches."""
    return MultiLevelCache(
        namespace=namespace,
        sharing="intents",
        shared_intents=load_knowledge().public_intents,
        embedding_model=HashEmbedder(),
        settings=Settings(dir=Path(directory) / namespace, redis_url=redis_url, **PATIENT),
        instruments=default_instruments(namespace),
        verify=agrees,
        approve=approves,
    )


async def phases(cache: MultiLevelCache, second: MultiLevelCache) -> None:
    """Ask as the last line that was read says."""
    customers, others = Customers(cache, SPEED), Customers(second, SPEED)
    loop = asyncio.get_running_loop()
    phase = "quiet"
    following = loop.run_in_executor(None, sys.stdin.readline)
    while True:
        await asyncio.gather(customers.ask(0.5, RATES[phase]), others.ask(0.5, SECOND_RATE))
        if following.done() and (line := (await following).strip()):
            phase = line
            following = loop.run_in_executor(None, sys.stdin.readline)
            if phase == "tuned":
                await change(cache)


async def change(cache: MultiLevelCache) -> None:
    """Change the tuning as soon as the restarted Redis can be written.

    Twice: Redis is empty and counts versions anew, so one change could show the number that was
    there before.
    """
    for threshold in (0.87, 0.85):
        while True:
            try:
                await cache.tune({"semantic_threshold": threshold}, author="test")
                break
            except BackendError:
                await asyncio.sleep(0.1)


async def main(directory: str, redis_url: str, port: str) -> None:
    """Serve until killed."""
    trace.set_tracer_provider(TracerProvider())
    serve_metrics(int(port))
    async with AsyncExitStack() as stack:
        caches = [
            await stack.enter_async_context(cache_on(directory, redis_url, namespace))
            for namespace in (NAMESPACE, SECOND)
        ]
        for cache in caches:
            await cache.tune(
                {"verify_share": 1.0, "semantic_threshold": 0.9, "approve_margin": 0.1},
                author="test",
            )
        await phases(*caches)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
