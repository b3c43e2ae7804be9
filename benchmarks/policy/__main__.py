"""Hits and wrong hits of threshold, guards and learned policy on labelled traffic.

Simulated, by the product's own rules. What the learned policy gives is counted on answers that its
prior has not seen.

    python -m benchmarks.policy TRAFFIC.jsonl                 about seven minutes
    python -m benchmarks.policy TRAFFIC.jsonl --write-docs    and picture and tables in docs/answer-quality.md
    python -m benchmarks.policy TRAFFIC.jsonl --fit           the prior of cache_core/policy/prior.py
"""  # noqa: E501 - a command and what it does

from __future__ import annotations

import argparse
import asyncio
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from benchmarks.policy import chart
from benchmarks.policy.curves import BOUNDS, RISKS, THRESHOLDS, Point, as_json, measure
from benchmarks.policy.simulation import OBSERVED_FROM, Rule, World, embedded, fit, simulate
from benchmarks.support.docs_table import ANSWER_QUALITY, MEASURED, write
from cache_core.policy import curve
from cache_core.tiers.guards import language

RECORDED = MEASURED / "policy.json"

console = Console(stderr=True)


def show_prior(world: World) -> None:
    """Print the prior that is fitted on all answers."""
    prior = fit(simulate(world, Rule(OBSERVED_FROM)).labels)
    slopes = len(curve.SLOPES)
    for at in range(0, len(prior), slopes):
        print("    (" + ", ".join(f"{weight:.5f}" for weight in prior[at : at + slopes]) + "),")
    assert math.isclose(sum(prior), 1.0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate, print, and write the documentation if wanted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("traffic", type=Path, help="JSON Lines with the columns of `replay`")
    parser.add_argument("--fit", action="store_true", help="print the prior fitted on all answers")
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    parser.add_argument(
        "--write-docs", action="store_true", help="write the results into the documentation"
    )
    options = parser.parse_args(arguments)
    language.load()
    world = asyncio.run(embedded(options.traffic))
    if options.fit:
        show_prior(world)
        return
    points: dict[str, list[Point]] = defaultdict(list)
    steps = 2 * len(THRESHOLDS) + len(RISKS) + len(BOUNDS)
    for name, point in track(
        measure(world), "settings", total=steps, console=console, transient=True
    ):
        points[name].append(point)
    found = as_json(world, points)
    if options.write_docs:
        RECORDED.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        chart.draw(found)
        write(ANSWER_QUALITY, chart.NAME, chart.body(found))
    print(json.dumps(found, indent=1) if options.json else chart.body(found))


if __name__ == "__main__":
    main()
