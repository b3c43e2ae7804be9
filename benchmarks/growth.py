"""What a semantic lookup costs as the cache grows.

Half of the entries are shared, half are spread over 5,000 users. The questions asked are real ones
and embedded by the real model; the many others around them are real vectors, each moved a little in
a random direction, because embedding 100,000 texts takes half an hour. Everything is stored by the
cache's own `put`.

Each size is built in a process of its own. Then a fresh process opens all of them and asks each
question of every size in turns, so that whatever the machine does hits all sizes alike. A question
counts as found if exactly the stored question that it rewords was served.

    python benchmarks/growth.py --quick        1,000 and 10,000 entries, about a minute
    python benchmarks/growth.py                100,000 too, several minutes
    python benchmarks/growth.py --redis        private rows and generations on a real redis-server
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _questions import pairs
from _servers import redis_server
from rich.console import Console
from rich.table import Table

from cache_core import MultiLevelCache
from cache_core.embedder import PACKAGED_MODEL, Vector, shared_embedder
from cache_core.instrumentation import CacheCall, CacheState, Operation, Scope
from cache_core.models import Hit, Level
from cache_core.settings import Settings

GROWTH_TIMES = 1.5
"""A lookup in the largest cache may take this many times one in the smallest."""

_SIZES = (1_000, 10_000, 100_000)
_USERS = 5_000
_BASES = 3_000
"""Real vectors that the others are made of."""

_PROBES = 200
"""Stored questions that are asked, in other words; half of them shared, half private."""

_COSINES = (0.85, 0.97)
_ALIKE = 0.955
_TOGETHER = 16
_WIDTH = 140
_WARM_UP = 20

progress = Console(stderr=True)


class StoredVectors:
    """An embedder that knows the vectors of texts already.

    Args:
        vectors: By text.
    """

    model = PACKAGED_MODEL
    ready = True
    failed = False

    def __init__(self, vectors: Mapping[str, Vector]) -> None:
        self._vectors = vectors

    def start(self) -> None:
        """There is nothing to load."""

    async def wait_ready(self) -> None:
        """There is nothing to wait for."""

    def knows(self, text: str) -> bool:
        """Whether the model knows every part of *text*."""
        return True

    def fits(self, text: str) -> bool:
        """Every text is short."""
        return True

    async def embed(self, text: str) -> Vector:
        """Return the vector of *text*."""
        return self._vectors[text]

    def close(self) -> None:
        """There is nothing to stop."""


class Stopwatch:
    """An instrument that adds up how long embeddings and searches take."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def scope(self, operation: Operation, level: Level | None) -> Scope | None:
        """Nothing has to surround a call."""
        return None

    def record(self, call: CacheCall) -> None:
        """Add a finished operation."""
        self.seconds[call.operation] = self.seconds.get(call.operation, 0.0) + call.seconds

    def report(self, state: CacheState) -> None:
        """States do not matter here."""


def _probe_user(number: int) -> str | None:
    """Return who put the probe of a number: nobody in particular, or a user."""
    return None if number % 2 == 0 else f"user-{number % _USERS}"


def _cache(
    directory: Path, size: int, redis_url: str | None, embedder: Any, watch: Stopwatch | None
) -> MultiLevelCache:
    settings = Settings(
        redis_url=redis_url,
        dir=directory / str(size),
        max_entries=100 * size,
        max_bytes=1 << 36,
        # Nobody waits for these puts, and all of them must arrive.
        put_budget=60.0,
    )
    return MultiLevelCache(
        settings=settings,
        namespace=f"growth-{size}",
        embedding_model=embedder,
        instruments=() if watch is None else (watch,),
    )


async def prepare(path: Path) -> None:
    """Embed the real questions and keep their vectors in *path*.

    The probes come first, as (stored, asked) pairs that the model finds similar enough for a hit.
    """
    embedder = shared_embedder(PACKAGED_MODEL)
    await embedder.wait_ready()
    everything = pairs()
    candidates, others = everything[: 2 * _PROBES], everything[2 * _PROBES :][:_BASES]
    progress.print(f"embedding {2 * len(candidates) + len(others):,} questions")
    await embedder.embed_all([text for pair in candidates for text in pair])
    probes: list[tuple[str, str]] = []
    for stored, asked in candidates:
        similarity = float(await embedder.embed(stored) @ await embedder.embed(asked))
        if similarity >= _ALIKE and len(probes) < _PROBES:
            probes.append((stored, asked))
    await embedder.embed_all([stored for stored, _ in others])
    np.savez(
        path,
        stored=[stored for stored, _ in probes],
        asked=[asked for _, asked in probes],
        probes=np.stack([await embedder.embed(stored) for stored, _ in probes]),
        bases=np.stack([await embedder.embed(stored) for stored, _ in others]),
    )


