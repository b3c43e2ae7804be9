"""The documented API: its snippets run as an application would paste them, with the real model."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

import cache_core.multilevel_cache
from cache_core import ConfigurationError, MultiLevelCache, Settings, close_cache, get_cache
from cache_core.backends.embedder.pool import ThreadEmbedder
from cache_core.testing import HashEmbedder, ManualClock
from tests.support import processes, servers

CONSTANTS = ("L1_TTL", "L2_TTL", "L3_TTL", "L4_TTL", "SEMANTIC_THRESHOLD")


@pytest.fixture
def environment(
    store_kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch,
    _clean_environment: None,
) -> None:  # fmt: skip
    """REDIS_URL as an application sets it, or nothing: the embedded default."""
    if store_kind == "redis":
        monkeypatch.setenv("REDIS_URL", request.getfixturevalue("empty_redis"))


@pytest.fixture
async def documented(environment: None, real_embedder: ThreadEmbedder) -> AsyncIterator[None]:
    """The documented set-up; the shared cache is closed afterwards."""
    yield
    await close_cache()


@pytest.fixture(autouse=True)
def _patient(_clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in processes.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(autouse=True)
def _constants_restored() -> Iterator[None]:
    module = cache_core.multilevel_cache
    kept = {name: getattr(module, name) for name in CONSTANTS}
    yield
    for name, value in kept.items():
        setattr(module, name, value)


class Llm:
    """Stands for the application's own functions, and counts their calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def classify_intent(self, message: str) -> str:
        self.calls.append("classify")
        return "account_help"

    async def retrieve_documents(self, message: str) -> list[dict[str, str]]:
        self.calls.append("retrieve")
        return [{"id": "kb-7", "text": "Use the reset link."}]

    async def generate(self, message: str, user_id: str, documents: object) -> str:
        self.calls.append("generate")
        return f"{user_id}: use the reset link."


async def test_the_documented_agent(documented: None) -> None:
    """The second call of the documented agent is identical and comes from the cache."""
    llm = Llm()

    # --- the documented snippet ---
    from cache_core import get_cache

    async def process_message(message: str, user_id: str) -> str:
        cache = await get_cache()

        cached = await cache.get_multilevel(message, user_id)
        if cached:
            return cached

        intent = await llm.classify_intent(message)
        documents = await llm.retrieve_documents(message)
        response = await llm.generate(message, user_id, documents)

        await cache.put(
            message=message,
            user_id=user_id,
            response=response,
            intent=intent,
            rag_results=documents,
        )
        return response

    # --- end of the snippet ---

    first = await process_message("How do I reset my password?", "user_123")
    second = await process_message("How do I reset my password?", "user_123")
    assert first == second == "user_123: use the reset link."
    assert llm.calls == ["classify", "retrieve", "generate"]
    cache = await get_cache()
    assert (cache.metrics.l1_hits, cache.metrics.l1_misses) == (1, 1)

    other = await process_message("How do I reset my password?", "user_456")
    assert other == "user_456: use the reset link.", "private unless said otherwise"


async def test_a_question_that_means_the_same(documented: None) -> None:
    """Another wording of the same user's question is answered by L2."""
    cache = await get_cache()
    await cache.ready()
    await cache.put(
        message="How do I reset my password?", user_id="user_123", response="Use the reset link."
    )
    assert await cache.get_multilevel("How can I reset my password?", "user_123") == (
        "Use the reset link."
    )
    assert cache.metrics.l2_hits == 1
    assert await cache.get_multilevel("How can I reset my password?", "user_456") is None
    assert await cache.get_multilevel("How do I delete my account?", "user_123") is None


async def test_warm_cache_serves_everybody(documented: None) -> None:
    """Answers that the operator warmed are for all users, also in other words."""
    cache = await get_cache()
    stored = await cache.warm_cache([
        ("What are your business hours?", "generic_user", "We are open from 9 to 5."),
        ("How do I cancel my subscription?", "generic_user", "In your account settings."),
    ])  # fmt: skip
    assert stored == 2
    for user in ("user_123", "user_456", None):
        assert await cache.get_multilevel("What are your business hours?", user) == (
            "We are open from 9 to 5."
        )
    assert await cache.get_multilevel("What are your business hours, please?", "user_789") == (
        "We are open from 9 to 5."
    )
    assert (cache.metrics.l1_hits, cache.metrics.l2_hits) == (3, 1)


