"""Sizes, durations and shares in words."""

from __future__ import annotations


def size(number: float) -> str:
    """Return a number of bytes in words."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1_000 or unit == "GB":
            break
        number /= 1_000
    return f"{number:,.0f} {unit}" if unit == "bytes" or number >= 10 else f"{number:,.1f} {unit}"


def seconds(number: float) -> str:
    """Return a duration in words, in the largest unit that fits."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if number >= length:
            return f"{number / length:,.3g} {unit}"
    return f"{number:,.3g} s"


def percent(share: float) -> str:
    """Return a share, 0 to 1, in percent."""
    return f"{100 * share:.1f} %"
