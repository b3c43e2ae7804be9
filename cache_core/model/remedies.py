"""Remedies for failing backends, in words, and the backends' own messages."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from cache_core.model.exceptions import BackendError
from cache_core.model.logs import RateLimited
from cache_core.model.urls import without_secrets

_log = RateLimited(logging.getLogger("glasscache"), longest=60.0)

# {where} is the setting to change, such as REDIS_URL or redis_pool=
_LOGIN = "Check the user and password in {where}"
_NO_MASTER = "The Cluster lacks a master: see CLUSTER NODES"
_LOCKED = "Another process holds CACHE_DIR's database: see which one writes so long"
_OTHER_LOOP = "Give this cache a pool in {where} that no other event loop uses, or redis_url="
_FILES_OF_TLS = "Correct the files of certificates that {where} names"
_BY_TEXT: Mapping[str, str] = {
    " is refused: ": "Correct {where}, or unset it",
    "max number of clients": "Redis has too many clients: raise maxclients, or find who leaks them",
    "MISCONF": "Redis cannot save to its disk and takes no writes: see its log",
    "NOAUTH": "Put the password into {where}",
    "WRONGPASS": _LOGIN,
    "'scan' command": "Name a Redis user that may SCAN in {where} for this command: agents may not",
    "unknown command 'SENTINEL'": "No Sentinel answers there: name Sentinels in {where}",
    "is down for its Sentinels": "Wait for the failover; if there is none, see SENTINEL MASTERS",
    "unknown command 'TIME'": "A Sentinel answers there, or no Redis: for Sentinels write "
    "redis+sentinel://host:port/name-of-master in {where}",
    "unknown command": "Redis 5.0 or later is needed, with the commands in compose/redis.acl",
    "NOREPLICAS": "This Redis lacks the replicas that it needs to take writes: see "
    "min-replicas-to-write",
    "Cluster mode is not enabled": "This Redis is no Cluster: give redis_url=, or a "
    "redis.asyncio.Redis",
    "SELECT is not allowed in cluster": "A Cluster has only database 0: name no other in {where}",
    "slots are not covered": _NO_MASTER,
    "running in protected mode": "Give this Redis a password, and put it in {where}",
    "DB index is out of range": "Name a database that the server has in {where}",
    "answers without TLS": "Write redis:// in {where}, or turn on TLS in the server",
    "answers with TLS only": "Write rediss:// in {where}",
    "wrong version number": "The server does not speak TLS: use redis:// or http:// in {where}",
    " cannot be read: ": _FILES_OF_TLS,
    "[X509: ": _FILES_OF_TLS,
    "certificate has expired": "The server's certificate has expired: renew it",
    "certificate is not yet valid": "The server's certificate is not valid yet: check the clocks "
    "of both machines",
    "certificate is not valid for": "The server's certificate is for other hosts: name one of them "
    "in {where}",
    "certificate required": "The server asks for a client certificate: name its files in {where}, "
    "as ssl_certfile and ssl_keyfile",
    "CERTIFICATE_VERIFY_FAILED": "The server's certificate is not trusted here: check {where} and "
    "the certificates of this machine",
    "] not found": "Create that tenant or database in Chroma, or name another in {where}",
    "SSL_CERT": "Correct that variable, or unset it",
    "Name or service not known": "Check the host name in {where}",
    "Temporary failure in name resolution": "Check the host name in {where}, and the name server",
    "HTTP 401": _LOGIN,
    "HTTP 403": "The server does not let this user in: check the login in {where}",
    "HTTP 404": "Something else answers there: check the host, port and path in {where}",
    "HTTP 3": "Set {where} to where the server redirects",
    "store is not open": "It was closed, or see in the log why it could not be opened",
    "database is locked": _LOCKED,
    "Too many open files": "Raise the limit of open files (ulimit -n), or see what leaks them",
    "can't start new thread": "Raise the limit of threads (ulimit -u, or pids of the container)",
    "attached to a different loop": _OTHER_LOOP,
    "Event loop is closed": _OTHER_LOOP,
    "Error: Sentinel ": "Check that the Sentinels run and that {where} names them, with "
    "?sentinel_ssl=true if they take TLS only",
    "dimension": "Vectors of another model are in this index: give each model a name of its own",
}
_REMEDIES: Mapping[str, str] = {
    "AuthenticationError": _LOGIN,
    "AuthenticationWrongNumberOfArgsError": _LOGIN,
    "NoPermissionError": "The Redis user may not do this: compare its ACL with compose/redis.acl; "
    "the prefix of all keys and channels is CACHE_PREFIX",
    "OutOfMemoryError": "Redis is full: raise maxmemory, or set maxmemory-policy to allkeys-lru",
    "ReadOnlyError": "This Redis is a replica: name its master in {where}",
    "BusyLoadingError": "Redis is loading its data; wait for it",
    "InvalidResponse": "Something else answers there: check the host and port in {where}",
    "ClusterDownError": _NO_MASTER,
    "MovedError": "This is a node of a Cluster: give redis_url=, or a redis.asyncio.RedisCluster",
    "MasterDownError": "This Redis is a replica without its master: name a master in {where}",
    "UnicodeDecodeError": "Give a pool in {where} that decodes UTF-8, or none at all",
    "MasterNotFoundError": "The Sentinels know no master of that name, or it is down: see "
    "SENTINEL MASTERS, and check {where}",
    "MaxConnectionsError": "Allow more connections in {where}: the cache takes five",
    "DiskFullError": "Make room on the disk of CACHE_DIR",
    "FileLockedError": _LOCKED,
    "ReadOnlyFileError": "Make CACHE_DIR writable, or name another one",
    "PermissionError": "Make CACHE_DIR writable, or name another one",
    "InternalError": "See whether CACHE_DIR has room and is sound",
    "ModelUnavailable": "The embedding model cannot be loaded: see the error at the start",
    "NobodySearched": "A process with L2 has to look for similar questions: see why it does not",
    "QueueTimeout": "More is asked than this machine answers in time: add replicas",
    "QueueFull": "More is asked than this machine answers in time: add replicas",
}
_REFUSED_RATE = "The embedding endpoint limits the rate: ask for more, or use another one"
_NO_ENDPOINT = "Check that the embedding endpoint runs and that EMBEDDING_URL names it"
_OF_EMBEDDERS: Mapping[str, str] = {
    **{name: _REMEDIES[name] for name in ("ModelUnavailable", "QueueTimeout", "QueueFull")},
    "HTTP 400": "The embedding endpoint refuses the request: check EMBEDDING_MODEL",
    "HTTP 401": "Check EMBEDDING_API_KEY",
    "HTTP 403": "Check EMBEDDING_API_KEY, and what it may do",
    "HTTP 404": "Check EMBEDDING_URL, without /embeddings, and EMBEDDING_MODEL",
    "HTTP 429": _REFUSED_RATE,
    "HTTP 503": _REFUSED_RATE,
    "CertificateError": "The endpoint's certificate is not trusted here: check EMBEDDING_URL, the "
    "certificate and SSL_CERT_FILE",
    "ConnectError": _NO_ENDPOINT,
    "ConnectTimeout": _NO_ENDPOINT,
    "InvalidVectorError": "The embedding model returns no usable vectors: see the log",
    "MalformedResponse": "What answers at EMBEDDING_URL is no OpenAI-compatible endpoint",
}
_LATE: Mapping[str, str] = {
    "redis": "Redis is stopped or slow: check the server that {where} names",
    "chroma": "Chroma is stopped or slow: check the server that {where} names",
    "vectors": "Redis is stopped or slow: check the server that {where} names",
    "embedded": "The disk of {where} is slow: check it",
    "embedder": "The embedding model, {where}, is slow: check it",
}
_BUDGETS = ", or raise the budgets (glasscache settings budget)"
_OTHERWISE: Mapping[str, str] = {
    "redis": "Check that Redis runs and that {where} names it",
    "chroma": "Check that Chroma runs and that {where} names it",
    "vectors": "Check that Redis, with its vector sets, runs and that {where} names it",
    "embedded": "Check that the disk of {where} has room, is writable and has file locks",
    "embedder": "See what the embedding model, {where}, says in the log",
}
_FILES = "Check that the disk of CACHE_DIR has room, is writable and has file locks"
_USUAL: Mapping[str, str] = {
    "redis": "its address",
    "chroma": "its address",
    "vectors": "its address",
    "embedded": "CACHE_DIR",
    "embedder": "EMBEDDING_MODEL",
}
_SERVERS: Mapping[str, str] = {"vectors": "redis"}
"""Backends on the server of another: an outage of it is logged once."""

_LONGEST = 200
_ARGUMENTS = "with args beginning with"

OPENING = "wait: it is being opened"
CONNECTING = "wait: it is being connected"
LOADING = "wait: the embedding model is loading"
NO_MODEL = (
    "the embedding model cannot be loaded: see the log, or set CACHE_TIERS=l1,l3,l4 to do without "
    "L2"
)


def remedy(error: BackendError) -> str:
    """Return a remedy for *error*: one sentence without a full stop."""
    where = error.where or _USUAL.get(error.backend, "its address")
    return _remedy(error).format(where=where)


def _remedy(error: BackendError) -> str:
    text = f"{error.error_type}: {error}"
    if error.reason == "breaker_open":
        return "The log says what failed before"
    if error.backend != "embedder":
        for part, found in _BY_TEXT.items():
            if part in text:
                return found
        if error.error_type in _REMEDIES:
            return _REMEDIES[error.error_type]
    elif error.error_type in _OF_EMBEDDERS:
        return _OF_EMBEDDERS[error.error_type]
    files = error.backend == "chroma" and error.where == "CACHE_DIR"
    if error.reason == "timeout":
        late = f"{error.backend or 'The backend'} is stopped or slow: check it"
        return _LATE.get("embedded" if files else error.backend, late) + _BUDGETS
    if files:
        return _FILES
    if error.backend in _OTHERWISE:
        return _OTHERWISE[error.backend]
    return f"Check that {error.backend} runs" if error.backend else "See the log of that backend"


def said(error: BackendError) -> str:
    """Return the backend's message, on one line, without secrets.

    An embedder's message may quote its input: only its type is returned. Redis quotes the arguments
    of a command that it does not know: they are cut off.
    """
    words = " ".join(str(error).partition(_ARGUMENTS)[0].split()).rstrip(" .:,")
    if error.backend in {"", "embedder"} or words in {"", error.reason}:
        return error.error_type
    words = without_secrets(words) if "://" in words else words
    shown = words if len(words) <= _LONGEST else words[: _LONGEST - 3] + "..."
    return shown if shown.startswith(error.error_type) else f"{error.error_type}: {shown}"


def log_failure(what: str, error: BackendError) -> None:
    """Log that *what* failed, the backend's message, and a remedy.

    At first once a second per kind of failure, less and less often while it lasts, across all
    tiers, which share their backends. An open breaker gets no line: its probes' failures do.
    """
    if error.reason != "breaker_open":
        server = _SERVERS.get(error.backend, error.backend)
        _log.limited(
            f"{server} {error.error_type}",
            "%s: %s (%s); lookups continue without it. %s",
            what,
            error.reason,
            said(error),
            remedy(error),
        )
