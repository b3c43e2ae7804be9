"""Spans of the cache: in the right trace, with what is known and no more."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
)
from opentelemetry.trace import SpanKind, StatusCode, get_current_span
from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from cache_core import MultiLevelCache
from cache_core.config.settings import Settings
from cache_core.model.values import LEVELS
from cache_core.testing import HashEmbedder, ManualClock
from telemetry import TracingInstrument, names
from tests.support import servers
from tests.support.observing import NAMESPACE, CacheFactory, MakeWatched, Watch, parents


@pytest.mark.slow
async def test_fifty_lookups_at_once_keep_their_spans_apart(
    watched: MultiLevelCache, watch: Watch
) -> None:
    """Every span is in its own agent's trace, and under its own lookup."""
    for number in range(10):
        await watched.put(f"question {number} about bikes", "ann", f"answer {number}")
    watch.exporter.clear()
    results: dict[int, Any] = {}

    async def agent(number: int) -> None:
        message = (
            f"question {number} about bikes",  # exact
            f"question {number % 10}, about bikes",  # the same words: similar
            f"something else entirely {number}",  # nothing
        )[number % 3]
        with watch.agent.start_as_current_span("agent") as span:
            await asyncio.sleep(number % 7 / 1000)
            results[span.get_span_context().trace_id] = await watched.lookup(message, "ann")

    await asyncio.gather(*(agent(number) for number in range(50)))

    assert len(results) == 50
    assert {result.tier for result in results.values()} == {"l1", "l2", None}
    for trace_id, result in results.items():
        mine = [span for span in watch.spans if span.context.trace_id == trace_id]
        (lookup,) = (span for span in mine if span.name == "cache.lookup")
        assert [span.name for span in parents(lookup, mine)] == ["agent"]
        assert lookup.attributes["cache.lookup_id"] == result.lookup_id
        assert lookup.attributes["cache.outcome"] == result.outcome
        for span in mine:
            if span.name.startswith("cache.get "):
                assert span.parent.span_id == lookup.context.span_id
            elif span.name in {"cache.embed", "cache.search"}:
                tier, root, _ = parents(span, mine)
                assert tier.attributes["cache.level"] == "l2"
                assert root is lookup
        asked = {s.attributes["cache.level"] for s in mine if s.name.startswith("cache.get ")}
        assert asked == ({"l1"} if result.tier == "l1" else set(LEVELS))
        assert all(
            lookup.start_time <= span.start_time <= span.end_time <= lookup.end_time
            for span in mine
            if span.name not in {"agent", "cache.lookup"}
        )


async def test_attributes_say_what_happened(watched: MultiLevelCache, watch: Watch) -> None:
    """A hit, a similar hit and a miss each carry exactly the attributes that apply to them."""
    await watched.put("how do I reset my password", "ann", "Click the link.")
    watch.exporter.clear()
    exact = await watched.lookup("how do I reset my password", "ann")
    similar = await watched.lookup("how do I, reset my password", "ann")
    missed = await watched.lookup("is it raining", "ann")

    first, second, third = (dict(span.attributes) for span in watch.named("cache.lookup"))
    assert first.pop("cache.age_seconds") == exact.age_seconds
    assert first == {
        "cache.name": NAMESPACE,
        "cache.level": "l1",
        "cache.outcome": "hit",
        "cache.hit": True,
        "cache.similarity": 1.0,
        "cache.saved_usd": pytest.approx(0.036),
        "cache.lookup_id": exact.lookup_id,
        "cache.tuning_version": 0,
        **names.KINDS["lookup"],
    }
    assert second["cache.level"] == "l2"
    assert second["cache.similarity"] == similar.similarity > 0.99
    assert third == {
        "cache.name": NAMESPACE,
        "cache.outcome": "miss",
        "cache.hit": False,
        "cache.reason": "below_threshold",
        "cache.lookup_id": missed.lookup_id,
        "cache.tuning_version": 0,
        **names.KINDS["lookup"],
    }
    tiers = [span.attributes for span in watch.spans if span.name.startswith("cache.get ")]
    assert {span.name for span in watch.spans if span.name.startswith("cache.get")} == {
        f"cache.get {level}" for level in LEVELS
    }
    assert [tier["cache.level"] for tier in tiers][:2] == ["l1", "l1"]
    assert {tier["cache.ttl_seconds"] for tier in tiers} == {3_600.0, 86_400.0, 21_600.0, 43_200.0}
    semantic = [tier for tier in tiers if tier["cache.level"] == "l2"]
    assert [tier["cache.hit"] for tier in semantic] == [True, False]
    assert all(tier["cache.threshold"] == 0.95 for tier in semantic)
    assert all("cache.threshold" not in tier for tier in tiers if tier not in semantic)
    assert not any("cache.saved_usd" in tier for tier in tiers)


