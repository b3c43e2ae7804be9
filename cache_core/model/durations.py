"""Durations in short notation: `90`, `250ms`, `30s`, `15m`, `2h`, `7d`."""

from __future__ import annotations

import re
from typing import Any

EXPECTED = "expected seconds, or a duration such as 250ms, 90s, 15m, 2h or 7d"

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|[smhd])", re.IGNORECASE)
_DIGITS = 4
"""Most digits of a number before a larger unit than the second."""


def seconds(value: Any) -> Any:
    """Return a duration with a unit in seconds, and what is no text unchanged.

    Raises:
        ValueError: If a text is neither a duration nor a number.
    """
    if not isinstance(value, str):
        return value
    if found := _DURATION.fullmatch(value.strip()):
        return float(found[1]) * _UNITS[found[2].lower()]
    try:
        float(value)
    except ValueError:
        raise ValueError(EXPECTED) from None
    return value


def text(value: float) -> str:
    """Return seconds in the largest unit that shows them exactly, in a form that `seconds` reads.

    1 h for 3,600, 1.5 h for 5,400, 3661 s for 3,661, 250 ms for 0.25.
    """
    for unit, length in reversed(_UNITS.items()):
        shown = f"{value / length:.10g}"
        if value >= length and len(shown.replace(".", "")) <= _DIGITS and "e" not in shown:
            return f"{shown} {unit}"
    return f"{value:.10g} s"
