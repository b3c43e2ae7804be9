"""Checks of Redis."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from cache_core.backends.redis.batches import LEAST_VERSION, is_before
from cache_core.backends.redis.examine import ServerFacts
from cache_core.backends.redis.sentinels import SCHEMES, parse_sentinel_url
from cache_core.cli.doctor.finding import CHECKS, LEVELS, Finding, skipped
from cache_core.cli.doctor.words import seconds, size
from cache_core.model.exceptions import BackendError
from cache_core.model.remedies import remedy, said
from cache_core.model.urls import without_secrets

NAMES = tuple(
    name for name, check in CHECKS.items() if check.subject == "Redis" and name != "redis-reachable"
)

_FULL = 0.9
_CROWDED = 0.8
_CONNECTIONS = 5
_OF_VECTORS = 4
"""Connections that a process needs, and those for vectors: see docs/servers.md."""

_UNNAMED = re.compile(r"ssl_check_hostname=(0|f|false|n|no)(&|$)", re.IGNORECASE)
"""Option by which redis-py accepts a certificate for another host."""

_NO_INFO = "the Redis user may not run INFO"


@dataclass(frozen=True, slots=True)
class Use:
    """Use that a cache makes of Redis.

    Attributes:
        url: Its URL.
        prefix: First part of its keys and channels.
        budget: Seconds that a call of a lookup may take.
        encrypted: Whether entries are encrypted at rest.
        vectors: Whether vectors are in this Redis.
        replicas: Number of running replicas.
        longest_ttl: Longest TTL of answers, in seconds.
    """

    url: str
    prefix: str
    budget: float
    encrypted: bool = False
    vectors: bool = False
    replicas: int = 0
    longest_ttl: float = 86_400.0


def check_redis(use: Use, answer: Sequence[ServerFacts] | BackendError) -> Iterator[Finding]:
    """Yield the findings of every check of Redis; of several masters the worst one's."""
    shown = without_secrets(use.url)
    if isinstance(answer, BackendError):
        yield Finding(
            "redis-reachable", "failure", f"{shown}: {said(answer)}", f"{remedy(answer)}."
        )
        yield from skipped(NAMES, "Redis is not reachable")
        return
    yield _tls(use)
    masters = f", {len(answer)} masters" if len(answer) > 1 else ""
    yield Finding("redis-reachable", "ok", f"{shown} answers{masters}")
    yield from _worst(use, answer)


def _worst(use: Use, servers: Sequence[ServerFacts]) -> Iterable[Finding]:
    """Return the finding of each check on the server where it is worst."""
    worst: dict[str, Finding] = {}
    for server in servers:
        for item in _server(use, server):
            before = worst.get(item.name)
            if before is None or LEVELS.index(item.level) < LEVELS.index(before.level):
                several = len(servers) > 1 and item.level != "ok"
                found = f"{server.address}: {item.found}" if several else item.found
                worst[item.name] = replace(item, found=found)
    # Without any master that answers only the topology is known.
    missing = [name for name in NAMES if name not in worst and name != "redis-tls"]
    return [*worst.values(), *skipped(missing, "no master answers")]


def _server(use: Use, server: ServerFacts) -> Iterator[Finding]:
    if server.down:
        yield Finding(
            "redis-topology", "failure", f"a master of the Cluster is down ({server.down})",
            "Start it, or fail over to its replica: see CLUSTER NODES.",
        )  # fmt: skip
        return
    yield _latency(use, server)
    yield _login(use, server)
    yield _commands(use, server)
    yield _clock(server)
    if server.info:
        yield _version(server)
        yield _topology(use, server)
        yield _memory(server)
        yield _eviction(use, server)
        yield _persistence(use, server)
        yield _connections(use, server)
    else:
        names = ("version", "topology", "memory", "eviction", "persistence", "connections")
        yield from skipped((f"redis-{name}" for name in names), _NO_INFO)


