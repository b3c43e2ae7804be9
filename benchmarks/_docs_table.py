"""Tables in the documentation that a command writes, between two markers that name it."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

_DOCS = Path(__file__).parent.parent / "docs"
PERFORMANCE = _DOCS / "performance.md"
RELIABILITY = _DOCS / "reliability.md"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; all columns but the first are numbers."""
    lines = [
        "| " + " | ".join(header) + " |",
        "|---" + "|---:" * (len(header) - 1) + "|",
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
    return "\n".join(lines)


def markers(name: str) -> tuple[str, str]:
    """Return the lines between which a table stands."""
    return f"<!-- {name}: written by the command above -->", f"<!-- {name}: end -->"


def between(text: str, name: str) -> str:
    """Return what stands between the markers of *name*.

    Raises:
        ValueError: If they are not there.
    """
    begin, end = markers(name)
    _, found, rest = text.partition(begin)
    body, closed, _ = rest.partition(end)
    if not (found and closed):
        msg = f"the markers {begin} and {end} are missing"
        raise ValueError(msg)
    return body.strip()


def write(path: Path, name: str, body: str) -> None:
    """Replace what stands between the markers of *name* in a file."""
    text = path.read_text(encoding="utf-8")
    between(text, name)
    begin, end = markers(name)
    before, after = text.split(begin)[0], text.split(end)[1]
    path.write_text(f"{before}{begin}\n\n{body}\n\n{end}{after}", encoding="utf-8")


def machine() -> str:
    """Return what this was measured on, in a line."""
    return (
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end, "
        f"Python {platform.python_version()}, {platform.system()}"
    )
