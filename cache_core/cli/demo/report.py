"""Final report: as a board, or as a JSON document."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any

from rich.console import Console

from cache_core import MultiLevelCache
from cache_core.cli.console import counted, out, print_json
from cache_core.cli.demo.agent import STEPS, Score, quantile
from cache_core.cli.demo.board import Board, Run, snapshot
from cache_core.cli.demo.options import Options
from cache_core.cli.demo.traffic import USERS, ZIPF
from cache_core.cli.demo.truth import Truth
from cache_core.cli.demo.warmup import Warmed

_WIDEST, _PRINTED_HEIGHT = 110, 30


def finish(options: Options, score: Score, board: Board, report: dict[str, Any]) -> None:
    """Print the last board or the document, and write the requested picture."""
    if options.picture is not None:
        snapshot(board, options.picture)
    if options.as_json:
        print_json(report)
        return
    asked = out.is_terminal or "COLUMNS" in os.environ
    width = min(_WIDEST, out.width) if asked else _WIDEST
    Console(width=width, markup=False, emoji=False).print(board.render(width, _PRINTED_HEIGHT))
    kept = f"data kept in {options.directory}" if options.directory else "temporary data removed"
    seconds = report["seconds"]
    out.print(f"{counted(score.requests, 'requests')} in {seconds:.0f} s; {kept}.", highlight=False)
    for note in report["notes"]:
        out.print(note, style="yellow", highlight=False)


def report_of(
    options: Options, cache: MultiLevelCache, score: Score, truth: Truth, warmed: Warmed | None,
    run: Run, seconds: float,
) -> dict[str, Any]:  # fmt: skip
    """Return the cache's results for the agent, as a document."""
    advised = truth.recommendation
    metrics = cache.get_metrics()
    hits, answerable = cache.metrics.outcomes["hit"], max(1, cache.metrics.lookups)
    return {
        "requests": score.requests,
        "seed": options.seed,
        "seconds": round(seconds, 2),
        "hit_rate": round(cache.metrics.hit_rate, 4),
        "hit_rate_objective": cache.tuning.hit_rate_objective,
        "partial": round(cache.metrics.outcomes["partial"] / answerable, 4),
        "served_by": {tier: metrics["tiers"][tier]["served_share"] for tier in ("l1", "l2")},
        "outcomes": metrics["outcomes"],
        "wrong": score.wrong,
        "wrong_share": round(score.wrong / hits, 4) if hits else 0.0,
        "private_leaks": score.leaks,
        "latency_ms": {
            name: {
                "with_cache": round(1000 * quantile(score.cached_seconds, share), 2),
                "llm": round(1000 * quantile(score.llm_seconds, share), 2),
            }
            for name, share in (("p50", 0.5), ("p95", 0.95))
        },
        "lookup_ms": metrics["latency_ms"],
        "saved_usd": round(cache.metrics.cost_saved_usd, 6),
        "spent": {
            "with_cache_usd": round(score.spent_usd, 6),
            "without_cache_usd": round(score.full_usd, 6),
        },
        "tiers": metrics["tiers"],
        "miss_reasons": metrics["miss_reasons"],
        "error_reasons": metrics["error_reasons"],
        "sharing": metrics["sharing"],
        "semantic_threshold": cache.tuning.semantic_threshold,
        "traffic": {"users": USERS, "zipf": ZIPF, "concurrency": options.concurrency},
        "llm": {
            "simulated": True,
            "speed": options.llm_speed,
            "latency_ms": {step.name: round(1000 * step.seconds) for step in STEPS},
            "prices_usd": {step.name: step.usd for step in STEPS},
        },
        "warmed": None if warmed is None else asdict(warmed),
        "verdicts": {"given": truth.verdicts, "by": "the demo, which knows the right answers"},
        "recommended_threshold": advised.threshold if advised is not None else None,
        "listening": {place.name.replace(" ", "_").lower(): place.where for place in run.places},
        "notes": list(run.notes),
    }
