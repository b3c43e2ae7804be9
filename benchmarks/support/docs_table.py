"""Generated tables in the documentation, each between two markers that name its command."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

_DOCS = Path(__file__).parents[2] / "docs"
PERFORMANCE = _DOCS / "performance.md"
INSTALLATION = _DOCS / "installation.md"
RELIABILITY = _DOCS / "reliability.md"
ANSWER_QUALITY = _DOCS / "answer-quality.md"
SCALING = _DOCS / "scaling.md"
MEASURED = _DOCS / "measured"
PICTURES = _DOCS / "pictures"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; all columns but the first are numbers."""
    lines = [
        "| " + " | ".join(header) + " |",
        "|---" + "|---:" * (len(header) - 1) + "|",
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
    return "\n".join(lines)


def markers(name: str) -> tuple[str, str]:
    """Return the marker lines around a table."""
    return f"<!-- {name}: written by the command above -->", f"<!-- {name}: end -->"


def between(text: str, name: str) -> str:
    """Return the text between the markers of *name*.

    Raises:
        ValueError: If they are missing.
    """
    begin, end = markers(name)
    _, found, rest = text.partition(begin)
    body, closed, _ = rest.partition(end)
    if not (found and closed):
        msg = f"the markers {begin} and {end} are missing"
        raise ValueError(msg)
    return body.strip()


def write(path: Path, name: str, body: str) -> None:
    """Replace the text between the markers of *name* in a file."""
    text = path.read_text(encoding="utf-8")
    between(text, name)
    begin, end = markers(name)
    before, after = text.split(begin)[0], text.split(end)[1]
    path.write_text(f"{before}{begin}\n\n{body}\n\n{end}{after}", encoding="utf-8")


def machine() -> str:
    """Return a description of this machine in one line."""
    return (
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end, "
        f"Python {platform.python_version()}, {platform.system()}"
    )
