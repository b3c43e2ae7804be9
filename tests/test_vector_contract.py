"""The contract of `VectorIndex`, over an embedded Chroma and a real Chroma server."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache_core.embedder import Vector
from cache_core.exceptions import BackendError
from cache_core.stores.chroma import (
    FLUSH_ROWS,
    FLUSH_SECONDS,
    ChromaIndex,
    _written_together,
)
from cache_core.stores.vectors import Row
from cache_core.testing import ChaosVectors, Faults, HashEmbedder
from tests import servers
from tests.conftest import CacheFactory
from tests.patient import PATIENT

Make = Callable[..., Awaitable[ChromaIndex]]

_numbers = itertools.count(1)


def unit(*values: float) -> Vector:
    vector = np.zeros(16, dtype=np.float32)
    vector[: len(values)] = values
    return vector / np.linalg.norm(vector)


def row(name: str, vector: Vector, dropped: float = 1e12) -> Row:
    return Row(name, vector, f"envelope of {name}", dropped)


class CalmChaos(ChaosVectors):
    """A calm double around a Chroma index, with what only the index has."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@pytest.fixture(params=["embedded", "server", "chaos"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def where(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    if kind != "server":
        return {"directory": tmp_path}
    return {"url": request.getfixturevalue("chroma_url")}


@pytest.fixture
async def make(kind: str, where: dict[str, Any]) -> AsyncIterator[Make]:
    """Make open indexes of one namespace; all are closed."""
    made: list[ChromaIndex] = []
    namespace = f"test{next(_numbers)}"

    async def open_one(**more: Any) -> ChromaIndex:
        arguments = {"namespace": namespace, "model": "m", "default_context": "none", **where}
        index = ChromaIndex(**{**arguments, "search_timeout": 10.0, "write_timeout": 20.0, **more})
        if kind == "chaos":
            index = CalmChaos(index, Faults(), search_timeout=10.0, write_timeout=20.0)
        made.append(index)
        await index.open()
        async with asyncio.timeout(30):
            while not index.connected:  # a busy server takes longer than opening waits
                await asyncio.sleep(0.02)
        return index

    yield open_one
    for index in made:
        await index.close()


@pytest.fixture
async def index(make: Make) -> ChromaIndex:
    return await make()


async def test_an_empty_index_finds_nothing(index: ChromaIndex) -> None:
    """A search in an empty index, and in a context that has none, returns nothing."""
    assert await index.search("none", unit(1), 5) == []
    assert await index.search("unheard", unit(1), 5) == []
    assert await index.count() == 0
    assert index.collection is not None


async def test_a_row_is_found_at_once(index: ChromaIndex) -> None:
    """What was added is found before it is written out, with its text."""
    assert await index.add("none", row("a", unit(1)))
    (found,) = await index.search("none", unit(1), 5)
    assert (found.id, found.text) == ("a", "envelope of a")
    assert found.similarity == pytest.approx(1.0, abs=1e-5)


async def test_a_row_is_found_after_it_was_written_out(index: ChromaIndex) -> None:
    """What left the buffer for Chroma is found exactly once, and counted once."""
    await index.add("none", row("a", unit(1)))
    await asyncio.sleep(FLUSH_SECONDS + 0.3)
    assert index.collection is not None
    assert [near.id for near in await index.search("none", unit(1), 5)] == ["a"]
    assert await index.count() == 1


async def test_a_row_replaces_its_predecessor(index: ChromaIndex) -> None:
    """A row added under the same id replaces the old one, in the buffer and in Chroma."""
    for text in ("first", "second"):
        await index.add("none", Row("a", unit(1), text, 1e12))
    assert [near.text for near in await index.search("none", unit(1), 5)] == ["second"]
    await index.tend(time.time())
    await index.add("none", Row("a", unit(1), "third", 1e12))
    assert [near.text for near in await index.search("none", unit(1), 5)] == ["third"]
    await index.tend(time.time())
    assert [near.text for near in await index.search("none", unit(1), 5)] == ["third"]


async def test_a_row_that_chroma_refuses_keeps_no_other_out(index: ChromaIndex) -> None:
    """Another dimension, no number, no text: dropped and counted, and the others are written."""
    await index.add("none", row("first", unit(1)))
    await index.tend(time.time())
    await index.add("none", row("short", unit(1)[:8]))
    await index.add("none", row("nan", unit(1) * np.float32("nan")))
    await index.add("none", Row("text", unit(0, 1), "\ud800", 1e12))
    await index.add("none", row("second", unit(1, 1)))
    found = {near.id for near in await index.search("none", unit(1), 9)}
    assert found >= {"first", "second"}
    assert "short" not in found
    await index.tend(time.time())
    assert await index.count() == 2
    assert index.dropped == 3
    found = {near.id for near in await index.search("none", unit(1), 9)}
    assert found == {"first", "second"}
    await index.add("none", row("late", unit(1)[:8]))
    await index.close()


