"""Behaviour of the embedded store alone: its file is shared, damaged, replaced, and survives."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cache_core.backends.base import RowWrite, Write
from cache_core.backends.sqlite.file import SqliteFile
from cache_core.backends.sqlite.store import EmbeddedStore
from cache_core.model.exceptions import BackendError
from cache_core.testing import ManualClock


async def test_a_reopened_file_has_everything(tmp_path: Path) -> None:
    """Values, hashes and logs survive a restart."""
    first = EmbeddedStore(tmp_path)
    await first.open()
    await first.write([Write("a", "1", 60.0)])
    await first.put_rows([RowWrite("h", {"x": "y"}, None)])
    await first.append("log", ["entry"], keep=9)
    await first.close()
    second = EmbeddedStore(tmp_path)
    await second.open()
    assert list(await second.read(["a"])) == ["1"]
    assert await second.rows("h") == {"x": "y"}
    assert [value for _, value in await second.last("log", 9)] == ["entry"]
    await second.close()


_OTHER_PROCESS = """
import asyncio, sys
from pathlib import Path
from cache_core.backends.base import Write
from cache_core.backends.sqlite.store import EmbeddedStore

async def main():
    store = EmbeddedStore(Path(sys.argv[1]))
    await store.open()
    print((await store.read(["from parent"]))[0], flush=True)
    for number in range(200):
        await store.write([Write(f"child{number}", str(number), 60.0)])
    await store.close()

asyncio.run(main())
"""


@pytest.mark.slow
async def test_two_processes_share_one_file(tmp_path: Path) -> None:
    """Each process reads what the other wrote, and no write is lost while both write."""
    store = EmbeddedStore(tmp_path)
    await store.open()
    await store.write([Write("from parent", "hello", 60.0)])
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _OTHER_PROCESS, str(tmp_path), stdout=subprocess.PIPE
    )
    number = 0
    while child.returncode is None and number < 2_000:
        await store.write([Write(f"parent{number}", str(number), 60.0)])
        number += 1
        await asyncio.sleep(0.001)
    out, _ = await child.communicate()
    assert (out, child.returncode) == (b"hello\n", 0)
    assert None not in await store.read([f"child{n}" for n in range(200)])
    assert None not in await store.read([f"parent{n}" for n in range(number)])
    await store.close()


@pytest.mark.parametrize("damage", ["garbage", "torn"])
async def test_a_corrupt_file_is_set_aside(tmp_path: Path, damage: str) -> None:
    """A file that is no sound database is renamed, and an empty one takes its place."""
    path = tmp_path / "glasscache.db"
    if damage == "garbage":
        path.write_bytes(b"this is not a database " * 1_000)
    else:
        first = EmbeddedStore(tmp_path)
        await first.open()
        await first.write([Write(f"k{n}", "x" * 500, None) for n in range(500)])
        await first.close()
        data = bytearray(path.read_bytes())
        data[4096 : len(data) // 2] = b"\xaa" * (len(data) // 2 - 4096)
        path.write_bytes(data)
    store = EmbeddedStore(tmp_path)
    await store.open()
    assert (tmp_path / "glasscache.db.corrupt-1").exists()
    await store.write([Write("a", "1", None)])
    assert list(await store.read(["a"])) == ["1"]
    await store.close()


_REPAIRED_WHILE_READ = """
import asyncio, sqlite3, sys
from pathlib import Path
from cache_core.model.exceptions import BackendError
from cache_core.backends.base import Write
from cache_core.backends.sqlite.store import EmbeddedStore

async def main():
    store = EmbeddedStore(Path(sys.argv[1]), breaker_failures=10**9)
    await store.open()
    values = [Write(f"k{n}", "x" * 500, 60.0) for n in range(200)]
    keys = [write.key for write in values]
    reading = True

    async def read():
        while reading:
            try:
                await store.read(keys)
            except BackendError:
                pass
            await asyncio.sleep(0)

    reader = asyncio.create_task(read())
    for number in range(int(sys.argv[2])):
        await store.write(values)
        store._file._damaged = True
        await store.tend()
    reading = False
    await reader
    await store.write(values)
    assert None not in await store.read(keys)
    await store.close()
    print(len(list(Path(sys.argv[1]).glob("*.corrupt-*"))))

