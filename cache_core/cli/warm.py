"""`glasscache warm`: store answers before the first question."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from cache_core.cli.console import counted, err, fail, out, print_json, run, table
from cache_core.cli.context import ContextText, given_context
from cache_core.cli.files import ANSWERS
from cache_core.cli.files import options as files
from cache_core.cli.prepared import Found, Kind, Options, Prepared, contexts, prepared
from cache_core.cli.warming import Stored, store
from cache_core.cli.where import AsJson, ChromaUrl, Directory, Namespace, RedisUrl, opened
from cache_core.config.intents import MAX_TTL
from cache_core.model.durations import seconds
from cache_core.operations.explain import duration

_SHOWN = 5
_WHAT = "What is stored"


class Html(StrEnum):
    """Treatment of HTML in responses."""

    keep = "keep"
    text = "text"


def warm(
    file: Annotated[Path, typer.Argument(help="CSV or JSON, also compressed; - for stdin.")],
    ttl: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="Lifetime of the answers: 90s, 30m, 12h, 7d, up to 30d. Default: the tuning's.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    context: ContextText = None,
    intent: Annotated[
        str | None, typer.Option(help="The intent of all answers.", rich_help_panel=_WHAT)
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(
            help="A tag to invalidate them by; repeatable. The rows' own tags are kept.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    html: Annotated[
        Html,
        typer.Option(
            help="keep: store HTML unchanged. text: store its text.",
            rich_help_panel=_WHAT,
        ),
    ] = Html.keep,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be stored, without storing it.")
    ] = False,
    mapped: files.Map = None,
    encoding: files.Encoding = None,
    no_header: files.NoHeader = False,
    strict: files.Strict = False,
    limit: files.Limit = None,
    namespace: Namespace = "default",
    redis_url: RedisUrl = None,
    chroma_url: ChromaUrl = None,
    directory: Directory = None,
    as_document: AsJson = False,
) -> None:
    """Store answers before the first question; every user gets them.

    FILE is CSV (also with semicolons or tabs), JSON Lines, a JSON array or export, or chats of one
    question each. The columns of the question and the answer are found by their names, and listed.
    Rows may also have a [bold]context[/bold], an [bold]intent[/bold], [bold]tags[/bold] and a
    [bold]user_id[/bold], which only names the author: the answer is shared with all users. An
    option overrides the column of that name. Of two answers to a question the later one is stored.

    If the agent passes [bold]context=[/bold], pass the same with [bold]--context[/bold]: answers
    never cross contexts.

    [bold]glasscache warm faq.csv --dry-run[/bold]
        Show the columns found, and the first answers.

    [bold]glasscache warm faq.csv --ttl 7d --tag faq[/bold]
        Store them for a week; invalidate --tag faq removes them.

    [bold]glasscache warm faq.csv --map query=Stichwort --map response=Auskunft[/bold]
        Map the columns yourself.

    [bold]glasscache warm faq.csv --context @context.json[/bold]
        For an agent that passes the object in context.json as context=.
    """
    if not all(name.strip() for name in tag or ()):
        fail("--tag is empty: invalidate --tag could not name it")
    lives = _ttl(ttl)
    options = Options(given_context(context), intent, tuple(tag or ()), html is Html.text)
    rows, report = files.rows(file, ANSWERS, files.how(mapped, encoding, no_header, strict, limit))
    found = prepared(rows, options)
    if not as_document:
        files.print_report(report)
        _tell_left_out(found, html)
    if not found.answers:
        what = counted(found.follow_ups, "rows")
        fail(f"{report.name} has nothing but {what} whose answers depend on earlier turns; "
             "warm stores answers to first questions", code=1)  # fmt: skip
    document = {
        "file": report.as_json(),
        "follow_ups": found.follow_ups,
        "repeated": found.repeated,
        "html": found.html,
        "of_a_day": found.of_a_day,
        "contexts": len(contexts(found.answers)),
    }
    if dry_run:
        _show(found.answers, document, as_document)
        return

    async def work() -> Stored:
        async with opened(namespace, redis_url, chroma_url, directory, creates=True) as cache:
            return await store(cache, found.answers, lives)

    stored = run(work())
    if as_document:
        print_json(_as_json(stored, len(found.answers), document))
    else:
        _tell_stored(stored, found.answers, namespace, given=lives is not None)
    if stored.dropped:
        raise typer.Exit(1)


def _ttl(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        found = float(seconds(text))
    except ValueError:
        found = 0.0
    if not 0 < found <= MAX_TTL:
        fail(f"--ttl {text}: expected a time like 90s, 30m, 12h or 7d, up to {duration(MAX_TTL)}")
    return found


def _tell_left_out(found: Found, html: Html) -> None:
    said = []
    if found.repeated:
        what = counted(found.repeated, "rows")
        said.append(f"{what} replaced by a later answer to the same question.")
    if found.follow_ups:
        what = counted(found.follow_ups, "follow-ups")
        said.append(f"{what} passed over: their answers depend on earlier turns.")
    for line in said:
        err.print(line, style="dim", highlight=False)
    if found.of_a_day:
        what = counted(found.of_a_day, "answers")
        err.print(
            f"{what} of a day or a moment, such as today or now: served until midnight at most.",
            style="yellow",
            highlight=False,
        )
    if found.html and html is Html.keep:
        what = counted(found.html, "responses")
        err.print(
            f"{what} with HTML: stored and served as written. --html text stores the text.",
            style="yellow",
            highlight=False,
        )


def _show(answers: Sequence[Prepared], document: dict[str, Any], as_document: bool) -> None:
    if as_document:
        first = [{"query": answer.query, "response": answer.response, **_kind(answer.kind)}
                 for answer in answers[:_SHOWN]]  # fmt: skip
        print_json({"dry_run": True, "answers": len(answers), "first": first, **document})
        return
    shown = table("query", "response", *(["context"] if any(_named(answers)) else []))
    for answer in answers[:_SHOWN]:
        cells = (answer.query, answer.response, answer.kind.context)
        shown.add_row(*(_shortened(cell) for cell in cells[: len(shown.columns)]))
    out.print(shown, "", sep="\n")
    more = f" These are the first {_SHOWN}." if len(answers) > _SHOWN else ""
    out.print(f"Dry run: {counted(len(answers), 'answers')} would be stored.{more}")


def _named(answers: Iterable[Prepared]) -> Iterator[bool]:
    return (answer.kind.context != "null" for answer in answers)


def _kind(kind: Kind) -> dict[str, Any]:
    return {"context": json.loads(kind.context), "intent": kind.intent, "tags": list(kind.tags)}


def _shortened(text: str, most: int = 160) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def _as_json(stored: Stored, wanted: int, document: dict[str, Any]) -> dict[str, Any]:
    return {
        "warmed": stored.number,
        "puts": stored.puts,
        "dropped": stored.dropped,
        "not_stored": wanted - stored.number,
        "put_reasons": stored.reasons,
        "ttl_seconds": stored.lives,
        "lookups_in_other_contexts": stored.elsewhere,
        "lookups_looked_at": stored.looked_at,
        **document,
    }


def _tell_stored(
    stored: Stored, answers: Sequence[Prepared], namespace: str, *, given: bool
) -> None:
    what = counted(stored.number, "answers")
    out.print(f"Stored {what} for all users of {namespace!r}.", highlight=False)
    if stored.number:
        said = f"{_example(answers)} for lookups {_where(answers)}, {_lives(stored, given=given)}"
        # one line in a log, whatever its length
        out.print(said, highlight=False, soft_wrap=not out.is_terminal)
    for line, style in _doubts(stored, len(answers)):
        err.print(line, style=style, highlight=False)


def _example(answers: Sequence[Prepared]) -> str:
    query = _shortened(answers[0].query, 60)
    return (
        f"{query!r} is now a hit" if len(answers) == 1 else f"{query!r} and the others are now hits"
    )


def _where(answers: Sequence[Prepared]) -> str:
    named = contexts(answers)
    if len(named) > 1:
        return f"in {len(named):,} contexts"
    (context,) = named
    if context == "null":
        return "without context="
    return f"with the context {_shortened(context, 100)}"


def _lives(stored: Stored, *, given: bool) -> str:
    exact, similar = stored.lives.get("l1"), stored.lives.get("l2")
    if similar is None:
        said = f"for {duration(exact or 0)} and word for word only: L2 has none of them."
    elif exact is None or exact <= similar:
        said = f"for {duration(similar)}, as are questions that mean the same."
    else:
        said = f"for {duration(exact)}; questions that mean the same for {duration(similar)}."
    return said if given else f"{said} --ttl keeps them longer or shorter."


_NOT_SIMILAR = {
    "truncated": "longer than the model reads",
    "unreadable": "in a language that the model does not read",
    "context_limit": "in too many contexts",
}


def _doubts(stored: Stored, wanted: int) -> Iterator[tuple[str, str]]:
    """Yield warnings for the operator, each with its style."""
    if stored.dropped:
        what = counted(stored.dropped, "entries")
        yield f"Dropped {what}: a backend was unavailable. Run the command again.", "red"
    elif stored.number < wanted:
        missing = counted(wanted - stored.number, "answers")
        reasons = {*stored.reasons.get("l1", {}), *stored.reasons.get("l2", {})}
        why = "the question, answer or context is too large" if "too_large" in reasons else (
            f"see put_reasons with --json ({', '.join(sorted(reasons)) or 'none'})"
        )  # fmt: skip
        yield f"Not stored: {missing}; {why}.", "yellow"
    for reason, why in _NOT_SIMILAR.items():
        if count := stored.reasons.get("l2", {}).get(reason, 0):
            yield f"{counted(count, 'answers')} by the same words only: {why}.", "yellow"
    if stored.elsewhere:
        said = f"Of the last {stored.looked_at:,} lookups {stored.elsewhere:,} had another context"
        yield f"{said}: they do not get these answers. Pass it with --context.", "yellow"
