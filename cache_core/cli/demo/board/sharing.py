"""Foot of the board: shared and private answers, and the cost of privacy."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from cache_core.cli.demo.board.looks import FRAME_WIDTH, panel


def sharing(found: Mapping[str, Any], private: Collection[str]) -> RenderableType:
    """Return the panel.

    Args:
        found: `sharing` of the cache's metrics.
        private: Intents with answers about single customers, which only the shop knows.
    """
    line = Text()
    if found["mode"] in {"intents", "auto"}:
        line.append("shared by all ", "green").append(", ".join(found["shared_intents"]))
        line.append("   private ", "yellow").append(", ".join(sorted(private)))
    elif found["mode"] == "all":
        line.append("Everything is shared by all.", "yellow")
    else:
        line.append("Nothing is shared: ", "yellow")
        line.append("every answer is private to the user who asked, which is the default.")
    advice = _advice(found["by_intent"], found["advice"], private)
    return panel(Group(line, advice) if advice else line, "Sharing")


def brief_sharing(found: Mapping[str, Any], width: int) -> RenderableType | None:
    """Return one line if nothing is shared and it fits; else `None`."""
    line = Text.assemble(
        ("Nothing is shared", "yellow"),
        f": {found['other_scope_misses']:,} misses had another user's answer",
    )
    fits = line.cell_len <= width - FRAME_WIDTH
    return panel(line, "Sharing") if found["mode"] == "private" and fits else None


def _advice(by_intent: Mapping[str, int], advice: str, known: Collection[str]) -> Text | None:
    """Return the cache's advice, with the shop's own knowledge added."""
    if not advice:
        return None
    private = {name: count for name, count in by_intent.items() if name in known}
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
