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

from cache_core.backends.base import Row
from cache_core.backends.chroma.index import (
    FLUSH_ROWS,
    FLUSH_SECONDS,
    ChromaIndex,
    Limits,
    _written_together,
)
from cache_core.backends.memory_index import MemoryIndex
from cache_core.model.exceptions import BackendError
from cache_core.testing import ChaosVectors, Faults, HashEmbedder
from cache_core.testing.contracts import IndexContract
from cache_core.testing.contracts.vectors import row, unit
from tests.support import servers
from tests.support.caches import CacheFactory
from tests.support.patience import PATIENT

Make = Callable[..., Awaitable[ChromaIndex]]

_numbers = itertools.count(1)


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
    own = f"test{next(_numbers)}"

    async def open_one(namespace: str = own, model: str = "m", **limits: int) -> ChromaIndex:
        index = ChromaIndex(
            namespace=namespace, model=model, default_context="default", **where,
            limits=Limits(search_timeout=10.0, write_timeout=20.0, **limits),
        )  # fmt: skip
        if kind == "chaos":
            index = CalmChaos(index, Faults(), search_timeout=10.0, write_timeout=20.0)
        made.append(index)
        await index.open()
        async with asyncio.timeout(60):
            while not index.connected:  # a busy server takes longer than opening waits
                await asyncio.sleep(0.02)
        return index

    yield open_one
    for index in made:
        await index.close()


@pytest.fixture
async def index(make: Make) -> ChromaIndex:
    return await make()


class TestChromaIndex(IndexContract):
    """The contract, over an embedded Chroma, a real Chroma server, and a calm double."""

    async def test_the_default_context_has_a_collection(self, index: ChromaIndex) -> None:
        """The collection that callers are given is that of the default context."""
        assert index.collection is not None
        assert await index.contexts() == ["default"]


class TestMemoryIndex(IndexContract):
    """The contract, over the index of a process that can have no other."""

    @pytest.fixture
    async def index(self) -> AsyncIterator[MemoryIndex]:
        made = MemoryIndex(max_contexts=8)
        await made.open()
        yield made
        await made.close()


async def test_a_row_is_found_after_it_was_written_out(index: ChromaIndex) -> None:
    """A row that left the buffer for Chroma is found exactly once, and counted once."""
    await index.add("default", row("a", unit(1)))
    await asyncio.sleep(FLUSH_SECONDS + 0.3)
    assert index.collection is not None
    assert [near.id for near in await index.search("default", unit(1), 5)] == ["a"]
    assert await index.count() == 1


async def test_a_row_that_chroma_refuses_keeps_no_other_out(index: ChromaIndex) -> None:
    """Another dimension, no number, no text: dropped and counted, and the others are written."""
    await index.add("default", row("first", unit(1)))
    await index.tend(time.time())
    await index.add("default", row("short", unit(1)[:8]))
    await index.add("default", row("nan", unit(1) * np.float32("nan")))
    await index.add("default", Row("text", unit(0, 1), "\ud800", 1e12))
    await index.add("default", row("second", unit(1, 1)))
    found = {near.id for near in await index.search("default", unit(1), 9)}
    assert found >= {"first", "second"}
    assert "short" not in found
    await index.tend(time.time())
    assert await index.count() == 2
    assert index.dropped == 3
    found = {near.id for near in await index.search("default", unit(1), 9)}
    assert found == {"first", "second"}
    await index.add("default", row("late", unit(1)[:8]))
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
        await index.add("default", row(f"old{number}", unit(1, number / 100), 50.0))
    await index.add("default", row("new", unit(1), 150.0))
    await index.tend(10.0)
    assert await index.count() == 31
    assert await index.sweep(100.0) == 30
    assert [near.id for near in await index.search("default", unit(1), 5)] == ["new"]


