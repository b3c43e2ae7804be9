"""Top of the board: the run, the health of its parts, and their addresses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cache_core.cli.demo.agent import STEPS
from cache_core.cli.demo.board.looks import EDGE, FRAME_WIDTH, clock, flowing, panel
from cache_core.observability.instruments import CacheState

_GAP = 2


@dataclass(frozen=True, slots=True)
class Place:
    """Server or data store, and its address."""

    name: str
    where: str


def heading(
    traffic: str, state: CacheState | None, seconds: float, places: Iterable[Place], width: int,
) -> RenderableType:  # fmt: skip
    """Return the top; the addresses are complete, other parts are omitted if they do not fit."""
    inner = width - FRAME_WIDTH
    health = _health(state, seconds)
    first = Table.grid(expand=True)
    first.add_column(no_wrap=True)
    first.add_column(no_wrap=True, justify="right")
    title = Text("glasscache demo", "bold")
    described = Text.assemble(title, (f"  {traffic}", EDGE))
    fits = described.cell_len + _GAP + health.cell_len <= inner
    first.add_row(described if fits else title, health)
    listening = flowing(
        [Text.assemble((f"{place.name} ", EDGE), place.where) for place in places], inner
    )
    costs = _costs()
    return panel(Group(first, *listening, *([costs] if costs.cell_len <= inner else [])))


def _health(state: CacheState | None, seconds: float) -> Text:
    text = Text()
    for name, works in (state.backends if state else {}).items():
        shown = "model" if name == "embedder" else name
        text.append("● " if works else "✖ ", "green" if works else "red")
        text.append(shown if works else f"{shown} down").append("  ")
    return text.append(clock(seconds), EDGE)


def _costs() -> Text:
    steps = ", ".join(f"{step.name} {step.seconds:.2f} s ${step.usd:g}" for step in STEPS)
    return Text.assemble(("simulated LLM ", EDGE), steps)
