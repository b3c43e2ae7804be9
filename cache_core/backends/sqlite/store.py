"""Keyed store without a server: one SQLite file that several processes share.

Reads run inline on the event loop (one SELECT takes about 20 us, a thread hop 180); writes run in
one worker thread, because a commit that triggers a checkpoint can take 30 ms.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from cache_core.backends.base import RowWrite, Write
from cache_core.backends.breaker import Breaker
from cache_core.backends.clock import Clock, WallClock
from cache_core.backends.deadline import Deadline
from cache_core.backends.sqlite.file import RefusedWriteError, SqliteFile
from cache_core.backends.sqlite.upkeep import Sweeper, note_time
from cache_core.model.exceptions import BackendError

log = logging.getLogger("glasscache")

Result = TypeVar("Result")

_LISTENING = 0.1
"""Seconds between checks of the file's version, which take 4 us."""

MEMORY_BYTES = 64 * 1_048_576
"""Maximal size of a store in memory."""

_SWEEPING = 0.5
"""Seconds of each second, at most, spent on removing expired and surplus values."""

_LISTED = 500
"""Names of hashes listed together."""

WRITE_SECONDS = 5.0
"""Time limit of a write: a commit takes milliseconds, but the check of a large file seconds."""


class EmbeddedStore:
    """Keyed store in `glasscache.db` under *directory*, or in the memory of this process.

    A file that is not a sound database is set aside as `glasscache.db.corrupt-N`, and an empty one
    is started.

    Args:
        directory: The file's directory; created with mode 0700. `None` for the memory.
        memory: Name of that memory, which stores of this process share; empty for a private one.
        clock: Time by which entries expire.
        max_entries: Values to keep; the oldest are evicted first.
        max_bytes: Size of the file above which the oldest values are evicted.
        breaker_failures, breaker_probe: See `Breaker`.

    Raises:
        OSError: From the constructor, if the directory cannot be used.
    """

    def __init__(
        self,
        directory: Path | None,
        *,
        memory: str = "",
        clock: Clock | None = None,
        max_entries: int = 1_000_000,
        max_bytes: int = 1_073_741_824,
        breaker_failures: int = 5,
        breaker_probe: float = 0.25,
    ) -> None:
        if directory is None:
            max_bytes = min(max_bytes, MEMORY_BYTES)
        else:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not os.access(directory, os.W_OK | os.X_OK):
                raise PermissionError(13, "not writable", str(directory))
        self.directory = directory
        self._clock = clock or WallClock()
        self._breaker = Breaker(
            "embedded",
            failures=breaker_failures,
            probe_seconds=breaker_probe,
            answered=(RefusedWriteError,),
        )
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="glasscache-sqlite")
        self._file = SqliteFile(None if directory is None else directory / "glasscache.db", memory)
        self._sweeper = Sweeper(self._file, max_entries, max_bytes)
        self._lead = 0
        self._latest = 0.0

    @property
    def path(self) -> Path | None:
        """The file; `None` for a store in memory."""
        return self._file.path

    @property
    def breaker(self) -> Breaker:
        """The breaker of this file."""
        return self._breaker

    def now(self) -> float:
        """Return the machine's time, never earlier than the latest time seen by this file.

        After the clock was set back it stands still until the next `tend` has set the lead.
        """
        self._latest = max(self._latest, self._clock.time() + self._lead)
        return self._latest

    async def open(self) -> None:
        """Open the file, setting a corrupt one aside."""
        with contextlib.suppress(BackendError):
            await self._in_writer(self._connect)

    def _connect(self) -> None:
        self._file.open()
        self._keep_time()

    def _keep_time(self) -> None:
        lead = note_time(self._file, self._clock.time(), self._latest)
        if lead > self._lead:
            log.warning(
                "embedded store: the clock is %.0f s behind what %s has seen: entries age "
                "by the later time",
                lead,
                self._file.path,
            )
        self._lead = lead

    async def close(self) -> None:
        """Close the file."""
        self._file.close_reading()
        if self._file.is_open:
            await asyncio.get_running_loop().run_in_executor(self._writer, self._file.close_writing)
        self._writer.shutdown(wait=False)

    def abandon(self) -> None:
        """Close the file from outside the event loop."""
        self._writer.shutdown(wait=True)
        self._file.close_reading()
        self._file.close_writing()

    async def tend(self) -> None:
        """Open the file if that failed before; remove expired and surplus values."""
        await self._in_writer(self._tend)
        ends = time.monotonic() + _SWEEPING
        # In batches, so that pending writes run in between.
        while await self._in_writer(self._sweep) and time.monotonic() < ends:
            pass

    def _tend(self) -> None:
        self._file.open()
        self._file.follow()
        self._keep_time()

    def _sweep(self) -> bool:
        return self._sweeper.sweep(self.now())

    async def read(self, keys: Sequence[str], *, beside: bool = False) -> Sequence[str | None]:
        """Return the values of *keys*, in one SELECT: there is no trip to share with *beside*."""
        with self._breaker:
            found = dict(
                self._file.select(
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
        with self._file.transaction():
            first = self._file.next_put(len(writes))
            self._file.writing.executemany(
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
        with self._file.transaction():
            rows = self._file.execute(
                "SELECT value, expires FROM entries WHERE key = ? "
                "AND (expires IS NULL OR expires > ?)",
                (write.key, now),
            ).fetchall()
            value, expires = rows[0] if rows else (write.value, now)
            own = _expires(now, write.ttl)
            later = None if expires is None or own is None else max(expires, own)
            self._file.execute(
                "INSERT INTO entries VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET "
                "value = excluded.value, expires = excluded.expires, put = excluded.put",
                (write.key, value, later, self._file.next_put(1)),
            )
        return str(value)

    async def delete(self, keys: Sequence[str]) -> int:
        """Remove values and hashes."""
        return await self._in_writer(lambda: self._delete(keys)) if keys else 0

    def _delete(self, keys: Sequence[str]) -> int:
        marks = [(key,) for key in keys]
        with self._file.transaction():
            values = self._file.writing.executemany("DELETE FROM entries WHERE key = ?", marks)
            # A hash counts once, however many rows it has.
            hashes = sum(
                self._file.execute("DELETE FROM rows WHERE key = ?", mark).rowcount > 0
                for mark in marks
            )
            return values.rowcount + hashes

    async def rows(
        self, key: str, newest: int | None = None, *, hurry: bool = False
    ) -> Mapping[str, str]:
        """Return the rows of a hash, newest last."""
        with self._breaker:
            found = self._file.select(
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
        with self._file.transaction():
            for write in writes:
                first = self._file.next_put(len(write.rows))
                # In SQLite max() of anything and NULL is NULL: what is kept is kept.
                expires = "max(expires, excluded.expires)" if write.longest else "excluded.expires"
                self._file.writing.executemany(
                    "INSERT INTO rows "  # noqa: S608 - constants
                    "VALUES (?, ?, ?, ?, ?) ON CONFLICT (key, name) DO UPDATE SET "
                    f"value = excluded.value, expires = {expires}, put = excluded.put",
                    [
                        (write.key, name, value, _expires(now, write.ttl), first + number)
                        for number, (name, value) in enumerate(write.rows.items())
                    ],
                )
                if write.newest is not None:
                    self._file.execute(
                        "DELETE FROM rows WHERE key = ? AND name IN (SELECT name FROM rows "
                        "WHERE key = ? ORDER BY put DESC LIMIT -1 OFFSET ?)",
                        (write.key, write.key, write.newest),
                    )

    async def delete_rows(self, key: str, names: Sequence[str]) -> int:
        """Remove rows of a hash."""
        return await self._in_writer(lambda: self._delete_rows(key, names)) if names else 0

    def _delete_rows(self, key: str, names: Sequence[str]) -> int:
        with self._file.transaction():
            return self._file.writing.executemany(
                "DELETE FROM rows WHERE key = ? AND name = ?", [(key, name) for name in names]
            ).rowcount

    async def claim_row(self, key: str, name: str, value: str) -> bool:
        """Add a row unless it is there, in one transaction."""
        return await self._in_writer(lambda: self._claim_row(key, name, value))

    def _claim_row(self, key: str, name: str, value: str) -> bool:
        with self._file.transaction():
            claimed = self._file.execute(
                "INSERT INTO rows VALUES (?, ?, ?, NULL, ?) ON CONFLICT (key, name) DO NOTHING",
                (key, name, value, self._file.next_put(1)),
            )
            return claimed.rowcount == 1

    async def take_lease(self, key: str, token: str, seconds: float) -> str:
        """Store the token unless a live one is there, in one transaction."""
        return await self._in_writer(lambda: self._take_lease(key, token, seconds))

    def _take_lease(self, key: str, token: str, seconds: float) -> str:
        now = self.now()
        with self._file.transaction():
            self._file.execute(
                "INSERT INTO entries VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET "
                "value = excluded.value, expires = excluded.expires, put = excluded.put "
                "WHERE entries.expires <= ?",
                (key, token, now + seconds, self._file.next_put(1), now),
            )
            found = self._file.execute("SELECT value FROM entries WHERE key = ?", (key,)).fetchall()
        return str(found[0][0])

    async def renew_lease(self, key: str, token: str, seconds: float) -> bool:
        """Set the lease's expiry if it is live and *token*'s."""
        return await self._in_writer(lambda: self._renew_lease(key, token, seconds))

    def _renew_lease(self, key: str, token: str, seconds: float) -> bool:
        now = self.now()
        renewed = self._file.execute(
            "UPDATE entries SET expires = ? WHERE key = ? AND value = ? AND expires > ?",
            (now + seconds, key, token, now),
        )
        return renewed.rowcount == 1

    async def release_lease(self, key: str, token: str) -> bool:
        """Delete the lease if it is live and *token*'s."""
        return await self._in_writer(lambda: self._release_lease(key, token))

    def _release_lease(self, key: str, token: str) -> bool:
        released = self._file.execute(
            "DELETE FROM entries WHERE key = ? AND value = ? AND expires > ?",
            (key, token, self.now()),
        )
        return released.rowcount == 1

    async def row_names(self, key: str) -> Sequence[str]:
        """Return the names of the rows of a hash."""
        with self._breaker:
            found = self._file.select(
                "SELECT name, '' FROM rows WHERE key = ? AND (expires IS NULL OR expires > ?)",
                (key, self.now()),
            )
        return [str(name) for name, _ in found]

    async def hashes(self, begin: str, end: str, cursor: str = "") -> tuple[Sequence[str], str]:
        """Return hashes in the order of their names, after the last one of the call before."""
        with self._breaker:
            found = self._file.select(
                "SELECT DISTINCT key, '' FROM rows WHERE key > ? AND substr(key, 1, ?) = ? "
                "AND substr(key, -?) = ? ORDER BY key LIMIT ?",
                (cursor or begin, len(begin), begin, len(end), end, _LISTED),
            )
        names = [str(name) for name, _ in found]
        return names, names[-1] if len(names) == _LISTED else ""

    async def some_rows(self, key: str, names: Sequence[str]) -> Sequence[str | None]:
        """Return rows of a hash, in one SELECT."""
        with self._breaker:
            found = dict(
                self._file.select(
                    "SELECT name, value FROM rows "  # noqa: S608 - only question marks
                    "WHERE key = ? AND (expires IS NULL OR expires > ?) "
                    f"AND name IN ({','.join('?' * len(names))})",
                    (key, self.now(), *names),
                )
            )
        return [found.get(name) for name in names]

    async def publish(self, channel: str) -> None:
        """Do nothing: listeners poll the file."""

    async def listen(self, channel: str) -> AsyncIterator[None]:
        """Poll the file's version several times a second."""
        seen = -1
        while True:
            with self._breaker:
                version = int(self._file.select("PRAGMA data_version", ())[0][0])
            if version != seen:
                seen = version
                yield
            await asyncio.sleep(_LISTENING)

    async def append(self, log: str, values: Sequence[str], *, keep: int) -> None:
        """Append to a log, dropping all but the last *keep* values."""
        await self._in_writer(lambda: self._append(log, values, keep))

    def _append(self, log: str, values: Sequence[str], keep: int) -> None:
        with self._file.transaction():
            self._file.writing.executemany(
                "INSERT INTO logs (log, value) VALUES (?, ?)", [(log, value) for value in values]
            )
            self._file.execute(
                "DELETE FROM logs WHERE log = ? AND position <= (SELECT position FROM logs "
                "WHERE log = ? ORDER BY position DESC LIMIT 1 OFFSET ?)",
                (log, log, keep),
            )

    async def after(self, log: str, position: str, count: int) -> list[tuple[str, str]]:
        """Read a log forward."""
        with self._breaker:
            found = self._file.select(
                "SELECT position, value FROM logs WHERE log = ? AND position > ? "
                "ORDER BY position LIMIT ?",
                (log, int(position or 0), count),
            )
        return [(str(number), value) for number, value in found]

    async def remove(self, log: str, positions: Sequence[str]) -> None:
        """Remove values of a log."""
        await self._in_writer(
            lambda: self._file.writing.executemany(
                "DELETE FROM logs WHERE log = ? AND position = ?",
                [(log, int(position)) for position in positions],
            )
        )

    async def last(self, log: str, count: int) -> list[tuple[str, str]]:
        """Read a log's end."""
        with self._breaker:
            found = self._file.select(
                "SELECT position, value FROM logs WHERE log = ? ORDER BY position DESC LIMIT ?",
                (log, count),
            )
        return [(str(number), value) for number, value in reversed(found)]

    async def _in_writer(self, work: Callable[[], Result]) -> Result:
        loop = asyncio.get_running_loop()
        with self._breaker:
            async with Deadline(WRITE_SECONDS):
                # A cancelled caller leaves the work running: a transaction is never torn.
                return await loop.run_in_executor(self._writer, lambda: self._file.as_writer(work))


def _expires(now: float, ttl: float | None) -> float | None:
    return None if ttl is None else now + ttl
