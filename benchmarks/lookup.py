"""Time of a lookup, compared with the work it cannot avoid.

An exact hit is measured against one raw redis-py GET of the same 2,000 bytes, a semantic hit
against one bare embedding of the same question by sentence-transformers. Both sides of a ratio are
measured in the same run, in turns. Absolute times depend on the machine more than on the code:
read the ratios.

    python -m benchmarks.lookup              everything, about two minutes
    python -m benchmarks.lookup --only exact --awake
    python -m benchmarks.lookup --json | jq .targets
    python -m benchmarks.lookup --write-docs     and the tables in docs/performance.md
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import redis.asyncio
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from prometheus_client import CollectorRegistry
from rich.console import Console
from rich.table import Table

from benchmarks.support.contenders import Contender, measure_alone
from benchmarks.support.docs_table import PERFORMANCE, machine, markdown, write
from benchmarks.support.questions import pairs
from benchmarks.support.servers import awake, redis_server
from cache_core import MultiLevelCache
from cache_core.backends.base import Embedder
from cache_core.backends.embedder.choosing import shared_embedder
from cache_core.backends.embedder.encoder import PACKAGED_MODEL
from cache_core.backends.embedder.pool import ThreadEmbedder
from cache_core.backends.embedder.sentence_transformers import SentenceTransformerEncoder
from cache_core.config.settings import Settings
from cache_core.model.exceptions import BackendError
from cache_core.observability.instruments import Instrument
from cache_core.testing import HashEmbedder
from telemetry.metrics import PrometheusInstrument
from telemetry.tracing import TracingInstrument

_VALUE_BYTES = 2_000
_DOCUMENT_BYTES = 20_000
_MESSAGES = 200
"""Number of different messages, so that concurrent tasks do not ask for the same keys."""

_USERS = 20
_SAMPLED = 0.01
_WIDTH = 140
_STORED_QUESTIONS = 500
_ALIKE = 0.955
"""Lowest similarity of a question and its rewording: just above the default threshold."""

_ROUND_SECONDS = 1.0
"""Each round ends with the work of housekeeping, so that its cost is included at its real rate."""


EXACT_TIMES = 2.0
"""Most raw GETs that an L1 hit may cost, with instruments on and all spans sampled out."""

POOLED_TIMES = 1.0
"""Lowest permitted ratio of the rates of 50 tasks' lookups and redis-py's pooled GETs."""

SEMANTIC_TIMES = 1.5
"""Most bare embeddings that an L2 hit may cost."""

_RAW, _OFF, _METRICS, _UNSAMPLED, _TRACED = (
    "raw GET",
    "L1 hit, not watched",
    "L1 hit, metrics",
    "L1 hit, metrics, unsampled",
    "L1 hit, traced",
)
_DOCUMENTS, _EMBEDDED = "L1 hit, metrics, documents", "L1 hit, embedded store"
_COLD = "miss without embedding"
_INLINE, _THREAD = "bare embedding", "bare embedding in a thread"
_L2_HIT, _L2_MISS = "L2 hit", "miss with embedding"

progress = Console(stderr=True)


@dataclass(frozen=True, slots=True)
class Target:
    """Target and result of a measurement."""

    name: str
    asked: str
    reached: float
    met: bool


class _NoExporter(SpanExporter):
    """Exporter that discards all spans: the network is not measured."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def _provider(sampled: float) -> TracerProvider:
    provider = TracerProvider(sampler=TraceIdRatioBased(sampled))
    provider.add_span_processor(
        BatchSpanProcessor(_NoExporter(), max_queue_size=65_536, max_export_batch_size=8_192)
    )
    return provider


def _watchers(namespace: str, provider: TracerProvider | None) -> list[Instrument]:
    """Return the instruments of an unconfigured cache.

    Args:
        namespace: Namespace of the cache.
        provider: Provider of its spans; `None` as in an application that does not trace.
    """
    return [
        PrometheusInstrument(namespace, CollectorRegistry()),
        TracingInstrument(namespace, provider),
    ]