def _moved(bases: np.ndarray[Any, Any], count: int) -> np.ndarray[Any, Any]:
    """Return *count* unit vectors, each near one of *bases*: at a cosine in `_COSINES`."""
    random = np.random.default_rng(0)
    origins = bases[random.integers(len(bases), size=count)]
    noise = random.standard_normal(origins.shape).astype(np.float32)
    # Only what is at a right angle to the origin decides the cosine.
    noise -= (noise * origins).sum(axis=1, keepdims=True) * origins
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    cosine = random.uniform(*_COSINES, size=(count, 1)).astype(np.float32)
    moved: np.ndarray[Any, Any] = cosine * origins + np.sqrt(1 - cosine**2) * noise
    return moved.astype(np.float32)


async def build(directory: Path, size: int, redis_url: str | None) -> None:
    """Fill a cache with *size* entries, half shared and half private."""
    kept = np.load(directory / "questions.npz")
    probes = dict(zip(kept["stored"].tolist(), kept["probes"], strict=True))
    texts = [f"question {_word(number)}" for number in range(size - len(probes))]
    vectors = {**dict(zip(texts, _moved(kept["bases"], len(texts)), strict=True)), **probes}
    # The probes are spread over the whole: neither the oldest nor the newest are easier to find.
    order = np.random.default_rng(1).permutation(list(vectors)).tolist()
    owners = {text: _probe_user(number) for number, text in enumerate(probes)}
    owners.update(
        (text, None if number % 2 == 0 else f"user-{number // 2 % _USERS}")
        for number, text in enumerate(texts)
    )
    cache = _cache(directory, size, redis_url, StoredVectors(vectors), None)
    started = time.perf_counter()
    async with cache:
        waiting = iter(order)

        async def work() -> None:
            for text in waiting:
                user = owners[text]
                await cache.put(text, user, f"the answer to {text}", shared=user is None)

        workers = asyncio.gather(*(work() for _ in range(_TOGETHER)))
        while not workers.done():
            await asyncio.wait([workers], timeout=10)
            progress.print(f"  {sum(cache.metrics.puts.values()) // 2:,} of {size:,}")
        await workers
        lost = {name: count for name, count in cache.metrics.puts.items() if name[1] != "stored"}
        lost_rows = cache.parts.semantic.chroma.dropped if cache.parts.semantic else 0
    if lost or lost_rows:
        msg = f"not everything was stored: {lost}, {lost_rows} rows"
        raise RuntimeError(msg)
    progress.print(f"{size:,} entries put in {time.perf_counter() - started:.0f} s")


def _word(number: int) -> str:
    """Return *number* in letters: a digit would be a guard's business."""
    return "".join(chr(ord("a") + int(digit)) for digit in str(number))


async def measure(directory: Path, sizes: Sequence[int], redis_url: str | None) -> list[Any]:
    """Ask every question of every size, in turns; return what each size took."""
    kept = np.load(directory / "questions.npz")
    questions = list(zip(kept["stored"].tolist(), kept["asked"].tolist(), strict=True))
    embedder = shared_embedder(PACKAGED_MODEL)
    await embedder.wait_ready()
    caches: list[MultiLevelCache] = []
    watches = [Stopwatch() for _ in sizes]
    rows: list[list[dict[str, float]]] = [[] for _ in sizes]
    found = [0] * len(sizes)
    async with contextlib.AsyncExitStack() as stack:
        for size, watch in zip(sizes, watches, strict=True):
            cache = _cache(directory, size, redis_url, embedder, watch)
            caches.append(await stack.enter_async_context(cache))
            await cache.ready()
        await asyncio.sleep(2.0)
        everything = questions[:_WARM_UP] + questions
        for turn, (stored, asked) in enumerate(everything):
            number = turn if turn < _WARM_UP else turn - _WARM_UP
            user = _probe_user(number) or "somebody new"
            order = list(range(len(sizes)))
            for which in order[turn % len(order) :] + order[: turn % len(order)]:
                cache, watch = caches[which], watches[which]
                watch.seconds.clear()
                # The vector of a question that was asked before is kept: each size is to embed it.
                embedder.forget()
                query = cache.parts.keys.query(asked, user)
                started = time.perf_counter()
                answer = await cache.parts.tiers["l2"].get(query, cache.tuning)
                seconds = time.perf_counter() - started
                if turn < _WARM_UP:
                    continue
                right = isinstance(answer, Hit) and answer.matched == cache.parts.keys.tag(stored)
                found[which] += right
                rows[which].append({"all": seconds, **watch.seconds})
    return [
        {"size": size, "asked": len(taken), "found": hits, **_times(taken)}
        for size, taken, hits in zip(sizes, rows, found, strict=True)
    ]


