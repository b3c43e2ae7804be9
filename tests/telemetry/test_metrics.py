"""Prometheus metrics: they equal the cache's counts."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
)
from opentelemetry.trace import format_span_id, format_trace_id
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from cache_core import BackendError, MultiLevelCache
from cache_core.model.values import ERROR_REASONS, LEVELS, MISS_REASONS, OUTCOMES
from cache_core.observability.instruments import Instruments
from cache_core.observability.records import (
    InvalidationRecord,
    LookupRecord,
    TierRecord,
    TuneRecord,
    VerificationRecord,
)
from cache_core.testing import HashEmbedder, ManualClock
from telemetry import PrometheusInstrument, current_registry, names, registry
from tests.support.observing import NAMESPACE, CacheFactory, MakeWatched, Watch


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


@pytest.mark.slow
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
            found = watch.value(names.MISS_REASONS, level, reason) or 0
            assert found == stats.miss_reasons[level, reason], (level, reason)
        for reason in ERROR_REASONS:
            found = watch.value(names.ERRORS, level, reason) or 0
            assert found == stats.error_reasons[level, reason], (level, reason)
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


@pytest.mark.slow
async def test_all_children_exist_before_the_first_lookup(
    make_watched: MakeWatched, watch: Watch, embedder: HashEmbedder
) -> None:
    """Every counter starts at 0 with all its labels, so that no first increment is lost."""
    cache = await make_watched(watch)
    before = watch.samples("counter", "histogram")
    assert {name for name, _ in before} >= {
        metric.name for metric in names.METRICS if metric.kind == "counter"
    } - {names.INTENT_ANSWERS.name, names.APPROVALS.name}
    for metric in names.METRICS:
        if metric.kind == "gauge":
            assert any(name == metric.name for name, _ in watch.samples("gauge")) or metric in {
                names.ENTRIES,
                names.REDIS_SERVER,
            }
    for family in watch.registry.collect():
        for sample in family.samples:
            assert sample.labels["cache"] == NAMESPACE
            if family.type == "counter" and sample.name.endswith("_total"):
                assert sample.value == 0, sample
    for metric in (names.HITS, names.MISSES, names.SAVED, names.CANCELLED):
        assert all(watch.value(metric, level) == 0 for level in LEVELS)
    for metric, reasons in ((names.MISS_REASONS, MISS_REASONS), (names.ERRORS, ERROR_REASONS)):
        for reason in reasons:
            found = [level for level in LEVELS if watch.value(metric, level, reason) == 0]
            assert found in (["l2"], list(LEVELS)), reason
            assert reason != "below_threshold" or found == ["l2"], "no other tier can report it"
    assert not any(name.endswith("_created") for name, _ in watch.samples("counter", "histogram"))

    await scripted_mix(cache, embedder)
    await cache.invalidate_document("a")
    await cache.invalidate_tag("a")
    await cache.forget_user("ann")
    came = watch.samples("counter", "histogram") - before
    expected = {names.PUT_REASONS.name, names.INTENT_ANSWERS.name}
    assert {name for name, _ in came} == expected, "only those come when needed"
    assert before <= watch.samples("counter", "histogram")
    series = watch.samples("counter", "gauge", "histogram")
    assert len(series) < 570, "each replica pays for each series; see docs/telemetry.md"


@pytest.mark.parametrize("store_kind", ["embedded"], indirect=True)
async def test_the_applications_own_functions_are_timed(
    make_watched: MakeWatched, watch: Watch, store_kind: str
) -> None:
    """Calls of `compute` are counted by how they ended, once for all who wait; searches apart."""
    cache = await make_watched(watch)

    def fail(error: type[Exception]) -> Any:
        def compute() -> str:
            raise error

        return compute

    await asyncio.gather(*(cache.get_or_compute("slow one", "ann", _slowly) for _ in range(3)))
    for number, error in enumerate(
        (LookupError, TimeoutError, type("ReadTimeout", (Exception,), {}))
    ):
        with pytest.raises(error):
            await cache.get_or_compute(f"question {number}", "ann", fail(error))
    found = [
        watch.value(names.COMPUTE_SECONDS, outcome, suffix="_count")
        for outcome in ("ok", "error", "timeout")
    ]
    assert found == [1, 1, 2]
    searched = watch.value(names.SEARCH_SECONDS, suffix="_count")
    assert searched == len(watch.named("cache.search")) > 0


async def test_a_check_of_a_hit_is_timed_whatever_it_costs(
    make_watched: MakeWatched, watch: Watch
) -> None:
    """A background check has an outcome and a duration, also when it raises."""
    instrument = watch.instruments[0]
    instrument.record(VerificationRecord(0.0, "ok", 0.2))
    instrument.record(VerificationRecord(0.0, "timeout", 3.0))
    instrument.count()
    for outcome in ("ok", "timeout"):
        assert watch.value(names.VERIFICATION_SECONDS, outcome, suffix="_count") == 1


async def test_a_loop_that_stands_still_is_seen(make_watched: MakeWatched, watch: Watch) -> None:
    """Code that blocks the event loop shows as its lag in the next report."""
    await make_watched(watch)
    blocked = time.monotonic() + 0.4
    while time.monotonic() < blocked:
        pass
    async with asyncio.timeout(20):
        while (watch.value(names.EVENT_LOOP_LAG) or 0) < 0.1:
            await asyncio.sleep(0.01)


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


@pytest.mark.slow
async def test_a_breaker_that_opens_and_closes_between_two_reports_is_counted(
    make_watched: MakeWatched, watch: Watch, store_kind: str
) -> None:
    """The gauge never shows it; the counter does, and goes on when the cache is opened again."""
    cache: MultiLevelCache = await make_watched(watch)
    for opened in (1, 2):
        assert watch.value(names.BREAKER_TRANSITIONS, store_kind, "open") == opened - 1
        breaker = cache._parts.store.breaker
        for _ in range(cache.settings.breaker_failures):
            breaker.fail(ConnectionError("away"))
        assert breaker.state == "open"
        while breaker.state != "closed":
            await cache.lookup("is it raining", "ann")
            await asyncio.sleep(0.01)
        async with asyncio.timeout(5):
            while watch.value(names.BREAKER_TRANSITIONS, store_kind, "closed") != opened:
                await asyncio.sleep(0.05)
        assert watch.value(names.BREAKER_TRANSITIONS, store_kind, "open") == opened
        assert watch.value(names.BREAKER_TRANSITIONS, "chroma", "open") == 0
        await cache.close()
        await cache.initialize()


async def test_the_hit_rate_of_an_intent_is_counted(
    make_watched: MakeWatched, watch: Watch
) -> None:
    """An answer counts for an intent that the tuning names, by who gave it; the rest together."""
    named = ["faq", *(f"intent_{number:02}" for number in range(40))]
    cache = await make_watched(watch, shared_intents=named)
    for _ in range(2):
        await cache.put("alpha", "ann", "answer", "faq")
        await cache.lookup("alpha", "ann")
    for number in range(40):
        await cache.put(f"message {number}", "ann", "answer", f"intent_{number:02}")
    await cache.put("beta", "ann", "answer", "ursulas_wedding")
    assert [watch.value(names.INTENT_ANSWERS, "faq", origin) for origin in ("agent", "cache")] == [
        2, 2,
    ]  # fmt: skip
    assert watch.value(names.INTENT_ANSWERS, "intent_30", "agent") == 1
    assert watch.value(names.INTENT_ANSWERS, "*", "agent") == 10
    assert "ursulas" not in generate_openmetrics(watch.registry).decode()


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
    metrics.record(TuneRecord("applied", 1))
    metrics.record(TuneRecord("applied", 2))
    metrics.record(TuneRecord("rejected", 2))
    assert watch.value(names.TUNING_CHANGES) == 2
    assert watch.value(names.TUNING_REJECTED) == 1


def test_an_invalidation_that_fails_is_counted_by_its_kind(watch: Watch) -> None:
    """The reason of a backend's failure does not replace the kind of an invalidation."""
    with (
        pytest.raises(BackendError),
        Instruments(watch.instruments).operation(InvalidationRecord("tag")),
    ):
        raise BackendError("timeout")
    assert watch.value(names.INVALIDATIONS, "tag") == 1
    (span,) = watch.named("cache.invalidate")
    assert span.attributes is not None
    assert span.attributes[names.ATTRIBUTE_REASON] == "timeout"


