"""One SQLite file: opened, checked, set aside if corrupt, reopened if replaced."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar
from weakref import WeakSet

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
_FORK_SECONDS = 2.0


class RefusedWriteError(Exception):
    """The file takes no writes now; it can still be read."""


class DiskFullError(RefusedWriteError):
    """There is no room on the disk."""


class FileLockedError(RefusedWriteError):
    """Another process keeps the file locked for writing."""


class ReadOnlyFileError(RefusedWriteError):
    """The file or its file system is read-only."""


_REFUSALS = {
    sqlite3.SQLITE_FULL: DiskFullError,
    sqlite3.SQLITE_BUSY: FileLockedError,
    sqlite3.SQLITE_READONLY: ReadOnlyFileError,
}


class SqliteFile:
    """Database with one connection to read and one to write.

    Several processes share a file. A file that is not a sound database of this cache is set aside
    as `NAME.corrupt-N`, and an empty one is started.

    Args:
        path: The file; its folder exists. `None` for a database in the memory of this process.
        memory: Name of that database, shared by all of that name until the last is closed. Empty
            for a private one.
    """

    def __init__(self, path: Path | None, memory: str = "") -> None:
        self.path = path
        name = memory or secrets.token_hex(8)
        self._memory = f"file:glasscache-{name}?mode=memory&cache=shared"
        self._reading: sqlite3.Connection | None = None
        self._writing: sqlite3.Connection | None = None
        self._retired: list[sqlite3.Connection] = []
        self._damaged = False
        self._inode = 0
        self._reads, self._writes = threading.Lock(), threading.Lock()
        if path is None and memory:
            # Concurrent writes to one memory database fail instead of waiting.
            self._writes = _memories.setdefault(memory, self._writes)
        self._paused = False
        _files.add(self)

    def open(self) -> None:
        """Open the file unless it is open and sound."""
        if self._reading is not None and not self._damaged:
            return
        try:
            if self._damaged:
                raise sqlite3.DatabaseError("a page is damaged")
            self._writing = self._connection()
            # A damaged page is only noticed when it is read.
            if self._writing.execute("PRAGMA quick_check(1)").fetchall() != [("ok",)]:
                raise sqlite3.DatabaseError("quick_check failed")
        except sqlite3.OperationalError as error:
            # Raised by tables of another program, with the same names and other columns.
            if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
                raise
            self._start_empty(error)
        except sqlite3.DatabaseError as error:
            self._start_empty(error)
        self._renew_reading()
        self._damaged = False

    def _renew_reading(self) -> None:
        """Replace the reading connection; the reading thread, which may be using it, closes it."""
        reading = self._connection()
        if self._reading is not None:
            self._retired.append(self._reading)
        self._reading = reading
        self._inode = self.path.stat().st_ino if self.path is not None else 0

    def _start_empty(self, error: sqlite3.DatabaseError) -> None:
        self.close_writing()
        if self.path is None:
            raise error
        aside = _set_aside(self.path)
        log.error(
            "embedded store: %s is corrupt (%s); set aside as %s, starting empty",
            self.path,
            error,
            aside.name,
        )
        self._writing = self._connection()

    def _connection(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path or self._memory,
            uri=self.path is None,
            timeout=_BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            if self.path is None:
                # Connections to one memory database fail on each other's table locks.
                connection.execute("PRAGMA read_uncommitted=1")
            # The first pragma has no effect on a file made without it.
            connection.executescript(
                "PRAGMA auto_vacuum=INCREMENTAL; PRAGMA journal_mode=WAL;"
                "PRAGMA synchronous=NORMAL; PRAGMA mmap_size=268435456;"
                "PRAGMA journal_size_limit=16777216;" + _SCHEMA
            )
            begun = "SELECT 1 FROM sqlite_sequence WHERE name = 'logs'"
            if connection.execute(begun).fetchone() is None:
                # Positions continue after those of an earlier file: its readers hold them.
                connection.execute(
                    "INSERT INTO sqlite_sequence (name, seq) SELECT 'logs', ? "
                    f"WHERE NOT EXISTS ({begun})",
                    (time.time_ns() // 1_000,),
                )
            if self.path is not None:
                _make_private(self.path)
        except BaseException:
            connection.close()
            raise
        return connection

    @property
    def is_open(self) -> bool:
        """True while there is a writing connection."""
        return self._writing is not None

    def close_reading(self) -> None:
        """Close the reading connections; called by the reading thread, or after it ended."""
        if self._reading is not None:
            self._retired.append(self._reading)
            self._reading = None
        self._close_retired()

    def _close_retired(self) -> None:
        while self._retired:
            self._retired.pop().close()

    def close_writing(self) -> None:
        """Close the writing connection."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.close()

    def follow(self) -> None:
        """Reopen a file that was deleted or replaced: no other process would see its writes."""
        if self.path is not None and self._is_gone(self.path):
            self._reopen(self.path)

    def _is_gone(self, path: Path) -> bool:
        """Return whether *path* is no longer the open file."""
        try:
            return self._reading is not None and path.stat().st_ino != self._inode
        except FileNotFoundError:
            return True

    def _reopen(self, path: Path) -> None:
        log.warning("embedded store: %s was deleted while it was open; starting empty", path)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.close_writing()
        self._writing = self._connection()
        self._renew_reading()

    @property
    def writing(self) -> sqlite3.Connection:
        """The writing connection; raises `sqlite3.OperationalError` while there is none."""
        if self._writing is None:
            raise sqlite3.OperationalError("the embedded store is not open")
        return self._writing

    def execute(self, statement: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        """Run a statement on the writing connection."""
        writing = self.writing
        try:
            return writing.execute(statement, values)
        except sqlite3.DatabaseError as error:
            self._note_damage(error, writing is self._writing)
            raise

    def select(self, statement: str, values: Sequence[object]) -> list[tuple[str, str]]:
        """Return the rows of a query on the reading connection; always in one thread."""
        with self._reads:
            reading = self._reading
            if reading is None:
                raise sqlite3.OperationalError("the embedded store is not open")
            if self._retired:
                self._close_retired()
            # fetchall, because an open cursor pins the write-ahead log, which then grows forever.
            try:
                return reading.execute(statement, values).fetchall()
            except sqlite3.DatabaseError as error:
                self._note_damage(error, reading is self._reading)
                raise

    def _note_damage(self, error: sqlite3.DatabaseError, current: bool) -> None:
        """Remember that the file is damaged: the next `tend` sets it aside."""
        if current and not isinstance(error, sqlite3.OperationalError):
            self._damaged = True

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Run the body in one transaction."""
        # IMMEDIATE, because a deferred one that read first fails immediately if another process
        # committed meanwhile, whatever the busy timeout.
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.execute("COMMIT")
        except BaseException:
            # A full disk may have ended it already.
            if self.writing.in_transaction:
                self.execute("ROLLBACK")
            raise

    def as_writer(self, work: Callable[[], Result]) -> Result:
        """Run *work*; map SQLite's full, busy and read-only errors to `RefusedWriteError`."""
        with self._writes:
            try:
                return work()
            except sqlite3.OperationalError as error:
                # One of this class, as for a closed file, has no code.
                refusal = _REFUSALS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
                if refusal is None:
                    raise
                raise refusal(str(error)) from error

    # ------------------------------------------------------------------------------ fork

    def pause(self) -> bool:
        """Close the connections until `resume`; False if they stay in use for too long.

        A connection must not be open across a fork: the child would rely on locks that it does not
        hold. A database in memory has no locks, and would be lost.
        """
        if self.path is None:
            return False
        if not self._reads.acquire(timeout=_FORK_SECONDS):
            return False
        if not self._writes.acquire(timeout=_FORK_SECONDS):
            self._reads.release()
            return False
        self._paused = self._reading is not None and not self._damaged
        self.close_reading()
        self.close_writing()
        return True

    def resume(self) -> None:
        """Reopen the connections that `pause` closed; after a failure the next `open` does."""
        if self._paused:
            with contextlib.suppress(sqlite3.Error, OSError):
                self._writing = self._connection()
                self._renew_reading()
        self._reads.release()
        self._writes.release()

    def next_put(self, count: int) -> int:
        """Return the first of *count* numbers in the order of puts, across processes."""
        rows = self.execute(
            "INSERT INTO counters VALUES ('put', ?) ON CONFLICT (name) "
            "DO UPDATE SET value = value + excluded.value RETURNING value",
            (count,),
        ).fetchall()
        return int(rows[0][0]) - count


def _set_aside(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.corrupt-{number}")).exists():
        number += 1
    path.rename(aside)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    return aside


def _make_private(path: Path) -> None:
    # Another user's file that this one may write keeps its mode.
    with contextlib.suppress(PermissionError):
        path.chmod(0o600)


_memories: dict[str, threading.Lock] = {}
"""Write locks of the named memory databases."""

_files: WeakSet[SqliteFile] = WeakSet()
_paused: list[SqliteFile] = []


def _before_fork() -> None:
    _paused[:] = [file for file in list(_files) if file.pause()]


def _after_fork() -> None:
    while _paused:
        _paused.pop().resume()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_paused.clear
    )
