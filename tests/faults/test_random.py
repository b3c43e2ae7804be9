"""Both stores and the index failing at random, on every path: nothing raises, nothing is wrong."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from cache_core import GlasscacheError
from cache_core.testing import ChaosStore, ChaosVectors, Fault, Faults
from tests.support.caches import opened
from tests.support.faults import USERS, Asker, answer, question
from tests.support.waiting import until

pytestmark = pytest.mark.slow

STEPS = 150
MESSAGES = 6


@pytest.mark.parametrize("fault", ["throw", "hang", "corrupt", "lose_reply"])
async def test_every_path_among_random_faults(
    fault: Fault, store_kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A third of all calls fails: answers are right or none, and what was invalidated stays so."""
    url = request.getfixturevalue("empty_redis") if store_kind == "redis" else None
    store, index, dice = Faults(seed=5), Faults(seed=6), random.Random(7)
    gone: set[int] = set()
    async with opened(
        tmp_path,
        redis_url=url,
        wrap_store=lambda inner: ChaosStore(inner, store, read_timeout=0.005, write_timeout=0.01),
        wrap_index=lambda inner: ChaosVectors(
            inner, index, search_timeout=0.005, write_timeout=0.01
        ),
    ) as cache:
        asker = Asker(cache)

        async def put(number: int, user: str) -> None:
            # Without it a put follows the oldest lookup, which may be from before an invalidation.
            lookup = await asker.ask(number, user)
            await cache.put(
                question(number), user, answer(number, user), shared=number % 2 > 0, lookup=lookup
            )
            gone.discard(number)

        async def invalidate(number: int, _: str) -> None:
            await cache.invalidate(question(number))
            gone.add(number)

        async def ask(number: int, user: str) -> None:
            found = await asker.ask(number, user)
            assert number not in gone or found.response is None
            await cache.feedback(found.lookup_id, correct=True)

        async def compute(number: int, user: str) -> None:
            made = await cache.get_or_compute(
                question(number), user, lambda: answer(number, user), shared=number % 2 > 0
            )
            assert made == answer(number, user)
            gone.discard(number)

        async def operate(number: int, user: str) -> None:
            # For operators: they are told by an error of ours, and by no other.
            for work in (
                cache.tune({"semantic_threshold": 0.9 + number / 100}, author=user),
                cache.decisions(10),
                cache.verdicts(10),
                cache.explain(question(number), user),
                cache.invalidate_tag("nothing"),
            ):
                try:
                    await work
                except GlasscacheError:
                    continue

        for faults in (store, index):
            setattr(faults, fault, 0.3)
        paths: list[Any] = [put, put, put, ask, ask, ask, ask, invalidate, compute, operate]
        for _ in range(STEPS):
            await dice.choice(paths)(dice.randrange(MESSAGES), dice.choice(USERS))
        assert store.injected[fault] > 10
        for faults in (store, index):
            faults.never()
        await until(lambda: cache.state is not None and not cache.state.pending_invalidations)
        for number in gone:
            for user in USERS:
                assert (await asker.ask(number, user)).response is None
        for number in range(MESSAGES):
            await put(number, "ann")
        await asker.served_by_l1(range(MESSAGES))
        state = cache.state
        assert state is not None
        assert set(state.breakers.values()) == {"closed"}
    assert sum(asker.outcomes.values()) > 0
    await asyncio.sleep(0)
