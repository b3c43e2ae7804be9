"""Appearance of the board: colours, panels, numbers in few columns."""

from __future__ import annotations

import math

from rich import box
from rich.console import RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

COLOURS = {"hit": "green", "partial": "cyan", "miss": "bright_black", "error": "red",
           "bypass": "magenta"}  # fmt: skip
EDGE = "bright_black"
_WARNING_LINES = 4
FRAME_WIDTH, FRAME_HEIGHT = 4, 2
"""Columns and lines of a panel's frame."""


def panel(content: RenderableType, title: str = "", height: int | None = None) -> Panel:
    """Return a framed part of the board."""
    return Panel(
        content, title=Text(f" {title} ", "bold") if title else None, title_align="left",
        box=box.ROUNDED, border_style=EDGE, padding=(0, 1), height=height,
    )  # fmt: skip


def warning(text: str, width: int) -> Panel:
    """Return a warning, complete unless it is longer than any of the cache's."""
    note = Text(text, "yellow")
    note.truncate(_WARNING_LINES * (width - FRAME_WIDTH), overflow="ellipsis")
    return panel(note, "Warning")


def table() -> Table:
    """Return a table without lines, of full width."""
    return Table(box=None, expand=True, padding=(0, 1, 0, 0), pad_edge=False, header_style=EDGE)


def flowing(items: list[Text], width: int, gap: int = 3) -> list[Text]:
    """Return *items* in lines of *width* columns that break between items only.

    An item wider than a line has lines of its own, and is folded.
    """
    lines: list[Text] = []
    for item in items:
        if lines and lines[-1].cell_len + gap + item.cell_len <= width:
            lines[-1].append(" " * gap).append_text(item)
        else:
            line = item.copy()
            line.overflow = "fold"
            lines.append(line)
    return lines


def percent(part: float, whole: float) -> Text:
    """Return a percentage, or a dash if *whole* is 0."""
    return Text(f"{100 * part / whole:.1f} %") if whole else Text("-", EDGE)


def bar(share: float, objective: float, width: int) -> Text:
    """Return a bar with a mark at the objective; without colours it is thick and thin."""
    filled, mark = round(share * width), min(width - 1, math.floor(objective * width))
    colour = "green" if share >= objective else "yellow"
    drawn = Text()
    for position in range(width):
        if position == mark:
            drawn.append("┃", "bold")
        elif position < filled:
            drawn.append("━", colour)
        else:
            drawn.append("─", EDGE)
    drawn.append(f" {100 * share:.1f} %", f"bold {colour}")
    return drawn.append(f" of {100 * objective:g} %", EDGE)


def good_if_zero(count: int, what: str) -> Text:
    """Return a count that is good only at 0."""
    return Text.assemble((f"{count:,}", "bold red" if count else "bold green"), (f"  {what}", EDGE))


def digits(similarity: float) -> str:
    """Return a similarity, rounded down, so that none below a threshold appears to reach it."""
    return f"{math.floor(1000 * similarity + 1e-9) / 1000:.3f}"


def milliseconds(seconds: float | None) -> Text:
    """Return a latency, or a dash without one."""
    if seconds is None:
        return Text("-", EDGE)
    return Text("<0.1 ms" if seconds < 0.0001 else f"{1000 * seconds:.1f} ms")


def short_duration(seconds: float) -> str:
    """Return seconds in at most three digits."""
    if seconds < 1:
        return f"{1000 * seconds:.1f} ms" if seconds < 0.01 else f"{1000 * seconds:.0f} ms"
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3_600 else f"{seconds / 3_600:.0f} h"


def clock(seconds: float) -> str:
    """Return a running time in the form of a stopwatch."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
