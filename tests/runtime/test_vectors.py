"""The choice of the vector index, and a cache whose vectors are in Redis."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

import pytest
import redis.asyncio as redis

from cache_core import ConfigurationError
from cache_core.backends.redis.vectors import RedisVectors
from cache_core.config.settings import Settings, load_settings
from cache_core.runtime import vectors
from tests.support import servers
from tests.support.caches import opened
from tests.support.patience import PATIENT

pytestmark = pytest.mark.server


@pytest.fixture(autouse=True)
def _nothing_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "_logged", set())


async def _engine(directory: Path, **how: object) -> str:
    async with opened(directory, **PATIENT, **how) as cache:
        semantic = cache._parts.semantic  # type: ignore[union-attr]
        return type(semantic.engine).__name__ if semantic is not None else "none"


async def test_auto_takes_vector_sets_where_there_are_some(
    tmp_path: Path, empty_redis8: str, empty_redis: str, chroma_url: str
) -> None:
    """A Chroma server first, then a Redis that has them, given as URL or pool; else Chroma."""
    engine = "RedisVectors"
    assert await _engine(tmp_path, redis_url=empty_redis8) == engine
    pool = redis.ConnectionPool.from_url(empty_redis8)
    assert await _engine(tmp_path, redis_pool=pool) == engine
    await pool.aclose()
    assert await _engine(tmp_path, redis_url=empty_redis) == "ChromaIndex"
    assert await _engine(tmp_path) == "ChromaIndex"
    assert await _engine(tmp_path, redis_url=empty_redis8, chroma_url=chroma_url) == "ChromaIndex"


async def test_the_engine_can_be_named(
    tmp_path: Path, empty_redis8: str, chroma_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`CACHE_VECTORS` overrides what there is."""
    assert await _engine(tmp_path, redis_url=empty_redis8, vectors="chroma") == "ChromaIndex"
    how = {"redis_url": empty_redis8, "chroma_url": chroma_url}
    assert await _engine(tmp_path, vectors="redis", **how) == "RedisVectors"
    monkeypatch.setenv("CACHE_VECTORS", "Chroma")
    assert Settings().vectors == "chroma"
    with pytest.raises(ConfigurationError, match="vectors"):
        load_settings(vectors="faiss")


async def test_a_redis_without_vector_sets_is_reported_once(
    tmp_path: Path, empty_redis: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With `auto` Chroma is used as before, and one line says why, at level info."""
    caplog.set_level(logging.INFO, "glasscache")
    for _ in range(2):
        assert await _engine(tmp_path, redis_url=empty_redis) == "ChromaIndex"
    lines = [item for item in caplog.records if item.getMessage().startswith("vectors: ")]
    assert [item.levelname for item in lines] == ["INFO"]


@pytest.mark.parametrize("where", ["no Redis", "Redis 7", "an ACL without them"])
async def test_wanted_vector_sets_that_are_not_there(
    where: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """L2 is off, one error and the problems say why, and the exact tiers work."""
    with contextlib.ExitStack() as stack:
        how: dict[str, str] = {}
        if where == "Redis 7":
            how = {"redis_url": request.getfixturevalue("empty_redis")}
        elif where != "no Redis":
            url = stack.enter_context(servers.redis_server(tmp_path, vectors=True))
            with servers.admin(url) as client:
                client.execute_command("ACL", "SETUSER", "glasscache", "-vadd")
            how = {"redis_url": url}
        async with opened(tmp_path / "cache", **PATIENT, **how, vectors="redis") as cache:
            await cache.put("when do you open", "ann", "at nine")
            assert (await cache.lookup("when do you open", "ann")).tier == "l1"
            assert cache._parts.semantic is None  # type: ignore[union-attr]
            assert cache.state is not None
            assert cache.state.backends["vectors"] is False
            (problem,) = cache.problems
            assert problem.backend == "vectors"
            assert "CACHE_VECTORS=redis" in problem.do
    assert any("L2 is off" in item.getMessage() for item in caplog.records)


async def test_two_replicas_share_what_they_store_without_a_feed(
    tmp_path: Path, empty_redis8: str
) -> None:
    """The other replica serves a shared answer immediately, and no more once it is invalidated."""
    how = {"redis_url": empty_redis8, **PATIENT}
    async with opened(tmp_path / "a", **how) as one, opened(tmp_path / "b", **how) as other:
        await one.put("subject matter theme", "ann", "at nine", shared=True)
        found = await other.lookup("subject, matter, theme", "bob")
        assert (found.response, found.tier) == ("at nine", "l2")
        feed = one._parts.semantic.feed  # type: ignore[union-attr]
        assert not feed.own_index
        assert (
            await one._parts.store.last(one._parts.keys.own(f"feed{one._parts.keys.model}"), 5)
            == []
        )  # type: ignore[union-attr]
        assert (await other.invalidate("subject matter theme")).complete
        assert isinstance(one._parts.semantic.engine, RedisVectors)  # type: ignore[union-attr]
        assert await one._parts.semantic.engine.count() == 0  # type: ignore[union-attr]
        assert (await one.lookup("subject, matter, theme", "bob")).response is None
        assert (await one.lookup("subject matter theme", "ann")).response is None


async def test_private_answers_are_in_no_set(tmp_path: Path, empty_redis8: str) -> None:
    """Only shared answers get a row; private ones stay in their user's own hash."""
    async with opened(tmp_path, redis_url=empty_redis8, **PATIENT) as cache:
        await cache.put("alpha beta gamma", "ann", "ten")
        assert await cache._parts.semantic.engine.count() == 0  # type: ignore[union-attr]
        assert (await cache.lookup("alpha, beta, gamma", "ann")).tier == "l2"
        assert (await cache.lookup("alpha, beta, gamma", "bob")).response is None


async def test_with_encryption_no_text_is_readable(tmp_path: Path, empty_redis8: str) -> None:
    """Rows hold the sealed envelope: neither message nor response is anywhere in Redis."""
    key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
    how = {"redis_url": empty_redis8, **PATIENT, "encryption_keys": (key,)}
    async with opened(tmp_path, **how) as cache:
        await cache.put("zanzibar weather tomorrows", "ann", "sunny quokka", shared=True)
        assert (
            await cache.lookup("zanzibar, weather, tomorrows", "bob")
        ).response == "sunny quokka"
        with servers.admin(empty_redis8) as client:
            sets = [name for name in client.keys("*") if client.type(name) == b"vectorset"]
            assert sets
            for name in client.keys("*"):
                dumped = client.dump(name) or b""
                assert b"zanzibar" not in dumped
                assert b"quokka" not in dumped