def test_what_is_written_together() -> None:
    """Few rows, not too large together, and of one dimension; a huge one goes alone."""
    huge, small, short = (
        Row("huge", unit(1), "x" * 9_000_000, 1.0),
        Row("small", unit(1), "x", 1.0),
        Row("short", unit(1)[:8], "x", 1.0),
    )
    assert _written_together([small, huge, small]) == [small]
    assert _written_together([huge, small]) == [huge]
    assert _written_together([small, small, short, small]) == [small, small]
    assert len(_written_together([small] * 200)) == 5 * FLUSH_ROWS
    assert _written_together([]) == []


async def test_similarity_is_the_cosine(index: ChromaIndex) -> None:
    """Similarities agree with numpy, are clipped to 0..1, and come nearest first."""
    random = np.random.default_rng(7)
    vectors = {f"r{n}": unit(*random.standard_normal(16)) for n in range(60)}
    for name, vector in vectors.items():
        await index.add("none", row(name, vector))
    await index.tend(time.time())
    for name in list(vectors)[:5]:
        await index.add("none", row(name, vectors[name]))
    asked = unit(*random.standard_normal(16))
    found = await index.search("none", asked, 60)
    assert len(found) == 60
    for near in found:
        cosine = float(vectors[near.id] @ asked)
        assert near.similarity == pytest.approx(min(1.0, max(0.0, cosine)), abs=1e-4)
    similarities = [near.similarity for near in found]
    assert similarities == sorted(similarities, reverse=True)
    assert [near.id for near in await index.search("none", asked, 3)] == [n.id for n in found[:3]]


async def test_removed_is_found_no_more(index: ChromaIndex) -> None:
    """When remove returns the rows are gone from buffer and Chroma, and it says how many were."""
    await index.add("none", row("written", unit(1)))
    await index.tend(time.time())
    await index.add("none", row("buffered", unit(1, 0.1)))
    await index.add("none", row("kept", unit(1, 0.2)))
    assert await index.present("none", ["written", "buffered", "absent"]) == {"written", "buffered"}
    assert await index.remove("none", ["written", "buffered", "absent"]) == 2
    assert [near.id for near in await index.search("none", unit(1), 5)] == ["kept"]
    assert await index.remove("none", []) == 0
    assert await index.remove("unheard", ["a"]) == 0


async def test_contexts_are_kept_apart(index: ChromaIndex) -> None:
    """A row of one context is found in no other, and each context is listed."""
    await index.add("german", row("a", unit(1)))
    await index.add("english", row("b", unit(1)))
    await index.tend(time.time())
    assert [near.id for near in await index.search("german", unit(1), 5)] == ["a"]
    assert [near.id for near in await index.search("english", unit(1), 5)] == ["b"]
    assert await index.search("none", unit(1), 5) == []
    assert set(await index.contexts()) == {"none", "german", "english"}


async def test_too_many_contexts_are_refused(make: Make) -> None:
    """Beyond the limit a new context is refused, and those that exist go on."""
    index = await make(max_contexts=3)
    assert await index.add("one", row("a", unit(1)))
    assert await index.add("two", row("a", unit(1)))
    assert not await index.add("three", row("a", unit(1)))
    assert await index.add("two", row("b", unit(0, 1)))
    assert await index.search("three", unit(1), 5) == []


async def test_sweeping_drops_what_is_past(index: ChromaIndex) -> None:
    """Rows whose time is over are deleted; the others stay."""
    for number in range(30):
        await index.add("none", row(f"old{number}", unit(1, number / 100), 50.0))
    await index.add("none", row("new", unit(1), 150.0))
    await index.tend(10.0)
    assert await index.count() == 31
    assert await index.sweep(100.0) == 30
    assert [near.id for near in await index.search("none", unit(1), 5)] == ["new"]


async def test_models_and_namespaces_are_kept_apart(make: Make) -> None:
    """Rows of another model or namespace are never found."""
    one = await make()
    await one.add("none", row("a", unit(1)))
    await one.tend(time.time())
    for other in (await make(model="other"), await make(namespace="elsewhere")):
        assert await other.search("none", unit(1), 5) == []


