"""Hits against accuracy of three policies on labelled traffic.

A threshold has nothing to fit. The learned policy is counted on answers that its prior has not
seen: they are split into five parts, and what counts for one part is from a run whose prior was
fitted on the other four.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.policy.simulation import (
    BY_NAME,
    OBSERVED_FROM,
    PARTS,
    Rule,
    Told,
    World,
    fit,
    part_of,
    simulate,
)
from cache_core.policy.curve import Belief
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
        late: Hits in the second half of the traffic, and wrong ones among them, in each part.
    """

    setting: float
    hits: tuple[int, ...]
    wrong: tuple[int, ...]
    late: tuple[tuple[int, int], ...]

    @property
    def wrong_share(self) -> float:
        """Share of wrong hits among all."""
        return sum(self.wrong) / max(1, sum(self.hits))

    @property
    def late_hits(self) -> int:
        """Hits in the second half."""
        return sum(hits for hits, _ in self.late)

    @property
    def late_wrong_share(self) -> float:
        """Share of wrong hits in the second half."""
        return sum(wrong for _, wrong in self.late) / max(1, self.late_hits)


def measure(world: World) -> Iterator[tuple[str, Point]]:
    """Yield name and points of each policy, as they are done."""
    for name, guarded in (("threshold", False), ("guarded", True)):
        for threshold in THRESHOLDS:
            yield name, _counted(world, threshold, [Rule(threshold, guarded)])
    priors = _priors(world)
    points = []
    for risk in RISKS:
        points.append(_learned(world, risk, [risk] * PARTS, priors))
        yield "learned", points[-1]
    for bound in BOUNDS:
        yield "within", _within(points, bound)


def told_apart(world: World, ways: Mapping[str, Told]) -> Iterator[tuple[str, Point]]:
    """Yield what the policy gives by each bound, for each way of telling answers apart.

    The first is by name, as in `measure`, and chooses the risks of all of them.
    """
    priors = _priors(world)
    points = [_learned(world, risk, [risk] * PARTS, priors) for risk in RISKS]
    for bound in BOUNDS:
        yield "by name", _within(points, bound)
    for way, told in ways.items():
        for bound in BOUNDS:
            risks = [one.setting for one in _chosen(points, bound)]
            yield way, _learned(world, bound, risks, priors, told)


def _priors(world: World) -> list[Belief]:
    """Return the prior for each part, fitted on the others."""
    labels = simulate(world, Rule(OBSERVED_FROM)).labels
    return [
        fit({name: found for name, found in labels.items() if part_of(name) != part})
        for part in range(PARTS)
    ]


def _learned(
    world: World,
    setting: float,
    risks: Sequence[float],
    priors: Sequence[Belief],
    told: Told = BY_NAME,
) -> Point:
    """Return what each part got with its own risk and prior."""
    rules = [Rule(risk=risk, evidence=Evidence(prior), told=told)
             for risk, prior in zip(risks, priors, strict=True)]  # fmt: skip
    return _counted(world, setting, rules)


def _counted(world: World, setting: float, rules: Sequence[Rule]) -> Point:
    """Return what each part got in the run of its own rule; one rule serves all parts."""
    hits, wrong = [0] * PARTS, [0] * PARTS
    late = [[0, 0] for _ in range(PARTS)]
    for number, rule in enumerate(rules):
        for request, answer, right in simulate(world, rule).hits:
            part = part_of(answer)
            if len(rules) == 1 or part == number:
                hits[part] += 1
                wrong[part] += not right
                if 2 * request >= len(world.rows):
                    late[part][0] += 1
                    late[part][1] += not right
    return Point(setting, tuple(hits), tuple(wrong), tuple((good, bad) for good, bad in late))


def _within(points: Sequence[Point], bound: float) -> Point:
    """Return what each part gets by the largest risk that stays within a bound on all others."""
    chosen = [*enumerate(_chosen(points, bound))]
    return Point(
        bound,
        tuple(one.hits[part] for part, one in chosen),
        tuple(one.wrong[part] for part, one in chosen),
        tuple(one.late[part] for part, one in chosen),
    )


def _chosen(points: Sequence[Point], bound: float) -> list[Point]:
    """Return the largest risk that stays within a bound on all others, for each part."""
    return [
        max(
            (one for one in points if _share_beside(one, part) <= CAUTION * bound),
            key=lambda one: one.setting, default=points[0],
        )
        for part in range(PARTS)
    ]  # fmt: skip


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
