"""The contract of `KeyValueStore`, over the embedded store, Redis, and an application's Redis pool."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as redis
from redis.exceptions import WatchError

from cache_core.stores.base import KeyValueStore, RowWrite, Write
from cache_core.stores.embedded import EmbeddedStore
from cache_core.stores.redis import RedisStore
from cache_core.stores.redis_client import connect
from cache_core.testing import ChaosStore, Faults, ManualClock
from tests import servers

Pass = Callable[[float], Awaitable[None]]

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
def passes(kind: str, clock: ManualClock) -> Pass:
    """Let time pass: at once for the embedded store, really for Redis."""

    async def wait(seconds: float) -> None:
        if kind in FILES:
            clock.advance(seconds)
        else:
            await asyncio.sleep(seconds)

    return wait


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


# ------------------------------------------------------------------------------------ values


async def test_values_come_back_in_the_order_asked(store: KeyValueStore) -> None:
    """A read returns one value per key in order, and None for what is not there."""
    await store.write([Write("a", "1", None), Write("b", "2", 60.0)])
    assert list(await store.read(["b", "nothing", "a"])) == ["2", None, "1"]


async def test_a_key_may_be_asked_for_twice(store: KeyValueStore) -> None:
    """A key that occurs twice in one read gets its value in both places."""
    await store.write([Write("a", "1", None)])
    assert list(await store.read(["a", "a"])) == ["1", "1"]


async def test_nothing_asked_is_nothing_done(store: KeyValueStore) -> None:
    """Empty requests are answered with nothing instead of an error."""
    assert list(await store.read([])) == []
    await store.write([])
    await store.put_rows([])
    await store.put_rows([RowWrite("h", {}, 60.0)])
    await store.append("log", [], keep=10)
    await store.remove("log", [])
    assert await store.delete([]) == 0
    assert await store.delete_rows("h", []) == 0


async def test_a_write_replaces(store: KeyValueStore) -> None:
    """The last of several writes to one key wins, within one call too."""
    await store.write([Write("a", "old", None)])
    await store.write([Write("a", "middle", None), Write("a", "new", None)])
    assert list(await store.read(["a"])) == ["new"]


async def test_a_value_ends_with_its_ttl(store: KeyValueStore, passes: Pass) -> None:
    """A value is there before its TTL has passed and gone after it."""
    await store.write([Write("a", "1", 0.3), Write("b", "2", 60.0)])
    assert list(await store.read(["a"])) == ["1"]
    await passes(0.4)
    assert list(await store.read(["a", "b"])) == [None, "2"]


async def test_write_new_keeps_the_first(store: KeyValueStore) -> None:
    """The first write_new wins, and every later one is told the value in force."""
    assert await store.write_new(Write("a", "first", 60.0)) == "first"
    assert await store.write_new(Write("a", "second", 60.0)) == "first"
    assert list(await store.read(["a"])) == ["first"]


async def test_write_new_renews_the_ttl(store: KeyValueStore, passes: Pass) -> None:
    """Each write_new gives the value in force a whole TTL again."""
    await store.write_new(Write("a", "first", 0.6))
    await passes(0.4)
    await store.write_new(Write("a", "second", 0.6))
    await passes(0.4)
    assert list(await store.read(["a"])) == ["first"]


async def test_write_new_after_the_end(store: KeyValueStore, passes: Pass) -> None:
    """A value whose TTL has passed does not stand in the way of a new one."""
    await store.write_new(Write("a", "first", 0.1))
    await passes(0.2)
    assert await store.write_new(Write("a", "second", 0.1)) == "second"


async def test_concurrent_write_new_agree(store: KeyValueStore) -> None:
    """Of many writers at once exactly one wins, and all are told the same value."""
    told = await asyncio.gather(
        *(store.write_new(Write("a", str(number), 60.0)) for number in range(20))
    )
    assert len(set(told)) == 1
    assert list(await store.read(["a"])) == [told[0]]


async def test_delete_counts_what_was_there(store: KeyValueStore) -> None:
    """Values and hashes are deleted alike, and each one that existed counts once."""
    await store.write([Write("a", "1", None)])
    await store.put_rows([RowWrite("h", {"x": "1", "y": "2"}, None)])
    assert await store.delete(["a", "h", "nothing"]) == 2
    assert list(await store.read(["a"])) == [None]
    assert await store.rows("h") == {}
    assert await store.delete(["a", "h"]) == 0


@pytest.mark.parametrize("junk", [b"\xff\xfe\x00", b"", b"not json", b"\xed\xa0\x80", b"[" * 9_999])
async def test_foreign_bytes_do_not_hurt_the_neighbours(
    store: KeyValueStore, foreign: Callable[[str, bytes], None], junk: bytes
) -> None:
    """What another program wrote under a key neither raises nor spoils the rest of the read."""
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


async def test_a_foreign_token_is_replaced_or_told(
    store: KeyValueStore, foreign: Callable[[str, bytes], None]
) -> None:
    """write_new over undecodable bytes answers with text, and no backend counts as broken."""
    foreign("junk", b"\xff\xfe")
    for _ in range(6):
        assert isinstance(await store.write_new(Write("junk", "mine", 60.0)), str)
    assert store.breaker.state == "closed"


# ------------------------------------------------------------------------------------ hashes


async def test_rows_are_added_and_replaced(store: KeyValueStore) -> None:
    """put_rows adds to a hash and replaces rows of the same name."""
    await store.put_rows([RowWrite("h", {"a": "1", "b": "2"}, 60.0)])
    await store.put_rows([RowWrite("h", {"b": "3", "c": "with space"}, 60.0)])
    assert await store.rows("h") == {"a": "1", "b": "3", "c": "with space"}


async def test_many_hashes_in_one_call(store: KeyValueStore) -> None:
    """One put_rows may write several hashes, and one hash several times."""
    await store.put_rows(
        [RowWrite("g", {"a": "1"}, None), RowWrite("h", {"a": "2"}, 60.0),
         RowWrite("g", {"b": "3"}, None)]
    )  # fmt: skip
    assert await store.rows("g") == {"a": "1", "b": "3"}
    assert await store.rows("h") == {"a": "2"}


async def test_rows_are_told_apart_by_hash(store: KeyValueStore) -> None:
    """A hash that does not exist is empty."""
    assert await store.rows("nothing") == {}


async def test_the_newest_rows(store: KeyValueStore) -> None:
    """With a limit the newest rows are returned, newest last; a row put again is new again."""
    for name in "abcd":
        await store.put_rows([RowWrite("h", {name: name.upper()}, 60.0)])
    await store.put_rows([RowWrite("h", {"a": "again"}, 60.0)])
    assert list((await store.rows("h", 2)).items()) == [("d", "D"), ("a", "again")]


async def test_a_hash_is_bounded(store: KeyValueStore) -> None:
    """With `newest` old rows are dropped, so that a hash does not grow for ever."""
    for number in range(40):
        await store.put_rows([RowWrite("h", {f"row{number:02}": "x"}, 60.0, newest=8)])
    found = list(await store.rows("h"))
    assert len(found) <= 10
    assert found[-8:] == [f"row{number:02}" for number in range(32, 40)]


async def test_a_hash_ends_with_its_ttl(store: KeyValueStore, passes: Pass) -> None:
    """A hash is gone when its TTL has passed since the last put; one without a TTL stays."""
    await store.put_rows([RowWrite("h", {"a": "1"}, 0.6), RowWrite("kept", {"a": "1"}, None)])
    await passes(0.4)
    await store.put_rows([RowWrite("h", {"a": "2"}, 0.6)])
    await passes(0.4)
    assert await store.rows("h") == {"a": "2"}
    await passes(0.4)
    assert await store.rows("h") == {}
    assert await store.rows("kept") == {"a": "1"}


async def test_delete_rows_counts(store: KeyValueStore) -> None:
    """delete_rows says how many of the named rows there were."""
    await store.put_rows([RowWrite("h", {"a": "1", "b": "2"}, 60.0)])
    assert await store.delete_rows("h", ["a", "nothing"]) == 1
    assert await store.rows("h") == {"b": "2"}


async def test_a_hash_and_a_value_do_not_mix(store: KeyValueStore) -> None:
    """Reading a hash's key as a value gives None, and the store stays sound."""
    await store.put_rows([RowWrite("h", {"a": "1"}, 60.0)])
    assert list(await store.read(["h"])) == [None]
    assert store.breaker.state == "closed"


