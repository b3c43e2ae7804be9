"""Clients of Redis that fail fast and cost a lookup little."""

from __future__ import annotations

from typing import Any

import hiredis
import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff


def connect(url: str, *, timeout: float, connections: int = 64) -> redis.Redis:
    """Return a client that fails fast.

    redis-py's defaults retry a stopped server for a minute. RESP2, because redis-py 8.1 hands out
    connections that the server closed under RESP3 (redis-py #4252). Commands have no time limit
    of redis-py's: it takes a task and two timers each, a third of a GET, and the store's own
    deadline covers the whole batch.
    """
    client = redis.Redis.from_url(
        url,
        protocol=2,
        socket_timeout=None,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 1),
        max_connections=connections,
        health_check_interval=0,
    )
    pool = client.connection_pool
    pool.connection_class = _packing(pool.connection_class)
    return client


class _Packing:
    """A connection that packs commands in C, as redis-py's synchronous ones do.

    In Python the names of six keys take longer to pack than the server takes to find them.
    """

    def pack_command(self, *args: Any) -> list[bytes]:
        """Return a command as it is sent; its name may be of several words."""
        return [hiredis.pack_command((*args[0].split(), *args[1:]))]


def _packing(connection: type[Any]) -> type[Any]:
    """Return a class of connections that is *connection*, but for how commands are packed."""
    return type(connection.__name__, (_Packing, connection), {})
