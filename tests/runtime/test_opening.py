"""Opening where nothing can be written, locked or imported: a part is off, and nothing raises."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from cache_core import MultiLevelCache, Settings
from cache_core.backends.base import RowWrite, Write
from cache_core.backends.sqlite.store import EmbeddedStore
from cache_core.runtime import assembly, directories
from cache_core.runtime.directories import usable_directory
from cache_core.testing import HashEmbedder
from tests.support import servers
from tests.support.caches import CacheFactory
from tests.support.paths import ROOT
from tests.support.patience import PATIENT


@pytest.fixture(autouse=True)
def _nothing_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directories, "_instead", {})


async def serves(**settings: Any) -> str:
    """Use every method of a cache; return where it ended up, and assert that L1 and L2 serve."""
    cache = MultiLevelCache(
        settings=Settings(**{**PATIENT, **settings}), embedding_model=HashEmbedder(), instruments=()
    )
    async with cache:
        await cache.put("alpha beta", "ann", "answer", "faq", [{"id": 1}], shared=True)
        assert (await cache.lookup("alpha beta", "ann")).tier == "l1"
        assert (await cache.lookup("beta alpha", "bob")).tier == "l2"
        assert await cache.get_or_compute("gamma", "ann", lambda: "computed") == "computed"
        assert (await cache.explain("alpha beta", "ann"))[0].outcome == "hit"
        await cache.ready()
        assert (await cache.invalidate("alpha beta")).complete
        assert (await cache.lookup("beta alpha", "bob")).response is None
        assert (await cache.forget_user("ann")).complete
        return str(cache._parts.semantic.engine.place) if cache._parts.semantic else ""


def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """No temporary directory either, as with a read-only root and no /tmp."""

    def none(*_: object, **__: object) -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "mkdtemp", none)
    monkeypatch.setattr(tempfile, "gettempdir", none)


def a_file(path: Path) -> Path:
    path.write_text("not a directory")
    return path


def below_a_file(path: Path) -> Path:
    return a_file(path) / "cache"


def proc(_: Path) -> Path:
    return Path("/proc/cache")


def a_loop(path: Path) -> Path:
    path.symlink_to(path)
    return path


def too_long(path: Path) -> Path:
    return path / ("x" * 300)


def read_only(path: Path) -> Path:
    path.mkdir(mode=0o500)
    if os.access(path, os.W_OK):
        pytest.skip("this user may write everywhere")
    return path


@pytest.mark.parametrize("make", [a_file, below_a_file, proc, a_loop, too_long, read_only])
@pytest.mark.parametrize("temporary", [True, False])
async def test_a_directory_that_cannot_be_used(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    make: Any,
    temporary: bool,
) -> None:
    """A temporary directory is used, or the memory of this process; why is said once."""
    if not temporary:
        nowhere(monkeypatch)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    place = await serves(dir=make(tmp_path / "wanted"))
    assert place.startswith(str(tmp_path)) if temporary else not place
    told = [line for line in caplog.messages if "CACHE_DIR" in line]
    assert len(told) == 1
    assert "cannot be used" in told[0] or "nor a temporary one can be used" in told[0]
    assert "REDIS_URL" not in caplog.text
    assert "CHROMA_URL" not in caplog.text


async def test_redis_and_nothing_to_write_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_redis: str
) -> None:
    """With Redis only the index is in the memory, and follows the others from the start."""
    nowhere(monkeypatch)
    where = {"dir": a_file(tmp_path / "wanted"), "redis_url": empty_redis}
    assert not await serves(**where)
    fixed = Settings(**{**PATIENT, **where})
    for number in range(2):
        cache = MultiLevelCache(
            settings=fixed, embedding_model=HashEmbedder(), instruments=(), namespace="feed"
        )
        async with cache:
            if number == 0:
                await cache.put("alpha beta", "ann", "answer", shared=True)
            await cache.ready()
            assert (await cache.lookup("beta alpha", "bob")).tier == "l2"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
def test_a_read_only_root(tmp_path: Path) -> None:
    """On a file system that is really read-only, without /tmp."""
    program = (
        "import asyncio; from cache_core import *; from cache_core.testing import HashEmbedder\n"
        "async def main():\n"
        " async with MultiLevelCache(instruments=(), embedding_model=HashEmbedder()) as cache:\n"
        "  await cache.put('a', 'ann', 'b'); print(await cache.get_multilevel('a', 'ann'))\n"
        "asyncio.run(main())"
    )
    script = 'mount --make-rprivate / && mount -o remount,ro,bind / && exec "$0" -c "$1"'
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", script, sys.executable, program],
        env={**os.environ, "CACHE_DIR": "/srv/cache", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True, text=True, timeout=60, check=False,
        cwd=ROOT,
    )  # fmt: skip
    if "mount:" in done.stderr or "unshare:" in done.stderr:
        pytest.skip("may not mount here")
    assert done.stdout.strip() == "b", done.stderr


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
@pytest.mark.parametrize("call", ["flock", "lockf"])
async def test_a_file_system_without_locks(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    code: int,
    call: str,
) -> None:
    """Files of this process alone are used; what the file system said is named."""
    wanted = tmp_path / "nfs"
    real = getattr(fcntl, call)

    def fail(file: int, operation: int) -> None:
        if str(Path(f"/proc/self/fd/{file}").readlink()).startswith(str(wanted)):
            raise OSError(code, os.strerror(code))
        real(file, operation)

    monkeypatch.setattr(fcntl, call, fail)
    place = await serves(dir=wanted)
    assert not place.startswith(str(wanted))
    assert os.strerror(code) in caplog.text
    assert "CHROMA_URL" not in caplog.text


def test_a_directory_that_somebody_else_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among temporary ones another user may have put it there: it is not used."""
    if os.geteuid() != 0:
        pytest.skip("needs to be root")
    shared = tmp_path / "tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    planted = shared / "glasscache-0"
    planted.mkdir()
    assert usable_directory(planted) == planted
    os.chown(planted, 54_321, 54_321)
    assert usable_directory(planted) != planted
    linked = shared / "linked"
    linked.symlink_to(tmp_path)
    os.lchown(linked, 54_321, 54_321)
    assert usable_directory(linked) != linked


