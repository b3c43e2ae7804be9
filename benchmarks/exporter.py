"""Cost per lookup of a trace collector that works, is slow, refuses, hangs or answers 500.

Seven caches take turns in one process, each with a tracer provider of its own and the same sampler:
two that send nothing, and one for each collector, set up as by `telemetry.configure`. The
second idle one measures the noise: it is identical to the first.

    python -m benchmarks.exporter                    every lookup traced, the worst case
    python -m benchmarks.exporter --sampled 0.05 --json | jq .lost
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from rich.console import Console
from rich.table import Table

from benchmarks.support.servers import collector, free_port, redis_server
from cache_core import MultiLevelCache
from cache_core.config.settings import Settings
from cache_core.testing import HashEmbedder
from telemetry.exporters import made_provider
from telemetry.metrics import PrometheusInstrument
from telemetry.tracing import TracingInstrument

_BASELINE = "sends nothing"
_CONTROL = "sends nothing, again"
_WORKS = "works"
_BROKEN = ("slow", "refuses", "hangs", "answers 500")
_MESSAGE, _USER, _ANSWER = "is it raining", "ann", "y" * 500
_SLOW_SECONDS, _HANGS_SECONDS = 2.0, 3_600.0
_WARM_UP = 1_500

progress = Console(stderr=True)


@dataclass(slots=True)
class Contender:
    """Cache whose spans go to one kind of collector.

    Attributes:
        name: Name in the table.
        cache: Open cache with the answer stored.
        registry: Registry of its metrics only.
        provider: Provider of its spans only.
        url: URL of the collector; empty for none.
        made: Number of lookups, including the warm-up.
        cpu: Seconds of CPU of this process per lookup, per round; sending is part of it.
        p50: Median seconds of a lookup, per round.
        worst: The longest of all, in seconds.
    """

    name: str
    cache: MultiLevelCache
    registry: CollectorRegistry
    provider: Any
    url: str = ""
    made: int = 0
    cpu: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    worst: float = 0.0

    async def play(self, lookups: int, *, kept: bool) -> None:
        """Run a round of lookups, one after the other."""
        seconds: list[float] = []
        began = time.process_time()
        for _ in range(lookups):
            started = time.perf_counter()
            await self.cache.lookup(_MESSAGE, _USER)
            seconds.append(time.perf_counter() - started)
        if self.name == _WORKS:
            # work that waits belongs to this contender, not to the next one's round
            await asyncio.to_thread(self.provider.force_flush)
        spent = time.process_time() - began
        self.made += lookups
        if kept:
            self.cpu.append(spent / lookups)
            self.p50.append(statistics.median(seconds))
            self.worst = max(self.worst, *seconds)

    def counted(self) -> int:
        """Return the lowest count of lookups in any of the metrics.

        On a busy machine a lookup may exceed its timeout: it then counts as an error.
        """
        series = (
            ("cache_lookups_total", {}),
            ("cache_lookup_seconds_count", {}),
            ("cache_latency_seconds_count", {"level": "l1"}),
        )
        metrics = [self._sum(name, labels) for name, labels in series]
        return min(*metrics, sum(self.cache.get_metrics()["outcomes"].values()))

    def astray(self) -> int:
        """Return the number of lookups that were not the intended hit of L1."""
        return self.made - self._sum("cache_hits_total", {"level": "l1"})

    def _sum(self, name: str, labels: dict[str, str]) -> int:
        return int(
            sum(
                sample.value
                for family in self.registry.collect()
                for sample in family.samples
                if sample.name == name and labels.items() <= sample.labels.items()
            )
        )


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables during the block."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


async def _open(
    name: str, url: str, sampled: float, directory: Path, redis_url: str, number: int
) -> Contender:
    variables = {
        "OTEL_TRACES_SAMPLER": "traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": str(sampled),
        "OTEL_EXPORTER_OTLP_ENDPOINT": url,
        "OTEL_TRACES_EXPORTER": "otlp" if url else "none",
    }
    with _environment(variables):
        provider, lost = made_provider("benchmark")
        assert provider is not None, lost
    namespace = f"exporter-{number}"
    registry = CollectorRegistry()
    cache = MultiLevelCache(
        settings=Settings(redis_url=redis_url, dir=directory / namespace),
        namespace=namespace,
        embedding_model=HashEmbedder(),
        instruments=[
            PrometheusInstrument(namespace, registry),
            TracingInstrument(namespace, provider),
        ],
    )
    await cache.initialize()
    await cache.put(_MESSAGE, _USER, _ANSWER)
    return Contender(name, cache, registry, provider, url)


async def run(options: argparse.Namespace, directory: Path, urls: dict[str, str]) -> dict[str, Any]:
    """Measure all contenders in turns; return the output of `--json`."""
    names = (_BASELINE, _CONTROL, _WORKS, *_BROKEN)
    contenders = [
        await _open(name, urls.get(name, ""), options.sampled, directory, urls["redis"], number)
        for number, name in enumerate(names)
    ]
    try:
        for contender in contenders:
            progress.print(f"warming up: {contender.name}")
            # enough to fill the queue of spans (2,048) of a blocked exporter
            await contender.play(_WARM_UP, kept=False)
        for number in range(options.rounds):
            # no contender always follows the same one
            turn = number % len(contenders)
            order = contenders[turn:] + contenders[:turn]
            for contender in order if number % 2 else reversed(order):
                await contender.play(options.lookups, kept=True)
        tried = {name: _requests(urls[name]) for name in (_WORKS, *_BROKEN) if name != "refuses"}
        return _result(options, contenders, tried)
    finally:
        for contender in contenders:
            await contender.cache.close()


def _requests(url: str) -> int:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return int(answer.read())


def _result(
    options: argparse.Namespace, contenders: list[Contender], tried: dict[str, int]
) -> dict[str, Any]:
    baseline = contenders[0]
    rows = []
    for contender in contenders:
        row: dict[str, Any] = {
            "collector": contender.name,
            "lookups": contender.made,
            "lost": contender.made - contender.counted(),
            "astray": contender.astray(),
            "requests": tried.get(contender.name),
            "worst_ms": round(contender.worst * 1e3, 2),
        }
        for what in ("cpu", "p50"):
            mine, theirs = getattr(contender, what), getattr(baseline, what)
            ratios = sorted(a / b for a, b in zip(mine, theirs, strict=True))
            row[f"{what}_us"] = round(statistics.median(mine) * 1e6, 1)
            row[f"{what}_ratio"] = round(statistics.median(ratios), 3)
            tenths = statistics.quantiles(ratios, n=10)
            row[f"{what}_ratio_range"] = [round(tenths[0], 3), round(tenths[-1], 3)]
        rows.append(row)
    noise = {what: rows[1][f"{what}_ratio_range"] for what in ("cpu", "p50")}
    for row in rows:
        row["within_noise"] = all(
            row[f"{what}_ratio"] <= max(noise[what][1], 1.0) for what in ("cpu", "p50")
        )
    return {
        "sampled": options.sampled,
        "rounds": options.rounds,
        "lookups_per_round": options.lookups,
        "noise": noise,
        "lost": sum(row["lost"] for row in rows),
        "collectors": rows,
    }


def _table(result: dict[str, Any]) -> Table:
    table = Table(
        title=f"L1 hits, {result['sampled']:.0%} of lookups traced: {result['rounds']} rounds of "
        f"{result['lookups_per_round']:,} lookups each, in turns",
        caption="times: the first row's in the same round, median; range: of 80 % of the rounds",
    )
    table.add_column("collector")
    for title in ("CPU us", "times", "range", "p50 us", "times", "range", "lost", "astray"):
        table.add_column(title, justify="right")
    for row in result["collectors"]:
        cells = []
        for what in ("cpu", "p50"):
            low, high = row[f"{what}_ratio_range"]
            cells += [f"{row[f'{what}_us']:.0f}", f"{row[f'{what}_ratio']:.2f}"]
            cells.append(f"{low:.2f}-{high:.2f}")
        table.add_row(row["collector"], *cells, str(row["lost"]), str(row["astray"]))
    return table


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=40, help="that count (%(default)s)")
    parser.add_argument("--lookups", type=int, default=300, help="a round (%(default)s)")
    parser.add_argument(
        "--sampled", type=float, default=1.0, help="share of lookups traced (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    options = _options()
    os.environ.setdefault("TQDM_DISABLE", "1")
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="glasscache-")))
        # log as an agent does, without drowning the table
        log = (directory / "log").open("w")
        logging.basicConfig(stream=log, level=logging.WARNING)
        urls = {
            "redis": stack.enter_context(redis_server(directory)),
            _WORKS: stack.enter_context(collector()),
            "slow": stack.enter_context(collector(hangs=_SLOW_SECONDS)),
            "refuses": f"http://127.0.0.1:{free_port()}",
            "hangs": stack.enter_context(collector(hangs=_HANGS_SECONDS)),
            "answers 500": stack.enter_context(collector(status=500)),
        }
        result = asyncio.run(run(options, directory, urls))
        if options.json:
            json.dump(result, sys.stdout, indent=2)
            print()
        else:
            console = Console()
            if not console.is_terminal:
                console.width = 120
            console.print(_table(result))
        sys.stdout.flush()
        stack.close()
        # The SDK's threads would wait for the collector that hangs.
        os._exit(0)


if __name__ == "__main__":
    main()
