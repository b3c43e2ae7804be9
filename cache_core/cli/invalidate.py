"""`glasscache invalidate`: remove answers from service."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from typing import Annotated

import typer

from cache_core.cli.console import counted, current_user, err, fail, out, print_json, run
from cache_core.cli.where import (
    AsJson,
    Author,
    ChromaUrl,
    Directory,
    Namespace,
    Note,
    RedisUrl,
    opened,
    unavailable,
)
from cache_core.model.exceptions import BackendError
from cache_core.model.values import Invalidation
from cache_core.multilevel_cache import MultiLevelCache
from cache_core.operations.invalidate.outbox import RequestKind


def invalidate(
    message: Annotated[
        str | None, typer.Argument(help="The question whose answers are wrong.")
    ] = None,
    document: Annotated[
        str | None, typer.Option(help="Answers made from the document with this id.")
    ] = None,
    tag: Annotated[str | None, typer.Option(help="Answers put with this tag.")] = None,
    writer: Annotated[
        str | None, typer.Option(help="Everything that this user's lookups stored, for any user.")
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(
            help="With a message: only this user's answers. Alone: everything of this user."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    note: Note = "",
    author: Author = None,
    namespace: Namespace = "default",
    redis_url: RedisUrl = None,
    chroma_url: ChromaUrl = None,
    directory: Directory = None,
    as_document: AsJson = False,
) -> None:
    """Invalidate answers, for all users, tiers and replicas.

    Name one of: a question, a document that answers were made from, a tag, a writer, or a user. A
    question takes similar ones with it: whatever L2 would have served for it.

    [bold]glasscache invalidate "How long does delivery take?" --dry-run[/bold]
        Count the entries that would be removed.

    [bold]glasscache invalidate --document kb/delivery[/bold]
        After that document has changed.

    [bold]glasscache invalidate --user u42[/bold]
        Erase everything stored about this user.

    [bold]glasscache invalidate --writer u42[/bold]
        After a user stored wrong answers: remove everything that they wrote.
    """
    named: list[tuple[RequestKind, str | None]] = [
        ("message", message), ("document", document), ("tag", tag), ("writer", writer),
    ]  # fmt: skip
    what_else = document or tag or writer
    chosen = [(what, value) for what, value in named if value is not None]
    if len(chosen) > 1 or not (chosen or user) or (user and what_else):
        fail("name one of: a message (also with --user), --document, --tag, --writer, --user")
    what, value = chosen[0] if chosen else ("user", user or "")
    only = user if what == "message" else None

    async def work() -> tuple[Invalidation, str]:
        async with opened(
            namespace, redis_url, chroma_url, directory, needs_store=dry_run
        ) as cache:
            if dry_run:
                await cache.stand_in()
                return await cache.operator.count(what, value, only), "a backend is unavailable."
            why = "" if cache.is_open else unavailable(cache)
            if cache.is_open:
                with suppress(BackendError):
                    await cache.stand_in()
            done = await cache.operator.invalidate(
                what, value, only, author=author or current_user(), note=note
            )
            why = why or f"{' and '.join(done.pending) or 'a backend'} is unavailable."
            return done, f"{why} {_what_becomes_of_it(cache)}"

    done, then = run(work())
    if as_document:
        print_json({**asdict(done), "dry_run": dry_run})
    else:
        verb = "Would invalidate" if dry_run else "Invalidated"
        out.print(f"{verb} {counted(done.removed, 'entries')}.")
        erased = ", ".join(counted(count, kind) for kind, count in done.counts.items() if count)
        if erased:
            out.print(f"Erased: {erased}.")
    if not done.complete:
        err.print(f"Not complete: {then}", style="red", highlight=False, soft_wrap=True)
        raise typer.Exit(1)


def _what_becomes_of_it(cache: MultiLevelCache) -> str:
    """Return, in words, how a pending invalidation will be completed."""
    if cache.unkept_invalidations:
        return (
            f"It could not be saved in {cache.settings.dir}: run it again when the store is back."
        )
    return (
        f"It is saved in {cache.settings.dir}: a process with this namespace, data directory and "
        "store applies it as soon as the store is back. Elsewhere, run the command again then. If "
        "the address is wrong, delete the newest unconfirmed-*.jsonl there."
    )
