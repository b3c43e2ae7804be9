"""Choice of the vector index: a Chroma server, Redis' vector sets, or Chroma in this process."""

from __future__ import annotations

import importlib
import logging
from dataclasses import replace
from typing import Any

from cache_core.backends.base import KeyValueStore, Limits
from cache_core.backends.memory_index import MOST_ROWS, MemoryIndex
from cache_core.config.environment import origin
from cache_core.config.settings import Settings
from cache_core.model.exceptions import ConfigurationError
from cache_core.model.keys import PREFIX, Keys
from cache_core.model.tasks import off_loop
from cache_core.runtime.assembly import (
    OF_CHROMA,
    Given,
    check_installed,
    index_directory,
    redis_client,
)

log = logging.getLogger("glasscache")

_FORKED = (
    "this process was forked from one that had used the embedded Chroma, which no child can use "
    "after that: its semantic index is in memory, the newest %d shared answers. Open the cache "
    "after the fork only (gunicorn: post_fork), or set CHROMA_URL"
)

_NO_SERVER = (
    "chromadb-client has no embedded Chroma: set CHROMA_URL, or replace it (pip uninstall "
    "chromadb-client; pip install 'glasscache[semantic]')"
)

_logged: set[str] = set()


async def make_index(
    settings: Settings, given: Given, store: KeyValueStore, keys: Keys, identity: str
) -> Any:
    """Return the index of shared answers, not open yet.

    Args:
        settings: Choose it.
        given: May have a pool of Redis connections.
        store: The keyed store, whose directory an embedded index is in.
        keys: Names, with the digest of the model.
        identity: Identity of the model.

    Raises:
        BackendError: If Redis is unavailable, and has to be asked whether it has vector sets.
        ConfigurationError: If the wanted vector sets are not there.
        ModuleNotFoundError: If Chroma is not installed.
    """
    found = await _redis_index(settings, given, keys)
    return await _chroma_index(settings, store, keys, identity) if found is None else found


def _limits(settings: Settings) -> Limits:
    return Limits(
        search_timeout=settings.search_budget,
        max_contexts=settings.max_contexts,
        breaker_failures=settings.breaker_failures,
        breaker_probe=settings.breaker_probe,
    )


async def _redis_index(settings: Settings, given: Given, keys: Keys) -> Any:
    """Return an index in vector sets; `None` if there is to be none."""
    wanted = settings.vectors == "redis"
    if settings.vectors == "chroma" or (settings.chroma_url and not wanted):
        return None
    if given.redis_pool is None and not settings.redis_url:
        if wanted:
            raise ConfigurationError("CACHE_VECTORS=redis needs REDIS_URL or redis_pool=")
        return None
    from cache_core.backends.redis.vectors import RedisVectors

    index = RedisVectors(
        redis_client(settings, given.redis_pool),
        name=keys.own,
        model=keys.model,
        default_context=keys.no_context,
        limits=replace(_limits(settings), write_timeout=settings.put_budget / 2),
        owned=given.redis_pool is None,
    )
    index.breaker.where = "redis_pool="
    if given.redis_pool is None:
        index.breaker.where = origin("redis_url", settings.redis_url)
    try:
        missing = await index.lacks()
    except BaseException:
        await index.close()
        raise
    if not missing:
        return index
    await index.close()
    if wanted:
        raise ConfigurationError(f"CACHE_VECTORS=redis: {missing}")
    if missing not in _logged:
        _logged.add(missing)
        log.info("vectors: %s, so Chroma is used in this process", missing)
    return None


async def _chroma_index(settings: Settings, store: KeyValueStore, keys: Keys, identity: str) -> Any:
    """Return an index on Chroma; in memory where no directory is usable.

    Raises:
        ConfigurationError: If only a server can be used, and none is named.
        ModuleNotFoundError: If Chroma is not installed.
    """
    check_installed(OF_CHROMA)
    # Off the event loop, because importing Chroma takes most of a second.
    module = await off_loop(importlib.import_module, "cache_core.backends.chroma.index")
    if not settings.chroma_url and module.is_thin_client():
        raise ConfigurationError(_NO_SERVER)
    directory = None if settings.chroma_url else index_directory(settings, store)
    embedded = directory is not None and module.can_be_embedded()
    if not (settings.chroma_url or embedded):
        if directory is not None:
            log.warning(_FORKED, MOST_ROWS)
        return MemoryIndex(settings.max_contexts)
    index = module.ChromaIndex(
        namespace=_namespace(settings, keys),
        model=identity,
        default_context=keys.no_context,
        directory=directory,
        url=settings.chroma_url,
        limits=_limits(settings),
    )
    index.breaker.where = "CACHE_DIR"
    if settings.chroma_url:
        index.breaker.where = origin("chroma_url", settings.chroma_url)
    return index


def _namespace(settings: Settings, keys: Keys) -> str:
    """Return the namespace in Chroma, with the keys' prefix unless it is the default."""
    own = settings.prefix == PREFIX
    return keys.namespace if own else f"{settings.prefix}:{keys.namespace}"
