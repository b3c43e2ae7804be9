"""Evidence on answers: what was learned of each, and of the cache as a whole.

A miss with a near candidate is an experiment without cost: the agent computes a fresh answer
anyway, and comparing it with the candidate's says whether that would have been right. Verdicts on
hits count too; bad ones make the whole cache more cautious at once.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from cache_core.policy import curve
from cache_core.policy.curve import Belief
from cache_core.policy.prior import PRIOR

ANSWERS_KEPT = 10_000
"""Answers of which something is remembered, those learned of last: 10 MB."""

VERDICTS_KEPT = 1_000
"""Newest verdicts on hits that count."""

_TRUSTED = 100
"""Verdicts that the owner's bound itself weighs as much as."""


class Evidence:
    """Beliefs about answers by their key, in bounded memory."""

    def __init__(self, prior: Belief = PRIOR, kept: int = ANSWERS_KEPT) -> None:
        self._prior = prior
        self._kept = kept
        self._beliefs: OrderedDict[str, Belief] = OrderedDict()
        self._verdicts: deque[bool] = deque()
        self._wrong = 0
        # Another wording of an answer, by the key of each.
        self._wordings: OrderedDict[str, str] = OrderedDict()

    def __len__(self) -> int:
        return len(self._beliefs)

    def keys(self) -> list[str]:
        """Return the keys of the answers of which something is known."""
        return list(self._beliefs)

    def chance(self, key: str, similarity: float) -> float:
        """Return the chance, 0 to 1, that an answer is right at *similarity*."""
        return curve.chance(self._beliefs.get(key, self._prior), similarity)

    def learn(self, key: str, similarity: float, *, right: bool) -> None:
        """Take a label: whether an answer was right for a question at *similarity*."""
        belief = self._beliefs.pop(key, self._prior)
        self._beliefs[key] = curve.learned(belief, similarity, right=right)
        if len(self._beliefs) > self._kept:
            self._beliefs.popitem(last=False)

    def first(self, key: str) -> str:
        """Return the key that all known wordings of an answer have in common."""
        while (found := self._wordings.get(key)) is not None:
            key = found
        return key

    def link(self, one: str, other: str) -> None:
        """Take two answers for wordings of one."""
        first, second = self.first(one), self.first(other)
        if first != second:
            self._wordings[second] = first
            if len(self._wordings) > self._kept:
                self._wordings.popitem(last=False)

    def part(self, one: str, other: str) -> None:
        """Take two answers for different ones, whatever was found before."""
        if one != other and self.first(one) == self.first(other):
            self._wordings.pop(one, None)
            self._wordings.pop(other, None)

    def judge(self, *, correct: bool) -> None:
        """Take a verdict on a hit."""
        self._verdicts.append(correct)
        self._wrong += not correct
        if len(self._verdicts) > VERDICTS_KEPT:
            self._wrong -= not self._verdicts.popleft()

    def caution(self, max_wrong: float) -> float:
        """Return the part of its risk that a hit may have, 0 to 1, by the verdicts on hits.

        Less than 1 as soon as the share of wrong ones, shrunk towards *max_wrong*, exceeds that.
        """
        if not self._wrong:
            return 1.0
        share = (self._wrong + max_wrong * _TRUSTED) / (len(self._verdicts) + _TRUSTED)
        return min(1.0, max_wrong / share)

    def clear(self) -> None:
        """Drop everything learned."""
        self._beliefs.clear()
        self._wordings.clear()
        self._verdicts.clear()
        self._wrong = 0
