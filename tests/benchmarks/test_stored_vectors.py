"""Substitutes that the benchmarks use for a part of the cache keep that part's protocol."""

from __future__ import annotations

from pathlib import Path

from cache_core import MultiLevelCache, Settings


async def test_the_stored_vectors_are_an_embedder(tmp_path: Path) -> None:
    """A cache with them opens and answers."""
    from benchmarks.growth import StoredVectors

    settings = Settings(dir=tmp_path / "cache", redis_url=None)
    known = StoredVectors({"one": [1.0] + [0.0] * 383})
    async with MultiLevelCache(settings=settings, embedding_model=known, instruments=()) as cache:
        await cache.put("one", "ann", "the answer")
        assert (await cache.lookup("one", "ann")).response == "the answer"
