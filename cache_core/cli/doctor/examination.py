"""All checks on the facts of a system."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cache_core.backends.embedder.identity import is_published
from cache_core.cli.doctor import servers
from cache_core.cli.doctor.finding import CHECKS, Finding, skipped
from cache_core.cli.doctor.gather import Facts
from cache_core.cli.doctor.monitoring import check_dashboards, check_prometheus, check_receiver
from cache_core.cli.doctor.parts import check_disk, check_semantic, check_settings
from cache_core.cli.doctor.servers import Use, check_redis
from cache_core.cli.doctor.traffic import NAMES as OF_TRAFFIC
from cache_core.cli.doctor.traffic import check_traffic
from cache_core.cli.doctor.troubles import NAMES as OF_MISSES
from cache_core.cli.doctor.troubles import Room, check_l2, check_memory, check_misses
from cache_core.model.exceptions import BackendError

_OF_L2 = ("vectors", "model")
"""Checks of the parts that L2 cannot do without."""


def examined(facts: Facts) -> list[Finding]:
    """Return the finding of every check, in the order of `CHECKS`."""
    found = {item.name: item for item in _findings(facts)}
    return [found[name] for name in CHECKS]


def _findings(facts: Facts) -> Iterator[Finding]:
    settings, replicas = facts.settings, len(facts.stored.in_force.replicas)
    yield from check_settings(settings, facts.rejected, facts.misspelt)
    stores = [_of_disk(facts), *_of_redis(facts)]
    semantic = list(check_semantic(settings, facts.semantic))
    yield from stores
    yield from semantic
    broken = [item for item in semantic if item.level == "failure" and item.name in _OF_L2]
    if facts.stored.error:
        failed = [item.name for item in stores if item.level == "failure"]
        why = f"see {', '.join(failed)}" if failed else facts.stored.error
        memory = ["memory"] if facts.servers is None else []
        names = (*OF_TRAFFIC, *OF_MISSES, *memory)
        yield from skipped(names, f"the store is not reached: {why}")
    else:
        yield from _of_lookups(facts, broken)
    if isinstance(facts.servers, BackendError):
        yield from skipped(["memory"], "Redis is not reachable")
    elif facts.servers is not None or not facts.stored.error:
        yield check_memory(_room(facts))
    yield from check_prometheus(facts.prometheus, facts.namespace, replicas)
    yield check_receiver(facts.prometheus, facts.alertmanager)
    yield check_dashboards(facts.dashboards)


def _of_disk(facts: Facts) -> Finding:
    found = check_disk(facts.settings, facts.disk, facts.stored.bytes)
    if facts.servers is not None or not facts.stored.error or found.level == "failure":
        return found
    return Finding(
        "disk", "failure", f"the store in {facts.disk.path} cannot be used: {facts.stored.error}",
        "Correct what the error names, or set CACHE_DIR to another local directory.",
    )  # fmt: skip


def _of_redis(facts: Facts) -> Iterator[Finding]:
    settings, in_force = facts.settings, facts.stored.in_force
    if settings.redis_url is None or facts.servers is None:
        names = ("redis-reachable", *servers.NAMES)
        yield from skipped(names, "no REDIS_URL: the embedded store is used")
        return
    use = Use(
        settings.redis_url, settings.prefix, settings.exact_budget,
        encrypted=bool(settings.encryption_keys),
        vectors=facts.semantic.index == "vectors",
        replicas=len(in_force.replicas),
        longest_ttl=max(in_force.tuning.l1_ttl, in_force.tuning.l2_ttl),
    )  # fmt: skip
    yield from check_redis(use, facts.servers)


def _of_lookups(facts: Facts, broken: Sequence[Finding]) -> Iterator[Finding]:
    settings, stored = facts.settings, facts.stored
    tuning, packaged = stored.in_force.tuning, is_published(settings.embedding_model)
    yield from check_traffic(stored.in_force, stored.decisions, packaged=packaged)
    outcomes = [item.counters["outcomes"] for item in stored.in_force.replicas]
    yield from check_misses(tuning, stored.decisions, outcomes)
    if "l2" in settings.tiers:
        yield from check_l2(tuning, stored.decisions, broken)
    else:
        yield from skipped(["l2-never-hits"], "L2 is off (CACHE_TIERS)")


def _room(facts: Facts) -> Room:
    counted = [item.counters["put_outcomes"] for item in facts.stored.in_force.replicas]
    return Room(
        facts.servers if isinstance(facts.servers, list) else (),
        facts.stored.bytes,
        0 if facts.settings.redis_url else facts.settings.max_bytes,
        int(sum(outcomes["dropped"] for outcomes in counted)),
    )
