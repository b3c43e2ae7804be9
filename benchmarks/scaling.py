"""Needs of lookups: processors, network and memory, and what to run for how many of them.

Measured for each vector engine: the CPU time of this process (embeddings included), of Redis and of
a Chroma server, the bytes to and from Redis, and the memory of an entry with an answer of 2,000
bytes. What an idle cache needs a second is subtracted, and has rows of its own. From these
constants follows what a rate of lookups takes, by multiplication.

    python -m benchmarks.scaling                 about two minutes
    python -m benchmarks.scaling --write-docs    and the tables in docs/scaling.md
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import math
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import redis
from rich.console import Console

from benchmarks.support.docs_table import MEASURED, SCALING, machine, markdown, write
from benchmarks.support.questions import pairs, unrelated
from benchmarks.support.servers import chroma_process, redis_process
from cache_core import MultiLevelCache
from cache_core.config.settings import Settings

RECORDED = MEASURED / "scaling.json"
ENGINES = {
    "embedded": "embedded Chroma",
    "server": "Chroma server",
    "redis": "Redis vector sets",
}
KINDS = ("L1 hit", "L2 hit", "miss", "put")
MIX = {"L1 hit": 0.35, "L2 hit": 0.30, "miss": 0.35, "put": 0.35}
"""Share of each kind: every miss is followed by a put."""

RATES = (1, 10, 1_000, 10_000)
BUSY = 0.6
"""Most of a core's time that is planned for, so that bursts do not queue."""

LIFETIME = 86_400
MOST_ENTRIES = 10_000_000
"""Entries kept at most; docs/scaling.md shows what a smaller cache costs."""

MANY = (10_000_000, 100_000_000)
MASTER_GIGABYTES = 25
"""Memory of one Redis master that still restarts and copies itself within minutes."""

CONSTANTS_HEADER = (
    "engine", "call", "process, CPU us", "Redis, CPU us", "Chroma server, CPU us",
    "to Redis, bytes", "from Redis, bytes",
)  # fmt: skip
PLAN_HEADER = (
    "lookups a second", "engine", "process cores", "Redis cores", "Chroma cores",
    "Redis, Mbit/s", "entries", "Redis, GB",
)  # fmt: skip

PAPER_HEADER = (
    "entries", "engine", "Redis, GB", f"masters of {MASTER_GIGABYTES} GB", "Chroma, GB of files",
    "Chroma, GB of memory",
)  # fmt: skip

_ANSWER_BYTES = 2_000
_SETTLE = 2.0
"""Seconds in which deferred writes are done."""

_ALIKE = 0.955

console = Console(stderr=True)


