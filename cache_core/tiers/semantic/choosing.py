"""Choice of the stored question whose answer is served: by the threshold, or by the policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cache_core.config.tuning import Tuning
from cache_core.model.keys import Keys
from cache_core.model.question.wording import loose_form
from cache_core.model.values import Doubt, Entry, Hit, Miss, Query
from cache_core.policy import decide
from cache_core.policy.answers import AnswerText, same
from cache_core.policy.decide import Decision, Near
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


class Choice(NamedTuple):
    """Result of the policy.

    Attributes:
        near: The nearest candidate that no guard vetoed; `None` without one.
        decision: The policy's decision on it.
    """

    near: Candidate | None
    decision: Decision


class Choosing:
    """Chooses among candidates.

    Args:
        keys: Digests of answers.
        evidence: What was learned of answers.
    """

    def __init__(self, keys: Keys, evidence: Evidence) -> None:
        self._keys = keys
        self._evidence = evidence

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
        text = query.text
        learns = tuning.learns or query.max_wrong is not None
        choice = self._chosen(query, candidates, tuning) if learns else None
        if choice is None:
            hit = best(candidates, text, tuning, now)
            if hit is not None:
                return hit
            miss = no_answer(candidates, text, tuning, now)
            return self._unless_approved(query, miss, candidates, tuning, now)
        said = str(choice.decision)
        first, place = choice.near, choice.decision.place
        if first is not None and place is not None and first.similarity >= needed(first, tuning):
            return hit_of(first, tuning, now)._replace(policy=said)
        miss = no_answer(candidates, text, tuning, now)._replace(policy=said)
        held = choice.decision.held in {"not_sure", "different_answer_near"}
        if held and not miss.guard:
            miss = miss._replace(reason="unsure")
        near = candidates if query.max_wrong != 0 else ()
        return self._unless_approved(query, miss, near, tuning, now)

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

    def _chosen(
        self, query: Query, candidates: Sequence[Candidate], tuning: Tuning
    ) -> Choice | None:
        """Return the policy's choice; `None` where the threshold holds for the nearest one."""
        text = query.text
        live = [
            near
            for near in candidates
            if near.entry and not near.dead and not guard_of(near, text, tuning)
        ]
        if not live:
            return Choice(None, decide.decide([], self._evidence, 0.0, lambda _: False))
        first = live[0].entry
        allowed = query.max_wrong
        if allowed is None:
            allowed = tuning.allowed_wrong(None if first is None else first.intent)
            if not allowed:
                return None
        neighbours = self._neighbours(live[: decide.NEIGHBOURS])
        decision = decide.decide(
            neighbours,
            self._evidence,
            allowed,
            lambda place: swapped(text, (live[place].entry or Entry()).message or ""),
        )
        return Choice(live[0], decision)

    def _neighbours(self, live: Sequence[Candidate]) -> list[Near]:
        groups: list[AnswerText] = []
        found: list[Near] = []
        for near in live:
            entry = near.entry or Entry()
            text = AnswerText(entry.response or "", entry.answer)
            group = next((at for at, other in enumerate(groups) if same(text, other)), len(groups))
            if group == len(groups):
                groups.append(text)
            # What is private is not learned of: its evidence would have to be erased with its user.
            key = key_of(self._keys, entry) if near.scope == "shared" else ""
            found.append(Near(near.similarity, key, group))
        return found


def key_of(keys: Keys, entry: Entry) -> str:
    """Return the key under which evidence on an entry's answer is kept, a digest."""
    return entry.answer or keys.answer("t", loose_form(entry.response or ""))
