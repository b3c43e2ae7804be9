"""The contract of `KeyValueStore`, over the embedded store, Redis, and an application's Redis pool."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as redis
from redis.exceptions import WatchError

from cache_core.backends.base import KeyValueStore, RowWrite, Write
from cache_core.backends.redis.client import connect
from cache_core.backends.redis.store import RedisStore
from cache_core.backends.sqlite.store import EmbeddedStore
from cache_core.testing import ChaosStore, Faults, ManualClock
from cache_core.testing.contracts import StoreContract
from cache_core.testing.contracts.store import Pass
from tests.support import servers
from tests.support.redis_time import pass_time

FILES = {"embedded", "chaos"}
"""The kinds that keep a file; a calm `ChaosStore` must be as good as what it is around."""


@pytest.fixture(params=["embedded", "redis", "redis-decoded", "chaos"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(kind: str, request: pytest.FixtureRequest) -> str:
    if kind in FILES:
        return ""
    return servers.any_key(request.getfixturevalue("empty_redis"))


@pytest.fixture
async def store(
    kind: str, url: str, tmp_path: Path, clock: ManualClock
) -> AsyncIterator[KeyValueStore]:
    made: KeyValueStore
    pool: Any = None
    if kind in FILES:
        made = EmbeddedStore(tmp_path, clock=clock)
        if kind == "chaos":
            made = ChaosStore(made, Faults(), read_timeout=5, write_timeout=5)
    elif kind == "redis":
        made = RedisStore(connect(url, timeout=5), read_timeout=5, write_timeout=5)
    else:
        pool = redis.ConnectionPool.from_url(url, decode_responses=True)
        client = redis.Redis(connection_pool=pool)
        made = RedisStore(client, read_timeout=5, write_timeout=5, owned=False)
    await made.open()
    yield made
    await made.close()
    if pool is not None:
        await pool.aclose()


@pytest.fixture
def foreign(kind: str, url: str, tmp_path: Path) -> Iterator[Callable[[str, bytes], None]]:
    """Writes raw bytes under a key as some other program would."""
    if kind in FILES:

        def scribble(key: str, value: bytes) -> None:
            with contextlib.closing(sqlite3.connect(tmp_path / "glasscache.db")) as file:
                file.execute("INSERT OR REPLACE INTO entries VALUES (?, ?, NULL, 0)", (key, value))
                file.commit()

        yield scribble
        return
    with servers.admin(url) as client:
        yield client.set  # type: ignore[misc]


class TestStores(StoreContract):
    """The contract, over every store and a calm double."""

    @pytest.fixture
    def passes(self, kind: str, store: KeyValueStore, url: str, clock: ManualClock) -> Pass:
        """Let time pass immediately."""

        async def wait(seconds: float) -> None:
            if kind in FILES:
                clock.advance(seconds)
            else:
                pass_time(store, url, seconds)

        return wait


@pytest.mark.parametrize("junk", [b"\xff\xfe\x00", b"", b"not json", b"\xed\xa0\x80", b"[" * 9_999])
async def test_foreign_bytes_do_not_hurt_the_neighbours(
    store: KeyValueStore, foreign: Callable[[str, bytes], None], junk: bytes
) -> None:
    """A foreign value under a key neither raises nor spoils the rest of the read."""
    await store.write([Write("a", "1", None)])
    foreign("junk", junk)
    values = await store.read(["a", "junk", "a"])
    assert [values[0], values[2]] == ["1", "1"]
    assert values[1] is not None
    assert store.breaker.state == "closed"


async def test_foreign_rows_do_not_hurt(store: KeyValueStore, kind: str, url: str) -> None:
    """A row of bytes that are no text leaves the other rows readable."""
    if kind in FILES:
        pytest.skip("the embedded file's rows are typed as text")
    await store.put_rows([RowWrite("h", {"a": "1"}, 60.0)])
    with servers.admin(url) as client:
        client.hset("h", b"\xff", b"\xfe\xff")
        client.xadd("log", {b"v": b"\xff"})
        client.xadd("log", {b"other": b"field"})
    assert (await store.rows("h"))["a"] == "1"
    assert len(await store.last("log", 9)) == 2
    assert store.breaker.state == "closed"


async def test_a_foreign_token_is_replaced_or_reported(
    store: KeyValueStore, foreign: Callable[[str, bytes], None]
) -> None:
    """write_new over undecodable bytes answers with text, and no backend counts as broken."""
    foreign("junk", b"\xff\xfe")
    for _ in range(6):
        assert isinstance(await store.write_new(Write("junk", "mine", 60.0)), str)
    assert store.breaker.state == "closed"


# ------------------------------------------------------------------------------------ leases


async def test_a_release_that_is_late_ends_no_other_lease(
    url: str, kind: str, tmp_path: Path
) -> None:
    """A request sent by the old holder before the server stalled does not end the new lease."""
    if kind != "redis":
        pytest.skip("the embedded store has no server that could stand still")
    store = RedisStore(connect(url, timeout=5), read_timeout=5, write_timeout=5)
    await store.open()
    await store.take_lease("lease", "one", 60.0)
    async with store.client.pipeline(transaction=True) as pipe:
        # As `release_lease` does it, with all the time in the world between its steps.
        await pipe.watch("lease")
        assert await pipe.get("lease") == b"one"
        await store.client.unlink("lease")
        assert await store.take_lease("lease", "two", 60.0) == "two"
        pipe.multi()
        pipe.execute_command("UNLINK", "lease")
        with pytest.raises(WatchError):
            await pipe.execute()
    assert list(await store.read(["lease"])) == ["two"]
    await store.close()


# --------------------------------------------------------------------------------------- life


async def test_the_store_tells_the_time(kind: str, url: str, tmp_path: Path) -> None:
    """`now` is within a second of real time."""
    store: Any = EmbeddedStore(tmp_path)
    if kind not in FILES:
        store = RedisStore(connect(url, timeout=5), write_timeout=5)
    await store.open()
    assert abs(store.now() - time.time()) < 1
    await store.close()
