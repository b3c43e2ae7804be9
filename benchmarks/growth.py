"""Cost of a semantic lookup as the cache grows.

Half of the entries are shared, half are spread over 5,000 users. The questions asked are real ones
and embedded by the real model; the many others around them are real vectors, each moved a little in
a random direction, because embedding 100,000 texts takes half an hour. Everything is stored by the
cache's own `put`.

Each size is built in a process of its own. Then a fresh process opens all of them and asks each
question of every size in turns, so that the machine's noise affects all sizes alike. A question
counts as found if exactly the stored question that it rewords was served.

    python -m benchmarks.growth --quick            1,000 and 10,000 entries, about a minute
    python -m benchmarks.growth                    100,000 too, several minutes
    python -m benchmarks.growth --redis            private rows and generations on a redis-server
    python -m benchmarks.growth --vectors redis    all of it on a Redis 8, in vector sets
    python -m benchmarks.growth --redis --size 1000 --size 100000 --write-docs

The bytes of an entry are what the Redis and the files grow by for it, with an answer of a few
words; the megabytes are what the measuring process grows by when it opens and searches the cache.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import redis
from rich.console import Console

from benchmarks import scaling
from benchmarks.support.docs_table import MEASURED, SCALING, machine, markdown, write
from benchmarks.support.questions import pairs
from benchmarks.support.servers import redis_server
from cache_core import MultiLevelCache
from cache_core.backends.base import Vector
from cache_core.backends.embedder.choosing import shared_embedder
from cache_core.backends.embedder.encoder import PACKAGED_MODEL
from cache_core.backends.embedder.identity import identity_of
from cache_core.config.settings import Settings
from cache_core.model.values import Hit, Level
from cache_core.observability.instruments import CacheState, Scope
from cache_core.observability.records import Operation, Record, TimedRecord

GROWTH_TIMES = 1.3
"""Largest permitted ratio of lookup times in the largest and the smallest cache."""

_SIZES = (1_000, 10_000, 100_000)
_USERS = 5_000
_BASES = 3_000
"""Real vectors from which the others are derived."""

_PROBES = 200
"""Stored questions that are asked in other words; half of them shared, half private."""

_COSINES = (0.85, 0.97)
_ALIKE = 0.955
_TOGETHER = 16
_WARM_UP = 20

HEADER = (
    "entries", "lookup, ms", "its embedding, ms", "the rest, ms", "its search, ms", "found",
    "Redis, bytes an entry", "files, bytes an entry", "process, MB",
)  # fmt: skip

progress = Console(stderr=True)


class StoredVectors:
    """Embedder that already has the vectors of its texts.

    Args:
        vectors: Vectors by text.
        model: Identity of the model that they are of; another cache finds them by it.
    """

    ready = True
    failed = False

    def __init__(self, vectors: Mapping[str, Vector], model: str = PACKAGED_MODEL) -> None:
        self._vectors = vectors
        self.model = model

    def start(self) -> None:
        """Do nothing: there is nothing to load."""

    async def wait_ready(self) -> None:
        """Do nothing: it is always ready."""

    def knows(self, text: str) -> bool:
        """Return True: the model knows every part of *text*."""
        return True

    def fits(self, text: str) -> bool:
        """Return True: every text is short."""
        return True

    async def embed(self, text: str) -> Vector:
        """Return the vector of *text*."""
        return self._vectors[text]

    def close(self) -> None:
        """Do nothing: there is nothing to stop."""


class Stopwatch:
    """Instrument that sums the time of embeddings and searches."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def scope(self, operation: Operation, level: Level | None) -> Scope | None:
        """Do nothing: scopes are not measured."""
        return None

    def record(self, record: Record) -> None:
        """Add a finished operation."""
        if isinstance(record, TimedRecord):
            total = self.seconds.get(record.operation, 0.0) + record.seconds
            self.seconds[record.operation] = total

    def report(self, state: CacheState) -> None:
        """Do nothing: states are irrelevant."""


def _probe_user(number: int) -> str | None:
    """Return the writer of a probe: no particular user, or one."""
    return None if number % 2 == 0 else f"user-{number % _USERS}"


@dataclass(frozen=True, slots=True)
class Stores:
    """Places of the entries.

    Attributes:
        directory: Directory of what is embedded.
        redis_url: URL of the keyed store; `None` for the embedded one.
        vectors: Engine of the shared rows.
    """

    directory: Path
    redis_url: str | None
    vectors: Literal["chroma", "redis"]


