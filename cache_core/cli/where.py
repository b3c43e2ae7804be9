"""Options that select a command's cache, and its opening."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import typer

from cache_core.cli.console import err, fail
from cache_core.config.settings import load_settings
from cache_core.model.exceptions import ConfigurationError
from cache_core.model.urls import without_secrets
from cache_core.multilevel_cache import MultiLevelCache

Namespace = Annotated[
    str,
    typer.Option(help="The namespace= of the agent's MultiLevelCache.", rich_help_panel="Where"),
]
RedisUrl = Annotated[
    str | None,
    typer.Option(
        help="The agent's Redis. Default: REDIS_URL, else the embedded store.",
        rich_help_panel="Where",
    ),
]
ChromaUrl = Annotated[
    str | None,
    typer.Option(
        help="The agent's Chroma server. Default: CHROMA_URL, else embedded.",
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
    typer.Option(help="Author, for the audit trail. Default: your name on this machine."),
]
Note = Annotated[str, typer.Option(help="Reason, for the audit trail.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document, for scripts.")]


_PATIENCE = 10.0
"""Seconds for a put of a command that stores: no agent waits, and a drop must be done again."""


@asynccontextmanager
async def opened(
    namespace: str,
    redis_url: str | None,
    chroma_url: str | None,
    directory: Path | None,
    *,
    semantic: bool = True,
    needs_store: bool = True,
    creates: bool = False,
) -> AsyncIterator[MultiLevelCache]:
    """Open the selected cache; fail if it *needs_store* and that is unavailable.

    A directory that is not there is misspelt, unless the command *creates* a store.
    """
    settings = load_settings(redis_url=redis_url, chroma_url=chroma_url, dir=directory)
    if directory is not None and settings.redis_url is None:
        _check(settings.dir, creates=creates)
    if creates:
        patient = max(settings.put_budget, _PATIENCE)
        settings = settings.model_copy(update={"put_budget": patient})
    if not semantic:
        settings = settings.model_copy(update={"tiers": settings.tiers - {"l2"}})
    cache = MultiLevelCache(settings=settings, namespace=namespace, instruments=())
    try:
        await cache.initialize()
        if not cache.is_open and needs_store:
            fail(
                f"{unavailable(cache)} To use another store, pass --redis-url (REDIS_URL) or --dir "
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


def _check(directory: Path, *, creates: bool) -> None:
    """Fail if the directory given is not there, or cannot be used."""
    try:
        if creates:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.is_dir()
    except OSError as error:
        fail(f"--dir {directory} cannot be used: {error.strerror}")
    if not found:
        fail(
            f"--dir {directory}: there is no such directory. Pass the agent's CACHE_DIR; "
            "glasscache warm and an agent create it"
        )


def unavailable(cache: MultiLevelCache) -> str:
    """Return which store is unavailable, and why, in words."""
    where = cache.settings.redis_url and without_secrets(cache.settings.redis_url)
    why = cache.why_unavailable.replace("redis_url=", "--redis-url")
    return f"the store cannot be reached: {where or cache.settings.dir} ({why})."
