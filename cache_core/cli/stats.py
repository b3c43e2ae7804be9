"""`glasscache stats`: the running replicas, and what the last lookups decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.text import Text

from cache_core.cli.console import counted, fail, out, print_json, run, table
from cache_core.cli.where import AsJson, Directory, Namespace, RedisUrl, opened
from cache_core.exceptions import BackendError
from cache_core.explaining import WHY
from cache_core.housekeeping import replicas
from cache_core.models import LEVELS, OUTCOMES
from cache_core.multilevel_cache import MultiLevelCache


def stats(
    namespace: Namespace = "default",
    redis_url: RedisUrl = None,
    directory: Directory = None,
    as_document: AsJson = False,
) -> None:
    """Show how the running replicas do, and what the last lookups decided.

    A replica is a process with an open cache of this namespace. Replicas report every second; the
    decision log also tells of those that have ended.

    [bold]glasscache stats --json | jq .decisions.hit_rate[/bold]
        Of the last lookups, whichever replica served them.
    """

    async def work() -> dict[str, Any]:
        async with opened(namespace, redis_url, None, directory, semantic=False) as cache:
            return await _stats(cache)

    found = run(work())
    if as_document:
        print_json(found)
    else:
        _print_stats(found)


async def _stats(cache: MultiLevelCache) -> dict[str, Any]:
    parts = cache.parts
    try:
        beats = [beat for beat in await replicas(parts) if beat.get("replica") != cache.replica]
        decisions = await parts.decisions.last(cache.settings.decisions or 1)
    except BackendError as error:
        fail(f"the store failed: {error.reason} ({error.error_type})")
    outcomes = Counter(item.outcome for item in decisions)
    answered = sum(outcomes.values()) - outcomes["bypass"]
    shared = Counter(
        item.intent for item in decisions if "other_scope" in item.reasons and item.intent
    )
    return {
        "namespace": cache.namespace,
        "replicas": [as_shown(beat) for beat in beats],
        "decisions": {
            "lookups": len(decisions),
            "hit_rate": round(outcomes["hit"] / answered, 4) if answered else None,
            "outcomes": dict(outcomes),
            "served_by": dict(Counter(item.level for item in decisions if item.level)),
            "reasons": dict(Counter(item.reason for item in decisions if item.reason)),
            "saved_usd": round(sum(item.saved_usd for item in decisions), 4),
            "other_scope": sum("other_scope" in item.reasons for item in decisions),
            "other_scope_intents": dict(shared.most_common()),
        },
    }


def as_shown(beat: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is shown of a replica's heartbeat."""
    return {
        "replica": beat["replica"],
        "pid": beat["pid"],
        "tuning_version": beat["tuning_version"],
        "backends": beat["backends"],
        "lookups": beat["counters"]["operations"],
        "hit_rates": beat["counters"]["hit_rates"],
        "latency_ms": beat["counters"]["latency_ms"],
        "cost_savings_usd": beat["counters"]["cost_savings_usd"],
        "sharing": beat["counters"]["sharing"],
    }


def _print_stats(found: dict[str, Any]) -> None:
    if found["replicas"]:
        _print_replicas(found)
    else:
        out.print(f"No replica of {found['namespace']!r} is running here.")
    log = found["decisions"]
    if not log["lookups"]:
        out.print("The decision log is empty: nothing was looked up yet.")
        return
    outcomes = ", ".join(f"{log['outcomes'][name]:,} {name}" for name in OUTCOMES
                         if log["outcomes"].get(name))  # fmt: skip
    rate = "-" if log["hit_rate"] is None else f"{100 * log['hit_rate']:.1f} %"
    out.print(
        f"The last {counted(log['lookups'], 'lookups')}: {outcomes}. Hit rate {rate}, "
        f"{log['saved_usd']:,.2f} USD saved."
    )
    if log["reasons"]:
        shown = table("why there was no answer", "lookups", "which means")
        shown.columns[1].justify = "right"
        for reason, count in sorted(log["reasons"].items(), key=lambda pair: -pair[1]):
            shown.add_row(reason, f"{count:,}", WHY.get(reason, ""))
        out.print("", shown, sep="\n")
    if log["other_scope"]:
        named = ", ".join(log["other_scope_intents"]) or "without an intent"
        out.print(
            f"\n{counted(log['other_scope'], 'lookups')} missed although another user had the "
            f"answer ({named}). If those answers are the same for everybody, share them: "
            "CACHE_SHARED_INTENTS.",
            style="yellow",
        )


def _print_replicas(found: dict[str, Any]) -> None:
    does = table(title=f"Replicas of {found['namespace']!r}")
    tiers = table(title="Hit rate of each tier, of the lookups that reached it")
    for name in ("replica", "pid", "lookups", "hit rate", "p50", "saved", "down"):
        does.add_column(name, justify="left" if name in {"replica", "down"} else "right")
    for name in ("replica", *LEVELS):
        tiers.add_column(name, justify="left" if name == "replica" else "right")
    for item in found["replicas"]:
        rates = item["hit_rates"]
        down = [name for name, works in item["backends"].items() if not works]
        does.add_row(
            item["replica"], str(item["pid"]), f"{item['lookups']:,}", f"{rates['overall']:.1f} %",
            f"{item['latency_ms']['p50']:.2f} ms", f"{item['cost_savings_usd']:,.2f} USD",
            Text(", ".join(down), "red") if down else Text("nothing", "green"),
        )  # fmt: skip
        tiers.add_row(item["replica"], *(f"{rates[level]:.1f} %" for level in LEVELS))
    out.print(does, "", tiers, "", sep="\n")