async def test_models_and_namespaces_are_kept_apart(make: Make) -> None:
    """Rows of another model or namespace are never found."""
    one = await make()
    await one.add("default", row("a", unit(1)))
    await one.tend(time.time())
    for other in (await make(model="other"), await make(namespace="elsewhere")):
        assert await other.search("default", unit(1), 5) == []


async def test_a_closed_index_is_all_there_when_opened_again(make: Make) -> None:
    """Closing writes out what waits; closing twice is closing once."""
    first = await make()
    for number in range(25):
        await first.add("default", row(f"r{number}", unit(1, number)))
    await first.close()
    await first.close()
    second = await make()
    assert await second.count() == 25
    assert [near.id for near in await second.search("default", unit(1), 1)] == ["r0"]


async def test_two_caches_of_one_process_share_an_index(make: Make) -> None:
    """Rows that one wrote out are found by the other, which outlives it."""
    first, second = await make(), await make()
    await first.add("default", row("a", unit(1)))
    await first.tend(time.time())
    assert [near.id for near in await second.search("default", unit(1), 5)] == ["a"]
    await first.close()
    await second.add("default", row("b", unit(0, 1)))
    await second.tend(time.time())
    assert await second.count() == 2


async def test_empty_contexts_are_dropped(make: Make) -> None:
    """A context without rows gives its place to another; with rows, waiting ones too, it stays."""
    index = await make(max_contexts=3)
    assert await index.add("one", row("a", unit(1), 50.0))
    assert await index.add("two", row("b", unit(1)))
    await index.tend(10.0)
    assert not await index.add("three", row("c", unit(1)))
    await index.sweep(100.0)
    assert await index.contexts() == ["default", "two"]
    assert await index.search("one", unit(1), 5) == []
    assert index.breaker.last_error == ""
    assert await index.add("three", row("c", unit(1)))
    await index.sweep(100.0)
    assert await index.contexts() == ["default", "three", "two"]
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
    assert index.accepts("default")
    assert index.accepts("one")
    await index.add("one", row("a", unit(1)))
    assert (index.accepts("one"), index.accepts("two"), index.accepts("default")) == (
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
    assert await second.contexts() == ["default", "english"]
    assert [near.id for near in await second.search("english", unit(1), 5)] == ["a"]


@pytest.mark.slow
@pytest.mark.parametrize("context", ["default", "english"])
@pytest.mark.parametrize("action", ["search", "present", "remove", "sweep", "count", "write"])
async def test_a_collection_made_anew_is_found(make: Make, context: str, action: str) -> None:
    """Any call that meets a replaced collection takes the new one immediately."""
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
        assert set(await index.texts(context, ["old", "new"])) == {"new"}
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
    """A dropped collection gives no results and no failure; a put makes it again."""
    index, other = await make(breaker_failures=1), await make()
    await index.add("english", row("old", unit(1)))
    await index.tend(10.0)
    name = index._chroma.collections["english"].name
    await other._chroma.call(other._chroma._client.delete_collection, name, timeout=20)
    assert await index.search("english", unit(1), 5) == []
    assert not await index.texts("english", ["old"])
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
        namespace="n", model="m", default_context="default", directory=tmp_path,
        limits=Limits(search_timeout=10, write_timeout=20),
    )  # fmt: skip
    await index.open()
    monkeypatch.setattr(index.collection, "query", panic)
    with pytest.raises(BackendError) as caught:
        await index.search("default", unit(1), 5)
    assert "PanicException: index out of bounds" in str(caught.value)
    assert "index out of bounds" in index.breaker.last_error
    monkeypatch.undo()
    assert await index.search("default", unit(1), 5) == []
    await index.close()


