"""The demo's board: what the cache does, on one screen, and why."""

from __future__ import annotations

import io
import math
import re
import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from cache_core import MultiLevelCache
from cache_core.demo import Knowledge
from cache_core.demo.agent import STEPS, Score, Served, quantile
from cache_core.instrumentation import CacheCall, CacheState, Operation, Scope
from cache_core.models import LEVELS, OUTCOMES, Level

_NAMES: dict[Level, str] = {"l1": "exact", "l2": "semantic", "l3": "intent", "l4": "rag"}
_COLOURS = {"hit": "green", "partial": "cyan", "miss": "bright_black", "error": "red",
            "bypass": "magenta"}  # fmt: skip
_EDGE = "bright_black"
_ROWS_KEPT = 40
_CALLS_KEPT = 2_048
_RATE_SECONDS = 10.0
_WHY_WIDTH = 30
_WIDE = 100
"""Columns that everything needs; on less, what matters least is left out."""
_NOTE_SECONDS = 10.0
_MIDDLE_HEIGHT = 9
_LEFT_SHARE, _RIGHT_SHARE = 53, 47

_WEB_FONT = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)

_WHY = {
    "cold": "nothing like it asked before",
    "expired": "known, but older than its TTL",
    "invalidated": "known, but invalidated since",
    "other_scope": "another user's answer: private",
    "has_history": "follow-up: exact history only",
    "truncated": "longer than the model reads",
    "unreadable": "characters the model lacks",
    "context_limit": "too many contexts to index",
    "warming": "the model is still loading",
    "corrupt": "what was stored was unreadable",
    "timeout": "a backend took too long",
    "backend_error": "a backend failed",
    "breaker_open": "a backend is down: not asked",
    "overloaded": "too many wait for an embedding",
    "isolation": "of another scope: not served",
    "empty": "nothing was said",
    "too_large": "too large to be cached",
    "disabled": "every tier is switched off",
    "no_user": "nobody to keep it for",
}
_GUARDS = {
    "numbers": "other numbers",
    "negation": "one says not",
    "direction": "the other way round",
}


class Watch:
    """An instrument that remembers what the last lookups did, and how long each tier took."""

    def __init__(self) -> None:
        self.state: CacheState | None = None
        """As last reported."""
        self._seconds: dict[Level, deque[float]] = {level: deque(maxlen=1_000) for level in LEVELS}
        self._calls: OrderedDict[str, CacheCall] = OrderedDict()
        self._times: deque[float] = deque(maxlen=10_000)
        self._started = time.monotonic()

    def scope(self, operation: Operation, level: Level | None) -> Scope | None:
        """Watching needs no scope."""
        return None

    def record(self, call: CacheCall) -> None:
        """Remember a lookup."""
        if call.operation != "lookup":
            return
        self._times.append(time.monotonic())
        for part in call.calls:
            if part.level is not None:
                self._seconds[part.level].append(part.seconds)
        self._calls[call.lookup_id] = call
        if len(self._calls) > _CALLS_KEPT:
            self._calls.popitem(last=False)

    def report(self, state: CacheState) -> None:
        """Remember how things are."""
        self.state = state

    def call(self, lookup_id: str) -> CacheCall | None:
        """Return the record of a recent lookup."""
        return self._calls.get(lookup_id)

    def seconds(self, level: Level) -> float | None:
        """Return the median latency of a tier; `None` while it was not asked."""
        return quantile(self._seconds[level], 0.5) if self._seconds[level] else None

    def lookups_per_second(self) -> float:
        """Return the rate over the last ten seconds."""
        now = time.monotonic()
        while self._times and self._times[0] < now - _RATE_SECONDS:
            self._times.popleft()
        return len(self._times) / max(1.0, min(_RATE_SECONDS, now - self._started))


@dataclass(frozen=True, slots=True)
class Row:
    """One lookup as the board shows it."""

    at: float
    user: str
    message: str
    outcome: str
    tiers: str
    similarity: float | None
    age: float | None
    why: str
    wrong: bool


@dataclass(frozen=True, slots=True)
class Place:
    """Something that listens or keeps data, and where."""

    name: str
    where: str


