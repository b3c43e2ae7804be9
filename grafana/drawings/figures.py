"""Formatting of numbers and times as in a panel."""

from __future__ import annotations

import math
from datetime import UTC, datetime

_RATES = {"reqps": " req/s", "cps": " c/s", "ops": " ops/s", "wps": " wr/s", "Bps": " B/s"}
_SECONDS = ((1e-6, 1e6, "µs"), (1e-3, 1e3, "ms"), (1.0, 1.0, "s"))


def shown(value: float, unit: str, decimals: int | None = None) -> str:
    """Return a number in a panel's unit."""
    if unit == "percentunit":
        return f"{short(100 * value, decimals)}%"
    if unit == "currencyUSD":
        return f"${value:,.2f}" if abs(value) < 1_000 else f"${short(value / 1e3)}K"
    if unit == "s":
        return _duration(value)
    if unit == "bytes":
        for step, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
            if value >= step:
                return f"{short(value / step)} {name}"
        return f"{value:.0f} B"
    if unit.startswith("suffix:"):
        return f"{short(value, decimals)}{unit.removeprefix('suffix:')}"
    if unit in _RATES:
        return f"{short(value, decimals)}{_RATES[unit]}"
    if abs(value) >= 1e6:
        return f"{short(value / 1e6)} Mil"
    return f"{short(value / 1e3)} K" if abs(value) >= 1e4 else short(value, decimals)


def short(value: float, decimals: int | None = None) -> str:
    """Return a number in few digits: *decimals* after the point, or as many as needed."""
    if decimals is None:
        size = abs(value)
        decimals = 0 if size >= 100 or value == round(value) else 1 if size >= 10 else 2
        decimals = 3 if 0 < size < 0.1 else decimals
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _duration(value: float) -> str:
    size = abs(value)
    if size >= 86_400:
        return f"{short(value / 86_400)} day" + ("s" if size > 86_400 else "")
    if size >= 3_600:
        return f"{short(value / 3_600)} h"
    if size >= 60:
        return f"{short(value / 60)} min"
    for below, factor, name in _SECONDS:
        if size < 1e3 * below or below == 1.0:
            return f"{short(value * factor)} {name}"
    raise AssertionError


def ticks(start: float, end: float) -> list[float]:
    """Return at most nine round times for an axis."""
    steps = (15, 30, 60, 120, 300, 600, 1_800, 3_600, 7_200, 21_600)
    step = next((step for step in steps if end - start <= 9 * step), 86_400)
    first = math.ceil(start / step)
    return [step * number for number in range(first, math.floor(end / step) + 1)]


def clock(at: float) -> str:
    """Return a time as the time of day, UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S" if at % 60 else "%H:%M")
