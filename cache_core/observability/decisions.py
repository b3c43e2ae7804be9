"""Decision log: one record per lookup, with its evidence, written in the background."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from operator import attrgetter
from random import random, sample
from typing import Annotated, NamedTuple

from pydantic import Field

from cache_core.backends.base import Logs
from cache_core.backends.log import PAGE, Log
from cache_core.config.capture import captured
from cache_core.config.intents import INTENT_PATTERN
from cache_core.model.sealing import Sealer
from cache_core.model.stored import Format, Moment, Number, Share, Whole
from cache_core.model.values import Hit, Miss, Shadow
from cache_core.observability.evidence import Evidence, Found, entry_of

VERSION = 4
"""Version of a decision's stored form: a JSON list of the version and the fields in order."""

NOTHING: Mapping[str, float] = {}

_TEXTS = ("message_text", "matched_text", "response_text")
_PER_FLUSH = 250
_CHUNK = 50
"""Decisions written together: the loop serves lookups between two chunks."""

_SHADOWS = 10
"""Decisions of a flush, chosen at random, for which the learned policy is asked: each takes up to a
millisecond of the processor, between lookups."""


class Decision(NamedTuple):
    """Decision of one lookup. A tuple, because one is made on the path of every lookup.

    Attributes:
        at: The store's time, seconds since the epoch.
        lookup_id: As in the `LookupResult`.
        outcome, level, reason: As counted; *reason* is that of the last tier asked.
        reasons: Reasons of all tiers, in their order.
        similarity: Similarity of the nearest question, whatever the threshold was, 0..1.
        unvetoed: Similarity of the nearest question that no guard vetoed.
        threshold: The threshold in force.
        age_seconds: Age of the answer served.
        seconds: The lookup's latency.
        saved_usd: USD saved by the lookup.
        message, user: Digests; *user* is empty without one.
        matched: Digest of the question whose answer was served; without one, of the nearest that no
            guard vetoed.
        intent: Intent of the answer served, or of the one that another user has.
        tuning_version: The tuning's version in force.
        scope: Scope of *matched*: `user` or `shared`; empty without one, or if unknown.
        context, history: Digests; *history* is empty without one.
        ages: Age of the entry, in seconds, by tier that was asked after L1 and answered.
        expired: Age of the expired entry, by tier that would have answered with it.
        message_text: The message, or its standalone form; like the two texts below empty unless
            `capture_message_content` is on, and never longer than `capture.LIMIT`.
        matched_text: The question that L2 matched; without a hit the one that a guard vetoed, else
            the nearest. Empty for an exact answer.
        response_text: The response served; without a hit the one to *matched_text*.
        stands_for: Lookups, including itself, of which it is a uniform sample; 1 if all were kept.
        least_max_wrong: Least `max_wrong` at which the learned policy would have served the nearest
            question that no guard vetoed; 1 if none that may be set would have. `None` if that is
            not known: L2 was not asked or could not search, the call had its own `max_wrong`, or
            there were more than 40 lookups a second, of which others were chosen.
        chance: Chance, 0 to 1, by the policy, that its answer was right; `None` likewise.
    """

    at: Moment
    lookup_id: str
    outcome: str
    level: str
    reason: str
    reasons: tuple[str, ...]
    similarity: Number | None
    unvetoed: Number | None
    threshold: Number
    age_seconds: Number | None
    seconds: Annotated[Number, Field(ge=0)]
    saved_usd: Number
    message: str
    matched: str
    user: str
    intent: str
    tuning_version: Whole
    scope: str = ""
    context: str = ""
    history: str = ""
    ages: Mapping[str, Number] = NOTHING
    expired: Mapping[str, Number] = NOTHING
    message_text: str = ""
    matched_text: str = ""
    response_text: str = ""
    stands_for: Annotated[Number, Field(ge=1)] = 1.0
    least_max_wrong: Share | None = None
    chance: Share | None = None


FORMAT = Format(Decision, (VERSION, 3, 2, 1))
"""Version 1 ends before `scope`, 2 before `stands_for`, 3 before `least_max_wrong`."""


