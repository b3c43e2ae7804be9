"""Invalidating a question takes what is similar along."""

from __future__ import annotations

import pytest

from cache_core.testing import HashEmbedder
from tests.support.caches import CacheFactory
from tests.support.inside import inside
from tests.support.patience import PATIENT


@pytest.mark.parametrize("shared", [False, True])
async def test_invalidating_takes_the_similar_too(make_cache: CacheFactory, shared: bool) -> None:
    """Invalidating a question takes out what L2 would serve for it, in every context, no more."""
    cache = await make_cache(settings=PATIENT)
    for context in (None, "german"):
        await cache.put("alpha beta", "ann", "similar", context=context, shared=shared)
        await cache.put("gamma delta", "ann", "other", context=context, shared=shared)
    assert (await cache.invalidate("beta alpha", dry_run=True)).removed > 0
    assert (await cache.lookup("alpha beta", "ann")).response == "similar"
    removed = await cache.invalidate("beta alpha")
    assert (removed.complete, removed.removed > 0) == (True, True)
    for context in (None, "german"):
        for asked in ("alpha beta", "beta alpha"):
            assert (await cache.lookup(asked, "ann", context=context)).response is None
        assert (await cache.lookup("delta gamma", "ann", context=context)).response == "other"
    assert (await cache.invalidate("beta alpha")).removed == 0


async def test_invalidating_spares_what_a_guard_keeps_apart(make_cache: CacheFactory) -> None:
    """A question that a guard would have vetoed is not invalidated along."""
    cache = await make_cache(settings=PATIENT, semantic_threshold=0.7)
    await cache.put("status of my order 1", "ann", "one", shared=True)
    await cache.put("status of my order 2", "ann", "two", shared=True)
    await cache.invalidate("status of my order 2")
    assert (await cache.lookup("status of my order 1", "ann")).response == "one"


async def test_without_a_model_an_invalidation_is_not_complete(
    make_cache: CacheFactory,
) -> None:
    """A process that cannot search similar questions reports it, and catches up when it can."""
    embedder = HashEmbedder()
    here = await make_cache(settings=PATIENT, embedding_model=embedder)
    await here.put("beta alpha", "ann", "similar")
    embedder.ready, embedder.failed = False, True
    done = await here.invalidate("alpha beta")
    assert (done.complete, done.pending) == (False, ("embedder",))
    embedder.ready, embedder.failed = True, False
    await inside(here).invalidator.steps.retry()
    assert (await here.lookup("alpha beta", "ann")).response is None
    assert inside(here).invalidator.steps.pending == 0
