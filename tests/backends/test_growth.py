"""Remains of expired answers: none, in the file and on Redis; and the limit of size holds."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from cache_core import MultiLevelCache, Settings
from cache_core.backends.base import RowWrite, Write
from cache_core.backends.redis import store as redis
from cache_core.backends.sqlite import store as embedded
from cache_core.backends.sqlite import upkeep
from cache_core.backends.sqlite.store import EmbeddedStore
from cache_core.testing import ManualClock
from tests.support import servers
from tests.support.patience import PATIENT

CacheFactory = Callable[..., Any]
KEYED = {**PATIENT, "tiers": frozenset({"l1", "l3", "l4"}), "heartbeat": False, "decisions": 0}


def sizes(path: Path) -> Mapping[str, int]:
    """Return the rows of each table, and the bytes in use."""
    with sqlite3.connect(path) as database:
        one = {table: database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
               for table in ("entries", "rows", "logs")}  # fmt: skip
        pages = [database.execute(f"PRAGMA {name}").fetchone()[0]
                 for name in ("page_count", "freelist_count", "page_size")]  # fmt: skip
    database.close()
    return {**one, "bytes": (pages[0] - pages[1]) * pages[2]}


async def put_many(cache: MultiLevelCache, first: int, count: int) -> None:
    """Put answers of a short TTL, with documents, tags and users that many have in common."""
    for start in range(first, first + count, 25):
        await asyncio.gather(
            *(
                cache.put(
                    f"question {n} of the list", f"user{n % 40}", "short answer", "faq",
                    [{"id": f"d{n % 50}"}], ttl=1, tags=["all", f"t{n}"], shared=bool(n % 2),
                )
                for n in range(start, start + 25)
            )
        )  # fmt: skip


@pytest.mark.slow
async def test_the_file_stays_flat(tmp_path: Path) -> None:
    """The file holds only the last seconds of answers that expire continuously."""
    clock = ManualClock()
    settings = Settings(dir=tmp_path, **KEYED)
    async with MultiLevelCache(settings=settings, clock=clock, instruments=()) as cache:
        seen: list[int] = []
        for step in range(4):
            await put_many(cache, 250 * step, 250)
            clock.advance(120)
            await cache._parts.store.tend()
            left = sizes(tmp_path / "glasscache.db")
            seen.append(left["bytes"])
            assert left["entries"] <= 4, "the secret and the like"
            assert left["rows"] <= 4
        assert seen[-1] <= seen[0]


async def test_redis_stays_flat(empty_redis: str) -> None:
    """Nothing of an answer with a TTL of seconds lives for longer than a minute."""
    settings = Settings(redis_url=empty_redis, **KEYED)
    async with MultiLevelCache(settings=settings, instruments=()) as cache:
        await cache.put("warm up", "ann", "a", ttl=1)
        with servers.admin(empty_redis) as client:
            before = set(client.scan_iter())
            await put_many(cache, 0, 100)
            lives = {key: client.pttl(key) for key in client.scan_iter() if key not in before}
            assert lives
            assert max(lives.values()) < 60_000
            assert min(lives.values()) > 0
            # A longer life is never shortened, whatever is put beside it.
            await cache.put("question 1 of the list", "user1", "a", ttl=3_600, tags=["all"])
            await put_many(cache, 0, 25)
            [index] = [key for key in client.scan_iter()
                       if key.decode().endswith("i:tag") and client.hlen(key) > 20]  # fmt: skip
            assert client.pttl(index) > 7_000_000


async def test_a_popular_label_loses_what_it_listed(
    empty_redis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Redis a hash that is renewed all the time is cleared of rows that have expired."""
    monkeypatch.setattr(redis, "_ROWS_UNSEEN", 50)
    settings = Settings(redis_url=empty_redis, **KEYED)
    async with MultiLevelCache(settings=settings, instruments=()) as cache:
        store: Any = cache._parts.store
        now = store.now()
        for number in range(300):
            store.now = lambda number=number: now + 10.0 * number
            await store.put_rows([RowWrite("gc1:x:{a}:i:tag", {f"row {number}": "v"}, 100.0)])
        assert len(await store.row_names("gc1:x:{a}:i:tag")) <= 52
        alive = list(await store.rows("gc1:x:{a}:i:tag"))
        assert alive[-10:] == [f"row {number}" for number in range(290, 300)]
        assert len(alive) <= 11


async def test_redis_before_7(empty_redis: str) -> None:
    """A server that cannot compare expirations is worked with: nothing lives shorter than before."""
    settings = Settings(redis_url=empty_redis, **KEYED)
    async with MultiLevelCache(settings=settings, instruments=()) as cache:
        store: Any = cache._parts.store
        submit = store._writes.submit

        async def refuse(commands: Any) -> Any:
            await asyncio.sleep(0)
            if any(command[-1] in {"GT", "NX"} and command[0] == "PEXPIRE" for command in commands):
                raise redis.BackendError(  # type: ignore[attr-defined]
                    "backend_error", "ResponseError",
                    "wrong number of arguments for 'pexpire' command",
                )  # fmt: skip
            return await submit(commands)

        store._writes.submit = refuse
        rows = [RowWrite(f"gc1:x:{{a}}:i:{number}", {"row": "v"}, 100.0) for number in range(3)]
        # All are refused before the first of them knows why.
        await asyncio.gather(*(store.put_rows([row]) for row in rows))
        await cache.put("alpha", "ann", "a", ttl=1, tags=["t"])
        assert (await cache.lookup("alpha", "ann")).response == "a"
        assert (await cache.invalidate_tag("t")).removed == 1
        await cache.put("alpha", "ann", "b", tags=["t"])
        assert (await cache.lookup("alpha", "ann")).response == "b"


