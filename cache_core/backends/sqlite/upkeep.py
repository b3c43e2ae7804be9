"""Work of every second on a SQLite file: record the time, remove expired and surplus values."""

from __future__ import annotations

import logging
import math
import time

from cache_core.backends.clock import BACK_SECONDS
from cache_core.backends.sqlite.file import SqliteFile

log = logging.getLogger("glasscache")

_SWEEP_BATCH = 500
"""Rows removed together: 500 take about 9 ms, and the file is locked for writers meanwhile."""

_OLDEST_BATCH = 50
"""Values removed together to make room: each has several rows, which are removed before more."""

_FREED_PAGES = 250
"""Free pages returned to the disk together, 1 MB: they are moved to the file's end first."""

_COUNT_SECONDS = 30.0

_WRITTEN_TOGETHER = 5_000
"""Exceeds the number of writes between the first row of a put and its last value."""

_EXPIRING_FIRST = "(SELECT * FROM rows WHERE expires IS NOT NULL ORDER BY expires LIMIT 5000)"
"""Rows that are searched first for those of removed values."""

_CLOCK = "clock"
"""Counter of the latest time seen, in whole seconds."""

_LEAD = "clock_lead"
"""Counter of the whole seconds by which the store is ahead of the machine's clock."""


def note_time(file: SqliteFile, wall: float, seen: float) -> int:
    """Record the time in the file; return the lead over *wall*, in whole seconds.

    The time is *wall*, or *seen* if this process has used a later one.

    The lead makes up for a machine's clock that was set back: otherwise expired values would be
    served again, and newer ones would live too long. It ends once the clock has passed the latest
    time in the file.
    """
    with file.transaction():
        noted = dict(
            file.execute(
                "SELECT name, value FROM counters WHERE name IN (?, ?)", (_CLOCK, _LEAD)
            ).fetchall()
        )
        latest, lead = max(int(noted.get(_CLOCK, 0)), int(seen)), int(noted.get(_LEAD, 0))
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
    """Removes expired and surplus values.

    Args:
        file: The file to sweep.
        max_entries: Values to keep; the oldest are evicted first.
        max_bytes: Size of the file above which the oldest values are evicted.
    """

    def __init__(self, file: SqliteFile, max_entries: int, max_bytes: int) -> None:
        self._file = file
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._next_count = 0.0
        self._surplus = 0
        self._scanned = False
        self._logged = False

    def sweep(self, now: float) -> bool:
        """Remove a batch of values that expired before *now*, or else of surplus ones.

        Returns:
            Whether more may remain.
        """
        expired = 0
        for table, keys in (("entries", "key"), ("rows", "key, name")):
            expired += self._file.execute(
                f"DELETE FROM {table} WHERE ({keys}) IN "  # noqa: S608 - constants
                f"(SELECT {keys} FROM {table} WHERE expires < ? LIMIT {_SWEEP_BATCH})",
                (now,),
            ).rowcount
        return expired > 0 or self._remove_surplus()

    def _remove_surplus(self) -> bool:
        if time.monotonic() >= self._next_count:
            # Counting reads the whole index.
            self._next_count = time.monotonic() + _COUNT_SECONDS
            self._surplus = self._count("SELECT count(*) FROM entries") - self._max_entries
            self._scanned = False
        too_many = self._surplus > 0
        size, free = self._bytes()
        if not too_many and size - free <= self._max_bytes:
            self._logged = False
            return size > self._max_bytes and free > 0 and self._give_back()
        removed = 0 if too_many else self._remove_rows_of_nothing()
        if removed == 0:
            oldest = min(self._surplus, _SWEEP_BATCH) if too_many else _OLDEST_BATCH
            removed = self._file.execute(
                "DELETE FROM entries WHERE key IN "
                "(SELECT key FROM entries WHERE expires IS NOT NULL ORDER BY put LIMIT ?)",
                (oldest,),
            ).rowcount
            self._surplus -= removed
        if not removed and not self._logged:
            self._logged = True
            log.warning(
                "embedded store: %s is larger than CACHE_MAX_BYTES (%d), and what is in it does "
                "not expire. Raise CACHE_MAX_BYTES, or CACHE_DECISIONS=0 keeps no decision log",
                self._file.path,
                self._max_bytes,
            )
        return removed > 0

    def _remove_rows_of_nothing(self) -> int:
        """Remove a batch of rows older than every value: they list removed values."""
        kept = self._file.execute(
            "SELECT put FROM entries WHERE expires IS NOT NULL ORDER BY put LIMIT 1"
        ).fetchall()
        # A put writes its rows before its values, and others write in between.
        before = (int(kept[0][0]) if kept else 1 << 62) - _WRITTEN_TOGETHER
        removed = self._remove_rows(_EXPIRING_FIRST, before)
        if removed == 0 and not self._scanned:
            # An earlier version's rows may expire last.
            removed = self._remove_rows("rows", before)
            self._scanned = removed == 0
        return removed

    def _remove_rows(self, table: str, before: int) -> int:
        return self._file.execute(
            "DELETE FROM rows WHERE (key, name) IN (SELECT key, name "  # noqa: S608 - constants
            f"FROM {table} WHERE put < ? AND expires IS NOT NULL LIMIT {_SWEEP_BATCH})",
            (before,),
        ).rowcount

    def _count(self, statement: str) -> int:
        return int(self._file.execute(statement).fetchall()[0][0])

    def _give_back(self) -> bool:
        """Shorten the file by free pages; False for files of earlier versions, which cannot."""
        before = self._count("PRAGMA page_count")
        self._file.execute(f"PRAGMA incremental_vacuum({_FREED_PAGES})").fetchall()
        return self._count("PRAGMA page_count") < before

    def _bytes(self) -> tuple[int, int]:
        """Return the bytes of the file, and those free in it."""
        page = self._count("PRAGMA page_size")
        return (
            page * self._count("PRAGMA page_count"),
            page * self._count("PRAGMA freelist_count"),
        )
