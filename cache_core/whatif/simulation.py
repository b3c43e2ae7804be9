"""Recorded lookups asked again, at every threshold at once.

What a threshold changes is not only who hits. A question that hits is not stored, so that its own
repeats, which were exact hits, become semantic ones; a question that misses is stored, and its
repeats become exact hits. The log has the digests that this takes: who asked which message, and
which stored question was the nearest that no guard vetoed.

What a replay cannot know, and what is assumed instead:

- A lookup that missed was answered by the agent and put, for the scope in which the log later shows
  that message; one that hit was not put. Where the log shows that a message was not there after all
  (never put, or invalidated), the log is believed.
- The log names one neighbour, the nearest. If that would not have been stored, the answer that it
  would itself have got is the next candidate, at a similarity estimated from the two (`combine`),
  which is exact for a repeat of the same words. Other neighbours, a little further away or stored
  only under a higher threshold, are not known: the estimate is a little too low.
- What was stored before the log begins was stored at every threshold.
- Users ask what they asked, whatever they were answered.

Sets of thresholds are bits of an integer: one pass answers for all of them.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from cache_core.decisions import Decision
from cache_core.tuning import Tuning

Key: TypeAlias = tuple[str, str, str]
"""Message, context, and the user's digest, or an empty one for what everybody may read."""

BINS = 100
"""Similarities are counted in steps of 1/100."""

_NO_SIMILARITY_SEARCH = frozenset(
    {"has_history", "truncated", "unreadable", "context_limit", "warming"}
)
_ALIKE = 0.25
"""Correlation of the directions in which two questions differ from a third one near both; 0 would
be directions at random. Measured on customers' questions with MiniLM: over 173 triples with both
similarities above 0.85 the median was 0.26, the mean 0.24."""

_SAME = 0.9999
"""Similarity of a message to itself, written a little differently, or kept in 8 bits a value."""


@dataclass(slots=True)
class Replayed:
    """What the lookups came to; each count is by the set of thresholds at which it happened.

    Attributes:
        lookups: That could have been answered.
        exact: Hits of L1.
        same: Hits of L2 by the very same message, after L1's entry had expired.
        similar: Hits of L2 by another message, by hundredth of the similarity.
        saved_usd: What hits saved, and intents and documents without a hit.
        fixed_usd: What lookups saved that no threshold changes.
    """

    lookups: int = 0
    exact: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    same: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    similar: dict[int, dict[int, int]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(int))
    )
    saved_usd: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    fixed_usd: float = 0.0


