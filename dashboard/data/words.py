"""Texts for values, changes and times."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any

from cache_core.config.intents import INTENT_PREFIX
from cache_core.config.live import TuningChange
from cache_core.config.tuning import Bounds, Tuning

_MARKUP = re.compile(r"[\\`*_{}\[\]()<>#+.!|~$:&=^\"'-]")
# controls, line ends, and marks that change the direction of the text
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
# links, icons and emoji arise from characters left by the escapes: a word joiner prevents it
_MADE_OF_TEXT = re.compile(r"(\\:(?=\S)|(?<=www)\\\.|@)", re.IGNORECASE)


class SourceUnavailableError(Exception):
    """A source does not answer; the text says which, and what to do."""


def title(field: str) -> str:
    """Return the name of a field, or of an override of one."""
    if field.startswith(INTENT_PREFIX):
        label, _, name = field.removeprefix(INTENT_PREFIX).rpartition(".")
        own = Tuning.bounds().get(name)
        return f"{own.title if own else name} ({label})"
    bounds = Tuning.bounds().get(field)
    return bounds.title if bounds else field


def value(field: str, found: Any) -> str:
    """Return a value of a field with its unit."""
    if found is None:
        return "not tuned"
    if isinstance(found, bool):
        return "yes" if found else "no"
    if isinstance(found, (list, tuple, set, frozenset)):
        return ", ".join(sorted(map(str, found))) or "none"
    bounds = Tuning.bounds().get(field.rpartition(".")[2] if "." in field else field)
    unit = f" {bounds.unit}" if bounds and bounds.unit else ""
    if bounds and bounds.unit == "s":
        return short(float(found))
    if bounds and bounds.field == "max_wrong" and not found:
        return "off"
    if bounds and percentage(bounds):
        return f"{100 * float(found):.6g}%"
    if isinstance(found, (int, float)):
        return f"{found:,.10g}{unit}"
    return str(found)


def percentage(bounds: Bounds) -> bool:
    """Return whether a field is a share that people read in percent: not a similarity."""
    small = bounds.kind == "number" and not bounds.unit and (bounds.maximum or 0) <= 1
    return small and bounds.field not in {"semantic_threshold", "approve_margin"}


def short(seconds: float) -> str:
    """Return a duration in the notation of the command line: `6h`, `90m`, `2d`."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"


def described(change: TuningChange) -> str:
    """Return a change in words: each field, old → new."""
    names = sorted({*change.before, *change.after})
    parts = [
        f"{title(name)}: {value(name, change.before.get(name))} → "
        f"{value(name, change.after.get(name))}"
        for name in names
        if change.before.get(name) != change.after.get(name)
    ]
    text = "; ".join(parts) or "no value changed"
    return text if change.reverts is None else f"back to version {change.reverts}: {text}"


def undone(changes: Sequence[TuningChange], version: int) -> list[str]:
    """Return what going back to *version* changes, in words, a line for each field.

    Args:
        changes: All changes since, newest first.
        version: The version to go back to.
    """
    now: dict[str, Any] = {}
    then: dict[str, Any] = {}
    for change in changes:
        if change.version > version:
            for name in {*change.before, *change.after}:
                now.setdefault(name, change.after.get(name))
                then[name] = change.before.get(name)
    return [
        f"{title(name)}: {value(name, now[name])} → {value(name, then[name])}"
        for name in sorted(then)
        if now[name] != then[name]
    ]


def plain(text: str) -> str:
    """Return a user's text escaped so that Markdown shows it literally, on one line."""
    escaped = _MARKUP.sub(r"\\\g<0>", _UNSEEN.sub(" ", text))
    return _MADE_OF_TEXT.sub("\\g<1>\u2060", escaped)


def ago(at: float, now: float | None = None) -> str:
    """Return the time since a moment, in words."""
    seconds = max(0.0, (time.time() if now is None else now) - at)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