async def test_a_directory_that_can_be_used_again(tmp_path: Path) -> None:
    """The next cache of the process uses it."""
    file = a_file(tmp_path / "wanted")
    assert usable_directory(file) != file
    file.unlink()
    assert usable_directory(file) == file


@pytest.mark.parametrize("directory", [True, False])
async def test_a_store_in_memory_is_a_store(tmp_path: Path, directory: bool) -> None:
    """Values, hashes, logs and leases, expiry, and what two concurrent calls do to one hash."""
    store = EmbeddedStore(tmp_path if directory else None)
    await store.open()
    await store.write([Write("a", "1", None), Write("b", "2", 0.0)])
    assert list(await store.read(["a", "b"])) == ["1", None]
    await store.put_rows([RowWrite("h", {"x": "1", "y": "2"}, None, 1)])
    assert await store.rows("h") == {"y": "2"}
    await store.append("log", ["one", "two"], keep=10)
    assert [value for _, value in await store.after("log", "", 10)] == ["one", "two"]
    assert await store.take_lease("l", "me", 5) == "me"
    assert await store.take_lease("l", "you", 5) == "me"
    await store.tend()
    listening = store.listen("any")
    await anext(listening)
    await store.write([Write("c", "3", None)])
    await anext(listening)
    await listening.aclose()  # type: ignore[attr-defined]
    await store.close()
    again = EmbeddedStore(tmp_path if directory else None)
    await again.open()
    assert list(await again.read(["a"])) == (["1"] if directory else [None])
    await again.close()


