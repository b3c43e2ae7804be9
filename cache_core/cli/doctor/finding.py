"""Findings of the doctor, and the table of its checks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, get_args

Level: TypeAlias = Literal["failure", "warning", "note", "ok", "skipped"]
"""Severity of a finding: something does not work; it will cause trouble; a choice to know of;
nothing to do; not checked, with the reason."""
LEVELS: tuple[Level, ...] = get_args(Level)


class Check(NamedTuple):
    """One check.

    Attributes:
        subject: Heading under which it is shown.
        what: The checked property.
        why: Reason why it matters, a sentence.
    """

    subject: str
    what: str
    why: str


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check.

    Attributes:
        name: Name of the check, a key of `CHECKS`; it stays the same from version to version.
        level: Severity.
        found: The state that was found; for a skipped check the reason.
        fix: Remedy; empty if there is nothing to do.
    """

    name: str
    level: Level
    found: str
    fix: str = ""

    @property
    def check(self) -> Check:
        """The check."""
        return CHECKS[self.name]


def skipped(names: Iterable[str], reason: str) -> Iterator[Finding]:
    """Yield a skipped finding for each of *names*."""
    for name in names:
        yield Finding(name, "skipped", reason)


CHECKS: Mapping[str, Check] = {
    "settings": Check(
        "Settings", "environment variables are valid, and none is misspelt",
        "An invalid variable is ignored, and the default is used instead.",
    ),
    "cache-key": Check(
        "Settings", "`CACHE_KEY` is set where a Redis is shared",
        "Otherwise the secret of all keys is random and exists only in Redis: if it is evicted or "
        "lost, no stored answer is found again.",
    ),
    "disk": Check(
        "Settings", "`CACHE_DIR` is writable and has room",
        "Embedded parts live there, and invalidations that a backend has not confirmed.",
    ),
    "redis-reachable": Check(
        "Redis", "Redis answers, with the login of `REDIS_URL`",
        "Without it nothing is stored, and only L2's shared answers are served.",
    ),
    "redis-version": Check(
        "Redis", "version 5.0 or later",
        "Older versions have no streams: invalidations, tuning and the decision log fail.",
    ),
    "redis-latency": Check(
        "Redis", "round trip against the budget of a call",
        "A lookup that waits longer than its budget goes on without Redis.",
    ),
    "redis-tls": Check(
        "Redis", "connection is encrypted",
        "Otherwise the password and the answers can be read on the network.",
    ),
    "redis-login": Check(
        "Redis", "user with a password, and no more rights than needed",
        "Any client that may write to Redis may put answers in front of users.",
    ),
    "redis-commands": Check(
        "Redis", "user may run every command of the cache",
        "A part that lacks a command fails on every call: no answer is stored, or an invalidation "
        "is never confirmed.",
    ),
    "redis-topology": Check(
        "Redis", "master, replicas, Cluster or Sentinel",
        "A replica takes no writes, and a Cluster with uncovered slots loses a part of the keys.",
    ),
    "redis-memory": Check(
        "Redis", "`maxmemory` is set, and not reached without eviction",
        "A Redis without a limit grows until the system kills it; a full one that may not evict "
        "rejects new answers.",
    ),
    "redis-eviction": Check(
        "Redis", "`maxmemory-policy`",
        "It decides what a full Redis loses: old answers, or everything new.",
    ),
    "redis-persistence": Check(
        "Redis", "snapshots and append-only file",
        "A Redis that is restored from an older state serves answers that were invalidated since; "
        "one that keeps nothing starts empty.",
    ),
    "redis-connections": Check(
        "Redis", "connections against `maxclients`",
        "A Redis with too many clients rejects new connections, first of all after a restart.",
    ),
    "clock": Check(
        "Redis", "machine's clock against Redis' `TIME`",
        "Entries age by Redis' clock; logs, traces and the end of a day go by the machine's.",
    ),
    "vectors": Check(
        "Semantic tier", "vector index works, and is shared by all replicas",
        "Without it every rephrased question misses.",
    ),
    "model": Check(
        "Semantic tier", "embedding model is present and verified",
        "Without it every rephrased question misses; another model has an index of its own.",
    ),
    "embedding-time": Check(
        "Semantic tier", "time of an embedding against its budget",
        "An embedding that takes longer is given up, and the rephrased question misses.",
    ),
    "replicas": Check(
        "Traffic", "running replicas work and agree",
        "A replica with other values, or with a backend down, serves other answers than the rest.",
    ),
    "ttls": Check(
        "Traffic", "TTLs were chosen",
        "A TTL is the longest time for which a wrong or outdated answer is served.",
    ),
    "threshold": Check(
        "Traffic", "similarity threshold was chosen, and is plausible",
        "Too low, users get answers to other questions; too high, L2 never answers.",
    ),
    "hit-rate": Check(
        "Traffic", "hit rate against its objective",
        "Below it the cache does not earn what it was planned to.",
    ),
    "all-misses": Check(
        "Troubles", "every lookup misses",
        "The agent pays for the cache and for every answer.",
    ),
    "low-hit-rate": Check(
        "Troubles", "largest cause of misses while the hit rate is too low",
        "One cause is usually behind most of the misses.",
    ),
    "memory": Check(
        "Troubles", "store loses answers for lack of room",
        "Evicted answers have to be computed again.",
    ),
    "l2-never-hits": Check(
        "Troubles", "L2 never answers",
        "Rephrased questions cost as much as without a cache.",
    ),
    "metrics": Check(
        "Monitoring", "Prometheus scrapes every replica",
        "Without data no dashboard shows and no alert fires.",
    ),
    "alert-rules": Check(
        "Monitoring", "shipped rules are loaded and evaluated",
        "A low hit rate, an unavailable Redis or a full one stays unnoticed otherwise.",
    ),
    "alert-receiver": Check(
        "Monitoring", "alerts reach a receiver",
        "An alert that nobody receives does not help.",
    ),
    "dashboards": Check(
        "Monitoring", "shipped dashboards are in Grafana",
        "Alerts and runbooks link to them.",
    ),
}  # fmt: skip
"""Checks by name, in the order of the report."""
