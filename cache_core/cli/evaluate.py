"""`glasscache evaluate`: recall and false hits on labelled pairs of questions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cache_core.backends.embedder.choosing import make_embedder
from cache_core.cli.console import counted, err, out, print_json, run, table
from cache_core.cli.files import PAIRS
from cache_core.cli.files import options as files
from cache_core.cli.replay import Policy
from cache_core.config.settings import load_settings
from cache_core.config.tuning import Tuning
from cache_core.tiers import guards
from cache_core.whatif.evaluate import Evaluation, Pair
from cache_core.whatif.evaluate import evaluate as run_evaluation
from cache_core.whatif.replay import MAX_WRONG, PolicyRule


def evaluate(
    file: Annotated[
        Path, typer.Argument(help="Labelled pairs of questions: CSV or JSON; - for stdin.")
    ],
    policy: Annotated[
        Policy,
        typer.Option(
            help="threshold: serve by similarity alone. guarded: the guards, too. learned: by the "
            "policy's prior, as for an answer of which nothing was learned."
        ),
    ] = Policy.guarded,
    threshold: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Lowest similarity of a hit. Default: the tuning's."),
    ] = None,
    max_wrong: Annotated[
        float,
        typer.Option(min=0.0, max=0.2, help="Share of hits that may be wrong, with learned."),
    ] = MAX_WRONG,
    fail_over: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="End with exit code 1 if a larger share of the different pairs would be served, "
            "of all or of any kind.",
        ),
    ] = None,
    mapped: files.Map = None,
    encoding: files.Encoding = None,
    no_header: files.NoHeader = False,
    strict: files.Strict = False,
    limit: files.Limit = None,
    as_document: Annotated[
        bool, typer.Option("--json", help="Print one JSON document, for scripts.")
    ] = False,
) -> None:
    """Measure which questions your cache would take for the same, on pairs that you labelled.

    FILE has pairs: [bold]a[/bold] and [bold]b[/bold] (two questions), [bold]equivalent[/bold]
    (whether one answer may serve both), and optionally [bold]kind[/bold] (groups of the report),
    [bold]a_history[/bold] and [bold]b_history[/bold] (earlier turns). Columns are found by their
    names, and listed; --map names others.

    Recall is the share of equivalent pairs that would be served, false hits that of different ones.

    [bold]glasscache evaluate pairs.csv --fail-over 0.05[/bold]
        A gate for CI: fails if more than 5 % of different pairs are served.

    [bold]glasscache evaluate pairs.csv --policy threshold --threshold 0.9 --json[/bold]
        The same without guards, as a baseline.
    """
    found, report = files.rows(file, PAIRS, files.how(mapped, encoding, no_header, strict, limit))
    if not as_document:
        files.print_report(report)
    given: dict[str, Any] = {"max_wrong": max_wrong} if policy is Policy.learned else {}
    if threshold is not None:
        given["semantic_threshold"] = threshold
    pairs = [Pair(**row.values) for row in found]
    result = run(_evaluated(pairs, Tuning(**given), policy.value))
    document = {"policy": policy.value, "pairs": len(pairs), **result.as_json()}
    if as_document:
        print_json({**document, "file": report.as_json()})
    else:
        _print(document)
    if fail_over is not None and _worst(document) > fail_over:
        err.print(f"False hits are over {fail_over:g}.", style="red")
        raise typer.Exit(1)


def _worst(document: dict[str, Any]) -> float:
    shares = [document["false_hits"], *(kind["false_hits"] for kind in document["kinds"].values())]
    return max((share for share in shares if share is not None), default=0.0)


async def _evaluated(pairs: list[Pair], tuning: Tuning, policy: PolicyRule) -> Evaluation:
    fixed = load_settings()
    embedder = make_embedder(fixed.embedding_model, fixed.embedding_backend, fixed.torch_threads)
    guards.load()
    await embedder.wait_ready()
    found = await run_evaluation(pairs, embedder, tuning, policy)
    embedder.close()
    return found


def _print(found: dict[str, Any]) -> None:
    out.print(f"{counted(found['pairs'], 'pairs')}, policy {found['policy']}", style="bold")
    shown = table("kind")
    for title in ("equivalent", "recall", "different", "false hits"):
        shown.add_column(title, justify="right")
    for name, kind in [*found["kinds"].items(), ("all", found)]:
        shown.add_row(
            name, f"{kind['equivalent']:,}", _share(kind["recall"]),
            f"{kind['different']:,}", _share(kind["false_hits"]),
        )  # fmt: skip
    out.print(shown)
    for title, counts in (("False hits", found["causes"]), ("Held back", found["held_back"])):
        listed = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        if listed:
            out.print(f"{title}: {listed}", style="dim")


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"
