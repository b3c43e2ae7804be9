"""Causes of the four troubles: all misses, a low hit rate, memory, and L2 that never answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from cache_core.backends.redis.examine import ServerFacts
from cache_core.cli.doctor.causes import CAUSES, causes
from cache_core.cli.doctor.finding import Finding, Level, skipped
from cache_core.cli.doctor.traffic import FEW, counted
from cache_core.cli.doctor.words import percent, seconds, size
from cache_core.config.tuning import Tuning
from cache_core.observability.decisions import Decision

NAMES = ("all-misses", "low-hit-rate", "l2-never-hits")

_MOST = 0.5
_NEARLY = 0.9
_L2_FIRST = (
    "has_history", "truncated", "unreadable", "context_limit", "warming", "other_scope",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Room:
    """Room in the store.

    Attributes:
        servers: Redis servers; empty with the embedded store.
        used, limit: Bytes of the embedded store's file, and its limit.
        dropped: Puts that the running replicas dropped.
    """

    servers: Sequence[ServerFacts] = field(default_factory=tuple)
    used: int = 0
    limit: int = 0
    dropped: int = 0


def check_misses(
    tuning: Tuning, decisions: Sequence[Decision], outcomes: Sequence[Mapping[str, float]] = ()
) -> Iterator[Finding]:
    """Yield the findings on lookups without an answer.

    Args:
        tuning: The tuning in force.
        decisions: Lookups of the log, which has no bypasses, oldest first.
        outcomes: Lookups of each running replica since its start, by outcome.
    """
    made = sum(sum(of.values()) for of in outcomes)
    if made >= FEW and made == sum(of["bypass"] for of in outcomes):
        yield Finding(
            "all-misses", "failure",
            f"all {made:,.0f} lookups of the running replicas bypassed the cache",
            "Change what the agent passes, or the setting that turns the tiers off: the agent's "
            "get_metrics()['bypass_reasons'] has the reasons.",
        )  # fmt: skip
        yield from skipped(("low-hit-rate",), "see all-misses")
        return
    answerable, hits = counted(decisions)
    if answerable < FEW:
        few = f"{answerable:,.0f} lookups are too few: {FEW} are needed"
        yield from skipped(("all-misses", "low-hit-rate"), few)
        return
    found = f"{hits:,.0f} hits in {answerable:,.0f} lookups"
    if not hits:
        yield _because("all-misses", "failure", causes(decisions, tuning), "no lookup was answered")
    else:
        yield Finding("all-misses", "ok", found)
    if not hits:
        yield from skipped(("low-hit-rate",), "see all-misses")
    elif hits / answerable >= tuning.hit_rate_objective:
        yield Finding("low-hit-rate", "ok", found)
    else:
        low = f"the hit rate is {percent(hits / answerable)}"
        yield _because("low-hit-rate", "warning", causes(decisions, tuning), low)


def _because(name: str, level: Level, found: Mapping[str, int], start: str) -> Finding:
    """Return a finding with the largest cause, and its share of the unanswered lookups."""
    total = sum(found.values())
    cause, number = max(found.items(), key=lambda pair: pair[1])
    rest = [f"{key} {percent(count / total)}" for key, count in Counter(found).most_common(3)[1:]]
    others = f" (then {', '.join(rest)})" if rest else ""
    share = f"{percent(number / total)} of the misses are {cause}"
    return Finding(
        name, level, f"{start}. {share}: {CAUSES[cause].text}{others}", CAUSES[cause].fix
    )


def check_l2(
    tuning: Tuning, decisions: Sequence[Decision], broken: Sequence[Finding]
) -> Iterator[Finding]:
    """Yield the finding on L2's hits.

    Args:
        tuning: The tuning in force.
        decisions: Lookups of the log, oldest first.
        broken: Findings of its parts that do not work.
    """
    name = "l2-never-hits"
    if broken:
        parts = " and ".join(item.name for item in broken)
        yield Finding(name, "failure", f"L2 cannot answer: see {parts}", broken[0].fix)
        return
    reached = [item for item in decisions if item.level != "l1"]
    asked = sum(item.stands_for for item in reached)
    hits = sum(item.stands_for for item in reached if item.level == "l2")
    if hits:
        yield Finding(name, "ok", f"L2 answered {hits:,.0f} of the {asked:,.0f} lookups it got")
    elif asked < FEW:
        yield from skipped([name], f"{asked:,.0f} lookups reached L2; {FEW} are needed")
    else:
        start = f"L2 answered none of {asked:,.0f} lookups"
        if not any(item.user for item in reached) and not any(
            item.scope == "shared" for item in reached
        ):
            yield Finding(
                name, "warning", f"{start}: {CAUSES['no_user'].text}", CAUSES["no_user"].fix
            )
            return
        nearest = [item.unvetoed for item in reached if item.unvetoed is not None]
        if nearest:
            start += f" (nearest: {max(nearest):.3f}; the threshold is {tuning.lowest_threshold:g})"
        yield _because(name, "warning", causes(decisions, tuning, _L2_FIRST), start)


def check_memory(room: Room) -> Finding:
    """Return the finding on answers that were lost for lack of room."""
    for server in room.servers:
        found = _short(server, room.dropped)
        if found is not None:
            return found
    if room.servers and not any(server.info for server in room.servers):
        return Finding("memory", "skipped", "no Redis server reports its memory (INFO)")
    if room.limit and room.used > _NEARLY * room.limit:
        return Finding(
            "memory", "note",
            f"the file has {size(room.used)} of {size(room.limit)}: the oldest answers are evicted",
            "Raise CACHE_MAX_BYTES, or shorten the TTLs; documents (L4) are the largest.",
        )  # fmt: skip
    return Finding("memory", "ok", "no answer is lost for lack of room")


def _short(server: ServerFacts, dropped: int) -> Finding | None:
    """Return a finding on a server that has too little memory."""
    info = server.info
    used, limit = float(info.get("used_memory", 0)), float(info.get("maxmemory", 0))
    policy = str(info.get("maxmemory_policy", ""))
    machine = float(info.get("total_system_memory", 0))
    if limit and used >= limit and policy == "noeviction":
        lost = f"; replicas dropped {dropped:,} answers" if dropped else ""
        return Finding(
            "memory", "failure", f"Redis is full and may not evict: it rejects new answers{lost}",
            "CONFIG SET maxmemory-policy allkeys-lru, or raise maxmemory.",
        )  # fmt: skip
    if not limit and machine and used > _NEARLY * machine:
        return Finding(
            "memory", "failure", f"Redis has no limit, and uses {size(used)} of {size(machine)}",
            "Set maxmemory below the machine's memory, and allkeys-lru.",
        )  # fmt: skip
    evicted, expired = int(info.get("evicted_keys", 0)), int(info.get("expired_keys", 0))
    if evicted <= _MOST * (evicted + expired) or evicted < FEW:
        return None
    since = seconds(float(info.get("uptime_in_seconds", 0)))
    return Finding(
        "memory", "warning",
        f"{evicted:,} keys were evicted in {since}, and only {expired:,} expired: this Redis is "
        "too small for the TTLs",
        "Raise maxmemory, or shorten the TTLs; documents (L4) are the largest: glasscache tune "
        "set l4_ttl=3h.",
    )  # fmt: skip
