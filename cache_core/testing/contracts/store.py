"""Contract of `KeyValueStore`: values, hashes, leases and logs that several processes share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from cache_core.backends.base import KeyValueStore, RowWrite, Write

Pass = Callable[[float], Awaitable[None]]
"""Coroutine function that lets so many seconds of the store's time pass."""


class StoreContract:
    """Tests of one implementation of `KeyValueStore`.

    A subclass has a fixture `store`: an open and empty one, which is closed afterwards. Where time
    is a clock that the test moves, it has a fixture `passes`, too.
    """

    @pytest.fixture
    def passes(self) -> Pass:
        """Let real time pass."""
        return asyncio.sleep

    async def test_values_come_back_in_the_order_asked(self, store: KeyValueStore) -> None:
        """A read returns one value per key in order, and None for a missing one."""
        await store.write([Write("a", "1", None), Write("b", "2", 60.0)])
        assert list(await store.read(["b", "nothing", "a"])) == ["2", None, "1"]

    async def test_a_key_may_be_asked_for_twice(self, store: KeyValueStore) -> None:
        """A key that occurs twice in one read gets its value in both places."""
        await store.write([Write("a", "1", None)])
        assert list(await store.read(["a", "a"])) == ["1", "1"]

    async def test_nothing_asked_is_nothing_done(self, store: KeyValueStore) -> None:
        """Empty requests return empty results instead of an error."""
        assert list(await store.read([])) == []
        await store.write([])
        await store.put_rows([])
        await store.put_rows([RowWrite("h", {}, 60.0)])
        await store.append("log", [], keep=10)
        await store.remove("log", [])
        assert await store.delete([]) == 0
        assert await store.delete_rows("h", []) == 0

    async def test_a_write_replaces(self, store: KeyValueStore) -> None:
        """The last of several writes to one key wins, within one call too."""
        await store.write([Write("a", "old", None)])
        await store.write([Write("a", "middle", None), Write("a", "new", None)])
        assert list(await store.read(["a"])) == ["new"]

    async def test_a_value_ends_with_its_ttl(self, store: KeyValueStore, passes: Pass) -> None:
        """A value exists before its TTL has passed, and not after it."""
        await store.write([Write("a", "1", 2.0), Write("b", "2", 60.0)])
        assert list(await store.read(["a"])) == ["1"]
        await passes(2.1)
        assert list(await store.read(["a", "b"])) == [None, "2"]

    async def test_write_new_keeps_the_first(self, store: KeyValueStore) -> None:
        """The first write_new wins, and every later one returns the value in force."""
        assert await store.write_new(Write("a", "first", 60.0)) == "first"
        assert await store.write_new(Write("a", "second", 60.0)) == "first"
        assert list(await store.read(["a"])) == ["first"]

    async def test_write_new_renews_the_ttl(self, store: KeyValueStore, passes: Pass) -> None:
        """Each write_new gives the value in force a whole TTL again."""
        await store.write_new(Write("a", "first", 3.0))
        await passes(1.6)
        await store.write_new(Write("a", "second", 3.0))
        await passes(1.6)
        assert list(await store.read(["a"])) == ["first"]

    async def test_write_new_after_the_end(self, store: KeyValueStore, passes: Pass) -> None:
        """A value whose TTL has passed does not stand in the way of a new one."""
        await store.write_new(Write("a", "first", 0.1))
        await passes(0.2)
        assert await store.write_new(Write("a", "second", 0.1)) == "second"

    async def test_concurrent_write_new_agree(self, store: KeyValueStore) -> None:
        """One of many concurrent writers wins, and all get the same value."""
        results = await asyncio.gather(
            *(store.write_new(Write("a", str(number), 60.0)) for number in range(20))
        )
        assert len(set(results)) == 1
        assert list(await store.read(["a"])) == [results[0]]

    async def test_delete_counts_what_was_there(self, store: KeyValueStore) -> None:
        """Values and hashes are deleted alike, and each one that existed counts once."""
        await store.write([Write("a", "1", None)])
        await store.put_rows([RowWrite("h", {"x": "1", "y": "2"}, None)])
        assert await store.delete(["a", "h", "nothing"]) == 2
        assert list(await store.read(["a"])) == [None]
        assert await store.rows("h") == {}
        assert await store.delete(["a", "h"]) == 0

    async def test_rows_are_added_and_replaced(self, store: KeyValueStore) -> None:
        """put_rows adds to a hash and replaces rows of the same name."""
        await store.put_rows([RowWrite("h", {"a": "1", "b": "2"}, 60.0)])
        await store.put_rows([RowWrite("h", {"b": "3", "c": "with space"}, 60.0)])
        assert await store.rows("h") == {"a": "1", "b": "3", "c": "with space"}

    async def test_many_hashes_in_one_call(self, store: KeyValueStore) -> None:
        """One put_rows may write several hashes, and one hash several times."""
        await store.put_rows(
            [RowWrite("g", {"a": "1"}, None), RowWrite("h", {"a": "2"}, 60.0),
             RowWrite("g", {"b": "3"}, None)]
        )  # fmt: skip
        assert await store.rows("g") == {"a": "1", "b": "3"}
        assert await store.rows("h") == {"a": "2"}

    async def test_rows_are_told_apart_by_hash(self, store: KeyValueStore) -> None:
        """A hash that does not exist is empty."""
        assert await store.rows("nothing") == {}

    async def test_the_newest_rows(self, store: KeyValueStore) -> None:
        """With a limit the newest rows are returned, newest last; a row put again is new again."""
        for name in "abcd":
            await store.put_rows([RowWrite("h", {name: name.upper()}, 60.0)])
        await store.put_rows([RowWrite("h", {"a": "again"}, 60.0)])
        assert list((await store.rows("h", 2)).items()) == [("d", "D"), ("a", "again")]

    async def test_a_hash_is_bounded(self, store: KeyValueStore) -> None:
        """With `newest` old rows are dropped, so that a hash does not grow forever."""
        for number in range(40):
            await store.put_rows([RowWrite("h", {f"row{number:02}": "x"}, 60.0, newest=8)])
        found = list(await store.rows("h"))
        assert len(found) <= 10
        assert found[-8:] == [f"row{number:02}" for number in range(32, 40)]

    async def test_a_hash_ends_with_its_ttl(self, store: KeyValueStore, passes: Pass) -> None:
        """A hash expires its TTL after the last put; one without a TTL stays."""
        await store.put_rows([RowWrite("h", {"a": "1"}, 3.0), RowWrite("kept", {"a": "1"}, None)])
        await passes(1.6)
        await store.put_rows([RowWrite("h", {"a": "2"}, 3.0)])
        await passes(1.6)
        assert await store.rows("h") == {"a": "2"}
        await passes(1.6)
        assert await store.rows("h") == {}
        assert await store.rows("kept") == {"a": "1"}

    async def test_delete_rows_counts(self, store: KeyValueStore) -> None:
        """delete_rows returns how many of the named rows there were."""
        await store.put_rows([RowWrite("h", {"a": "1", "b": "2"}, 60.0)])
        assert await store.delete_rows("h", ["a", "nothing"]) == 1
        assert await store.rows("h") == {"b": "2"}

    async def test_a_hash_and_a_value_do_not_mix(self, store: KeyValueStore) -> None:
        """Reading a hash's key as a value gives None, and the store stays sound."""
        await store.put_rows([RowWrite("h", {"a": "1"}, 60.0)])
        assert list(await store.read(["h"])) == [None]
        assert store.breaker.state == "closed"

    async def test_a_lease_is_one_holders(self, store: KeyValueStore, passes: Pass) -> None:
        """The first to take a lease holds it, and all others get its token, until it ends."""
        assert await store.take_lease("lease", "one", 3.0) == "one"
        assert await store.take_lease("lease", "two", 60.0) == "one"
        assert list(await store.read(["lease"])) == ["one"]
        assert not await store.renew_lease("lease", "two", 60.0)
        assert not await store.release_lease("lease", "two")
        await passes(1.6)
        assert await store.renew_lease("lease", "one", 3.0)
        await passes(1.6)
        assert await store.take_lease("lease", "two", 60.0) == "one"
        await passes(1.6)
        assert list(await store.read(["lease"])) == [None]
        assert await store.take_lease("lease", "two", 60.0) == "two"

    async def test_an_ended_lease_is_not_its_holders(
        self, store: KeyValueStore, passes: Pass
    ) -> None:
        """A lost lease can neither be renewed nor ended by its holder, taken by another or not."""
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

    async def test_many_take_one_lease(self, store: KeyValueStore) -> None:
        """One of fifty concurrent attempts gets it, and all get the same holder."""
        results = await asyncio.gather(
            *(store.take_lease("lease", str(n), 60.0) for n in range(50))
        )
        assert len(set(results)) == 1
        renewed = await asyncio.gather(
            *(store.renew_lease("lease", str(n), 60.0) for n in range(50))
        )
        assert [str(n) for n, held in enumerate(renewed) if held] == [results[0]]

    async def test_a_log_is_read_in_order(self, store: KeyValueStore) -> None:
        """`after` walks through a log from its start, page by page, without a gap or a double."""
        await store.append("log", ["a", "b", "c"], keep=100)
        await store.append("other", ["x"], keep=100)
        await store.append("log", ["d"], keep=100)
        first = await store.after("log", "", 3)
        rest = await store.after("log", first[-1][0], 3)
        assert [value for _, value in first + rest] == ["a", "b", "c", "d"]
        assert await store.after("log", rest[-1][0], 3) == []

    async def test_the_end_of_a_log(self, store: KeyValueStore) -> None:
        """`last` returns the newest pairs, oldest first; `after` takes their positions."""
        await store.append("log", list("abcd"), keep=100)
        found = await store.last("log", 2)
        assert [value for _, value in found] == ["c", "d"]
        assert await store.after("log", found[0][0], 9) == found[1:]
        assert await store.last("nothing", 2) == []

    async def test_a_removed_value_is_gone_from_the_log(self, store: KeyValueStore) -> None:
        """`remove` takes out the named positions and nothing else."""
        await store.append("log", list("abc"), keep=100)
        (position, _) = (await store.last("log", 2))[0]
        await store.remove("log", [position])
        assert [value for _, value in await store.last("log", 9)] == ["a", "c"]

    async def test_a_log_is_bounded(self, store: KeyValueStore) -> None:
        """A log keeps about its last values: all of those, and not many more."""
        for start in range(0, 1_000, 100):
            await store.append("log", [str(start + n) for n in range(100)], keep=200)
        found = [int(value) for _, value in await store.last("log", 2_000)]
        assert found[-200:] == list(range(800, 1_000))
        assert len(found) <= 400

    async def test_concurrent_reads_are_all_right(self, store: KeyValueStore) -> None:
        """Two hundred concurrent reads each get their own answer."""
        await store.write([Write(f"k{number}", str(number), None) for number in range(200)])
        found = await asyncio.gather(*(store.read([f"k{n}", "none"]) for n in range(200)))
        assert [list(values) for values in found] == [[str(n), None] for n in range(200)]

    async def test_a_cancelled_read_harms_nobody(self, store: KeyValueStore) -> None:
        """Readers that share a trip with cancelled ones still get their own answers."""
        await store.write([Write(f"k{number}", str(number), None) for number in range(50)])
        for _ in range(5):
            tasks = [asyncio.ensure_future(store.read([f"k{n}"])) for n in range(50)]
            await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            found = [list(task.result()) for task in tasks[1::2]]
            assert found == [[str(n)] for n in range(1, 50, 2)]

    async def test_a_cancelled_call_leaves_no_reply_behind(self, store: KeyValueStore) -> None:
        """After calls that were cancelled anywhere, every caller still gets its own reply."""
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

    async def test_hashes_are_found_by_their_ends(self, store: KeyValueStore) -> None:
        """All hashes with a beginning and an end are listed, whatever signs are in their names."""
        wanted = {f"a*[{number}]?:x" for number in range(1_100)}
        others = ["a*[1]?:y", "ab[1]?:x", "a*[1]?:xx", "b"]
        await store.put_rows([RowWrite(key, {"row": ""}, 60.0) for key in [*wanted, *others]])
        found: list[str] = []
        cursor = ""
        while True:
            names, cursor = await store.hashes("a*[", "]?:x", cursor)
            found += names
            if not cursor:
                break
        assert set(found) == wanted

    async def test_close_twice(self, store: KeyValueStore) -> None:
        """Closing is idempotent, and a closed store raises only BackendError."""
        await store.close()
        await store.close()
