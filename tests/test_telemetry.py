"""What the cache tells the outside: spans in the right trace, metrics that equal its counts."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    Sampler,
    SamplingResult,
)
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from cache_core import MultiLevelCache
from cache_core.instrumentation import CacheCall, CacheState
from cache_core.models import ERROR_REASONS, LEVELS, MISS_REASONS, OUTCOMES
from cache_core.settings import Settings
from cache_core.testing import HashEmbedder, ManualClock
from telemetry import PrometheusInstrument, TracingInstrument, names, serve_metrics
from tests import servers, snippets
from tests.patient import PATIENT

NAMESPACE = "watched"
CacheFactory = Callable[..., Any]


@dataclass
class Watch:
    """A tracer provider and a metrics registry of a test's own, and the cache's instruments."""

    sampler: Sampler = ALWAYS_ON
    exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        self.provider = TracerProvider(sampler=self.sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.agent = self.provider.get_tracer("agent")
        self.instruments = (
            PrometheusInstrument(NAMESPACE, self.registry),
            TracingInstrument(NAMESPACE, self.provider),
        )

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return self.exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    def value(self, metric: names.Metric, *labels: str, suffix: str = "") -> float | None:
        """Return a sample; `None` without one."""
        found = dict(zip(metric.labels, labels, strict=True))
        return self.registry.get_sample_value(metric.name + suffix, {"cache": NAMESPACE, **found})

    def samples(self, *kinds: str) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
        """Return name and labels of every sample of metrics of these kinds."""
        return {
            (sample.name, tuple(sorted(sample.labels.items())))
            for family in self.registry.collect()
            if family.type in kinds
            for sample in family.samples
        }


@pytest.fixture
def watch() -> Watch:
    return Watch()


MakeWatched = Callable[..., Any]


@pytest.fixture
def make_watched(make_cache: CacheFactory) -> MakeWatched:
    """Make a cache that a `Watch` watches; without a hedge, so that what happens is what is said."""

    async def make(watch: Watch, settings: dict[str, Any] | None = None, **more: Any) -> Any:
        fixed = {**PATIENT, "hedge_delay": 5.0, **(settings or {})}
        return await make_cache(
            namespace=NAMESPACE, instruments=watch.instruments, settings=fixed, **more
        )

    return make


@pytest.fixture
async def watched(watch: Watch, make_watched: MakeWatched) -> MultiLevelCache:
    found: MultiLevelCache = await make_watched(watch)
    return found


def parents(span: ReadableSpan, spans: Sequence[ReadableSpan]) -> list[ReadableSpan]:
    """Return the ancestors of *span*, nearest first."""
    by_id = {other.context.span_id: other for other in spans}
    found: list[ReadableSpan] = []
    while span.parent is not None:
        span = by_id[span.parent.span_id]
        found.append(span)
    return found


# ------------------------------------------------------------------------------ spans


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
            f"about bikes question {number % 10}",  # the same words: similar
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
            if span.name == "cache.get":
                assert span.parent.span_id == lookup.context.span_id
            elif span.name in {"cache.embed", "cache.search"}:
                tier, root, _ = parents(span, mine)
                assert tier.attributes["cache.level"] == "l2"
                assert root is lookup
        asked = {s.attributes["cache.level"] for s in mine if s.name == "cache.get"}
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
    similar = await watched.lookup("my password how do I reset", "ann")
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
    }
    tiers = [span.attributes for span in watch.named("cache.get")]
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
    assert set(embedded) == {"cache.get", "cache.invalidate", "cache.put"}


async def test_a_failing_compute_is_the_agents_error(
    watched: MultiLevelCache, watch: Watch
) -> None:
    """What the agent's own function raises reaches it, and is the one span with status ERROR."""

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

    query = cache.parts.keys.query("where is Zanzibar", "ursula", where["context"])
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
    assert {span.name for span in watch.spans} >= {"cache.lookup", "cache.get", "cache.embed"}
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
    for name in (("cache.embed", None), ("cache.get", "l2"), ("cache.lookup", None)):
        span = by_name[name]
        assert span.status.status_code is StatusCode.UNSET
        assert span.attributes["cache.outcome"] == "error"
        assert span.attributes["error.type"] == "ConnectionResetError"
        (event,) = span.events
        assert event.name == names.EVENT_FAILED
        assert dict(event.attributes) == {"error.type": "ConnectionResetError"}
        assert "secret-host" not in span.to_json()
    assert by_name["cache.lookup", None].attributes["cache.reason"] == "backend_error"
    assert not by_name["cache.get", "l1"].events


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
        assert tier.name == "cache.get"
        assert [ancestor.name for ancestor in above] == ["cache.lookup", "agent"]
        assert tier.start_time <= span.start_time <= tier.end_time, "its lookup had ended"


