"""Redis clients that fail fast and add little to a lookup."""

from __future__ import annotations

import contextlib
import copy
import inspect
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import hiredis
import redis.asyncio as redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from cache_core.backends.redis.discovery import Sentinels
from cache_core.backends.redis.sentinels import SCHEMES, SentinelAddress, parse_sentinel_url
from cache_core.model.exceptions import ConfigurationError

_WANTED = (
    "redis_pool= takes a redis.asyncio connection pool (of a Sentinel's master, too), "
    "redis.asyncio.Redis or RedisCluster"
)
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


def connect(url: str, *, timeout: float, connections: int = 64) -> redis.Redis:
    """Return a client that fails fast.

    redis-py's defaults retry a stopped server for a minute. RESP2 unless the URL says `protocol=3`,
    because redis-py 8.1 hands out connections that the server closed under RESP3 (redis-py #4252).
    redis-py's own command timeout is off: it takes a task and two timers each, a third of a GET,
    and the store's own deadline covers the whole batch.

    Raises:
        Exception: Any error of redis-py for a URL with an option or a database that cannot be.
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
        address = parse_sentinel_url(url)
        client, url = _through_sentinels(address, options, timeout), address.server
    else:
        client = redis.Redis.from_url(url, **options)
    pool = client.connection_pool
    pool.connection_class = _packing(pool.connection_class)
    _prepare(url, pool)
    return client


def _prepare(url: str, pool: redis.ConnectionPool) -> None:
    """Check the options of *pool* by making a connection of it, which connects to nothing.

    Raises:
        Exception: `ValueError`, or any error of redis-py, for an option or a database that cannot
            be.
    """
    connection: Any = pool.connection_class(**pool.connection_kwargs)
    if (driver := getattr(connection, "driver_info", None)) is not None:
        # redis-py reads its package's metadata for each connection otherwise, which takes 2 ms.
        pool.connection_kwargs.setdefault("driver_info", driver)
    path = urlsplit(url).path.rpartition("/")[2]
    if not url.startswith("unix://") and path and not path.isdecimal():
        raise ValueError(f"{path!r} is not the number of a database")


def _through_sentinels(
    address: SentinelAddress, options: dict[str, Any], timeout: float
) -> redis.Redis:
    """Return a client of the master that the Sentinels name, also after a failover."""
    own: dict[str, Any] = dict(parse_url(address.server))
    own.pop("host", None)
    own["ssl"] = own.pop("connection_class", None) is not None
    # A silent Sentinel must leave time to ask another.
    each = timeout / 2
    tls = {name: value for name, value in own.items() if name.startswith("ssl_")}
    untyped: Any = Sentinels
    sentinels = untyped(
        address.sentinels,
        sentinel_kwargs={
            **address.login,
            **({"ssl": True, **tls} if address.tls else {}),
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
        if given.read_from_replicas or given.load_balancing_strategy:
            raise ConfigurationError(
                "redis_pool= is a RedisCluster that reads from replicas, which may not know of an "
                "invalidation yet: use one without load_balancing_strategy= and read_from_replicas="
            )
        return given
    if isinstance(given, redis.Redis):
        given = given.connection_pool
    if isinstance(given, Sentinel):
        raise TypeError(f"{_WANTED}; of a Sentinel: sentinel.master_for('its name')")
    if not isinstance(given, redis.ConnectionPool):
        kind = f"{type(given).__module__}.{type(given).__qualname__}"
        synchronous = kind.startswith("redis.") and not kind.startswith("redis.asyncio.")
        hint = "; that one is synchronous" if synchronous else ""
        raise TypeError(f"{_WANTED}, not {kind}{hint}")
    if getattr(given, "is_master", True) is False:
        raise ConfigurationError(
            "redis_pool= is a pool of replicas, which take no writes: use sentinel.master_for(...)"
        )
    return redis.Redis(connection_pool=given)


class _Connection:
    """Connection that packs commands in C, and shares what TLS needs with others of its kind.

    Packing the names of six keys in Python takes longer than the server takes to find them, and
    loading the authorities' certificates longer than a lookup may.
    """

    _contexts: dict[Any, Any]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._files = {name: path for name in _FILES if (path := options.get(name)) is not None}
        tls = getattr(self, "ssl_context", None)
        if tls is not None:
            self._share(tls)

    async def _connect(self) -> None:
        """Connect; raises `ConnectionError` for a file that may be there the next time."""
        self._check_files()
        connection: Any = super()
        await connection._connect()  # noqa: SLF001 - the only place before the handshake

    def _check_files(self) -> None:
        """Raise `ConnectionError` for a file of certificates that cannot be read."""
        for name, path in self._files.items():
            try:
                Path(path).read_bytes()
            except OSError as error:
                words = f"{name}={path} cannot be read: {error.strerror}"
                raise redis.ConnectionError(words) from error

    def _share(self, tls: Any) -> None:
        """Give *tls* the context made last, unless the files have changed since."""
        # Files that cannot be read, or used, are an error of connecting.
        with contextlib.suppress(OSError):
            stats = [Path(path).stat() for path in self._files.values()]
            state = tuple((item.st_ino, item.st_size, item.st_mtime_ns) for item in stats)
            if state not in self._contexts:
                made = tls.get()
                self._contexts.clear()
                self._contexts[state] = made
            tls.context = self._contexts[state]

    def pack_command(self, *args: Any) -> list[bytes]:
        """Return a command as sent; its name may have several words."""
        return [hiredis.pack_command((*args[0].split(), *args[1:]))]


def _packing(connection: type[Any]) -> type[Any]:
    """Return a subclass of *connection* that is a `_Connection`."""
    return type(connection.__name__, (_Connection, connection), {"_contexts": {}})


def pool_like(pool: Any) -> Any:
    """Return a new pool with the address and options of *pool*, for another event loop.

    Args:
        pool: A redis-py asyncio pool, a client with one, or a client of a Cluster; anything else
            is returned unchanged.
    """
    if isinstance(pool, RedisCluster):
        return _cluster_like(pool)
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


def _cluster_like(client: RedisCluster) -> RedisCluster:
    nodes = client.nodes_manager
    accepted = inspect.signature(RedisCluster).parameters
    options = {name: it for name, it in client.connection_kwargs.items() if name in accepted}
    return RedisCluster(
        startup_nodes=[*client.startup_nodes, *nodes.nodes_cache.values()],
        ssl="SSL" in client.connection_kwargs["connection_class"].__name__,
        require_full_coverage=nodes.require_full_coverage,
        reinitialize_steps=client.reinitialize_steps,
        retry=copy.deepcopy(client.retry),
        address_remap=nodes.address_remap,
        **options,
    )
