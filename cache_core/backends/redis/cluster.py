"""Commands for a Redis Cluster, by node: an unavailable node fails only its own keys.

redis-py's pipeline closes the connections to all nodes when one of them fails, waits a quarter of a
second, and retries three times, although the others have answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import redis.asyncio as redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MaxConnectionsError, ResponseError

from cache_core.backends.breaker import Breaker
from cache_core.backends.deadline import Deadline
from cache_core.model.exceptions import BackendError

_ATTEMPTS = 3
"""A node may have closed all idle connections; a refused attempt costs nothing."""


def cluster_of(plain: redis.Redis, timeout: float) -> RedisCluster:
    """Return a client of the Cluster to which the server of *plain* belongs."""
    options = plain.connection_pool.connection_kwargs
    kept = ("host", "port", "username", "password", "protocol")
    return RedisCluster(
        **{
            name: value
            for name, value in options.items()
            if value is not None and (name in kept or name.startswith("ssl_"))
        },
        ssl="SSL" in plain.connection_pool.connection_class.__name__,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 0),
    )


class ClusterNodes:
    """The nodes of a Cluster, with a breaker each.

    Args:
        client: The Cluster's client.
        failures, probe_seconds: See `Breaker`.
    """

    def __init__(self, client: RedisCluster, failures: int, probe_seconds: float) -> None:
        self._client = client
        self._failures = failures
        self._probe_seconds = probe_seconds
        self._breakers: dict[str, Breaker] = {}
        self._moved = False

    def _breaker(self, node: ClusterNode) -> Breaker:
        name: str = node.name
        if name not in self._breakers:
            self._breakers[name] = Breaker(
                name,
                failures=self._failures,
                probe_seconds=self._probe_seconds,
                answered=(ResponseError, MaxConnectionsError),
            )
        return self._breakers[name]

    async def run(
        self, commands: Sequence[tuple[Any, ...]], timeout: float, **how: Any
    ) -> list[Any]:
        """Return the result of every command, in order; an exception for each that failed.

        Args:
            commands: Each with its key in the second place.
            timeout: Seconds for each node.
            how: Options of redis-py for all of them.

        Raises:
            Exception: If no node answered.
        """
        await self._client.initialize()
        groups: dict[ClusterNode, list[int]] = {}
        for place, command in enumerate(commands):
            node = self._client.get_node_from_key(command[1])
            if node is not None:
                groups.setdefault(node, []).append(place)
        answers = await asyncio.gather(
            *(
                self._ask(node, [commands[place] for place in places], timeout, how)
                for node, places in groups.items()
            ),
            return_exceptions=True,
        )
        results: list[Any] = [None] * len(commands)
        for places, found in zip(groups.values(), answers, strict=True):
            if isinstance(found, BaseException) and not isinstance(found, Exception):
                raise found
            for number, place in enumerate(places):
                results[place] = found if isinstance(found, Exception) else found[number]
        failed = [found for found in answers if isinstance(found, Exception)]
        if failed and len(failed) == len(answers):
            # The original error, so that the breaker of the whole Cluster counts it.
            raise failed[0].__cause__ or failed[0]
        return results

    async def _ask(
        self,
        node: ClusterNode,
        commands: Sequence[tuple[Any, ...]],
        timeout: float,
        how: dict[str, Any],
    ) -> list[Any]:
        try:
            with self._breaker(node):
                async with Deadline(timeout):
                    for _ in range(_ATTEMPTS - 1):
                        try:
                            return await self._pipeline(commands, how)
                        except RedisConnectionError:
                            continue
                    return await self._pipeline(commands, how)
        except BackendError:
            # Its slots may have moved to another node.
            self._moved = True
            raise

    async def _pipeline(
        self, commands: Sequence[tuple[Any, ...]], how: dict[str, Any]
    ) -> list[Any]:
        pipe: Any = self._client.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command, **how)
        return list(await pipe.execute(raise_on_error=False))

    async def any_node(self, *command: Any, timeout: float) -> Any:
        """Return the answer of the first available node, beginning with the default one.

        Raises:
            Exception: If none answers.
        """
        await self._client.initialize()
        await self._look_around(timeout)
        default = self._client.get_default_node()
        primaries = self._client.get_primaries()
        failure: Exception = ConnectionError("a Cluster without nodes")
        for node in [default, *(other for other in primaries if other != default)]:
            try:
                async with Deadline(timeout / 3):
                    found = await node.execute_command(*command)
            except Exception as error:  # noqa: BLE001 - the next one is asked
                failure = error
                self._moved = True
                continue
            if node != default:
                self._client.set_default_node(node)
            return found
        raise failure

    async def scan(self, number: int, command: Sequence[Any]) -> tuple[Any, bool]:
        """Return the reply of the master of this number, and whether there are others after it."""
        await self._client.initialize()
        masters = sorted(self._client.get_primaries(), key=lambda node: str(node.name))
        return await masters[number].execute_command(*command), number + 1 < len(masters)

    async def _look_around(self, timeout: float) -> None:
        """Read the assignment of slots to nodes again after a failure."""
        if not self._moved:
            return
        self._moved = False
        try:
            async with Deadline(timeout / 3):
                await self._client.nodes_manager.initialize()
        except Exception:  # noqa: BLE001 - the old assignment is better than none
            self._moved = True