# ------------------------------------------------------------------------------------ leases


async def test_a_lease_is_one_holders(store: KeyValueStore, passes: Pass) -> None:
    """The first who takes a lease has it, and everybody else is told so, until it ends."""
    assert await store.take_lease("lease", "one", 0.5) == "one"
    assert await store.take_lease("lease", "two", 60.0) == "one"
    assert list(await store.read(["lease"])) == ["one"]
    assert not await store.renew_lease("lease", "two", 60.0)
    assert not await store.release_lease("lease", "two")
    await passes(0.3)
    assert await store.renew_lease("lease", "one", 0.5)
    await passes(0.3)
    assert await store.take_lease("lease", "two", 60.0) == "one"
    await passes(0.3)
    assert list(await store.read(["lease"])) == [None]
    assert await store.take_lease("lease", "two", 60.0) == "two"


async def test_an_ended_lease_is_not_its_holders(store: KeyValueStore, passes: Pass) -> None:
    """Who lost a lease can neither renew it nor end it, whether or not somebody took it."""
    assert await store.take_lease("lease", "one", 0.1) == "one"
    await passes(0.2)
    assert not await store.renew_lease("lease", "one", 60.0)
    assert not await store.release_lease("lease", "one")
    assert await store.take_lease("lease", "two", 60.0) == "two"
    assert not await store.renew_lease("lease", "one", 60.0)
    assert not await store.release_lease("lease", "one")
    assert list(await store.read(["lease"])) == ["two"]
    assert await store.release_lease("lease", "two")
    assert not await store.release_lease("lease", "two")
    assert await store.take_lease("lease", "three", 60.0) == "three"