async def test_the_memory_is_one_for_all_loops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer invalidated in one loop is not served in another, even if nothing can be written."""
    monkeypatch.setattr(directories, "usable_directory", lambda _: None)
    monkeypatch.setattr(assembly, "usable_directory", lambda _: None)
    settings = Settings(**{**PATIENT, "dir": tmp_path})
    cache = MultiLevelCache(settings=settings, embedding_model=HashEmbedder(), instruments=())

    async def elsewhere(step: int) -> list[str | None]:
        messages = ["alpha", "beta", "gamma"]
        if step == 0:
            await asyncio.gather(*(cache.put(item, "ann", item) for item in messages))
        return [(await cache.lookup(item, "ann")).response for item in messages]

    async with cache:
        put = asyncio.to_thread(asyncio.run, elsewhere(0))
        mine = (cache.put(f"delta {number}", "ann", "delta") for number in range(20))
        assert (await asyncio.gather(put, *mine))[0] == ["alpha", "beta", "gamma"]
        assert (await cache.lookup("alpha", "ann")).response == "alpha"
        await cache.invalidate("alpha")
        assert await asyncio.to_thread(asyncio.run, elsewhere(1)) == [None, "beta", "gamma"]
        await cache.forget_user("ann")
        assert await asyncio.to_thread(asyncio.run, elsewhere(1)) == [None, None, None]
        assert cache.metrics.put_outcomes["dropped"] == 0


async def test_a_database_of_another_program(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Tables of the same names with other columns: set aside whole, and started anew."""
    with sqlite3.connect(tmp_path / "glasscache.db") as other:
        other.execute("CREATE TABLE entries (id INTEGER, text TEXT)")
        other.execute("INSERT INTO entries VALUES (1, 'theirs')")
    other.close()
    await serves(dir=tmp_path)
    assert "set aside" in caplog.text
    kept = sqlite3.connect(tmp_path / "glasscache.db.corrupt-1")
    assert kept.execute("SELECT text FROM entries").fetchall() == [("theirs",)]
    kept.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "variables",
    [
        {"PERSIST_DIRECTORY": "/nope", "CHROMA_SERVER_HOST": "x", "CHROMA_SERVER_HTTP_PORT": "9"},
        {"CHROMA_API_IMPL": "chromadb.api.fastapi.FastAPI", "ALLOW_RESET": "true"},
        {"IS_PERSISTENT": "banana"},
    ],
)
def test_variables_of_chroma(tmp_path: Path, variables: dict[str, str]) -> None:
    """L2 works as without them; what keeps chromadb from being imported is said, with L2 off."""
    program = (
        "import asyncio; from cache_core import *; from cache_core.testing import HashEmbedder\n"
        "async def main():\n"
        " cache = MultiLevelCache(instruments=(), embedding_model=HashEmbedder(), sharing='all')\n"
        " async with cache:\n"
        "  await cache.put('alpha beta', 'ann', 'b')\n"
        "  print((await cache.lookup('alpha beta', 'bob')).tier)\n"
        "  print((await cache.lookup('beta alpha', 'bob')).tier)\n"
        "asyncio.run(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **variables, "CACHE_DIR": str(tmp_path), "CACHE_SEARCH_BUDGET": "10"},
        capture_output=True, text=True, timeout=60, check=False,
        cwd=ROOT,
    )  # fmt: skip
    off = "IS_PERSISTENT" in variables
    assert done.stdout.split() == ["l1", "None" if off else "l2"], done.stderr
    assert ("L2 is off" in done.stderr and "IS_PERSISTENT" in done.stderr) == off


async def test_an_extra_that_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever importing it raises: L2 is off, said once, and the rest works."""
    from cache_core.runtime import semantic

    async def broken(*_: object) -> None:
        raise RuntimeError("Your system has an unsupported version of sqlite3")

    monkeypatch.setattr(semantic, "assemble_semantic", broken)
    settings = Settings(dir=tmp_path)
    async with MultiLevelCache(settings=settings, embedding_model=HashEmbedder()) as cache:
        await cache.put("alpha", "ann", "answer")
        assert (await cache.lookup("alpha", "ann")).response == "answer"
        with pytest.raises(ValueError, match=r"unsupported version of sqlite3.*pip check"):
            await cache.ready()
    assert caplog.text.count("L2 is off: RuntimeError: Your system") == 1


async def test_a_server_is_unaffected(tmp_path: Path, chroma_url: str) -> None:
    """A Chroma server needs no directory, and no word is lost on it."""
    assert servers.port_of(chroma_url)
    assert await serves(dir=tmp_path, chroma_url=chroma_url) == "None"


@pytest.fixture
async def cache(make_cache: CacheFactory) -> MultiLevelCache:
    made: MultiLevelCache = await make_cache(settings=PATIENT)
    return made


_WITHOUT = """
import asyncio, json, logging, sys

