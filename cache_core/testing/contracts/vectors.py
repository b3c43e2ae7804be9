"""Contract of `VectorIndex`: shared answers by similarity, in one index per context."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest

from cache_core.backends.base import Row, Vector, VectorIndex


def unit(*values: float) -> Vector:
    """Return a unit vector of 16 dimensions that begins with *values*, scaled; the rest is 0."""
    vector: Vector = np.zeros(16, dtype=np.float32)
    vector[: len(values)] = values
    return vector / np.float32(np.linalg.norm(vector))


def row(name: str, vector: Vector, dropped: float = 1e12) -> Row:
    """Return a row with the text "envelope of *name*"."""
    return Row(name, vector, f"envelope of {name}", dropped)


class IndexContract:
    """Tests of one implementation of `VectorIndex`.

    A subclass has a fixture `index`: an open and empty one, which is closed afterwards.
    """

    async def test_an_empty_index_finds_nothing(self, index: VectorIndex) -> None:
        """A search in an empty index, and in a context that has none, returns nothing."""
        assert await index.search("default", unit(1), 5) == []
        assert await index.search("unheard", unit(1), 5) == []
        assert await index.count() == 0

    async def test_a_row_is_found_immediately(self, index: VectorIndex) -> None:
        """An added row is found, with its text, before it is written."""
        assert await index.add("default", row("a", unit(1)))
        (found,) = await index.search("default", unit(1), 5)
        assert (found.id, found.text) == ("a", "envelope of a")
        assert found.similarity == pytest.approx(1.0, abs=1e-5)

    async def test_a_row_replaces_its_predecessor(self, index: VectorIndex) -> None:
        """A row added under the same id replaces the old one, in the buffer and in Chroma."""
        for text in ("first", "second"):
            await index.add("default", Row("a", unit(1), text, 1e12))
        assert [near.text for near in await index.search("default", unit(1), 5)] == ["second"]
        await index.tend(time.time())
        await index.add("default", Row("a", unit(1), "third", 1e12))
        assert [near.text for near in await index.search("default", unit(1), 5)] == ["third"]
        await index.tend(time.time())
        assert [near.text for near in await index.search("default", unit(1), 5)] == ["third"]

    async def test_similarity_is_the_cosine(self, index: VectorIndex) -> None:
        """Similarities agree with numpy, are clipped to 0..1, and come nearest first."""
        random = np.random.default_rng(7)
        vectors = {f"r{n}": unit(*random.standard_normal(16)) for n in range(60)}
        for name, vector in vectors.items():
            await index.add("default", row(name, vector))
        await index.tend(time.time())
        for name in list(vectors)[:5]:
            await index.add("default", row(name, vectors[name]))
        asked = unit(*random.standard_normal(16))
        found = await index.search("default", asked, 60)
        assert len(found) == 60
        for near in found:
            cosine = float(vectors[near.id] @ asked)
            assert near.similarity == pytest.approx(min(1.0, max(0.0, cosine)), abs=1e-4)
        similarities = [near.similarity for near in found]
        assert similarities == sorted(similarities, reverse=True)
        assert [near.id for near in await index.search("default", asked, 3)] == [
            n.id for n in found[:3]
        ]

    async def test_removed_is_found_no_more(self, index: VectorIndex) -> None:
        """Removed rows are not found once `remove` returns; it returns how many there were."""
        await index.add("default", row("written", unit(1)))
        await index.tend(time.time())
        await index.add("default", row("buffered", unit(1, 0.1)))
        await index.add("default", row("kept", unit(1, 0.2)))
        assert await index.texts("default", ["written", "buffered", "absent"]) == {
            "written": "envelope of written",
            "buffered": "envelope of buffered",
        }
        assert await index.texts("unheard", ["written"]) == {}
        assert await index.remove("default", ["written", "buffered", "absent"]) == 2
        assert [near.id for near in await index.search("default", unit(1), 5)] == ["kept"]
        assert await index.remove("default", []) == 0
        assert await index.remove("unheard", ["a"]) == 0

    async def test_contexts_are_kept_apart(self, index: VectorIndex) -> None:
        """A row of one context is found in no other, and each context is listed."""
        await index.add("german", row("a", unit(1)))
        await index.add("english", row("b", unit(1)))
        await index.tend(time.time())
        assert [near.id for near in await index.search("german", unit(1), 5)] == ["a"]
        assert [near.id for near in await index.search("english", unit(1), 5)] == ["b"]
        assert await index.search("default", unit(1), 5) == []
        assert set(await index.contexts()) >= {"german", "english"}

    async def test_concurrent_searches_and_writes(self, index: VectorIndex) -> None:
        """Concurrent adds, searches and removals lose and invent nothing."""

        async def one(number: int) -> None:
            await index.add("default", row(f"r{number}", unit(1, number)))
            assert await index.search("default", unit(1, number), 3)
            if number % 2:
                await index.remove("default", [f"r{number}"])

        await asyncio.gather(*(one(number) for number in range(60)))
        await index.tend(time.time())
        assert await index.count() == 30

    async def test_tending_keeps_rows_that_are_to_stay(self, index: VectorIndex) -> None:
        """`tend` may drop a row whose time is over, and never one whose time is to come."""
        await index.add("default", row("new", unit(1), 150.0))
        await index.add("default", row("old", unit(1, 0.1), 50.0))
        await index.tend(100.0)
        assert "new" in [near.id for near in await index.search("default", unit(1), 5)]

    async def test_it_accepts_the_contexts_that_it_has(self, index: VectorIndex) -> None:
        """A context whose rows it holds is accepted."""
        await index.add("english", row("a", unit(1)))
        assert index.accepts("english")

    async def test_a_purge_keeps_what_is_there(self, index: VectorIndex) -> None:
        """`purge` clears logs of removed rows; the others stay."""
        await index.add("default", row("kept", unit(1)))
        await index.add("default", row("removed", unit(0, 1)))
        await index.remove("default", ["removed"])
        await index.purge("default")
        assert [near.id for near in await index.search("default", unit(1), 5)] == ["kept"]

    async def test_closing_twice(self, index: VectorIndex) -> None:
        """Closing is idempotent."""
        await index.close()
        await index.close()
