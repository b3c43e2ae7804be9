"""Option `--context`: the agent's `context=`, as text, JSON or a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from cache_core.cli.console import fail
from cache_core.model.question.contexts import MAX_CONTEXT_CHARS

ContextText = Annotated[
    str | None,
    typer.Option(
        "--context",
        metavar="TEXT|JSON|@FILE",
        help="The agent's context=: text, a JSON object, or @FILE that contains either.",
    ),
]


def given_context(text: str | None) -> str | dict[str, Any] | None:
    """Return the option's context; text that looks like JSON and is not ends the command."""
    if text is None:
        return None
    if text.startswith("@"):
        text = _of_file(Path(text[1:]))
    if len(text) > MAX_CONTEXT_CHARS:
        fail(f"--context has {len(text):,} characters; a cache takes {MAX_CONTEXT_CHARS:,} at most")
    if not text.lstrip().startswith("{"):
        return text
    try:
        found = json.loads(text)
        json.dumps(found, allow_nan=False)
    except (ValueError, RecursionError) as error:
        fail(f"--context looks like JSON but is not: {error}")
    return dict(found)


def _of_file(path: Path) -> str:
    """Return a file's text, without the line end that an editor appends."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        fail(f"--context @{path}: {why}")
    return text.removesuffix("\n")