def _cpu_of(pid: int) -> float:
    """Return the CPU time of a process so far, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Meter:
    """Counters of this process, Redis and a Chroma server.

    Args:
        url: URL of the Redis.
        chroma: Process id of a Chroma server; `None` without one.
    """

    def __init__(self, url: str, chroma: int | None) -> None:
        self._client = redis.Redis.from_url(url)
        self._chroma = chroma
        self._pid = int(self._client.info("server")["process_id"])

    def read(self) -> dict[str, float]:
        """Return the counters."""
        stats = self._client.info("stats")
        return {
            "process_us": 1e6 * time.process_time(),
            "redis_us": 1e6 * _cpu_of(self._pid),
            "chroma_us": 0.0 if self._chroma is None else 1e6 * _cpu_of(self._chroma),
            "in_bytes": float(stats["total_net_input_bytes"]),
            "out_bytes": float(stats["total_net_output_bytes"]),
        }

    def memory(self) -> int:
        """Return the memory that the Redis uses, in bytes."""
        return int(self._client.info("memory")["used_memory"])

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


async def measure(
    settings: Settings, meter: Meter, texts: Sequence[tuple[str, str]], others: Sequence[str]
) -> dict[str, Any]:
    """Return the counters of one call of each kind, and the memory of one entry.

    Args:
        settings: Settings of the cache.
        meter: Counters of its servers.
        texts: Questions to store, each with a rewording to ask.
        others: As many questions that miss.
    """
    calls = len(texts)
    found: dict[str, Any] = {}
    async with MultiLevelCache(settings=settings, namespace="scaling") as cache:
        await cache.ready()
        await cache.put("Is anybody there?", None, "warm", shared=True)

        async def each(kind: str, call: Callable[[int], Awaitable[bool]]) -> None:
            before, started, right = meter.read(), time.monotonic(), 0
            for number in range(calls):
                right += await call(number)
            await asyncio.sleep(_SETTLE)  # what was deferred belongs to these calls
            after, seconds = meter.read(), time.monotonic() - started
            idle = found["idle"]
            found[kind] = {
                name: max(0.0, after[name] - before[name] - idle[name] * seconds) / calls
                for name in after
            }
            found[kind]["as_intended"] = right

        async def put(number: int) -> bool:
            answer = f"answer {number} ".ljust(_ANSWER_BYTES, "v")
            await cache.put(texts[number][0], None, answer, shared=True)
            return True

        async def look(text: str, outcome: str, tier: str | None) -> bool:
            result = await cache.lookup(text, "ann")
            return result.outcome == outcome and result.tier == tier

        await asyncio.sleep(_SETTLE)
        before, started, used = meter.read(), time.monotonic(), meter.memory()
        await asyncio.sleep(2 * _SETTLE)
        after, seconds = meter.read(), time.monotonic() - started
        found["idle"] = {name: (after[name] - before[name]) / seconds for name in after}
        await each("put", put)
        found["entry_bytes"] = (meter.memory() - used) / calls
        await each("L1 hit", lambda n: look(texts[n][0], "hit", "l1"))
        await each("L2 hit", lambda n: look(texts[n][1], "hit", "l2"))
        await each("miss", lambda n: look(others[n], "miss", None))
    return found


def constants(calls: int) -> dict[str, Any]:
    """Measure every engine."""
    found: dict[str, Any] = {}
    for number, (engine, title) in enumerate(ENGINES.items()):
        # the vectors of texts asked before are cached
        these = slice(number * calls, (number + 1) * calls)
        console.print(f"measuring: {title}")
        with contextlib.ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="glasscache-")))
            on_redis = engine == "redis"
            settings: dict[str, Any] = {
                "dir": directory / "cache",
                "vectors": "redis" if on_redis else "chroma",
            }
            port = stack.enter_context(redis_process(directory, vectors=on_redis)).port
            chroma = None
            if engine == "server":
                server = stack.enter_context(chroma_process(directory / "chroma"))
                chroma = server.process.pid
                settings["chroma_url"] = f"http://127.0.0.1:{server.port}"
            # no caller waits: a slow machine must not change what is measured
            budgets = dict.fromkeys(
                (
                    "lookup_budget",
                    "put_budget",
                    "exact_budget",
                    "embedding_budget",
                    "search_budget",
                ),
                30.0,
            )
            url = f"redis://127.0.0.1:{port}/0"
            meter = Meter(url, chroma)
            stack.callback(meter.close)
            found[engine] = asyncio.run(
                measure(
                    Settings(redis_url=url, **settings, **budgets),
                    meter,
                    pairs()[these],
                    unrelated()[these],
                )
            )
    return found


def plan(constants: Mapping[str, Any], rate: int) -> dict[str, float]:
    """Return what *rate* lookups a second take.

    Args:
        constants: Constants of one engine.
        rate: Lookups a second.
    """

    def total(name: str) -> float:
        return rate * sum(share * constants[kind][name] for kind, share in MIX.items())

    entries = min(rate * MIX["put"] * LIFETIME, MOST_ENTRIES)
    return {
        "process_cores": total("process_us") / 1e6 / BUSY,
        "redis_cores": total("redis_us") / 1e6 / BUSY,
        "chroma_cores": total("chroma_us") / 1e6 / BUSY,
        "megabits": 8 * (total("in_bytes") + total("out_bytes")) / 1e6,
        "entries": entries,
        "redis_gigabytes": entries * constants["entry_bytes"] / 1e9,
    }


def constants_table(found: Mapping[str, Any]) -> str:
    """Return the measured constants for the documentation."""
    rows = []
    for engine, each in found["engines"].items():
        for kind in (*KINDS, "idle"):
            one = each[kind]
            names = ("process_us", "redis_us", "chroma_us", "in_bytes", "out_bytes")
            first = ENGINES[engine] if kind == KINDS[0] else ""
            called = "a second, idle" if kind == "idle" else kind
            rows.append([first, called, *(f"{one[name]:,.0f}" for name in names)])
    memory = ", ".join(
        f"{each['entry_bytes']:,.0f} bytes with {ENGINES[engine]}"
        for engine, each in found["engines"].items()
    )
    return (
        f"{markdown(CONSTANTS_HEADER, rows)}\n\n"
        f"Redis keeps, for a shared entry with an answer of {_ANSWER_BYTES:,} bytes: {memory}. "
        f"{found['machine']}."
    )


def plan_table(found: Mapping[str, Any]) -> str:
    """Return what each rate takes, for the documentation."""
    rows = []
    for rate in RATES:
        for number, (engine, each) in enumerate(found["engines"].items()):
            needs = plan(each, rate)
            rows.append(
                [
                    f"{rate:,}" if number == 0 else "",
                    ENGINES[engine],
                    *(_cores(needs[f"{part}_cores"]) for part in ("process", "redis", "chroma")),
                    f"{needs['megabits']:,.2f}",
                    f"{needs['entries']:,.0f}",
                    f"{needs['redis_gigabytes']:,.2f}",
                ]
            )
    return markdown(PLAN_HEADER, rows)


def paper_table(found: Mapping[str, Any], growth: Mapping[str, Any]) -> str:
    """Return what many shared entries take, computed and not tried.

    Args:
        found: Recorded results of this command.
        growth: Recorded results of benchmarks.growth with Chroma; its largest cache counts.
    """
    chroma = growth["sizes"][-1]
    rows = []
    for entries in MANY:
        for number, (engine, each) in enumerate(found["engines"].items()):
            gigabytes = entries * each["entry_bytes"] / 1e9
            # half of the entries of benchmarks.growth are private, and not in Chroma
            each_shared = {
                "disk": 2 * chroma["disk_bytes"],
                "resident": 2 * chroma["resident"] / chroma["size"],
            }
            rows.append(
                [
                    f"{entries:,}" if number == 0 else "",
                    ENGINES[engine],
                    f"{gigabytes:,.0f}",
                    f"{math.ceil(gigabytes / MASTER_GIGABYTES)}",
                    *(
                        "-" if engine == "redis" else f"{entries * size / 1e9:,.0f}"
                        for size in each_shared.values()
                    ),
                ]
            )
    return markdown(PAPER_HEADER, rows)


def _cores(cores: float) -> str:
    """Return cores with two digits, or rounded up from ten."""
    return f"{math.ceil(cores):,}" if cores >= 10 else f"{cores:.2g}" if cores else "-"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, compute, print, and write the documentation if wanted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--calls", type=int, default=300, help="of each kind, at most 350 (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    parser.add_argument(
        "--write-docs", action="store_true", help="write the results into the documentation"
    )
    options = parser.parse_args(arguments)
    os.environ.setdefault("TQDM_DISABLE", "1")
    logging.disable(logging.INFO)
    found = {"engines": constants(options.calls), "machine": machine()}
    growth = json.loads((MEASURED / "growth-chroma.json").read_text(encoding="utf-8"))
    tables = {
        "constants": constants_table(found),
        "plan": plan_table(found),
        "paper": paper_table(found, growth),
    }
    if options.write_docs:
        MEASURED.mkdir(exist_ok=True)
        RECORDED.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        for name, table in tables.items():
            write(SCALING, name, table)
    print(json.dumps(found, indent=1) if options.json else "\n\n".join(tables.values()))


if __name__ == "__main__":
    main()
