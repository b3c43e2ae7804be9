"""Caches of one namespace that use different embedding models."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from cache_core import MultiLevelCache
from cache_core.testing import HashEmbedder
from tests.support.caches import CacheFactory
from tests.support.patience import PATIENT

KINDS = ["embedded", "redis", "redis8", "server"]
"""Engines of shared answers: Chroma here, beside SQLite or Redis; vector sets; a server."""


def cache_of_a_model(
    make_cache: CacheFactory, kind: str, request: pytest.FixtureRequest
) -> CacheFactory:
    """Return a function that opens caches of one namespace, with the model of a name."""
    more = {"chroma_url": request.getfixturevalue("chroma_url")} if kind == "server" else {}
    namespace = f"n{secrets.token_hex(4)}"

    async def make(model: str, **settings: Any) -> MultiLevelCache:
        made: MultiLevelCache = await make_cache(
            embedding_model=HashEmbedder(model),
            namespace=namespace,
            settings={**PATIENT, **more, **settings},
        )
        await made.ready()
        # The order of the words is to make no difference.
        await made.tune({"guards": ["numbers"]}, author="test")
        return made

    return make


async def closed(cache: MultiLevelCache) -> None:
    """Close a cache that has written all its rows: a server may have been connected late."""
    await cache._parts.semantic.index.tend(cache._parts.store.now())
    await cache.close()


async def answer(cache: MultiLevelCache, words: str, user: str, **where: Any) -> str | None:
    """Return what is served for the same words in another order."""
    first, *rest = words.split()
    found = await cache.lookup(" ".join([*rest, first]), user, **where)
    assert found.tier in {"l2", None}
    return found.response
