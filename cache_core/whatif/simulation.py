"""Simulation of recorded lookups at all thresholds in one pass.

A threshold changes more than the hits. A question that hits is not stored, so its own repeats,
which were exact hits, become semantic ones; a question that misses is stored, and its repeats
become exact hits. The log has the digests needed for this: which user asked which message, and the
nearest stored question that no guard vetoed.

A replay does not know everything. It assumes:

- A lookup that missed was answered by the agent and put, for the scope in which the log later shows
  that message; a hit was not put. Where the log shows that a message was not there after all
  (never put, or invalidated), the log overrides this.
- The log has one neighbour, the nearest. If that would not have been stored, the answer that it
  would itself have got is the next candidate, at a similarity estimated from the two (`combine`),
  which is exact for a repeat of the same words. Other neighbours, a little further away or stored
  only under a higher threshold, are unknown: the estimate is a little too low.
- Entries from before the log begins were stored at every threshold.
- Users ask the same questions, whatever the answers.

Sets of thresholds are bits of an integer: one pass covers all of them.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from cache_core.config.tuning import Tuning
from cache_core.observability.decisions import Decision
from cache_core.observability.judged import bin_of

_NO_SIMILARITY_SEARCH = frozenset(
    {"has_history", "truncated", "unreadable", "context_limit", "warming"}
)
_ALIKE = 0.25
"""Correlation of the directions in which two questions differ from a third one near both; 0 for
random directions. Measured on customers' questions with MiniLM: over 173 triples with both
similarities above 0.85 the median was 0.26, the mean 0.24."""

_SAME = 0.9999
"""Similarity of a message to itself in another spelling, or with 8 bits per value."""


@dataclass(slots=True)
class Replayed:
    """Result of a replay; each count is by the set of thresholds at which it happened.

    Attributes:
        thresholds: Number of thresholds.
        lookups: Number of lookups that could have been answered.
        exact: Number of hits of L1.
        same: Number of hits of L2 by the very same message, after L1's entry had expired.
        similar: Number of hits of L2 by another message, by hundredth of similarity.
        saved_usd: Saving of hits, and of intents and documents without a hit.
        fixed_usd: Saving of lookups that no threshold changes.
    """

    thresholds: int
    lookups: int = 0
    exact: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    same: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    similar: dict[int, dict[int, int]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(int))
    )
    saved_usd: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    fixed_usd: float = 0.0

    def by_threshold(self, counts: Mapping[int, float]) -> list[float]:
        """Return the sum of *counts* at each threshold, ascending."""
        changes = [0.0] * (self.thresholds + 1)
        for mask, count in counts.items():
            # most sets are a few runs of adjacent thresholds: record where the sum changes
            left = mask
            while left:
                lowest = left & -left
                above = left + lowest
                changes[lowest.bit_length() - 1] += count
                changes[(above & -above).bit_length() - 1] -= count
                left &= above
        return list(itertools.accumulate(changes))[:-1]


class _Answer:
    """Fate of the answer to one message in one context: everybody's, or one user's.

    Attributes:
        message: The message's digest.
        stored: Thresholds at which it was put, and when; `None` if the log shows no put.
        through: Thresholds at which it was not put because another answer serves it, that answer,
            and the similarity of the two.
        settled: The thresholds in either of these two, which are disjoint.
        shared: Whether the log shows it as shared.
        private: The private answers, by user.
    """

    __slots__ = ("message", "private", "settled", "shared", "stored", "through")

    def __init__(self, message: str) -> None:
        self.message = message
        self.stored: list[tuple[int, float]] | None = None
        self.through: list[_Reached] = []
        self.settled = 0
        self.shared = False
        self.private: dict[str, _Answer] | None = None

    def of(self, user: str) -> _Answer:
        """Return the user's own answer; without a user, everybody's."""
        if not user:
            return self
        if self.private is None:
            self.private = {}
        if user not in self.private:
            self.private[user] = _Answer(self.message)
        return self.private[user]

    def known(self, user: str) -> _Answer | None:
        """Return the user's own answer, if the log has one."""
        return None if self.private is None else self.private.get(user)


_Reached: TypeAlias = tuple[int, _Answer, float]
"""Thresholds at which an answer is served, the answer, and its similarity to the question."""