class Board:
    """The demo on one screen.

    Args:
        cache: That is shown.
        watch: Among the cache's instruments.
        score: Of the agent's answers.
        knowledge: Says which intents are about one customer alone.
        places: What listens where.
        traffic: What the traffic is like, in a few words.
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
        self._rows: deque[Row] = deque(maxlen=_ROWS_KEPT)
        self._started = time.monotonic()
        self._note = ""
        self._noted = -math.inf

    def note(self, text: str) -> None:
        """Show a warning for some seconds."""
        self._note, self._noted = " ".join(text.split()), time.monotonic()

    def add(self, served: Served) -> None:
        """Show a request that was answered."""
        call = self._watch.call(served.result.lookup_id)
        request, result = served.request, served.result
        self._rows.append(
            Row(
                at=served.at,
                user=request.user_id,
                message=("↳ " if request.history else "") + request.message,
                outcome=result.outcome,
                tiers=_tiers(call),
                similarity=_similarity(call),
                age=result.age_seconds,
                why=self.why(served, call),
                wrong=served.wrong,
            )
        )

    def why(self, served: Served, call: CacheCall | None) -> str:
        """Return in words why the cache answered, or why it did not."""
        result = served.result
        if result.tier == "l1":
            shared = self._cache.tuning.shares(served.request.intent)
            return "same words, shared by all" if shared else "same user, same words"
        if result.tier == "l2" and call is not None:
            if "unconfirmed" in result.reasons:
                return "means the same (unconfirmed)"
            return f"means the same (from {self._cache.tuning.semantic_threshold:g})"
        return _why_not(call, result.reasons)

    def render(self, width: int, height: int) -> Group:
        """Return the board for a screen of that size."""
        wide = width >= _WIDE
        heading, sharing = self._heading(), self._sharing(wide=wide)
        panels = [
            Panel(heading, box=box.ROUNDED, border_style=_EDGE, padding=(0, 1)),
            self._middle(wide=wide),
        ]
        footer = Panel(
            sharing, title=_title("Sharing"), title_align="left", box=box.ROUNDED,
            border_style=_EDGE, padding=(0, 1),
        )  # fmt: skip
        measure = Console(width=width, file=io.StringIO())
        taken = sum(len(measure.render_lines(part)) for part in (*panels, footer))
        rows = max(1, height - taken - 3)
        return Group(*panels, self._lookups(rows, wide=wide), footer)

    # ------------------------------------------------------------------------------ parts

    def _heading(self) -> RenderableType:
        first = Table.grid(expand=True)
        first.add_column(no_wrap=True, overflow="ellipsis")
        first.add_column(no_wrap=True, justify="right")
        title = Text.assemble(("glasscache demo", "bold"), (f"  {self._traffic}", _EDGE))
        first.add_row(title, self._health())
        listening = Text(no_wrap=True, overflow="ellipsis")
        for place in self._places:
            listening.append(f"{'   ' if listening else ''}{place.name} ", _EDGE)
            listening.append(place.where)
        steps = ", ".join(f"{step.name} {step.seconds:.2f} s ${step.usd:g}" for step in STEPS)
        costs = Text.assemble(("simulated LLM ", _EDGE), steps, no_wrap=True, overflow="ellipsis")
        return Group(first, listening, costs)

    def _health(self) -> Text:
        text = Text()
        state = self._watch.state
        for name, works in (state.backends if state else {}).items():
            shown = "model" if name == "embedder" else name
            text.append("● " if works else "✖ ", "green" if works else "red")
            text.append(shown if works else f"{shown} down").append("  ")
        return text.append(_duration(time.monotonic() - self._started), _EDGE)

    def _middle(self, *, wide: bool) -> RenderableType:
        grid = Table.grid(expand=True, padding=0)
        grid.add_column(ratio=_LEFT_SHARE)
        grid.add_column(ratio=_RIGHT_SHARE)
        grid.add_row(
            _panel("Tiers", self._tiers(wide=wide), height=_MIDDLE_HEIGHT),
            _panel("What it is worth", self._worth(wide=wide), height=_MIDDLE_HEIGHT),
        )
        return grid

    def _tiers(self, *, wide: bool) -> RenderableType:
        stats = self._cache.metrics
        table = _table(expand=True)
        table.add_column("tier", no_wrap=True)
        for name in ("hits", "misses", "errors", "hit rate", "p50")[: 5 if wide else 3]:
            table.add_column(name, justify="right", no_wrap=True)
        for level in LEVELS:
            title = Text.assemble((level.upper(), "bold"), f" {_NAMES[level]}")
            table.add_row(title, *self._tier(level)[: 5 if wide else 3])
        outcomes = Text("lookups: ", _EDGE)
        for name in OUTCOMES:
            if count := stats.outcomes[name]:
                outcomes.append(f"{count:,} ", f"bold {_COLOURS[name]}").append(f"{name}  ")
        return Group(table, "", outcomes)

    def _tier(self, level: Level) -> list[Text]:
        if level not in self._cache.settings.tiers:
            return [Text("off", _EDGE)] * 5
        stats = self._cache.metrics
        hits, misses, errors = stats.hits[level], stats.misses[level], stats.errors[level]
        return [
            Text(f"{hits:,}", "green" if hits else _EDGE),
            Text(f"{misses:,}"),
            Text(f"{errors:,}", "red" if errors else _EDGE),
            _percent(hits, hits + misses),
            _milliseconds(self._watch.seconds(level)),
        ]

    def _worth(self, *, wide: bool) -> RenderableType:
        stats, score = self._cache.metrics, self._score
        table = Table.grid(padding=(0, 2))
        table.add_column(style=_EDGE, no_wrap=True, min_width=8)
        table.add_column(no_wrap=True)
        objective = self._cache.tuning.hit_rate_objective
        table.add_row("hit rate", _bar(stats.hit_rate, objective, 16 if wide else 8))
        table.add_row(
            "lookups",
            Text.assemble(
                (f"{stats.lookups:,}", "bold"), f"  {self._watch.lookups_per_second():.1f}/s"
            ),
        )
        for name, share in (("p50", 0.5), ("p95", 0.95)):
            table.add_row(
                name,
                Text.assemble(
                    (f"{_duration_short(quantile(score.cached_seconds, share)):>7}", "bold"),
                    ("  without cache ", _EDGE),
                    _duration_short(quantile(score.llm_seconds, share)),
                ),
            )
        table.add_row(
            "saved",
            Text.assemble(
                (f"${stats.cost_saved_usd:,.2f}", "bold green"),
                (f"  of ${score.full_usd:,.2f} without cache", _EDGE),
            ),
        )
        table.add_row("wrong", _good_if_zero(score.wrong, f"of {stats.outcomes['hit']:,} hits"))
        table.add_row("leaked", _good_if_zero(score.leaks, "private answers to other users"))
        return table

    def _lookups(self, rows: int, *, wide: bool) -> Panel:
        table = _table(expand=True)
        if wide:
            table.add_column("time", style=_EDGE, no_wrap=True, width=8)
        table.add_column("user", no_wrap=True, width=6)
        table.add_column("message", no_wrap=True, overflow="ellipsis", ratio=1)
        table.add_column("outcome", no_wrap=True, min_width=13)
        table.add_column("sim.", justify="right", no_wrap=True, min_width=5)
        if wide:
            table.add_column("age", justify="right", no_wrap=True, min_width=6)
        table.add_column("why", no_wrap=True, width=_WHY_WIDTH, overflow="ellipsis")
        for row in list(self._rows)[-rows:]:
            table.add_row(*_cells(row, wide=wide))
        panel = _panel("Last lookups", table, height=rows + 3)
        if time.monotonic() - self._noted < _NOTE_SECONDS:
            panel.subtitle = Text(f" {self._note} ", "yellow", no_wrap=True, overflow="ellipsis")
        return panel

    def _sharing(self, *, wide: bool) -> RenderableType:
        sharing = self._cache.get_metrics()["sharing"]
        shared: list[str] = sharing["shared_intents"]
        line = Text(no_wrap=not wide, overflow="ellipsis")
        if sharing["mode"] == "intents":
            line.append("shared by all ", "green").append(", ".join(shared))
            line.append("   private ", "yellow").append(", ".join(sorted(self._private)))
        else:
            line.append("Nothing is shared: ", "yellow")
            line.append("every answer is private to the user who asked, which is the default.")
        advice = self._advice(sharing["by_intent"], sharing["advice"])
        return Group(line, advice) if advice else line

    def _advice(self, by_intent: Mapping[str, int], advice: str) -> Text | None:
        """Return the cache's advice, with what only the shop itself can know added to it."""
        if not advice:
            return None
        private = {name: count for name, count in by_intent.items() if name in self._private}
        counted = ", ".join(f"{name} {count}" for name, count in private.items())
        if len(private) == len(by_intent):
            return Text.assemble(
                ("other users' private answers met ", "yellow"),
                f"{sum(private.values())} ({counted}): not served, each names its user",
            )
        text = Text.assemble((advice, "yellow"))
        if private:
            text.append(f" Here not {', '.join(private)}: their answers name the user.")
        return text