# None means: importing it fails, and there is no spec of it, as if it were not installed.
sys.modules.update(dict.fromkeys(sys.argv[2].split(",")))

class Lines(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lines = []
    def emit(self, record):
        self.lines.append(record.getMessage())

handler = Lines()
logging.getLogger("glasscache").addHandler(handler)

import cache_core

async def main():
    async with cache_core.MultiLevelCache(settings=cache_core.Settings(dir=sys.argv[1])) as cache:
        await cache.put("alpha", "ann", "answer", "faq", [{"id": 1}])
        hit = await cache.lookup("alpha", "ann")
        partial = await cache.lookup("alpha", "bob")
        await cache.invalidate("alpha")
        await cache.forget_user("ann")
        try:
            await cache.ready()
        except cache_core.ConfigurationError as error:
            told = str(error)
        else:
            told = ""
        print(json.dumps([hit.outcome, partial.outcome, told, handler.lines,
                          {e.level: e.outcome for e in await cache.explain("alpha", "ann")}]))

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "missing",
    ["chromadb", "numpy,chromadb,sentence_transformers,torch,tokenizers,filelock,transformers"],
)
def test_a_missing_extra(tmp_path: Path, missing: str) -> None:
    """Without the semantic extra L2 is off, says once how to get it, and the rest works."""
    child = subprocess.run(
        [sys.executable, "-c", _WITHOUT, str(tmp_path), missing],
        capture_output=True, text=True, timeout=60, cwd=ROOT, check=False,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr
    hit, partial, told, lines, explained = json.loads(child.stdout)
    assert (hit, partial, explained["l2"]) == ("hit", "partial", "off")
    assert "glasscache[semantic]" in told
    assert len([line for line in lines if "glasscache[semantic]" in line]) == 1


async def test_no_thread_can_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At the limit of threads a lookup is an error that says so; later all is well."""

    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    cache = MultiLevelCache(
        settings=Settings(**{**PATIENT, "dir": tmp_path, "tiers": frozenset({"l1"})}),
        instruments=(),
    )
    with monkeypatch.context() as limited:
        limited.setattr(threading.Thread, "start", refuse)
        found = await cache.lookup("alpha", "ann")
        await cache.put("alpha", "ann", "a")
    assert found.outcome == "error"
    assert "can't start new thread. Raise the limit of threads" in caplog.text
    await cache.ready()
    await cache.put("alpha", "ann", "a")
    assert (await cache.lookup("alpha", "ann")).response == "a"
    await cache.close()


@pytest.mark.slow
@pytest.mark.parametrize("when", ["atexit", "finaliser"])
def test_asked_while_the_interpreter_ends(tmp_path: Path, when: str) -> None:
    """A lookup is an error then; it neither raises nor keeps the process from ending."""
    program = f"""
import asyncio, atexit, os
os.environ.update(CACHE_DIR={str(tmp_path)!r}, CACHE_TIERS="l1")
from cache_core import MultiLevelCache

class Agent:
    def __init__(self):
        self.cache = MultiLevelCache()

    def ask(self):
        return asyncio.run(self.cache.lookup("alpha", "ann")).outcome

    def __del__(self):
        print("finaliser", self.ask())

agent = Agent()
print("first", agent.ask())
atexit.register(lambda: print("atexit", agent.ask()))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "first miss" in done.stdout
    assert f"{when} error" in done.stdout, done.stderr
