"""Local copy of the decision log: read once, then only new decisions."""

from __future__ import annotations

from operator import attrgetter
from typing import NamedTuple

import pandas as pd

from cache_core.observability.decisions import Decision, in_order
from cache_core.runtime.operator import Operator

LONGEST = 100_000
"""Most decisions in memory."""

_PAGE = 2_000
_PAGES_AT_ONCE = 100
_COLUMNS = (
    "at", "outcome", "level", "reason", "reasons", "intent", "seconds", "saved_usd", "stands_for",
)  # fmt: skip
_pick = attrgetter(*_COLUMNS)


class Recorded(NamedTuple):
    """Recorded decisions.

    Attributes:
        decisions: Decisions, oldest first.
        frame: Their countable fields as a table.
        full: Whether older ones have been dropped.
    """

    decisions: tuple[Decision, ...]
    frame: pd.DataFrame
    full: bool = False


def frame_of(decisions: list[Decision] | tuple[Decision, ...]) -> pd.DataFrame:
    """Return *decisions* as a table."""
    frame = pd.DataFrame.from_records([_pick(item) for item in decisions], columns=list(_COLUMNS))
    numbers = ["at", "seconds", "saved_usd", "stands_for"]
    frame[numbers] = frame[numbers].astype("float64")
    return frame


class DecisionTail:
    """Follower of a decision log, page by page, so that the store is never blocked.

    Args:
        keep: Lookups that the log keeps: not more are kept here, so that what the pages show does
            not depend on when the app was started.
    """

    def __init__(self, keep: int = 10_000) -> None:
        self._keep = min(keep, LONGEST)
        self._position = ""
        self._recorded = Recorded((), frame_of([]))

    async def follow(self, operator: Operator) -> Recorded:
        """Read new decisions; return those that the log keeps.

        Raises:
            BackendError: If the store is unavailable; what was read before stays.
        """
        new: list[Decision] = []
        for _ in range(_PAGES_AT_ONCE):
            page = await operator.decisions_after(self._position, _PAGE)
            self._position = page.position
            new += page.decisions
            if not page.more:
                break
        if new:
            self._recorded = _joined(self._recorded, new, self._keep)
        return self._recorded


def _joined(old: Recorded, new: list[Decision], keep: int) -> Recorded:
    new = in_order(new)
    decisions = (*old.decisions, *new)
    frame = frame_of(new)
    if old.decisions:
        frame = pd.concat([old.frame, frame], ignore_index=True)
    # the log drops rows in blocks: all it has beyond the limit is left out
    return Recorded(
        decisions[-keep:],
        frame.tail(keep).reset_index(drop=True),
        old.full or len(decisions) >= keep,
    )