def _host(url: str) -> tuple[str, bool, bool]:
    """Return a host of a URL, whether TLS is used, and whether there is a login."""
    if url.startswith(SCHEMES):
        address = parse_sentinel_url(url)
        login = urlsplit(address.server).password is not None
        return address.sentinels[0][0], url.startswith("rediss"), login
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return "localhost", False, "password=" in parts.query or parts.password is not None
    return parts.hostname or "localhost", parts.scheme == "rediss", parts.password is not None


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_private(host: str) -> bool:
    """Return whether a host is in a private network, as far as its name says."""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".local", ".internal", ".svc", ".lan"))


def _tls(use: Use) -> Finding:
    host, encrypted, _ = _host(use.url)
    if encrypted and "ssl_cert_reqs=none" in use.url:
        return Finding(
            "redis-tls", "warning", f"TLS to {host}, but its certificate is not checked",
            "Name the authority instead: ?ssl_ca_certs=FILE in REDIS_URL.",
        )  # fmt: skip
    if encrypted and _UNNAMED.search(use.url):
        return Finding(
            "redis-tls", "warning", f"TLS to {host}, but its certificate may be another host's",
            "Give the server a certificate for its name, and take ssl_check_hostname out of "
            "REDIS_URL.",
        )  # fmt: skip
    if encrypted:
        return Finding("redis-tls", "ok", "TLS, with the certificate checked")
    if _is_local(host):
        return Finding("redis-tls", "ok", "none, and none needed: Redis is on this machine")
    private = use.encrypted or _is_private(host)
    return Finding(
        "redis-tls", "note" if private else "warning",
        f"traffic to {host} is not encrypted"
        + ("; entries are, by CACHE_ENCRYPTION_KEYS" if use.encrypted else ""),
        "Turn on TLS in Redis and write rediss:// in REDIS_URL, unless only trusted machines are "
        "on that network.",
    )  # fmt: skip


def _login(use: Use, server: ServerFacts) -> Finding:
    host, _, login = _host(use.url)
    if not login:
        return Finding(
            "redis-login", "note" if _is_local(host) else "warning",
            "no password is needed",
            "Give the cache a user of its own: compose/redis.acl has its rights.",
        )  # fmt: skip
    if server.config:
        return Finding(
            "redis-login", "note", "the user may also administer the server (CONFIG is allowed)",
            "Give the cache a user with the rights in compose/redis.acl.",
        )  # fmt: skip
    return Finding("redis-login", "ok", "a login, without rights to administer the server")


def _commands(use: Use, server: ServerFacts) -> Finding:
    name = "redis-commands"
    if server.barred:
        return Finding(
            name, "failure",
            f"the user may not use the {' and '.join(server.barred)} that begin with {use.prefix}:",
            f"ACL SETUSER NAME ~{use.prefix}:* &{use.prefix}:*, or set CACHE_PREFIX to the prefix "
            "that it may use, wherever answers are shared.",
        )  # fmt: skip
    if not server.lacking:
        return Finding(name, "ok", "all commands are allowed")
    rights = " ".join(f"+{command}" for command in server.lacking)
    more = (
        "; what else it lacks is known once MULTI is allowed" if "multi" in server.lacking else ""
    )
    return Finding(
        name, "failure", f"the user may not run {', '.join(server.lacking).upper()}{more}",
        f"ACL SETUSER NAME {rights}, or take the whole line from compose/redis.acl.",
    )  # fmt: skip


def _latency(use: Use, server: ServerFacts) -> Finding:
    trip, budget = 1000 * server.round_trip, 1000 * use.budget
    took = f"{trip:,.1f} ms a round trip; a lookup waits {budget:,.0f} ms"
    if server.round_trip <= use.budget / 4:
        return Finding("redis-latency", "ok", took)
    return Finding(
        "redis-latency", "failure" if server.round_trip > use.budget else "warning", took,
        "Bring Redis nearer to the agents, look for slow commands (SLOWLOG GET, by an "
        "administrator), or raise CACHE_EXACT_BUDGET.",
    )  # fmt: skip


