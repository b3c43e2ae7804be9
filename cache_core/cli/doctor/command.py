"""`glasscache doctor`: the checks, and their report."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cache_core.backends.embedder.encoder import is_packaged
from cache_core.cli.console import err, out, print_json, run
from cache_core.cli.doctor import servers
from cache_core.cli.doctor.finding import CHECKS, LEVELS, Finding, Level, skipped
from cache_core.cli.doctor.gather import Addresses, Facts, gather
from cache_core.cli.doctor.monitoring import check_dashboards, check_prometheus, check_receiver
from cache_core.cli.doctor.parts import check_disk, check_semantic, check_settings
from cache_core.cli.doctor.servers import Use, check_redis
from cache_core.cli.doctor.traffic import NAMES as OF_TRAFFIC
from cache_core.cli.doctor.traffic import check_traffic
from cache_core.cli.doctor.troubles import NAMES as OF_MISSES
from cache_core.cli.doctor.troubles import Room, check_l2, check_memory, check_misses
from cache_core.cli.where import AsJson, ChromaUrl, Directory, Namespace, RedisUrl
from cache_core.config.settings import load_settings
from cache_core.model.exceptions import BackendError

_STYLES: dict[Level, str] = {
    "failure": "bold red", "warning": "yellow", "note": "cyan", "ok": "green", "skipped": "dim",
}  # fmt: skip
_MONITORING = "Monitoring"
OF_L2 = ("vectors", "model")
"""Checks of the parts that L2 cannot do without."""


@dataclass
class Options:
    """Options of `glasscache doctor`."""

    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 for warnings, too, as in a pipeline.")
    ] = False
    as_document: AsJson = False
    prometheus: Annotated[
        str | None,
        typer.Option(
            metavar="URL", envvar="PROMETHEUS_URL", help="Its scrapes and rules are checked.",
            rich_help_panel=_MONITORING,
        ),
    ] = None  # fmt: skip
    alertmanager: Annotated[
        str | None,
        typer.Option(
            metavar="URL", envvar="ALERTMANAGER_URL", help="Its receivers are checked.",
            rich_help_panel=_MONITORING,
        ),
    ] = None  # fmt: skip
    grafana: Annotated[
        str | None,
        typer.Option(
            metavar="URL", envvar="GRAFANA_URL",
            help="Its dashboards are checked; GRAFANA_TOKEN logs in.",
            rich_help_panel=_MONITORING,
        ),
    ] = None  # fmt: skip
    grafana_token: Annotated[str | None, typer.Option(hidden=True, envvar="GRAFANA_TOKEN")] = None
    namespace: Namespace = "default"
    redis_url: RedisUrl = None
    chroma_url: ChromaUrl = None
    directory: Directory = None


def doctor(options: Options) -> None:
    """Check the running system: settings, Redis, model, monitoring, and where lookups end.

    Run it where an agent runs, with the agent's environment. Each finding has what was found, why
    it matters and how to fix it. Nothing is changed, and nothing is counted.

    The exit code is 1 if there is a failure, with --strict also for a warning, else 0.

    [bold]glasscache doctor --prometheus http://localhost:9090[/bold]
        Checks that the metrics are scraped, and the rules loaded, too.

    [bold]glasscache doctor --json | jq '.findings[] | select(.level == "failure")'[/bold]
        Only the failures.
    """
    settings = load_settings(
        redis_url=options.redis_url, chroma_url=options.chroma_url, dir=options.directory
    )
    addresses = Addresses(
        options.prometheus, options.alertmanager, options.grafana, options.grafana_token
    )
    with _quiet(), err.status("examining the system"):
        facts = run(gather(settings, options.namespace, addresses))
    findings = examined(facts)
    counts = Counter(item.level for item in findings)
    bad = counts["failure"] or (options.strict and counts["warning"])
    if options.as_document:
        print_json(_document(options.namespace, findings, counts))
    else:
        _show(findings, counts)
    if bad:
        raise typer.Exit(1)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the cache's log from the terminal: the findings say it all."""
    logger = logging.getLogger("glasscache")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def examined(facts: Facts) -> list[Finding]:
    """Return the finding of every check, in the order of `CHECKS`."""
    found = {item.name: item for item in _findings(facts)}
    return [found[name] for name in CHECKS]


