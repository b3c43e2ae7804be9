"""Pace of a page that refreshes itself: slower while drawing takes long. No Streamlit."""

from __future__ import annotations

import math

SHARE = 4.0
"""Least pause between two refreshes, in times of what drawing took."""

LONGEST = 60.0
"""Longest pause, in seconds."""


def pause(now: float, took: float, least: float) -> float:
    """Return the pause after a drawing, in seconds: *least* times a power of two.

    It grows immediately, and shrinks once a quarter would do: to change it redraws the page.

    Args:
        now: The pause so far.
        took: Seconds that the drawing took.
        least: Shortest pause.
    """
    wanted = max(least, SHARE * took)
    if now / 4 < wanted <= now:
        return now
    return max(least, min(LONGEST, least * 2.0 ** math.ceil(math.log2(wanted / least))))
