"""Puts that wait for the model: stored, invalidated and replaced like any other."""

from __future__ import annotations

import pytest

from cache_core.testing import HashEmbedder
from tests.support.caches import CacheFactory
from tests.support.patience import PATIENT


async def test_puts_while_warming_are_made_later(
    make_cache: CacheFactory, embedder: HashEmbedder
) -> None:
    """While the model loads L2 answers `warming`, and what was put meanwhile is found afterwards."""
    embedder.ready = False
    cache = await make_cache(settings=PATIENT)
    await cache.put("alpha beta", "ann", "private")
    await cache.put("gamma delta", "ann", "shared", shared=True)
    assert (await cache.lookup("beta alpha", "ann")).reasons == ("cold", "warming")
    assert (await cache.lookup("alpha beta", "ann")).response == "private"
    embedder.ready = True
    await cache.ready()
    assert (await cache.lookup("beta alpha", "ann")).response == "private"
    assert (await cache.lookup("delta gamma", "bob")).response == "shared"


async def test_waiting_puts_are_forgotten_too(
    make_cache: CacheFactory, embedder: HashEmbedder
) -> None:
    """A put that waits for the model is not served after its invalidation or its user's erasure."""
    embedder.ready = False
    cache = await make_cache(settings=PATIENT)
    await cache.put("alpha beta", "eve", "invalidated", shared=True)
    await cache.put("gamma delta", "ann", "forgotten")
    await cache.put("epsilon zeta", "bob", "kept")
    await cache.invalidate("alpha beta")
    await cache.forget_user("ann")
    embedder.ready = True
    await cache.ready()
    assert (await cache.lookup("beta alpha", "ann")).response is None
    assert (await cache.lookup("delta gamma", "ann")).response is None
    assert (await cache.lookup("zeta epsilon", "bob")).response == "kept"


@pytest.mark.parametrize("failing", [False, True])
@pytest.mark.parametrize("shared", [False, True])
async def test_what_waited_does_not_replace_a_newer_answer(
    make_cache: CacheFactory, embedder: HashEmbedder, shared: bool, failing: bool
) -> None:
    """Whichever process put the newer one, and in whatever order those that waited are stored."""
    embedder.ready = False
    cache = await make_cache(settings=PATIENT)
    await cache.put("alpha beta", "ann", "older", shared=shared)
    if failing:
        await cache.put("alpha beta", "ann", "newer", shared=shared)
        cache._parts.semantic.tier.waiting._puts.rotate(-1)
    else:
        other = await make_cache(settings=PATIENT, embedding_model=HashEmbedder())
        await other.put("alpha beta", "ann", "newer", shared=shared)
    embedder.ready = True
    await cache.ready()
    for _ in range(2):
        assert (await cache.lookup("beta alpha", "ann")).response in {"newer", None}
        await cache._parts.semantic.tier.tend()
    assert (await cache.lookup("alpha beta", "ann")).response == "newer"