def _findings(facts: Facts) -> Iterator[Finding]:
    settings, replicas = facts.settings, len(facts.stored.in_force.replicas)
    yield from check_settings(settings, facts.refused)
    yield check_disk(settings, facts.disk)
    redis = list(_of_redis(facts))
    semantic = list(check_semantic(settings, facts.semantic))
    yield from redis
    yield from semantic
    broken = [item for item in semantic if item.level == "failure" and item.name in OF_L2]
    if facts.stored.error:
        failed = [item.name for item in redis if item.level == "failure"]
        why = f"see {', '.join(failed)}" if failed else facts.stored.error
        yield from skipped((*OF_TRAFFIC, *OF_MISSES), f"the store is not reached: {why}")
    else:
        yield from _of_lookups(facts, broken)
    if isinstance(facts.servers, BackendError):
        yield from skipped(["memory"], "Redis is not reachable")
    else:
        yield check_memory(_room(facts))
    yield from check_prometheus(facts.prometheus, facts.namespace, replicas)
    yield check_receiver(facts.prometheus, facts.alertmanager)
    yield check_dashboards(facts.dashboards)


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
    tuning, packaged = stored.in_force.tuning, is_packaged(settings.embedding_model)
    yield from check_traffic(stored.in_force, stored.decisions, packaged=packaged)
    yield from check_misses(tuning, stored.decisions)
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


def _document(
    namespace: str, findings: Sequence[Finding], counts: Counter[Level]
) -> dict[str, Any]:
    return {
        "namespace": namespace,
        "counts": {level: counts[level] for level in LEVELS},
        "findings": [
            {
                "name": item.name, "level": item.level, "subject": item.check.subject,
                "checked": item.check.what, "found": item.found, "why": item.check.why,
                "fix": item.fix,
            }
            for item in findings
        ],
    }  # fmt: skip


def _show(findings: Sequence[Finding], counts: Counter[Level]) -> None:
    for subject in dict.fromkeys(check.subject for check in CHECKS.values()):
        of_it = [item for item in findings if item.check.subject == subject]
        out.print(subject, style="bold")
        shown = Table.grid(padding=(0, 1))
        shown.add_column(width=max(map(len, LEVELS)))
        shown.add_column(overflow="fold")
        for item in of_it:
            if item.level != "skipped":
                shown.add_row(Text(item.level, _STYLES[item.level]), _in_words(item))
        for line in _skipped(of_it):
            shown.add_row(Text("skipped", _STYLES["skipped"]), Text(line, "dim"))
        out.print(Padding(shown, (0, 0, 1, 2)))
    out.print(_summary(findings, counts))


def _in_words(item: Finding) -> Text:
    text = Text.assemble((item.name, "bold"), "  ", item.found)
    if item.level != "ok":
        text.append(f"\nWhy: {item.check.why}", "dim")
        text.append(f"\nFix: {item.fix}")
    return text


def _skipped(findings: Sequence[Finding]) -> Iterator[str]:
    """Yield a line for each reason; without names where it skips all."""
    left = [item for item in findings if item.level == "skipped"]
    for reason in dict.fromkeys(item.found for item in left):
        names = [item.name for item in left if item.found == reason]
        yield reason if len(names) == len(findings) else f"{', '.join(names)}: {reason}"


def _summary(findings: Sequence[Finding], counts: Counter[Level]) -> Text:
    text = Text()
    for level in LEVELS:
        if not counts[level]:
            continue
        plural = level if level in {"ok", "skipped"} else f"{level}s"
        text.append(f"{', ' if text else ''}{counts[level]} ")
        text.append(level if counts[level] == 1 else plural, _STYLES[level])
        if level in {"failure", "warning"}:
            names = ", ".join(item.name for item in findings if item.level == level)
            text.append(f" ({names})")
    return text.append(".")
