"""Fixtures: real servers, caches on both stores, and the checks that follow every test."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cache_core import MultiLevelCache
from cache_core.embedder import ThreadEmbedder, shared_embedder
from cache_core.models import LEVELS
from cache_core.settings import Settings
from cache_core.stats import CacheStats
from cache_core.testing import HashEmbedder, ManualClock
from tests import servers
from tests.trail import scribble  # noqa: F401 - a fixture
from tests.watching import make_watched, watch, watched  # noqa: F401 - fixtures

CacheFactory = Callable[..., Any]

_ENVIRONMENT = (
    "REDIS_URL", "CHROMA_URL", "SEMANTIC_THRESHOLD", "EMBEDDING_MODEL", "CACHE_SHARED_INTENTS",
    "CACHE_KEY", "CACHE_TIERS", "CACHE_SHARING",
)  # fmt: skip


_LONG = (
    "test_dashboard_browser.py", "test_dashboard_pages.py", "test_tuning.py", "test_alert_chain.py",
    "test_demo.py", "test_isolation.py", "test_examples.py", "test_stateful.py",
    "test_chroma_connections.py", "test_runbooks.py", "test_whatif.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first: no worker is left alone with one at the end."""
    items.sort(key=lambda item: item.path.name not in _LONG)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees the developer's environment, nor writes to the developer's cache."""
    for name in _ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def _every_count_balances(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """After every test, the counts of every cache that it made add up."""
    made: list[CacheStats] = []
    original = CacheStats.__init__

    def noted(self: CacheStats) -> None:
        original(self)
        made.append(self)

    monkeypatch.setattr(CacheStats, "__init__", noted)
    yield
    for stats in made:
        check_balance(stats)


def check_balance(stats: CacheStats) -> None:
    """Assert the counting contract."""
    assert sum(stats.outcomes.values()) == stats.lookups
    assert sum(stats.bypass_reasons.values()) == stats.outcomes["bypass"]
    answerable = stats.lookups - stats.outcomes["bypass"]
    for level in LEVELS:
        asked = stats.hits[level] + stats.misses[level] + stats.errors[level]
        assert asked <= answerable
        reasons = sum(n for (of, _), n in stats.miss_reasons.items() if of == level)
        assert reasons == stats.misses[level]
        reasons = sum(n for (of, _), n in stats.error_reasons.items() if of == level)
        assert reasons == stats.errors[level]
    l1 = stats.hits["l1"] + stats.misses["l1"] + stats.errors["l1"]
    assert l1 in {0, answerable}, "L1 is asked by every lookup, or it is off"
    assert stats.hits["l1"] + stats.hits["l2"] == stats.outcomes["hit"]
    assert stats.outcomes["partial"] <= stats.hits["l3"] + stats.hits["l4"]


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real redis-server, shared by the session; `empty_redis` empties it."""
    with servers.redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def empty_redis(redis_url: str) -> str:
    """The URL of a real and empty redis-server."""
    with servers.admin(redis_url) as client:
        client.flushall()
    return redis_url


@pytest.fixture(scope="session")
def chroma_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Chroma server, shared by the session; tests use namespaces of their own."""
    with servers.chroma_server(tmp_path_factory.mktemp("chroma")) as url:
        yield url


@pytest.fixture(params=["embedded", "redis"])
def store_kind(request: pytest.FixtureRequest) -> str:
    """Runs a test on the embedded store and on Redis."""
    return str(request.param)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def embedder() -> HashEmbedder:
    return HashEmbedder()


@pytest.fixture(scope="session")
def real_embedder() -> ThreadEmbedder:
    """The real all-MiniLM-L6-v2, loaded once."""
    if importlib.util.find_spec("sentence_transformers") is None:
        reason = "sentence-transformers is not installed"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    made = shared_embedder("all-MiniLM-L6-v2")
    asyncio.run(made.wait_ready())
    return made


_namespaces = itertools.count(1)


@pytest.fixture
async def make_cache(
    store_kind: str, request: pytest.FixtureRequest, tmp_path: Path, embedder: HashEmbedder
) -> AsyncIterator[CacheFactory]:
    """Make open caches on the store of this run; all are closed, and no task is left.

    Two caches with the same `namespace=` are two replicas.
    """
    url = request.getfixturevalue("empty_redis") if store_kind == "redis" else None
    made: list[MultiLevelCache] = []
    before: set[asyncio.Task[Any] | None] = set(asyncio.all_tasks())

    async def make(**arguments: Any) -> MultiLevelCache:
        fixed = arguments.pop("settings", {})
        settings = Settings(**{"dir": tmp_path / "cache", "redis_url": url, **fixed})
        arguments.setdefault("embedding_model", embedder)
        arguments.setdefault("instruments", ())
        cache = MultiLevelCache(settings=settings, **arguments)
        made.append(cache)
        await cache.initialize()
        return cache

    yield make
    for cache in made:
        await cache.close()
    await asyncio.sleep(0)
    before |= {asyncio.current_task()}
    left = {task for task in asyncio.all_tasks() - before if not task.done()}
    assert not left, f"tasks were left: {left}"


@pytest.fixture
async def cache(make_cache: CacheFactory) -> MultiLevelCache:
    """An open cache with a word-based embedder, on both stores in turn."""
    found: MultiLevelCache = await make_cache()
    return found
