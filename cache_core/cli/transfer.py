"""`glasscache dump` and `glasscache load`: stored answers as a file, and back."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Any

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from cache_core.cli.console import current_user, err, fail, out, print_json, run, table
from cache_core.cli.context import given_context
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
from cache_core.operations.transfer.dump import Known, Left
from cache_core.operations.transfer.load import Fate, Loaded

_LEFT: Mapping[Left, str] = {
    "dumped": "written",
    "private": "left out: answers of single users (--private)",
    "expired": "left out: expired",
    "invalidated": "left out: invalidated",
    "locked": "left out: encrypted with a key that is not in CACHE_ENCRYPTION_KEYS here",
    "damaged": "left out: unreadable",
}
_FATES: Mapping[Fate, str] = {
    "loaded": "stored",
    "present": "passed over: here already, or a newer one",
    "expired": "passed over: expired",
    "invalidated": "passed over: invalidated since the dump",
    "unnamed": "passed over: made with another key, and private, a follow-up, or of a context, tag "
    "or question whose text is not in the file",
    "rejected": "passed over: rejected",
    "locked": "passed over: encrypted with a key that is not in CACHE_ENCRYPTION_KEYS here",
    "damaged": "passed over: unreadable",
    "failed": "not stored, because a backend failed: run the command again",
}
_GZIP = b"\x1f\x8b"


def dump(
    file: Annotated[
        Path, typer.Argument(help="File to write; compressed if its name ends with .gz.")
    ],
    private: Annotated[
        bool, typer.Option("--private", help="Also answers of single users.")
    ] = False,
    context: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT|JSON|@FILE",
            help="A context= of the agents, for caches with another key; repeatable.",
        ),
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(help="A tag of the answers, for caches with another key; repeatable."),
    ] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Readable, although CACHE_ENCRYPTION_KEYS is set.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what would be written, without a file.")
    ] = False,
    note: Note = "",
    author: Author = None,
    namespace: Namespace = "default",
    redis_url: RedisUrl = None,
    chroma_url: ChromaUrl = None,
    directory: Directory = None,
    as_document: AsJson = False,
) -> None:
    """Write all answers that are served now to a file, for `glasscache load`.

    Shared ones only, unless --private is given. The file is JSON Lines that only you may read; with
    CACHE_ENCRYPTION_KEYS all its lines are encrypted with the same keys, and belong to this dump
    alone. It may be made while agents run.

    A cache has a key by which it names users, contexts and tags: CACHE_KEY, or one that lies in its
    store. A cache with another key gets what everybody may read, of the contexts and tags that are
    given here.

    [bold]glasscache dump answers.jsonl.gz --private[/bold]
        Everything, for the same cache, or one with the same CACHE_KEY.

    [bold]glasscache dump answers.jsonl --context @context.json[/bold]
        What everybody may read, for a cache whose agents pass that context=.
    """
    contexts = [given_context(text) for text in context or ()]
    if not dry_run and file.exists():
        fail(f"{file} exists: name another file, or remove it")

    async def work() -> dict[Left, int]:
        async with opened(namespace, redis_url, chroma_url, directory) as cache:
            with _progress() as bar, _writing(None if dry_run else file) as write:
                task = bar.add_task("reading the answers", total=None)
                return await cache.operator.dump(
                    write, author=author or current_user(), note=note, private=private,
                    known=Known.of(contexts, tag or ()), plain=plain,
                    progress=lambda done: bar.advance(task, done),
                )  # fmt: skip

    found = run(work())
    if as_document:
        print_json({**found, "dry_run": dry_run, "file": None if dry_run else str(file)})
        return
    _show({words: found[left] for left, words in _LEFT.items()})
    where = "Dry run: nothing was written." if dry_run else f"Written to {file}."
    out.print(where, highlight=False, soft_wrap=True)


def load(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="File of a dump.")],
    plain: Annotated[
        bool,
        typer.Option(
            "--plain",
            help="Accept lines that are not encrypted although CACHE_ENCRYPTION_KEYS is set: "
            "only for a file that you trust.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what would be stored, without storing it.")
    ] = False,
    note: Note = "",
    author: Author = None,
    namespace: Namespace = "default",
    redis_url: RedisUrl = None,
    chroma_url: ChromaUrl = None,
    directory: Directory = None,
    as_document: AsJson = False,
) -> None:
    """Store the answers of `glasscache dump`, for the time that they have left.

    Similar questions are found with the embedding model of this cache. What is here already, or
    newer, stays: the command may be stopped and run again, while agents run. In the cache that a
    dump comes from, what was invalidated since stays so; in another one its answers count as put
    now.

    [bold]glasscache load answers.jsonl.gz --dry-run[/bold]
        Count what would be stored, and why the rest would not.
    """

    async def work() -> Loaded:
        async with opened(namespace, redis_url, chroma_url, directory, creates=True) as cache:
            with _progress() as bar:
                task = bar.add_task("loading the answers", total=None if dry_run else _lines(file))
                return await cache.operator.load(
                    _read(file), author=author or current_user(), note=note, plain=plain,
                    dry_run=dry_run, progress=lambda done: bar.advance(task, done),
                )  # fmt: skip

    try:
        done = run(work())
    except ValueError as error:
        fail(f"{file}: {error}")
    if as_document:
        print_json({**done.fates, "reasons": done.rejected, "whole": done.whole,
                    "dry_run": dry_run})  # fmt: skip
    else:
        _tell(done, file, dry_run=dry_run)
    if done.fates["failed"] or not done.whole:
        raise typer.Exit(1)


def _tell(done: Loaded, file: Path, *, dry_run: bool) -> None:
    shown = {words: done.fates[fate] for fate, words in _FATES.items()}
    if dry_run:
        shown = {"would be stored": shown.pop("stored"), **shown}
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(done.rejected.items()))
    if reasons:
        shown[f"passed over: rejected ({reasons})"] = shown.pop("passed over: rejected")
    _show(shown)
    if not done.whole:
        said = f"{file} was cut: its end is missing."
        err.print(said, style="yellow", highlight=False, soft_wrap=True)


def _show(numbers: Mapping[str, int]) -> None:
    shown = table("entries", "")
    shown.columns[0].justify = "right"
    for words, number in numbers.items():
        if number:
            shown.add_row(f"{number:,}", words)
    out.print(shown)


def _progress() -> Progress:
    return Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TimeElapsedColumn(), TimeRemainingColumn(),
        console=err, disable=not err.is_terminal, transient=True,
    )  # fmt: skip


@contextmanager
def _writing(file: Path | None) -> Iterator[Callable[[str], None]]:
    """Yield what appends a line to *file*, which appears when it is whole; none for `None`."""
    if file is None:
        yield lambda _: None
        return
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        raw = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        fail(f"{part}: {error.strerror}")
    try:
        with os.fdopen(raw, "wb") as plain, _packed(file, plain) as stream:
            yield lambda line: _write(stream, line)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _packed(file: Path, plain: IO[bytes]) -> Any:
    return gzip.GzipFile("", "wb", fileobj=plain) if file.suffix == ".gz" else plain


def _write(stream: Any, line: str) -> None:
    stream.write(line.encode() + b"\n")


def _read(file: Path) -> Iterator[str]:
    """Yield the lines of a dump, as far as the file goes."""
    with file.open("rb") as plain:
        packed = plain.read(2) == _GZIP
    try:
        with gzip.open(file, "rb") if packed else file.open("rb") as stream:
            for line in stream:
                yield line.decode("utf-8", "replace").rstrip("\n")
    except (EOFError, gzip.BadGzipFile):
        return


def _lines(file: Path) -> int:
    return max(0, sum(1 for _ in _read(file)) - 1)