def decided(evidence: Evidence, at: float) -> Decision:
    """Return the decision of a finished lookup; *at* is the store's time."""
    record, query, _, found, result, tuning = evidence
    exact, semantic, nearest = found.of("l1"), found.of("l2"), found.nearest
    threshold = semantic.record.threshold if semantic is not None else None
    answer = semantic.answer if semantic is not None else None
    similarity = answer.similarity if answer is not None else None
    other_intent = exact.record.other_intent if exact is not None else ""
    beyond = len(found.asked) > 1
    entry = entry_of(nearest) if nearest is not None and record.message_text else None
    return Decision(
        at=at,
        lookup_id=record.lookup_id,
        outcome=record.outcome,
        level=record.level or "",
        reason=record.reason,
        reasons=result.reasons,
        similarity=similarity,
        unvetoed=answer.unvetoed if isinstance(answer, Miss) else similarity,
        threshold=tuning.semantic_threshold if threshold is None else threshold,
        age_seconds=record.age_seconds,
        seconds=record.seconds,
        saved_usd=record.saved_usd,
        message=query.tag,
        matched=nearest.matched if nearest is not None else "",
        user=query.user or "",
        intent=result.intent or other_intent,
        tuning_version=record.tuning_version,
        scope=nearest.scope if nearest is not None else "",
        context=query.context,
        history=query.history,
        ages=_ages(found) if beyond else NOTHING,
        expired=_expired(found) if beyond else NOTHING,
        message_text=record.message_text,
        matched_text=captured(entry.message) if entry is not None else "",
        response_text=record.response_text,
    )


def _ages(found: Found) -> dict[str, float]:
    return {
        item.record.level: item.answer.age for item in found.asked if isinstance(item.answer, Hit)
    }


def _expired(found: Found) -> dict[str, float]:
    return {
        item.record.level: item.answer.expired_age
        for item in found.asked
        if isinstance(item.answer, Miss) and item.answer.expired_age is not None
    }


def decision_log(store: Logs, name: str, keep: int, sealer: Sealer | None = None) -> Log[Decision]:
    """Return the log of decisions in the store, with captured texts encrypted."""
    return Log(store, name, FORMAT, keep, sealed=_TEXTS, bound_to="lookup_id", sealer=sealer)


class Page(NamedTuple):
    """Page of the log.

    Attributes:
        decisions: Decisions in the order of the log.
        position: Position of the last one; the next page begins after it.
        more: Whether there may be another page already.
    """

    decisions: tuple[Decision, ...]
    position: str
    more: bool