def _clock(server: ServerFacts) -> Finding:
    if server.skew is None:
        return Finding("clock", "skipped", "the Redis user may not run TIME")
    apart = abs(server.skew)
    if apart < 1:
        return Finding("clock", "ok", "Redis and this machine agree within a second")
    side = "ahead of" if server.skew > 0 else "behind"
    return Finding(
        "clock", "warning" if apart >= 60 else "note",
        f"Redis' clock is {seconds(apart)} {side} this machine's",
        "Synchronise both by NTP (timedatectl, chronyc tracking).",
    )  # fmt: skip


def _version(server: ServerFacts) -> Finding:
    version = str(server.info.get("redis_version", ""))
    if not is_before(version, LEAST_VERSION):
        return Finding("redis-version", "ok", version)
    least = ".".join(map(str, LEAST_VERSION))
    return Finding(
        "redis-version", "failure", f"{version}; {least} or later is needed", "Upgrade Redis."
    )


def _topology(use: Use, server: ServerFacts) -> Finding:
    name, info = "redis-topology", server.info
    if info.get("role") == "slave":
        up = info.get("master_link_status") == "up"
        master = f"{info.get('master_host', '')}:{info.get('master_port', '')}"
        return Finding(
            name, "failure",
            f"a replica of {master}" + ("" if up else ", which it has lost"),
            "Name the master in REDIS_URL, or the Sentinels: redis+sentinel://HOST:26379/NAME.",
        )  # fmt: skip
    if server.uncovered:
        return Finding(
            name, "failure", f"{server.uncovered:,} slots of the Cluster have no master",
            "See CLUSTER NODES: start the missing master, or fail over to its replica.",
        )  # fmt: skip
    copies = int(info.get("connected_slaves", 0))
    kind = "a master of a Cluster" if info.get("cluster_enabled") == 1 else "a single server"
    if use.url.startswith(SCHEMES):
        kind = "the master that the Sentinels name"
    with_copies = "1 replica" if copies == 1 else f"{copies or 'no'} replicas"
    return Finding(name, "ok", f"{kind} with {with_copies}")


def _memory(server: ServerFacts) -> Finding:
    info = server.info
    used, limit = float(info.get("used_memory", 0)), float(info.get("maxmemory", 0))
    if not limit:
        return Finding(
            "redis-memory", "warning", f"{size(used)} used, without a limit",
            "Set maxmemory, and maxmemory-policy allkeys-lru if only the cache uses this Redis. "
            "docs/scaling.md has the size of an entry.",
        )  # fmt: skip
    found = f"{size(used)} of {size(limit)} used"
    if used < _FULL * limit or _policy(server) != "noeviction":
        return Finding("redis-memory", "ok", found)
    return Finding(
        "redis-memory", "failure" if used >= limit else "warning",
        f"{found}, and nothing may be evicted"
        + (": Redis rejects new answers" if used >= limit else ""),
        "Raise maxmemory, or set maxmemory-policy allkeys-lru: docs/runbooks/"
        "CacheRedisMemoryFull.md.",
    )  # fmt: skip


def _policy(server: ServerFacts) -> str:
    return str(server.info.get("maxmemory_policy", ""))


def _eviction(use: Use, server: ServerFacts) -> Finding:
    name, policy, evicted = "redis-eviction", _policy(server), _evicted(server)
    if not policy:
        return Finding(name, "skipped", "INFO does not name the policy")
    if policy == "noeviction":
        return Finding(
            name, "warning" if server.info.get("maxmemory") else "note",
            "noeviction: once full, Redis rejects new answers",
            "CONFIG SET maxmemory-policy allkeys-lru, if only the cache uses this Redis: an entry "
            "that was evicted is a miss.",
        )  # fmt: skip
    if use.vectors and policy.startswith("allkeys"):
        return Finding(
            name, "note", f"{policy}: a vector set is one key, which goes as a whole{evicted}",
            "Give this Redis so much memory that it does not evict, or use a Chroma server.",
        )  # fmt: skip
    return Finding(name, "ok", f"{policy}{evicted}")


