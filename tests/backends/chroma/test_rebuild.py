"""Rebuilding an embedded index: nothing is lost, torn or held up, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
import pytest
from chromadb.config import Settings
from chromadb.errors import InternalError

from cache_core.backends.base import Row, Vector
from cache_core.backends.chroma import index as chroma
from cache_core.backends.chroma import rebuild as chroma_rebuild
from cache_core.backends.chroma.index import ChromaIndex, Limits
from cache_core.backends.chroma.rebuild import CONFIGURATION, COPY, REPLACED, finish_rebuilds

LIVE, DEAD = 400, 500


def unit(seed: int) -> Vector:
    vector = np.random.default_rng(seed).standard_normal(32).astype(np.float32)
    return vector / np.linalg.norm(vector)


def row(number: int, text: str = "first") -> Row:
    return Row(f"r{number}", unit(number), text, 1e12)


def make(directory: Path, **limits: float) -> ChromaIndex:
    return ChromaIndex(
        namespace="n", model="m", default_context="none", directory=directory,
        limits=Limits(**{"search_timeout": 10.0, "write_timeout": 20.0, **limits}),
    )  # fmt: skip


@pytest.fixture
async def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ChromaIndex]:
    """An index in which more is deleted than lives; its rebuild takes a good while."""
    monkeypatch.setattr(chroma, "_REBUILD_FROM", 10)
    monkeypatch.setattr(chroma_rebuild, "_PAUSE", 0.03)
    made = make(tmp_path)
    await made.open()
    for number in range(LIVE + DEAD):
        await made.add("none", row(number))
    await made._flush()
    await made.remove("none", [f"r{number}" for number in range(LIVE, LIVE + DEAD)])
    yield made
    await made.close()


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each page that rebuilds have copied: how far they are, however busy the machine is."""
    pages: list[int] = []
    original = chroma_rebuild._copy

    def counting(old: Any, fresh: Any, ids: Sequence[str]) -> None:
        original(old, fresh, ids)
        pages.append(len(ids))

    monkeypatch.setattr(chroma_rebuild, "_copy", counting)
    return pages


async def begin(index: ChromaIndex) -> asyncio.Task[None]:
    await index._begin_rebuild()
    assert index._rebuilder is not None
    await asyncio.sleep(0.1)
    assert not index._rebuilder.done()
    return index._rebuilder


def names(index: ChromaIndex) -> list[str]:
    return sorted(found.name for found in index._chroma._client.list_collections())


async def everything(index: ChromaIndex) -> dict[str, str]:
    found = await index.search("none", unit(0), 2_000)
    return {near.id: near.text for near in found}


@pytest.mark.slow
async def test_a_rebuilt_index_holds_what_lives(index: ChromaIndex) -> None:
    """A rebuild that tend begins takes the old collection's place; the rows are the same."""
    before, old = await everything(index), index.collection.id
    await index.tend(time.time())
    assert index._rebuilder is not None
    await index._rebuilder
    assert await everything(index) == before
    assert len(before) == LIVE
    assert index.collection.id != old
    assert len(names(index)) == 1
    assert index._deleted == {"none": 0}
    for number in range(0, LIVE, 40):
        assert (await index.search("none", unit(number), 1))[0].id == f"r{number}"


@pytest.mark.slow
async def test_what_changes_during_a_rebuild_is_kept(index: ChromaIndex) -> None:
    """Rows added, replaced and removed while the copy is made are so in the copy too."""
    expected = await everything(index)
    rebuilding = await begin(index)
    number = 0
    while not rebuilding.done():
        added, replaced, removed = 10_000 + number, number % 100, 100 + number % 300
        await index.add("none", row(added))
        await index.add("none", row(replaced, "second"))
        await index._flush()
        await index.remove("none", [f"r{removed}"])
        expected |= {f"r{added}": "first", f"r{replaced}": "second"}
        expected.pop(f"r{removed}", None)
        number += 1
    assert number > 5
    assert await everything(index) == expected
    assert await index.count() == len(expected)


