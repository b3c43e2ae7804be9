"""`glasscache stats`: the running replicas, and the latest lookups."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rich.text import Text

from cache_core.cli.console import counted, fail, out, print_json, run, table
from cache_core.cli.where import AsJson, Directory, Namespace, RedisUrl, opened
from cache_core.config.intents import INTENT_PATTERN
from cache_core.model.exceptions import BackendError
from cache_core.model.reasons import long
from cache_core.model.values import LEVELS, OUTCOMES
from cache_core.multilevel_cache import MultiLevelCache
from cache_core.observability.decisions import Decision
from cache_core.observability.fleet import ReplicaReport
from cache_core.operations.explain import duration


def stats(
    namespace: Namespace = "default",
    redis_url: RedisUrl = None,
    directory: Directory = None,
    as_document: AsJson = False,
) -> None:
    """Show the running replicas, and the results of the latest lookups.

    A replica is a process with an open cache of this namespace. Replicas report every second; the
    decision log also includes lookups of replicas that have ended.

    [bold]glasscache stats --json | jq .decisions.hit_rate[/bold]
        Hit rate of the latest lookups on all replicas.
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
    try:
        replicas = await cache.operator.replicas()
        decisions = await cache.decisions(cache.settings.decisions or 1)
    except BackendError as error:
        fail(f"the store failed: {error.reason} ({error.error_type})")
    outcomes = _counts(decisions, lambda item: item.outcome)
    answered = sum(outcomes.values()) - outcomes["bypass"]
    met = [item for item in decisions if "other_scope" in item.reasons]
    shared = _counts(met, lambda item: _label(item.intent))
    return {
        "namespace": cache.namespace,
        "replicas": [as_shown(replica) for replica in replicas],
        "decisions": {
            "lookups": round(sum(item.stands_for for item in decisions)),
            "kept": len(decisions),
            "hit_rate": round(outcomes["hit"] / answered, 4) if answered else None,
            "outcomes": dict(outcomes),
            "served_by": dict(_counts(decisions, lambda item: item.level)),
            "reasons": dict(_counts(decisions, lambda item: item.reason)),
            "saved_usd": round(sum(item.saved_usd * item.stands_for for item in decisions), 4),
            "other_scope": round(sum(item.stands_for for item in met)),
            "other_scope_intents": dict(shared.most_common()),
        },
    }


def _counts(decisions: Iterable[Decision], what: Callable[[Decision], str]) -> Counter[str]:
    """Return the number of lookups for each value; a sampled one counts for all it stands for."""
    found: defaultdict[str, float] = defaultdict(float)
    for item in decisions:
        found[what(item)] += item.stands_for
    return Counter({name: round(count) for name, count in found.items() if name})


def _label(intent: str) -> str:
    """Return an intent for display: one that is no label is free text."""
    return intent if not intent or INTENT_PATTERN.fullmatch(intent) else "no label"


def as_shown(replica: ReplicaReport) -> dict[str, Any]:
    """Return the displayed fields of a replica."""
    return {
        "replica": replica.name,
        "pid": replica.pid,
        "tuning_version": replica.tuning_version,
        "backends": dict(replica.backends),
        "loading": list(replica.loading),
        "lookups": replica.counters["operations"],
        "hit_rates": replica.counters["hit_rates"],
        "latency_ms": replica.counters["latency_ms"],
        "cost_savings_usd": replica.counters["cost_savings_usd"],
        "sharing": replica.counters["sharing"],
        "freshness": {
            _label(intent): found for intent, found in replica.counters["freshness"].items()
        },
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
    if log["lookups"] > log["kept"]:
        out.print(
            f"Estimated from a sample: 1 in {log['lookups'] / log['kept']:,.3g} lookups was kept."
        )
    if log["reasons"]:
        shown = table("why there was no answer", "lookups", "which means")
        shown.columns[1].justify = "right"
        for reason, count in sorted(log["reasons"].items(), key=lambda pair: -pair[1]):
            shown.add_row(reason, f"{count:,}", long(reason))
        out.print("", shown, sep="\n")
    if log["other_scope"]:
        named = ", ".join(log["other_scope_intents"]) or "without an intent"
        out.print(
            f"\n{counted(log['other_scope'], 'lookups')} missed although another user had the "
            f"answer ({named}). If those answers are the same for everybody, share them: "
            "CACHE_SHARED_INTENTS.",
            style="yellow",
        )


_COMPARED = ("unchanged_at_expiry", "unchanged_before", "changed", "failed")


def _print_freshness(replicas: Iterable[Mapping[str, Any]]) -> None:
    """Print what comparing fresh answers with stored ones showed, of all replicas together."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    lives: defaultdict[str, list[float]] = defaultdict(list)
    for replica in replicas:
        for intent, compared in replica["freshness"].items():
            counts[intent].update({name: int(compared.get(name) or 0) for name in _COMPARED})
            lives[intent] += filter(None, [compared.get("recommended_ttl")])
    if not any(map(Counter.total, counts.values())):
        return
    shown = table("intent", "same, expired", "same, before", "changed", "failed", "TTL to try")
    shown.title = "Fresh answers compared with the stored ones that they replaced"
    for column in shown.columns[1:]:
        column.justify = "right"
    for intent, count in sorted(counts.items()):
        life = duration(min(lives[intent])) if lives[intent] else "-"
        shown.add_row(intent or "(none)", *(f"{count[name]:,}" for name in _COMPARED), life)
    out.print("", shown, sep="\n")


def _print_replicas(found: dict[str, Any]) -> None:
    does = table(title=f"Replicas of {found['namespace']!r}")
    tiers = table(title="Hit rate of each tier, of the lookups that reached it")
    for name in ("replica", "pid", "lookups", "hit rate", "p50", "saved", "down"):
        does.add_column(
            name,
            justify="left" if name in {"replica", "down"} else "right",
            no_wrap=name in {"replica", "lookups"},
        )
    for name in ("replica", *LEVELS):
        tiers.add_column(name, justify="left" if name == "replica" else "right")
    for item in found["replicas"]:
        rates = item["hit_rates"]
        loading = item["loading"]
        notes = [
            Text(name, "red")
            for name, works in item["backends"].items()
            if not works and name not in loading
        ]
        if loading:
            notes.append(Text("loading", "yellow"))
        does.add_row(
            item["replica"], str(item["pid"]), f"{item['lookups']:,}", f"{rates['overall']:.1f} %",
            f"{item['latency_ms']['p50']:.2f} ms", f"{item['cost_savings_usd']:,.2f} USD",
            Text(", ").join(notes) if notes else Text("nothing", "green"),
        )  # fmt: skip
        tiers.add_row(item["replica"], *(f"{rates[level]:.1f} %" for level in LEVELS))
    out.print(does, "", tiers, sep="\n")
    _print_freshness(found["replicas"])
    out.print()
