"""`glasscache replay`: what the cache would have done on recorded traffic."""

from __future__ import annotations

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

from cache_core.cli.console import counted, err, out, print_json, run, table
from cache_core.embedder import ThreadEmbedder
from cache_core.replay import Report, Row, ScopeRule, as_json, read_rows, time_embedding
from cache_core.replay import replay as run_replay
from cache_core.settings import load_settings


class Scope(StrEnum):
    """Who may get the recorded answers."""

    private_flag = "private-flag"
    all_private = "all-private"


class Clock(StrEnum):
    """How time passes."""

    rows = "rows"
    none = "none"


def replay(
    file: Annotated[Path, typer.Argument(help="JSON Lines: one recorded request per line.")],
    scope: Annotated[
        Scope,
        typer.Option(
            help="private-flag: share answers whose row says private: false. all-private: share "
            "nothing. Rows without the flag are private."
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
            help="Least similarity of a semantic hit. Default: the setting in force.",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only this many rows, from the first.")
    ] = None,
    compare: Annotated[
        bool, typer.Option(help="Also replay under the other scope, to show what sharing gives.")
    ] = True,
    as_document: Annotated[
        bool, typer.Option("--json", help="Print one JSON document, for scripts.")
    ] = False,
) -> None:
    """Estimate what the cache would save, before you adopt it.

    Each line of FILE is an object with [bold]message[/bold] and [bold]user_id[/bold], and if you
    have them: [bold]answer_id[/bold] (two requests with the same id may share an answer: gives
    the wrong hits), [bold]private[/bold] (the answer is for this user only), [bold]history[/bold]
    (earlier turns), [bold]standalone[/bold] (a follow-up rewritten to stand alone),
    [bold]intent[/bold], [bold]rag_results[/bold] (the documents retrieved) and [bold]t[/bold]
    (when it was asked, in seconds).

    Rows are asked in order, with the real model, in a temporary directory; no server is used.

    One line of such a file:
        {"message": "Where is my order?", "user_id": "u42", "private": true}

    [bold]glasscache replay traffic.jsonl[/bold]
        Hit rate, wrong answers and savings, with sharing and without.

    [bold]glasscache replay traffic.jsonl --threshold 0.9 --limit 5000[/bold]
        The same for a lower similarity threshold, on the first 5,000 rows.
    """
    rows = _read(file, limit)
    run(_replay(rows, scope.value, clock.value, threshold, compare, as_document))


def _read(file: Path, limit: int | None) -> list[Row]:
    from cache_core.cli.console import fail
    from cache_core.exceptions import ConfigurationError

    try:
        return read_rows(file, limit)
    except ConfigurationError as error:
        fail(str(error))


async def _replay(
    rows: list[Row],
    scope: ScopeRule,
    clock: Any,
    threshold: float | None,
    compare: bool,
    as_document: bool,
) -> None:
    fixed = load_settings()
    embedder = ThreadEmbedder(fixed.embedding_model, threads=fixed.torch_threads)
    reports: list[Report] = []
    other: ScopeRule = "all-private" if scope == "private-flag" else "private-flag"
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
                    threshold=threshold,
                    progress=lambda done, task=task: progress.advance(task, done),  # type: ignore[misc]
                )
            )
    embedder.close()
    document = as_json(reports[0], embedding_ms, reports[1] if compare else None)
    if as_document:
        print_json(document)
    else:
        _print(document)


def _print(found: dict[str, Any]) -> None:
    requests = counted(found["requests"], "requests")
    shown = table(title=f"{requests}, scope {found['scope']}, clock {found['clock']}")
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
    tiers = found["served_by"]
    latency = found["latency_ms"]
    out.print(
        f"Served by L1 (exact) {tiers['l1']:,}, by L2 (semantic) {tiers['l2']:,}; "
        f"partly (intent or documents) {found['partial']:,}."
    )
    out.print(
        f"A lookup took {latency['p50']:.2f} ms (p95 {latency['p95']:.2f}); one that reaches L2 "
        f"takes an embedding more, {latency['embedding_p50']:.1f} ms here."
    )
    for level, reasons in found["miss_reasons"].items():
        listed = ", ".join(f"{name} {count:,}" for name, count in sorted(
            reasons.items(), key=lambda pair: -pair[1]))  # fmt: skip
        out.print(f"{level} missed: {listed}", style="dim")
    if found["sharing"]["advice"]:
        out.print(found["sharing"]["advice"], style="yellow")