async def test_a_closed_index_is_all_there_when_opened_again(make: Make) -> None:
    """Closing writes out what waits; closing twice is closing once."""
    first = await make()
    for number in range(25):
        await first.add("none", row(f"r{number}", unit(1, number)))
    await first.close()
    await first.close()
    second = await make()
    assert await second.count() == 25
    assert [near.id for near in await second.search("none", unit(1), 1)] == ["r0"]


async def test_two_caches_of_one_process_share_an_index(make: Make) -> None:
    """Rows that one wrote out are found by the other, which outlives it."""
    first, second = await make(), await make()
    await first.add("none", row("a", unit(1)))
    await first.tend(time.time())
    assert [near.id for near in await second.search("none", unit(1), 5)] == ["a"]
    await first.close()
    await second.add("none", row("b", unit(0, 1)))
    await second.tend(time.time())
    assert await second.count() == 2


async def test_searches_and_writes_at_once(index: ChromaIndex) -> None:
    """Concurrent adds, searches and removals lose and invent nothing."""

    async def one(number: int) -> None:
        await index.add("none", row(f"r{number}", unit(1, number)))
        assert await index.search("none", unit(1, number), 3)
        if number % 2:
            await index.remove("none", [f"r{number}"])

    await asyncio.gather(*(one(number) for number in range(60)))
    await index.tend(time.time())
    assert await index.count() == 30


async def test_empty_contexts_are_dropped(make: Make) -> None:
    """A context without rows gives its place to another; with rows, waiting ones too, it stays."""
    index = await make(max_contexts=3)
    assert await index.add("one", row("a", unit(1), 50.0))
    assert await index.add("two", row("b", unit(1)))
    await index.tend(10.0)
    assert not await index.add("three", row("c", unit(1)))
    await index.sweep(100.0)
    assert await index.contexts() == ["none", "two"]
    assert await index.search("one", unit(1), 5) == []
    assert index.breaker.last_error == ""
    assert await index.add("three", row("c", unit(1)))
    await index.sweep(100.0)
    assert await index.contexts() == ["none", "three", "two"]
    assert index.collection is not None
    await index.remove("three", ["c"])
    assert await index.add("three", row("d", unit(1)))
    await index.tend(10.0)
    await index.remove("three", ["d"])
    await index.add("three", row("e", unit(1)))
    await index.sweep(100.0)
    assert [near.id for near in await index.search("three", unit(1), 5)] == ["e"]
    await index.tend(10.0)
    assert await index.count() == 2


async def test_it_says_what_contexts_it_accepts(make: Make) -> None:
    """A context with an index is accepted; others only while there may be more."""
    index = await make(max_contexts=2)
    assert index.accepts("none")
    assert index.accepts("one")
    await index.add("one", row("a", unit(1)))
    assert (index.accepts("one"), index.accepts("two"), index.accepts("none")) == (
        True, False, True,
    )  # fmt: skip
    await index.tend(10.0)
    assert (index.accepts("one"), index.accepts("two")) == (True, False)
    await index.remove("one", ["a"])
    await index.sweep(100.0)
    assert index.accepts("two")


async def test_contexts_of_another_cache_are_listed(make: Make) -> None:
    """A context that another cache made is found, and listed, although it did not exist at first."""
    first, second = await make(), await make()
    await first.add("english", row("a", unit(1)))
    await first.tend(time.time())
    assert await second.contexts() == ["english", "none"]
    assert [near.id for near in await second.search("english", unit(1), 5)] == ["a"]


@pytest.mark.parametrize("context", ["none", "english"])
@pytest.mark.parametrize("action", ["search", "present", "remove", "sweep", "count", "write"])
async def test_a_collection_made_anew_is_found(make: Make, context: str, action: str) -> None:
    """Whichever call meets a collection that somebody replaced takes the new one, at once."""
    index, other = await make(breaker_failures=1), await make()
    await index.add(context, row("old", unit(1)))
    await index.tend(10.0)
    client = other._chroma._client
    name = index._chroma.collections[context].name
    await other._chroma.call(client.delete_collection, name, timeout=20)
    await other._chroma.discover()
    await other.add(context, row("new", unit(1), 50.0))
    await other.tend(10.0)
    if action == "search":
        assert [near.id for near in await index.search(context, unit(1), 5)] == ["new"]
    elif action == "present":
        assert await index.present(context, ["old", "new"]) == {"new"}
    elif action == "remove":
        assert await index.remove(context, ["old", "new"]) == 1
        assert await other.search(context, unit(1), 5) == []
    elif action == "sweep":
        assert await index.sweep(100.0) == 1
    elif action == "count":
        assert await index.count() == 1
    else:
        await index.add(context, row("more", unit(1)))
        await index._flush()
        found = await other.search(context, unit(1), 5)
        assert {near.id for near in found} == {"new", "more"}
    assert (index.breaker.state, index.breaker.last_error) == ("closed", "")


