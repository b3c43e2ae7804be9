"""`glasscache explain`: what each tier would say to a message, and why."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.text import Text

from cache_core.cli.console import fail, out, print_json, run, table
from cache_core.cli.where import AsJson, ChromaUrl, Directory, Namespace, RedisUrl, opened


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
    shown = table(title=f"{message!r}, user {user or '(none)'}")
    for name in ("tier", "outcome", "reason", "similarity", "why"):
        shown.add_column(name, no_wrap=name != "why")
    colours = {"hit": "green", "miss": "yellow", "error": "red", "off": "dim"}
    for item in found:
        similarity = "" if item["similarity"] is None else f"{item['similarity']:.4f}"
        shown.add_row(
            item["level"],
            Text(item["outcome"], colours[item["outcome"]]),
            item["reason"],
            similarity,
            item["detail"],
        )
    out.print(shown)


def _context(text: str | None) -> Any:
    if text is None or not text.lstrip().startswith("{"):
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        fail(f"--context looks like JSON but is not: {error}")