async def test_an_answer_past_its_ttl_is_counted(watch: Watch) -> None:
    """Each hit whose tier says that it is stale counts, and no other."""
    metrics = watch.instruments[0]
    for stale in (False, True):
        part = TierRecord(
            "l1", outcome="hit", age_seconds=3_601.0, ttl_seconds=3_600.0, stale=stale
        )
        metrics.record(LookupRecord("a-1", 1, "l1", outcome="hit", calls=[part]))
    assert watch.value(names.STALE_HITS) == 1


async def test_an_entrys_own_ttl_is_the_one_in_its_span(
    make_watched: MakeWatched, watch: Watch
) -> None:
    """An entry put with `ttl=` is reported with it, and is not stale before it."""
    cache: MultiLevelCache = await make_watched(watch)
    await cache.put("is it raining", "ann", "yes", ttl=50_000)
    watch.exporter.clear()
    await cache.lookup("is it raining", "ann")
    (tier,) = watch.named("cache.get l1")
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


# ------------------------------------------------------------------------------ closed caches


@pytest.mark.slow
async def test_the_series_of_closed_caches_go(
    make_cache: CacheFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All open caches are shown, and of forty closed ones the last, with its counts, for a while."""

    def shown() -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for family in current_registry().collect():
            for sample in family.samples:
                if sample.labels.get("cache", "").startswith("tenant"):
                    found.setdefault(sample.labels["cache"], []).append(sample)
        return found

    both = [
        await make_cache(settings={"tiers": "l1"}, instruments=None, namespace="tenant")
        for _ in range(2)
    ]
    for number in range(40):
        cache = await make_cache(
            settings={"tiers": "l1"}, instruments=None, namespace=f"tenant{number}"
        )
        await cache.lookup("alpha", "ann")
        await cache.close()
    await both[0].close()
    found = shown()
    assert set(found) == {"tenant", "tenant39"}
    (lookups,) = [
        sample.value for sample in found["tenant39"]
        if sample.name == "cache_lookups_total" and sample.labels["outcome"] == "miss"
    ]  # fmt: skip
    assert lookups == 1
    assert set(shown()) == {"tenant", "tenant39"}
    await both[0].initialize()
    await both[1].close()
    await both[0].lookup("alpha", "ann")
    monkeypatch.setattr(registry, "CLOSED_SECONDS", 0.0)
    await both[0].close()
    assert set(shown()) == set()
