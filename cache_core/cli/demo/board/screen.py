"""Board: the cache's work on one screen, with reasons."""

from __future__ import annotations

import io
import math
import re
import time
from collections import deque
from pathlib import Path

from rich.console import Console, Group, RenderableType

from cache_core import MultiLevelCache
from cache_core.cli.console import counted
from cache_core.cli.demo.agent import Score, Served, quantile
from cache_core.cli.demo.board.advice import advice
from cache_core.cli.demo.board.figures import figures
from cache_core.cli.demo.board.heading import Run, heading
from cache_core.cli.demo.board.looks import clock, panel, short_duration, warning
from cache_core.cli.demo.board.lookups import AROUND_ROWS, BoardRow, lookups, row
from cache_core.cli.demo.board.sharing import brief_sharing, sharing
from cache_core.cli.demo.board.watch import Watch
from cache_core.cli.demo.shop import Knowledge
from cache_core.cli.demo.truth import Truth

_ROWS_KEPT = 60
_ENOUGH_ROWS, _FEW_ROWS = 8, 5
"""Fewest lookups to show above all about sharing, or above a panel of one line."""
_LEAST_ROWS = 4
"""Fewest lookups to show above one line without a frame."""
_NOTE_SECONDS = 10.0

_WEB_FONT = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


class Board:
    """Screen of the demo.

    Args:
        cache: The cache to show.
        watch: Instrument of the cache.
        score: Score of the agent's answers.
        knowledge: The knowledge base, with the private intents.
        run: Description of the run.
        truth: Judge of the answers; `None` without one.
    """

    def __init__(
        self, cache: MultiLevelCache, watch: Watch, score: Score, knowledge: Knowledge, run: Run,
        truth: Truth | None = None,
    ) -> None:  # fmt: skip
        self._cache = cache
        self._watch = watch
        self._score = score
        self._private = frozenset(knowledge.private_intents)
        self._run = run
        self._truth = truth
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
        seconds = time.monotonic() - self._started
        top = heading(self._run, self._cache.state, seconds, width)
        middle = figures(self._cache, self._watch, self._score, width)
        left = height - _lines(top, width) - _lines(middle, width) - AROUND_ROWS
        foot = self._foot(width, left)
        rows = max(1, left - (_lines(foot, width) if foot is not None else 0))
        shown = lookups(list(self._rows)[-rows:], width, rows + AROUND_ROWS)
        return Group(top, middle, shown, *([foot] if foot is not None else []))

    def line(self) -> str:
        """Return the figures so far, on one line."""
        stats, score = self._cache.metrics, self._score
        cached, alone = (
            short_duration(quantile(of, 0.5)) for of in (score.cached_seconds, score.llm_seconds)
        )
        return (
            f"{clock(time.monotonic() - self._started)} {counted(stats.lookups, 'lookups')}, "
            f"{stats.hit_rate:.1%} hits, p50 {cached} instead of {alone}, "
            f"${stats.cost_saved_usd:,.2f} saved, {score.wrong:,} wrong"
        )

    def _foot(self, width: int, left: int) -> RenderableType | None:
        """Return a warning, else the threshold and sharing, as much as *left* lines permit."""
        if time.monotonic() - self._noted < _NOTE_SECONDS:
            return warning(self._note, width)
        found = self._cache.get_metrics()["sharing"]
        whole, brief = sharing(found, self._private), brief_sharing(found, width)
        advised = advice(self._truth) if self._truth is not None else []
        panels = [panel(line, "Threshold") for line in advised]
        fitting = [line for line in advised if line.cell_len <= width]
        for foot, rows in (
            (Group(panels[0], whole) if panels else None, _ENOUGH_ROWS),
            (whole if found["mode"] == "private" or not panels else panels[0], _ENOUGH_ROWS),
            (brief, _FEW_ROWS),
            (fitting[0] if fitting else None, _LEAST_ROWS),
        ):
            if foot is not None and left - _lines(foot, width) >= rows:
                return foot
        return None


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
