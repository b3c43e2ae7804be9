"""A Chroma that hangs, dies, refuses, is corrupt or full: what the agent sees of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from chromadb.api.rust import RustBindingsAPI

from cache_core import MultiLevelCache
from cache_core.backends.base import Row
from cache_core.backends.chroma.directory import Slot, close_client, open_directory
from cache_core.backends.chroma.index import BUFFER_ROWS
from cache_core.config.settings import Settings
from cache_core.runtime import background
from cache_core.testing import ChaosProxy, HashEmbedder
from cache_core.tiers.semantic import similar
from tests.support import servers
from tests.support.caches import opened
from tests.support.faults import Asker, Lines, answer, fill, question
from tests.support.patience import PATIENT
from tests.support.waiting import until

pytestmark = pytest.mark.server

ENTRIES = 4
FAILURES = 5
ONLY_L2 = frozenset({"l2"})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.BreakableChroma]:
    with servers.BreakableChroma(tmp_path_factory.mktemp("chroma")) as made:
        yield made


class World:
    """A cache that reaches its Chroma through a proxy, and what can be done to both."""

    def __init__(self, cache: MultiLevelCache, server: servers.BreakableChroma, proxy: ChaosProxy):
        self.cache, self.server, self.proxy = cache, server, proxy

    @property
    def breaker(self) -> str:
        state = self.cache.state
        assert state is not None
        return state.breakers["chroma"]

    @property
    def up(self) -> bool:
        state = self.cache.state
        return state is not None and state.backends["chroma"]

    async def similar(self, asker: Asker, number: int) -> Any:
        """Ask what only L2 can answer: the same words with commas between them."""
        words = ", ".join(question(number).split())
        started = time.monotonic()
        found = await self.cache.lookup(words, "ann")
        asker.slowest = max(asker.slowest, time.monotonic() - started)
        assert found.response in {None, answer(number, "ann")}
        return found


@pytest.fixture
async def world(
    server: servers.BreakableChroma, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[World]:
    namespace = "faults-" + str(abs(hash(request.node.name)))
    async with (
        ChaosProxy("127.0.0.1", server.port) as proxy,
        opened(tmp_path, chroma_url=proxy.url(server.url), namespace=namespace) as cache,
    ):
        made = World(cache, server, proxy)
        await until(lambda: made.up)
        await fill(cache, ENTRIES)
        yield made


Act = Callable[[World], Awaitable[None]]


def at_server(broken: Callable[[World], None], healed: Callable[[World], None]) -> tuple[Act, Act]:
    async def break_it(world: World) -> None:
        broken(world)

    async def heal(world: World) -> None:
        healed(world)

    return break_it, heal


def proxied(mode: Any) -> tuple[Act, Act]:
    async def break_it(world: World) -> None:
        await world.proxy.switch(mode)

    async def heal(world: World) -> None:
        await world.proxy.switch("pass")
        await world.proxy.cut()

    return break_it, heal


async def slow(world: World) -> None:
    world.proxy.latency = 2.5


async def fast(world: World) -> None:
    world.proxy.latency = 0.0


OUTAGES: dict[str, tuple[Act, Act]] = {
    "stopped": at_server(lambda world: world.server.stop(), lambda world: world.server.go_on()),
    "killed": at_server(lambda world: world.server.kill(), lambda world: world.server.start()),
    "slow": (slow, fast),
    **{mode: proxied(mode) for mode in ("black_hole", "refuse", "reset", "garbage")},
}


@pytest.mark.parametrize("kind", OUTAGES)
async def test_an_outage(kind: str, world: World, caplog: pytest.LogCaptureFixture) -> None:
    """L2 is off within its budget and soon costs nothing, the others go on; then it is back."""
    break_it, heal = OUTAGES[kind]
    cache, asker, lines = world.cache, Asker(world.cache), Lines(caplog)
    for _ in range(40):
        if (await world.similar(asker, 1)).tier == "l2":
            break
    else:
        pytest.fail("L2 does not serve")
    asker.slowest = 0.0
    await break_it(world)
    try:
        asked = 0
        while world.breaker != "open":
            await world.similar(asker, 1)
            asked += 1
            assert asked <= 6 * FAILURES
        assert asker.in_time()
        breaker = cache._parts.breakers["chroma"]
        faults, requests, since = breaker.faults, world.proxy.requests, time.monotonic()
        found = [await world.similar(asker, 1) for _ in range(50)]
        probes = 3 + 2 * (time.monotonic() - since) / cache.settings.breaker_probe
        assert breaker.faults - faults <= probes
        assert world.proxy.requests - requests <= 4 * probes
        assert sum("breaker_open" in item.reasons for item in found) >= len(found) - probes
        assert {item.tier for item in found} == {None}
        # The exact tiers don't notice: hits, puts, invalidations.
        await asker.served_by_l1([0, 1, 2, 3])
        await cache.put(question(5), "ann", answer(5, "ann"), shared=True)
        await asker.served_by_l1([5])
        done = await cache.invalidate(question(3))
        assert not done.complete
        assert "chroma" in done.pending
        assert cache.state is not None
        assert cache.state.pending_invalidations == 1
        assert (await asker.ask(3)).response is None
        assert (await asker.ask(3, "bob")).response is None
        assert asker.in_time()
    finally:
        await heal(world)
    await until(lambda: world.up)
    await until(lambda: cache.state is not None and cache.state.pending_invalidations == 0)
    for number, served in ((1, True), (3, False), (5, True)):
        for _ in range(40):
            found = [await world.similar(asker, number)]
            if not served or found[0].tier == "l2":
                break
            await asyncio.sleep(0.05)
        assert (found[0].response is not None) is served, number
    # Nothing that was put meanwhile is lost: it waited in the buffer.
    assert cache.state.dropped["vectors"] == 0
    assert lines.are_few()
    assert world.proxy.connections <= 20


async def test_rows_wait_in_a_bounded_buffer(world: World) -> None:
    """While Chroma is unavailable so many rows wait, and the others are dropped and counted."""
    await world.proxy.switch("refuse")
    index = world.cache._parts.semantic.engine  # type: ignore[union-attr]
    vector = await HashEmbedder().embed("x")
    room = BUFFER_ROWS - index._buffered
    for number in range(room + 50):
        await index.add("none", Row(f"row{number}", vector, "text", 1e12))
    state = world.cache.state
    assert state is not None
    assert state.dropped["vectors"] == 50


async def test_chroma_away_at_the_start(tmp_path: Path, server: servers.BreakableChroma) -> None:
    """A cache starts immediately without its Chroma, serves exactly, and finds it later."""
    async with ChaosProxy("127.0.0.1", server.port) as proxy:
        await proxy.switch("black_hole")
        began = time.monotonic()
        async with opened(
            tmp_path, chroma_url=proxy.url(server.url), namespace="away-at-start"
        ) as cache:
            assert time.monotonic() - began < 5
            world = World(cache, server, proxy)
            asker = Asker(cache)
            await fill(cache, 2)
            await asker.served_by_l1([0, 1])
            assert not world.up
            await proxy.switch("pass")
            await proxy.cut()
            await until(lambda: world.up)
            for _ in range(40):
                found = await world.similar(asker, 1)
                if found.tier == "l2":
                    break
                await asyncio.sleep(0.05)
            assert found.tier == "l2"


# ------------------------------------------------------------------------- embedded


def spoil(directory: Path, how: str) -> None:
    place = directory / "chroma-0" / "1"
    if how == "database":
        file = place / "chroma.sqlite3"
        file.write_bytes(os.urandom(2_000) + file.read_bytes()[2_000:])
    elif how == "index":
        for file in place.glob("*/*.bin"):
            file.write_bytes(os.urandom(100))
    else:
        shutil.rmtree(place)
        place.write_text("no directory")


@pytest.mark.parametrize("how", ["database", "index", "no directory"])
async def test_a_corrupt_directory_at_the_start(
    how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is set aside, L2 starts empty, everything else is as it was, and one line says so."""
    lines = Lines(caplog)
    async with opened(tmp_path) as cache:
        await fill(cache, ENTRIES)
        if how == "index":
            # So many that Chroma writes its index file.
            index = cache._parts.semantic.engine  # type: ignore[union-attr]
            for number in range(450):
                vector = await HashEmbedder().embed(f"padding{number}")
                await index.add(cache._parts.keys.no_context, Row(f"r{number}", vector, "x", 1e12))
    spoil(tmp_path, how)
    async with opened(tmp_path) as cache:
        asker = Asker(cache)
        await asker.served_by_l1([0, 1, 2, 3])
        await cache.put(question(9), "ann", answer(9, "ann"), shared=True)
        world = World(cache, None, None)  # type: ignore[arg-type]
        await until(lambda: world.up)
        for _ in range(40):
            found = await world.similar(asker, 9)
            if found.tier == "l2":
                break
            await asyncio.sleep(0.05)
        assert found.tier == "l2"
    assert lines.are_few()
    assert "set aside" in lines.text() or how == "no directory"


