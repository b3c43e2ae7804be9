"""Background work and traces: none of its own, and those who wait for others' work are linked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.sdk.trace import ReadableSpan
from redis.asyncio import Redis

from cache_core.model.values import LookupResult
from cache_core.testing import HashEmbedder
from telemetry import names
from tests.support.caches import CacheFactory
from tests.support.observing import NAMESPACE, MakeWatched, Watch, parents


@pytest.fixture
async def redis_spans(watch: Watch) -> AsyncIterator[None]:
    """redis-py is instrumented, as an application would do it."""
    RedisInstrumentor().instrument(tracer_provider=watch.provider)
    yield
    RedisInstrumentor().uninstrument()


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await condition():
            await asyncio.sleep(0.02)


OF_THE_TEST = {"FLUSHALL", "INFO"}
"""Commands of the test's own clients, which are instrumented, too."""


def _roots(watch: Watch) -> list[str]:
    return [span.name for span in watch.spans if span.parent is None]


@pytest.mark.parametrize("store_kind", ["redis"], indirect=False)
async def test_an_idle_cache_makes_no_traces(
    redis_spans: None, watch: Watch, make_watched: MakeWatched, store_kind: str, redis_url: str
) -> None:
    """Through fifty background commands no trace; each of 60 requests is one, and no other is."""
    cache = await make_watched(watch)
    assert set(_roots(watch)) <= OF_THE_TEST, "opening is the cache's own work, too"
    server = Redis.from_url(redis_url)
    seen = 0

    async def busy() -> bool:
        nonlocal seen
        seen = (await server.info("stats"))["total_commands_processed"]
        return seen - first >= 50

    first = (await server.info("stats"))["total_commands_processed"]
    await _until(busy)
    assert "INFO" in set(_roots(watch)) <= OF_THE_TEST
    watch.exporter.clear()

    for number in range(60):
        with watch.agent.start_as_current_span("request"):
            message = f"question {number % 6}"
            if (await cache.lookup(message, "ann")).response is None:
                await cache.put(message, "ann", "answer", "shipping")
    assert _roots(watch) == ["request"] * 60
    await server.aclose()


@pytest.mark.parametrize("store_kind", ["redis"], indirect=False)
async def test_background_work_is_traced_on_request(
    redis_spans: None, watch: Watch, make_watched: MakeWatched, store_kind: str
) -> None:
    """With `trace_background` its commands are traces, as those of any instrumented client."""
    await make_watched(watch, {"trace_background": True})

    async def traced() -> bool:
        return "XRANGE" in _roots(watch)

    await _until(traced)


@pytest.mark.parametrize("store_kind", ["redis"], indirect=False)
async def test_a_cache_opens_without_traces_after_one_that_was_traced(
    redis_spans: None, watch: Watch, make_watched: MakeWatched, store_kind: str
) -> None:
    """Traced background work of one cache does not extend to the next one of the process."""
    traced = await make_watched(watch, {"trace_background": True})
    await traced.close()
    assert not set(_roots(watch)) <= OF_THE_TEST
    watch.exporter.clear()
    await make_watched(watch)
    assert set(_roots(watch)) <= OF_THE_TEST


async def test_a_caller_that_waits_for_a_computation_is_linked_to_it(
    make_watched: MakeWatched, watch: Watch
) -> None:
    """Five ask concurrently: one computes, four have a span of their waiting with a link to it."""
    cache = await make_watched(watch)
    everybody = asyncio.Event()
    asked = 0

    async def model() -> str:
        await everybody.wait()
        return "answer"

    async def request() -> str:
        nonlocal asked
        with watch.agent.start_as_current_span("request"):
            asked += 1
            return await cache.get_or_compute("how long is shipping", "ann", model)

    requests = [asyncio.ensure_future(request()) for _ in range(5)]

    async def all_wait() -> bool:
        return sum(flight.waiting for flight in cache._engine.flight._flights.values()) == 5

    await _until(all_wait)
    everybody.set()
    assert await asyncio.gather(*requests) == ["answer"] * 5
    computed = watch.named("cache.compute")
    assert len(computed) == 5
    (own,) = (span for span in computed if span.attributes["cache.outcome"] == "ok")
    for span in computed:
        links = [] if span is own else [own.context]
        assert [link.context for link in span.links] == links
        assert span is own or span.attributes["cache.outcome"] == "joined"
        assert [parent.name for parent in parents(span, watch.spans)] == ["request"]
    assert cache.get_metrics()["joined"] == 4
    assert watch.value(names.FLIGHT_JOINS) == 4