@pytest.mark.slow
async def test_a_rebuild_holds_nobody_up(index: ChromaIndex, copied: list[int]) -> None:
    """Searches and removals go on at their pace while the copy is made."""

    async def search(number: int) -> float:
        started = time.perf_counter()
        assert await index.search("none", unit(number), 5)
        return time.perf_counter() - started

    calm = statistics.median([await search(number) for number in range(20)])
    rebuilding = await begin(index)
    searches, waited = [], []
    number = 0
    while not rebuilding.done():
        searches.append(await search(number))
        before = sum(copied)
        assert await index.remove("none", [f"r{number}"]) == 1
        waited.append(sum(copied) - before)
        number += 1
    assert number > 10
    assert statistics.median(searches) < max(0.05, 10 * calm)
    assert statistics.median(waited) <= chroma_rebuild._PAGE
    assert max(waited) < LIVE / 2


@pytest.mark.slow
async def test_a_search_while_the_old_collection_is_deleted(
    tmp_path: Path, index: ChromaIndex
) -> None:
    """A search that finds the collection half deleted finds its successor by name."""
    old, client = index.collection, index._chroma._client
    name = old.name
    await asyncio.to_thread(old.modify, name=name + REPLACED)
    fresh = await asyncio.to_thread(client.create_collection, name, embedding_function=None)
    await asyncio.to_thread(fresh.upsert, ids=["new"], embeddings=[unit(3)])
    (place,) = tmp_path.glob("chroma-0/*/chroma.sqlite3")
    with contextlib.closing(sqlite3.connect(place, timeout=5, isolation_level=None)) as file:
        rows = "DELETE FROM segments WHERE collection = ? AND scope = 'METADATA'"
        assert file.execute(rows, (str(old.id),)).rowcount == 1
    with pytest.raises(InternalError, match="Missing metadata segment"):
        old.query(query_embeddings=[unit(3)], n_results=1)
    found = await index.search("none", unit(3), 1)
    assert [near.id for near in found] == ["new"]
    assert not index._chroma._broken


