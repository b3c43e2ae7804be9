"""Commands on a cache that exists: warm, invalidate, explain, stats, settings."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import track
from rich.table import Table
from rich.text import Text

from cache_core import audited
from cache_core.audited import What
from cache_core.cli.console import current_user, err, fail, out, print_json, run
from cache_core.exceptions import BackendError, ConfigurationError
from cache_core.housekeeping import replicas
from cache_core.models import LEVELS, Invalidation
from cache_core.multilevel_cache import MultiLevelCache
from cache_core.settings import Settings, load_settings, without_secrets

Namespace = Annotated[
    str,
    typer.Option(
        help="The namespace= that the agent's MultiLevelCache has.", rich_help_panel="Where"
    ),
]
RedisUrl = Annotated[
    str | None,
    typer.Option(
        help="The Redis that the agent uses. Default: REDIS_URL, else the embedded store.",
        rich_help_panel="Where",
    ),
]
ChromaUrl = Annotated[
    str | None,
    typer.Option(
        help="The Chroma server that the agent uses. Default: CHROMA_URL, else embedded.",
        rich_help_panel="Where",
    ),
]
Directory = Annotated[
    Path | None,
    typer.Option(
        "--dir",
        help="Directory of the embedded parts. Default: CACHE_DIR, else your cache directory.",
        rich_help_panel="Where",
    ),
]
Author = Annotated[
    str | None,
    typer.Option(help="Who changes it, for the audit trail. Default: your name on this machine."),
]
Note = Annotated[str, typer.Option(help="Why, for the audit trail.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document, for scripts.")]


@asynccontextmanager
async def opened(
    namespace: str,
    redis_url: str | None,
    chroma_url: str | None,
    directory: Path | None,
    *,
    semantic: bool = True,
    needs_store: bool = True,
) -> AsyncIterator[MultiLevelCache]:
    """Open the cache that the options name; if it *needs_store* and that is away, fail."""
    settings = load_settings(redis_url=redis_url, chroma_url=chroma_url, dir=directory)
    if not semantic:
        settings = settings.model_copy(update={"tiers": settings.tiers - {"l2"}})
    cache = MultiLevelCache(settings=settings, namespace=namespace, instruments=())
    try:
        await cache.initialize()
        if not cache.is_open and needs_store:
            fail(
                f"{_away(cache)} Start it, or name another with --redis-url (REDIS_URL) or --dir "
                "(CACHE_DIR)"
            )
        if semantic and cache.is_open:
            with err.status("loading the embedding model"):
                try:
                    await cache.ready()
                except ConfigurationError as error:
                    err.print(f"without L2: {error}", style="yellow", highlight=False)
        yield cache
    finally:
        await cache.close()


def _away(cache: MultiLevelCache) -> str:
    """Return in words which store is away, and why."""
    where = cache.settings.redis_url and without_secrets(cache.settings.redis_url)
    return f"the store cannot be reached: {where or cache.settings.dir} ({cache.away})."


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
            ticks = iter(track(items, "warming", console=err, transient=True))
            count = await cache.warm_cache(items, progress=_advance(ticks))
            puts = cache.metrics.snapshot()["puts"]
        dropped = sum(counts.get("dropped", 0) for counts in puts.values())
        if as_document:
            print_json({"warmed": count, "puts": puts, "dropped": dropped})
        else:
            what = f"{count:,} answer{'' if count == 1 else 's'}"
            out.print(f"Stored {what}, shared by all users of {namespace!r}.")
            if dropped:
                err.print(f"{dropped} entries were dropped: a backend was away.", style="red")
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
        fail(f"{file} cannot be read: {error}")
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


def invalidate(
    message: Annotated[
        str | None, typer.Argument(help="The question whose answers are wrong.")
    ] = None,
    document: Annotated[
        str | None, typer.Option(help="Answers made from the document with this id.")
    ] = None,
    tag: Annotated[str | None, typer.Option(help="Answers put with this tag.")] = None,
    writer: Annotated[
        str | None, typer.Option(help="All that this user's lookups stored, for whomever.")
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(help="With a message: only this user's. Alone: everything of this user."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many.")] = False,
    note: Note = "",
    author: Author = None,
    namespace: Namespace = "default",
    redis_url: RedisUrl = None,
    chroma_url: ChromaUrl = None,
    directory: Directory = None,
    as_document: AsJson = False,
) -> None:
    """Take answers out of service, for all users, tiers and replicas.

    Name one of: a question, a document that answers were made from, a tag, a writer, or a user. A
    question takes similar ones with it: whatever L2 would have served for it.

    [bold]glasscache invalidate "How long does delivery take?" --dry-run[/bold]
        How many entries would go.

    [bold]glasscache invalidate --document kb/delivery[/bold]
        After that document has changed.

    [bold]glasscache invalidate --user u42[/bold]
        Erases everything that is kept of this user.

    [bold]glasscache invalidate --writer u42[/bold]
        After a user fed the cache with wrong answers: all that they wrote goes.
    """
    named: list[tuple[What, str | None]] = [
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
                return await audited.count(cache, what, value, only), "a backend is away."
            why = "" if cache.is_open else _away(cache)
            if cache.is_open:
                with suppress(BackendError):
                    await cache.stand_in()
            done = await audited.invalidate(
                cache, what, value, only, author=author or current_user(), note=note
            )
            why = why or f"{' and '.join(done.pending) or 'a backend'} is away."
            return done, f"{why} {_what_becomes_of_it(cache)}"

    done, then = run(work())
    if as_document:
        print_json({**asdict(done), "dry_run": dry_run})
    else:
        verb = "would take" if dry_run else "took"
        out.print(f"{verb.capitalize()} {done.removed:,} entries out of service.")
        erased = ", ".join(f"{count:,} {kind}" for kind, count in done.counts.items() if count)
        if erased:
            out.print(f"Erased: {erased}.")
    if not done.complete:
        err.print(f"Not complete: {then}", style="red", highlight=False, soft_wrap=True)
        raise typer.Exit(1)


def _what_becomes_of_it(cache: MultiLevelCache) -> str:
    """Return in words who makes an invalidation that is not complete."""
    if cache.unkept_invalidations:
        return f"It could not be kept in {cache.settings.dir}: run it again when that is back."
    return (
        f"It is kept in {cache.settings.dir}: the next process with this namespace, data directory "
        "and store makes it, or one that runs. Elsewhere run it again when that is back."
    )


def explain(
    message: Annotated[str, typer.Argument(help="What the user would say.")],
    user: Annotated[str | None, typer.Option(help="The user_id of who would say it.")] = None,
    context: Annotated[
        str | None, typer.Option(help="The context that the agent gives, as text or JSON.")
    ] = None,
    namespace: Namespace = "default",
    redis_url: RedisUrl = None,
    chroma_url: ChromaUrl = None,
    directory: Directory = None,
    as_document: AsJson = False,
) -> None:
    """Show what each tier would say to a message, and why. Counts nothing.

    The first place to look when an answer was not served, or a wrong one was.

    [bold]glasscache explain "Where is my order?" --user u42[/bold]
        What user u42 would get; without --user, only what everybody may get.
    """

    async def work() -> list[dict[str, Any]]:
        async with opened(namespace, redis_url, chroma_url, directory) as cache:
            await cache.stand_in()
            found = await cache.explain(message, user, context=_context(context))
            return [asdict(item) for item in found]

    found = run(work())
    if as_document:
        print_json(found)
        return
    table = Table(title=f"{message!r}, user {user or '(none)'}", title_justify="left")
    for name in ("tier", "outcome", "reason", "similarity", "why"):
        table.add_column(name)
    colours = {"hit": "green", "miss": "yellow", "error": "red", "off": "dim"}
    for item in found:
        similarity = "" if item["similarity"] is None else f"{item['similarity']:.3f}"
        table.add_row(
            item["level"],
            Text(item["outcome"], colours[item["outcome"]]),
            item["reason"],
            similarity,
            item["detail"],
        )
    out.print(table)


def _context(text: str | None) -> Any:
    if text is None or not text.lstrip().startswith("{"):
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        fail(f"--context looks like JSON but is not: {error}")


def stats(
    namespace: Namespace = "default",
    redis_url: RedisUrl = None,
    directory: Directory = None,
    as_document: AsJson = False,
) -> None:
    """Show how the running replicas do, and what the last lookups decided.

    A replica is a process with an open cache of this namespace. Replicas report every second; the
    decision log also tells of those that have ended.

    [bold]glasscache stats --json | jq .decisions.hit_rate[/bold]
        Of the last lookups, whichever replica served them.
    """

    async def work() -> dict[str, Any]:
        async with opened(namespace, redis_url, None, directory, semantic=False) as cache:
            return await _stats(cache)

    found = run(work())
    if as_document:
        print_json(found)
    else:
        _print_stats(found)


async def _stats(cache: MultiLevelCache) -> dict[str, Any]:
    parts = cache.parts
    try:
        beats = [beat for beat in await replicas(parts) if beat.get("replica") != cache.replica]
        decisions = await parts.decisions.last(cache.settings.decisions or 1)
    except BackendError as error:
        fail(f"the store failed: {error.reason} ({error.error_type})")
    outcomes = Counter(item.outcome for item in decisions)
    answered = sum(outcomes.values()) - outcomes["bypass"]
    shared = Counter(
        item.intent for item in decisions if "other_scope" in item.reasons and item.intent
    )
    return {
        "namespace": cache.namespace,
        "replicas": [
            {
                "replica": beat["replica"],
                "pid": beat["pid"],
                "tuning_version": beat["tuning_version"],
                "backends": beat["backends"],
                "lookups": beat["counters"]["operations"],
                "hit_rates": beat["counters"]["hit_rates"],
                "latency_ms": beat["counters"]["latency_ms"],
                "cost_savings_usd": beat["counters"]["cost_savings_usd"],
                "sharing": beat["counters"]["sharing"],
            }
            for beat in beats
        ],
        "decisions": {
            "lookups": len(decisions),
            "hit_rate": round(outcomes["hit"] / answered, 4) if answered else None,
            "outcomes": dict(outcomes),
            "served_by": dict(Counter(item.level for item in decisions if item.level)),
            "reasons": dict(Counter(item.reason for item in decisions if item.reason)),
            "saved_usd": round(sum(item.saved_usd for item in decisions), 4),
            "other_scope": sum("other_scope" in item.reasons for item in decisions),
            "other_scope_intents": dict(shared.most_common()),
        },
    }


def _print_stats(found: dict[str, Any]) -> None:
    if found["replicas"]:
        table = Table(title=f"Replicas of {found['namespace']!r}", title_justify="left")
        for name in ("replica", "pid", "lookups", "hit rate", *LEVELS, "p50 ms", "saved", "down"):
            table.add_column(name, justify="left" if name in {"replica", "down"} else "right")
        for item in found["replicas"]:
            rates = item["hit_rates"]
            down = [name for name, works in item["backends"].items() if not works]
            table.add_row(
                item["replica"], str(item["pid"]), f"{item['lookups']:,}",
                *(f"{rates[name]:.1f} %" for name in ("overall", *LEVELS)),
                f"{item['latency_ms']['p50']:.2f}", f"{item['cost_savings_usd']:,.2f}",
                ", ".join(down) or "-",
            )  # fmt: skip
        out.print(table)
    else:
        out.print(f"No replica of {found['namespace']!r} is running here.")
    log = found["decisions"]
    if not log["lookups"]:
        out.print("The decision log is empty: nothing was looked up yet.")
        return
    rate = "-" if log["hit_rate"] is None else f"{log['hit_rate']:.1%}"
    out.print(f"Last {log['lookups']:,} lookups: hit rate {rate}, {log['saved_usd']:,.2f} USD "
              "saved.")  # fmt: skip
    table = Table("why there was no answer", "lookups")
    for reason, count in sorted(log["reasons"].items(), key=lambda pair: -pair[1]):
        table.add_row(reason, f"{count:,}")
    if table.row_count:
        out.print(table)
    if log["other_scope"]:
        named = ", ".join(log["other_scope_intents"]) or "none of them has an intent"
        out.print(
            f"{log['other_scope']:,} lookups missed although another user had the answer "
            f"({named}). If those answers are the same for everybody, share them: "
            "CACHE_SHARED_INTENTS.",
            style="yellow",
        )


def settings(as_document: AsJson = False) -> None:
    """Show the settings in force, and the environment variable of each.

    Secrets are masked. What a program passes to MultiLevelCache is not known here.

    [bold]CACHE_TIERS=l1,l3,l4 glasscache settings[/bold]
        Try a value before you set it: one that is refused says what is expected.
    """
    try:
        found = load_settings()
        cache = MultiLevelCache(settings=found)
    except ConfigurationError as error:
        fail(str(error))
    values = {name: _shown(name, value) for name, value in found.model_dump(mode="json").items()}
    values["tiers"] = ",".join(sorted(found.tiers))
    tuned = cache.tuning.model_dump(mode="json")
    if as_document:
        print_json({"settings": values, "tuning": tuned})
        return
    table = Table(title="Settings, fixed at start", title_justify="left")
    for name in ("environment", "value", "what it is"):
        table.add_column(name)
    for name, field in Settings.model_fields.items():
        value = "" if values[name] is None else str(values[name])
        table.add_row(_variable(name), value, field.description or "")
    out.print(table)
    table = Table("tuning", "value", title="Tuning", title_justify="left")
    for name, value in tuned.items():
        table.add_row(name, str(value))
    out.print(table)


def _variable(name: str) -> str:
    short = {"redis_url", "chroma_url", "embedding_model"}
    return name.upper() if name in short else f"CACHE_{name.upper()}"


def _shown(name: str, value: Any) -> Any:
    """Return a value as it may be shown: no key, no password."""
    if name == "key":
        return "set" if value else "random, kept in the store"
    return without_secrets(value) if value and name.endswith("_url") else value
