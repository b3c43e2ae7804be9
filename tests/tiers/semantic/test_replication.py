"""Rows of shared answers in the indexes of several processes."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from cache_core.testing import HashEmbedder
from tests.support.caches import CacheFactory
from tests.support.inside import inside
from tests.support.patience import PATIENT


async def test_another_process_learns_of_answers_and_invalidations(
    make_cache: CacheFactory, tmp_path: Path, store_kind: str
) -> None:
    """A shared answer reaches another process's own index within a second, its end as well."""
    if store_kind == "embedded":
        pytest.skip("two processes on one file: tests of the command line")
    here = await make_cache(settings=PATIENT)
    there = await make_cache(settings={**PATIENT, "dir": tmp_path / "elsewhere"})
    assert here._parts.semantic.feed.place != there._parts.semantic.feed.place
    questions, keys = there._parts.semantic.similar, there._parts.keys
    tag = keys.tag("alpha beta")
    await here.put("alpha beta", "ann", "answer", shared=True)
    assert await _within(1.5, lambda: questions.count_messages([tag]), 1)
    assert (await there.lookup("beta alpha", "bob")).tier == "l2"
    await here.invalidate("beta alpha")
    assert (await there.lookup("beta alpha", "bob")).response is None
    assert await _within(1.5, lambda: questions.count_messages([tag]), 0)


@pytest.mark.parametrize("how", ["invalidate", "forget_user"])
async def test_a_row_written_after_its_invalidation_does_not_stay(
    make_cache: CacheFactory, chroma_url: str, store_kind: str, how: str
) -> None:
    """On a shared index no process leaves what another one invalidated before it was written."""
    if store_kind == "embedded":
        pytest.skip("processes with a Chroma server share a Redis")
    settings = {**PATIENT, "chroma_url": chroma_url}
    here = await make_cache(settings=settings, namespace=f"late-rows-{how}")
    there = await make_cache(settings=settings, namespace=f"late-rows-{how}")
    index, keys = there._parts.semantic.index, there._parts.keys
    tag, kept = keys.tag("alpha beta"), keys.tag("gamma delta")
    # Its duties are done by hand here.
    await inside(here).housekeeper.close()
    for message, user in (("alpha beta", "ann"), ("gamma delta", "bob")):
        await here.put(message, user, "answer", shared=True)
    # It waits to be written out, where nobody else can remove it.
    gone = there.invalidate("alpha beta") if how == "invalidate" else there.forget_user("ann")
    assert (await gone).complete
    await here._parts.semantic.index.tend(here._parts.store.now())
    assert set(await index.texts(keys.no_context, [tag, kept])) == {tag, kept}
    await here._parts.semantic.tier.tend()
    assert set(await index.texts(keys.no_context, [tag, kept])) == {kept}
    assert (await there.lookup("beta alpha", "eve")).response is None
    assert (await there.lookup("delta gamma", "eve")).response == "answer"


class GatedEmbedder(HashEmbedder):
    """Embeds so many immediately, and the others when it is released."""

    def __init__(self, at_once: int) -> None:
        super().__init__()
        self.at_once = at_once
        self.asked, self.gate = asyncio.Event(), asyncio.Event()

    async def embed(self, text: str) -> Any:
        if len(self.calls) >= self.at_once:
            self.asked.set()
            await self.gate.wait()
        return await super().embed(text)


@pytest.mark.parametrize("known", [False, True], ids=["not yet known", "known"])
async def test_what_was_embedded_too_long_reaches_no_index(
    make_cache: CacheFactory, tmp_path: Path, store_kind: str, known: bool
) -> None:
    """A put that its message's invalidation overtook leaves no row in anybody's own index."""
    if store_kind == "embedded":
        pytest.skip("two processes on one file: tests of the command line")
    gated = GatedEmbedder(at_once=int(known))
    here = await make_cache(settings=PATIENT, embedding_model=gated)
    there = await make_cache(settings={**PATIENT, "dir": tmp_path / "elsewhere"})
    both = (here, there)
    for cache in both:
        await inside(cache).housekeeper.close()
    put = asyncio.ensure_future(here.put("alpha beta", "ann", "answer", shared=True))
    await gated.asked.wait()
    assert (await there.invalidate("alpha beta")).complete
    gated.gate.set()
    await put
    tag, context = here._parts.keys.tag("alpha beta"), here._parts.keys.no_context
    assert bool(await here._parts.semantic.index.texts(context, [tag])) is known
    for cache in both:
        await inside(cache).invalidator.apply(cache.tuning)
        await cache._parts.semantic.index.tend(cache._parts.store.now())
        await cache._parts.semantic.tier.tend()
        assert not await cache._parts.semantic.index.texts(context, [tag])


async def _within(seconds: float, ask: Any, expected: Any) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if await ask() == expected:
            return True
        await asyncio.sleep(0.05)
    return False