@pytest.mark.parametrize(
    "words", ["(code: 14) unable to open database file", 'message: "Too many open files"']
)
def test_a_sound_directory_that_cannot_be_opened_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    """A lack of open files or threads is no reason to set a sound index aside."""
    close(*open_directory(tmp_path))

    def fail(_: object) -> None:
        raise RuntimeError(words)

    with monkeypatch.context() as scarce:
        scarce.setattr(RustBindingsAPI, "start", fail)
        with pytest.raises(RuntimeError, match=re.escape(words)):
            open_directory(tmp_path)
    *opened_again, place = open_directory(tmp_path)
    close(*opened_again)
    assert Path(place).name == "1"


def test_a_second_corrupt_directory(tmp_path: Path) -> None:
    """It is set aside under another name than the first, also where no sound one is left."""
    for number in (1, 2):
        *found, place = open_directory(tmp_path)
        close(*found)
        assert Path(place).name == str(number)
        Path(place).rename(Path(place).with_suffix(".corrupt"))


def close(client: Any, slot: Slot, *_: object) -> None:
    close_client(client)
    slot.release()


FULL = """
import asyncio, json, os, sys
from pathlib import Path
from tests.support.patience import PATIENT
from tests.support.caches import opened
from tests.support.faults import Asker, answer, fill, question

async def main(full, other):
    report = {}
    where = full if sys.argv[3] == "all" else other
    async with opened(Path(full), **({} if sys.argv[3] == "all" else {"redis_url": sys.argv[4]})) as cache:
        asker = Asker(cache)
        await fill(cache, 4)
        await asker.served_by_l1([0, 1, 2, 3])
        filler = Path(full) / "filler"
        # The disk is full.
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError:
                pass
        for number in range(20, 60):
            await cache.put(question(number), "ann", answer(number, "ann"), shared=True)
        report["dropped"] = cache.metrics.snapshot()["puts"]["l1"].get("dropped", 0)
        found = await asker.ask_all(4)
        report["served"] = sum(item.tier == "l1" for item in found)
        words = ", ".join(question(1).split())
        report["l2"] = (await cache.lookup(words, "ann")).outcome
        done = await cache.invalidate(question(3))
        report["invalidated"] = (await asker.ask(3)).response
        await asyncio.sleep(1.5)
        report["in time"] = asker.in_time()
        filler.unlink()
        for _ in range(200):
            state = cache.state
            if not state.pending_invalidations and all(state.backends.values()):
                break
            await asyncio.sleep(0.05)
        report["up"] = dict(state.backends)
        report["pending"] = state.pending_invalidations
        await cache.put(question(9), "ann", answer(9, "ann"), shared=True)
        await asker.served_by_l1([0, 1, 2, 9])
        report["gone"] = (await asker.ask(3)).response
    print(json.dumps(report))

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


@pytest.mark.parametrize("what", ["all", "index"])
def test_a_full_disk(what: str, tmp_path: Path, empty_redis: str) -> None:
    """On a full disk reads go on and puts are dropped; with room again all is as before."""
    unshare = servers.require("unshare")
    full = tmp_path / "full"
    full.mkdir()
    script = tmp_path / "script.py"
    script.write_text(FULL, encoding="utf-8")
    mount = f"mount -t tmpfs -o size=64m tmpfs {full}"
    allowed = subprocess.run(
        [unshare, "-m", "sh", "-c", mount], capture_output=True, check=False, timeout=20
    )
    if allowed.returncode:
        pytest.skip("this machine does not let a test mount a small disk (unshare -m)")
    done = subprocess.run(
        [unshare, "-m", "sh", "-c",
         f'{mount} && exec "$@"', "sh", sys.executable, str(script), str(full), str(tmp_path),
         what, empty_redis],
        capture_output=True, text=True, check=False, timeout=100,
        env={**os.environ, "PYTHONPATH": str(Path.cwd()), "PYTHONWARNINGS": "default"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["invalidated"] is None
    assert report["gone"] is None
    assert report["in time"]
    assert report["pending"] == 0
    assert all(report["up"].values())
    assert report["served"] >= 6, report
    if what == "all":
        assert report["dropped"] > 0, report
    else:
        assert report["dropped"] == 0
    assert "Traceback" not in done.stderr, done.stderr


def replica(directory: Path, redis_url: str, url: str) -> MultiLevelCache:
    settings = Settings(dir=directory, redis_url=redis_url, chroma_url=url, **PATIENT)
    return MultiLevelCache(
        settings=settings, embedding_model=HashEmbedder(), namespace="waiting", instruments=()
    )


@contextlib.asynccontextmanager
async def one_cut_off(
    server: servers.BreakableChroma, redis_url: str, directory: Path
) -> AsyncIterator[tuple[ChaosProxy, MultiLevelCache, MultiLevelCache]]:
    """Yield two caches on one Redis and Chroma: the first reaches Chroma no more, by the proxy."""
    async with (
        ChaosProxy("127.0.0.1", server.port) as proxy,
        replica(directory / "a", redis_url, proxy.url(server.url)) as cut_off,
        replica(directory / "b", redis_url, server.url) as other,
    ):
        for cache in (cut_off, other):
            await until(lambda cache=cache: bool(cache.state and cache.state.backends["chroma"]))
        await proxy.switch("black_hole")
        await proxy.cut()
        yield proxy, cut_off, other


async def test_what_waits_for_a_chroma_that_is_away_is_found_by_invalidations(
    server: servers.BreakableChroma,
    empty_redis: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However long it waits: another process, which reaches Chroma, invalidates a like question.

    Rows that arrive once nobody would look for them any more must not bring answers back.
    """
    monkeypatch.setattr(similar, "ARRIVING_SECONDS", 5.0)
    monkeypatch.setattr(background, "RENEWED_SECONDS", 1.0)

    async with one_cut_off(server, empty_redis, tmp_path) as (proxy, cut_off, other):
        await cut_off.put("alpha beta", "ann", "old", shared=True)
        await asyncio.sleep(7.0)
        done = await other.invalidate("beta alpha")
        assert done.complete
        for message in ("alpha beta", "beta alpha"):
            assert (await other.lookup(message, "bob")).response is None
        await proxy.switch("pass")
        await proxy.cut()
        semantic = cut_off._parts.semantic
        await until(lambda: semantic.engine._buffered == 0 and not semantic.tier.rows._late)
        for message in ("alpha beta", "beta alpha"):
            for cache in (cut_off, other):
                assert (await cache.lookup(message, "bob")).response is None