class Simulation:
    """Asks recorded lookups again.

    Args:
        grid: Thresholds, ascending.
        tuning: For TTLs and prices.
    """

    def __init__(self, grid: Sequence[float], tuning: Tuning) -> None:
        self._grid = list(grid)
        self._all = (1 << len(grid)) - 1
        self._l1_ttl = tuning.l1_ttl
        self._l2_ttl = tuning.l2_ttl
        self._price = tuning.saves("l1", None)
        self._bits = {value: 1 << number for number, value in enumerate(grid)}
        self._shared: set[tuple[str, str]] = set()
        # Where a message's answer was put, and when; and where it was not, because another entry
        # answered it, and how similar the two are.
        self._stored: dict[Key, list[tuple[int, float]]] = {}
        self._through: dict[Key, list[tuple[int, Key, float]]] = {}

    def run(self, decisions: Sequence[Decision]) -> Replayed:
        """Return what *decisions*, oldest first, would have come to."""
        found = Replayed()
        self._shared = {
            (item.matched, item.context) for item in decisions if item.scope == "shared"
        }
        for item in decisions:
            if item.outcome == "bypass":
                continue
            found.lookups += 1
            if _is_fixed(item):
                found.fixed_usd += item.saved_usd
                if item.outcome == "hit":
                    found.exact[self._all] += 1
            else:
                self._ask(item, found)
        return found

    def _ask(self, item: Decision, found: Replayed) -> None:
        hit = item.outcome == "hit"
        mine: Key = (item.message, item.context, item.user)
        common: Key = (item.message, item.context, "")
        exact, same = self._own(item, mine, common)
        left = self._all & ~(exact | same)
        reached: list[tuple[int, Key, float]] = []
        if left:
            for mask, root, similarity in self._near(item, left):
                served = mask & left & self._upto(similarity)
                if not served:
                    continue
                left &= ~served
                if root[0] != item.message:
                    place = int(similarity * BINS + 1e-9)
                    found.similar[place][served] += 1
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
            self._put(item, left, reached)

    def _own(self, item: Decision, mine: Key, common: Key) -> tuple[int, int]:
        """Return where L1, and where L2, has the answer to this very message."""
        here = self._bits.get(item.threshold, 0)
        now, exact, same = item.at, 0, 0
        for key in (mine, common):
            known = self._stored.get(key)
            if not known:
                continue
            for mask, created in known:
                if now - created <= self._l1_ttl or (mask & here and item.level == "l1"):
                    if mask & here and item.outcome != "hit":
                        # The log shows that it was not there: not put, or invalidated.
                        del self._stored[key]
                        self._through.pop(key, None)
                        break
                    exact |= mask
                elif now - created <= self._l2_ttl and not mask & here:
                    same |= mask
        if same:
            # Normalised alike is not embedded alike: "bye" and "bye?" are 0.92 apart.
            alike = item.matched == item.message and item.level != "l1"
            known_alike = item.unvetoed if alike else None
            same &= ~exact & self._upto(_SAME if known_alike is None else known_alike)
        return exact, same

    def _near(self, item: Decision, left: int) -> list[tuple[int, Key, float]]:
        """Return where the recorded neighbour, or what stands for it, is stored."""
        if item.level == "l1":
            similarity, message = 1.0, item.message
        elif item.unvetoed is not None:
            similarity, message = item.unvetoed, item.matched
        else:
            return []
        key: Key = (message, item.context, item.user if item.scope == "user" else "")
        known = self._stored.get(key)
        reach = self._through.get(key)
        if not known and not reach:
            return [(left, key, similarity)]
        here = self._bits.get(item.threshold, 0)
        near: list[tuple[int, Key, float]] = []
        covered = 0
        for mask, created in known or ():
            covered |= mask
            if mask & left and (mask & here or item.at - created <= self._l2_ttl):
                near.append((mask, key, similarity))
        for mask, root, nearness in reach or ():
            covered |= mask
            if mask & left:
                live = mask & left & self._live(root, item.at)
                if live:
                    near.append((live, root, combine(similarity, nearness)))
        if left & ~covered:
            near.append((left & ~covered, key, similarity))
        return near

    def _put(self, item: Decision, left: int, reached: list[tuple[int, Key, float]]) -> None:
        """Store the answer where the lookup missed; note where another entry stands for it."""
        key: Key = (item.message, item.context, self._owner(item))
        if left == self._all:
            self._stored[key] = [(left, item.at)]
            self._through.pop(key, None)
            return
        moved = left
        for mask, _, _ in reached:
            moved |= mask
        stored = [
            (mask & ~moved, made) for mask, made in self._stored.get(key, ()) if mask & ~moved
        ]
        if left:
            stored.append((left, item.at))
        self._stored[key] = stored
        if moved != self._all:
            before = self._through.get(key, ())
            reached = [(m & ~moved, root, s) for m, root, s in before if m & ~moved] + reached
        self._through[key] = reached

    def _live(self, key: Key, now: float) -> int:
        known = self._stored.get(key)
        if known is None:
            return self._all
        live = 0
        for mask, created in known:
            if now - created <= self._l2_ttl:
                live |= mask
        return live

    def _owner(self, item: Decision) -> str:
        """Return for whom the agent puts the answer: as the log shows this message elsewhere."""
        if (item.message, item.context) in self._shared:
            return ""
        return "" if item.outcome == "hit" and item.scope != "user" else item.user

    def _upto(self, similarity: float) -> int:
        """Return the thresholds that *similarity* reaches."""
        return (1 << bisect_right(self._grid, similarity)) - 1


def combine(first: float, second: float) -> float:
    """Return how similar two questions are to be expected of whom a third one is known.

    Args:
        first, second: Their similarities to the third, 0..1.
    """
    beside = (1 - first * first) * (1 - second * second)
    return first * second + _ALIKE * math.sqrt(max(0.0, beside))


def _is_fixed(item: Decision) -> bool:
    """Whether no threshold changes what became of a lookup."""
    return bool(
        item.history
        or item.outcome == "error"
        or (item.outcome != "hit" and not _NO_SIMILARITY_SEARCH.isdisjoint(item.reasons))
    )
