"""Board: the cache's work on one screen, with reasons."""

from __future__ import annotations

import io
import math
import re
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console, Group, RenderableType

from cache_core import MultiLevelCache
from cache_core.cli.demo.agent import Score, Served
from cache_core.cli.demo.board.figures import figures
from cache_core.cli.demo.board.heading import Place, heading
from cache_core.cli.demo.board.looks import warning
from cache_core.cli.demo.board.lookups import AROUND_ROWS, BoardRow, lookups, row
from cache_core.cli.demo.board.sharing import brief_sharing, sharing
from cache_core.cli.demo.board.watch import Watch
from cache_core.cli.demo.shop import Knowledge

_ROWS_KEPT = 60
_ENOUGH_ROWS, _FEW_ROWS = 8, 5
"""Fewest lookups to show besides all about sharing, or besides a line of it."""
_NOTE_SECONDS = 10.0

_WEB_FONT = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


class Board:
    """Screen of the demo.

    Args:
        cache: The cache to show.
        watch: Instrument of the cache.
        score: Score of the agent's answers.
        knowledge: The knowledge base, with the private intents.
        places: Servers and data stores.
        traffic: Short description of the traffic.
    """

    def __init__(
        self, cache: MultiLevelCache, watch: Watch, score: Score, knowledge: Knowledge,
        places: Iterable[Place], traffic: str,
    ) -> None:  # fmt: skip
        self._cache = cache
        self._watch = watch
        self._score = score
        self._private = frozenset(knowledge.private_intents)
        self._places = list(places)
        self._traffic = traffic
        self._rows: deque[BoardRow] = deque(maxlen=_ROWS_KEPT)
        self._started = time.monotonic()
        self._note = ""
        self._noted = -math.inf

    def note(self, text: str) -> None:
        """Show a warning for some seconds."""
        self._note, self._noted = " ".join(text.split()), time.monotonic()

    def add(self, served: Served) -> None:
        """Show an answered request."""
        record = self._watch.lookup(served.result.lookup_id)
        self._rows.append(row(served, record, self._cache.tuning))

    def render(self, width: int, height: int) -> Group:
        """Return the board for a screen of that size; parts that do not fit are omitted."""
        top = heading(
            self._traffic, self._watch.state, time.monotonic() - self._started, self._places, width
        )
        middle = figures(self._cache, self._watch, self._score, width)
        left = height - _lines(top, width) - _lines(middle, width) - AROUND_ROWS
        foot = self._foot(width, left)
        rows = max(1, left - (_lines(foot, width) if foot is not None else 0))
        shown = lookups(list(self._rows)[-rows:], width, rows + AROUND_ROWS)
        return Group(top, middle, shown, *([foot] if foot is not None else []))

    def _foot(self, width: int, left: int) -> RenderableType | None:
        """Return a warning, else the sharing panel, as much as *left* lines permit."""
        if time.monotonic() - self._noted < _NOTE_SECONDS:
            return warning(self._note, width)
        found = self._cache.get_metrics()["sharing"]
        whole = sharing(found, self._private)
        if left - _lines(whole, width) >= _ENOUGH_ROWS:
            return whole
        brief = brief_sharing(found, width)
        fits = brief is not None and left - _lines(brief, width) >= _FEW_ROWS
        return brief if fits else None


def _lines(part: RenderableType, width: int) -> int:
    return len(Console(width=width, file=io.StringIO()).render_lines(part))


def snapshot(board: Board, path: Path, width: int = 110, height: int = 34) -> None:
    """Write the board as an SVG picture."""
    console = Console(
        record=True, width=width, file=io.StringIO(), force_terminal=True,
        color_system="truecolor", legacy_windows=False,
    )  # fmt: skip
    console.print(board.render(width, height))
    picture = console.export_svg(title="glasscache demo")
    # a picture must not load its font from the internet
    path.write_text(_WEB_FONT.sub("", picture), encoding="utf-8")
