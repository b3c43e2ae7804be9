"""Values of the tuning as they are written and read on a command line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from cache_core.cli.console import fail
from cache_core.live_tuning import TuningChange
from cache_core.tuning import Bounds, Tuning

_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])")
_NOTHING = "default"
_EMPTY = "none"


def lines(change: TuningChange) -> list[str]:
    """Return a change in words, a line for each field."""
    found = []
    for name, after in change.after.items():
        bounds = Tuning.bounds().get(name.rpartition(".")[2])
        before = change.before.get(name)
        old = "not tuned" if before is None else shown(before, bounds)
        new = "no longer tuned" if after is None else shown(after, bounds)
        found.append(f"{name} {old} -> {new}")
    return found


def shown(value: Any, bounds: Bounds | None) -> str:
    """Return a value as a person reads it, with its unit."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or _EMPTY
    if isinstance(value, float):
        text = f"{value:,.10g}"
        return f"{text} {bounds.unit}" if bounds is not None and bounds.unit else text
    return str(value)


def assignment(text: str) -> tuple[str, str]:
    """Return field and value of `FIELD=VALUE`; anything else ends the command."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        fail(f"{text!r}: expected FIELD=VALUE, like semantic_threshold=0.9")
    return name.strip(), value.strip()


def _is_list(name: str) -> bool:
    bounds = Tuning.bounds().get(name)
    return bounds is not None and bounds.kind in {"labels", "choices"}


def is_relative(name: str, text: str) -> bool:
    """Whether *text* changes a list, rather than being a whole one."""
    return _is_list(name) and text.startswith(("+", "-"))


def value(name: str, text: str, in_force: Mapping[str, Any]) -> Any:
    """Return what *text* means for a field; the library judges whether it may be."""
    if text == _NOTHING:
        return None
    if _is_list(name):
        parts = [part.strip() for part in text.split(",") if part.strip()]
        if text == _EMPTY:
            return []
        return _moved(name, parts, in_force) if is_relative(name, text) else parts
    if name.endswith("_ttl") and (found := _DURATION.fullmatch(text)):
        return float(found[1]) * _SECONDS[found[2]]
    return text


def _moved(name: str, parts: Sequence[str], in_force: Mapping[str, Any]) -> list[str]:
    """Return a list in force with some added (+) and some taken away (-)."""
    now = in_force.get(name)
    if now is None:
        fail(f"{name} differs by replica: give the whole list, without + and -")
    found = dict.fromkeys(now)
    for part in parts:
        if part[0] not in "+-" or len(part) == 1:
            fail(f"{name}: {part!r} has neither + nor -; give either the whole list, or changes")
        if part[0] == "+":
            found[part[1:]] = None
        else:
            found.pop(part[1:], None)
    return list(found)
