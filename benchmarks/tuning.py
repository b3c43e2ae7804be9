"""Delay of tuning changes on all replicas: with notices, cut off, and without them.

    python -m benchmarks.tuning [--json]

Ten processes, 200 changes each way, on a real Redis and on the embedded store. A replica records
the time when another version comes into force; the delay of a change is that of the slowest
replica, from the beginning of its author's call.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import redis.asyncio as redis

from benchmarks.support.servers import redis_server
from cache_core import MultiLevelCache
from cache_core.config.live import POLL
from cache_core.config.settings import Settings

REPLICAS = 10
CHANGES = 200
_SETTLE = 3.0
_LEAST, _MOST = 0.0, 0.05


def _settings(url: str | None, directory: str) -> Settings:
    return Settings(redis_url=url, dir=Path(directory), tiers=frozenset({"l1"}))


async def replica(url: str | None, directory: str) -> None:
    """Follow until stdin closes, then print version and time of every version seen."""
    seen: list[tuple[int, float]] = []
    async with MultiLevelCache(settings=_settings(url, directory), instruments=()) as cache:
        live = cache._engine.live
        original = live._apply

        def noting(record: Any) -> None:
            original(record)
            seen.append((cache.tuning.version, time.time()))

        live._apply = noting  # type: ignore[method-assign]
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)
    print(json.dumps(seen), flush=True)


async def change(url: str | None, directory: str, *, cut: bool) -> dict[int, float]:
    """Make the changes; return the start of each."""
    began: dict[int, float] = {}
    chance = random.Random(7)
    killer = redis.Redis.from_url(url) if url is not None and cut else None
    async with MultiLevelCache(settings=_settings(url, directory), instruments=()) as cache:
        for number in range(CHANGES):
            if killer is not None and number % 10 == 5:
                await killer.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            at = time.time()
            values = {"semantic_threshold": round(chance.uniform(0.5, 1), 6)}
            began[(await cache.tune(values, author="benchmark")).version] = at
            await asyncio.sleep(chance.uniform(_LEAST, _MOST))
        await asyncio.sleep(_SETTLE)
    if killer is not None:
        await killer.aclose()
    return began


def measure(name: str, url: str | None, *, cut: bool = False) -> dict[str, Any]:
    """Return the delays of one way of following."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "benchmarks.tuning", "--replica", directory]
        if url is not None:
            command += ["--url", url]
        replicas = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(REPLICAS)
        ]
        for process in replicas:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        began = asyncio.run(change(url, directory, cut=cut))
        seen = [dict(json.loads(process.communicate("")[0])) for process in replicas]
    delays: list[float] = []
    for version, at in began.items():
        # a replica that skipped a version had it when it had a later one
        had = [min(t for v, t in found.items() if v >= version) for found in seen]
        delays.append(max(had) - at)
    delays.sort()
    return {
        "way": name,
        "replicas": REPLICAS,
        "changes": len(began),
        "converged": len({max(found) for found in seen}) == 1 and max(seen[0]) == max(began),
        "p50_ms": round(1000 * delays[len(delays) // 2], 1),
        "p99_ms": round(1000 * delays[int(len(delays) * 0.99)], 1),
        "max_ms": round(1000 * delays[-1], 1),
    }


def main() -> None:
    """Measure all ways of following, and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--replica", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.replica:
        asyncio.run(replica(options.url, options.replica))
        return
    found = []
    with tempfile.TemporaryDirectory() as directory, redis_server(Path(directory)) as url:
        found.append(measure("redis, notices", url))
    with tempfile.TemporaryDirectory() as directory, redis_server(Path(directory)) as url:
        found.append(measure("redis, subscribers cut off every 10 changes", url, cut=True))
    with tempfile.TemporaryDirectory() as directory, redis_server(Path(directory)) as url:
        asyncio.run(_forbid_channels(url))
        deaf = url.replace("redis://", "redis://least:secret@")
        found.append(measure(f"redis, no right to subscribe (asks; within {POLL:g} s)", deaf))
    found.append(measure("embedded", None))
    if options.json:
        print(json.dumps(found, indent=2))
        return
    for item in found:
        print(
            f"{item['way']}: p50 {item['p50_ms']} ms, p99 {item['p99_ms']} ms, "
            f"max {item['max_ms']} ms; all {item['replicas']} replicas converged: "
            f"{'yes' if item['converged'] else 'NO'}"
        )


async def _forbid_channels(url: str) -> None:
    async with redis.Redis.from_url(url) as client:
        words = "ACL SETUSER least on >secret ~gc1:* resetchannels +@all -@admin"
        await client.execute_command(*words.split())


if __name__ == "__main__":
    main()
