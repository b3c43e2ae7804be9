"""What is due every second in a SQLite file: the time is noted, what is too much is removed."""

from __future__ import annotations

import logging
import math
import time

from cache_core.clock import BACK_SECONDS
from cache_core.stores.sqlite_file import SqliteFile

log = logging.getLogger("glasscache")

_SWEEP_BATCH = 500
"""Rows removed at once: 500 take about 9 ms, and the file is locked for writers meanwhile."""

_COUNT_SECONDS = 30.0

_CLOCK = "clock"
"""Name of the counter that has the latest time seen, in whole seconds."""

_LEAD = "clock_lead"
"""Name of the counter that has the seconds by which the store is ahead of the machine's clock."""


def note_time(file: SqliteFile, wall: float) -> int:
    """Note the time in the file; return by how much to be ahead of *wall*, in whole seconds.

    That is by what the machine's clock was set back: else what expired would be served again, and
    what was stored since would live too long. It ends when the clock itself is past what the file
    has seen.
    """
    with file.transaction():
        noted = dict(
            file.execute(
                "SELECT name, value FROM counters WHERE name IN (?, ?)", (_CLOCK, _LEAD)
            ).fetchall()
        )
        latest, lead = int(noted.get(_CLOCK, 0)), int(noted.get(_LEAD, 0))
        if wall >= latest - BACK_SECONDS:
            lead = 0
        elif wall + lead < latest - BACK_SECONDS:
            lead = math.ceil(latest - wall)
        file.writing.executemany(
            "INSERT INTO counters VALUES (?, ?) "
            "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            [(_CLOCK, max(latest, int(wall + lead))), (_LEAD, lead)],
        )
    return lead


class Sweeper:
    """Removes what expired and what is too much.

    Args:
        file: Where.
        max_entries: Values to keep; the oldest go first.
        max_bytes: Size that the file may reach before the oldest values go.
    """

    def __init__(self, file: SqliteFile, max_entries: int, max_bytes: int) -> None:
        self._file = file
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._next_count = 0.0

    def sweep(self, now: float) -> None:
        """Remove some of what expired before *now*, and some of what is too much."""
        for table, keys in (("entries", "key"), ("rows", "key, name")):
            self._file.execute(
                f"DELETE FROM {table} WHERE ({keys}) IN "  # noqa: S608 - constants
                f"(SELECT {keys} FROM {table} WHERE expires < ? LIMIT {_SWEEP_BATCH})",
                (now,),
            )
        if time.monotonic() < self._next_count:
            return
        # Counting reads the whole index.
        self._next_count = time.monotonic() + _COUNT_SECONDS
        surplus = self._count("SELECT count(*) FROM entries") - self._max_entries
        if surplus > 0 or self._bytes() > self._max_bytes:
            self._file.execute(
                "DELETE FROM entries WHERE key IN "
                "(SELECT key FROM entries WHERE expires IS NOT NULL ORDER BY put LIMIT ?)",
                (surplus if surplus > 0 else _SWEEP_BATCH,),
            )

    def _count(self, statement: str) -> int:
        return int(self._file.execute(statement).fetchall()[0][0])

    def _bytes(self) -> int:
        pages = self._count("PRAGMA page_count") - self._count("PRAGMA freelist_count")
        return pages * self._count("PRAGMA page_size")
