"""Embedders that return no vector, or one of another length or type."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import numpy as np
import pytest

from cache_core import MultiLevelCache
from cache_core.testing import HashEmbedder
from tests.support.caches import CacheFactory
from tests.support.patience import PATIENT


class OddEmbedder(HashEmbedder):
    """Returns whatever it is told to."""

    given: Any = None

    async def embed(self, text: str) -> Any:
        return await super().embed(text) if self.given is None else self.given


@pytest.mark.parametrize(
    "given",
    [
        np.full(64, np.nan, dtype=np.float32),
        np.array([np.inf] + [0.0] * 63),
        np.zeros(64, dtype=np.float32),
        np.ones((1, 64), dtype=np.float32),
        np.ones(63, dtype=np.float32),
        np.float32(1),
        np.array([], dtype=np.float32),
        np.array(["a"] * 64),
        np.ones(64, dtype=np.complex64),
        np.ones(64, dtype=bool),
        "no vector",
        {"a": 1},
        [[1.0], [1.0, 2.0]],
    ],
    ids="nan inf zeros matrix shorter scalar empty texts complex bool text mapping ragged".split(),
)
async def test_what_is_no_vector_is_neither_stored_nor_served(
    make_cache: CacheFactory, caplog: pytest.LogCaptureFixture, given: Any
) -> None:
    """L2 ends as an error and says why; the exact tiers go on."""
    embedder = OddEmbedder()
    cache: MultiLevelCache = await make_cache(embedding_model=embedder, settings=PATIENT)
    await cache.put("alpha beta", "ann", "right")
    embedder.given = given
    caplog.set_level(logging.WARNING, "glasscache")
    for question in ("beta alpha", "alpha beta gamma"):
        result = await cache.lookup(question, "ann")
        assert (result.outcome, result.response) == ("error", None)
    await cache.put("gamma delta", "ann", "poison")
    assert (await cache.lookup("gamma delta", "ann")).tier == "l1"
    embedder.given = None
    await asyncio.sleep(0.3)
    assert (await cache.lookup("delta gamma", "ann")).response is None
    assert (await cache.lookup("beta alpha", "ann")).response == "right"
    assert "the embedder 'hash' returned" in caplog.text


async def test_vectors_of_another_length_or_type_are_made_unit(make_cache: CacheFactory) -> None:
    """Cosines rely on unit vectors: one that is ten times as long would match anything."""
    embedder = OddEmbedder()
    cache: MultiLevelCache = await make_cache(embedding_model=embedder, settings=PATIENT)
    await cache.put("alpha beta", "ann", "right")
    other = await HashEmbedder().embed("quite another thing")
    embedder.given = other.astype(np.float64) * 10
    assert (await cache.lookup("quite another thing", "ann")).response is None
    embedder.given = (await HashEmbedder().embed("alpha beta")).astype(np.float16) * 10
    assert (await cache.lookup("beta alpha", "ann")).response == "right"