async def test_invalidate(documented: None) -> None:
    """`invalidate(query)` removes the answer for all users and tiers, in all wordings."""
    cache = await get_cache()
    await cache.ready()
    question, reworded = "How do I reset my password?", "How can I reset my password?"
    for user in ("user_123", "user_456"):
        await cache.put(question, user, f"for {user}", "account_help", [{"id": "kb-7"}])
    await cache.put(reworded, "user_123", "reworded")

    removed = await cache.invalidate(question)

    assert removed.complete
    assert removed.removed > 0
    for user in ("user_123", "user_456"):
        for message in (question, reworded):
            result = await cache.lookup(message, user)
            assert (result.response, result.intent, result.rag_results) == (None, None, None)
    assert (await cache.invalidate("Nobody ever asked this")).removed == 0
    await cache.put(question, "user_123", "new")
    assert await cache.get_multilevel(question, "user_123") == "new"


async def test_get_metrics(documented: None) -> None:
    """The dictionary has the documented keys, with rates in percent, and is JSON."""
    cache = await get_cache()
    await cache.put("How do I reset my password?", "user_123", "Use the reset link.")
    await cache.get_multilevel("How do I reset my password?", "user_123")
    await cache.get_multilevel("How do I reset my password?", "user_123")
    await cache.get_multilevel("Where is the nearest shop?", "user_123")
    await cache.get_multilevel("How do I reset my password?", "user_456")

    # --- the documented snippet ---
    metrics = cache.get_metrics()
    print(f"Overall hit rate: {metrics['hit_rates']['overall']:.1f}%")
    print(f"L1: {metrics['hit_rates']['l1']:.1f}%  L2: {metrics['hit_rates']['l2']:.1f}%")
    print(f"L3: {metrics['hit_rates']['l3']:.1f}%  L4: {metrics['hit_rates']['l4']:.1f}%")
    print(f"Average latency: {metrics['average_latency_ms']:.2f} ms")
    print(f"Operations: {metrics['operations']}")
    print(f"Cost savings: ${metrics['cost_savings_usd']:.4f}")
    # --- end of the snippet ---

    assert set(metrics["hit_rates"]) == {"overall", "l1", "l2", "l3", "l4"}
    assert all(isinstance(rate, float) for rate in metrics["hit_rates"].values())
    assert metrics["hit_rates"] == {"overall": 50.0, "l1": 50.0, "l2": 0.0, "l3": 0.0, "l4": 0.0}
    assert type(metrics["average_latency_ms"]) is float
    assert metrics["average_latency_ms"] > 0
    assert type(metrics["operations"]) is int
    assert metrics["operations"] == 4
    assert type(metrics["cost_savings_usd"]) is float
    assert metrics["cost_savings_usd"] == pytest.approx(2 * 0.036)
    assert metrics["sharing"]["mode"] == "private"
    assert metrics["sharing"]["other_scope_misses"] == 1
    assert "shared_intents" in metrics["sharing"]["advice"]
    assert json.loads(json.dumps(metrics)) == metrics


