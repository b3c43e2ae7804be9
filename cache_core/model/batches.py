"""Batches of a sequence, so that no call to a backend grows without bound."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

_Item = TypeVar("_Item")


def batched(items: Sequence[_Item], most: int) -> Iterator[Sequence[_Item]]:
    """Yield *items* in order, up to *most* at a time; *most* is at least 1."""
    for start in range(0, len(items), most):
        yield items[start : start + most]
