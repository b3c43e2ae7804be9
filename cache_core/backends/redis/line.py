"""Round trips over one connection of redis-py, without what its client adds to each."""

from __future__ import annotations

import asyncio
from types import FunctionType
from typing import Any, TypeAlias

import redis.asyncio as redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import MaxConnectionsError, ResponseError

Commands: TypeAlias = list[tuple[Any, ...]]
"""Commands of one caller, in order."""

_TRIES, _PAUSE = 10, 0.002
"""Waits, and the seconds of each, for a connection of an application's pool that has none left.

A pool smaller than the lanes is exhausted for the length of a round trip.
"""

RAW: dict[str, Any] = {"NEVER_DECODE": True}
"""With a pool of decode_responses=True one undecodable value would fail the whole batch."""


class Line:
    """One round trip at a time, over one connection of the client's pool.

    redis-py's client takes as long for a command as its connection does; a pipeline longer. They
    are used where the connection is not ours to keep, and where somebody watches them.

    Args:
        client: A client of one server, whose commands are sent.
        owned: Whether the client was made for this store.
    """

    def __init__(self, client: redis.Redis | RedisCluster, *, owned: bool) -> None:
        self._client = client
        # A client that a Sentinel manages finds the new master only through its pool.
        self._direct = (
            owned
            and isinstance(client, redis.Redis)
            and not isinstance(client.connection_pool, SentinelConnectionPool)
        )
        self._connection: Any = None

    async def run(self, commands: Commands) -> list[Any]:
        """Return the reply to each command; an error that the server answers is a reply.

        Raises:
            redis.exceptions.RedisError, OSError: If the server cannot be reached.
        """
        if not self._direct or is_watched():
            return await _through_client(self._client, commands)
        if self._connection is None:
            pool: Any = self._client.connection_pool  # type: ignore[union-attr]  # no Cluster has one
            self._connection = await pool.get_connection()
        try:
            return await _exchange(self._connection, commands)
        except (LostError, OSError):
            # The server may have closed it while it was idle; redis-py's client tries again, too.
            await self._connection.disconnect(nowait=True)
            return await _exchange(self._connection, commands)

    async def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect()

    def abandon(self) -> None:
        """Leave the connection to the garbage collector: it belongs to the loop that ended."""
        self._connection = None


def is_watched() -> bool:
    """Return whether redis-py's client was instrumented, so that spans of its commands are due."""
    function = redis.Redis.execute_command
    return not (
        type(function) is FunctionType and function.__code__.co_qualname == "Redis.execute_command"
    )


async def _exchange(connection: Any, commands: Commands) -> list[Any]:
    await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
    replies: list[Any] = []
    for _ in commands:
        try:
            replies.append(await connection.read_response(disable_decoding=True))
        except ResponseError as error:
            replies.append(error)
    return replies


async def _through_client(client: Any, commands: Commands) -> list[Any]:
    for _ in range(_TRIES):
        try:
            return await _asked(client, commands)
        except MaxConnectionsError:
            await asyncio.sleep(_PAUSE)
    return await _asked(client, commands)


async def _asked(client: Any, commands: Commands) -> list[Any]:
    if len(commands) == 1:
        try:
            return [await client.execute_command(*commands[0], **RAW)]
        except ResponseError as error:
            return [error]
    pipe = client.pipeline(transaction=False)
    for command in commands:
        pipe.execute_command(*command, **RAW)
    return list(await pipe.execute(raise_on_error=False))