class DecisionLog:
    """Log of the last lookups of all replicas of a namespace, in the keyed store.

    Args:
        store: Store of the log.
        name: The log's key.
        keep: Lookups to keep; 0 switches the log off.
        sealer: Encrypts captured texts.
    """

    def __init__(self, store: Logs, name: str, keep: int, sealer: Sealer | None = None) -> None:
        self._store = store
        self._log = decision_log(store, name, keep, sealer)
        self.keep = keep
        self._waiting: list[Decision] = []
        self._offered = 0
        self._shadows: dict[str, Callable[[], Shadow]] = {}
        self._writing = asyncio.Lock()
        self.recent: deque[Decision] = deque(maxlen=min(keep, 200))
        """This replica's last kept decisions, newest last."""
        self.dropped = 0
        """Decisions lost because the store was unavailable."""

    def note(self, evidence: Evidence) -> None:
        """Buffer the decision of a lookup for the next `flush`.

        If more come between two flushes than one writes, a uniform sample of them is kept
        (reservoir sampling, Vitter's algorithm R), and the others are not even made: each kept
        one records the number of lookups that it stands for.
        """
        if not self.keep:
            return
        self._offered += 1
        place = len(self._waiting)
        if place >= _PER_FLUSH:
            place = int(random() * self._offered)
            if place >= _PER_FLUSH:
                return
            self._shadows.pop(self._waiting[place].lookup_id, None)
        decision = decided(evidence, self._store.now())
        self.recent.append(decision)
        self._waiting[place : place + 1] = [decision]
        semantic = evidence.found.of("l2")
        answer = semantic.answer if semantic is not None else None
        if answer is not None and answer.shadow is not None:
            self._shadows[decision.lookup_id] = answer.shadow

    async def flush(self) -> None:
        """Write buffered decisions; raises `BackendError`, and keeps the rest for the next time."""
        async with self._writing:
            taken, offered, asked = self._waiting, self._offered, self._shadows
            self._waiting, self._offered, self._shadows = [], 0, {}
            if offered > len(taken):
                taken = _weighed(taken, offered)
            asked = dict(sample(list(asked.items()), min(_SHADOWS, len(asked))))
            while taken:
                try:
                    chunk = taken[:_CHUNK] = await _shadowed(taken[:_CHUNK], asked)
                    await self._log.append(chunk)
                except BaseException:
                    room = _PER_FLUSH - len(self._waiting)
                    self.dropped += max(0, len(taken) - room)
                    self._waiting = taken[:room] + self._waiting
                    raise
                taken = taken[_CHUNK:]

    async def last(self, count: int) -> list[Decision]:
        """Return the newest decisions of all replicas, oldest first."""
        return in_order(await self._log.last(count))

    async def after(self, position: str, count: int) -> Page:
        """Return up to *count* decisions after a position, in log order; `""` is its start.

        Raises:
            BackendError: If the store failed.
        """
        rows = await self._log.since(position, count)
        found = tuple(self._log.opened(item) for _, item in rows if item is not None)
        return Page(found, rows[-1][0] if rows else position, len(rows) == count)

    async def find(self, lookup_id: str) -> Decision | None:
        """Return the decision of a lookup of any replica, if the log still has it."""
        found = _named(lookup_id, (*self.recent, *self._waiting))
        found = found or _named(lookup_id, await self._log.last(PAGE, containing=lookup_id))
        if found is not None:
            return found
        async for page in self._log.pages(containing=lookup_id):
            if found := _named(lookup_id, (item for _, item in page)):
                return found
        return None

    async def asked_by(self, user: str) -> set[str]:
        """Return the digests of the messages in a user's decisions."""
        found = {item.message for item in (*self._waiting, *self.recent) if item.user == user}
        async for page in self._log.pages(containing=user):
            found |= {item.message for _, item in page if item.user == user}
        return found

    async def forget_user(self, user: str, theirs: Collection[str] = ()) -> int:
        """Remove the decisions of a user's digest; return how many there were.

        Args:
            user: The user's digest.
            theirs: Digests of the messages to which the user stored an answer: other users'
                decisions that met one lose the question's and the answer's text.
        """

        def change(item: Decision) -> Decision | None:
            if item.user == user:
                return None
            return _blank(item) if _holds_text_of(item, theirs) else item

        # Waits for a running flush, whose decisions must not arrive after the others were removed.
        async with self._writing:
            self._shadows.clear()
            self._waiting = [new for item in self._waiting if (new := change(item)) is not None]
            kept = [new for item in self.recent if (new := change(item)) is not None]
            self.recent.clear()
            self.recent.extend(kept)
            return await self._log.rewrite(change, containing="" if theirs else user)


async def _shadowed(
    decisions: Sequence[Decision], asked: Mapping[str, Callable[[], Shadow]]
) -> list[Decision]:
    """Return *decisions* with what the policy would have done, where it is *asked*."""
    found = []
    for item in decisions:
        shadow = asked.get(item.lookup_id)
        if shadow is None:
            found.append(item)
            continue
        least, chance = shadow()
        found.append(item._replace(least_max_wrong=least, chance=chance))
        # A lookup waits for one of them at most.
        await asyncio.sleep(0)
    return found


def _weighed(kept: Sequence[Decision], offered: int) -> list[Decision]:
    """Return a sample of *offered* lookups, each with the number that it stands for."""
    # Decisions that an earlier flush could not write have a weight already.
    new = sum(item.stands_for == 1 for item in kept)
    weight = round(offered / max(1, new), 3)
    return [item._replace(stands_for=weight) if item.stands_for == 1 else item for item in kept]


def in_order(decisions: Iterable[Decision]) -> list[Decision]:
    """Return *decisions* by time: a row whose texts were erased is rewritten at the log's end."""
    return sorted(decisions, key=attrgetter("at"))


def _named(lookup_id: str, decisions: Iterable[Decision]) -> Decision | None:
    return next((item for item in decisions if item.lookup_id == lookup_id), None)


def _holds_text_of(item: Decision, theirs: Collection[str]) -> bool:
    """Return whether *item* has the text of one of the messages *theirs*, or of its answer."""
    free = bool(item.intent) and INTENT_PATTERN.fullmatch(item.intent) is None
    return item.matched in theirs and bool(item.matched_text or item.response_text or free)


def _blank(item: Decision) -> Decision:
    label = INTENT_PATTERN.fullmatch(item.intent) is not None
    return item._replace(
        matched_text="", response_text="", intent=item.intent if label else "",
        message_text="" if item.message == item.matched else item.message_text,
    )  # fmt: skip
