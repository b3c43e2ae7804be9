"""What the benchmarks put in the place of a part of the cache is such a part."""

from __future__ import annotations

from pathlib import Path

import pytest

from cache_core import MultiLevelCache, Settings


async def test_the_stored_vectors_are_an_embedder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A cache with them opens and answers."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    from growth import StoredVectors

    settings = Settings(dir=tmp_path / "cache", redis_url=None)
    known = StoredVectors({"one": [1.0] + [0.0] * 383})
    async with MultiLevelCache(settings=settings, embedding_model=known, instruments=()) as cache:
        await cache.put("one", "ann", "the answer")
        assert (await cache.lookup("one", "ann")).response == "the answer"