def _cache(stores: Stores, size: int, embedder: Any, watch: Stopwatch | None) -> MultiLevelCache:
    settings = Settings(
        redis_url=stores.redis_url,
        vectors=stores.vectors,
        dir=stores.directory / str(size),
        max_entries=100 * size,
        max_bytes=1 << 36,
        # no caller waits, all puts must be stored, and a slow search is to be measured
        put_budget=60.0,
        exact_budget=60.0,
        embedding_budget=60.0,
        search_budget=60.0,
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
    # only the component at a right angle to the origin determines the cosine
    noise -= (noise * origins).sum(axis=1, keepdims=True) * origins
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    cosine = random.uniform(*_COSINES, size=(count, 1)).astype(np.float32)
    moved: np.ndarray[Any, Any] = cosine * origins + np.sqrt(1 - cosine**2) * noise
    return moved.astype(np.float32)


async def build(stores: Stores, size: int) -> dict[str, float]:
    """Fill a cache with *size* entries, half shared and half private; return what they take."""
    kept = np.load(stores.directory / "questions.npz")
    probes = dict(zip(kept["stored"].tolist(), kept["probes"], strict=True))
    texts = [f"How do I find the {_word(number)}?" for number in range(size - len(probes))]
    vectors = {**dict(zip(texts, _moved(kept["bases"], len(texts)), strict=True)), **probes}
    # spread the probes over the whole: neither the oldest nor the newest are easier to find
    order = np.random.default_rng(1).permutation(list(vectors)).tolist()
    owners = {text: _probe_user(number) for number, text in enumerate(probes)}
    owners.update(
        (text, None if number % 2 == 0 else f"user-{number // 2 % _USERS}")
        for number, text in enumerate(texts)
    )
    identity = await asyncio.to_thread(identity_of, shared_embedder(PACKAGED_MODEL))
    cache = _cache(stores, size, StoredVectors(vectors, identity), None)
    started, used = time.perf_counter(), _used(stores.redis_url)
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
        lost_rows = cache._parts.semantic.engine.dropped if cache._parts.semantic else 0
    if lost or lost_rows:
        msg = f"not everything was stored: {lost}, {lost_rows} rows"
        raise RuntimeError(msg)
    seconds = time.perf_counter() - started
    progress.print(f"{size:,} entries put in {seconds:.0f} s")
    return {
        "puts_per_second": size / seconds,
        "redis_bytes": (_used(stores.redis_url) - used) / size,
        "disk_bytes": _on_disk(stores.directory / str(size)) / size,
    }


def _word(number: int) -> str:
    """Return *number* in letters: digits would trigger a guard."""
    return "".join(chr(ord("a") + int(digit)) for digit in str(number))


async def measure(stores: Stores, sizes: Sequence[int]) -> list[Any]:
    """Ask every question of every size, in turns; return the times of each size."""
    kept = np.load(stores.directory / "questions.npz")
    questions = list(zip(kept["stored"].tolist(), kept["asked"].tolist(), strict=True))
    embedder = shared_embedder(PACKAGED_MODEL)
    await embedder.wait_ready()
    caches: list[MultiLevelCache] = []
    watches = [Stopwatch() for _ in sizes]
    rows: list[list[dict[str, float]]] = [[] for _ in sizes]
    found = [0] * len(sizes)
    resident: list[int] = []
    async with contextlib.AsyncExitStack() as stack:
        for size, watch in zip(sizes, watches, strict=True):
            before = _resident()
            cache = _cache(stores, size, embedder, watch)
            caches.append(await stack.enter_async_context(cache))
            await cache.ready()
            # an index is loaded by its first search
            await cache.lookup(questions[0][1], "somebody new")
            resident.append(_resident() - before)
        await asyncio.sleep(2.0)
        everything = questions[:_WARM_UP] + questions
        for turn, (stored, asked) in enumerate(everything):
            number = turn if turn < _WARM_UP else turn - _WARM_UP
            user = _probe_user(number) or "somebody new"
            order = list(range(len(sizes)))
            for which in order[turn % len(order) :] + order[: turn % len(order)]:
                cache, watch = caches[which], watches[which]
                watch.seconds.clear()
                # vectors of asked questions are cached; each size is to embed them
                embedder.forget()
                query = cache._parts.keys.query(asked, user)
                started = time.perf_counter()
                answer = await cache._parts.tiers["l2"].get(query, cache.tuning)
                seconds = time.perf_counter() - started
                if turn < _WARM_UP:
                    continue
                right = isinstance(answer, Hit) and answer.matched == cache._parts.keys.tag(stored)
                found[which] += right
                rows[which].append({"all": seconds, **watch.seconds})
    return [
        {
            "size": size,
            "asked": len(taken),
            "found": hits,
            **_times(taken),
            "resident": grown,
        }
        for size, taken, hits, grown in zip(sizes, rows, found, resident, strict=True)
    ]


def _resident() -> int:
    """Return the resident memory of this process, in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _used(url: str | None) -> int:
    """Return the memory that a Redis uses for its data, in bytes; 0 without one."""
    if url is None:
        return 0
    with contextlib.closing(redis.Redis.from_url(url)) as client:
        return int(client.info("memory")["used_memory"])


def _on_disk(path: Path) -> int:
    """Return the bytes of all files below *path*."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


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
    command = [sys.executable, "-m", "benchmarks.growth", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="leave 100,000 entries out")
    parser.add_argument(
        "--redis", action="store_true", help="keyed store on a real redis-server; default: embedded"
    )
    parser.add_argument(
        "--vectors", choices=("chroma", "redis"), default="chroma",
        help="shared rows in an embedded Chroma or in Redis; the latter implies --redis",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")
    parser.add_argument(
        "--write-docs", action="store_true", help="write the table into docs/scaling.md"
    )
    parser.add_argument("--step", choices=("prepare", "build", "measure"), help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, action="append", help="entries; can be repeated")
    parser.add_argument("--url", help=argparse.SUPPRESS)
    return parser.parse_args()


def _run_step(options: argparse.Namespace) -> None:
    directory: Path = options.directory
    stores = Stores(directory, options.url, options.vectors)
    match options.step:
        case "prepare":
            asyncio.run(prepare(directory / "questions.npz"))
        case "build":
            json.dump(asyncio.run(build(stores, options.size[0])), sys.stdout)
        case "measure":
            json.dump(asyncio.run(measure(stores, options.size)), sys.stdout)


def table(found: Mapping[str, Any]) -> str:
    """Return the results and the ratios for the documentation."""
    rows = [
        [
            f"{row['size']:,}",
            *(
                f"{row[f'{part}_p50_ms']:.2f} ({row[f'{part}_p95_ms']:.2f})"
                for part in ("lookup", "embedding", "rest", "search")
            ),
            f"{row['found']} of {row['asked']}",
            *(f"{row[f'{place}_bytes']:,.0f}" for place in ("redis", "disk")),
            f"{row['resident'] / 1e6:,.0f}",
        ]
        for row in found["sizes"]
    ]
    first, last = (found["sizes"][at]["size"] for at in (0, -1))
    ratios = ", ".join(
        f"{name} {ratio:.2f} times"
        + (f" (at most {GROWTH_TIMES:g})" if name == "embedding included" else "")
        for name, ratio in found["ratios"].items()
    )
    return (
        f"{markdown(HEADER, rows)}\n\nMedian (95th percentile); {found['store']}; {last:,} entries "
        f"against {first:,}: {ratios}. {found['machine']}."
    )


def main() -> None:
    """Build, measure, print."""
    options = _options()
    os.environ.setdefault("TQDM_DISABLE", "1")
    logging.disable(logging.INFO)
    if options.step:
        _run_step(options)
        return
    sizes = sorted(options.size or (_SIZES[:2] if options.quick else _SIZES))
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="glasscache-")))
        common = ["--directory", str(directory)]
        common += ["--vectors", options.vectors]
        on_redis = options.vectors == "redis"
        if options.redis or on_redis:
            url = stack.enter_context(redis_server(directory, vectors=on_redis))
            common += ["--url", url]
        _step("--step", "prepare", *common)
        stored = [
            json.loads(_step("--step", "build", "--size", str(size), *common)) for size in sizes
        ]
        each = [part for size in sizes for part in ("--size", str(size))]
        measured = json.loads(_step("--step", "measure", *each, *common))
    rows = [{**row, **more} for row, more in zip(measured, stored, strict=True)]
    found = {
        "store": _store(options),
        "machine": machine(),
        "sizes": rows,
        "ratios": {
            "embedding included": rows[-1]["lookup_p50_ms"] / rows[0]["lookup_p50_ms"],
            "embedding excluded": rows[-1]["rest_p50_ms"] / rows[0]["rest_p50_ms"],
        },
    }
    if options.write_docs:
        MEASURED.mkdir(exist_ok=True)
        name = f"growth-{options.vectors}"
        (MEASURED / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
        write(SCALING, name, table(found))
        if options.vectors == "chroma":
            measured = json.loads(scaling.RECORDED.read_text(encoding="utf-8"))
            write(SCALING, "paper", scaling.paper_table(measured, found))
    print(json.dumps(found, indent=1) if options.json else table(found))


def _store(options: argparse.Namespace) -> str:
    """Return where the entries were."""
    if options.vectors == "redis":
        return "keys and vectors in Redis"
    return f"keys {'in Redis' if options.redis else 'embedded'}, embedded Chroma"


if __name__ == "__main__":
    main()
