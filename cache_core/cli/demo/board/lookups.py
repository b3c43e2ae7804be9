"""Latest lookups: user, message, outcome and reason."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.panel import Panel
from rich.text import Text

from cache_core.cli.demo.agent import Served
from cache_core.cli.demo.board.looks import (
    COLOURS,
    EDGE,
    FRAME_HEIGHT,
    digits,
    panel,
    short_duration,
    table,
)
from cache_core.cli.demo.board.why import WHY_WIDTH, similarity, tiers, why
from cache_core.config.tuning import Tuning
from cache_core.observability.records import LookupRecord

AROUND_ROWS = FRAME_HEIGHT + 1
"""Lines of the panel besides its rows: the frame and the column names."""
_FROM_WIDTH = {"time": 110, "user": 90, "age": 100, "sim.": 70}
"""Fewest columns of the screen at which less important columns are shown."""


@dataclass(frozen=True, slots=True)
class BoardRow:
    """Lookup as a row of the board."""

    at: float
    user: str
    message: str
    outcome: str
    tiers: str
    similarity: float | None
    age: float | None
    why: str
    wrong: bool


def row(served: Served, record: LookupRecord | None, tuning: Tuning) -> BoardRow:
    """Return an answered request as a row."""
    request, result = served.request, served.result
    return BoardRow(
        at=served.at,
        user=request.user_id,
        message=("↳ " if request.history else "") + request.message,
        outcome=result.outcome,
        tiers=tiers(record),
        similarity=similarity(record),
        age=result.age_seconds,
        why=why(served, record, tuning),
        wrong=served.wrong,
    )


def lookups(shown: Sequence[BoardRow], width: int, height: int) -> Panel:
    """Return the panel; *shown* are its rows, *height* its lines."""
    left_out = {name for name, least in _FROM_WIDTH.items() if width < least}
    found = table()
    for name, options in (
        ("time", {"style": EDGE, "width": 8}),
        ("user", {"width": 6}),
        ("message", {"overflow": "ellipsis", "ratio": 1}),
        ("outcome", {"min_width": 13}),
        ("sim.", {"justify": "right", "min_width": 5}),
        ("age", {"justify": "right", "min_width": 6}),
        ("why", {"min_width": WHY_WIDTH}),
    ):
        if name not in left_out:
            found.add_column(name, no_wrap=True, **options)
    for item in shown:
        found.add_row(*(cell for name, cell in _cells(item).items() if name not in left_out))
    return panel(found, "Last lookups", height=height)


def _cells(item: BoardRow) -> dict[str, str | Text]:
    outcome = Text(f"{item.outcome} {item.tiers}", COLOURS[item.outcome])
    return {
        "time": time.strftime("%H:%M:%S", time.localtime(item.at)),
        "user": item.user,
        "message": item.message,
        "outcome": Text(f"WRONG {item.tiers}", "bold white on red") if item.wrong else outcome,
        "sim.": "" if item.similarity is None else digits(item.similarity),
        "age": "" if item.age is None else short_duration(item.age),
        "why": Text(item.why, "" if item.outcome in {"hit", "partial"} else EDGE),
    }