class Bench:
    """Creates caches, fills them, and measures contenders in turns.

    Args:
        directory: Directory of all embedded parts.
        redis_url: URL of a real, empty server.
    """

    def __init__(self, directory: Path, redis_url: str) -> None:
        self._directory = directory
        self.redis_url = redis_url
        self._caches: list[MultiLevelCache] = []

    async def cache(
        self,
        name: str,
        instruments: Sequence[Instrument],
        embedder: Embedder | None = None,
        *,
        embedded: bool = False,
    ) -> MultiLevelCache:
        """Return an open cache of its own namespace, all tiers on."""
        settings = Settings(
            redis_url=None if embedded else self.redis_url, dir=self._directory / name
        )
        cache = MultiLevelCache(
            settings=settings,
            namespace=name,
            embedding_model=embedder or HashEmbedder(),
            instruments=instruments,
        )
        self._caches.append(cache)
        await cache.initialize()
        await cache.ready()
        return cache

    async def close(self) -> None:
        """Close every cache."""
        for cache in self._caches:
            await cache.close()


async def measure_crowd(
    contenders: Sequence[Contender], tasks: int, seconds: float, rounds: int
) -> None:
    """Measure *tasks* concurrent tasks, one contender after the other, in rounds."""
    for number in range(rounds + 1):
        for contender in contenders if number % 2 else reversed(contenders):
            took: list[float] = []
            cpu, started = time.process_time(), time.perf_counter()

            async def work(
                first: int,
                of: Contender = contender,
                into: list[float] = took,
                until: float = started + seconds,
            ) -> None:
                for step in itertools.count(first, tasks):
                    into.append(await of.timed(step))
                    if time.perf_counter() >= until:
                        return

            await asyncio.gather(*map(work, range(tasks)))
            if contender.settle is not None:
                await contender.settle()
            passed, cpu = time.perf_counter() - started, time.process_time() - cpu
            if number:  # the first round warms up
                contender.rates.append(len(took) / passed)
                contender.cpu.append(cpu / len(took))
                contender.crowded += took