@pytest.mark.slow
def test_an_abandoned_index_gives_its_directory_back(tmp_path: Path) -> None:
    """After its event loop has ended without closing it, an index gives everything back, once."""

    def make_one() -> ChromaIndex:
        return ChromaIndex(
            namespace="n", model="m", default_context="default", directory=tmp_path,
            limits=Limits(search_timeout=10, write_timeout=20),
        )  # fmt: skip

    async def use(index: ChromaIndex) -> int:
        await index.open()
        await index.add("default", row("a", unit(1)))
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
from cache_core.backends.chroma.index import ChromaIndex, Limits
from cache_core.backends.base import Row

logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")

async def main():
    index = ChromaIndex(namespace="n", model="m", default_context="default",
                        directory=Path(sys.argv[1]),
                        limits=Limits(search_timeout=10, write_timeout=20))
    await index.open()
    vector = np.eye(16, dtype=np.float32)[0]
    print("place", index.place, "rows", await index.count())
    await index.add("default", Row("child", vector, "text", 1e12))
    await index.close()

asyncio.run(main())
"""


@pytest.mark.slow
async def test_a_second_process_takes_the_next_directory(tmp_path: Path) -> None:
    """Two processes never write into one directory; the second says where it went."""
    first = ChromaIndex(
        namespace="n", model="m", default_context="default", directory=tmp_path,
        limits=Limits(search_timeout=10, write_timeout=20),
    )  # fmt: skip
    await first.open()
    await first.add("default", row("parent", unit(1)))
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


@pytest.mark.slow
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
        namespace="n", model="m", default_context="default", directory=tmp_path,
        limits=Limits(search_timeout=10, write_timeout=20),
    )  # fmt: skip
    with caplog.at_level(logging.ERROR):
        await index.open()
    assert "set aside" in caplog.text
    assert (tmp_path / "chroma-0" / "1.corrupt").exists()
    assert await index.count() == 0
    await index.add("default", row("a", unit(1)))
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
        namespace="n", model="m", default_context="default",
        url=f"http://127.0.0.1:{servers.free_port()}",
    )  # fmt: skip
    started = time.monotonic()
    await index.open()
    assert time.monotonic() - started < 5
    for _ in range(6):
        with pytest.raises(BackendError):
            await index.search("default", unit(1), 5)
    assert await index.add("default", row("a", unit(1)))
    await index.close()


@pytest.mark.slow
@pytest.mark.server
async def test_a_server_that_never_answers(tmp_path: Path) -> None:
    """A server that accepts and says nothing is opened in the background; tend tries again."""
    busy = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await busy.wait()
        writer.close()

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    index = ChromaIndex(
        namespace="n", model="m", default_context="default", url=f"http://127.0.0.1:{port}",
        limits=Limits(search_timeout=10, write_timeout=20),
    )  # fmt: skip
    started = time.monotonic()
    await index.open()
    assert time.monotonic() - started < 8
    assert await index.add("default", row("a", unit(1)))
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
                await index.search("default", unit(1), 5)
        await asyncio.sleep(0.3)
        with contextlib.suppress(BackendError):
            await index.search("default", unit(1), 5)
        await index.tend(10.0)
        assert index.collection is not None
        assert await index.count() == 1
        await index.close()


@pytest.mark.slow
@pytest.mark.server
async def test_a_server_whose_data_was_made_anew(tmp_path: Path) -> None:
    """A server restarted on an empty directory is used immediately: nothing found, puts kept."""
    port = servers.free_port()
    program = str(Path(sys.executable).with_name("chroma"))
    index = ChromaIndex(
        namespace="n", model="m", default_context="default", url=f"http://127.0.0.1:{port}",
        limits=Limits(search_timeout=10, write_timeout=20),
    )  # fmt: skip
    for number in range(2):
        command = [
            program, "run", "--path", str(tmp_path / str(number)), "--host", "127.0.0.1",
            "--port", str(port),
        ]  # fmt: skip
        with servers.running(command, port):
            if number == 0:
                await index.open()
            assert await index.search("default", unit(1), 5) == []
            await index.add("default", row("a", unit(1)))
            await index.tend(10.0)
            assert await index.count() == 1
    await index.close()