async def test_the_metrics_object(documented: None) -> None:
    """`cache.metrics` has a counter per tier and direction; `reset_metrics()` clears them."""
    cache = await get_cache()
    await cache.ready()
    question = "How do I reset my password?"
    await cache.put(question, "user_123", "Use the link.", "account_help", [{"id": "kb-7"}])
    await cache.get_multilevel(question, "user_123")  # l1
    await cache.get_multilevel("How can I reset my password?", "user_123")  # l2
    await cache.get_multilevel(question, "user_456")  # l3: labels are shared
    await cache.get_multilevel("Where is the nearest shop?", "user_123")  # nothing

    counted = {
        f"{level}_{what}": getattr(cache.metrics, f"{level}_{what}")
        for level in ("l1", "l2", "l3", "l4")
        for what in ("hits", "misses")
    }
    assert counted == {
        "l1_hits": 1, "l1_misses": 3, "l2_hits": 1, "l2_misses": 2,
        "l3_hits": 1, "l3_misses": 1, "l4_hits": 0, "l4_misses": 2,
    }  # fmt: skip
    assert cache.metrics.cost_saved_usd == pytest.approx(2 * 0.036)

    cache.reset_metrics()
    assert cache.metrics.l1_hits == cache.metrics.l4_misses == 0
    assert cache.metrics.cost_saved_usd == 0
    assert cache.get_metrics()["operations"] == 0
    await cache.get_multilevel(question, "user_123")
    assert cache.metrics.l1_hits == 1


async def test_get_multilevel_returns_responses_only(documented: None) -> None:
    """An intent or documents are never mistaken for a response; `lookup` has them."""
    cache = await get_cache()
    question = "How do I reset my password?"
    await cache.put(question, "user_123", None, "account_help", [{"id": "kb-7"}])
    assert await cache.get_multilevel(question, "user_123") is None
    result = await cache.lookup(question, "user_123")
    assert result.outcome == "partial"
    assert result.intent == "account_help"
    assert result.rag_results == [{"id": "kb-7"}]
    assert result.response is None


async def test_first_use_initialises(documented: None) -> None:
    """Without `initialize()` the first call opens the cache, whichever it is."""
    for call in ("get_multilevel", "put", "invalidate", "warm_cache"):
        cache = MultiLevelCache()
        try:
            if call == "put":
                await cache.put(message="hello", user_id="user_123", response="hi")
            elif call == "warm_cache":
                await cache.warm_cache([("hello", "generic_user", "hi")])
            else:
                await getattr(cache, call)("hello")
            assert cache.is_open, call
        finally:
            await cache.close()


async def test_open_and_close_are_idempotent(documented: None) -> None:
    """Opening and closing twice is harmless, and use opens again what was closed."""
    cache = MultiLevelCache()
    await cache.close()
    await cache.initialize()
    await cache.initialize()
    await cache.put(message="hello", user_id="user_123", response="hi")
    await cache.close()
    await cache.close()
    assert await cache.get_multilevel("hello", "user_123") == "hi"
    await cache.close()
    await close_cache()
    await close_cache()


async def test_one_shared_cache(documented: None) -> None:
    """`get_cache()` returns one initialised instance, until `close_cache()`."""
    first, second = await asyncio.gather(get_cache(), get_cache())
    assert first is second
    assert first.is_open
    await close_cache()
    third = await get_cache()
    assert third is not first


def test_one_cache_per_event_loop(environment: None) -> None:
    """A second `asyncio.run` gets a cache of its own, which finds what the first one stored."""

    async def ask(question: str) -> str | None:
        try:
            cache = await get_cache()
            found = await cache.get_multilevel(question, "user_123")
            await cache.put(message=question, user_id="user_123", response="hi")
            return found
        finally:
            await close_cache()

    assert [asyncio.run(ask("hello")), asyncio.run(ask("hello"))] == [None, "hi"]


def test_both_import_paths() -> None:
    """The documented import path and the short one are the same objects."""
    short = (MultiLevelCache, get_cache, close_cache)
    namespace: dict[str, Any] = {}
    exec(
        "from cache_core.multilevel_cache import MultiLevelCache, get_cache, close_cache", namespace
    )
    assert tuple(namespace[item.__name__] for item in short) == short
    signature = inspect.signature(MultiLevelCache)
    assert list(signature.parameters)[:4] == [
        "redis_url", "redis_pool", "semantic_threshold", "embedding_model",
    ]  # fmt: skip


# ------------------------------------------------------------------------------ configuration


