"""Forked processes: what a parent opened stays the parent's, and its children serve on their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cache_core.backends.base import Row, Vector
from cache_core.backends.memory_index import MemoryIndex
from tests.support import processes

PARENT = """
import asyncio, faulthandler, json, os, sys, time, warnings
from cache_core import MultiLevelCache, close_cache, get_cache
from cache_core.backends.embedder.pool import ThreadEmbedder
from cache_core.testing import HashEmbedder

class Words:
    def __init__(self): self.inner = HashEmbedder()
    def encode(self, texts):
        import numpy
        loop = asyncio.new_event_loop()
        try: return numpy.stack([loop.run_until_complete(self.inner.embed(text)) for text in texts])
        finally: loop.close()
    def fits(self, text): return True
    def knows(self, text): return True

loads = []
def load(name):
    loads.append(os.getpid())
    return Words()

way = os.environ["WAY"]
embedder = ThreadEmbedder("words", load)
cache = MultiLevelCache(embedding_model=embedder, sharing="all")

async def warm():
    await cache.ready()
    for name in ("alpha beta", "gamma delta"):
        await cache.put(name, "ann", "of the parent")
    assert (await cache.lookup("beta alpha", "bob")).tier == "l2"
    # Replication asks for it in the background: a model that encodes during a fork is loaded again.
    await embedder.embed("dimension")
    if way == "closed":
        await cache.close()

async def serve():
    # Rows of others come within a second or so.
    end = time.monotonic() + 30
    while (similar := await cache.lookup("beta alpha", "bob")).tier != "l2" and time.monotonic() < end:
        await asyncio.sleep(0.05)
    exact = await cache.lookup("alpha beta", "bob")
    await cache.put(f"child {os.getpid()}", "ann", "of a child")
    own = await cache.lookup(f"child {os.getpid()}", "bob")
    made = await cache.get_or_compute(f"made {os.getpid()}", "ann", lambda: "made")
    found = [similar.response, similar.tier, exact.response, own.response, made]
    assert cache.metrics.lookups < 1 + 30 / 0.05
    await cache.close()
    return found

def child():
    faulthandler.dump_traceback_later(50, file=sys.stdout)
    try:
        found = asyncio.run(serve())
        print(json.dumps([found, loads == [os.getppid()]]), flush=True)
    except BaseException as error:
        print(json.dumps([f"{type(error).__name__}: {error}"]), flush=True)
    # As multiprocessing does: in a running loop the parent's clean-up is not the child's.
    os._exit(0) if way == "running" else sys.exit(0)

def fork():
    pids = []
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            child()
        pids.append(pid)
    return pids

def wait(pids):
    end = time.monotonic() + 60
    for pid in pids:
        while os.waitpid(pid, os.WNOHANG)[0] == 0:
            if time.monotonic() > end:
                os.kill(pid, 9)
                print(json.dumps(["hangs"]), flush=True)
                os.waitpid(pid, 0)
                break
            time.sleep(0.02)

async def after():
    await cache.ready()
    assert (await cache.lookup("alpha beta", "bob")).response == "of the parent"
    assert (await cache.lookup("beta alpha", "bob")).tier == "l2"
    await cache.put("epsilon", "ann", "later")
    assert (await cache.lookup("epsilon", "bob")).response == "later"
    await cache.close()

async def running():
    await warm()
    pids = fork()
    await asyncio.to_thread(wait, pids)
    await after()

if way == "running":
    asyncio.run(running())
else:
    asyncio.run(warm())
    if way == "hosted":
        asyncio.run(cache.get_multilevel("alpha beta", "bob"))
    wait(fork())
    asyncio.run(after())
