"""`glasscache replay`: the cache's effect on recorded traffic."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from cache_core.backends.embedder.choosing import make_embedder
from cache_core.cli.console import counted, err, out, print_json, run, table
from cache_core.cli.context import ContextText, given_context
from cache_core.cli.files import REQUESTS
from cache_core.cli.files import Report as FileReport
from cache_core.cli.files import options as files
from cache_core.cli.files.requests import in_order
from cache_core.config.settings import load_settings
from cache_core.model.reasons import short
from cache_core.whatif.replay import (
    MAX_WRONG,
    Report,
    ScopeRule,
    Serving,
    TrafficRow,
    as_json,
    time_embedding,
)
from cache_core.whatif.replay import replay as run_replay

_MANY_CONTEXTS = 64
_DAY, _MONTH = 86_400.0, 30 * 86_400.0


class Scope(StrEnum):
    """Readers of the recorded answers."""

    private_flag = "private-flag"
    all_private = "all-private"
    auto = "auto"
    all_shared = "all-shared"


class Policy(StrEnum):
    """Rule by which L2 serves."""

    threshold = "threshold"
    guarded = "guarded"
    learned = "learned"


class Clock(StrEnum):
    """Passing of time."""

    rows = "rows"
    none = "none"


def replay(
    file: Annotated[
        Path, typer.Argument(help="Recorded requests or chats: JSON or CSV; - for stdin.")
    ],
    scope: Annotated[
        Scope,
        typer.Option(
            help="private-flag: share answers whose row says private: false; rows without the flag "
            "are private. all-private: share nothing. auto: share what enough users got, without "
            "regard to the flag. all-shared: share everything."
        ),
    ] = Scope.private_flag,
    clock: Annotated[
        Clock,
        typer.Option(
            help="rows: time passes by the rows' t, and answers expire. none: nothing expires."
        ),
    ] = Clock.rows,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Lowest similarity of a semantic hit. Default: the setting in force.",
        ),
    ] = None,
    policy: Annotated[
        Policy,
        typer.Option(
            help="threshold: serve by similarity alone. guarded: the guards, too. learned: by what "
            "the misses taught, within --max-wrong; best with an answer_id in the rows."
        ),
    ] = Policy.guarded,
    max_wrong: Annotated[
        float,
        typer.Option(min=0.0, max=0.2, help="Share of hits that may be wrong, with learned."),
    ] = MAX_WRONG,
    compare: Annotated[
        bool, typer.Option(help="Also replay under another scope, to show the effect of sharing.")
    ] = True,
    context: ContextText = None,
    mapped: files.Map = None,
    encoding: files.Encoding = None,
    no_header: files.NoHeader = False,
    strict: files.Strict = False,
    limit: files.Limit = None,
    as_document: Annotated[
        bool, typer.Option("--json", help="Print one JSON document, for scripts.")
    ] = False,
) -> None:
    """Estimate what the cache would save, before you adopt it.

    FILE has requests, or chats in the format of chat APIs and training files: JSON Lines, a JSON
    array or CSV, also compressed. A request has a [bold]message[/bold] and optionally:
    [bold]user_id[/bold] (without one only shared answers are served and stored),
    [bold]answer_id[/bold] (requests with the same id may share an answer: gives the wrong
    hits), [bold]private[/bold] (the answer is for this user only), [bold]context[/bold] (system
    prompt, tenant: answers never cross it), [bold]history[/bold] (earlier turns),
    [bold]standalone[/bold] (a follow-up rewritten to stand alone), [bold]intent[/bold],
    [bold]rag_results[/bold] (the documents retrieved) and [bold]t[/bold] (when it was asked).
    Columns are found by their names, and listed. Each question in a chat is a request; a chat that
    names no user counts as a user of its own.

    Rows are looked up in order, with the real model, in a temporary directory, without any server.

    Example line:
        {"message": "Where is my order?", "user_id": "u42", "private": true}

    [bold]glasscache replay chats.jsonl --scope all-shared[/bold]
        Effect of sharing everything: the upper limit.

    [bold]glasscache replay log.csv --map message=Anliegen --map answer_id=Auskunft[/bold]
        Map the columns. Canned answers count as right if their texts are equal.

    [bold]glasscache replay traffic.jsonl[/bold]
        Hit rate, wrong answers and savings, with sharing and without.

    [bold]glasscache replay traffic.jsonl --policy learned --max-wrong 0.01[/bold]
        The most hits with at most 1 % wrong, learned as the traffic goes.

    [bold]glasscache replay traffic.jsonl --threshold 0.9 --limit 5000[/bold]
        The same for a lower similarity threshold, on the first 5,000 rows.
    """
    given = given_context(context)
    found, report = files.rows(
        file, REQUESTS, files.how(mapped, encoding, no_header, strict, limit)
    )
    rows = in_order(found)
    if context is not None:
        rows = [dataclasses.replace(row, context=given) for row in rows]
    if not as_document:
        files.print_report(report)
        for doubt in _doubts(rows, report, scope, clock):
            err.print(doubt, style="yellow", highlight=False)
    document = run(
        _replay(
            rows, scope.value, clock.value, Serving(policy.value, threshold, max_wrong), compare
        )
    )
    if as_document:
        print_json({**document, "file": report.as_json()})
    else:
        _print(document)


def _doubts(
    rows: list[TrafficRow], report: FileReport, scope: Scope, clock: Clock
) -> Iterator[str]:
    """Yield warnings about how the estimate may mislead."""
    if report.strangers:
        what = counted(report.strangers, "chats")
        yield f"{what} without a user_id: each counts as a user of its own."
    unknown = sum(row.user_id is None for row in rows)
    if unknown and scope is not Scope.all_shared:
        yield (
            f"{counted(unknown, 'requests')} without a user_id: what is private is neither stored "
            "nor served for them. --map user_id=COLUMN names who asked."
        )
    if scope is Scope.private_flag and all(row.private is None for row in rows):
        yield (
            "No row says whether its answer is private, so all are. --scope all-shared shows what "
            "sharing them would give."
        )
    if scope is Scope.auto and clock is Clock.none:
        yield "No time passes, so nothing is shared: answers are promoted after an hour or more."
    if scope is Scope.auto and all(row.answer_id is None for row in rows):
        yield "Without an answer_id no two rows have the same answer, so nothing is shared."
    if clock is Clock.rows and any(row.t is None for row in rows):
        some = counted(sum(row.t is None for row in rows), "requests")
        yield f"{some} without a time: no time passes between them, and nothing expires."
    contexts = len({json.dumps(row.context, sort_keys=True) for row in rows})
    if contexts > _MANY_CONTEXTS:
        yield (
            f"{contexts:,} different contexts in {counted(len(rows), 'requests')}: answers never "
            "cross them, and L2 has an index for 64 at most. If they are not what the agent would "
            "pass as context=, leave them out with --map context= ."
        )


async def _replay(
    rows: list[TrafficRow],
    scope: ScopeRule,
    clock: Any,
    serving: Serving,
    compare: bool,
) -> dict[str, Any]:
    fixed = load_settings()
    embedder = make_embedder(
        fixed.embedding_model, fixed.embedding_backend, fixed.torch_threads, fixed.endpoint
    )
    reports: list[Report] = []
    other = _other(scope, rows)
    with Progress(
        TextColumn("{task.description:28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=err,
        disable=not err.is_terminal,
        transient=True,
    ) as progress:
        loading = progress.add_task("loading the model", total=None)
        await embedder.wait_ready()
        embedding_ms = await time_embedding(embedder, rows)
        progress.remove_task(loading)
        texts = {row.standalone or row.message for row in rows if row.standalone or not row.history}
        texts = {text for text in texts if embedder.fits(text)}
        task = progress.add_task("embedding the messages", total=len(texts))
        await embedder.embed_all(sorted(texts), lambda done: progress.advance(task, done))
        for rule in (scope, other) if compare else (scope,):
            task = progress.add_task(f"replaying, {rule}", total=len(rows))
            reports.append(
                await run_replay(
                    rows,
                    scope=rule,
                    clock=clock,
                    embedder=embedder,
                    serving=serving,
                    watch=lambda _, __, task=task: progress.advance(task),  # type: ignore[misc]
                )
            )
    embedder.close()
    found = as_json(reports[0], embedding_ms, reports[1] if compare else None)
    found["saved_usd_per_month"] = _per_month(rows, reports[0].metrics["cost_savings_usd"])
    found["private_intents"] = sorted({row.intent for row in rows if row.private and row.intent})
    return found


def _per_month(rows: list[TrafficRow], saved_usd: float) -> float | None:
    """Return the saving of 30 days at the rows' pace; `None` for less than a day of them."""
    times = [row.t for row in rows if row.t is not None]
    span = max(times) - min(times) if times and len(times) == len(rows) else 0.0
    return round(saved_usd * _MONTH / span, 2) if span >= _DAY else None


