"""`glasscache report`: what the cache did in a time range, against its targets."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from cache_core.cli.console import err, fail, json_text, out, print_json, run, table
from cache_core.cli.report.content import FEW, Report, made, percent, usd
from cache_core.cli.report.markdown import markdown
from cache_core.cli.report.page import page
from cache_core.cli.where import AsJson, Directory, Namespace, RedisUrl, opened
from cache_core.model import durations
from cache_core.multilevel_cache import MultiLevelCache
from cache_core.observability.history import DAY

_HOURS_UP_TO = 3 * DAY
_INTENTS_SHOWN = 15


class Form(StrEnum):
    """Formats of a report."""

    TEXT = "text"
    MARKDOWN = "markdown"
    HTML = "html"
    JSON = "json"


def report(
    since: Annotated[
        str,
        typer.Option(
            metavar="DURATION|DATE",
            help="Beginning: 90m, 24h or 7d ago, or 2026-01-31 or 2026-01-31T12:00 of UTC.",
        ),
    ] = "24h",
    until: Annotated[
        str, typer.Option(metavar="DURATION|DATE", help="End, as --since. Default: now.")
    ] = "",
    form: Annotated[
        Form, typer.Option("--format", help="HTML is one file with charts, which loads nothing.")
    ] = Form.TEXT,
    output: Annotated[
        Path | None, typer.Option(help="File to write. Default: standard output.")
    ] = None,
    namespace: Namespace = "default",
    redis_url: RedisUrl = None,
    directory: Directory = None,
    as_document: AsJson = False,
) -> None:
    """Report what the cache did: hit rates against their targets, money, intents, and advice.

    The sums are of all replicas, by hour for a week and by day for 90 days. The first hour counts
    whole.

    [bold]glasscache report --since 7d --format html --output week.html[/bold]
        The last week, as a page with charts to send around.

    [bold]glasscache report --since 48h --until 24h[/bold]
        The day before, to compare with.
    """
    now = time.time()
    start, end = _moment("--since", since, now), _moment("--until", until, now) if until else now
    if start >= end:
        fail(f"--since {since} is not before --until {until or 'now'}")

    async def work() -> Report:
        async with opened(namespace, redis_url, None, directory, semantic=False) as cache:
            return await _report(cache, start, end)

    found = run(work())
    form = Form.JSON if as_document else form
    if output is not None:
        _write(output, found, Form.MARKDOWN if form is Form.TEXT else form)
    elif form is Form.TEXT:
        _print(found)
    elif form is Form.JSON:
        print_json(found.document())
    else:
        sys.stdout.write(_text(found, form))


async def _report(cache: MultiLevelCache, since: float, until: float) -> Report:
    by_hour = until - since <= _HOURS_UP_TO
    periods = await cache.operator.history(since, until, by="hour" if by_hour else "day")
    return made(cache.namespace, periods, since, until, await cache.operator.in_force())


def _moment(option: str, text: str, now: float) -> float:
    """Return a time, seconds since the epoch; one that cannot be read ends the command."""
    try:
        return now - _ago(text)
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        fail(f"{option} {text} is no time: write 90m, 24h or 7d, or a date such as 2026-01-31")
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _ago(text: str) -> float:
    """Return a duration in seconds; raise `ValueError` for a text that is none."""
    found = durations.seconds(text)
    if isinstance(found, float):
        return found
    raise ValueError(text)


def _text(found: Report, form: Form) -> str:
    return page(found) if form is Form.HTML else markdown(found)


def _write(output: Path, found: Report, form: Form) -> None:
    text = json_text(found.document()) if form is Form.JSON else _text(found, form)
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        fail(f"--output {output}: {error.strerror or error}")
    err.print(f"wrote {output}", highlight=False)


def _print(found: Report) -> None:
    sums = found.sums
    out.print(f"What the cache {found.namespace!r} did", style="bold", highlight=False)
    out.print(found.range, highlight=False)
    if not sums.lookups:
        out.print("\nNothing was looked up in this time.")
        return
    out.print(f"{sums.lookups:,} lookups, {sums.answered:,} answered\n", highlight=False)
    if found.is_short:
        out.print(f"Fewer than {FEW} lookups that could be answered: rates say nothing.\n")
    targets = table("", "found", "target", "")
    for item in found.targets:
        style = {True: "green", False: "yellow", None: "dim"}[item.met]
        targets.add_row(item.name, item.found, item.wanted, Text(item.verdict, style))
    money = table("money and time", "")
    money.columns[1].justify = "right"
    for row in found.money:
        money.add_row(*row)
    out.print(targets, "", money, sep="\n")
    out.print(found.price, style="dim", highlight=False)
    _print_intents(found)
    if found.reasons:
        reasons = table("why there was no answer", "lookups", "which means")
        reasons.columns[1].justify = "right"
        for reason in found.reasons:
            reasons.add_row(reason.name, f"{reason.lookups:,}", reason.meaning)
        out.print("", reasons, sep="\n")
    if found.advice:
        out.print("\nWhat would raise the hit rate", style="bold")
        for text in found.advice:
            out.print(f"- {text}", highlight=False)


def _print_intents(found: Report) -> None:
    if not found.intents:
        return
    intents = table("intent", "lookups", "hit rate", "judged wrong", "saved")
    intents.columns[0].overflow = "fold"
    for column in intents.columns[1:]:
        column.justify = "right"
    for name, sums in found.intents[:_INTENTS_SHOWN]:
        intents.add_row(
            name, f"{sums.asked:,}", percent(sums.hit_rate),
            f"{sums.wrong:,} of {sums.wrong + sums.correct:,}", usd(sums.saved_usd),
        )  # fmt: skip
    out.print("", intents, sep="\n")
    more = len(found.intents) - _INTENTS_SHOWN
    if more > 0:
        out.print(f"... and {more} more: --format markdown has all.", highlight=False)
