"""The decision log as this process knows it: read once, then only what is new."""

from __future__ import annotations

from operator import attrgetter
from typing import NamedTuple

import pandas as pd

from cache_core.decisions import Decision, parse
from cache_core.sealing import Sealer
from cache_core.stores.base import KeyValueStore

LONGEST = 100_000
"""Decisions looked at; older ones are left out."""

_PAGE = 2_000
_PAGES_AT_ONCE = 100
_COLUMNS = ("at", "outcome", "level", "reason", "reasons", "intent", "seconds", "saved_usd")
_pick = attrgetter(*_COLUMNS)


class Recorded(NamedTuple):
    """What was decided lately.

    Attributes:
        decisions: Oldest first.
        frame: The same, what is counted of them.
    """

    decisions: tuple[Decision, ...]
    frame: pd.DataFrame


def frame_of(decisions: list[Decision] | tuple[Decision, ...]) -> pd.DataFrame:
    """Return *decisions* as a table."""
    frame = pd.DataFrame.from_records([_pick(item) for item in decisions], columns=list(_COLUMNS))
    numbers = ["at", "seconds", "saved_usd"]
    frame[numbers] = frame[numbers].astype("float64")
    return frame


class DecisionTail:
    """Follows a decision log, page by page, so that the store is never held up.

    Args:
        name: The log's key.
        sealer: Opens captured texts.
    """

    def __init__(self, name: str, sealer: Sealer | None = None) -> None:
        self._name = name
        self._sealer = sealer
        self._position = ""
        self._recorded = Recorded((), frame_of([]))

    async def follow(self, store: KeyValueStore) -> Recorded:
        """Read what is new; return the last `LONGEST` decisions.

        Raises:
            BackendError: If the store is away; what was read before stays.
        """
        new: list[Decision] = []
        for _ in range(_PAGES_AT_ONCE):
            page = await store.after(self._name, self._position, _PAGE)
            if page:
                self._position = page[-1][0]
                new += [item for _, text in page if (item := parse(text, self._sealer)) is not None]
            if len(page) < _PAGE:
                break
        if new:
            self._recorded = _joined(self._recorded, new)
        return self._recorded

    def forget(self) -> None:
        """Read everything anew next time: something was removed from the log."""
        self._position, self._recorded = "", Recorded((), frame_of([]))


def _joined(old: Recorded, new: list[Decision]) -> Recorded:
    decisions = (*old.decisions, *new)[-LONGEST:]
    frame = frame_of(new)
    if old.decisions:
        frame = pd.concat([old.frame, frame], ignore_index=True)
    return Recorded(decisions, frame.tail(LONGEST).reset_index(drop=True))