async def test_operations_have_spans_of_their_own(watched: MultiLevelCache, watch: Watch) -> None:
    """Put, compute and invalidate are spans; a put embeds under its own."""
    with watch.agent.start_as_current_span("agent") as agent:
        answer = await watched.get_or_compute("what is a derailleur", "ann", lambda: "It shifts.")
        await watched.invalidate("what is a derailleur")
    assert answer == "It shifts."
    for name in ("cache.lookup", "cache.compute", "cache.put", "cache.invalidate"):
        (span,) = watch.named(name)
        assert span.parent.span_id == agent.get_span_context().span_id
        assert span.kind is SpanKind.INTERNAL
        assert span.instrumentation_scope.name == "glasscache"
        assert span.instrumentation_scope.version
    embedded = [parents(span, watch.spans)[0].name for span in watch.named("cache.embed")]
    assert set(embedded) == {"cache.get l2", "cache.invalidate", "cache.put"}


async def test_a_failing_compute_is_the_agents_error(
    watched: MultiLevelCache, watch: Watch
) -> None:
    """An error of the agent's own function reaches it, and is the one span with status ERROR."""

    def fail() -> str:
        raise LookupError("no such document: ann@example.com")

    with pytest.raises(LookupError):
        await watched.get_or_compute("what is a derailleur", "ann", fail)
    failed = [span.name for span in watch.spans if span.status.status_code is StatusCode.ERROR]
    assert failed == ["cache.compute"]
    (span,) = watch.named("cache.compute")
    assert span.attributes["error.type"] == "LookupError"
    assert "ann@example.com" not in str(span.to_json())


SECRETS = ("Zanzibar", "xylophone", "quokka", "ursula", "pangolin", "okapi", "narwhal", "tapir")


@pytest.mark.parametrize("store_kind", ["embedded"], indirect=True)
async def test_a_refresh_in_the_background_is_in_the_trace_that_set_it_off(
    store_kind: str, make_watched: MakeWatched, watch: Watch, clock: ManualClock
) -> None:
    """Also when that request ended before it; one that fails is the agent's error."""
    cache = await make_watched(watch, {"tiers": "l1,l3,l4"}, clock=clock)
    await cache.tune({"l1_ttl": 30.0, "refresh_share": 0.5}, author="test")
    ended = asyncio.Event()

    async def works() -> str:
        await ended.wait()
        return "anew"

    async def fails() -> str:
        await ended.wait()
        raise RuntimeError("the model is away")

    for compute, status in ((works, StatusCode.UNSET), (fails, StatusCode.ERROR)):
        watch.exporter.clear()
        ended.clear()
        message = f"{compute.__name__} beta"
        await cache.put(message, "ann", "old")
        clock.advance(16)
        with watch.agent.start_as_current_span("agent") as agent:
            assert await cache.get_or_compute(message, "ann", compute) == "old"
        ended.set()
        while not watch.named("cache.refresh"):
            await asyncio.sleep(0.01)
        (refresh,) = watch.named("cache.refresh")
        assert refresh.context is not None
        assert refresh.context.trace_id == agent.get_span_context().trace_id
        assert refresh.status.status_code is status
        (computed,) = watch.named("cache.compute")
        assert computed.parent is not None
        assert computed.parent.span_id == refresh.context.span_id


async def test_no_text_user_or_key_leaves_in_telemetry(
    make_watched: MakeWatched, watch: Watch
) -> None:
    """No attribute, event or label carries a text, a user id, or a digest of one."""
    cache = await make_watched(watch, settings={"key": "a long enough secret"})
    where: dict[str, Any] = {"context": {"prompt": "pangolin"}}
    await cache.put(
        "where is Zanzibar", "ursula", "xylophone", "quokka", [{"id": "okapi"}],
        tags=["narwhal"], **where,
    )  # fmt: skip
    await cache.lookup("where is Zanzibar", "ursula", **where)
    await cache.lookup("Zanzibar is where", "ursula", **where)
    await cache.lookup("where is Zanzibar", "tapir", **where)
    await cache.lookup("Zanzibar then", "ursula", history=["tapir"])
    await cache.invalidate_document("okapi")
    await cache.invalidate_tag("narwhal")
    await cache.forget_user("ursula")

    query = cache._parts.keys.query("where is Zanzibar", "ursula", where["context"])
    digests = (query.tag, query.user, query.shared, query.context)
    told = [
        *(f"{span.name} {span.to_json()}" for span in watch.spans),
        generate_latest(watch.registry).decode(),
    ]
    assert len(watch.spans) > 10
    for secret in (*SECRETS, *digests, "a long enough secret"):
        assert not any(secret.lower() in text.lower() for text in told), secret


