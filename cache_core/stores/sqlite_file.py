"""One SQLite file: opened, checked, set aside when it is corrupt, reopened when it was replaced."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

log = logging.getLogger("glasscache")

Result = TypeVar("Result")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    key TEXT PRIMARY KEY, value TEXT NOT NULL, expires REAL, put INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entries_expires ON entries (expires) WHERE expires IS NOT NULL;
CREATE INDEX IF NOT EXISTS entries_put ON entries (put);
CREATE TABLE IF NOT EXISTS rows (
    key TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, expires REAL, put INTEGER NOT NULL,
    PRIMARY KEY (key, name)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS rows_expires ON rows (expires) WHERE expires IS NOT NULL;
CREATE TABLE IF NOT EXISTS logs (
    position INTEGER PRIMARY KEY AUTOINCREMENT, log TEXT NOT NULL, value TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS logs_log ON logs (log, position);
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""

_BUSY_SECONDS = 0.4


class RefusedWriteError(Exception):
    """The file takes no writes just now; what it has can be read."""


class DiskFullError(RefusedWriteError):
    """There is no room on the disk."""


class FileLockedError(RefusedWriteError):
    """Another process writes, and does not end."""


class ReadOnlyFileError(RefusedWriteError):
    """The file or its file system is read-only."""


_REFUSALS = {
    sqlite3.SQLITE_FULL: DiskFullError,
    sqlite3.SQLITE_BUSY: FileLockedError,
    sqlite3.SQLITE_READONLY: ReadOnlyFileError,
}


class SqliteFile:
    """A database that several processes share, with one connection to read and one to write.

    A file that is not a sound database is set aside as `NAME.corrupt-N` and a new one is started.

    Args:
        path: The file; its folder exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reading: sqlite3.Connection | None = None
        self._writing: sqlite3.Connection | None = None
        self._retired: sqlite3.Connection | None = None
        self._damaged = False
        self._inode = 0

    def open(self) -> None:
        """Open the file if it is not, or if it is damaged."""
        if self._retired is not None:
            retired, self._retired = self._retired, None
            retired.close()
        if self._reading is not None and not self._damaged:
            return
        try:
            if self._damaged:
                raise sqlite3.DatabaseError("a page is damaged")
            self._writing = self._connection()
            # A page that is damaged further down shows only when it is read.
            if self._writing.execute("PRAGMA quick_check(1)").fetchall() != [("ok",)]:
                raise sqlite3.DatabaseError("quick_check failed")
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            self._start_empty(error)
        self._reading = self._connection()
        self._inode = self.path.stat().st_ino

    def _start_empty(self, error: sqlite3.DatabaseError) -> None:
        for connection in (self._reading, self._writing):
            if connection is not None:
                connection.close()
        self._reading = self._writing = None
        aside = self._set_aside()
        log.error(
            "embedded store: %s is corrupt (%s); set aside as %s, starting empty",
            self.path,
            error,
            aside.name,
        )
        self._writing = self._connection()
        self._damaged = False

    def _connection(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            connection.executescript(
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA mmap_size=268435456;"
                "PRAGMA journal_size_limit=16777216;" + _SCHEMA
            )
            begun = "SELECT 1 FROM sqlite_sequence WHERE name = 'logs'"
            if connection.execute(begun).fetchone() is None:
                # Whoever has read the logs of a file that was here before goes on from there.
                connection.execute(
                    "INSERT INTO sqlite_sequence (name, seq) SELECT 'logs', ? "
                    f"WHERE NOT EXISTS ({begun})",
                    (time.time_ns() // 1_000,),
                )
            self.path.chmod(0o600)
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_aside(self) -> Path:
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.corrupt-{number}")).exists():
            number += 1
        self.path.rename(aside)
        for suffix in ("-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        return aside

    @property
    def is_open(self) -> bool:
        """Whether there is a connection to write with."""
        return self._writing is not None

    def close_reading(self) -> None:
        """Read no more."""
        for connection in (self._reading, self._retired):
            if connection is not None:
                connection.close()
        self._reading = self._retired = None

    def close_writing(self) -> None:
        """Write no more."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.close()

    def follow(self) -> None:
        """Leave a file that was deleted or replaced: nobody else sees what is written to it."""
        if self._is_gone():
            self._reopen()

    def _is_gone(self) -> bool:
        """Whether the open file is no longer the one that has its name."""
        try:
            return self._reading is not None and self.path.stat().st_ino != self._inode
        except FileNotFoundError:
            return True

    def _reopen(self) -> None:
        log.warning("embedded store: %s was deleted while it was open; starting anew", self.path)
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._writing is not None:
            self._writing.close()
        self._writing = self._connection()
        # Another thread may be reading with it just now.
        self._retired, self._reading = self._reading, self._connection()
        self._inode = self.path.stat().st_ino

    @property
    def writing(self) -> sqlite3.Connection:
        """The connection to write with; raises `sqlite3.OperationalError` while there is none."""
        if self._writing is None:
            raise sqlite3.OperationalError("the embedded store is not open")
        return self._writing

    def execute(self, statement: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        """Run a statement on the connection to write with."""
        with self._noticing_damage():
            return self.writing.execute(statement, values)

    def select(self, statement: str, values: Sequence[object]) -> list[tuple[str, str]]:
        """Return the rows of a query, on the connection to read with."""
        if self._reading is None:
            raise sqlite3.OperationalError("the embedded store is not open")
        # fetchall, always: an open cursor pins the write-ahead log, which then grows for ever.
        with self._noticing_damage():
            return self._reading.execute(statement, values).fetchall()

    @contextlib.contextmanager
    def _noticing_damage(self) -> Iterator[None]:
        """Remember that the file is damaged: the next `tend` sets it aside."""
        try:
            yield
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:
            self._damaged = True
            raise

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Run the body in one transaction."""
        # IMMEDIATE, because a deferred one that read first fails at once when another process
        # committed meanwhile, whatever the busy timeout.
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.execute("COMMIT")
        except BaseException:
            # A full disk ends it by itself, or at the commit.
            if self.writing.in_transaction:
                self.execute("ROLLBACK")
            raise

    def next_put(self, count: int) -> int:
        """Return the first of *count* numbers in the order of puts, across processes."""
        rows = self.execute(
            "INSERT INTO counters VALUES ('put', ?) ON CONFLICT (name) "
            "DO UPDATE SET value = value + excluded.value RETURNING value",
            (count,),
        ).fetchall()
        return int(rows[0][0]) - count


def telling(work: Callable[[], Result]) -> Result:
    """Do *work*; tell a file that takes no writes just now from one that cannot be used."""
    try:
        return work()
    except sqlite3.OperationalError as error:
        refusal = _REFUSALS.get(error.sqlite_errorcode & 0xFF)
        if refusal is None:
            raise
        raise refusal(str(error)) from error
