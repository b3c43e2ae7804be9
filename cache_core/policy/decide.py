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

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
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


class Weighed(ABC):
    """All that speaks for the nearest neighbour of a question, whatever the risk that it may have.

    Two texts are compared only where that may decide, because it costs more than all the rest.

    Args:
        similarities: Of the neighbours that no guard vetoed to the question, nearest first.
        chance: Chance, 0 to 1, that the nearest one's answer is right.
    """

    def __init__(self, similarities: Sequence[float], chance: float) -> None:
        self._similarities = similarities
        self.near = bool(similarities) and similarities[0] >= LEAST_SIMILARITY
        """True if it is near enough to be served at some risk."""
        self._identical = self.near and similarities[0] >= IDENTICAL
        self.chance = chance if self.near else 0.0
        self._known_held: Held | None = None
        self._known_support = 0
        self._known_frame = 0.0

    @abstractmethod
    def alike(self, place: int) -> bool:
        """Return whether the neighbour at a place has the nearest one's answer."""

    @abstractmethod
    def left(self, place: int) -> bool:
        """Return whether no guard vetoes the neighbour at a place, for all but the nearest."""

    @abstractmethod
    def doubtful(self) -> bool:
        """Return whether the nearest one differs by one swapped word."""

    @property
    def held(self) -> Held:
        """Reason for which no risk serves it; empty if one may."""
        if self._known_held is None:
            self._known_held = self._held()
        return self._known_held

    @property
    def support(self) -> int:
        """Number of neighbours with its answer, itself included, as in a `Decision`."""
        if not self._known_support:
            alike = (place for place, _ in self._others() if self.alike(place) and self.left(place))
            self._known_support = 1 + sum(1 for _ in islice(alike, SUPPORT - 1))
        return self._known_support

    @property
    def _frame(self) -> float:
        """Part of the risk that the words of its frame leave."""
        if not self._known_frame:
            self._known_frame = DOUBTFUL if not self._identical and self.doubtful() else 1.0
        return self._known_frame

    def _held(self) -> Held:
        if not self.near:
            return "nothing_near"
        least = self._similarities[0] - MARGIN
        contradicted = not self._identical and any(
            similarity > least and not self.alike(place) and self.left(place)
            for place, similarity in self._others()
        )
        return "different_answer_near" if contradicted else ""

    def _others(self) -> Iterator[tuple[int, float]]:
        return islice(enumerate(self._similarities), 1, None)

    def served(self, risk: float) -> bool:
        """Return whether it is served at a *risk* of a single hit, 0 to 1."""

        def enough(part: float) -> bool:
            return self.chance >= 1.0 - risk * part

        if not self.near or not enough(1.0) or self.held:
            return False
        if enough(ALONE * DOUBTFUL):
            return True
        if not enough(self._frame):
            return False
        return enough(ALONE * self._frame) or self.support >= SUPPORT

    def decision(self, risk: float) -> Decision:
        """Return the decision at a *risk* of a single hit, 0 to 1, with all its reasons."""
        if held := self.held:
            return Decision(None, held, self.chance)
        support = self.support
        needed = 1.0 - risk * self._frame * (1.0 if support >= SUPPORT else ALONE)
        if self.served(risk):
            return Decision(0, "", self.chance, needed, support)
        return Decision(None, "not_sure", self.chance, needed, support)


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
    return Given(neighbours, evidence, doubtful).decision(allowed_risk(evidence, max_wrong))


class Given(Weighed):
    """The nearest of *neighbours* of which all is known; arguments as for `decide`."""

    def __init__(
        self, neighbours: Sequence[Near], evidence: Evidence, doubtful: Callable[[int], bool]
    ) -> None:
        first = neighbours[0] if neighbours else Near(0.0, "", 0)
        chance = evidence.chance(first.key, first.similarity)
        super().__init__([near.similarity for near in neighbours], chance)
        self._groups = [near.group for near in neighbours]
        self._doubtful = doubtful

    def alike(self, place: int) -> bool:
        """Return whether the neighbour at a place has the nearest one's group."""
        return self._groups[place] == self._groups[0]

    def left(self, place: int) -> bool:
        """Return that the neighbour at a place counts."""
        return True

    def doubtful(self) -> bool:
        """Return what was said of the nearest one."""
        return self._doubtful(0)


def allowed_risk(evidence: Evidence, max_wrong: float) -> float:
    """Return the risk that a single hit may have, 0 to 1, by the verdicts on hits so far."""
    return risk_of(max_wrong) * evidence.caution(max_wrong)


def shadow(found: Weighed, evidence: Evidence) -> Shadow:
    """Return from which share of wrong hits on *found* is served."""
    low, high = 0.0, MAX_WRONG
    if not found.served(allowed_risk(evidence, high)):
        return Shadow(NEVER, found.chance)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if found.served(allowed_risk(evidence, middle)):
            high = middle
        else:
            low = middle
    return Shadow(high, found.chance)