async def test_many_take_one_lease(store: KeyValueStore) -> None:
    """Of fifty at once one gets it, and all are told the same holder."""
    told = await asyncio.gather(*(store.take_lease("lease", str(n), 60.0) for n in range(50)))
    assert len(set(told)) == 1
    renewed = await asyncio.gather(*(store.renew_lease("lease", str(n), 60.0) for n in range(50)))
    assert [str(n) for n, held in enumerate(renewed) if held] == [told[0]]


async def test_a_release_that_is_late_ends_no_other_lease(
    url: str, kind: str, tmp_path: Path
) -> None:
    """What the old holder sent before the server stood still does not end the new one's lease."""
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


# -------------------------------------------------------------------------------------- logs


async def test_a_log_is_read_in_order(store: KeyValueStore) -> None:
    """`after` walks through a log from its start, page by page, without a gap or a double."""
    await store.append("log", ["a", "b", "c"], keep=100)
    await store.append("other", ["x"], keep=100)
    await store.append("log", ["d"], keep=100)
    first = await store.after("log", "", 3)
    rest = await store.after("log", first[-1][0], 3)
    assert [value for _, value in first + rest] == ["a", "b", "c", "d"]
    assert await store.after("log", rest[-1][0], 3) == []


async def test_the_end_of_a_log(store: KeyValueStore) -> None:
    """`last` returns the newest pairs, oldest first, with positions that `after` understands."""
    await store.append("log", list("abcd"), keep=100)
    found = await store.last("log", 2)
    assert [value for _, value in found] == ["c", "d"]
    assert await store.after("log", found[0][0], 9) == found[1:]
    assert await store.last("nothing", 2) == []


async def test_a_removed_value_is_gone_from_the_log(store: KeyValueStore) -> None:
    """`remove` takes out the named positions and nothing else."""
    await store.append("log", list("abc"), keep=100)
    (position, _) = (await store.last("log", 2))[0]
    await store.remove("log", [position])
    assert [value for _, value in await store.last("log", 9)] == ["a", "c"]


async def test_a_log_is_bounded(store: KeyValueStore) -> None:
    """A log keeps about its last values: all of those, and not many more."""
    for start in range(0, 1_000, 100):
        await store.append("log", [str(start + n) for n in range(100)], keep=200)
    found = [int(value) for _, value in await store.last("log", 2_000)]
    assert found[-200:] == list(range(800, 1_000))
    assert len(found) <= 400


# --------------------------------------------------------------------------------------- life


async def test_concurrent_reads_are_all_right(store: KeyValueStore) -> None:
    """Two hundred reads at once each get their own answer."""
    await store.write([Write(f"k{number}", str(number), None) for number in range(200)])
    found = await asyncio.gather(*(store.read([f"k{n}", "none"]) for n in range(200)))
    assert [list(values) for values in found] == [[str(n), None] for n in range(200)]


async def test_a_cancelled_read_harms_nobody(store: KeyValueStore) -> None:
    """Readers that share a trip with cancelled ones still get their own answers."""
    await store.write([Write(f"k{number}", str(number), None) for number in range(50)])
    for _ in range(5):
        tasks = [asyncio.ensure_future(store.read([f"k{n}"])) for n in range(50)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [list(values) for values in found[1::2]] == [[str(n)] for n in range(1, 50, 2)]  # type: ignore[arg-type]


async def test_a_cancelled_call_leaves_no_reply_behind(store: KeyValueStore) -> None:
    """After calls that were cancelled anywhere on their way, everybody still gets their own reply."""
    for number in range(30):
        await store.put_rows([RowWrite(f"h{number}", {"is": str(number)}, 60.0)])
    for steps in range(30):
        tasks = [asyncio.ensure_future(store.rows(f"h{number}")) for number in range(10)]
        for _ in range(steps):
            await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        found = await asyncio.gather(*(store.rows(f"h{number}") for number in range(30)))
        assert found == [{"is": str(number)} for number in range(30)]


async def test_close_twice(store: KeyValueStore) -> None:
    """Closing is idempotent, and a closed store raises nothing but BackendError."""
    await store.close()
    await store.close()


async def test_the_store_tells_the_time(kind: str, url: str, tmp_path: Path) -> None:
    """`now` is within a second of real time."""
    store: Any = EmbeddedStore(tmp_path)
    if kind not in FILES:
        store = RedisStore(connect(url, timeout=5), write_timeout=5)
    await store.open()
    assert abs(store.now() - time.time()) < 1
    await store.close()