def snapshot(board: Board, path: Path, width: int = 110, height: int = 34) -> None:
    """Write the board as an SVG picture."""
    console = Console(
        record=True, width=width, file=io.StringIO(), force_terminal=True,
        color_system="truecolor", legacy_windows=False,
    )  # fmt: skip
    console.print(board.render(width, height))
    picture = console.export_svg(title="glasscache demo")
    # A picture must not call out to the internet for its font.
    path.write_text(_WEB_FONT.sub("", picture), encoding="utf-8")


# ---------------------------------------------------------------------------------- words


def _tiers(call: CacheCall | None) -> str:
    """Return the tiers that gave something."""
    parts = call.calls if call is not None else ()
    return " ".join(part.level.upper() for part in parts if part.level and part.outcome == "hit")


def _similarity(call: CacheCall | None) -> float | None:
    """Return how near the nearest stored question was, whatever came of it."""
    parts = call.calls if call is not None else ()
    exact = next((part for part in parts if part.level == "l1"), None)
    if exact is not None and exact.outcome == "hit":
        return 1.0
    return next((part.similarity for part in parts if part.level == "l2"), None)


def _why_not(call: CacheCall | None, reasons: tuple[str, ...]) -> str:
    if call is None:
        return ", ".join(_WHY.get(reason, reason) for reason in reasons)
    semantic = next((part for part in call.calls if part.level == "l2"), None)
    if semantic is not None and call.reason == semantic.reason:
        if call.reason == "below_threshold":
            return f"nearest question is under {semantic.threshold or 0:g}"
        if call.reason == "guard_veto":
            differs = _GUARDS.get(semantic.guard, semantic.guard)
            return f"alike, but {differs}"
    return _WHY.get(call.reason, call.reason)


