"""Time of a hit through each adapter, compared with the bare lookup of an answer as long.

    python -m benchmarks.adapters                 about a minute
    python -m benchmarks.adapters --calls 1000 --awake
    python -m benchmarks.adapters --json | jq '.rows[] | {name, times}'
    python -m benchmarks.adapters --write-docs    and the table in docs/performance.md

Every adapter answers from L1 on one Redis, on its real framework; the model, a server in this
process, is asked once for each question, before the measurement. All take turns call by call with
the bare `cache.lookup`: a ratio compares two calls of one turn, so noise affects both alike.

Most of a hit is the framework's own work. So each framework is measured without glasscache, too,
with an answer that it has already: its own cache in memory, or a model that only returns. *added*
is the difference to that, in bare lookups: what adapter and cache cost together, of which the
lookup is 1.0.
OpenAI's client has no such way: all that it does on a hit is the adapter's.

It needs the development dependencies and those of the group `integrations`, and a `redis-server`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.metadata
import json
import logging
import os
import statistics
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.support.contenders import Contender, measure_alone
from benchmarks.support.docs_table import PERFORMANCE, machine, markdown, write
from benchmarks.support.servers import awake, redis_server
from benchmarks.support.stacks import MODEL, TEXT, Ask, Desk, Hit, every
from cache_core import MultiLevelCache
from cache_core.config.settings import Settings
from glasscache.integrations.gate import Gate, as_user
from glasscache.testing import FakeModel, Said

HEADER = ("one hit", "median, us", "x bare lookup", "framework alone, us", "added, lookups")
BASELINE = "bare lookup"
_CONTEXT = {"model": MODEL, "system": "You answer for a shop."}
_QUESTIONS = [f"When do you open on day {number} of the month?" for number in range(20)]
_SETTLE_SECONDS = 1.0
_PAUSE = 0.002
"""Seconds after each call: LiteLLM prices and logs a hit after it has returned it."""

_PACKAGES = (
    "openai", "langchain", "langchain-core", "langgraph", "openai-agents", "pydantic-ai-slim",
    "litellm", "mcp", "uvicorn", "httpx",
)  # fmt: skip

progress = Console(stderr=True)


def _contender(name: str, ask: Ask) -> Contender:
    async def call(number: int) -> bool:
        return await ask(_QUESTIONS[number % len(_QUESTIONS)]) == TEXT

    return Contender(name, call)


def _quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    low, middle, high = statistics.quantiles(values, n=4)
    return low, middle, high


def rows(base: Contender, measured: Sequence[tuple[Contender, Contender | None]]) -> list[Any]:
    """Return the measurements as JSON values, each a median with its quartiles.

    Args:
        base: The bare lookup.
        measured: Each hit, and its framework alone.
    """
    found = []
    for item, alone in [(base, None), *measured]:
        times = [a / b for a, b in zip(item.seconds, base.seconds, strict=True)]
        row: dict[str, Any] = {
            "name": item.name,
            "us": [1e6 * value for value in _quartiles(item.seconds)],
            "times": list(_quartiles(times)),
            "astray": item.astray + (alone.astray if alone else 0),
        }
        if alone is not None:
            added = [(a - c) / b for a, b, c in
                     zip(item.seconds, base.seconds, alone.seconds, strict=True)]  # fmt: skip
            row["alone_us"] = [1e6 * value for value in _quartiles(alone.seconds)]
            row["added"] = list(_quartiles(added))
        found.append(row)
    return found


def _cells(row: dict[str, Any]) -> list[str]:
    low, middle, high = row["us"]
    times = "{1:.1f} ({0:.1f}-{2:.1f})".format(*row["times"])
    alone = f"{row['alone_us'][1]:,.0f}" if "alone_us" in row else "-"
    added = "{1:.1f} ({0:.1f}-{2:.1f})".format(*row["added"]) if "added" in row else "-"
    return [row["name"], f"{middle:,.0f} ({low:,.0f}-{high:,.0f})", times, alone, added]


def documented(result: dict[str, Any]) -> str:
    """Return the table of docs/performance.md."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return (
        f"{markdown(HEADER, [_cells(row) for row in result['rows']])}\n\n"
        f"Median (quartiles) over {result['calls']:,} calls of each. {versions}; {machine()}."
    )


async def _fill(contenders: Sequence[Contender]) -> None:
    """Ask every question once, so that all have the answers."""
    for contender in contenders:
        progress.print(f"filling: {contender.name}")
        for number in range(len(_QUESTIONS)):
            await contender.timed(number)
    await asyncio.sleep(_SETTLE_SECONDS)  # LiteLLM stores in the background
    for contender in contenders:
        contender.astray = 0


async def _measure(cache: MultiLevelCache, hits: Sequence[Hit], calls: int) -> list[Any]:
    async def bare(question: str) -> str | None:
        return (await cache.lookup(question, "ann", context=_CONTEXT)).response

    for question in _QUESTIONS:
        await cache.put(question, "ann", TEXT, context=_CONTEXT)
    base = _contender(BASELINE, bare)
    pairs = [
        (
            _contender(hit.name, hit.ask),
            _contender(f"{hit.name}: framework alone", hit.alone) if hit.alone else None,
        )
        for hit in hits
    ]
    contenders = [base, *(each for pair in pairs for each in pair if each is not None)]
    await _fill(contenders)
    progress.print(f"{len(contenders)} ways to ask, {calls:,} calls each, in turns")
    await measure_alone(contenders, calls, pause=_PAUSE)
    return rows(base, pairs)


async def run(calls: int, directory: Path, redis_url: str) -> dict[str, Any]:
    """Measure; return JSON values."""

    def make(name: str) -> MultiLevelCache:
        settings = Settings(redis_url=redis_url, dir=directory / name, tiers={"l1"})
        return MultiLevelCache(settings=settings, namespace=name)

    async with contextlib.AsyncExitStack() as stack:
        model = stack.enter_context(FakeModel(reply=lambda *_: Said(TEXT)))
        cache = await stack.enter_async_context(make("adapters"))
        waiting = Gate(make("waiting"))
        stack.callback(lambda: waiting.now(waiting.cache.close()))
        stack.enter_context(as_user("ann"))
        hits = await every(Desk(Gate(cache), waiting, model.url, stack))
        found = await _measure(cache, hits, calls)
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"calls": calls, "rows": found, "versions": versions}


def _table(result: dict[str, Any]) -> Table:
    table = Table(title="A hit in L1 through each adapter")
    for at, name in enumerate(HEADER):
        table.add_column(name, justify="right" if at else "left")
    for row in result["rows"]:
        table.add_row(*_cells(row))
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--calls", type=int, default=400, help="calls of each adapter (%(default)s)"
    )
    parser.add_argument(
        "--awake", action="store_true", help="keep the cores from halting: see benchmarks/README.md"
    )
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")
    parser.add_argument(
        "--write-docs", action="store_true", help="write the table into docs/performance.md"
    )
    options = parser.parse_args()
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else its import asks the network
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="glasscache-")))
        url = stack.enter_context(redis_server(directory))
        if options.awake:
            stack.enter_context(awake())
        result = asyncio.run(run(options.calls, directory, url))
    for row in result["rows"]:
        if row["astray"]:
            progress.print(f"[bold]{row['name']}: {row['astray']} calls had no answer")
    if options.write_docs:
        write(PERFORMANCE, "adapters", documented(result))
    if options.json:
        json.dump(result, sys.stdout, indent=2)
        print()
        return
    console = Console()
    if not console.is_terminal:
        console.width = 140
    console.print(_table(result))


if __name__ == "__main__":
    main()
