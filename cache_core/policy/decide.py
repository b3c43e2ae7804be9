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
from itertools import islice
from typing import Literal, NamedTuple

from cache_core.model.values import Shadow
from cache_core.policy.evidence import Evidence
from cache_core.policy.limits import LEAST_SIMILARITY, MAX_WRONG

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

_SHARES = [share for share, _ in RISKS]

NEVER = 1.0
"""Least share of wrong hits of a neighbour that no setting serves."""

_HALVINGS = 12
"""Halvings of the range in which the least share is searched: to 0.00005."""

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
        support: Number of neighbours with the nearest one's answer, itself included; counted up to
            `SUPPORT`, and where that decides.
    """

    place: int | None
    held: Held
    chance: float = 0.0
    needed: float = 1.0
    support: int = 0

    def __str__(self) -> str:
        """Return it in one line, for a person."""
        match self.held:
            case "nothing_near":
                return "no question is near enough"
            case "different_answer_near":
                return f"a different answer is almost as near ({self.chance:.2f} sure)"
            case _:
                more = " or more" if self.support >= SUPPORT else ""
                agree = f"{self.support}{more} agree"
                return f"{self.chance:.2f} sure, {self.needed:.2f} needed, {agree}"


def risk_of(max_wrong: float) -> float:
    """Return the risk that a single hit may have, for a share of wrong hits, both 0 to 1."""
    above = min(bisect_right(_SHARES, max_wrong), len(RISKS) - 1)
    (low, risk), (high, more) = RISKS[above - 1], RISKS[above]
    return risk + (more - risk) * (max_wrong - low) / (high - low)


class Weighed(NamedTuple):
    """Nearest neighbour of a question, whatever the risk that it may have.

    Attributes:
        held: Reason for which no risk serves it; empty if one may.
        chance, support: As in a `Decision`.
        part: Part of the risk that it may have, 0 to 1.
    """

    held: Held
    chance: float = 0.0
    support: int = 0
    part: float = 0.0


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
    found = weigh(neighbours, _chance(neighbours, evidence), doubtful)
    return allowed(found, evidence, max_wrong)


def within(
    neighbours: Sequence[Near],
    evidence: Evidence,
    risk: float,
    doubtful: Callable[[int], bool],
) -> Decision:
    """Return the decision for the *risk*, 0 to 1, that a single hit may have; see `decide`."""
    return _at(weigh(neighbours, _chance(neighbours, evidence), doubtful), risk)


def _chance(neighbours: Sequence[Near], evidence: Evidence) -> float:
    return evidence.chance(neighbours[0].key, neighbours[0].similarity) if neighbours else 0.0


def weigh(
    neighbours: Sequence[Near],
    chance: float,
    doubtful: Callable[[int], bool],
    left: Callable[[int], bool] = lambda _: True,
) -> Weighed:
    """Return what speaks for the nearest of *neighbours*.

    Args:
        neighbours, doubtful: As for `decide`.
        chance: Chance, 0 to 1, that the nearest one's answer is right.
        left: Returns whether no guard vetoes the neighbour at a place, for all but the nearest.
            It is asked where it matters, because comparing two texts costs more than all the rest.
    """
    if not neighbours or neighbours[0].similarity < LEAST_SIMILARITY:
        return Weighed("nothing_near")
    first = neighbours[0]
    identical = first.similarity >= IDENTICAL
    alike: list[int] = []
    others: list[int] = []
    for place, near in enumerate(neighbours[1:], 1):
        (alike if near.group == first.group else others).append(place)
    if not identical and any(
        neighbours[place].similarity > first.similarity - MARGIN and left(place) for place in others
    ):
        return Weighed("different_answer_near", chance)
    support = 1 + sum(1 for _ in islice(filter(left, alike), SUPPORT - 1))
    part = 1.0 if support >= SUPPORT else ALONE
    if not identical and doubtful(0):
        part *= DOUBTFUL
    return Weighed("", chance, support, part)


def allowed(found: Weighed, evidence: Evidence, max_wrong: float) -> Decision:
    """Return the decision on *found* for a share of wrong hits, 0 to 1."""
    return _at(found, risk_of(max_wrong) * evidence.caution(max_wrong))


def _at(found: Weighed, risk: float) -> Decision:
    decision = Decision(None, found.held, found.chance, 1.0 - risk * found.part, found.support)
    if found.held:
        return decision
    served = found.chance >= decision.needed
    return decision._replace(place=0) if served else decision._replace(held="not_sure")


def shadow(found: Weighed, evidence: Evidence) -> Shadow:
    """Return from which share of wrong hits on *found* is served."""
    low, high = 0.0, MAX_WRONG
    if allowed(found, evidence, high).place is None:
        return Shadow(NEVER, found.chance)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if allowed(found, evidence, middle).place is None:
            low = middle
        else:
            high = middle
    return Shadow(high, found.chance)