async def test_ttls_from_module_constants(environment: None, clock: ManualClock) -> None:
    """A constant that is changed before `initialize()` is in force; the others are as published."""
    # --- the documented snippet ---
    import cache_core.multilevel_cache

    cache_core.multilevel_cache.L1_TTL = 60
    cache_core.multilevel_cache.L3_TTL = 120
    # --- end of the snippet ---

    async with MultiLevelCache(embedding_model=HashEmbedder(), instruments=()) as cache:
        ttls = [cache.tuning.ttl(level) for level in ("l1", "l2", "l3", "l4")]
        assert ttls == [60, 86_400, 120, 43_200]


async def test_a_shorter_ttl_expires(clock: ManualClock) -> None:
    """With L1_TTL = 60 an answer is served after 59 seconds, and not after 61."""
    cache_core.multilevel_cache.L1_TTL = 60
    cache_core.multilevel_cache.L2_TTL = 60
    async with MultiLevelCache(
        embedding_model=HashEmbedder(), instruments=(), clock=clock
    ) as cache:
        await cache.put("hello there", "user_123", "hi")
        clock.advance(59)
        assert await cache.get_multilevel("hello there", "user_123") == "hi"
        clock.advance(2)
        result = await cache.lookup("hello there", "user_123")
        assert result.response is None
        assert result.reasons[0] == "expired"


async def test_the_constructor_may_come_before_the_constant() -> None:
    """Constants are read by `initialize()`, not when the cache is made."""
    cache = MultiLevelCache(embedding_model=HashEmbedder(), instruments=())
    cache_core.multilevel_cache.SEMANTIC_THRESHOLD = 0.8
    async with cache:
        assert cache.tuning.semantic_threshold == 0.8


async def test_a_constant_out_of_bounds_is_refused() -> None:
    """A senseless constant is named, with its value, at `initialize()`."""
    cache_core.multilevel_cache.L1_TTL = -1
    with pytest.raises(ConfigurationError, match=r"l1_ttl=-1 \(from a module constant\)"):
        await MultiLevelCache(embedding_model=HashEmbedder(), instruments=()).initialize()


