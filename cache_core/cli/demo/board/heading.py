"""Top of the board: the run, the health of its parts, and their addresses."""

from __future__ import annotations

from collections.abc import Sequence
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


@dataclass(frozen=True, slots=True)
class Run:
    """Description of a run.

    Attributes:
        traffic: The traffic in a few words.
        places: Servers and data stores.
        warmed: Sentence about the warm start; empty without one.
        notes: What is missing, and what to install.
    """

    traffic: str
    places: Sequence[Place] = ()
    warmed: str = ""
    notes: Sequence[str] = ()


def heading(run: Run, state: CacheState | None, seconds: float, width: int) -> RenderableType:
    """Return the top; the addresses are complete, other parts are omitted if they do not fit."""
    inner = width - FRAME_WIDTH
    health = _health(state, seconds)
    first = Table.grid(expand=True)
    first.add_column(no_wrap=True)
    first.add_column(no_wrap=True, justify="right")
    title = Text("glasscache demo", "bold")
    described = Text.assemble(title, (f"  {run.traffic}", EDGE))
    fits = described.cell_len + _GAP + health.cell_len <= inner
    first.add_row(described if fits else title, health)
    listening = flowing(
        [Text.assemble((f"{place.name} ", EDGE), place.where) for place in run.places], inner
    )
    notes = [Text(note, "yellow") for note in run.notes]
    more = [line for line in (Text(run.warmed, EDGE), _costs()) if 0 < line.cell_len <= inner]
    return panel(Group(first, *listening, *notes, *flowing(more, inner)))


def _health(state: CacheState | None, seconds: float) -> Text:
    text = Text()
    for name, works in (state.backends if state else {}).items():
        shown = "model" if name == "embedder" else name
        if state is not None and name in state.loading:
            text.append("◌ ", "yellow").append(f"{shown} loading")
        else:
            text.append("● " if works else "✖ ", "green" if works else "red")
            text.append(shown if works else f"{shown} down")
        text.append("  ")
    return text.append(clock(seconds), EDGE)


def _costs() -> Text:
    steps = ", ".join(f"{step.name} {step.seconds:.2f} s ${step.usd:g}" for step in STEPS)
    return Text.assemble(("simulated LLM ", EDGE), steps)