def _times(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return medians and 95th percentiles, in milliseconds."""
    parts = {
        "lookup": [row["all"] for row in rows],
        "embedding": [row["embed"] for row in rows],
        "rest": [row["all"] - row["embed"] for row in rows],
        "search": [row.get("search", 0.0) for row in rows],
    }
    found: dict[str, float] = {}
    for name, values in parts.items():
        found[f"{name}_p50_ms"] = 1e3 * statistics.median(values)
        found[f"{name}_p95_ms"] = 1e3 * statistics.quantiles(values, n=20)[-1]
    return found


def _step(*arguments: str) -> str:
    """Run one step in a process of its own; return what it printed."""
    command = [sys.executable, __file__, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="leave 100,000 entries out")
    parser.add_argument(
        "--redis", action="store_true", help="keyed store on a real redis-server; default: embedded"
    )
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")
    parser.add_argument("--step", choices=("prepare", "build", "measure"), help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, action="append", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    return parser.parse_args()


def _run_step(options: argparse.Namespace) -> None:
    directory: Path = options.directory
    match options.step:
        case "prepare":
            asyncio.run(prepare(directory / "questions.npz"))
        case "build":
            asyncio.run(build(directory, options.size[0], options.url))
        case "measure":
            json.dump(asyncio.run(measure(directory, options.size, options.url)), sys.stdout)


def _print(rows: Sequence[Mapping[str, Any]], ratios: Mapping[str, float], store: str) -> None:
    table = Table(title=f"A semantic lookup as the cache grows, ms ({store} store)")
    for name in ("entries", "lookup p50", "p95", "embedding p50", "p95", "the rest p50", "p95",
                 "its search p50", "p95", "found"):  # fmt: skip
        table.add_column(name, justify="right")
    for row in rows:
        times = [f"{value:.2f}" for name, value in row.items() if name.endswith("_ms")]
        table.add_row(f"{row['size']:,}", *times, f"{row['found']} of {row['asked']}")
    console = Console()
    if not console.is_terminal:
        console.width = _WIDTH
    console.print(table)
    first, last = rows[0]["size"], rows[-1]["size"]
    for name, ratio in ratios.items():
        verdict = "met" if ratio <= GROWTH_TIMES else "missed"
        console.print(
            f"{last:,} against {first:,}, {name}: {ratio:.2f} times "
            f"(at most {GROWTH_TIMES:g}: {verdict})"
        )


def main() -> None:
    """Build, measure, print."""
    options = _options()
    os.environ.setdefault("TQDM_DISABLE", "1")
    logging.disable(logging.INFO)
    if options.step:
        _run_step(options)
        return
    sizes = _SIZES[:2] if options.quick else _SIZES
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="glasscache-")))
        common = ["--directory", str(directory)]
        if options.redis:
            common += ["--url", stack.enter_context(redis_server(directory))]
        _step("--step", "prepare", *common)
        for size in sizes:
            _step("--step", "build", "--size", str(size), *common)
        each = [part for size in sizes for part in ("--size", str(size))]
        rows = json.loads(_step("--step", "measure", *each, *common))
    ratios = {
        "embedding included": rows[-1]["lookup_p50_ms"] / rows[0]["lookup_p50_ms"],
        "embedding excluded": rows[-1]["rest_p50_ms"] / rows[0]["rest_p50_ms"],
    }
    store = "Redis" if options.redis else "embedded"
    if options.json:
        json.dump({"store": store, "sizes": rows, "ratios": ratios}, sys.stdout, indent=2)
        print()
    else:
        _print(rows, ratios, store)


if __name__ == "__main__":
    main()
