"""Durations in short notation: `90`, `250ms`, `30s`, `15m`, `2h`, `7d`."""

from __future__ import annotations

import re
from typing import Any

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|[smhd])", re.IGNORECASE)


def seconds(value: Any) -> Any:
    """Return a duration with a unit in seconds, and any other value unchanged."""
    if isinstance(value, str) and (found := _DURATION.fullmatch(value.strip())):
        return float(found[1]) * _UNITS[found[2].lower()]
    return value