@pytest.mark.parametrize("store_kind", ["embedded", "redis"], indirect=True)
async def test_what_lives_longest_is_found(make_cache: CacheFactory) -> None:
    """A short-lived put with the same tag, user and message hides no long-lived one."""
    cache = await make_cache(settings=KEYED)
    await cache.put("alpha", "ann", "long", context="one", ttl=3_600, tags=["t"])
    await cache.put("alpha", "ann", "short", context="two", ttl=0.05, tags=["t"])
    await asyncio.sleep(0)
    while (await cache.lookup("alpha", "ann", context="two")).response:
        await asyncio.sleep(0.01)
    assert (await cache.lookup("alpha", "ann", context="one")).response == "long"
    assert (await cache.invalidate_tag("t")).removed >= 1
    await cache.put("alpha", "ann", "long", context="one", ttl=3_600)
    await cache.put("alpha", "ann", "short", context="two", ttl=0.05)
    assert (await cache.forget_user("ann")).counts["private entries"] >= 1
    assert (await cache.lookup("alpha", "ann", context="one")).response is None


@pytest.fixture
def store_kind(request: pytest.FixtureRequest) -> str:
    return str(getattr(request, "param", "embedded"))


@pytest.mark.slow
async def test_the_limit_holds_and_the_new_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over CACHE_MAX_BYTES the oldest answers go, with what lists them; the newest are served."""
    monkeypatch.setattr(upkeep, "_WRITTEN_TOGETHER", 50)
    limit = 400_000
    settings = Settings(dir=tmp_path, max_bytes=limit, **KEYED)
    async with MultiLevelCache(settings=settings, clock=ManualClock(), instruments=()) as cache:
        for step in range(4):
            for start in range(0, 300, 25):
                await asyncio.gather(
                    *(cache.put(f"question {step} {start + n}", f"u{n}", "a" * 200, tags=["t"])
                      for n in range(25))
                )  # fmt: skip
            await cache.put("the newest", "ann", "yes")
            while sizes(tmp_path / "glasscache.db")["bytes"] > limit:
                before = sizes(tmp_path / "glasscache.db")["bytes"]
                await cache._parts.store.tend()
                assert sizes(tmp_path / "glasscache.db")["bytes"] < before
            assert (await cache.lookup("the newest", "ann")).response == "yes"
        assert (await cache.lookup("question 0 0", "u0")).response is None
        assert (await cache.lookup("question 3 299", "u24")).response == "a" * 200
        assert (await cache.invalidate_tag("t")).removed > 0


@pytest.mark.slow
async def test_a_file_over_its_limit_is_shortened(tmp_path: Path) -> None:
    """Space removed from a file that outgrew CACHE_MAX_BYTES is given back to the disk."""
    limit, clock = 400_000, ManualClock()
    settings = Settings(dir=tmp_path, max_bytes=limit, **KEYED)
    async with MultiLevelCache(settings=settings, clock=clock, instruments=()) as cache:
        await put_many(cache, 0, 200)
        file = tmp_path / "glasscache.db"
        with sqlite3.connect(file) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        database.close()
        assert file.stat().st_size > limit
        clock.advance(10.0)
        for _ in range(40):
            await cache._parts.store.tend()
        with sqlite3.connect(file) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        database.close()
        assert file.stat().st_size <= limit
        await cache.put("the newest", "ann", "yes")
        assert (await cache.lookup("the newest", "ann")).response == "yes"


async def test_a_file_that_cannot_shrink_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Values that do not expire are not deleted: one log line says what to do."""
    store = EmbeddedStore(tmp_path, max_bytes=100_000)
    await store.open()
    await store.write([Write(f"k{n}", "x" * 1_000, None) for n in range(200)])
    for _ in range(3):
        await store.tend()
    assert sum("CACHE_MAX_BYTES" in line for line in caplog.messages) == 1
    assert (await store.read(["k0"]))[0] is not None
    await store.close()


async def test_rows_of_an_earlier_version_are_removed(tmp_path: Path) -> None:
    """Rows that outlive by far what they listed go when the file is over its limit."""
    store = EmbeddedStore(tmp_path, max_bytes=1_000_000)
    await store.open()
    rows = {f"row {n}": "x" * 100 for n in range(6_000)}
    await store.put_rows([RowWrite("old", rows, 61 * 86_400.0)])
    await store.put_rows([RowWrite("new", {f"r{n}": "x" for n in range(5_500)}, 60.0)])
    await store.write([Write("value", "v", 60.0)])
    for _ in range(20):
        await store.tend()
    assert (await store.read(["value"]))[0] == "v"
    assert len(await store.rows("old")) < 6_000
    assert sizes(tmp_path / "glasscache.db")["bytes"] <= 1_000_000
    assert len(await store.rows("new")) >= 4_000
    await store.close()


async def test_sweeping_lets_writes_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A put waits for one batch of what is removed, not for all of it."""
    monkeypatch.setattr(embedded, "_SWEEPING", 60.0)
    clock = ManualClock()
    store = EmbeddedStore(tmp_path, clock=clock)
    await store.open()
    await store.write([Write(f"k{n}", "x", 1.0) for n in range(5_000)])
    clock.advance(10)
    sweeping = asyncio.create_task(store.tend())
    await asyncio.sleep(0)
    await store.write([Write("new", "v", 60.0)])
    assert not sweeping.done()
    await sweeping
    assert sizes(tmp_path / "glasscache.db")["entries"] == 1
    await store.close()
