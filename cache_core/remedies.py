"""What to do about a backend that fails, in words, at most one line a second for each failure."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from cache_core.exceptions import BackendError
from cache_core.logs import RateLimited

_log = RateLimited(logging.getLogger("glasscache"))

_REMEDIES: Mapping[str, str] = {
    "AuthenticationError": "Check user and password in REDIS_URL",
    "AuthenticationWrongNumberOfArgsError": "Check user and password in REDIS_URL",
    "NoPermissionError": "The Redis user may not do this: compare its ACL with compose/redis.acl",
    "OutOfMemoryError": "Redis is full: raise maxmemory, or set maxmemory-policy to allkeys-lru",
    "ReadOnlyError": "This Redis is a replica: name the master, or give redis_pool= of a Sentinel",
    "BusyLoadingError": "Redis is loading its data; wait for it",
    "ClusterDownError": "The Cluster lacks a master: see CLUSTER NODES",
    "MasterNotFoundError": "The Sentinels know no master: see SENTINEL MASTERS",
    "MaxConnectionsError": "The pool given as redis_pool= has too few connections",
    "DiskFullError": "Make room on the disk of CACHE_DIR",
    "FileLockedError": "Another process holds CACHE_DIR's database: see which one writes so long",
    "ReadOnlyFileError": "Make CACHE_DIR writable, or name another one",
    "InternalError": "See whether CACHE_DIR has room and is sound",
    "ModelUnavailable": "The embedding model cannot be loaded: see the error at the start",
    "NobodySearched": "A process with L2 has to look for similar questions: see why it does not",
    "QueueTimeout": "More is asked than this machine answers in time: add replicas",
}
_BY_TEXT: Mapping[str, str] = {
    "max number of clients": "Redis has too many clients: raise maxclients, or find who leaks them",
    "MISCONF": "Redis cannot save to its disk and takes no writes: see its log",
    "NOAUTH": "Put the password into REDIS_URL",
    "WRONGPASS": "Check user and password in REDIS_URL",
}
_LATE = "It is stopped or slow: look at it, or raise the budgets (glasscache settings)"
_AWAY: Mapping[str, str] = {
    "redis": "See whether it runs where REDIS_URL says",
    "chroma": "See whether it runs where CHROMA_URL says",
}
_SOMETHING_AWAY = "See whether it runs where REDIS_URL or CHROMA_URL says"


def remedy(error: BackendError) -> str:
    """Return one sentence, without a full stop, on what to do about *error*."""
    text = str(error)
    for part, found in _BY_TEXT.items():
        if part in text:
            return found
    if error.error_type in _REMEDIES:
        return _REMEDIES[error.error_type]
    if error.reason == "timeout":
        return _LATE
    return _AWAY.get(error.backend, _SOMETHING_AWAY)


def tell(what: str, error: BackendError) -> None:
    """Log that *what* failed, and what to do.

    Once a second for each kind of failure, whoever met it: the tiers share their backends. That a
    breaker is open is no line of its own: what its probes meet is told.
    """
    if error.reason != "breaker_open":
        _log.limited(
            error.error_type,
            "%s: %s (%s); lookups go on without it. %s",
            what,
            error.reason,
            error.error_type,
            remedy(error),
        )
