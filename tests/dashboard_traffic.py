"""A process with a real cache under scripted traffic: `python -m tests.dashboard_traffic`.

Its arguments are a directory, the URL of Redis and the port of /metrics. It runs until it is killed.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import sys
import time
from pathlib import Path

from opentelemetry.sdk.trace import TracerProvider

from cache_core import MultiLevelCache
from cache_core.instrumentation import CacheState
from cache_core.settings import Settings
from cache_core.testing import HashEmbedder
from telemetry import PrometheusInstrument, TracingInstrument, serve_metrics
from tests.patient import PATIENT

NAMESPACE = "shop"
RETUNED_EVERY = 4.0


class Retuned(PrometheusInstrument):
    """Sees the cache as if somebody tuned it every few seconds."""

    started = time.monotonic()

    def report(self, state: CacheState) -> None:
        times = int((time.monotonic() - self.started) / RETUNED_EVERY)
        tuning = state.tuning.model_copy(update={"version": state.tuning.version + times})
        super().report(dataclasses.replace(state, tuning=tuning))


async def customers(cache: MultiLevelCache, number: int) -> None:
    """Ask what ends in every outcome."""
    told = f"which colours does the new mountain bike model {number} have in your shop this spring"
    answer, documents = f"blue, as always, in {number}", [{"id": "doc-1"}]
    await cache.lookup(told, "ann")
    await cache.put(told, "ann", answer, "colours", documents, shared=True)
    await cache.lookup(told, "bob")  # L1
    await cache.lookup(" ".join(reversed(told.split())), "bob")  # L2: the same words
    await cache.lookup(told.replace(str(number), str(number + 1)), "eve")  # a guard: numbers
    await cache.lookup(f"{told} or not", "eve")  # a guard: negation
    await cache.lookup(f"where does the new mountain bike model {number} come from", "eve")

    own = f"where is parcel {number}"
    await cache.put(own, "ann", "on its way", "parcels", documents, share_documents=True)
    await cache.lookup(own, "bob")  # only in part: L3 and L4
    await cache.lookup("", "bob")  # not cacheable
    await cache.lookup(own, "ann")
    if number % 5 == 0:
        await cache.invalidate(own, "ann")


async def agrees(message: str, response: str) -> bool:
    """Check a semantic hit: every fifth is wrong."""
    return hash((message, response)) % 5 > 0


async def main(directory: str, redis_url: str, port: str) -> None:
    """Serve until killed."""
    provider = TracerProvider()
    tracer = provider.get_tracer("agent")
    instruments = (Retuned(NAMESPACE), TracingInstrument(NAMESPACE, provider))
    settings = Settings(dir=Path(directory), redis_url=redis_url, **PATIENT)
    serve_metrics(int(port))
    async with MultiLevelCache(
        namespace=NAMESPACE,
        semantic_threshold=0.85,
        embedding_model=HashEmbedder(),
        settings=settings,
        instruments=instruments,
        verify=agrees,
    ) as cache:
        await cache.tune({"verify_share": 1.0}, author="test")
        for number in itertools.count(10):
            with tracer.start_as_current_span("invoke_agent"):
                await customers(cache, number)
            await asyncio.sleep(0.1)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
