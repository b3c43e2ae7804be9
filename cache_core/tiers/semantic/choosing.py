"""Choice of the stored question whose answer is served: by the threshold, or by the policy."""

from __future__ import annotations

from collections.abc import Sequence

from cache_core.config.tuning import Tuning
from cache_core.model.keys import Keys
from cache_core.model.question.wording import loose_form
from cache_core.model.values import Doubt, Entry, Hit, Miss, Query, Shadow
from cache_core.policy import decide
from cache_core.policy.answers import AnswerText, by_caller, named_or_equal
from cache_core.policy.decide import Weighed
from cache_core.policy.evidence import Evidence
from cache_core.tiers.guards.slots import swapped
from cache_core.tiers.semantic.candidates import (
    Candidate,
    best,
    guard_of,
    hit_of,
    in_doubt,
    needed,
    no_answer,
)

NEIGHBOURS = 5
"""Neighbours that the threshold looks at, where nothing is said of the policy."""


class _Seen(Weighed):
    """Neighbours of a question as the policy sees them, compared only once that is needed.

    Args:
        query: The asked question.
        candidates: Judged, nearest first.
        tuning: In force.
        keys: Digests of answers.
        evidence: What was learned of answers; the chance of the nearest one's is that of now.
    """

    def __init__(
        self,
        query: Query,
        candidates: Sequence[Candidate],
        tuning: Tuning,
        keys: Keys,
        evidence: Evidence,
    ) -> None:
        self._text = query.text
        self._tuning = tuning
        self._keys = keys
        self._evidence = evidence
        self._live = [near for near in candidates if near.entry and not near.dead]
        self._known: dict[int, str] = {}
        del self._live[: next(filter(self.left, range(len(self._live))), len(self._live))]
        self.nearest = self._live[0] if self._live else None
        """The nearest candidate that no guard vetoed; `None` without one."""
        similarities = [near.similarity for near in self._live]
        chance = evidence.chance(self._key(0), similarities[0]) if similarities else 0.0
        super().__init__(similarities, chance)

    def shadow(self) -> Shadow:
        """Return what the policy would do with the nearest one."""
        return decide.shadow(self, self._evidence)

    def left(self, place: int) -> bool:
        """Return whether no guard vetoes the candidate at a place."""
        return not guard_of(self._live[place], self._text, self._tuning)

    def doubtful(self) -> bool:
        """Return whether the nearest one differs by one swapped word."""
        return swapped(self._text, (self._live[0].entry or Entry()).message or "")

    def alike(self, place: int) -> bool:
        """Return whether the answer at a place is the nearest one's, or known to be a wording."""
        ours, theirs = self._key(0), self._key(place)
        if ours and theirs:
            if self._evidence.first(ours) == self._evidence.first(theirs):
                return True
            if by_caller(ours) == by_caller(theirs):
                return False  # both are digests of a name, or of a text
        return named_or_equal(self._answer(0), self._answer(place)) is True

    def _answer(self, place: int) -> AnswerText:
        entry = self._live[place].entry or Entry()
        return AnswerText(entry.response or "", entry.answer)

    def _key(self, place: int) -> str:
        near = self._live[place]
        if near.scope != "shared":
            # What is private is not learned of: its evidence would have to be erased with its user.
            return ""
        if place not in self._known:
            self._known[place] = key_of(self._keys, near.entry or Entry())
        return self._known[place]