def _other(scope: ScopeRule, rows: list[TrafficRow]) -> ScopeRule:
    """Return the scope to compare with, to show the effect of sharing."""
    if all(row.private is None for row in rows):
        return "all-private" if scope == "all-shared" else "all-shared"
    return "all-private" if scope == "private-flag" else "private-flag"


def _print(found: dict[str, Any]) -> None:
    requests = counted(found["requests"], "requests")
    out.print(
        f"{requests}, scope {found['scope']}, clock {found['clock']}, policy {found['policy']}",
        style="bold",
    )
    shown = table()
    shown.add_column("")
    shown.add_column(found["scope"], justify="right", style="bold")
    other = found.get("other_scope")
    if other is not None:
        shown.add_column(other["scope"], justify="right")
    for label, name, form in (
        ("hit rate", "hit_rate", "{:.1%}"),
        ("hits", "hits", "{:,}"),
        ("wrong answers", "wrong", "{:,}"),
        ("wrong, of hits", "wrong_share", "{:.2%}"),
        ("private answers to others", "private_leaks", "{:,}"),
        ("saved, USD", "saved_usd", "{:,.2f}"),
    ):
        cells = [
            form.format(side[name]) if side[name] is not None
            else "no answer_id" if side["hits"] else "no hits"
            for side in (found, other)
            if side is not None
        ]  # fmt: skip
        shown.add_row(label, *cells)
    out.print(shown, "", sep="\n")
    if found["saved_usd_per_month"] is not None:
        out.print(f"At the file's pace that is {found['saved_usd_per_month']:,.2f} USD in 30 days.")
    tiers = found["served_by"]
    latency = found["latency_ms"]
    out.print(
        f"Served by L1 (exact) {tiers['l1']:,}, by L2 (semantic) {tiers['l2']:,}; "
        f"partly (intent or documents) {found['partial']:,}."
    )
    out.print(
        f"Median lookup {latency['p50']:.2f} ms (p95 {latency['p95']:.2f} ms), plus "
        f"{latency['embedding_p50']:.1f} ms for the embedding when L2 is needed."
    )
    for level, reasons in found["miss_reasons"].items():
        listed = ", ".join(f"{short(name)} {count:,}" for name, count in sorted(
            reasons.items(), key=lambda pair: -pair[1]))  # fmt: skip
        out.print(f"{level.upper()} missed: {listed}", style="dim")
    if advice := _advice(found["sharing"], found["private_intents"]):
        out.print(advice, style="yellow")


def _advice(sharing: dict[str, Any], private: list[str]) -> str:
    """Return the cache's advice, without intents of which the file says that they are private."""
    met = [name for name in sharing["by_intent"] if name in private]
    if not met or not sharing["advice"]:
        return str(sharing["advice"])
    which = ", ".join(met)
    if len(met) == len(sharing["by_intent"]):
        missed = counted(sharing["other_scope_misses"], "lookups")
        return f"{missed} missed an answer of another user; the file says it is private: {which}."
    return f"{sharing['advice']} Do not share {which}: the file says that it is private."
