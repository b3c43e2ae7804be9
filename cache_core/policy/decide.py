"""Decision on the neighbours of a question: which one's answer is served, or why none is.

The owner says which share of hits may be wrong. From that follows the risk that a single hit may
have, and with it what the curve of its answer must promise (`curve.py`):

- With a few neighbours of the same answer beside it, the full risk; a lone neighbour has half.
- A *doubtful* neighbour, in which one word of the question's frame is swapped for another, has half
  of what is left: "cancel" and "end my subscription" are the same, "the Basic" and "the Business
  plan" are not, and no rule tells them apart.
- No neighbour with a different answer may be almost as near, whatever the curve says.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from cache_core.policy.evidence import Evidence
from cache_core.policy.limits import LEAST_SIMILARITY

NEIGHBOURS = 10
"""Neighbours that the policy looks at."""

MARGIN = 0.08
"""Distance in similarity to the nearest neighbour with a different answer."""

SUPPORT = 3
"""Neighbours with the same answer, itself included, that make a lone one a supported one."""

ALONE = 0.5
"""Part of the risk for a neighbour without that support."""

DOUBTFUL = 0.5
"""Part of the risk for a doubtful neighbour."""

IDENTICAL = 0.9995
"""Similarity from which the question is the same in another spelling: no margin is needed."""

RISKS: tuple[tuple[float, float], ...] = (
    (0.0, 0.0), (0.0025, 0.12), (0.005, 0.25), (0.007, 0.35), (0.01, 0.42), (0.02, 0.55),
    (0.05, 0.75), (1.0, 1.0),
)  # fmt: skip
"""Risk of a single hit for a share of wrong hits. Most hits have far less risk than they may.

Read off simulations with the method of `benchmarks/policy` up to a share of 0.007; the values
above that are extrapolated, and no traffic has confirmed them."""

Held = Literal["", "nothing_near", "different_answer_near", "not_sure"]
"""Reason why no neighbour is served; empty if one is."""


class Near(NamedTuple):
    """A stored question near the asked one, of those that no guard vetoed.

    Attributes:
        similarity: Of the two questions, 0 to 1.
        key: Name under which evidence on its answer is kept.
        group: Number of its answer: that of another neighbour if the two answers are the same.
    """

    similarity: float
    key: str
    group: int


class Decision(NamedTuple):
    """Decision of the policy.

    Attributes:
        place: Place of the neighbour that is served; `None` for none.
        held: Reason for none.
        chance: Chance, 0 to 1, that the nearest neighbour's answer is right.
        needed: Least chance at which it is served.
        support: Number of neighbours with the nearest one's answer.
    """

    place: int | None
    held: Held
    chance: float = 0.0
    needed: float = 1.0
    support: int = 0

    def __str__(self) -> str:
        """Return it in one line, for a person."""
        said = f"{self.chance:.2f} sure, {self.needed:.2f} needed, {self.support} agree"
        match self.held:
            case "nothing_near":
                return "no question is near enough"
            case "different_answer_near":
                return f"a different answer is almost as near ({said})"
            case _:
                return said


def risk_of(max_wrong: float) -> float:
    """Return the risk that a single hit may have, for a share of wrong hits, both 0 to 1."""
    shares = [share for share, _ in RISKS]
    above = min(bisect_right(shares, max_wrong), len(RISKS) - 1)
    (low, risk), (high, more) = RISKS[above - 1], RISKS[above]
    return risk + (more - risk) * (max_wrong - low) / (high - low)


def decide(
    neighbours: Sequence[Near],
    evidence: Evidence,
    max_wrong: float,
    doubtful: Callable[[int], bool],
) -> Decision:
    """Return which of *neighbours*, nearest first, is served: the nearest, or none.

    Args:
        neighbours: Those that no guard vetoed.
        evidence: What was learned of their answers.
        max_wrong: Share of hits that may be wrong, 0 to 1.
        doubtful: Returns whether the neighbour at a place differs by one swapped word.
    """
    return within(neighbours, evidence, risk_of(max_wrong) * evidence.caution(max_wrong), doubtful)


def within(
    neighbours: Sequence[Near],
    evidence: Evidence,
    risk: float,
    doubtful: Callable[[int], bool],
) -> Decision:
    """Return the decision for the *risk*, 0 to 1, that a single hit may have; see `decide`."""
    if not neighbours or neighbours[0].similarity < LEAST_SIMILARITY:
        return Decision(None, "nothing_near")
    first = neighbours[0]
    support = sum(near.group == first.group for near in neighbours)
    identical = first.similarity >= IDENTICAL
    if support < SUPPORT:
        risk *= ALONE
    if not identical and doubtful(0):
        risk *= DOUBTFUL
    chance = evidence.chance(first.key, first.similarity)
    decision = Decision(None, "not_sure", chance, 1.0 - risk, support)
    other = next((near for near in neighbours if near.group != first.group), None)
    if other is not None and not identical and other.similarity > first.similarity - MARGIN:
        return decision._replace(held="different_answer_near")
    return decision._replace(place=0, held="") if chance >= 1.0 - risk else decision
