"""Leases on Redis: compare and change in one step, without a script."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.exceptions import WatchError

from cache_core.backends.breaker import Breaker
from cache_core.backends.deadline import Deadline
from cache_core.backends.redis.batches import Batches
from cache_core.backends.redis.replies import text_of


class HeldLeases:
    """Changes leases while they are held.

    WATCH makes comparing and running one step: the server rejects the transaction if another client
    wrote the key since, even if a stalled server reads it only after the lease has changed hands.
    One change at a time, so that any number of leases needs only one more connection.

    Args:
        batches: Access to the server.
        breaker: A breaker of its own: an unavailable node of a Cluster must not cut off the others.
        timeout: Seconds for all round trips of a change.
    """

    def __init__(self, batches: Batches, breaker: Breaker, timeout: float) -> None:
        self._batches = batches
        self._breaker = breaker
        self._timeout = timeout
        self._one_at_a_time = asyncio.Lock()

    async def while_held(self, key: str, token: str, *command: Any) -> bool:
        """Run *command* if *key* holds *token*; return whether it ran."""
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
