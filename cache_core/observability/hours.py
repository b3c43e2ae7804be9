"""Sums of this process by hour, until the store has them."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from cache_core.observability.sums import NONE, Sums, added, since

HOUR = 3_600

_OPEN_SECONDS = HOUR / 2
"""Seconds after its hour until which a row is written again; later sums get a row of their own."""

_USUAL_SECONDS = 5.0
"""Seconds from one look at the counters to the next, while the cache's event loop runs."""

_PENDING = 72
"""Hours that are kept while the store is unavailable."""


@dataclass(slots=True)
class _Part:
    """Sums of an hour that one row has.

    Attributes:
        start: Beginning of the hour, seconds since the epoch.
        name: Name of the row, which no other one has.
        sums: What was counted.
        written: What the store has confirmed of it; `None` if nothing.
        tried: Whether a write was begun: an unconfirmed one may have been made.
        late: Whether its first write was after the time for those of its hour.
    """

    start: int
    name: str
    sums: Sums
    written: Sums | None = None
    tried: bool = False
    late: bool = False


class Hours:
    """Sums of a process by hour, in rows that are written whole: again is as good as once.

    Several event loops may use it.

    Args:
        counted: Returns what was counted since the process started.

    Attributes:
        dropped: Lookups that the history lacks, because the store was unavailable for days.
    """

    def __init__(self, counted: Callable[[], Sums]) -> None:
        self._counted = counted
        self._seen = counted()
        self._seen_at: float | None = None
        self._parts: dict[int, _Part] = {}
        self._process = secrets.token_hex(4)
        self._numbers = itertools.count()
        self._taking = threading.Lock()
        self._writing = threading.Lock()
        self.dropped = 0

    def take(self, now: float, price_usd: float) -> None:
        """Add what was counted since the last call to its hour.

        Args:
            now: The store's time.
            price_usd: Price of an answer without one of its own.
        """
        with self._taking:
            seen = self._counted()
            new, self._seen = since(seen, self._seen), seen
            before, self._seen_at = self._seen_at, now
            if new == NONE:
                return
            # The hour in which most of the time since the last call lies, as far as it was spent
            # counting: a loop that stood still, or a machine that slept, counted nothing meanwhile.
            passed = 0.0 if before is None else min(max(now - before, 0.0), _USUAL_SECONDS)
            start = int((now - passed / 2) // HOUR) * HOUR
            if (part := self._parts.get(start)) is None:
                part = self._parts[start] = _Part(start, self._name(start), NONE)
            part.sums = added([part.sums, _priced(new, price_usd)])
            while len(self._parts) > _PENDING:
                lost = self._parts.pop(min(self._parts))
                self.dropped += lost.sums.lookups - (lost.written or NONE).lookups

    @contextlib.contextmanager
    def writing(self, now: float) -> Iterator[Mapping[str, Sums]]:
        """Yield the rows to write, by name; they are written if the block ends without an error.

        One caller at a time: for others, in another event loop, there are none.
        """
        if not self._writing.acquire(blocking=False):
            yield {}
            return
        try:
            due = self._due(now)
            yield {part.name: sums for part, sums in due}
            with self._taking:
                for part, sums in due:
                    part.written = sums
        finally:
            self._writing.release()

    def _due(self, now: float) -> list[tuple[_Part, Sums]]:
        with self._taking:
            for start, part in list(self._parts.items()):
                if part.sums is part.written:
                    if now >= start + HOUR + _USUAL_SECONDS:
                        del self._parts[start]
                elif part.tried and not part.late and now >= start + HOUR + _OPEN_SECONDS:
                    # Its row may have been merged into those of other replicas.
                    rest = since(part.sums, part.written or NONE)
                    self._parts[start] = _Part(start, self._name(start), rest, late=True)
            due = [part for part in self._parts.values() if part.sums is not part.written]
            for part in due:
                part.tried = True
            return [(part, part.sums) for part in due]

    def _name(self, start: int) -> str:
        return f"{start}-{self._process}.{next(self._numbers):x}"


def _priced(sums: Sums, price_usd: float) -> Sums:
    """Return *sums* with the price of an answer that was in force meanwhile."""
    unanswered = sum(sums.outcomes.get(name, 0) for name in ("partial", "miss", "error"))
    saved = sums.answered - sums.stale
    return sums._replace(
        unanswered_usd=unanswered * price_usd, prices={f"{price_usd:g}": saved} if saved else {}
    )
