"""Redis clients that fail fast and add little to a lookup."""

from __future__ import annotations

import copy
from typing import Any

import hiredis
import redis.asyncio as redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from cache_core.backends.redis.sentinels import SCHEMES, parse_sentinel_url
from cache_core.model.exceptions import ConfigurationError

_WANTED = (
    "redis_pool= takes a redis.asyncio connection pool (of a Sentinel's master, too), "
    "redis.asyncio.Redis or RedisCluster"
)


def connect(url: str, *, timeout: float, connections: int = 64) -> redis.Redis:
    """Return a client that fails fast.

    redis-py's defaults retry a stopped server for a minute. RESP2 unless the URL says `protocol=3`,
    because redis-py 8.1 hands out connections that the server closed under RESP3 (redis-py #4252).
    redis-py's own command timeout is off: it takes a task and two timers each, a third of a GET,
    and the store's own deadline covers the whole batch.

    Raises:
        ValueError: If redis-py does not understand the URL.
    """
    options: dict[str, Any] = {
        "protocol": 2,
        "socket_timeout": None,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 1),
        "max_connections": connections,
        "health_check_interval": 0,
    }
    if url.startswith(SCHEMES):
        client = _through_sentinels(url, options, timeout)
    else:
        client = redis.Redis.from_url(url, **options)
    pool = client.connection_pool
    pool.connection_class = _packing(pool.connection_class)
    return client


def _through_sentinels(url: str, options: dict[str, Any], timeout: float) -> redis.Redis:
    """Return a client of the master named by the Sentinels of *url*, also after a failover."""
    address = parse_sentinel_url(url)
    own: dict[str, Any] = dict(parse_url(address.server))
    own.pop("host", None)
    own["ssl"] = own.pop("connection_class", None) is not None
    # A silent Sentinel must leave time to ask another.
    each = timeout / 2
    untyped: Any = Sentinel
    sentinels = untyped(
        address.sentinels,
        sentinel_kwargs={
            **address.login,
            "protocol": 2,
            "socket_timeout": each,
            "socket_connect_timeout": each,
            "retry": Retry(NoBackoff(), 0),
        },
        **{**options, **own},
    )
    client: redis.Redis = sentinels.master_for(address.service)
    return client


def refusing(why: str) -> redis.Redis:
    """Return a client whose every connection fails with *why*, for a URL without an address."""

    class Refused(redis.Connection):
        async def connect(self, *_: Any, **__: Any) -> None:
            raise redis.ConnectionError(why)

        async def connect_check_health(self, *_: Any, **__: Any) -> None:
            raise redis.ConnectionError(why)

    pool: Any = redis.ConnectionPool(connection_class=Refused, retry=Retry(NoBackoff(), 0))
    return redis.Redis(connection_pool=pool)


def client_of(given: Any) -> redis.Redis | RedisCluster:
    """Return a client for an application's *redis_pool*.

    Raises:
        TypeError: If it is no asynchronous pool or client.
        ConfigurationError: If it is a pool of a Sentinel's replicas, which take no writes.
    """
    if isinstance(given, RedisCluster):
        return given
    if isinstance(given, redis.Redis):
        given = given.connection_pool
    if isinstance(given, Sentinel):
        raise TypeError(f"{_WANTED}; of a Sentinel: sentinel.master_for('its name')")
    if not isinstance(given, redis.ConnectionPool):
        kind = f"{type(given).__module__}.{type(given).__qualname__}"
        hint = "; that one is synchronous" if kind.startswith("redis.") else ""
        raise TypeError(f"{_WANTED}, not {kind}{hint}")
    if getattr(given, "is_master", True) is False:
        raise ConfigurationError(
            "redis_pool= is a pool of replicas, which take no writes: use sentinel.master_for(...)"
        )
    return redis.Redis(connection_pool=given)


class _Packing:
    """Connection that packs commands in C, as redis-py's synchronous ones do.

    Packing the names of six keys in Python takes longer than the server takes to find them.
    """

    def pack_command(self, *args: Any) -> list[bytes]:
        """Return a command as sent; its name may have several words."""
        return [hiredis.pack_command((*args[0].split(), *args[1:]))]


def _packing(connection: type[Any]) -> type[Any]:
    """Return a subclass of *connection* that packs commands in C."""
    return type(connection.__name__, (_Packing, connection), {})


def pool_like(pool: Any) -> Any:
    """Return a new pool with the address and options of *pool*, for another event loop.

    Args:
        pool: A redis-py asyncio pool, or a client with one; anything else is returned unchanged.
    """
    pool = getattr(pool, "connection_pool", pool)
    if not isinstance(pool, redis.ConnectionPool):
        return pool
    own = {"connection_pool", "himport_registry", "maint_notifications_pool_handler"}
    options = {name: value for name, value in pool.connection_kwargs.items() if name not in own}
    options |= {"connection_class": pool.connection_class, "max_connections": pool.max_connections}
    if isinstance(pool, redis.SentinelConnectionPool):
        manager = copy.copy(pool.sentinel_manager)
        manager.sentinels = [
            redis.Redis(connection_pool=pool_like(sentinel.connection_pool))
            for sentinel in manager.sentinels
        ]
        untyped: Any = redis.SentinelConnectionPool
        return untyped(
            pool.service_name,
            manager,
            is_master=pool.is_master,
            check_connection=pool.check_connection,
            **options,
        )
    if isinstance(pool, redis.BlockingConnectionPool):
        return redis.BlockingConnectionPool(timeout=pool.timeout, **options)
    return redis.ConnectionPool(**options)