@pytest.mark.slow
async def test_a_rebuild_has_no_deadline(
    tmp_path: Path, index: ChromaIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Budgets far shorter than the rebuild do not end it, nor open the breaker."""
    await index.close()
    monkeypatch.setattr(chroma_rebuild, "_PAUSE", 0.15)
    hasty = make(tmp_path, search_timeout=1.5, write_timeout=1.5)
    await hasty.open()
    hasty._deleted["none"] = DEAD
    old, started = hasty.collection.id, time.perf_counter()
    await (await begin(hasty))
    assert time.perf_counter() - started > 2.5
    assert hasty.breaker.state == "closed"
    assert (await hasty.search("none", unit(3), 1))[0].id == "r3"
    assert hasty.collection.id != old
    await hasty.close()


@pytest.mark.slow
async def test_a_cancelled_rebuild_is_not_torn(index: ChromaIndex) -> None:
    """A rebuild ends well when its waiting callers are cancelled, and nothing is lost."""
    expected = await everything(index)
    rebuilding = await begin(index)
    rebuilding.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await rebuilding
    await index.add("none", row(20_000))
    await index._flush()
    done = index._chroma._rebuilding
    assert done is not None
    assert await asyncio.wrap_future(done)
    assert await everything(index) == {**expected, "r20000": "first"}
    await index.add("none", row(20_001))
    await index._flush()
    assert await index.count() == len(expected) + 2
    assert len(names(index)) == 1


@pytest.mark.slow
async def test_closing_stops_a_rebuild(
    tmp_path: Path, index: ChromaIndex, copied: list[int]
) -> None:
    """Closing waits for the page that is being copied and no longer; the index is as it was."""
    expected = await everything(index)
    rebuilding = await begin(index)
    before = len(copied)
    await index.close()
    assert len(copied) <= before + 3
    assert sum(copied) < LIVE
    await rebuilding
    again = make(tmp_path)
    await again.open()
    assert "chroma-0" in str(again.place)
    assert len(names(again)) == 1
    assert await everything(again) == expected
    await again.close()


@pytest.mark.slow
async def test_abandoning_stops_a_rebuild(tmp_path: Path, index: ChromaIndex) -> None:
    """Without its loop a rebuild is stopped too before the directory is given back."""
    expected = await everything(index)
    await begin(index)
    index.abandon()
    again = make(tmp_path)
    await again.open()
    assert len(names(again)) == 1
    assert await everything(again) == expected
    await again.close()


@pytest.mark.slow
async def test_another_cache_of_the_process_writes_meanwhile(
    tmp_path: Path, index: ChromaIndex
) -> None:
    """Writes and removals of a second cache on the directory during a rebuild are kept as well."""
    other = make(tmp_path)
    await other.open()
    expected = await everything(index)
    rebuilding = await begin(index)
    third = make(tmp_path)
    await third.open()
    await third.close()
    number = 0
    while not rebuilding.done():
        await other.add("none", row(30_000 + number))
        await other._flush()
        assert await other.remove("none", [f"r{number}"]) == 1
        expected[f"r{30_000 + number}"] = "first"
        del expected[f"r{number}"]
        number += 1
    assert number > 5
    assert await everything(index) == expected
    assert await everything(other) == expected
    await other.close()


@pytest.mark.slow
async def test_a_rebuild_that_fails_changes_nothing(
    index: ChromaIndex, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A panic in the middle of a rebuild leaves the index as it was, and is reported."""

    class Panic(BaseException):
        pass

    def panic(*args: Any) -> None:
        raise Panic("range end index")

    expected, old = await everything(index), index.collection.id
    with monkeypatch.context() as patched:
        patched.setattr(chroma_rebuild, "_copy", panic)
        await index._begin_rebuild()
        assert index._rebuilder is not None
        await index._rebuilder
    assert "not rebuilt: Panic: range end index" in caplog.text
    assert index.collection.id == old
    assert await everything(index) == expected
    assert len(names(index)) == 1
    assert await index._chroma.rebuild("none")


@pytest.mark.parametrize(
    ("left", "survivor"),
    [
        (["x", "x" + COPY], "x"),
        (["x" + REPLACED, "x" + COPY], "x" + COPY),
        (["x", "x" + REPLACED], "x"),
        (["x" + REPLACED], "x" + REPLACED),
        (["x", "y"], "x"),
    ],
)
def test_an_interrupted_rebuild_is_ended(tmp_path: Path, left: list[str], survivor: str) -> None:
    """Wherever a process died in a rebuild, the next one finds the complete collection."""
    client = chromadb.PersistentClient(
        str(tmp_path / "direct"), settings=Settings(anonymized_telemetry=False)
    )
    made = {
        name: client.create_collection(
            f"gc1-{name}", configuration=CONFIGURATION, embedding_function=None
        )
        for name in left
    }
    kept = made[survivor].id
    finish_rebuilds(client)
    found = {collection.name: collection.id for collection in client.list_collections()}
    assert found.pop("gc1-x") == kept
    assert set(found) == {f"gc1-{name}" for name in left if name == "y"}
    client.close()  # type: ignore[attr-defined]


@pytest.mark.slow
async def test_a_directory_left_in_a_rebuild_opens(tmp_path: Path, index: ChromaIndex) -> None:
    """A directory whose process died between the renamings opens with all its rows."""
    expected = await everything(index)
    client, name = index._chroma._client, index.collection.name
    fresh = client.create_collection(
        name + COPY, configuration=CONFIGURATION, embedding_function=None
    )
    chroma_rebuild._copy(index.collection, fresh, sorted(expected))
    index.collection.modify(name=name + REPLACED)
    await index.close()
    again = make(tmp_path)
    await again.open()
    assert names(again) == [name]
    assert await everything(again) == expected
    await again.close()
