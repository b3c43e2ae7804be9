"""Leases on Redis: compared and changed in one step, without a script."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.exceptions import WatchError

from cache_core.breaker import Breaker
from cache_core.deadline import Deadline
from cache_core.stores.redis_batches import Batches
from cache_core.stores.redis_replies import text_of


class HeldLeases:
    """Changes leases while they are held.

    WATCH makes comparing and running one step: the server refuses the transaction if anybody else
    wrote the key since, even if what was sent is read only after the server stood still and the
    lease went to somebody else. One at a time: whatever number of leases is held, it takes one
    connection more.

    Args:
        batches: The way to the server.
        breaker: Of its own: a node of a Cluster that is away must not close the others.
        timeout: Seconds for all round trips of a change.
    """

    def __init__(self, batches: Batches, breaker: Breaker, timeout: float) -> None:
        self._batches = batches
        self._breaker = breaker
        self._timeout = timeout
        self._one_at_a_time = asyncio.Lock()

    async def while_held(self, key: str, token: str, *command: Any) -> bool:
        """Run *command* if *key* holds *token*; return whether it was run."""
        async with self._one_at_a_time:
            with self._breaker:
                async with Deadline(self._timeout):
                    return await self._compare_and_run(key, token, command)

    async def _compare_and_run(self, key: str, token: str, command: Sequence[Any]) -> bool:
        client: Any = self._batches.client
        async with client.pipeline(transaction=True) as pipe:
            await pipe.watch(key)
            if text_of(await pipe.get(key)) != token:
                return False
            pipe.multi()
            pipe.execute_command(*command)
            try:
                return bool((await pipe.execute())[0])
            except WatchError:
                return False