async def test_an_outage_does_not_go_on_in_the_first_ones_trace(
    redis_spans: None, watch: Watch, tmp_path: Path
) -> None:
    """What the cache does in the background belongs to no agent's trace."""
    cache = MultiLevelCache(
        f"redis://127.0.0.1:{servers.free_port()}",
        embedding_model=HashEmbedder(),
        instruments=watch.instruments,
        settings=Settings(dir=tmp_path),
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


# ------------------------------------------------------------------------------ metrics


async def scripted_mix(
    cache: MultiLevelCache, embedder: HashEmbedder, clock: ManualClock | None = None
) -> None:
    """Cause every outcome, and many reasons."""
    await cache.put(
        "how do I reset my password", "ann", "Click the link.", "account", [{"id": "a"}]
    )
    for message in ("how do I reset my password", "reset my password how do I", "is it raining"):
        await cache.lookup(message, "ann")
        await cache.get_multilevel(message, "bob")
    await cache.put("opening hours", "ann", None, "hours", [{"id": "h"}])
    await cache.lookup("opening hours", "ann")
    await cache.lookup("opening hours", None)
    await cache.get_multilevel("opening hours", "ann")
    await cache.lookup("and tomorrow", "ann", history=["opening hours"])
    await cache.lookup("word " * 300, "ann")
    await cache.lookup("", "ann")
    await cache.lookup("x" * 40_000, "ann")
    await cache.put("no one asked this", None, "private, so not kept")
    order = "please ship {} of the very light red mountain bikes with the wide black tyres to me"
    await cache.put(order.format(2), "ann", "Two are on their way.", shared=True)
    await cache.lookup(order.format(2), "bob")
    await cache.lookup(order.format(3), "bob")
    await cache.get_or_compute("what is a derailleur", "ann", lambda: "It shifts.", cost_usd=1.5)
    await asyncio.gather(
        *(cache.get_or_compute("slow one", "ann", _slowly) for _ in range(3))
    )  # fmt: skip
    await cache.lookup("what is a derailleur", "ann")
    await cache.invalidate("what is a derailleur")
    await cache.lookup("what is a derailleur", "ann")
    embedder.failure = OSError("gone")
    await cache.lookup("broken now", "ann")
    await cache.lookup("opening hours", "ann")
    await cache.put("broken now", "ann", "not in L2")
    embedder.failure = None
    cancelled = asyncio.ensure_future(cache.lookup("nobody waits for this", "ann"))
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    if clock is not None:
        clock.advance(4_000)
        await cache.lookup("how do I reset my password", "ann")


async def _slowly() -> str:
    await asyncio.sleep(0.02)
    return "slow"


async def test_metrics_equal_the_counts(
    make_watched: MakeWatched, watch: Watch, embedder: HashEmbedder, clock: ManualClock,
    store_kind: str,
) -> None:  # fmt: skip
    """After a scripted mix every metric is exactly what `cache.metrics` counted."""
    aged = clock if store_kind == "embedded" else None
    cache: MultiLevelCache = await make_watched(watch, clock=aged, semantic_threshold=0.9)
    await scripted_mix(cache, embedder, aged)
    stats = cache.metrics
    assert all(stats.outcomes[outcome] for outcome in OUTCOMES)
    assert stats.cancelled == 1

    for outcome in OUTCOMES:
        assert watch.value(names.LOOKUPS, outcome) == stats.outcomes[outcome]
        assert (
            watch.value(names.LOOKUP_SECONDS, outcome, suffix="_count") == stats.outcomes[outcome]
        )
    for level in LEVELS:
        assert watch.value(names.HITS, level) == stats.hits[level]
        assert watch.value(names.MISSES, level) == stats.misses[level]
        asked = stats.hits[level] + stats.misses[level] + stats.errors[level]
        assert watch.value(names.LATENCY, level, suffix="_count") == asked
        assert watch.value(names.ENTRY_AGE, level, suffix="_count") == stats.hits[level]
        assert watch.value(names.SAVED, level) == pytest.approx(stats.saved_usd[level])
        for reason in MISS_REASONS:
            found = watch.value(names.MISS_REASONS, level, reason)
            assert found == stats.miss_reasons[level, reason], (level, reason)
        for reason in ERROR_REASONS:
            assert watch.value(names.ERRORS, level, reason) == stats.error_reasons[level, reason]
        for outcome in ("stored", "dropped", "bypass"):
            assert watch.value(names.PUTS, level, outcome) == stats.puts[level, outcome]
    assert watch.value(names.COST_SAVED) == pytest.approx(stats.cost_saved_usd)
    assert sum(watch.value(names.CANCELLED, level) or 0 for level in LEVELS) == stats.cancelled
    assert watch.value(names.FLIGHT_JOINS) == 2
    assert watch.value(names.GUARD_VETOES, "numbers") == 1
    assert watch.value(names.INVALIDATIONS, "message") == 1
    lookups = stats.hits["l2"] + stats.misses["l2"]
    similar = [watch.value(names.SIMILARITY, o, suffix="_count") or 0 for o in ("hit", "miss")]
    assert similar[0] == stats.hits["l2"]
    assert 0 < sum(similar) <= lookups
    assert all((stats.misses["l1"], stats.misses["l4"], stats.hits["l3"], stats.errors["l2"]))


async def test_embeddings_cost_what_they_are_said_to(
    make_watched: MakeWatched, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every embedding is spent money: in the counter, and off the net savings."""
    monkeypatch.setenv("CACHE_EMBEDDING_USD", "0.25")
    cache: MultiLevelCache = await make_watched(watch)
    await cache.put("is it raining", "ann", "yes", cost_usd=10)
    await cache.lookup("raining is it", "ann")
    assert watch.value(names.SPENT, "embedding") == 0.5
    assert cache.metrics.spent_usd == 0.5
    assert watch.value(names.COST_SAVED) == cache.metrics.cost_saved_usd == 9.5


async def test_all_children_exist_before_the_first_lookup(
    make_watched: MakeWatched, watch: Watch, embedder: HashEmbedder
) -> None:
    """Every counter starts at 0 with all its labels, so that no first increment is lost."""
    cache = await make_watched(watch)
    before = watch.samples("counter", "histogram")
    assert {name for name, _ in before} >= {
        metric.name for metric in names.METRICS if metric.kind == "counter"
    }
    for metric in names.METRICS:
        if metric.kind == "gauge":
            assert (
                any(name == metric.name for name, _ in watch.samples("gauge"))
                or metric is names.ENTRIES
            )
    for family in watch.registry.collect():
        for sample in family.samples:
            assert sample.labels["cache"] == NAMESPACE
            if family.type == "counter" and sample.name.endswith("_total"):
                assert sample.value == 0, sample
    for metric in (names.HITS, names.MISSES, names.SAVED, names.CANCELLED):
        assert all(watch.value(metric, level) == 0 for level in LEVELS)
    for reason in MISS_REASONS:
        assert all(watch.value(names.MISS_REASONS, level, reason) == 0 for level in LEVELS)
    for reason in ERROR_REASONS:
        assert all(watch.value(names.ERRORS, level, reason) == 0 for level in LEVELS)

    await scripted_mix(cache, embedder)
    await cache.invalidate_document("a")
    await cache.invalidate_tag("a")
    await cache.forget_user("ann")
    assert watch.samples("counter", "histogram") == before


async def test_gauges_say_how_it_is(
    make_watched: MakeWatched, watch: Watch, store_kind: str
) -> None:
    """Backends, breakers, TTLs, threshold and build are there as soon as the cache is open."""
    await make_watched(watch, semantic_threshold=0.9)
    for backend in (store_kind, "chroma", "embedder"):
        assert watch.value(names.BACKEND_UP, backend) == 1
        assert watch.value(names.BREAKER_STATE, backend) == 0
    shown = {label for name, labels in watch.samples("gauge") for label in labels if "up" in name}
    assert {value for label, value in shown if label == "backend"} <= {
        "redis", "embedded", "chroma", "embedder",
    }  # fmt: skip
    assert [watch.value(names.TTL_SECONDS, level) for level in LEVELS] == [
        3600,
        86400,
        21600,
        43200,
    ]
    assert watch.value(names.SEMANTIC_THRESHOLD) == 0.9
    assert watch.value(names.HIT_RATE_OBJECTIVE) == 0.6
    assert watch.value(names.TUNING_VERSION) == 0
    assert watch.value(names.INVALIDATIONS_PENDING) == 0
    assert watch.value(names.COST_SAVED) == 0
    from cache_core import __version__

    assert watch.value(names.BUILD_INFO, __version__) == 1


async def test_a_closed_cache_has_no_backends(
    make_watched: MakeWatched, watch: Watch, store_kind: str
) -> None:
    """After `close` nothing says that a backend is up, and what was counted stays; `open` returns."""
    cache: MultiLevelCache = await make_watched(watch)
    before = time.time()
    await cache.lookup("is it raining", "ann")
    await cache.close()
    gone = (names.BACKEND_UP, names.BREAKER_STATE, names.ENTRIES, names.START_TIME)
    shown = {name for name, _ in watch.samples("gauge")}
    assert not shown & {metric.name for metric in gone}
    assert watch.value(names.LOOKUPS, "miss") == 1

    await cache.initialize()
    assert watch.value(names.BACKEND_UP, store_kind) == 1
    started = watch.value(names.START_TIME)
    assert started is not None
    assert before <= started <= time.time()


async def test_changes_of_the_tuning_are_counted(watch: Watch) -> None:
    """Applied and refused ones, each on its own."""
    metrics = watch.instruments[0]
    for outcome in ("applied", "applied", "rejected"):
        metrics.record(CacheCall("tune", outcome=outcome))
    assert watch.value(names.TUNING_CHANGES) == 2
    assert watch.value(names.TUNING_REJECTED) == 1


async def test_an_answer_past_its_ttl_is_counted(watch: Watch) -> None:
    """Each hit whose tier says that it is stale counts, and no other."""
    metrics = watch.instruments[0]
    for stale in (False, True):
        part = CacheCall("get", "l1", "hit", age_seconds=3_601.0, ttl_seconds=3_600.0, stale=stale)
        metrics.record(CacheCall("lookup", "l1", "hit", calls=[part]))
    assert watch.value(names.STALE_HITS) == 1


async def test_an_entrys_own_ttl_is_the_one_in_its_span(
    make_watched: MakeWatched, watch: Watch
) -> None:
    """An entry put with `ttl=` is told with it, and is not stale before it."""
    cache: MultiLevelCache = await make_watched(watch)
    await cache.put("is it raining", "ann", "yes", ttl=50_000)
    watch.exporter.clear()
    await cache.lookup("is it raining", "ann")
    (tier,) = watch.named("cache.get")
    assert tier.attributes["cache.ttl_seconds"] == 50_000
    assert watch.value(names.STALE_HITS) == 0


async def test_two_caches_count_into_one_registry(make_cache: CacheFactory) -> None:
    """Namespaces are kept apart by the label; instruments of a registry share its metrics."""
    registry = CollectorRegistry()
    one = await make_cache(namespace="one", instruments=[PrometheusInstrument("one", registry)])
    two = await make_cache(namespace="two", instruments=[PrometheusInstrument("two", registry)])
    await one.lookup("is it raining", "ann")
    await two.lookup("is it raining", "ann")
    await two.lookup("is it snowing", "ann")
    for cache, count in (("one", 1), ("two", 2)):
        labels = {"cache": cache, "outcome": "miss"}
        assert registry.get_sample_value(names.LOOKUPS.name, labels) == count


def exemplars(registry: CollectorRegistry) -> list[tuple[str, dict[str, str]]]:
    return [
        (sample.name, sample.exemplar.labels)
        for family in registry.collect()
        for sample in family.samples
        if sample.exemplar
    ]


@pytest.mark.parametrize("inside", [True, False])
async def test_exemplars_lead_to_the_lookups_span(
    watched: MultiLevelCache, watch: Watch, inside: bool
) -> None:
    """A latency's exemplar is the id of its own lookup, whether or not the agent has a span."""
    if inside:
        with watch.agent.start_as_current_span("agent"):
            await watched.lookup("is it raining", "ann")
    else:
        await watched.lookup("is it raining", "ann")
    (lookup,) = watch.named("cache.lookup")
    (embed,) = watch.named("cache.embed")
    ids = [
        {
            "trace_id": format_trace_id(span.context.trace_id),
            "span_id": format_span_id(span.context.span_id),
        }
        for span in (lookup, embed)
    ]
    found = exemplars(watch.registry)
    assert {name for name, _ in found} == {
        "cache_latency_seconds_bucket", "cache_lookup_seconds_bucket",
        "cache_embedding_seconds_bucket",
    }  # fmt: skip
    for name, labels in found:
        assert labels == ids["embedding" in name]
    assert ids[0]["trace_id"] in generate_openmetrics(watch.registry).decode()


async def test_no_exemplars_of_spans_that_nobody_can_find(make_watched: MakeWatched) -> None:
    """Sampled out means no exemplar."""
    watch = Watch(ALWAYS_OFF)
    cache = await make_watched(watch)
    with watch.agent.start_as_current_span("agent"):
        await cache.lookup("is it raining", "ann")
    assert exemplars(watch.registry) == []
    assert watch.value(names.LOOKUPS, "miss") == 1


def test_buckets_reach_from_a_tenth_of_a_millisecond_to_the_budget(watch: Watch) -> None:
    """Latencies have buckets from 0.1 ms to 2.5 s."""
    for metric in (names.LATENCY, names.LOOKUP_SECONDS, names.EMBEDDING_SECONDS):
        bounds = {
            float(sample.labels["le"])
            for family in watch.registry.collect()
            for sample in family.samples
            if sample.name == f"{metric.name}_bucket"
        }
        finite = sorted(bounds - {float("inf")})
        assert (finite[0], finite[-1], len(finite)) == (0.0001, 2.5, 14)


# ------------------------------------------------------------------------------ robustness


class _Broken:
    """An instrument that breaks wherever it can."""

    detailed = True

    def __init__(self, *, opens: bool) -> None:
        self._opens = opens

    def scope(self, operation: str, level: str | None) -> Any:
        if self._opens:
            return self
        raise RuntimeError("cannot open")

    def close(self, call: CacheCall) -> None:
        raise RuntimeError("cannot close")

    def record(self, call: CacheCall) -> None:
        raise RuntimeError("cannot record")

    def report(self, state: CacheState) -> None:
        raise RuntimeError("cannot report")


@pytest.mark.parametrize("opens", [True, False])
async def test_a_broken_instrument_hurts_nobody(
    make_cache: CacheFactory, watch: Watch, caplog: pytest.LogCaptureFixture, opens: bool
) -> None:
    """Lookups answer, the other instruments go on, and the log has a line or two, not hundreds."""
    cache = await make_cache(
        namespace=NAMESPACE,
        instruments=[_Broken(opens=opens), *watch.instruments],
        settings={**PATIENT, "hedge_delay": 5.0},
    )
    with caplog.at_level(logging.WARNING, "glasscache"):
        await cache.put("is it raining", "ann", "yes")
        for _ in range(100):
            assert await cache.get_multilevel("is it raining", "ann") == "yes"
    assert cache.metrics.l1_hits == 100
    assert watch.value(names.HITS, "l1") == 100
    assert len(watch.named("cache.lookup")) == 100
    lines = [record for record in caplog.records if "is broken" in record.getMessage()]
    assert len(lines) <= 5
    if lines:
        assert "_Broken" in lines[0].getMessage()


async def test_metrics_are_served_on_loopback(watched: MultiLevelCache, watch: Watch) -> None:
    """`serve_metrics` answers with the text format, on 127.0.0.1 alone."""
    await watched.lookup("is it raining", "ann")
    port, stop = serve_metrics(0, registry=watch.registry)
    try:
        url = f"http://127.0.0.1:{port}/metrics"
        with await asyncio.to_thread(urllib.request.urlopen, url, timeout=5) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain")
            text = answer.read().decode()
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.2", port), timeout=1)
    finally:
        stop()
    assert f'cache_lookups_total{{cache="{NAMESPACE}",outcome="miss"}} 1.0' in text
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=1)


IMPORT = """
import sys, threading, time, socket, json

sockets = []
class Noted(socket.socket):
    def __init__(self, *args, **kwargs):
        sockets.append(args)
        super().__init__(*args, **kwargs)
socket.socket = Noted

started = time.process_time()
import cache_core
seconds = time.process_time() - started

from opentelemetry import trace
from prometheus_client import REGISTRY

heavy = ("torch", "sentence_transformers", "chromadb", "numpy", "onnxruntime", "telemetry",
         "opentelemetry.sdk", "streamlit", "pandas", "redis")
print(json.dumps({
    "seconds": seconds,
    "loaded": [name for name in heavy if name in sys.modules],
    "threads": threading.active_count(),
    "sockets": len(sockets),
    "provider": type(trace.get_tracer_provider()).__name__,
    "ours": [family.name for family in REGISTRY.collect() if family.name.startswith("cache_")],
}))
"""


def test_import_has_no_side_effects(tmp_path: Path) -> None:
    """`import cache_core` loads nothing heavy, opens nothing, registers nothing."""
    found = json.loads(snippets.run(IMPORT, tmp_path))
    # 0.25 s of CPU; the limit leaves room for a busy core.
    assert found.pop("seconds") < 3
    assert found == {
        "loaded": [],
        "threads": 1,
        "sockets": 0,
        "provider": "ProxyTracerProvider",
        "ours": [],
    }


APPLICATION = """
import asyncio, json
import telemetry, dashboard
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import REGISTRY, generate_latest
from cache_core import MultiLevelCache
from cache_core.testing import HashEmbedder

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)

async def main():
    async with MultiLevelCache(embedding_model=HashEmbedder()) as cache:
        await cache.put("is it raining", "ann", "yes")
        with trace.get_tracer("agent").start_as_current_span("agent"):
            return await cache.get_multilevel("is it raining", "ann")

answer = asyncio.run(main())
spans = {span.name: span for span in exporter.get_finished_spans()}
print(json.dumps({
    "answer": answer,
    "own": [telemetry.OWN, dashboard.OWN],
    "hits": REGISTRY.get_sample_value("cache_hits_total", {"cache": "default", "level": "l1"}),
    "served": b"cache_build_info" in generate_latest(),
    "nested": spans["cache.lookup"].parent.span_id == spans["agent"].context.span_id,
}))
"""


def test_an_application_may_have_modules_of_our_names(tmp_path: Path) -> None:
    """With a telemetry.py and a dashboard.py of its own the cache works and is still observed."""
    for name in ("telemetry", "dashboard"):
        (tmp_path / f"{name}.py").write_text("OWN = True\n")
    assert json.loads(snippets.run(APPLICATION, tmp_path)) == {
        "answer": "yes",
        "own": [True, True],
        "hits": 1,
        "served": True,
        "nested": True,
    }


def test_telemetry_imports_no_sdk() -> None:
    """No module of ours imports the OpenTelemetry SDK by itself: that is up to the application."""
    root = Path(__file__).parent.parent
    pattern = re.compile(r"^\s*(from|import)\s+opentelemetry\.(sdk|exporter)", re.MULTILINE)
    modules = [*root.glob("cache_core/**/*.py"), *root.glob("telemetry/**/*.py")]
    found = [path.relative_to(root) for path in modules if pattern.search(path.read_text())]
    assert found == [Path("telemetry/exporters.py")]
    # There it is inside of what the application calls, and for type checkers.
    source = (root / found[0]).read_text()
    at_top = re.compile(r"^(from|import)\s+opentelemetry\.(sdk|exporter)", re.MULTILINE)
    assert not at_top.search(source)