print("parent", json.dumps(loads == [os.getpid()]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", ["closed", "open", "hosted", "running"])
def test_workers_of_a_parent_that_used_the_cache(
    way: str, store_kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Each child finds what the parent stored, exact and similar, and stores its own; none hangs.

    Whether the parent closed the cache, left it open with its loop, has it open in the thread for
    other loops, or forks inside the running loop. The model is not loaded again.
    """
    url = request.getfixturevalue("empty_redis") if store_kind == "redis" else ""
    out = processes.run(PARENT, tmp_path, WAY=way, REDIS_URL=url)
    found = ["of the parent", "l2", "of the parent", "of a child", "made"]
    lines = out.splitlines()
    assert "hangs" not in out, out
    assert [json.loads(line) for line in lines[:-1]] == [[found, True]] * 2
    assert lines[-1] == "parent true"


APPROVES = """
import asyncio, json, os, threading, time
from cache_core import MultiLevelCache
from cache_core.testing import HashEmbedder

parent, asked, release = os.getpid(), threading.Event(), threading.Event()
STORED = "can the shop send my parcel on to the office"
NEAR = STORED.replace("office", "garden")

def approve(message, stored, response):
    if os.getpid() == parent:
        asked.set()
        release.wait()
    return True

cache = MultiLevelCache(embedding_model=HashEmbedder(), approve=approve)

async def child():
    # Rows of the parent come within a second or so.
    end = time.monotonic() + 30
    while (found := await cache.lookup(NEAR, "eve")).response is None and time.monotonic() < end:
        await asyncio.sleep(0.05)
    counted = cache.get_metrics()["approvals"]
    await cache.close()
    return [found.response, found.reasons[-1:], counted["approved"], counted["failed"]]

async def main():
    await cache.ready()
    await cache.tune({"approve_margin": 0.1}, author="test")
    await cache.put(STORED, "ann", "the answer", shared=True)
    lookup = asyncio.create_task(cache.lookup(NEAR, "bob"))
    await asyncio.to_thread(asked.wait)
    pid = os.fork()
    if pid == 0:
        print(json.dumps(asyncio.run(child())), flush=True)
        os._exit(0)
    await asyncio.to_thread(os.waitpid, pid, 0)
    release.set()
    found = await lookup
    print(json.dumps([found.response, found.reasons[-1:], cache.get_metrics()["approvals"]["approved"]]))
    await cache.close()

asyncio.run(main())
"""


@pytest.mark.slow
def test_a_child_asks_the_approver_itself(
    store_kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """A call that is under way in the parent during the fork is the parent's alone."""
    url = request.getfixturevalue("empty_redis") if store_kind == "redis" else ""
    out = processes.run(APPROVES, tmp_path, REDIS_URL=url)
    child, parent = (json.loads(line) for line in out.splitlines())
    assert child == ["the answer", ["approved"], 1, 0]
    assert parent == ["the answer", ["approved"], 1]


# --------------------------------------------------------------------------- records in the store

PARSES = """
import os, signal, threading
from dataclasses import dataclass
from cache_core.model import stored

@dataclass
class Seen:
    at: float

begun, adapter = threading.Event(), stored.TypeAdapter
def importing(record):
    begun.set()
    import imported_slowly
    return adapter(record)

form = stored.Format(Seen)
stored.TypeAdapter = importing
thread = threading.Thread(target=form.parse, args=('{"at": 1}',))
thread.start()
begun.wait(60)
pid = os.fork()
if pid == 0:
    signal.alarm(20)
    import imported_slowly
    os._exit(0 if form.parse('{"at": 2}') == Seen(2) else 1)
print(os.waitpid(pid, 0)[1])
thread.join()
"""


def test_a_record_is_parsed_in_a_child_forked_while_its_parent_prepares_to_parse(
    tmp_path: Path,
) -> None:
    """The child does not wait for an import that a thread of its parent had begun."""
    (tmp_path / "imported_slowly.py").write_text("import time; time.sleep(0.5)")
    assert processes.run(PARSES, tmp_path).strip() == "0"


# ------------------------------------------------------------------------------ the index in memory


def unit(*values: float) -> Vector:
    vector = np.zeros(8, dtype=np.float32)
    vector[: len(values)] = values
    return vector / np.linalg.norm(vector)


async def test_the_index_in_memory() -> None:
    """It finds what a search of all rows finds, after any adds, replacements and removals."""
    dice = np.random.default_rng(7)
    index, rows = MemoryIndex(), {}
    for number in range(2_000):
        name = f"r{dice.integers(300)}"
        if dice.random() < 0.3:
            assert await index.remove("c", [name]) == (rows.pop(name, None) is not None)
            continue
        rows[name] = Row(name, unit(*dice.standard_normal(8)), f"text {number}", float(number))
        assert await index.add("c", rows[name])
    assert await index.count() == len(rows)
    vector = unit(*dice.standard_normal(8))
    expected = sorted(rows.values(), key=lambda row: -float(row.vector @ vector))[:10]
    found = await index.search("c", vector, 10)
    assert [(near.id, near.text) for near in found] == [(row.id, row.text) for row in expected]
    assert found[0].similarity == pytest.approx(float(expected[0].vector @ vector), abs=1e-5)
    await index.tend(1_500.0)
    left = {name for name, row in rows.items() if row.dropped >= 1_500.0}
    assert set(await index.texts("c", list(rows))) == left
    await index.tend(1e9)
    assert (await index.contexts(), await index.search("c", vector, 5)) == ([], [])


async def test_the_index_in_memory_is_bounded() -> None:
    """The oldest row goes for a new one, and contexts over the limit are refused."""
    index = MemoryIndex(max_contexts=2, most_rows=10)
    for number in range(25):
        context = f"c{number % 2}"
        assert await index.add(context, Row(f"r{number}", unit(1, number), "", 1e9))
    assert not await index.add("c2", Row("r", unit(1), "", 1e9))
    assert await index.count() == 10
    assert set(await index.texts("c0", [f"r{n}" for n in range(25)])) == {
        "r16", "r18", "r20", "r22", "r24",
    }  # fmt: skip


FORKING = """
import asyncio, os, sys
from pathlib import Path
from cache_core import MultiLevelCache
from cache_core.config.settings import Settings
from cache_core.testing import HashEmbedder

settings = Settings(dir=Path(sys.argv[1]), exact_budget=10, embedding_budget=10, search_budget=10,
                    lookup_budget=20, put_budget=20)

def make():
    return MultiLevelCache(settings=settings, embedding_model=HashEmbedder(), instruments=())

async def use(cache, name):
    await cache.ready()
    await cache.put(f"{name} question", None, name, shared=True)
    assert (await cache.lookup(f"question {name}", "u")).tier == "l2", name
    return cache._parts.semantic.engine.place

kept = make()
loop = asyncio.new_event_loop()
place = loop.run_until_complete(use(kept, "parent"))
child = os.fork()
if child == 0:
    status = 1
    try:
        async def own():
            async with make() as cache:
                return await use(cache, "child")
        mine = asyncio.new_event_loop().run_until_complete(own())
        status = 0 if mine != place else 2
    except BaseException as error:
        print("child:", repr(error), file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(status)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0, os.waitstatus_to_exitcode(status)
assert loop.run_until_complete(use(kept, "after")) == place
assert loop.run_until_complete(kept.lookup("question parent", "u")).response == "parent"
loop.run_until_complete(kept.close())
print("done")
"""


@pytest.mark.slow
def test_a_forked_child_has_an_index_of_its_own(tmp_path: Path) -> None:
    """Chroma's directory is one process's: a child that kept its parent's would lose entries."""
    done = subprocess.run(
        [sys.executable, "-c", FORKING, str(tmp_path / "cache")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.strip() == "done", done.stderr
