"""Cost of the learned policy to a semantic hit: in the shadow of the threshold, and deciding.

Three caches hold the same answers and are asked the same questions in turns: one without a decision
log, in which nothing looks at the policy; one with a log, which records what the policy would have
done; and one in which it decides, without a log. Counted are the questions that L2 answers in all
three. CPU is that of the event loop's thread within the lookup; the log is written between lookups.

    python -m benchmarks.shadow                    the demo's own traffic, about a minute
    python -m benchmarks.shadow --json
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.whatif import demo_rows
from cache_core import MultiLevelCache
from cache_core.backends.embedder.choosing import make_embedder
from cache_core.config.settings import Settings
from cache_core.whatif.replay import TrafficRow

_PATIENCE = 60.0
_RULES: dict[str, tuple[int, dict[str, float]]] = {
    "threshold, no log": (0, {}),
    "threshold, with the shadow": (10_000, {}),
    "policy, no log": (0, {"max_wrong": 0.01}),
}
"""Size of the decision log, and tuning, by name."""


def _settings(directory: Path, decisions: int) -> Settings:
    budgets = ("exact", "embedding", "search", "lookup", "put")
    return Settings().model_copy(
        update={
            "redis_url": None,
            "chroma_url": None,
            "vectors": "chroma",
            "dir": directory,
            "decisions": decisions,
            "hedge_delay": _PATIENCE,
            **{f"{name}_budget": _PATIENCE for name in budgets},
        }
    )


async def measure(rows: list[TrafficRow]) -> dict[str, Any]:
    """Return the times of each rule, in milliseconds."""
    public = {row.message: row for row in rows if not row.private and not row.history}
    messages = list(public)
    stored, asked = messages[::2], messages[1::2]
    embedder = make_embedder()
    await embedder.wait_ready()
    await embedder.embed_all([text for text in messages if embedder.fits(text)], lambda _: None)
    async with contextlib.AsyncExitStack() as stack:
        caches: dict[str, MultiLevelCache] = {}
        for name, (decisions, tuned) in _RULES.items():
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            cache = MultiLevelCache(
                embedding_model=embedder, settings=_settings(directory, decisions), instruments=()
            )
            caches[name] = await stack.enter_async_context(cache)
            await cache.ready()
            rates = {"puts_per_minute": 1e6, "shared_puts_per_minute": 1e6}
            await cache.tune({**rates, **tuned}, author="benchmark")
            for message in stored:
                answer = str(public[message].answer_id)
                await cache.put(message, "ann", answer, shared=True, answer_id=answer)
        found = await _ask(caches, asked)
    embedder.close()
    return {"stored": len(stored), **found}


async def _ask(caches: dict[str, MultiLevelCache], asked: list[str]) -> dict[str, Any]:
    lookups: dict[str, dict[str, tuple[float, float]]] = {name: {} for name in caches}
    names = list(caches)
    for message in asked:
        names.append(names.pop(0))
        for name in names:
            wall, cpu = time.perf_counter(), time.thread_time()
            result = await caches[name].lookup(message, "bob")
            if result.tier == "l2":
                spent = (time.perf_counter() - wall, time.thread_time() - cpu)
                lookups[name][message] = spent
    common = set.intersection(*(set(found) for found in lookups.values()))
    return {
        "asked": len(asked),
        "hits": len(common),
        "rules": {
            name: {
                "wall_ms": _median(found[text][0] for text in common),
                "cpu_ms": _median(found[text][1] for text in common),
            }
            for name, found in lookups.items()
        },
    }


def _median(seconds: Any) -> float:
    return round(1000 * statistics.median(seconds), 3)


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=8_000, help="requests of the demo's traffic")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    found = asyncio.run(measure(demo_rows(chosen.rows)))
    if chosen.json:
        print(json.dumps(found, indent=2))
        return
    table = Table(
        title=f"{found['hits']:,} semantic hits among {found['stored']:,} stored questions, ms",
        title_justify="left",
    )
    for name in ("", "median", "more", "CPU", "more"):
        table.add_column(name, justify="right" if name else "left")
    base = next(iter(found["rules"].values()))
    for name, item in found["rules"].items():
        table.add_row(
            name, f"{item['wall_ms']:.2f}", f"{item['wall_ms'] - base['wall_ms']:+.2f}",
            f"{item['cpu_ms']:.2f}", f"{item['cpu_ms'] - base['cpu_ms']:+.2f}",
        )  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    main()
