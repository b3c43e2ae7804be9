"""An invalidation of what many users have an answer to, beside other users' lookups."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from cache_core import MultiLevelCache
from cache_core.backends.base import KeyValueStore
from cache_core.testing import ChaosStore, Faults
from tests.conftest import CacheFactory
from tests.support.patience import PATIENT

USERS = 120
TOGETHER = 40
"""Puts at the same time; many more would be turned away."""
FEW = 16
"""Hashes read together; an invalidation reads 8, and others read, too."""


class _Counting(ChaosStore):
    """Store that notes the most hashes read together: in one round of the loop, or waited for."""

    def __init__(self, inner: KeyValueStore) -> None:
        super().__init__(inner, Faults())
        self.reading = 0
        self.most = 0

    async def rows(
        self, key: str, newest: int | None = None, *, hurry: bool = False
    ) -> Mapping[str, str]:
        self.reading += 1
        self.most = max(self.most, self.reading)
        try:
            return await super().rows(key, newest, hurry=hurry)
        finally:
            asyncio.get_running_loop().call_soon(self._done)

    def _done(self) -> None:
        self.reading -= 1


async def _put_for_all(cache: MultiLevelCache) -> None:
    """Store a private answer for every user, of every other one to the same question."""
    for first in range(0, USERS, TOGETHER):
        async with asyncio.TaskGroup() as group:
            for user in range(first, first + TOGETHER):
                message = f"subject {user}" if user % 2 else "alpha beta"
                group.create_task(cache.put(message, f"user {user}", "an answer"))


async def _lookups(cache: MultiLevelCache, until: asyncio.Event) -> list[str | None]:
    """Return the responses that somebody else got meanwhile."""
    responses = []
    while not until.is_set():
        responses.append((await cache.lookup("gamma delta", "ann")).response)
        await asyncio.sleep(0.001)
    return responses


async def _invalidate(cache: MultiLevelCache, *, dry_run: bool) -> None:
    """Invalidate the question while somebody else asks another one."""
    done = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        lookups = group.create_task(_lookups(cache, done))
        invalidation = await cache.invalidate("alpha beta", dry_run=dry_run)
        done.set()
    # In L1 and in L2.
    assert (invalidation.removed, invalidation.complete) == (USERS, True)
    assert len(lookups.result()) > 1
    assert set(lookups.result()) == {"another answer"}


async def test_a_message_of_many_users(make_cache: CacheFactory) -> None:
    """All private answers to it are found, and only a few users' vectors are read together."""
    stores: list[_Counting] = []

    def counting(store: KeyValueStore) -> KeyValueStore:
        stores.append(_Counting(store))
        return stores[-1]

    cache = await make_cache(settings=PATIENT, wrap_store=counting)
    await _put_for_all(cache)
    await cache.put("gamma delta", "ann", "another answer")
    stores[0].most = 0
    await _invalidate(cache, dry_run=True)
    assert 1 < stores[0].most <= FEW
    for user in range(0, USERS, 20):
        assert (await cache.lookup("beta alpha", f"user {user}")).response == "an answer"
    await _invalidate(cache, dry_run=False)
    assert stores[0].most <= FEW
    for user in range(0, USERS, 20):
        assert (await cache.lookup("alpha beta", f"user {user}")).response is None
        assert (await cache.lookup("beta alpha", f"user {user}")).response is None
        kept = await cache.lookup(f"subject {user + 1}", f"user {user + 1}")
        assert kept.response == "an answer"