async def test_a_collection_that_is_gone(make: Make) -> None:
    """Where somebody dropped the collection nothing is found, and nothing fails; a put makes it."""
    index, other = await make(breaker_failures=1), await make()
    await index.add("english", row("old", unit(1)))
    await index.tend(10.0)
    name = index._chroma.collections["english"].name
    await other._chroma.call(other._chroma._client.delete_collection, name, timeout=20)
    assert await index.search("english", unit(1), 5) == []
    assert await index.present("english", ["old"]) == set()
    assert await index.remove("english", ["old"]) == 0
    assert await index.count() == 0
    assert index.breaker.state == "closed"
    await index.add("english", row("new", unit(1)))
    await index.tend(10.0)
    assert [near.id for near in await other.search("english", unit(1), 5)] == ["new"]


# ------------------------------------------------------------------------------------- embedded


async def test_a_panic_is_a_backend_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A panic of Chroma's native part, which is no Exception, ends as any other failure."""

    class PanicException(BaseException):
        pass

    def panic(**values: Any) -> None:
        raise PanicException("index out of bounds")

    index = ChromaIndex(
        namespace="n", model="m", default_context="none", directory=tmp_path,
        search_timeout=10, write_timeout=20,
    )  # fmt: skip
    await index.open()
    monkeypatch.setattr(index.collection, "query", panic)
    with pytest.raises(BackendError) as caught:
        await index.search("none", unit(1), 5)
    assert "PanicException: index out of bounds" in str(caught.value)
    assert "index out of bounds" in index.breaker.last_error
    monkeypatch.undo()
    assert await index.search("none", unit(1), 5) == []
    await index.close()


def test_an_abandoned_index_gives_its_directory_back(tmp_path: Path) -> None:
    """After its event loop has ended without closing it, an index gives everything back, once."""

    def make_one() -> ChromaIndex:
        return ChromaIndex(
            namespace="n", model="m", default_context="none", directory=tmp_path,
            search_timeout=10, write_timeout=20,
        )  # fmt: skip

    async def use(index: ChromaIndex) -> int:
        await index.open()
        await index.add("none", row("a", unit(1)))
        await index.tend(10.0)
        return await index.count()

    index, other = make_one(), make_one()
    assert asyncio.run(use(index)) == 1
    assert asyncio.run(use(other)) == 1
    index.abandon()
    index.abandon()
    command = [sys.executable, "-c", _OTHER_PROCESS, str(tmp_path)]
    assert "chroma-1" in subprocess.run(command, check=True, capture_output=True, text=True).stdout
    other.abandon()
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "chroma-0" in told
    assert "rows 1" in told
    asyncio.run(other.close())
    make_one().abandon()


_OTHER_PROCESS = """
import asyncio, logging, sys
from pathlib import Path
import numpy as np
from cache_core.stores.chroma import ChromaIndex
from cache_core.stores.vectors import Row

logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")

async def main():
    index = ChromaIndex(namespace="n", model="m", default_context="none",
                        directory=Path(sys.argv[1]), search_timeout=10, write_timeout=20)
    await index.open()
    vector = np.eye(16, dtype=np.float32)[0]
    print("place", index.place, "rows", await index.count())
    await index.add("none", Row("child", vector, "text", 1e12))
    await index.close()

asyncio.run(main())
"""


async def test_a_second_process_takes_the_next_directory(tmp_path: Path) -> None:
    """Two processes never write into one directory; the second says where it went."""
    first = ChromaIndex(
        namespace="n", model="m", default_context="none", directory=tmp_path,
        search_timeout=10, write_timeout=20,
    )  # fmt: skip
    await first.open()
    await first.add("none", row("parent", unit(1)))
    await first.tend(time.time())
    assert first.place is not None
    assert "chroma-0" in first.place
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _OTHER_PROCESS, str(tmp_path), stdout=subprocess.PIPE
    )
    out, _ = await child.communicate()
    told = out.decode()
    assert child.returncode == 0
    assert "another process uses" in told
    assert f"place {tmp_path / 'chroma-1'}" in told
    assert "rows 0" in told
    assert await first.count() == 1
    await first.close()


async def test_the_directory_is_free_after_closing(tmp_path: Path) -> None:
    """A process that closed its index leaves the first directory, and its rows, to the next."""
    command = [sys.executable, "-c", _OTHER_PROCESS, str(tmp_path)]
    told = []
    for _ in range(2):
        child = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        told.append((await child.communicate())[0].decode())
    assert all("chroma-0" in text for text in told)
    assert "rows 1" in told[1]


