"""`glasscache warm`: answers are stored before the first question."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import track

from cache_core.cli.console import counted, err, fail, out, print_json, run
from cache_core.cli.where import AsJson, ChromaUrl, Directory, Namespace, RedisUrl, opened


def warm(
    file: Annotated[Path, typer.Argument(help="JSON Lines or CSV with 'query' and 'response'.")],
    namespace: Namespace = "default",
    redis_url: RedisUrl = None,
    chroma_url: ChromaUrl = None,
    directory: Directory = None,
    as_document: AsJson = False,
) -> None:
    """Store answers ahead of the first question; every user gets them.

    Each row has [bold]query[/bold] (or message) and [bold]response[/bold]; a
    [bold]user_id[/bold] only says who provided it. A CSV names its columns in the first row. If
    one row is wrong, it is named and nothing is stored.

    One line of answers.jsonl:
        {"query": "When are you open?", "response": "Nine to five."}

    [bold]glasscache warm answers.jsonl[/bold]
        From now on "when are you open" is a hit, for everybody.
    """
    items = _warm_items(file)

    async def work() -> None:
        async with opened(namespace, redis_url, chroma_url, directory) as cache:
            quiet = not err.is_terminal
            ticks = iter(track(items, "warming", console=err, transient=True, disable=quiet))
            count = await cache.warm_cache(items, progress=_advance(ticks))
            puts = cache.metrics.snapshot()["puts"]
        dropped = sum(counts.get("dropped", 0) for counts in puts.values())
        if as_document:
            print_json({"warmed": count, "puts": puts, "dropped": dropped})
        else:
            out.print(f"Stored {counted(count, 'answers')}, shared by all users of {namespace!r}.")
            if dropped:
                what = counted(dropped, "entries")
                err.print(f"Dropped {what}: a backend was away.", style="red", highlight=False)
        if dropped:
            raise typer.Exit(1)

    run(work())


def _advance(ticks: Any) -> Callable[[int], None]:
    def advance(count: int) -> None:
        for _ in range(count):
            next(ticks, None)

    return advance


def _warm_items(file: Path) -> list[tuple[str, str | None, str]]:
    """Return the answers of *file*; a row that cannot be one ends the command."""
    try:
        # A spreadsheet's CSV begins with a byte order mark.
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        fail(f"{file} cannot be read: {why}")
    rows: Iterable[tuple[int, Any]]
    if file.suffix.lower() == ".csv":
        rows = enumerate(csv.DictReader(io.StringIO(text)), start=1)
    else:
        rows = _json_lines(file.name, text)
    items = [_warm_item(f"{file.name} row {number}", row) for number, row in rows]
    if not items:
        fail(f"{file} has no rows: expected JSON Lines or CSV with 'query' and 'response'")
    return items


def _json_lines(name: str, text: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                fail(f"{name} line {number}: not JSON ({error})")


def _warm_item(where: str, row: Any) -> tuple[str, str | None, str]:
    if not isinstance(row, dict):
        fail(f"{where}: expected text in 'query' and in 'response', not {type(row).__name__}")
    query = row["query"] if "query" in row else row.get("message")
    response, user_id = row.get("response"), row.get("user_id")
    if not isinstance(query, str) or not isinstance(response, str):
        fail(f"{where}: expected text in 'query' and in 'response'")
    for name, value in (("query", query), ("response", response)):
        if not value.strip():
            fail(f"{where}: the {name} is empty")
    if user_id is not None and not isinstance(user_id, str):
        fail(f"{where}: expected text in 'user_id', not {type(user_id).__name__}")
    return query, user_id or None, response
