"""The contract of a tier, over every tier on every store."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from cache_core.backends.base import KeyValueStore, Row
from cache_core.backends.chroma.index import ChromaIndex, Limits
from cache_core.backends.redis.client import connect
from cache_core.backends.redis.store import RedisStore
from cache_core.backends.sqlite.store import EmbeddedStore
from cache_core.model.keys import Keys
from cache_core.model.question.days import Days
from cache_core.model.values import LEVELS, Level, Query
from cache_core.policy.evidence import Evidence
from cache_core.testing import HashEmbedder, ManualClock
from cache_core.testing.contracts import TierBench, TierContract
from cache_core.testing.contracts.tier import Pass
from cache_core.tiers.denylist import Denylist
from cache_core.tiers.guards import language
from cache_core.tiers.journal import Journal
from cache_core.tiers.keyed import KeyedTier
from cache_core.tiers.semantic.choosing import Choosing
from cache_core.tiers.semantic.replication import IndexFeed
from cache_core.tiers.semantic.rows import SharedRows
from cache_core.tiers.semantic.search import SemanticSearch
from cache_core.tiers.semantic.similar import SimilarQuestions
from cache_core.tiers.semantic.tier import SemanticTier
from cache_core.tiers.semantic.waiting import WaitingPuts
from tests.support.redis_time import pass_time
from tests.support.vectors import PlainVectors

SECRET = b"s" * 32
PARTS: dict[Level, tuple[Any, ...]] = {
    "l1": ("response", ("intent", "cost_usd"), True),
    "l3": ("intent", (), False),
    "l4": ("rag_results", ("intent",), False),
}

_replicas = itertools.count(1)


class SemanticBench(TierBench):
    """L2, whose shared answers are in an index."""

    def __init__(self, store: KeyValueStore, keys: Keys, index: ChromaIndex) -> None:
        self.index = index
        self.embedder = HashEmbedder()
        denylist = Denylist()
        replica = f"replica-{next(_replicas)}"
        vectors = PlainVectors(self.embedder, index)
        feed = IndexFeed(store, keys, vectors, index.place, replica)
        similar = SimilarQuestions(store, keys, vectors)
        rows = SharedRows(store, keys, index, feed, similar)
        journal = Journal(store, keys, denylist)
        waiting = WaitingPuts(store, keys, similar, journal, denylist, self.embedder)
        search = SemanticSearch(
            store, keys, vectors, rows, denylist, Days(), Choosing(keys, Evidence())
        )
        tier = SemanticTier(store, keys, search, vectors, rows, waiting)
        super().__init__(tier, store, keys)

    async def misplace(self, query: Query, text: str) -> None:
        """Put *text* into the row of the shared answer, too."""
        vector = await self.embedder.embed(query.text)
        (row,) = await self.index.search(query.context, vector, 1)
        assert "everybody's" in str(row.text)
        dropped = self.store.now() + 60
        await self.index.add(query.context, Row(row.id, vector, text, dropped))


@pytest.fixture
async def store(
    store_kind: str, request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock
) -> AsyncIterator[KeyValueStore]:
    made: KeyValueStore = EmbeddedStore(tmp_path / "store", clock=clock)
    if store_kind == "redis":
        url = request.getfixturevalue("empty_redis")
        made = RedisStore(connect(url, timeout=5), read_timeout=5, write_timeout=5)
    await made.open()
    yield made
    await made.close()


Make = Callable[[str], Any]


@pytest.fixture(params=LEVELS)
async def make(
    request: pytest.FixtureRequest, store: KeyValueStore, tmp_path: Path
) -> AsyncIterator[Make]:
    """Make the bench of a tier in a namespace."""
    level: Level = request.param
    opened: list[ChromaIndex] = []

    async def bench(namespace: str) -> TierBench:
        keys = Keys(namespace, SECRET)
        keys.model = "hash"
        if level != "l2":
            part, also, counted = PARTS[level]
            tier = KeyedTier(level, part, also, store, keys, Denylist(), marks=counted)
            return TierBench(tier, store, keys)
        index = ChromaIndex(
            namespace=namespace, model="hash", default_context=keys.no_context,
            directory=tmp_path / "chroma", limits=Limits(search_timeout=10, write_timeout=20),
        )  # fmt: skip
        opened.append(index)
        language.load()  # as opening a cache does: the first search is as fast as the others
        await index.open()
        async with asyncio.timeout(60):
            while not index.connected:  # a busy machine takes longer than opening waits
                await asyncio.sleep(0.02)
        return SemanticBench(store, keys, index)

    yield bench
    for index in opened:
        await index.close()


@pytest.fixture
async def bench(make: Make) -> TierBench:
    made: TierBench = await make("default")
    return made


class TestTiers(TierContract):
    """L1 to L4, on the embedded store and on Redis."""

    @pytest.fixture
    def passes(
        self,
        store_kind: str,
        store: KeyValueStore,
        clock: ManualClock,
        request: pytest.FixtureRequest,
    ) -> Pass:
        """Let time pass immediately."""

        async def wait(seconds: float) -> None:
            if store_kind == "embedded":
                clock.advance(seconds)
            else:
                pass_time(store, request.getfixturevalue("redis_url"), seconds)

        return wait


async def test_namespaces_share_nothing(bench: TierBench, make: Make) -> None:
    """A tier of another namespace on the same store and directory finds nothing."""
    await bench.put(bench.query(), "here", "shared")
    elsewhere = await make("other")
    assert await elsewhere.reason(elsewhere.query()) == "cold"
