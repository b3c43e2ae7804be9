"""The public API as a typed application uses it: checked by mypy and basedpyright, never run."""

from __future__ import annotations

from typing import Any, assert_type

from cache_core import (
    Answer,
    BackendError,
    CacheStats,
    ConfigurationError,
    GlasscacheError,
    Invalidation,
    LookupResult,
    MultiLevelCache,
    Settings,
    TierExplanation,
    Tuning,
    close_cache,
    get_cache,
)


async def answer(message: str) -> str:
    return f"an answer to {message}"


async def shared() -> None:
    cache = await get_cache()
    assert_type(cache, MultiLevelCache)
    await close_cache()


async def reads_and_writes(cache: MultiLevelCache) -> None:
    found = await cache.lookup("Where is it?", "ann", context={"locale": "de"}, history=["Hello"])
    assert_type(found, LookupResult)
    assert_type(found.response, str | None)
    assert_type(found.rag_results, list[Any] | None)
    assert_type(found.similarity, float | None)
    assert_type(found.reasons, tuple[str, ...])
    await cache.put("Where is it?", "ann", "Here.", "where", [{"id": 1}], ttl=60, lookup=found)
    assert_type(await cache.get_multilevel("Where is it?", None), str | None)
    computed = await cache.get_or_compute("Where is it?", "ann", lambda: answer("it"))
    assert_type(computed, str)
    await cache.get_or_compute("Where is it?", "ann", lambda: "a plain function, too")
    await cache.get_or_compute("Where is it?", "ann", lambda: Answer("Here.", tags=["t"]))
    await cache.warm_cache([("Where is it?", None, "Here.")])
    explained = await cache.explain("Where is it?", "ann")
    assert_type(explained, list[TierExplanation])


async def invalidates(cache: MultiLevelCache) -> None:
    done = await cache.invalidate("Where is it?", dry_run=True)
    assert_type(done, Invalidation)
    assert_type(done.complete, bool)
    await cache.invalidate_document("d")
    await cache.invalidate_tag("t")
    await cache.invalidate_writer("ann")
    await cache.forget_user("ann")


async def operates() -> None:
    settings = Settings(redis_url="redis://localhost")
    async with MultiLevelCache(settings=settings, semantic_threshold=0.9) as cache:
        await cache.tune({"l1_ttl": 60}, author="ann")
        assert_type(cache.tuning, Tuning)
        assert_type(cache.metrics, CacheStats)
        assert_type(cache.get_metrics(), dict[str, Any])
        assert_type(cache.is_open, bool)
        assert_type(await cache.feedback("r-1", correct=True), bool)


def fails(error: BackendError | ConfigurationError) -> GlasscacheError:
    return error


async def wrong(cache: MultiLevelCache) -> None:
    """Misuse that a type checker reports: each ignored error has to be one."""
    await cache.lookup(5, "ann")  # type: ignore[arg-type]
    await cache.lookup("Where is it?", user="ann")  # type: ignore[call-arg]
    await cache.put("Where is it?", "ann", "Here.", ttl="60")  # type: ignore[arg-type]
    await cache.feedback("r-1", True)  # type: ignore[call-arg]
