"""What a store returned, which may be anything: JSON of any depth, values of any type and size."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

_LARGEST = 1e15


def from_store(text: str) -> Any:
    """Return the JSON value in *text*; `ValueError` for what is none, or nested too deep."""
    try:
        return json.loads(text)
    except RecursionError:
        msg = "nested too deep"
        raise ValueError(msg) from None


def are_texts(values: Iterable[object]) -> bool:
    """Whether all are str."""
    return all(isinstance(value, str) for value in values)


def are_plain(values: Iterable[object]) -> bool:
    """Whether all are ASCII, as digests and names are: every store can be asked for them."""
    return all(isinstance(value, str) and value.isascii() for value in values)


def are_numbers(values: Iterable[object]) -> bool:
    """Whether all are numbers that can be calculated with."""
    return all(
        type(value) in {int, float}
        and abs(value) <= _LARGEST  # type: ignore[arg-type]
        and math.isfinite(value)  # type: ignore[arg-type]
        for value in values
    )


def are_named_numbers(value: object) -> bool:
    """Whether *value* maps names to numbers."""
    return isinstance(value, dict) and are_numbers(value.values())
