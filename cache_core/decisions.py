"""The record of every lookup: what it decided, on what evidence. Written behind, off the path."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping
from random import random
from typing import NamedTuple

from cache_core.sealing import Sealer, SealError
from cache_core.stored import are_named_numbers, are_numbers, are_texts, from_store
from cache_core.stores.base import KeyValueStore

VERSION = 2
"""Of a decision's stored form: a JSON list of the version and the fields in order."""

_READABLE = (1, 2)
"""Version 1 ends before `scope`: what it lacks has its default."""

NOTHING: Mapping[str, float] = {}

_TEXTS = ("message_text", "matched_text", "response_text")
_STRINGS = (
    "lookup_id", "outcome", "level", "reason", "message", "matched", "user", "intent", "scope",
    "context", "history", *_TEXTS,
)  # fmt: skip
_PER_FLUSH = 250
_CHUNK = 50
"""Written at once: the loop serves lookups between two chunks."""
_SLACK = 1_000
"""A log may hold this many more than it was told to keep: stores trim roughly."""


class Decision(NamedTuple):
    """One lookup. A tuple, because one is made on the path of every lookup.

    Attributes:
        at: The store's time, seconds since the epoch.
        lookup_id: As in the `LookupResult`.
        outcome, level, reason: As counted; *reason* is that of the last tier that was asked.
        reasons: Of all tiers, in their order.
        similarity: Of the nearest question, whatever the threshold was, 0..1.
        unvetoed: Of the nearest question that no guard vetoed.
        threshold: In force.
        age_seconds: Of the answer served.
        seconds: The lookup's latency.
        saved_usd: What it saved.
        message, user: Digests; *user* is empty without one.
        matched: Digest of the question that was answered; of the nearest one that no guard vetoed
            where nothing was.
        intent: Of the answer served, or of the one that another user has.
        tuning_version: In force.
        scope: Whose *matched* is: `user` or `shared`; empty without one, or where not known.
        context, history: Digests; *history* is empty without one.
        ages: By tier that was asked after L1 and answered: the age of its entry, in seconds.
        expired: By tier that would have answered, had its entry not expired: that entry's age.
        message_text: The message, or its standalone form; like the two texts below empty unless
            `capture_message_content` is on, and never longer than `capture.LIMIT`.
        matched_text: The question that L2 matched; without a hit the one that a guard vetoed, else
            the nearest. Empty for an exact answer.
        response_text: The response that was served; without a hit the one to *matched_text*.
    """

    at: float
    lookup_id: str
    outcome: str
    level: str
    reason: str
    reasons: tuple[str, ...]
    similarity: float | None
    unvetoed: float | None
    threshold: float
    age_seconds: float | None
    seconds: float
    saved_usd: float
    message: str
    matched: str
    user: str
    intent: str
    tuning_version: int
    scope: str = ""
    context: str = ""
    history: str = ""
    ages: Mapping[str, float] = NOTHING
    expired: Mapping[str, float] = NOTHING
    message_text: str = ""
    matched_text: str = ""
    response_text: str = ""