async def test_a_miss_is_not_an_error(watched: MultiLevelCache, watch: Watch) -> None:
    """Spans of a miss have status UNSET, no event and no error.type."""
    await watched.lookup("is it raining", "ann")
    assert {span.name for span in watch.spans} >= {"cache.lookup", "cache.get l2", "cache.embed"}
    for span in watch.spans:
        assert span.status.status_code is StatusCode.UNSET
        assert not span.events
        assert "error.type" not in span.attributes


async def test_a_survived_failure_is_an_event(
    watched: MultiLevelCache, watch: Watch, embedder: HashEmbedder
) -> None:
    """A failing part leaves an event and error.type up to the lookup, and status UNSET."""
    embedder.failure = ConnectionResetError("secret-host:8000 hung up")
    result = await watched.lookup("is it raining", "ann")
    assert result.outcome == "error"
    by_name = {
        (span.name, span.attributes.get("cache.level")): span
        for span in watch.spans
    }  # fmt: skip
    for name in (("cache.embed", None), ("cache.get l2", "l2"), ("cache.lookup", None)):
        span = by_name[name]
        assert span.status.status_code is StatusCode.UNSET
        assert span.attributes["cache.outcome"] == "error"
        assert span.attributes["error.type"] == "ConnectionResetError"
        (event,) = span.events
        assert event.name == names.EVENT_FAILED
        assert dict(event.attributes) == {"error.type": "ConnectionResetError"}
        assert "secret-host" not in span.to_json()
    assert by_name["cache.lookup", None].attributes["cache.reason"] == "backend_error"
    assert not by_name["cache.get l1", "l1"].events


async def test_a_store_that_was_never_reached(watch: Watch, tmp_path: Path) -> None:
    """Lookups that end before there is a store count as an error of L1; the backend is down."""
    cache = MultiLevelCache(
        f"redis://127.0.0.1:{servers.free_port()}",
        namespace=NAMESPACE,
        embedding_model=HashEmbedder(),
        instruments=watch.instruments,
        settings=Settings(dir=tmp_path),
    )
    async with cache:
        with watch.agent.start_as_current_span("agent"):
            result = await cache.lookup("is it raining", "ann")
        await cache.put("is it raining", "ann", "yes")
        assert watch.value(names.BACKEND_UP, "redis") == 0
    assert (result.outcome, result.reasons) == ("error", ("backend_error",))
    assert watch.value(names.ERRORS, "l1", "backend_error") == 1
    assert watch.value(names.LOOKUPS, "error") == 1
    assert watch.value(names.BACKEND_UP, "redis") is None, "a closed cache knows nothing of it"
    (span,) = watch.named("cache.lookup")
    assert span.status.status_code is StatusCode.UNSET
    assert [event.name for event in span.events] == [names.EVENT_FAILED]
    assert span.attributes["error.type"] == "backend_error"


class _NoLookups(Sampler):
    """Samples everything but the cache's lookups."""

    def should_sample(
        self, parent_context: Any, trace_id: int, name: str, *_: Any, **__: Any
    ) -> Any:
        dropped = name == "cache.lookup"
        return SamplingResult(Decision.DROP if dropped else Decision.RECORD_AND_SAMPLE)

    def get_description(self) -> str:
        return "no lookups"


async def test_nothing_is_opened_below_a_lookup_that_is_not_recorded(
    make_watched: MakeWatched,
) -> None:
    """Tier spans are absent when the lookup was sampled out, though the sampler would take them."""
    watch = Watch(_NoLookups())
    cache = await make_watched(watch)
    watch.exporter.clear()
    with watch.agent.start_as_current_span("agent"):
        await cache.lookup("is it raining", "ann")
    assert [span.name for span in watch.spans] == ["agent"]


@pytest.mark.parametrize("sampler", [ALWAYS_ON, ALWAYS_OFF, ParentBased(ALWAYS_OFF)])
async def test_all_or_nothing_of_a_lookup_is_traced(
    make_watched: MakeWatched, sampler: Sampler
) -> None:
    """With every tier asked: a span for each of them, the embedding and the search; or none."""
    watch = Watch(sampler)
    cache = await make_watched(watch)
    watch.exporter.clear()
    with watch.agent.start_as_current_span("agent"):
        await cache.lookup("is it raining", "ann")
    told = Counter(span.name for span in watch.spans)
    everything = {
        "agent": 1, "cache.lookup": 1, "cache.embed": 1, "cache.search": 1,
        **{f"cache.get {level}": 1 for level in LEVELS},
    }  # fmt: skip
    assert told == (everything if sampler is ALWAYS_ON else {})