async def test_a_corrupt_directory_is_set_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An index that cannot be opened is renamed, said so, and an empty one begun."""
    damaged = tmp_path / "chroma-0" / "1"
    damaged.mkdir(parents=True)
    (damaged / "chroma.sqlite3").write_bytes(b"this is no database " * 500)
    index = ChromaIndex(
        namespace="n", model="m", default_context="none", directory=tmp_path,
        search_timeout=10, write_timeout=20,
    )  # fmt: skip
    with caplog.at_level(logging.ERROR):
        await index.open()
    assert "set aside" in caplog.text
    assert (tmp_path / "chroma-0" / "1.corrupt").exists()
    assert await index.count() == 0
    await index.add("none", row("a", unit(1)))
    await index.tend(time.time())
    assert await index.count() == 1
    await index.close()


async def test_beyond_the_limit_nothing_is_embedded(
    make_cache: CacheFactory, embedder: HashEmbedder
) -> None:
    """In a context that can have no index only a user with private answers there costs a vector."""
    cache = await make_cache(settings={**PATIENT, "max_contexts": 2})
    await cache.put("alpha beta", "ann", "one", context="one", shared=True)
    embedder.calls.clear()
    found = await cache.lookup("beta alpha", "ann", context="two")
    assert found.reasons == ("cold", "context_limit")
    assert embedder.calls == []
    await cache.put("alpha beta", "ann", "private", context="two")
    assert (await cache.lookup("beta alpha", "ann", context="two")).response == "private"
    assert (await cache.lookup("beta gamma", "bob", context="two")).reasons[1] == "context_limit"


# --------------------------------------------------------------------------------------- server


async def test_a_server_that_is_away_is_a_backend_error(tmp_path: Path) -> None:
    """Without its server an index fails fast, keeps what is added, and writes it when all is well."""
    index = ChromaIndex(
        namespace="n", model="m", default_context="none",
        url=f"http://127.0.0.1:{servers.free_port()}",
    )  # fmt: skip
    started = time.monotonic()
    await index.open()
    assert time.monotonic() - started < 5
    for _ in range(6):
        with pytest.raises(BackendError):
            await index.search("none", unit(1), 5)
    assert await index.add("none", row("a", unit(1)))
    await index.close()


async def test_a_server_that_never_answers(tmp_path: Path) -> None:
    """A server that accepts and says nothing is opened in the background; tend tries again."""
    busy = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await busy.wait()
        writer.close()

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    index = ChromaIndex(
        namespace="n", model="m", default_context="none", url=f"http://127.0.0.1:{port}",
        search_timeout=10, write_timeout=20,
    )  # fmt: skip
    started = time.monotonic()
    await index.open()
    assert time.monotonic() - started < 0.9
    assert await index.add("none", row("a", unit(1)))
    with pytest.raises(BackendError):
        await index.tend(10.0)
    busy.set()
    silent.close()
    await asyncio.sleep(0.05)
    program = str(Path(sys.executable).with_name("chroma"))
    command = [program, "run", "--path", str(tmp_path), "--host", "127.0.0.1", "--port", str(port)]
    with servers.running(command, port):
        # Searches all the time do not keep tend from its turn.
        for _ in range(20):
            with contextlib.suppress(BackendError):
                await index.search("none", unit(1), 5)
        await asyncio.sleep(0.3)
        with contextlib.suppress(BackendError):
            await index.search("none", unit(1), 5)
        await index.tend(10.0)
        assert index.collection is not None
        assert await index.count() == 1
        await index.close()


async def test_a_server_whose_data_was_made_anew(tmp_path: Path) -> None:
    """A server restarted on an empty directory is used at once: nothing found, puts kept."""
    port = servers.free_port()
    program = str(Path(sys.executable).with_name("chroma"))
    index = ChromaIndex(
        namespace="n", model="m", default_context="none", url=f"http://127.0.0.1:{port}",
        search_timeout=10, write_timeout=20,
    )  # fmt: skip
    for number in range(2):
        command = [
            program, "run", "--path", str(tmp_path / str(number)), "--host", "127.0.0.1",
            "--port", str(port),
        ]  # fmt: skip
        with servers.running(command, port):
            if number == 0:
                await index.open()
            assert await index.search("none", unit(1), 5) == []
            await index.add("none", row("a", unit(1)))
            await index.tend(10.0)
            assert await index.count() == 1
    await index.close()
