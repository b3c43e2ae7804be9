"""Engines of shared vectors compared: time of a search, recall, and bytes of an entry.

The vectors form clusters, as questions do: each is near one of some thousand centres, which lie in
a space of few dimensions. The queries are stored vectors moved a little. All engines of a size
answer each query in turns, so that the machine's noise affects all alike; recall@1 is the share of
queries whose nearest row, by a comparison with all of them, comes first.

    python -m benchmarks.vectors                       1,000 and 10,000 rows
    python -m benchmarks.vectors --size 100000         another size; about ten minutes
    python -m benchmarks.vectors --engine redis        one engine alone
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import redis

from benchmarks.support.servers import chroma_process, redis_process
from cache_core.backends.base import Limits, Row, Vector, VectorIndex
from cache_core.backends.chroma.index import ChromaIndex
from cache_core.backends.redis.client import connect
from cache_core.backends.redis.vectors import RedisVectors

_ENGINES = ("redis", "chroma", "chroma server")
_DIMENSION = 384
_INTRINSIC = 64
_CENTRES = 2_000
_QUERIES = 300
_COUNT = 5
_TEXT = "x" * 700
"""Text as long as an envelope with a short answer."""

_TOGETHER = 32
_WRITTEN = 500
_LIMITS = Limits(search_timeout=60.0, write_timeout=120.0)


def rows_of(size: int) -> tuple[list[Vector], list[Vector]]:
    """Return *size* clustered unit vectors, and queries near some of them."""
    random = np.random.default_rng(size)
    basis = random.standard_normal((_INTRINSIC, _DIMENSION)).astype(np.float32)
    centres = random.standard_normal((_CENTRES, _INTRINSIC)).astype(np.float32)
    chosen = centres[random.integers(_CENTRES, size=size)]
    near = chosen + 0.35 * random.standard_normal(chosen.shape).astype(np.float32)
    rows = _units(near @ basis)
    asked = rows[random.integers(size, size=_QUERIES)]
    noise = random.standard_normal(asked.shape).astype(np.float32) / np.sqrt(_DIMENSION)
    return list(rows), list(_units(asked + np.float32(0.25) * noise))


def _units(vectors: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    units: np.ndarray[Any, Any] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return units.astype(np.float32)


async def _fill(index: VectorIndex, rows: Sequence[Vector]) -> None:
    turn = asyncio.Semaphore(_TOGETHER)

    async def add(number: int, vector: Vector) -> None:
        async with turn:
            await index.add("default", Row(f"{number:032x}", vector, _TEXT, 1e12))

    for start in range(0, len(rows), _WRITTEN):
        numbered = enumerate(rows[start : start + _WRITTEN], start)
        await asyncio.gather(*(add(number, vector) for number, vector in numbered))
        # what Chroma buffers is bounded
        await index.tend(0.0)


def _make(engine: str, size: int, stack: contextlib.ExitStack) -> tuple[Any, Callable[[], int]]:
    """Return an index, not open yet, and a function that returns the bytes that it takes."""
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    if engine == "redis":
        server = stack.enter_context(redis_process(directory, vectors=True))
        client = stack.enter_context(contextlib.closing(redis.Redis(port=server.port)))
        index = RedisVectors(
            connect(f"redis://127.0.0.1:{server.port}/0", timeout=10.0),
            name=lambda name: f"gc1:vectors:{{{name}}}",
            model="m",
            default_context="default",
            limits=_LIMITS,
        )
        empty = int(client.info("memory")["used_memory"])
        return index, lambda: int(client.info("memory")["used_memory"]) - empty
    place: dict[str, Any] = {"directory": directory}
    if engine == "chroma server":
        server = stack.enter_context(chroma_process(directory))
        place = {"url": f"http://127.0.0.1:{server.port}"}
    made = ChromaIndex(
        namespace=f"vectors-{size}", model="m", default_context="default", limits=_LIMITS, **place
    )
    return made, lambda: sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


async def measure(engines: Sequence[str], size: int) -> list[dict[str, Any]]:
    """Return the figures of each engine with *size* rows."""
    rows, queries = rows_of(size)
    nearest = [int(np.argmax(np.stack(rows) @ query)) for query in queries]
    found: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        made = [(engine, *_make(engine, size, stack)) for engine in engines]
        for engine, index, taken in made:
            await index.open()
            started = time.perf_counter()
            await _fill(index, rows)
            seconds = time.perf_counter() - started
            found.append({
                "engine": engine, "rows": size, "bytes_each": round(taken() / size),
                "put_ms": 1e3 * seconds / size, "times": [], "right": 0,
            })  # fmt: skip
        for query, right in zip(queries, nearest, strict=True):
            for (_, index, _), figures in zip(made, found, strict=True):
                started = time.perf_counter()
                near = await index.search("default", query, _COUNT)
                figures["times"].append(1e3 * (time.perf_counter() - started))
                figures["right"] += bool(near) and near[0].id == f"{right:032x}"
        for _, index, _ in made:
            await index.close()
    for figures in found:
        times = figures.pop("times")
        figures["p50_ms"] = statistics.median(times)
        figures["p95_ms"] = statistics.quantiles(times, n=20)[-1]
        figures["recall_at_1"] = figures.pop("right") / len(queries)
    return found


def main() -> None:
    """Measure and print one line for each size and engine."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, action="append", help="number of rows; may be repeated")
    parser.add_argument("--engine", choices=_ENGINES, action="append", help="default: all")
    options = parser.parse_args()
    for size in options.size or (1_000, 10_000):
        for figures in asyncio.run(measure(options.engine or _ENGINES, size)):
            json.dump(figures, sys.stdout)
            print(flush=True)


if __name__ == "__main__":
    main()