class DecisionLog:
    """The last lookups of all replicas of a namespace, kept in the keyed store.

    Args:
        store: Where the log is.
        name: The log's key.
        keep: Lookups to keep; 0 switches the log off.
        sealer: Encrypts captured texts.
    """

    def __init__(
        self, store: KeyValueStore, name: str, keep: int, sealer: Sealer | None = None
    ) -> None:
        self._sealer = sealer
        self._store = store
        self._name = name
        self._keep = keep
        self._waiting: list[Decision] = []
        self._offered = 0
        self._writing = asyncio.Lock()
        self.recent: deque[Decision] = deque(maxlen=min(keep, 200))
        """This replica's last decisions that were kept, newest last."""
        self.dropped = 0
        """Decisions lost because the store was away."""
        self.left_out = 0
        """Decisions not kept because more came than are written: see `place`."""

    def place(self) -> int | None:
        """Count a lookup; return the place of its decision, `None` if that is not kept.

        When more come between two flushes than are written at once, a uniform sample of them is
        kept (reservoir sampling, Vitter's algorithm R). The others are counted as left out, and
        need not even be made.
        """
        if not self._keep:
            return None
        self._offered += 1
        place = len(self._waiting)
        if place >= _PER_FLUSH:
            self.left_out += 1
            place = int(random() * self._offered)
            if place >= _PER_FLUSH:
                return None
        return place

    def add(self, decision: Decision, place: int) -> None:
        """Take a decision to its place; it is in the store after the next `flush`."""
        self.recent.append(decision)
        self._waiting[place : place + 1] = [decision]

    async def flush(self) -> None:
        """Write what waits; raises `BackendError`, and keeps for the next time what is left."""
        async with self._writing:
            taken, self._waiting, self._offered = self._waiting, [], 0
            while taken:
                chunk = taken[:_CHUNK]
                texts = [self._written(item) for item in chunk]
                try:
                    await self._store.append(self._name, texts, keep=self._keep)
                except BaseException:
                    room = _PER_FLUSH - len(self._waiting)
                    self.dropped += max(0, len(taken) - room)
                    self._waiting = taken[:room] + self._waiting
                    raise
                taken = taken[_CHUNK:]

    def _written(self, item: Decision) -> str:
        if self._sealer is not None and item.message_text:
            seal = self._sealer.seal
            item = _texts(item, lambda text, name: seal(text, item.lookup_id + name))
        return json.dumps([VERSION, *item], separators=(",", ":"))

    async def last(self, count: int) -> list[Decision]:
        """Return the newest decisions of all replicas, oldest first."""
        found = await self._store.last(self._name, count)
        return [item for _, text in found if (item := parse(text, self._sealer)) is not None]

    async def find(self, lookup_id: str) -> Decision | None:
        """Return the decision of a lookup of any replica, if the log still has it."""
        for item in (*self.recent, *self._waiting):
            if item.lookup_id == lookup_id:
                return item
        for _, text in reversed(await self._store.last(self._name, self._keep)):
            # Most are not even parsed: the log may have 100,000.
            found = parse(text) if lookup_id in text else None
            if found is not None and found.lookup_id == lookup_id:
                return found
        return None

    async def forget_user(self, user: str) -> int:
        """Remove the decisions of a user's digest; return how many there were."""
        # What is on its way is waited for: it must not arrive after the others were removed.
        async with self._writing:
            self._waiting = [item for item in self._waiting if item.user != user]
            kept = [item for item in self.recent if item.user != user]
            self.recent.clear()
            self.recent.extend(kept)
            found = await self._store.last(self._name, self._keep + _SLACK)
            positions = [
                position
                for position, text in found
                if (item := parse(text)) is not None and item.user == user
            ]
            await self._store.remove(self._name, positions)
            return len(positions)


def parse(text: str, sealer: Sealer | None = None) -> Decision | None:
    """Return the decision in *text*; `None` for what is not one of this version.

    Its captured texts are empty where they are sealed and *sealer* cannot open them.
    """
    try:
        version, *values = from_store(text)
        found = Decision(*values) if version in _READABLE else None
    except (TypeError, ValueError):
        return None
    if found is None or not _is_sound(found):
        return None
    found = found._replace(reasons=tuple(found.reasons))
    return found if sealer is None or not found.message_text else _opened(found, sealer)


def _is_sound(found: Decision) -> bool:
    optional = (found.similarity, found.unvetoed, found.age_seconds)
    return (
        are_texts([getattr(found, name) for name in _STRINGS])
        and isinstance(found.reasons, list)
        and are_texts(found.reasons)
        and are_numbers([found.at, found.threshold, found.seconds, found.saved_usd])
        and are_numbers([value for value in optional if value is not None])
        and are_numbers([found.tuning_version])
        and are_named_numbers(found.ages)
        and are_named_numbers(found.expired)
    )


def _opened(item: Decision, sealer: Sealer) -> Decision:
    def opened(text: str, name: str) -> str:
        try:
            return sealer.open(text, item.lookup_id + name)
        except SealError:
            return ""

    return _texts(item, opened)


def _texts(item: Decision, change: Callable[[str, str], str]) -> Decision:
    """Return *item* with its captured texts changed; *change* is told which one it is."""
    message, matched, response = (
        change(text, name) if (text := str(getattr(item, name))) else "" for name in _TEXTS
    )
    return item._replace(message_text=message, matched_text=matched, response_text=response)