@pytest.mark.parametrize(
    ("environment_value", "constant", "argument", "expected"),
    [
        (None, None, None, 0.95),
        ("0.9", None, None, 0.9),
        ("0.9", 0.8, None, 0.8),
        ("0.9", 0.8, 0.7, 0.7),
        (None, 0.8, 0.7, 0.7),
        ("0.9", None, 0.7, 0.7),
    ],
)
async def test_threshold_precedence(
    environment_value: str | None, constant: float | None, argument: float | None,
    expected: float, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The constructor beats the constant, which beats the environment, which beats the default."""
    if environment_value is not None:
        monkeypatch.setenv("SEMANTIC_THRESHOLD", environment_value)
    if constant is not None:
        cache_core.multilevel_cache.SEMANTIC_THRESHOLD = constant
    async with MultiLevelCache(
        semantic_threshold=argument, embedding_model=HashEmbedder(), instruments=()
    ) as cache:
        assert cache.tuning.semantic_threshold == expected


async def test_the_threshold_decides(environment: None) -> None:
    """A question similar enough under one threshold is not under another."""
    for threshold, expected in ((0.6, "hi"), (0.9, None)):
        async with MultiLevelCache(
            semantic_threshold=threshold, embedding_model=HashEmbedder(), instruments=(),
            namespace=f"t{threshold}",
        ) as cache:  # fmt: skip
            await cache.put("apple pear plum cherry", "user_123", "hi")
            assert await cache.get_multilevel("apple pear plum peach", "user_123") == expected


async def test_a_pool_of_ones_own(empty_redis: str) -> None:
    """An application's pool, with `decode_responses=True`, is used and not closed."""
    # --- the documented snippet ---
    pool = redis.asyncio.ConnectionPool.from_url(
        empty_redis, max_connections=20, decode_responses=True
    )
    cache = MultiLevelCache(redis_pool=pool)
    await cache.initialize()
    # --- end of the snippet ---

    await cache.put("Wo ist mein Päckchen? 📦", "user_123", "Unterwegs: 📦", "où", [{"id": 1}])
    assert await cache.get_multilevel("Wo ist mein Päckchen? 📦", "user_123") == "Unterwegs: 📦"
    assert cache.redis_client.connection_pool is pool
    await cache.close()
    client = redis.asyncio.Redis(connection_pool=pool)
    assert await client.ping()
    with servers.admin(empty_redis) as administrator:
        assert administrator.dbsize() > 0
    await pool.disconnect()


async def test_the_clients_are_at_hand(documented: None, store_kind: str) -> None:
    """`redis_client` and `chroma_collection` are the real ones, and None when off."""
    cache = MultiLevelCache()
    assert cache.redis_client is None
    assert cache.chroma_collection is None
    async with cache:
        await cache.warm_cache([("hello there", "generic_user", "hi")])
        if store_kind == "redis":
            assert await cache.redis_client.ping()  # type: ignore[attr-defined]
            assert isinstance(cache.redis_client, redis.asyncio.Redis)
        else:
            assert cache.redis_client is None
        for _ in range(40):  # shared answers are written to Chroma in batches, within a second
            if cache.chroma_collection.count():  # type: ignore[attr-defined]
                break
            await asyncio.sleep(0.05)
        assert cache.chroma_collection.count() == 1  # type: ignore[attr-defined]
    async with MultiLevelCache(settings=Settings(tiers=frozenset({"l1"}))) as small:
        assert small.chroma_collection is None
        await small.put("hello", "user_123", "hi")
        assert await small.get_multilevel("hello", "user_123") == "hi"


async def test_wrong_values_are_explained(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong URL or threshold says which, from where, and what is expected."""
    with pytest.raises(ConfigurationError, match=r"redis_url=.*expected redis://"):
        MultiLevelCache("localhost:6379")
    with pytest.raises(
        ConfigurationError, match=r"semantic_threshold=1.5 \(from the constructor\)"
    ):
        MultiLevelCache(semantic_threshold=1.5)
    monkeypatch.setenv("SEMANTIC_THRESHOLD", "high")
    assert MultiLevelCache().tuning.semantic_threshold == 0.95
    assert "SEMANTIC_THRESHOLD='high' is ignored" in caplog.text


async def test_private_by_default_is_said_once(
    environment: None, caplog: pytest.LogCaptureFixture
) -> None:
    """At start one line says that answers are private, and how to share them."""
    with caplog.at_level(logging.INFO, "glasscache"):
        async with MultiLevelCache(embedding_model=HashEmbedder(), instruments=()):
            pass
        async with MultiLevelCache(
            embedding_model=HashEmbedder(), instruments=(), shared_intents=["faq"], namespace="b"
        ):
            pass
    said = [record.getMessage() for record in caplog.records if "private" in record.getMessage()]
    assert len(said) == 1
    assert "CACHE_SHARED_INTENTS" in said[0]


# ------------------------------------------------------------------------------ Prometheus

DEFINES = """
from prometheus_client import Counter, Gauge, Histogram

cache_hits = Counter('cache_hits_total', 'Total cache hits', ['level'])
cache_misses = Counter('cache_misses_total', 'Total cache misses', ['level'])
cache_latency = Histogram('cache_latency_seconds', 'Cache operation latency', ['level'])
cost_saved = Gauge('cache_cost_saved_usd', 'Total cost saved in USD')
"""

IMPORTS = """
import asyncio, json, logging
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from cache_core import MultiLevelCache
from cache_core.observability.defaults import telemetry
from cache_core.testing import HashEmbedder

class Lines(logging.Handler):
    lines = []
    def emit(self, record):
        if record.levelno >= logging.WARNING:
            self.lines.append(record.getMessage())

logging.getLogger('glasscache').addHandler(Lines())
"""

USES = """
async def main():
    async with MultiLevelCache(embedding_model=HashEmbedder()) as cache:
        await cache.put('is it raining', 'ann', 'yes')
        return [await cache.get_multilevel('is it raining', 'ann') for _ in range(3)]

answers = asyncio.run(main())
"""

REPORTS = """
def families(registry):
    text = generate_latest(registry).decode()
    named = [family.name for family in text_string_to_metric_families(text)]
    assert len(named) == len(set(named)), 'a family is exposed twice'
    return text

ours = {'cache': 'default', 'level': 'l1'}
shown = families(REGISTRY)
shown = families(REGISTRY)
print(json.dumps({
    'answers': answers,
    'default_has_ours': 'cache_lookups_total' in shown,
    'default_hits': REGISTRY.get_sample_value('cache_hits_total', ours),
    'their_hits': REGISTRY.get_sample_value('cache_hits_total', {'level': 'l1'}),
    'our_hits': telemetry().current_registry().get_sample_value('cache_hits_total', ours),
    'complete': all(metric.name.removesuffix('_total') in families(telemetry().current_registry())
                    for metric in telemetry().names.METRICS),
    'is_default': telemetry().current_registry() is REGISTRY,
    'warnings': len(Lines.lines),
    'line': Lines.lines[0] if Lines.lines else '',
}))
"""

THEY_COUNT = "\ncache_hits.labels(level='l1').inc(7)\n"


@pytest.mark.slow
def test_metrics_are_in_the_default_registry(tmp_path: Path) -> None:
    """Without metrics of the application's own, ours are where everybody looks."""
    found = json.loads(processes.run(IMPORTS + USES + REPORTS, tmp_path))
    assert found["answers"] == ["yes"] * 3
    assert found["default_has_ours"]
    assert found["complete"]
    assert found["is_default"]
    assert found["default_hits"] == 3
    assert found["warnings"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "order",
    [
        DEFINES + IMPORTS + THEY_COUNT + USES,
        IMPORTS + USES + DEFINES + THEY_COUNT,
    ],
    ids=["before", "after"],
)
def test_an_applications_own_prometheus_metrics(tmp_path: Path, order: str) -> None:
    """An application defines the four metrics itself: before the cache starts, and after it.

    Nobody gets an exception, each counts what it counts, one line says where ours are.
    """
    found = json.loads(processes.run(order + REPORTS, tmp_path))
    assert found["answers"] == ["yes"] * 3
    assert found["their_hits"] == 7
    assert found["default_hits"] is None
    assert not found["default_has_ours"], "all or nothing: what is served twice is summed twice"
    assert found["our_hits"] == 3
    assert found["complete"]
    assert found["warnings"] == 1
    assert "cache_hits" in found["line"]
    assert "telemetry.serve_metrics(port)" in found["line"]


EVERY_NAME = """
import asyncio, json, logging
from prometheus_client import REGISTRY, Counter, Gauge, Histogram
import telemetry
from telemetry import names, registry

lines = []
class Lines(logging.Handler):
    def emit(self, record):
        lines.append(record.getMessage())
logging.getLogger('glasscache').addHandler(Lines())

kinds = {'counter': Counter, 'gauge': Gauge, 'histogram': Histogram}
failed = []
for metric in names.METRICS:
    suffixes = {'histogram': ('_count', '_bucket'), 'counter': ('', '_created')}
    for name, kind in [(metric.name, metric.kind)] + [
        ((metric.name.removesuffix('_total')) + suffix, 'gauge')
        for suffix in suffixes.get(metric.kind, ())
    ]:
        for when in ('before', 'after'):
            registry._guests.clear()
            for collector in tuple(REGISTRY._collector_to_names):
                REGISTRY.unregister(collector)
            lines.clear()
            own = kinds[kind](name, 'Theirs') if when == 'before' else None
            instrument = telemetry.PrometheusInstrument('shop')
            ours = registry._guests[0].ours
            try:
                own = own or kinds[kind](name, 'Theirs')
            except ValueError as error:
                failed.append((name, when, str(error)))
            found = list(REGISTRY.collect())
            if [family.name for family in found] != [own._name]:
                failed.append((name, when, [family.name for family in found]))
            if len(lines) != 1 or telemetry.current_registry() is not ours:
                failed.append((name, when, lines))
            instrument.close()
print(json.dumps(failed))
"""


@pytest.mark.slow
def test_an_application_may_have_any_of_our_names(tmp_path: Path) -> None:
    """A metric of each of our names, also of a series of a histogram, before the cache and after."""
    assert json.loads(processes.run(EVERY_NAME, tmp_path)) == []
