"""`glasscache explain`: each tier's answer to a message, and why."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.text import Text

from cache_core.cli.console import err, out, print_json, run, table
from cache_core.cli.context import ContextText, given_context
from cache_core.cli.where import AsJson, ChromaUrl, Directory, Namespace, RedisUrl, opened


def explain(
    message: Annotated[str, typer.Argument(help="The user's message.")],
    user: Annotated[str | None, typer.Option(help="The user_id of the asking user.")] = None,
    context: ContextText = None,
    namespace: Namespace = "default",
    redis_url: RedisUrl = None,
    chroma_url: ChromaUrl = None,
    directory: Directory = None,
    as_document: AsJson = False,
) -> None:
    """Show each tier's answer to a message, and why. Counts nothing.

    Start here if an answer was not served, or a wrong one was.

    [bold]glasscache explain "Where is my order?" --user u42[/bold]
        What user u42 would get; without --user, only shared answers.
    """

    async def work() -> tuple[list[dict[str, Any]], int]:
        async with opened(namespace, redis_url, chroma_url, directory) as cache:
            await cache.stand_in()
            found = await cache.explain(message, user, context=given_context(context))
            return [asdict(item) for item in found], len(await cache.operator.replicas())

    found, replicas = run(work())
    if not replicas:
        err.print(
            f"No replica of {namespace!r} is running here: values that an agent passes to "
            "MultiLevelCache, such as shared_intents, are unknown.",
            style="yellow", highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip
    if as_document:
        print_json(found)
        return
    shown = table(title=f"{message!r}, user {user or '(none)'}")
    for name in ("tier", "outcome", "reason", "similarity", "why"):
        shown.add_column(name, no_wrap=name != "why")
    colours = {"hit": "green", "miss": "yellow", "error": "red", "off": "dim"}
    answering = next((at for at, item in enumerate(found[:2]) if item["outcome"] == "hit"), 9)
    for at, item in enumerate(found):
        outcome = Text(item["outcome"], colours[item["outcome"]])
        if at == answering:
            outcome = Text("answers", colours["hit"])
        elif at > answering:
            outcome = Text(f"{item['outcome']}, not asked", colours["off"])
        similarity = "" if item["similarity"] is None else f"{item['similarity']:.4f}"
        shown.add_row(
            item["level"],
            outcome,
            item["reason"],
            similarity,
            item["detail"],
        )
    out.print(shown)