def _evicted(server: ServerFacts) -> str:
    number = int(server.info.get("evicted_keys", 0))
    return f"; {number:,} keys evicted since its start" if number else ""


def _persistence(use: Use, server: ServerFacts) -> Finding:
    name, info, config = "redis-persistence", server.info, server.config
    again = (
        "After restoring one, invalidate again what was invalidated since, or empty it (FLUSHDB)."
    )
    if info.get("rdb_last_bgsave_status") == "err" or info.get("aof_last_write_status") == "err":
        return Finding(
            name, "failure", "Redis cannot write to its disk, and rejects writes until it can",
            "See its log: the disk is full or its directory not writable.",
        )  # fmt: skip
    if info.get("aof_enabled") == 1:
        return _append_only(config.get("appendfsync", ""))
    saved, snapshots = float(info.get("rdb_last_save_time", 0)), config.get("save")
    if snapshots is None and "rdb_saves" not in info:
        return Finding(
            name, "note", "not known: this user may not read whether snapshots are on",
            f"Let an administrator run CONFIG GET save. If there are snapshots: {again}",
        )  # fmt: skip
    if snapshots == "" or (snapshots is None and info["rdb_saves"] == 0):
        return Finding(
            name, "note",
            "nothing is kept: after a restart the cache is empty, and fills again"
            + ("" if snapshots == "" else " (no snapshot since its start)"),
            "Nothing, if the LLM can take all traffic meanwhile; else turn on appendonly, with "
            "appendfsync always.",
        )  # fmt: skip
    age = max(0.0, float(info.get("server_time_usec", 0)) / 1_000_000 - saved)
    ago = f", the last {seconds(age)} ago" if info.get("server_time_usec") else ""
    changes = int(info.get("rdb_changes_since_last_save", 0))
    return Finding(
        name, "warning",
        f"snapshots{ago}, with {changes:,} changes since: restoring it brings back answers "
        f"that were invalidated since then, for up to {seconds(use.longest_ttl)}",
        f"Set appendonly yes and appendfsync always. {again}",
    )  # fmt: skip


def _append_only(fsync: str) -> Finding:
    """Return the finding on an append-only file; *fsync* is empty where it is unknown."""
    if fsync == "always":
        return Finding("redis-persistence", "ok", "append-only file, written with every command")
    lost = {
        "no": "since the operating system last wrote it, about 30 s before,",
        "": "in the last second (with appendfsync no in about 30 s)",
    }.get(fsync, "in the last second")
    return Finding(
        "redis-persistence", "note",
        f"append-only file ({fsync or 'its fsync is unknown to this user'}): after a crash, "
        f"answers that were invalidated {lost} may be served again",
        "Set appendfsync always if that time matters, or invalidate again after a crash.",
    )  # fmt: skip


def _connections(use: Use, server: ServerFacts) -> Finding:
    name, info = "redis-connections", server.info
    clients, most = int(info.get("connected_clients", 0)), int(info.get("maxclients", 0))
    rejected = int(info.get("rejected_connections", 0))
    each = _CONNECTIONS + (_OF_VECTORS if use.vectors else 0)
    needed = each * use.replicas
    found = f"{clients:,} of {most:,}" if most else f"{clients:,}"
    if rejected:
        found += f"; {rejected:,} were rejected since its start"
    if most and (clients > _CROWDED * most or needed > most):
        return Finding(
            name, "warning", f"{found}; {use.replicas} replicas need {needed} when all are busy",
            "Raise maxclients, or find the client that leaks connections (CLIENT LIST).",
        )  # fmt: skip
    if rejected:
        return Finding(name, "note", found, "Raise maxclients if it happens again.")
    return Finding(name, "ok", f"{found}; a process of the cache uses {each} at most")