class Choosing:
    """Chooses among candidates.

    Args:
        keys: Digests of answers.
        evidence: What was learned of answers.
        shadows: Whether an answer says what the policy would have done.
    """

    def __init__(self, keys: Keys, evidence: Evidence, *, shadows: bool = False) -> None:
        self._keys = keys
        self._evidence = evidence
        self._shadows = shadows

    def looks_at(self, query: Query, tuning: Tuning) -> int:
        """Return the number of neighbours that a choice needs."""
        return decide.NEIGHBOURS if self._shadows or _learns(query, tuning) else NEIGHBOURS

    def answer(
        self, query: Query, candidates: Sequence[Candidate], tuning: Tuning, now: float
    ) -> Hit | Miss:
        """Return the answer of one of *candidates*, nearest first, or why there is none.

        A question's own `max_wrong` goes no further than the tuning in force, because an
        invalidation reaches only what that serves.

        Args:
            query: The asked question.
            candidates: Judged.
            tuning: In force.
            now: The store's time.
        """
        # A call with a limit of its own says nothing about the tuning's.
        shadows = self._shadows and query.max_wrong is None
        learns = _learns(query, tuning)
        if not (shadows or learns):
            return self._by_threshold(query, candidates, tuning, now)
        seen = _Seen(query, candidates, tuning, self._keys, self._evidence)
        allowed = self._allowed_wrong(query, seen, tuning) if learns else None
        if allowed is None:
            answer = self._by_threshold(query, candidates, tuning, now)
        else:
            answer = self._by_policy(query, candidates, seen, allowed, tuning, now)
        return answer._replace(shadow=seen.shadow) if shadows else answer

    def _allowed_wrong(self, query: Query, seen: _Seen, tuning: Tuning) -> float | None:
        """Return the share of wrong hits; `None` where the threshold holds for the nearest one."""
        if query.max_wrong is not None:
            return query.max_wrong
        if seen.nearest is None:
            return 0.0
        entry = seen.nearest.entry
        return tuning.allowed_wrong(None if entry is None else entry.intent) or None

    def _by_threshold(
        self, query: Query, candidates: Sequence[Candidate], tuning: Tuning, now: float
    ) -> Hit | Miss:
        hit = best(candidates, query.text, tuning, now)
        if hit is not None:
            return hit
        miss = no_answer(candidates, query.text, tuning, now)
        return self._unless_approved(query, miss, candidates, tuning, now)

    def _by_policy(
        self,
        query: Query,
        candidates: Sequence[Candidate],
        seen: _Seen,
        allowed: float,
        tuning: Tuning,
        now: float,
    ) -> Hit | Miss:
        near = seen.nearest
        risk = decide.allowed_risk(self._evidence, allowed)

        def said() -> str:
            return str(seen.decision(risk))

        if near is not None and seen.served(risk) and near.similarity >= needed(near, tuning):
            return hit_of(near, tuning, now)._replace(policy=said)
        miss = no_answer(candidates, query.text, tuning, now)._replace(policy=said)
        if seen.near and not seen.served(risk) and not miss.guard:
            miss = miss._replace(reason="unsure")
        approvable = candidates if query.max_wrong != 0 else ()
        return self._unless_approved(query, miss, approvable, tuning, now)

    def _unless_approved(
        self,
        query: Query,
        miss: Miss,
        candidates: Sequence[Candidate],
        tuning: Tuning,
        now: float,
    ) -> Hit | Miss:
        """Return the answer in doubt if it was approved, else *miss* with that doubt."""
        near = in_doubt(candidates, query.text, tuning)
        if near is None or near.entry is None:
            return miss
        key = self._keys.approval(near.tag, query.scope(near.scope), query)
        name = self._keys.doubt(key, near.entry)
        hit = hit_of(near, tuning, now)
        if name in {near.approval, query.approved}:
            return hit._replace(policy=miss.policy, approved=True)
        owner = query.scope("user") if near.scope == "user" else ""
        texts = (near.entry.message or "", near.entry.response or "")
        return miss._replace(doubt=Doubt(name, key, *texts, max(1.0, hit.ttl - hit.age), owner))


def key_of(keys: Keys, entry: Entry) -> str:
    """Return the key under which evidence on an entry's answer is kept, a digest.

    Documents give none: one may hold the answers to many questions.
    """
    named = entry.answer if by_caller(entry.answer) else ""
    return named or keys.answer("t", loose_form(entry.response or ""))


def _learns(query: Query, tuning: Tuning) -> bool:
    return tuning.learns or query.max_wrong is not None
