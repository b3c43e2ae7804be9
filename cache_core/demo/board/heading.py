"""The top of the board: what runs, whether its parts work, and where everything listens."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cache_core.demo.agent import STEPS
from cache_core.demo.board.looks import EDGE, FRAME_WIDTH, clock, flowing, panel
from cache_core.instrumentation import CacheState

_GAP = 2


@dataclass(frozen=True, slots=True)
class Place:
    """Something that listens or keeps data, and where."""

    name: str
    where: str


def heading(
    traffic: str, state: CacheState | None, seconds: float, places: Iterable[Place], width: int,
) -> RenderableType:  # fmt: skip
    """Return the top; where everything listens is whole, and what else does not fit is left out."""
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