class _RecordOnly(Sampler):
    """Records everything, for span processors, and has nothing exported."""

    def should_sample(self, *_: Any, **__: Any) -> Any:
        return SamplingResult(Decision.RECORD_ONLY)

    def get_description(self) -> str:
        return "record only"


async def test_what_is_recorded_but_not_sampled_has_no_exemplar(make_watched: MakeWatched) -> None:
    """A span that is recorded and not exported gives no exemplar."""
    watch = Watch(_RecordOnly())
    cache = await make_watched(watch)
    await cache.lookup("is it raining", "ann")
    assert not watch.spans
    assert watch.value(names.LOOKUPS, "miss") == 1
    assert "trace_id" not in generate_openmetrics(watch.registry).decode()


async def test_a_span_that_the_application_ended_is_let_alone(
    watched: MultiLevelCache, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    """It was the current one, and the application's to end by mistake: nobody is told off for it."""

    def compute() -> str:
        get_current_span().end()
        return "It shifts."

    assert await watched.get_or_compute("what is a derailleur", "ann", compute) == "It shifts."
    assert len(watch.named("cache.compute")) == 1
    assert not [line for line in caplog.records if line.name.startswith("opentelemetry")]


async def test_without_an_sdk_nothing_happens(make_cache: CacheFactory) -> None:
    """With only the OpenTelemetry API no span is opened, and the cache works."""
    instrument = TracingInstrument(NAMESPACE)
    assert instrument.scope("lookup", None) is None
    cache = await make_cache(instruments=[instrument])
    await cache.put("is it raining", "ann", "yes")
    assert await cache.get_multilevel("is it raining", "ann") == "yes"


@pytest.fixture
async def redis_spans(watch: Watch) -> AsyncIterator[None]:
    """redis-py is instrumented, as an application would do it."""
    instrumentor = RedisInstrumentor()
    instrumentor.instrument(tracer_provider=watch.provider)
    yield
    instrumentor.uninstrument()


@pytest.mark.parametrize("store_kind", ["redis"], indirect=False)
async def test_redis_spans_nest_under_ours(
    redis_spans: None, watch: Watch, make_watched: MakeWatched, store_kind: str
) -> None:
    """A client span belongs to a lookup that is waiting for it, also when many share a trip."""
    cache = await make_watched(watch)
    await cache.put("is it raining", "ann", "yes")
    (put,) = watch.named("cache.put")
    ours = [span for span in watch.spans if span.kind is SpanKind.CLIENT and span.parent]
    assert any(put in parents(span, watch.spans) for span in ours)
    watch.exporter.clear()

    async def agent(number: int) -> None:
        with watch.agent.start_as_current_span("agent"):
            for turn in range(5):
                await cache.lookup(f"is it raining {number * turn}", "ann")

    await asyncio.gather(*(agent(number) for number in range(20)))
    clients = [span for span in watch.spans if span.kind is SpanKind.CLIENT and span.parent]
    assert clients
    for span in clients:
        tier, *above = parents(span, watch.spans)
        assert tier.name == f"cache.get {tier.attributes['cache.level']}"
        assert [ancestor.name for ancestor in above] == ["cache.lookup", "agent"]
        assert tier.start_time <= span.start_time <= tier.end_time, "its lookup had ended"


async def test_an_outage_does_not_go_on_in_the_first_ones_trace(
    redis_spans: None, watch: Watch, tmp_path: Path
) -> None:
    """Background work of the cache belongs to no agent's trace, also where it is traced."""
    cache = MultiLevelCache(
        f"redis://127.0.0.1:{servers.free_port()}",
        embedding_model=HashEmbedder(),
        instruments=watch.instruments,
        settings=Settings(dir=tmp_path, trace_background=True),
    )
    with watch.agent.start_as_current_span("agent") as agent:
        await cache.lookup("is it raining", "ann")
    await asyncio.sleep(0.6)
    await cache.close()
    (ended,) = watch.named("agent")
    later = [span for span in watch.spans if span.start_time > ended.end_time]
    assert later, "it was tried again"
    trace_id = agent.get_span_context().trace_id
    assert not [span.name for span in later if span.context.trace_id == trace_id]
