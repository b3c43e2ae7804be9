"""Which cache a command works on: the options that name it, and how it is opened."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import typer

from cache_core.cli.console import err, fail
from cache_core.exceptions import ConfigurationError
from cache_core.multilevel_cache import MultiLevelCache
from cache_core.settings import load_settings, without_secrets

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
                f"{away(cache)} Another is named with --redis-url (REDIS_URL) or --dir (CACHE_DIR)"
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


def away(cache: MultiLevelCache) -> str:
    """Return in words which store is away, and why."""
    where = cache.settings.redis_url and without_secrets(cache.settings.redis_url)
    return f"the store cannot be reached: {where or cache.settings.dir} ({cache.away})."
