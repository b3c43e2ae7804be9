"""Hits against accuracy of three policies on labelled traffic.

A threshold has nothing to fit. The learned policy is counted on answers that its prior has not
seen: they are split into five parts, and what counts for one part is from a run whose prior was
fitted on the other four.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.policy.simulation import (
    OBSERVED_FROM,
    PARTS,
    Rule,
    World,
    fit,
    part_of,
    simulate,
)
from cache_core.policy.evidence import Evidence

THRESHOLDS = (0.99, 0.97, 0.95, 0.92, 0.9, 0.88, 0.86, 0.84, 0.8, 0.75)
RISKS = (0.08, 0.12, 0.16, 0.2, 0.25, 0.3, 0.35, 0.42, 0.5)
BOUNDS = (0.005, 0.007, 0.01)
CAUTION = 0.85
"""Part of a bound that a risk may reach on the parts it is chosen on."""


class Point(NamedTuple):
    """One setting of a policy.

    Attributes:
        setting: The threshold, the risk, or the bound.
        hits: Hits, in each part.
        wrong: Wrong ones among them, in each part.
    """

    setting: float
    hits: tuple[int, ...]
    wrong: tuple[int, ...]

    @property
    def wrong_share(self) -> float:
        """Share of wrong hits among all."""
        return sum(self.wrong) / max(1, sum(self.hits))


def measure(world: World) -> Iterator[tuple[str, Point]]:
    """Yield name and points of each policy, as they are done."""
    for name, guarded in (("threshold", False), ("guarded", True)):
        for threshold in THRESHOLDS:
            yield name, _counted(world, threshold, [Rule(threshold, guarded)])
    labels = simulate(world, Rule(OBSERVED_FROM)).labels
    priors = [
        fit({name: found for name, found in labels.items() if part_of(name) != part})
        for part in range(PARTS)
    ]
    points = []
    for risk in RISKS:
        rules = [Rule(risk=risk, evidence=Evidence(prior)) for prior in priors]
        points.append(_counted(world, risk, rules))
        yield "learned", points[-1]
    for bound in BOUNDS:
        yield "within", _within(points, bound)


def _counted(world: World, setting: float, rules: Sequence[Rule]) -> Point:
    """Return what each part got in the run of its own rule; one rule serves all parts."""
    hits, wrong = [0] * PARTS, [0] * PARTS
    for number, rule in enumerate(rules):
        for answer, right in simulate(world, rule).hits:
            part = part_of(answer)
            if len(rules) == 1 or part == number:
                hits[part] += 1
                wrong[part] += not right
    return Point(setting, tuple(hits), tuple(wrong))


def _within(points: Sequence[Point], bound: float) -> Point:
    """Return what each part gets by the largest risk that stays within a bound on all others."""
    hits, wrong = [], []
    for part in range(PARTS):
        chosen = max(
            (one for one in points if _share_beside(one, part) <= CAUTION * bound),
            key=lambda one: one.setting, default=points[0],
        )  # fmt: skip
        hits.append(chosen.hits[part])
        wrong.append(chosen.wrong[part])
    return Point(bound, tuple(hits), tuple(wrong))


def _share_beside(point: Point, part: int) -> float:
    """Return the share of wrong hits on all parts but one."""
    return (sum(point.wrong) - point.wrong[part]) / max(1, sum(point.hits) - point.hits[part])


def as_json(world: World, found: Mapping[str, Sequence[Point]]) -> dict[str, Any]:
    """Return the measured points, by policy."""
    requests = len(world.rows)
    return {
        "requests": requests,
        **{
            name: [
                {
                    "setting": point.setting,
                    "hit_rate": round(sum(point.hits) / requests, 4),
                    "wrong_share": round(point.wrong_share, 5),
                    "wrong_share_by_part": [
                        round(bad / max(1, good), 5)
                        for good, bad in zip(point.hits, point.wrong, strict=True)
                    ],
                }
                for point in points
            ]
            for name, points in found.items()
        },
    }
