"""Resources of a closed cache: files, tasks, threads and connections are given back."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import servers
from tests.support.caches import opened
from tests.support.faults import Asker, fill

CYCLES = 20


def _open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def _settled(count: Callable[[], int], most: int) -> int:
    """Return what *count* comes down to; threads and sockets take a moment to end."""
    for _ in range(100):
        gc.collect()
        if count() <= most:
            break
        await asyncio.sleep(0.05)
    return count()


def _threads() -> int:
    """Count threads, without the loop's own pool: it grows to its bound by itself."""
    return sum(not thread.name.startswith("asyncio_") for thread in threading.enumerate())


async def _cycles(directory: Path, fault: Callable[[int], None], **more: Any) -> None:
    """Open, use and close a cache again and again, with a fault in between; nothing is left."""
    files = threads = tasks = 0
    for cycle in range(CYCLES + 2):
        async with opened(directory, **more) as cache:
            asker = Asker(cache)
            await fill(cache, 2)
            await asker.ask_all(2)
            fault(cycle)
            await asker.ask_all(2)
            await cache.invalidate_tag("t")
            await asker.ask_all(2)
        if cycle == 1:
            # What is made once in a process is made by now.
            gc.collect()
            files, threads = _open_files(), _threads()
            tasks = len(asyncio.all_tasks())
    assert await _settled(_open_files, files) <= files
    assert await _settled(_threads, threads) <= threads
    assert await _settled(lambda: len(asyncio.all_tasks()), tasks) <= tasks


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux")
class TestNothingIsLeft:
    @pytest.mark.slow
    async def test_by_an_embedded_cache(self, tmp_path: Path) -> None:
        """Opening and closing a cache on a file leaks nothing."""
        await _cycles(tmp_path / "data", lambda _: None)

    @pytest.mark.server
    async def test_by_one_on_redis_that_is_killed_and_restarted(self, tmp_path: Path) -> None:
        """Opening and closing while Redis is killed, stopped and restarted leaks nothing."""
        with servers.BreakableRedis(tmp_path) as server:

            def fault(cycle: int) -> None:
                if cycle % 4 == 2:
                    server.kill()
                elif cycle % 4 == 3:
                    server.stop()
                    threading.Timer(0.3, server.go_on).start()

            def restarted(cycle: int) -> None:
                fault(cycle)
                if cycle % 4 == 2:
                    server.start()

            await _cycles(tmp_path / "data", restarted, redis_url=server.url)
            with servers.admin(server.url) as client:
                names = [
                    item for item in client.client_list() if item["id"] != str(client.client_id())
                ]
                assert names == [], "connections were left"

    @pytest.mark.server
    async def test_by_one_on_a_chroma_server_that_is_stopped(self, tmp_path: Path) -> None:
        """Opening and closing while a Chroma server is stopped and killed leaks nothing."""
        with servers.BreakableChroma(tmp_path / "chroma") as server:

            def fault(cycle: int) -> None:
                if cycle % 4 == 2:
                    server.stop()
                    threading.Timer(0.4, server.go_on).start()
                elif cycle % 4 == 3:
                    server.kill()
                    server.start()

            await _cycles(tmp_path / "data", fault, chroma_url=server.url)