# ---------------------------------------------------------------------------------- looks


def _cells(row: Row, *, wide: bool) -> list[str | Text]:
    colour = _COLOURS[row.outcome]
    outcome = Text(f"{row.outcome} {row.tiers}", colour)
    cells: list[str | Text] = [
        row.user,
        row.message,
        Text(f"WRONG {row.tiers}", "bold white on red") if row.wrong else outcome,
        "" if row.similarity is None else f"{row.similarity:.3f}",
        Text(row.why, "" if row.outcome in {"hit", "partial"} else _EDGE),
    ]
    if wide:
        cells.insert(0, time.strftime("%H:%M:%S", time.localtime(row.at)))
        cells.insert(-1, "" if row.age is None else _duration_short(row.age))
    return cells


def _title(text: str) -> Text:
    return Text(f" {text} ", "bold")


def _panel(title: str, content: RenderableType, height: int) -> Panel:
    return Panel(
        content, title=_title(title), title_align="left", box=box.ROUNDED, border_style=_EDGE,
        padding=(0, 1), height=height,
    )  # fmt: skip


def _table(*, expand: bool) -> Table:
    return Table(box=None, expand=expand, padding=(0, 1, 0, 0), pad_edge=False, header_style=_EDGE)


def _percent(part: float, whole: float) -> Text:
    return Text(f"{100 * part / whole:.1f} %") if whole else Text("-", _EDGE)


def _bar(share: float, objective: float, width: int) -> Text:
    """Return a bar with a mark where it should reach."""
    filled, mark = round(share * width), min(width - 1, math.floor(objective * width))
    colour = "green" if share >= objective else "yellow"
    bar = Text()
    for position in range(width):
        if position == mark:
            bar.append("┃", "bold")
        else:
            bar.append("━", colour if position < filled else "grey23")
    bar.append(f" {100 * share:.1f} %", f"bold {colour}")
    return bar.append(f" of {100 * objective:g} %", _EDGE)


def _good_if_zero(count: int, what: str) -> Text:
    return Text.assemble(
        (f"{count:,}", "bold red" if count else "bold green"), (f"  {what}", _EDGE)
    )


def _milliseconds(seconds: float | None) -> Text:
    if seconds is None:
        return Text("-", _EDGE)
    return Text("<0.1 ms" if seconds < 0.0001 else f"{1000 * seconds:.1f} ms")


def _duration_short(seconds: float) -> str:
    """Return seconds in three digits at most."""
    if seconds < 1:
        return f"{1000 * seconds:.1f} ms" if seconds < 0.01 else f"{1000 * seconds:.0f} ms"
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3_600 else f"{seconds / 3_600:.0f} h"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
