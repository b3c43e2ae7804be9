"""`glasscache stats`: the running replicas, and what all replicas counted."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cache_core.cli.console import counted, fail, out, print_json, run, table
from cache_core.cli.where import AsJson, Directory, Namespace, RedisUrl, opened
from cache_core.config.intents import INTENT_PATTERN
from cache_core.model import durations
from cache_core.model.exceptions import BackendError
from cache_core.model.reasons import long
from cache_core.model.values import LEVELS
from cache_core.multilevel_cache import MultiLevelCache
from cache_core.observability.decisions import Decision
from cache_core.observability.fleet import ReplicaReport
from cache_core.observability.history import DAY, Period, total
from cache_core.observability.hours import HOUR
from cache_core.observability.sums import REST, Sums
from cache_core.operations.explain import duration

_LEAST_EVERY = 0.5

_RANGES = {"hour": "this hour", "day": "today, UTC", "week": "last 7 days", "all": "last 90 days"}
"""Ranges of the totals, in words."""


def stats(
    watch: Annotated[
        bool, typer.Option("--watch", help="Refresh the figures until Ctrl-C.")
    ] = False,
    every: Annotated[
        str, typer.Option(metavar="DURATION", help="Time between two refreshes of --watch.")
    ] = "2s",
    namespace: Namespace = "default",
    redis_url: RedisUrl = None,
    directory: Directory = None,
    as_document: AsJson = False,
) -> None:
    """Show the running replicas, and what all replicas counted.

    A replica is a process with an open cache of this namespace. Replicas report every second; the
    totals include those that have ended, for 90 days.

    [bold]glasscache stats --json | jq .history.day.hit_rate[/bold]
        Hit rate of this day on all replicas.

    [bold]glasscache stats --watch --every 10s[/bold]
        The figures, renewed every ten seconds.
    """
    if watch and as_document:
        fail("--watch refreshes a screen: with --json run the command again instead")
    pause = _seconds(every)

    async def work() -> dict[str, Any]:
        async with opened(namespace, redis_url, None, directory, semantic=False) as cache:
            if watch:
                await _watch(cache, pause)
            return await _stats(cache, with_log=as_document)

    found = run(work())
    if as_document:
        print_json(found)
    else:
        _print_stats(found)


def _seconds(text: str) -> float:
    try:
        found = float(durations.seconds(text))
    except ValueError:
        found = 0.0
    if not found >= _LEAST_EVERY:
        fail(f"--every {text} is refused: write 500ms or more, such as 2s or 1m")
    return found


async def _watch(cache: MultiLevelCache, pause: float) -> None:
    """Renew the figures on the screen, and keep the last ones while the store is unavailable."""
    shown: RenderableType = ""
    with Live(console=out, auto_refresh=False) as live:
        while True:
            at = time.strftime("%H:%M:%S")
            try:
                shown = _shown(await _stats(cache, with_log=False))
                note = Text(f"\n{at}; Ctrl-C ends.", "dim")
            except BackendError as error:
                note = Text(f"\n{at}: the store does not answer: {error.reason}.", "yellow")
            if out.is_terminal:
                live.update(Group(shown, note), refresh=True)
            else:
                out.print(shown, note, "", sep="\n")
            await asyncio.sleep(pause)


async def _stats(cache: MultiLevelCache, *, with_log: bool = True) -> dict[str, Any]:
    periods = await cache.operator.history(0)
    found = {
        "namespace": cache.namespace,
        "replicas": [as_shown(replica) for replica in await cache.operator.replicas()],
        "history": {name: as_totals(sums) for name, sums in _ranges(periods).items()},
    }
    if with_log:
        found["decisions"] = _of_log(await cache.decisions(cache.settings.decisions or 1))
    return found


def _ranges(periods: Sequence[Period]) -> dict[str, Sums]:
    """Return the sums of each of `_RANGES`: they begin with a whole hour, or day of UTC."""
    now = time.time()
    today = now // DAY * DAY
    firsts = {"hour": now // HOUR * HOUR, "day": today, "week": today - 7 * DAY, "all": 0.0}
    return {
        name: total(item for item in periods if item.start >= first)
        for name, first in firsts.items()
    }


def as_totals(sums: Sums) -> dict[str, Any]:
    """Return the displayed totals of a range."""
    shares = {level: sums.served(level) for level in ("l1", "l2")}
    return {
        "lookups": sums.lookups,
        "hit_rate": None if sums.hit_rate is None else round(sums.hit_rate, 4),
        "served": {name: None if share is None else round(share, 4)
                   for name, share in shares.items()},
        "outcomes": dict(sums.outcomes),
        "reasons": dict(sums.reasons),
        "saved_usd": round(sums.net_usd, 4),
        "without_cache_usd": round(sums.full_usd, 4),
        "wrong": sums.wrong,
        "verdicts": sums.judged,
        "other_scope": sums.misses.get("l1", {}).get("other_scope", 0),
        "other_scope_intents": {
            name: item.other_scope
            for name, item in sorted(
                sums.intents.items(), key=lambda pair: -pair[1].other_scope
            )
            if item.other_scope and name != REST
        },
    }  # fmt: skip


def _of_log(decisions: Sequence[Decision]) -> dict[str, Any]:
    """Return the figures of the decision log."""
    outcomes = _counts(decisions, lambda item: item.outcome)
    answered = sum(outcomes.values()) - outcomes["bypass"]
    met = [item for item in decisions if "other_scope" in item.reasons]
    shared = _counts(met, lambda item: _label(item.intent))
    return {
        "lookups": round(sum(item.stands_for for item in decisions)),
        "kept": len(decisions),
        "hit_rate": round(outcomes["hit"] / answered, 4) if answered else None,
        "outcomes": dict(outcomes),
        "served_by": dict(_counts(decisions, lambda item: item.level)),
        "reasons": dict(_counts(decisions, lambda item: item.reason)),
        "saved_usd": round(sum(item.saved_usd * item.stands_for for item in decisions), 4),
        "other_scope": round(sum(item.stands_for for item in met)),
        "other_scope_intents": dict(shared.most_common()),
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
    out.print(_shown(found))


def _shown(found: dict[str, Any]) -> Group:
    """Return the figures for a terminal."""
    parts: list[RenderableType] = []
    if found["replicas"]:
        parts += [*_replicas(found), ""]
    else:
        parts.append(Text(f"No replica of {found['namespace']!r} is running here."))
    history = found["history"]
    if not history["all"]["lookups"]:
        return Group(*parts, Text("Nothing was looked up yet."))
    parts.append(_totals(history))
    name = next(name for name in ("day", "week", "all") if history[name]["lookups"])
    recent = history[name]
    if recent["reasons"]:
        shown = table(
            "why there was no answer",
            "lookups",
            "which means",
            title=_RANGES[name][0].upper() + _RANGES[name][1:],
        )
        shown.columns[1].justify = "right"
        for reason, count in sorted(recent["reasons"].items(), key=lambda pair: -pair[1]):
            shown.add_row(reason, f"{count:,}", long(reason))
        parts += ["", shown]
    if recent["other_scope"]:
        named = ", ".join(recent["other_scope_intents"]) or "without an intent"
        parts.append(
            Text(
                f"\n{counted(recent['other_scope'], 'lookups')} missed although another user had "
                f"the answer ({named}). If those answers are the same for everybody, share them: "
                "CACHE_SHARED_INTENTS.",
                style="yellow",
            )
        )
    return Group(*parts)


def _totals(history: dict[str, Any]) -> Table:
    shown = table(title="All replicas, also those that have ended")
    for name in ("", "lookups", "hit rate", "L1", "L2", "saved"):
        shown.add_column(name, justify="right" if name else "left")
    for name, words in _RANGES.items():
        item = history[name]
        shown.add_row(
            words, f"{item['lookups']:,}", _percent(item["hit_rate"]),
            _percent(item["served"]["l1"]), _percent(item["served"]["l2"]),
            f"{item['saved_usd']:,.2f} USD",
        )  # fmt: skip
    return shown


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


_COMPARED = ("unchanged_at_expiry", "unchanged_before", "changed", "unknown", "failed")


def _freshness(replicas: Iterable[Mapping[str, Any]]) -> list[RenderableType]:
    """Return what comparing fresh answers with stored ones showed, of all replicas together."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    lives: defaultdict[str, list[float]] = defaultdict(list)
    for replica in replicas:
        for intent, compared in replica["freshness"].items():
            counts[intent].update({name: int(compared.get(name) or 0) for name in _COMPARED})
            lives[intent] += filter(None, [compared.get("recommended_ttl")])
    if not any(map(Counter.total, counts.values())):
        return []
    shown = table("intent", "same, expired", "same, before", "changed", "unknown", "failed",
                  "TTL to try")  # fmt: skip
    shown.title = "Fresh answers compared with the stored ones that they replaced"
    for column in shown.columns[1:]:
        column.justify = "right"
    for intent, count in sorted(counts.items()):
        life = duration(min(lives[intent])) if lives[intent] else "-"
        shown.add_row(intent or "(none)", *(f"{count[name]:,}" for name in _COMPARED), life)
    return ["", shown]


def _replicas(found: dict[str, Any]) -> list[RenderableType]:
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
    return [does, "", tiers, *_freshness(found["replicas"])]
