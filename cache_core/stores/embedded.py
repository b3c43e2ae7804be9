"""The keyed store without a server: one SQLite file that several processes share.

Reads run inline on the event loop (one SELECT takes about 20 us, a thread hop 180); writes run in
one worker thread, because a commit that triggers a checkpoint can take 30 ms.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from cache_core.breaker import Breaker
from cache_core.clock import BACK_SECONDS, Clock, WallClock
from cache_core.deadline import Deadline
from cache_core.exceptions import BackendError
from cache_core.stores.base import RowWrite, Write

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

_SWEEP_BATCH = 500
"""Rows removed at once: 500 take about 9 ms, and the file is locked for writers meanwhile."""

_LISTENING = 0.1
"""Seconds between looks at the file's version, which take 4 us."""

_BUSY_SECONDS = 0.4
WRITE_SECONDS = 5.0
"""For one write: a commit takes milliseconds, but checking a large file when opening it seconds."""

_COUNT_SECONDS = 30.0

_CLOCK = "clock"
"""Name of the counter that has the latest time seen, in whole seconds."""

_LEAD = "clock_lead"
"""Name of the counter that has the seconds by which the store is ahead of the machine's clock."""


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


class EmbeddedStore:
    """The keyed store in `glasscache.db` under *directory*.

    A file that is not a sound database is set aside as `glasscache.db.corrupt-N` and a new one is
    started. Expiry follows *clock*.

    Args:
        directory: Where the file lives; created with mode 0700.
        clock: Time by which entries expire.
        max_entries: Values to keep; the oldest go first.
        max_bytes: Size that the file may reach before the oldest values go.
        breaker_failures, breaker_probe: See `Breaker`.

    Raises:
        OSError: From the constructor, if the directory cannot be used.
    """

    def __init__(
        self,
        directory: Path,
        *,
        clock: Clock | None = None,
        max_entries: int = 1_000_000,
        max_bytes: int = 1_073_741_824,
        breaker_failures: int = 5,
        breaker_probe: float = 0.25,
    ) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError(13, "not writable", str(directory))
        self.path = directory / "glasscache.db"
        self._clock = clock or WallClock()
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._breaker = Breaker(
            "embedded",
            failures=breaker_failures,
            probe_seconds=breaker_probe,
            answered=(RefusedWriteError,),
        )
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="glasscache-sqlite")
        self._reading: sqlite3.Connection | None = None
        self._writing: sqlite3.Connection | None = None
        self._next_count = 0.0
        self._damaged = False
        self._inode = 0
        self._retired: sqlite3.Connection | None = None
        self._lead = 0

    @property
    def breaker(self) -> Breaker:
        """The breaker of this file."""
        return self._breaker

    def now(self) -> float:
        """Return the machine's time, never earlier than what this file has seen."""
        return self._clock.time() + self._lead

    async def open(self) -> None:
        """Open the file, setting a corrupt one aside."""
        with contextlib.suppress(BackendError):
            await self._in_writer(self._connect)

    def _connect(self) -> None:
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
        self._keep_time()

    def _keep_time(self) -> None:
        """Note the time in the file; stay ahead of the machine's clock by what it was set back.

        Else what expired would be served again, and what was stored since would live too long. The
        lead ends when the clock itself is past what the file has seen.
        """
        wall = self._clock.time()
        with self._transaction():
            noted = dict(
                self._execute(
                    "SELECT name, value FROM counters WHERE name IN (?, ?)", (_CLOCK, _LEAD)
                ).fetchall()
            )
            latest, lead = noted.get(_CLOCK, 0), noted.get(_LEAD, 0)
            if wall >= latest - BACK_SECONDS:
                lead = 0
            elif wall + lead < latest - BACK_SECONDS:
                lead = math.ceil(latest - wall)
            self._connected().executemany(
                "INSERT INTO counters VALUES (?, ?) "
                "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                [(_CLOCK, max(latest, int(wall + lead))), (_LEAD, lead)],
            )
        if lead > self._lead:
            log.warning(
                "embedded store: the clock is %.0f s behind what %s has seen: entries go on to age "
                "by the later time",
                lead,
                self.path,
            )
        self._lead = lead

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

    async def close(self) -> None:
        """Close the file."""
        for connection in (self._reading, self._retired):
            if connection is not None:
                connection.close()
        self._reading = self._retired = None
        if self._writing is not None:
            writing, self._writing = self._writing, None
            await asyncio.get_running_loop().run_in_executor(self._writer, writing.close)
        self._writer.shutdown(wait=False)

    def abandon(self) -> None:
        """Close the file from outside the event loop."""
        self._writer.shutdown(wait=True)
        for connection in (self._reading, self._writing, self._retired):
            if connection is not None:
                connection.close()
        self._reading = self._writing = self._retired = None

    async def tend(self) -> None:
        """Open if that failed before; remove what expired and what is too much."""
        await self._in_writer(self._tend)

    def _is_gone(self) -> bool:
        """Whether the open file is no longer the one that has its name."""
        try:
            return self._reading is not None and self.path.stat().st_ino != self._inode
        except FileNotFoundError:
            return True

    def _reopen(self) -> None:
        """Leave a file that was deleted or replaced: nobody else sees what is written to it."""
        log.warning("embedded store: %s was deleted while it was open; starting anew", self.path)
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._writing is not None:
            self._writing.close()
        self._writing = self._connection()
        # Another thread may be reading with it just now.
        self._retired, self._reading = self._reading, self._connection()
        self._inode = self.path.stat().st_ino

    def _tend(self) -> None:
        if self._retired is not None:
            retired, self._retired = self._retired, None
            retired.close()
        self._connect()
        if self._is_gone():
            self._reopen()
        self._keep_time()
        now = self.now()
        for table, keys in (("entries", "key"), ("rows", "key, name")):
            self._execute(
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
            self._execute(
                "DELETE FROM entries WHERE key IN "
                "(SELECT key FROM entries WHERE expires IS NOT NULL ORDER BY put LIMIT ?)",
                (surplus if surplus > 0 else _SWEEP_BATCH,),
            )

    def _count(self, statement: str) -> int:
        return int(self._execute(statement).fetchall()[0][0])

    def _bytes(self) -> int:
        pages = self._count("PRAGMA page_count") - self._count("PRAGMA freelist_count")
        return pages * self._count("PRAGMA page_size")

    async def read(self, keys: Sequence[str]) -> Sequence[str | None]:
        """Return the values of *keys*, in one SELECT."""
        with self._breaker:
            found = dict(
                self._select(
                    "SELECT key, value FROM entries "  # noqa: S608 - only question marks
                    "WHERE (expires IS NULL OR expires > ?) "
                    f"AND key IN ({','.join('?' * len(keys))})",
                    (self.now(), *keys),
                )
            )
        return [found.get(key) for key in keys]

    async def write(self, writes: Sequence[Write]) -> None:
        """Store *writes* in one transaction."""
        await self._in_writer(lambda: self._write(writes))

    def _write(self, writes: Sequence[Write]) -> None:
        now = self.now()
        with self._transaction():
            first = self._next_put(len(writes))
            self._connected().executemany(
                "INSERT INTO entries VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET "
                "value = excluded.value, expires = excluded.expires, put = excluded.put",
                [
                    (write.key, write.value, _expires(now, write.ttl), first + number)
                    for number, write in enumerate(writes)
                ],
            )

    async def write_new(self, write: Write) -> str:
        """Store unless a live value exists, and renew the TTL either way."""
        return await self._in_writer(lambda: self._write_new(write))

    def _write_new(self, write: Write) -> str:
        now = self.now()
        with self._transaction():
            rows = self._execute(
                "SELECT value FROM entries WHERE key = ? AND (expires IS NULL OR expires > ?)",
                (write.key, now),
            ).fetchall()
            value = str(rows[0][0]) if rows else write.value
            self._execute(
                "INSERT INTO entries VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET "
                "value = excluded.value, expires = excluded.expires, put = excluded.put",
                (write.key, value, _expires(now, write.ttl), self._next_put(1)),
            )
        return value

    async def delete(self, keys: Sequence[str]) -> int:
        """Remove values and hashes."""
        return await self._in_writer(lambda: self._delete(keys)) if keys else 0

    def _delete(self, keys: Sequence[str]) -> int:
        marks = [(key,) for key in keys]
        with self._transaction():
            values = self._connected().executemany("DELETE FROM entries WHERE key = ?", marks)
            # A hash counts once, however many rows it has.
            hashes = sum(
                self._execute("DELETE FROM rows WHERE key = ?", mark).rowcount > 0 for mark in marks
            )
            return values.rowcount + hashes

    async def rows(
        self, key: str, newest: int | None = None, *, hurry: bool = False
    ) -> Mapping[str, str]:
        """Return the rows of a hash, newest last."""
        with self._breaker:
            found = self._select(
                "SELECT name, value FROM rows WHERE key = ? AND (expires IS NULL OR expires > ?) "
                "ORDER BY put DESC LIMIT ?",
                (key, self.now(), -1 if newest is None else newest),
            )
        return dict(reversed(found))

    async def put_rows(self, writes: Sequence[RowWrite]) -> None:
        """Add rows, dropping the oldest over a write's *newest*."""
        await self._in_writer(lambda: self._put_rows(writes))

    def _put_rows(self, writes: Sequence[RowWrite]) -> None:
        now = self.now()
        with self._transaction():
            for write in writes:
                first = self._next_put(len(write.rows))
                self._connected().executemany(
                    "INSERT INTO rows VALUES (?, ?, ?, ?, ?) ON CONFLICT (key, name) DO UPDATE SET "
                    "value = excluded.value, expires = excluded.expires, put = excluded.put",
                    [
                        (write.key, name, value, _expires(now, write.ttl), first + number)
                        for number, (name, value) in enumerate(write.rows.items())
                    ],
                )
                if write.newest is not None:
                    self._execute(
                        "DELETE FROM rows WHERE key = ? AND name IN (SELECT name FROM rows "
                        "WHERE key = ? ORDER BY put DESC LIMIT -1 OFFSET ?)",
                        (write.key, write.key, write.newest),
                    )

    async def delete_rows(self, key: str, names: Sequence[str]) -> int:
        """Remove rows of a hash."""
        return await self._in_writer(lambda: self._delete_rows(key, names)) if names else 0

    def _delete_rows(self, key: str, names: Sequence[str]) -> int:
        with self._transaction():
            return (
                self._connected()
                .executemany(
                    "DELETE FROM rows WHERE key = ? AND name = ?", [(key, name) for name in names]
                )
                .rowcount
            )

    async def claim_row(self, key: str, name: str, value: str) -> bool:
        """Add a row unless it is there, in one transaction."""
        return await self._in_writer(lambda: self._claim_row(key, name, value))

    def _claim_row(self, key: str, name: str, value: str) -> bool:
        with self._transaction():
            claimed = self._execute(
                "INSERT INTO rows VALUES (?, ?, ?, NULL, ?) ON CONFLICT (key, name) DO NOTHING",
                (key, name, value, self._next_put(1)),
            )
            return claimed.rowcount == 1

    async def take_lease(self, key: str, token: str, seconds: float) -> str:
        """Store the token unless a live one is there, in one transaction."""
        return await self._in_writer(lambda: self._take_lease(key, token, seconds))

    def _take_lease(self, key: str, token: str, seconds: float) -> str:
        now = self.now()
        with self._transaction():
            self._execute(
                "INSERT INTO entries VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET "
                "value = excluded.value, expires = excluded.expires, put = excluded.put "
                "WHERE entries.expires <= ?",
                (key, token, now + seconds, self._next_put(1), now),
            )
            found = self._execute("SELECT value FROM entries WHERE key = ?", (key,)).fetchall()
        return str(found[0][0])

    async def renew_lease(self, key: str, token: str, seconds: float) -> bool:
        """Set its expiry where it is live and the token's."""
        return await self._in_writer(lambda: self._renew_lease(key, token, seconds))

    def _renew_lease(self, key: str, token: str, seconds: float) -> bool:
        now = self.now()
        renewed = self._execute(
            "UPDATE entries SET expires = ? WHERE key = ? AND value = ? AND expires > ?",
            (now + seconds, key, token, now),
        )
        return renewed.rowcount == 1

    async def release_lease(self, key: str, token: str) -> bool:
        """Delete it where it is live and the token's."""
        return await self._in_writer(lambda: self._release_lease(key, token))

    def _release_lease(self, key: str, token: str) -> bool:
        released = self._execute(
            "DELETE FROM entries WHERE key = ? AND value = ? AND expires > ?",
            (key, token, self.now()),
        )
        return released.rowcount == 1

    async def row_names(self, key: str) -> Sequence[str]:
        """Return the names of the rows of a hash."""
        with self._breaker:
            found = self._select(
                "SELECT name, '' FROM rows WHERE key = ? AND (expires IS NULL OR expires > ?)",
                (key, self.now()),
            )
        return [str(name) for name, _ in found]

    async def some_rows(self, key: str, names: Sequence[str]) -> Sequence[str | None]:
        """Return rows of a hash, in one SELECT."""
        with self._breaker:
            found = dict(
                self._select(
                    "SELECT name, value FROM rows "  # noqa: S608 - only question marks
                    "WHERE key = ? AND (expires IS NULL OR expires > ?) "
                    f"AND name IN ({','.join('?' * len(names))})",
                    (key, self.now(), *names),
                )
            )
        return [found.get(name) for name in names]

    async def publish(self, channel: str) -> None:
        """Do nothing: whoever listens looks at the file."""

    async def listen(self, channel: str) -> AsyncIterator[None]:
        """Look several times a second whether anybody wrote to the file."""
        seen = -1
        while True:
            with self._breaker:
                version = int(self._select("PRAGMA data_version", ())[0][0])
            if version != seen:
                seen = version
                yield
            await asyncio.sleep(_LISTENING)

    async def append(self, log: str, values: Sequence[str], *, keep: int) -> None:
        """Append to a log, dropping what is older than the last *keep*."""
        await self._in_writer(lambda: self._append(log, values, keep))

    def _append(self, log: str, values: Sequence[str], keep: int) -> None:
        with self._transaction():
            self._connected().executemany(
                "INSERT INTO logs (log, value) VALUES (?, ?)", [(log, value) for value in values]
            )
            self._execute(
                "DELETE FROM logs WHERE log = ? AND position <= (SELECT position FROM logs "
                "WHERE log = ? ORDER BY position DESC LIMIT 1 OFFSET ?)",
                (log, log, keep),
            )

    async def after(self, log: str, position: str, count: int) -> list[tuple[str, str]]:
        """Read a log forward."""
        with self._breaker:
            found = self._select(
                "SELECT position, value FROM logs WHERE log = ? AND position > ? "
                "ORDER BY position LIMIT ?",
                (log, int(position or 0), count),
            )
        return [(str(number), value) for number, value in found]

    async def remove(self, log: str, positions: Sequence[str]) -> None:
        """Remove values of a log."""
        await self._in_writer(
            lambda: self._connected().executemany(
                "DELETE FROM logs WHERE log = ? AND position = ?",
                [(log, int(position)) for position in positions],
            )
        )

    async def last(self, log: str, count: int) -> list[tuple[str, str]]:
        """Read a log's end."""
        with self._breaker:
            found = self._select(
                "SELECT position, value FROM logs WHERE log = ? ORDER BY position DESC LIMIT ?",
                (log, count),
            )
        return [(str(number), value) for number, value in reversed(found)]

    async def _in_writer(self, work: Callable[[], Result]) -> Result:
        loop = asyncio.get_running_loop()
        with self._breaker:
            async with Deadline(WRITE_SECONDS):
                # Who is cancelled leaves the work to end by itself: a transaction is never torn.
                return await loop.run_in_executor(self._writer, lambda: _telling(work))

    def _connected(self) -> sqlite3.Connection:
        if self._writing is None:
            raise sqlite3.OperationalError("the embedded store is not open")
        return self._writing

    def _execute(self, statement: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        with self._noticing_damage():
            return self._connected().execute(statement, values)

    def _select(self, statement: str, values: Sequence[object]) -> list[tuple[str, str]]:
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
    def _transaction(self) -> Iterator[None]:
        # IMMEDIATE, because a deferred one that read first fails at once when another process
        # committed meanwhile, whatever the busy timeout.
        self._execute("BEGIN IMMEDIATE")
        try:
            yield
            self._execute("COMMIT")
        except BaseException:
            # A full disk ends it by itself, or at the commit.
            if self._connected().in_transaction:
                self._execute("ROLLBACK")
            raise

    def _next_put(self, count: int) -> int:
        """Return the first of *count* numbers in the order of puts, across processes."""
        rows = self._execute(
            "INSERT INTO counters VALUES ('put', ?) ON CONFLICT (name) "
            "DO UPDATE SET value = value + excluded.value RETURNING value",
            (count,),
        ).fetchall()
        return int(rows[0][0]) - count


def _telling(work: Callable[[], Result]) -> Result:
    """Do *work*; tell a file that takes no writes just now from one that cannot be used."""
    try:
        return work()
    except sqlite3.OperationalError as error:
        refusal = _REFUSALS.get(error.sqlite_errorcode & 0xFF)
        if refusal is None:
            raise
        raise refusal(str(error)) from error


def _expires(now: float, ttl: float | None) -> float | None:
    return None if ttl is None else now + ttl