class Simulation:
    """Replay of recorded lookups.

    Args:
        grid: The thresholds, ascending.
        tuning: The tuning with TTLs and prices.
    """

    def __init__(self, grid: Sequence[float], tuning: Tuning) -> None:
        self._grid = list(grid)
        self._upto = [(1 << number) - 1 for number in range(len(grid) + 1)]
        self._all = self._upto[-1]
        self._l1_ttl = tuning.l1_ttl
        self._l2_ttl = tuning.l2_ttl
        self._price = tuning.saves("l1", None)
        self._bits = {value: 1 << number for number, value in enumerate(grid)}
        # intents with a threshold of their own, which no other threshold changes
        self._own_threshold = {
            intent: own.semantic_threshold
            for intent, own in tuning.intents.items()
            if own.semantic_threshold is not None
        }
        self._intents: dict[str, str] = {}
        # by context, then by message: looking up two strings is cheaper than a pair of them
        self._answers: dict[str, dict[str, _Answer]] = defaultdict(dict)

    def run(self, decisions: Sequence[Decision]) -> Replayed:
        """Return the result for *decisions*, oldest first."""
        found = Replayed(len(self._grid))
        for item in decisions:
            if item.scope == "shared":
                self._answer(item.matched, item.context).shared = True
            if self._own_threshold and item.outcome == "hit":
                self._intents[item.matched] = item.intent
        for item in decisions:
            if item.outcome == "bypass":
                continue
            found.lookups += 1
            if is_fixed(item):
                found.fixed_usd += item.saved_usd
                if item.outcome == "hit":
                    found.exact[self._all] += 1
            else:
                self._ask(item, found)
        return found

    def _answer(self, message: str, context: str) -> _Answer:
        """Return everybody's answer to a message."""
        answers = self._answers[context]
        answer = answers.get(message)
        if answer is None:
            answer = answers[message] = _Answer(message)
        return answer

    def _ask(self, item: Decision, found: Replayed) -> None:
        hit = item.outcome == "hit"
        common = self._answer(item.message, item.context)
        exact = same = 0
        if common.stored or common.private:
            exact, same = self._own(item, common)
        left = self._all & ~(exact | same)
        reached: list[_Reached] = []
        for served, root, similarity in self._near(item, common, left) if left else ():
            left &= ~served
            if root.message != item.message:
                found.similar[bin_of(similarity)][served] += 1
                reached.append((served, root, similarity))
            elif item.level == "l1":
                exact |= served
            else:
                same |= served
        if exact:
            found.exact[exact] += 1
        if same:
            found.same[same] += 1
        if left != self._all:
            found.saved_usd[self._all & ~left] += item.saved_usd if hit else self._price
        if left and not hit and item.saved_usd:
            found.saved_usd[left] += item.saved_usd
        if left or reached:
            # the agent puts the answer for the scope in which the log shows this message elsewhere
            ours = common.shared or (hit and item.scope != "user")
            self._put(common if ours else common.of(item.user), item.at, left, reached)

    def _enough(self, similarity: float, message: str) -> int:
        """Return the thresholds at which the answer to *message* is similar enough."""
        own = self._own_threshold.get(self._intents.get(message, ""))
        if own is not None:
            return self._all if similarity >= own else 0
        return self._upto[bisect_right(self._grid, similarity)]

    def _here(self, item: Decision) -> int:
        """Return the thresholds at which the log shows the actual fate of a lookup."""
        own = self._own_threshold.get(self._intents.get(item.matched, ""))
        if own is not None:
            return self._all if item.threshold == own else 0
        return self._bits.get(item.threshold, 0)

    def _own(self, item: Decision, common: _Answer) -> tuple[int, int]:
        """Return the thresholds at which L1, and L2, has the answer to this very message."""
        mine = common.known(item.user)
        here = self._here(item)
        now, exact, same = item.at, 0, 0
        for answer in (mine, common):
            if answer is None:
                continue
            for mask, created in answer.stored or ():
                if now - created <= self._l1_ttl or (mask & here and item.level == "l1"):
                    if mask & here and item.outcome != "hit":
                        # the log shows that it was not there: not put, or invalidated
                        answer.stored, answer.through, answer.settled = None, [], 0
                        break
                    exact |= mask
                elif now - created <= self._l2_ttl and not mask & here:
                    same |= mask
        if same:
            # normalised alike is not embedded alike: "bye" and "bye?" have a similarity of 0.92
            alike = item.matched == item.message and item.level != "l1"
            known_alike = item.unvetoed if alike else None
            similarity = _SAME if known_alike is None else known_alike
            same &= ~exact & self._enough(similarity, item.message)
        return exact, same

    def _near(self, item: Decision, common: _Answer, left: int) -> list[_Reached]:
        """Return the thresholds that serve the recorded neighbour, or the answer in its place."""
        if item.level == "l1":
            similarity, near = 1.0, common
        elif item.unvetoed is not None:
            similarity, near = item.unvetoed, self._answer(item.matched, item.context)
        else:
            return []
        if item.scope == "user":
            near = near.of(item.user)
        direct = left & self._enough(similarity, near.message)
        unsettled = direct & ~near.settled
        found: list[_Reached] = [(unsettled, near, similarity)] if unsettled else []
        now, ttl, here = item.at, self._l2_ttl, self._here(item)
        for mask, created in near.stored or ():
            served = mask & direct
            if served and (now - created <= ttl or mask & here):
                found.append((served, near, similarity))
        for mask, root, nearness in near.through:
            served = mask & left
            if served and (served := served & self._live(root, now)):
                alike = combine(similarity, nearness)
                if served := served & self._enough(alike, root.message):
                    found.append((served, root, alike))
        return found

    def _put(self, answer: _Answer, now: float, left: int, reached: list[_Reached]) -> None:
        """Store the answer where it missed; record the answers in its place elsewhere."""
        put = [(left, now)] if left else []
        moved = left
        for mask, _, _ in reached:
            moved |= mask
        if answer.settled & ~moved:
            kept = answer.settled & ~moved
            put = [(mask & kept, made) for mask, made in answer.stored or () if mask & kept] + put
            reached = [
                (mask & kept, root, alike) for mask, root, alike in answer.through if mask & kept
            ] + reached
        answer.stored, answer.through = put, reached
        answer.settled |= moved

    def _live(self, answer: _Answer, now: float) -> int:
        """Return the thresholds at which an answer is stored and has not expired."""
        live = self._all & ~answer.settled
        for mask, created in answer.stored or ():
            if now - created <= self._l2_ttl:
                live |= mask
        return live


def combine(first: float, second: float) -> float:
    """Return the expected similarity of two questions, given a third one near both.

    Args:
        first, second: Their similarities to the third, 0 to 1.
    """
    beside = (1 - first * first) * (1 - second * second)
    return first * second + _ALIKE * math.sqrt(max(0.0, beside))


def is_fixed(item: Decision) -> bool:
    """Return whether no threshold changes the fate of a lookup."""
    return bool(
        item.history
        or item.outcome == "error"
        or (
            item.outcome != "hit"
            and item.similarity is None
            and not _NO_SIMILARITY_SEARCH.isdisjoint(item.reasons)
        )
    )
