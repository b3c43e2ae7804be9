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
from benchmarks.answers import Pair
from benchmarks.policy import chart
from benchmarks.policy.curves import (
    BOUNDS,
    RISKS,
    THRESHOLDS,
    Point,
    as_json,
    measure,
    told_apart,
)
from benchmarks.policy.simulation import (
    OBSERVED_FROM,
    Rule,
    Shares,
    Told,
    World,
    embedded,
    fit,
    pages_of,
    simulate,
)
from benchmarks.support.docs_table import ANSWER_QUALITY, MEASURED, markdown, write
from cache_core.policy import curve
from cache_core.policy.answers import ALIKE, UNLIKE, Verdict
from cache_core.tiers.guards import language

RECORDED = MEASURED / "policy.json"
HEADER = ("equal answers are told", "at most wrong", "hits", "wrong",
          "in the second half", "wrong")  # fmt: skip

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

    The shares of facts and vectors, and of documents, are those of `benchmarks.answers`: of its
    near misses for different answers.
    """
    pairs = answers.measure().pairs
    compared, of_page = (_shares(pairs, documents=documents) for documents in (False, True))
    ways = {
        "by text alone": Told(wordings, Shares(same=0.0, otherwise="different")),
        "by facts and vectors": Told(wordings, compared),
        "and by documents": Told(wordings, compared, of_page, pages_of(world.rows)),
    }
    requests = len(world.rows)
    steps = (1 + len(ways)) * len(BOUNDS)
    rows = [
        [
            way, f"{point.setting:.1%}",
            f"{sum(point.hits) / requests:.1%}", f"{point.wrong_share:.2%}",
            f"{point.late_hits / (requests - requests // 2):.1%}", f"{point.late_wrong_share:.2%}",
        ]
        for way, point in track(
            told_apart(world, ways), "settings", total=steps, console=console, transient=True
        )
    ]  # fmt: skip
    print(markdown(HEADER, rows))


def _shares(pairs: Sequence[Pair], *, documents: bool) -> Shares:
    """Return what is said of the pairs of answers, all of the same document or none."""
    said: dict[bool, Counter[Verdict]] = {True: Counter(), False: Counter()}
    for pair in pairs:
        if pair.differs != answers.SUBJECTS:
            verdict = pair.verdict(ALIKE, UNLIKE, documents=documents)
            said[pair.differs == answers.SAME][verdict] += 1
    same, near = said[True], said[False]
    return Shares(same["same"] / same.total(), near["different"] / near.total(),
                  near["same"] / near.total())  # fmt: skip


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