async def exact_contenders(bench: Bench) -> list[Contender]:
    """Return the raw GET and the contenders compared with it."""
    client = redis.asyncio.Redis.from_url(bench.redis_url)
    value = "v" * _VALUE_BYTES
    messages = [asked for asked, _ in pairs()[:_MESSAGES]]
    users = [f"user-{number % _USERS}" for number in range(_MESSAGES)]
    for number in range(_MESSAGES):
        await client.set(f"raw-{number}", value)

    async def raw(number: int) -> bool:
        found = await client.get(f"raw-{number % _MESSAGES}")
        return found is not None and len(found) == _VALUE_BYTES

    async def lookups(
        title: str, name: str, *, watched: bool = True, sampled: float | None = 0.0,
        embedded: bool = False, documents: list[Any] | None = None, tier: str | None = "l1",
    ) -> Contender:  # fmt: skip
        progress.print(f"filling: {title}")
        provider = None if sampled is None else _provider(sampled)
        watchers = _watchers(name, provider) if watched else ()
        cache = await bench.cache(name, watchers, embedded=embedded)
        for message, user in zip(messages, users, strict=True):
            if tier is not None:
                await cache.put(message, user, value, "howto", documents)

        async def call(number: int) -> bool:
            number %= _MESSAGES
            # with a history there is no similarity search: the cheapest way to find nothing
            history = None if tier is not None else ("Hello.",)
            result = await cache.lookup(messages[number], users[number], history=history)
            return result.tier == tier and result.outcome == ("hit" if tier else "miss")

        async def settle() -> None:
            # dozens of failed lookups open the breaker: that is counted, not raised
            with contextlib.suppress(BackendError):
                await cache.operator.flush_decisions()
            if provider is not None:
                # otherwise its thread sends them while others are measured
                provider.force_flush()

        return Contender(title, call, settle)

    parts = [{"id": f"doc-{n}", "text": "d" * (_DOCUMENT_BYTES // 10)} for n in range(10)]
    return [
        Contender(_RAW, raw),
        await lookups(_OFF, "off", watched=False),
        await lookups(_METRICS, "metrics", sampled=None),
        await lookups(_UNSAMPLED, "unsampled"),
        await lookups(f"{_METRICS}, {_SAMPLED:.0%} sampled", "sampled", sampled=_SAMPLED),
        await lookups(_DOCUMENTS, "documents", documents=parts),
        await lookups(_TRACED, "traced", sampled=1.0),
        await lookups(_EMBEDDED, "embedded", embedded=True),
        await lookups(_COLD, "cold", tier=None),
    ]


async def semantic_contenders(bench: Bench) -> list[Contender]:
    """Return the bare embedding and the contenders compared with it, on the real model."""
    progress.print(f"loading {PACKAGED_MODEL}")
    embedder = shared_embedder(PACKAGED_MODEL)
    await embedder.wait_ready()
    # what a user of sentence-transformers has: the fp32 weights, one thread of torch
    bare: Any = SentenceTransformerEncoder(PACKAGED_MODEL)
    model = bare._model
    found = await _alike(embedder, _STORED_QUESTIONS)
    progress.print(f"filling: {len(found)} questions for L2")
    cache = await bench.cache("semantic", _watchers("semantic", _provider(0.0)), embedder)
    other = await bench.cache("unrelated", _watchers("unrelated", _provider(0.0)), embedder)
    for number, (stored, _) in enumerate(found):
        answer = f"answer {number} ".ljust(_VALUE_BYTES, "v")
        await cache.put(stored, None, answer, "howto", shared=True)
    for stored, _ in pairs()[-_STORED_QUESTIONS:]:
        await other.put(stored, None, "v" * _VALUE_BYTES, shared=True)
    await asyncio.sleep(2.0)  # the last rows are written out

    def question(number: int) -> str:
        # vectors of asked questions are cached; each text must be new
        embedder.forget()
        return found[number % len(found)][1]

    async def inline(number: int) -> bool:
        return len(model.encode(question(number), show_progress_bar=False)) > 0

    async def in_thread(number: int) -> bool:
        return len(await embedder.embed(question(number))) > 0

    async def hit(number: int) -> bool:
        result = await cache.lookup(question(number), "nobody")
        return result.tier == "l2"

    async def miss(number: int) -> bool:
        result = await other.lookup(question(number), "nobody")
        return result.outcome == "miss"

    return [
        Contender(_INLINE, inline),
        Contender(_THREAD, in_thread),
        Contender(_L2_HIT, hit),
        Contender(_L2_MISS, miss),
    ]


async def _alike(embedder: ThreadEmbedder, wanted: int) -> list[tuple[str, str]]:
    """Return pairs that the model finds similar enough for a hit at the default threshold."""
    found: list[tuple[str, str]] = []
    candidates = iter(pairs())
    while len(found) < wanted:
        some = list(itertools.islice(candidates, 2 * wanted))
        await embedder.embed_all([text for pair in some for text in pair])
        for stored, asked in some:
            similarity = float(await embedder.embed(stored) @ await embedder.embed(asked))
            if similarity >= _ALIKE and len(found) < wanted:
                found.append((stored, asked))
    return found


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def summary(contenders: Sequence[Contender]) -> list[dict[str, Any]]:
    """Return the measurements as JSON values; times in microseconds.

    The first contender is the baseline. `times` compares medians; `rate_times` is the median over
    the rounds, each of which compares neighbours in time.
    """
    rows: list[dict[str, Any]] = []
    base = contenders[0]
    for item in contenders:
        row: dict[str, Any] = {"name": item.name, "astray": item.astray, "calls": len(item.seconds)}
        for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
            row[f"{name}_us"] = 1e6 * _quantile(item.seconds, share)
        row["times"] = row["p50_us"] / (1e6 * _quantile(base.seconds, 0.5))
        if item.rates:
            row["rate"] = statistics.median(item.rates)
            row["rate_times"] = statistics.median(
                ours / theirs for ours, theirs in zip(item.rates, base.rates, strict=True)
            )
            row["crowded_p50_us"] = 1e6 * _quantile(item.crowded, 0.5)
            row["cpu_us"] = 1e6 * statistics.median(item.cpu)
        rows.append(row)
    return rows


def targets(exact: Sequence[dict[str, Any]], semantic: Sequence[dict[str, Any]]) -> list[Target]:
    """Return targets and results."""
    row = {item["name"]: item for item in (*exact, *semantic)}
    found: list[Target] = []
    for name in (_UNSAMPLED, f"{_METRICS}, {_SAMPLED:.0%} sampled", _DOCUMENTS):
        if name in row:
            times = row[name]["times"]
            asked = f"at most {EXACT_TIMES:g} x {_RAW}, one task"
            found.append(Target(name, asked, times, times <= EXACT_TIMES))
    for name in (_METRICS, _UNSAMPLED):
        if name in row:
            times = row[name]["rate_times"]
            asked = f"at least {POOLED_TIMES:g} x the rate of pooled GETs, many tasks"
            found.append(Target(name, asked, times, times >= POOLED_TIMES))
    if _L2_HIT in row:
        times = row[_L2_HIT]["times"]
        asked = f"at most {SEMANTIC_TIMES:g} x {_INLINE}, one task"
        found.append(Target(_L2_HIT, asked, times, times <= SEMANTIC_TIMES))
    return found


def _exact_table(rows: Sequence[dict[str, Any]], tasks: int) -> Table:
    table = Table(title=f"Exact: one task alone, and {tasks} tasks on one Redis")
    table.add_column("us")
    crowd = f"{tasks} tasks"
    for name in ("p50", "p95", "p99", "x raw", f"{crowd} /s", "x pooled", "p50", "CPU", "astray"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            row["name"],
            *(f"{row[name]:,.0f}" for name in ("p50_us", "p95_us", "p99_us")),
            f"{row['times']:.2f}",
            f"{row['rate']:,.0f}",
            f"{row['rate_times']:.2f}",
            f"{row['crowded_p50_us']:,.0f}",
            f"{row['cpu_us']:,.0f}",
            f"{row['astray']:,}",
        )
    return table


def _semantic_table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="Semantic: one task, every question new to the model")
    table.add_column("ms")
    for name in ("p50", "p95", "p99", "x embedding"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            row["name"],
            *(f"{row[name] / 1e3:,.2f}" for name in ("p50_us", "p95_us", "p99_us")),
            f"{row['times']:.2f}",
        )
    return table


EXACT_HEADER = ("one lookup", "median, us", "x raw GET", "many tasks, a second", "x pooled GETs")
SEMANTIC_HEADER = ("one lookup", "median, ms", "95th percentile, ms", "x bare embedding")


def documented(result: dict[str, Any]) -> dict[str, str]:
    """Return the tables of docs/performance.md, by name."""
    exact = [
        [
            row["name"], f"{row['p50_us']:,.0f}", f"{row['times']:.2f}", f"{row['rate']:,.0f}",
            f"{row['rate_times']:.2f}",
        ]
        for row in result["exact"]
    ]  # fmt: skip
    semantic = [
        [
            row["name"], f"{row['p50_us'] / 1e3:.2f}", f"{row['p95_us'] / 1e3:.2f}",
            f"{row['times']:.2f}",
        ]
        for row in result["semantic"]
    ]  # fmt: skip
    return {
        "exact": f"{markdown(EXACT_HEADER, exact)}\n\n{machine()}.",
        "semantic": markdown(SEMANTIC_HEADER, semantic),
    }


def _target_table(found: Sequence[Target]) -> Table:
    table = Table(title="Asked for, and reached")
    for name in ("", "asked", "reached", ""):
        table.add_column(name)
    for item in found:
        table.add_row(
            item.name, item.asked, f"{item.reached:.2f}", "met" if item.met else "[bold]missed"
        )
    return table


async def run(options: argparse.Namespace, directory: Path, redis_url: str) -> dict[str, Any]:
    """Measure as the options request; return JSON values."""
    bench = Bench(directory, redis_url)
    result: dict[str, Any] = {"exact": [], "semantic": []}
    measured: list[Contender] = []
    try:
        if options.only != "semantic":
            contenders = await exact_contenders(bench)
            progress.print(f"one task, {options.calls} calls each, in turns")
            await measure_alone(contenders, options.calls)
            progress.print(f"{options.tasks} tasks, {options.rounds} rounds")
            await measure_crowd(contenders, options.tasks, _ROUND_SECONDS, options.rounds)
            result["exact"] = summary(contenders)
            measured += contenders
        # their housekeeping would take time from the next measurement
        await bench.close()
        if options.only != "exact":
            contenders = await semantic_contenders(bench)
            progress.print(f"one task, {options.questions} questions each, in turns")
            await measure_alone(contenders, options.questions)
            result["semantic"] = summary(contenders)
            measured += contenders
    finally:
        await bench.close()
    for item in measured:
        if item.astray:
            progress.print(
                f"[bold]{item.name}: {item.astray:,} calls of both kinds went astray: a tier said "
                "that it failed, or something else answered. Its times mean little"
            )
    result["targets"] = [asdict(item) for item in targets(result["exact"], result["semantic"])]
    return result


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", choices=("exact", "semantic"), help="measure one half; exact needs no model"
    )
    parser.add_argument(
        "--calls", type=int, default=3_000, help="exact calls of each kind, one task (%(default)s)"
    )
    parser.add_argument(
        "--questions", type=int, default=300, help="semantic calls of each kind (%(default)s)"
    )
    parser.add_argument(
        "--tasks", type=int, default=50, help="number of concurrent tasks (%(default)s)"
    )
    parser.add_argument(
        "--rounds", type=int, default=15, help="rounds of the many tasks (%(default)s)"
    )
    parser.add_argument(
        "--awake",
        action="store_true",
        help="keep the cores from halting: an idle virtual machine's wake-ups otherwise cost as "
        "much as a GET, and flatter whoever computes more",
    )
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")
    parser.add_argument(
        "--write-docs", action="store_true", help="write the tables into docs/performance.md"
    )
    options = parser.parse_args()
    if options.write_docs and options.only:
        parser.error("the tables in the documentation have both halves: leave --only out")
    return options


def main() -> None:
    """Measure and print."""
    options = _options()
    os.environ.setdefault("TQDM_DISABLE", "1")
    # failed calls are counted here; a warning per second and tier adds nothing
    logging.disable(logging.WARNING)
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="glasscache-")))
        url = stack.enter_context(redis_server(directory))
        if options.awake:
            stack.enter_context(awake())
        result = asyncio.run(run(options, directory, url))
    if options.write_docs:
        for name, body in documented(result).items():
            write(PERFORMANCE, name, body)
    if options.json:
        json.dump(result, sys.stdout, indent=2)
        print()
        return
    console = Console()
    if not console.is_terminal:
        console.width = _WIDTH
    if result["exact"]:
        console.print(_exact_table(result["exact"], options.tasks))
    if result["semantic"]:
        console.print(_semantic_table(result["semantic"]))
    console.print(_target_table([Target(**item) for item in result["targets"]]))


if __name__ == "__main__":
    main()