async def test_what_no_invalidation_could_find_any_more_is_not_served(
    server: servers.BreakableChroma,
    empty_redis: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """More rows wait, in all processes together, than are kept for invalidations to find."""
    monkeypatch.setattr(similar, "_ARRIVING_KEPT", 1)
    monkeypatch.setattr(background, "RENEWED_SECONDS", 0.5)
    async with one_cut_off(server, empty_redis, tmp_path) as (proxy, cut_off, other):
        store, semantic = cut_off._parts.store, cut_off._parts.semantic
        await cut_off.put("alpha beta", "ann", "old", shared=True)
        await until(lambda: bool(semantic.tier.rows._waited))
        tag = cut_off._parts.keys.tag("alpha beta")
        while tag in await store.rows(semantic.similar._arriving_key):
            for number in range(3):
                await other.put(f"number {number} waits", "ann", "an answer", shared=True)
        assert (await other.invalidate("beta alpha")).complete
        await proxy.switch("pass")
        await proxy.cut()
        await until(lambda: semantic.engine._buffered == 0 and not semantic.tier.rows._late)
        for cache in (cut_off, other):
            assert (await cache.lookup("beta alpha", "bob")).response is None
        assert (await other.lookup("number 1, waits", "bob")).response == "an answer"
        assert not semantic.tier.rows._waited
