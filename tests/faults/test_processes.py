"""Invalidations across processes: the store unavailable, a process killed, an index of its own each."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import pytest

from cache_core.runtime import background
from cache_core.testing import ChaosStore, Faults
from tests.support import servers
from tests.support.caches import opened
from tests.support.faults import Asker, answer, fill, question
from tests.support.waiting import until

OTHER = """
import asyncio, sys
from pathlib import Path
from tests.support.caches import opened
from tests.support.faults import Asker, answer, fill, question

async def main(directory, url, what, number):
    number = int(number)
    async with opened(Path(directory), redis_url=url or None) as cache:
        await cache.ready()
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        if what == "put":
            await cache.put(question(number), "ann", answer(number, "ann"), shared=True)
            complete = True
        elif what == "forget":
            complete = (await cache.forget_user("ann")).complete
        else:
            words = ", ".join(question(number).split())
            complete = (await cache.invalidate(words)).complete
        print("done", complete, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)

asyncio.run(main(*sys.argv[1:]))
"""


class Other:
    """Another process that opens a cache over the same directory and store."""

    def __init__(self, directory: Path, script: Path, url: str, what: str, number: int) -> None:
        script.write_text(OTHER, encoding="utf-8")
        self.process = subprocess.Popen(
            [sys.executable, str(script), str(directory), url, what, str(number)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        )  # fmt: skip

    async def line(self) -> str:
        assert self.process.stdout is not None
        return (await asyncio.to_thread(self.process.stdout.readline)).decode().strip()

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(timeout=10)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


async def similar(cache: Any, number: int) -> Any:
    words = ", ".join(question(number).split())
    found = await cache.lookup(words, "ann")
    assert found.response in {None, answer(number, "ann")}
    return found


@pytest.mark.slow
async def test_workers_on_one_directory(tmp_path: Path) -> None:
    """Another process's answer is found by similarity here, and its invalidation takes ours."""
    directory = tmp_path / "data"
    async with opened(directory) as cache:
        await fill(cache, 2)
        assert (await similar(cache, 1)).tier == "l2"
        with Other(directory, tmp_path / "a.py", "", "put", 3) as other:
            assert await other.line() == "ready"
            other.go_on()
            assert await other.line() == "done True"
            assert (await Asker(cache).ask(3)).tier == "l1"
            deadline = time.monotonic() + 15
            while (await similar(cache, 3)).tier != "l2":
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
        with Other(directory, tmp_path / "b.py", "", "invalidate", 1) as other:
            assert await other.line() == "ready"
            other.go_on()
            assert await other.line() == "done True"
            # At once, not within a second: the token is in the store that both have.
            assert (await similar(cache, 1)).response is None
            assert (await Asker(cache).ask(1)).response is None
            assert (await similar(cache, 3)).tier == "l2"


@pytest.mark.server
@pytest.mark.parametrize("what", ["invalidate", "forget"])
@pytest.mark.parametrize("end", ["closes", "is killed"])
async def test_logged_while_the_store_is_unavailable(
    what: str, end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An invalidation of a process that ended is made by another one, when the store is back."""
    monkeypatch.setattr(background, "_COUNT_SECONDS", 0.2)
    directory = tmp_path / "data"
    with servers.BreakableRedis(tmp_path) as server:
        async with opened(directory, redis_url=server.url) as cache:
            asker = Asker(cache)
            await fill(cache, 2)
            await asker.served_by_l1([0, 1])
            with Other(directory, tmp_path / "a.py", server.url, what, 1) as other:
                assert await other.line() == "ready"
                server.stop()
                try:
                    other.go_on()
                    assert await other.line() == "done False"
                    if end == "closes":
                        other.go_on()
                        other.process.wait(timeout=30)
                    else:
                        other.process.send_signal(signal.SIGKILL)
                        other.process.wait(timeout=10)
                finally:
                    server.go_on()
            files = list(directory.glob("unconfirmed-*"))
            assert len(files) == 1
            assert files[0].stat().st_mode & 0o777 == 0o600
            number = 1 if what == "invalidate" else 0
            await until(lambda: not list(directory.glob("unconfirmed-*")))
            for user in ("ann", "bob") if what == "invalidate" else ("ann",):
                assert (await asker.ask(number, user)).response is None
            assert cache.state is not None
            assert cache.state.pending_invalidations == 0


@pytest.mark.server
async def test_logged_before_the_store_was_ever_reached(tmp_path: Path) -> None:
    """An invalidation that was made on a cache without a store is made by the next one."""
    with servers.BreakableRedis(tmp_path) as server:
        async with opened(tmp_path / "a", redis_url=server.url) as cache:
            await fill(cache, 2)
        server.stop()
        try:
            async with opened(tmp_path / "b", redis_url=server.url) as cache:
                assert not cache.is_open
                done = await cache.invalidate(question(1))
                assert (done.complete, done.pending) == (False, ("store",))
        finally:
            server.go_on()
        async with opened(tmp_path / "b", redis_url=server.url) as cache:
            await until(lambda: not list((tmp_path / "b").glob("unconfirmed-*")))
            asker = Asker(cache)
            assert (await asker.ask(1)).response is None
            await asker.served_by_l1([0])


@pytest.mark.server
async def test_what_waits_for_the_store_is_never_served_once_it_is_reached(
    tmp_path: Path,
) -> None:
    """The first lookup that is answered knows of what was invalidated before."""
    with servers.BreakableRedis(tmp_path) as server:
        async with opened(tmp_path / "a", redis_url=server.url) as cache:
            await fill(cache, 4)
        faults = Faults()
        more = {"wrap_store": lambda store: ChaosStore(store, faults), "redis_url": server.url}
        server.stop()
        async with opened(tmp_path / "b", **more) as cache:
            try:
                for number in (3, 1):
                    assert not (await cache.invalidate(question(number))).complete
                # From now on reading goes well and writing takes long.
                faults.always("hang", only=frozenset({"write"}))
            finally:
                server.go_on()
            asker = Asker(cache)
            await until(lambda: cache.is_open)
            for _ in range(20):
                assert (await asker.ask(1)).response is None
                await asyncio.sleep(0.01)
            faults.never()
            await until(lambda: cache.state is not None and not cache.state.pending_invalidations)
            assert (await asker.ask(3)).response is None
            await asker.served_by_l1([0, 2])