asyncio.run(main())
"""


@pytest.mark.slow
def test_a_file_is_repaired_while_it_is_read(tmp_path: Path) -> None:
    """Thirty repairs while another thread reads: the process lives, and the last file is used."""
    done = subprocess.run(
        [sys.executable, "-c", _REPAIRED_WHILE_READ, str(tmp_path), "30"],
        capture_output=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, b"30\n")


async def test_a_clock_that_is_set_back(tmp_path: Path, clock: ManualClock) -> None:
    """An expired answer is never served again; one that is put afterwards lives its full time."""
    store = EmbeddedStore(tmp_path, clock=clock)
    await store.open()
    await store.write([Write("a", "1", 600.0)])
    clock.advance(601)
    assert list(await store.read(["a"])) == [None]
    clock.advance(-601)
    assert list(await store.read(["a"])) == [None]
    await store.write([Write("b", "2", 600.0)])
    await store.tend()
    assert list(await store.read(["a", "b"])) == [None, "2"]
    clock.advance(590)
    assert list(await store.read(["a", "b"])) == [None, "2"]
    clock.advance(12)
    assert list(await store.read(["a", "b"])) == [None, None]
    await store.close()


async def test_a_locked_file_is_an_error_soon(tmp_path: Path) -> None:
    """While another process holds the write lock a write fails soon, and reads go on."""
    store = EmbeddedStore(tmp_path)
    await store.open()
    await store.write([Write("a", "1", None)])
    with contextlib.closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        started = time.monotonic()
        with pytest.raises(BackendError):
            await store.write([Write("a", "2", None)])
        assert time.monotonic() - started < 5
        assert list(await store.read(["a"])) == ["1"]
        other.execute("ROLLBACK")
    await store.write([Write("a", "3", None)])
    assert list(await store.read(["a"])) == ["3"]
    await store.close()


async def test_the_oldest_values_go_first(tmp_path: Path, clock: ManualClock) -> None:
    """Over `max_entries` the values that were put first are dropped; those kept for ever stay."""
    store = EmbeddedStore(tmp_path, clock=clock, max_entries=100)
    await store.open()
    await store.write([Write("secret", "s", None)])
    await store.write([Write(f"k{n:03}", "x", 60.0) for n in range(250)])
    await store.tend()
    values = await store.read(["secret", *(f"k{n:03}" for n in range(250))])
    assert values[0] == "s"
    assert sum(value is not None for value in values) == 100
    assert None not in values[-99:]
    await store.close()


async def test_expired_values_are_swept(tmp_path: Path, clock: ManualClock) -> None:
    """Expired entries are removed from the file itself by `tend`."""
    store = EmbeddedStore(tmp_path, clock=clock)
    await store.open()
    await store.write([Write("a", "1", 1.0), Write("b", "2", 100.0)])
    clock.advance(2)
    await store.tend()
    with contextlib.closing(sqlite3.connect(store.path)) as file:
        assert file.execute("SELECT key FROM entries").fetchall() == [("b",)]
    await store.close()


async def test_the_file_is_private(tmp_path: Path) -> None:
    """Directory and file are readable by their owner only."""
    store = EmbeddedStore(tmp_path / "deep" / "cache")
    await store.open()
    assert store.path.parent.stat().st_mode & 0o777 == 0o700
    assert store.path.stat().st_mode & 0o777 == 0o600
    await store.close()


async def test_closed_means_backend_error(tmp_path: Path) -> None:
    """Every use of a closed file raises BackendError and nothing else."""
    store = EmbeddedStore(tmp_path)
    await store.open()
    await store.close()
    for use in (store.read(["a"]), store.write([Write("a", "1", None)]), store.rows("h")):
        with pytest.raises(BackendError):
            await use


def test_a_write_to_a_file_that_was_closed_says_so(tmp_path: Path) -> None:
    """A put may be waiting for its turn when the file is closed."""
    file = SqliteFile(tmp_path / "file.db")
    file.open()
    file.close_writing()
    with pytest.raises(sqlite3.OperationalError, match="not open"):
        file.as_writer(lambda: file.execute("SELECT 1"))
    file.close_reading()


async def test_the_file_is_deleted_while_it_is_open(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The next tend makes a new one: what no other process can see is not written for ever."""
    caplog.set_level(logging.WARNING, "glasscache")
    store = EmbeddedStore(tmp_path / "cache")
    await store.open()
    try:
        await store.write([Write("key", "value", 60)])
        for name in ("glasscache.db", "glasscache.db-wal", "glasscache.db-shm"):
            (tmp_path / "cache" / name).unlink(missing_ok=True)
        await store.tend()
        await store.tend()
        assert await store.read(["key"]) == [None]
        await store.write([Write("key", "second", 60)])
        other = EmbeddedStore(tmp_path / "cache")
        await other.open()
        assert await other.read(["key"]) == ["second"]
        await other.close()
        assert caplog.text.count("was deleted while it was open") == 1
        assert store.breaker.state == "closed"
    finally:
        await store.close()
