"""Hits and wrong hits of threshold, guards and learned policy on labelled traffic.

Simulated, by the product's own rules. What the learned policy gives is counted on answers that its
prior has not seen.

    python -m benchmarks.policy TRAFFIC.jsonl                 about seven minutes
    python -m benchmarks.policy TRAFFIC.jsonl --write-docs    and picture and tables in docs/answer-quality.md
    python -m benchmarks.policy TRAFFIC.jsonl --fit           the prior of cache_core/policy/prior.py
    python -m benchmarks.policy TRAFFIC.jsonl --wordings 3    the same with equal answers in other words
"""  # noqa: E501 - a command and what it does

from __future__ import annotations

import argparse
import asyncio
import json
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from benchmarks import answers
from benchmarks.policy import chart
from benchmarks.policy.curves import BOUNDS, RISKS, THRESHOLDS, Point, as_json, measure
from benchmarks.policy.simulation import OBSERVED_FROM, Rule, Told, World, embedded, fit, simulate
from benchmarks.support.docs_table import ANSWER_QUALITY, MEASURED, markdown, write
from cache_core.policy import curve, decide
from cache_core.policy.answers import ALIKE, UNLIKE, Verdict
from cache_core.policy.evidence import Evidence
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


def show_wordings(world: World, wordings: int) -> None:
    """Print what the policy gives if each answer has some wordings, by how they are told apart.

    The shares of facts and vectors are those of `benchmarks.answers`, of its near misses for
    different answers. The prior is the package's.
    """
    pairs = answers.measure().pairs
    said: dict[bool, Counter[Verdict]] = {True: Counter(), False: Counter()}
    for pair in pairs:
        if pair.differs != answers.SUBJECTS:
            said[pair.differs == answers.SAME][pair.verdict(ALIKE, UNLIKE)] += 1
    same, near = ({name: count / found.total() for name, count in found.items()}
                  for found in (said[True], said[False]))  # fmt: skip
    ways = {
        "by name": Told(),
        "by text alone": Told(wordings, same=0.0, otherwise="different"),
        "by facts and vectors": Told(
            wordings, same["same"], near["different"], near.get("same", 0.0)
        ),
    }
    rows = []
    for way, told in ways.items():
        for bound in BOUNDS:
            risk = decide.risk_of(bound)
            hits = simulate(world, Rule(risk=risk, evidence=Evidence(), told=told)).hits
            wrong = sum(not right for _, right in hits)
            rows.append([way, f"{bound:.1%}", f"{len(hits) / len(world.rows):.1%}",
                         f"{wrong / len(hits):.2%}"])  # fmt: skip
    print(markdown(["equal answers are told", "at most wrong", "hits", "wrong"], rows))


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate, print, and write the documentation if wanted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("traffic", type=Path, help="JSON Lines with the columns of `replay`")
    parser.add_argument("--fit", action="store_true", help="print the prior fitted on all answers")
    parser.add_argument(
        "--wordings", type=int, help="print what several wordings of each answer cost"
    )
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
    if options.wordings:
        show_wordings(world, options.wordings)
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