async def test_a_caller_that_waits_for_another_process_is_linked_to_its_trace(
    make_cache: CacheFactory, watch: Watch, store_kind: str
) -> None:
    """A replica that waits for another's lease has a span with a link to the holder's trace."""
    one = await make_cache(namespace=NAMESPACE, instruments=watch.instruments)
    elsewhere = Watch()
    other = await make_cache(namespace=NAMESPACE, instruments=elsewhere.instruments)
    waiting, done = asyncio.Event(), asyncio.Event()

    async def model() -> str:
        waiting.set()
        await done.wait()
        return "answer"

    async def never() -> str:
        raise AssertionError("the other replica computes")

    with watch.agent.start_as_current_span("first") as first:
        computing = asyncio.ensure_future(one.get_or_compute("how long is it", "ann", model))
    await waiting.wait()
    with elsewhere.agent.start_as_current_span("second"):
        joining = asyncio.ensure_future(other.get_or_compute("how long is it", "ann", never))

    async def waits() -> bool:
        flights = other._engine.flight._flights.values()
        return any(flight.note is not None for flight in flights)

    await _until(waits)
    done.set()
    assert await asyncio.gather(computing, joining) == ["answer"] * 2
    (waited,) = elsewhere.named("cache.compute")
    assert waited.attributes["cache.outcome"] == "joined"
    assert [link.context.span_id for link in waited.links] == [first.get_span_context().span_id]
    assert elsewhere.value(names.FLIGHT_JOINS) == 1


EXPORTED_AS_MODEL_CALLS = {"chat", "text_completion", "generate_content", "embeddings"}
"""Values of `gen_ai.operation.name` that platforms count as calls of a model."""


def _is_kept(span: ReadableSpan) -> bool:
    """Return whether Langfuse keeps a span by default: one with an attribute of the convention."""
    return any(name.startswith("gen_ai.") for name in span.attributes or {})


@pytest.mark.parametrize("capture", [False, True])
@pytest.mark.parametrize("store_kind", ["embedded"], indirect=True)
async def test_no_model_call_loses_its_parent(
    make_watched: MakeWatched, watch: Watch, capture: bool, store_kind: str
) -> None:
    """A filter for generative AI keeps a whole tree, and counts no lookup as a call of a model."""

    class Remote(HashEmbedder):
        async def embed(self, text: str) -> Any:
            with _model_call("embeddings remote"):
                return await super().embed(text)

    def _model_call(name: str) -> Any:
        attributes = {
            names.GEN_AI_OPERATION: name.split(maxsplit=1)[0],
            "gen_ai.request.model": "x",
        }
        return watch.agent.start_as_current_span(name, attributes=attributes)

    async def answer(_: LookupResult) -> str:
        with _model_call("chat remote"):
            return "an answer"

    cache = await make_watched(
        watch, {"capture_message_content": capture}, embedding_model=Remote(), sharing="all"
    )
    watch.exporter.clear()
    for message in ("how long is shipping", "how long is shipping", "shipping, how long is"):
        attributes = {names.GEN_AI_OPERATION: "invoke_agent"}
        with watch.agent.start_as_current_span("agent", attributes=attributes):
            await cache.get_or_compute(message, "ann", answer)
    await cache.invalidate("how long is shipping")

    kept = [span for span in watch.spans if _is_kept(span)]
    ids = {span.context.span_id for span in kept}
    assert {span.name for span in kept} >= {
        "cache.lookup", "cache.compute", "cache.put", "cache.invalidate", "chat remote",
        "embeddings remote",
    }  # fmt: skip
    assert [span.name for span in kept if span.parent and span.parent.span_id not in ids] == []
    for span in kept:
        if span.instrumentation_scope.name == names.TRACER:
            assert span.attributes[names.GEN_AI_OPERATION] not in EXPORTED_AS_MODEL_CALLS
            assert span.attributes[names.SPAN_KIND] in {"CHAIN", "RETRIEVER"}
            assert "gen_ai.request.model" not in span.attributes
    texts = [span for span in kept if names.CAPTURED_MESSAGE in span.attributes]
    assert {span.name for span in texts} == ({"cache.lookup"} if capture else set())
    assert all(json.loads(span.attributes[names.CAPTURED_MESSAGE]) for span in texts)
