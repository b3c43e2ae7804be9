"""`glasscache reembed`: move stored answers to the embedding model in use."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cache_core.cli.console import counted, current_user, err, out, print_json, run, table
from cache_core.cli.where import (
    AsJson,
    Author,
    ChromaUrl,
    Directory,
    Namespace,
    Note,
    RedisUrl,
    opened,
)
from cache_core.operations.reembed import Fate

_WORDS: dict[Fate, str] = {
    "moved": "have a vector of this model now",
    "present": "had one already",
    "expired": "expired: they would not be served",
    "invalidated": "were invalidated",
    "erased": "were erased or evicted",
    "locked": "are encrypted with a key that is not in CACHE_ENCRYPTION_KEYS here",
    "damaged": "have no readable question",
    "unsuited": "have a question that this model or the guards do not read",
    "full": "have no room: 64 questions per user and context, 64 contexts",
    "uncertain": "may have missed an invalidation, or their writer was erased",
    "failed": "could not be embedded or written: run the command again",
}


def reembed(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    rate: Annotated[
        float | None,
        typer.Option(min=0.1, metavar="PER-SECOND", help="Embed at most so many a second."),
    ] = None,
    note: Note = "",
    author: Author = None,
    namespace: Namespace = "default",
    redis_url: RedisUrl = None,
    chroma_url: ChromaUrl = None,
    directory: Directory = None,
    as_document: AsJson = False,
) -> None:
    """Make vectors of the current embedding model for answers stored with another one.

    After a change of the model, rephrased questions miss until their answers have been stored
    again: vectors of different models cannot be compared. This embeds the stored questions with the
    model that EMBEDDING_MODEL and EMBEDDING_URL name here, so set them as for the agents. Answers
    keep their owner, context, age and TTL; what was invalidated stays so. It may be stopped and run
    again, while agents of either model run. The old vectors stay for a day after the last agent
    that uses them.

    [bold]glasscache reembed --dry-run[/bold]
        Count the answers that would be moved, and why others would not.

    [bold]EMBEDDING_MODEL=my-model glasscache reembed --rate 20[/bold]
        Before the agents change to my-model, at a pace that spares the machine.
    """

    async def work() -> dict[Fate, int]:
        async with opened(namespace, redis_url, chroma_url, directory) as cache:
            operator, whose = cache.operator, author or current_user()
            with Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=err,
                disable=not err.is_terminal,
                transient=True,
            ) as progress:
                task = progress.add_task("counting the answers", total=None)
                found = await operator.reembed(author=whose, dry_run=True)
                if not dry_run:
                    progress.update(task, description="embedding", total=sum(found.values()))
                    found = await operator.reembed(
                        author=whose, note=note, rate=rate,
                        progress=lambda done: progress.advance(task, done),
                    )  # fmt: skip
                return found

    found = run(work())
    if as_document:
        print_json({**found, "dry_run": dry_run})
    else:
        _show(found, dry_run)
    if found["failed"]:
        raise typer.Exit(1)


def _show(found: dict[Fate, int], dry_run: bool) -> None:
    total = sum(found.values())
    if not total:
        out.print("No answer was stored with another model.")
        return
    shown = table("answers", "", title=f"{counted(total, 'answers')} stored with other models")
    shown.columns[0].justify = "right"
    for fate, number in found.items():
        if number:
            words = (
                "would get a vector of this model"
                if (dry_run and fate == "moved")
                else _WORDS[fate]
            )
            shown.add_row(f"{number:,}", words)
    out.print(shown)
