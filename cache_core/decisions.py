"""The record of every lookup: what it decided, on what evidence. Written behind, off the path."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from cache_core.stores.base import KeyValueStore

_WAITING = 10_000
_SLACK = 1_000
"""A log may hold this many more than it was told to keep: stores trim roughly."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One lookup.

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
        message, matched, user: Digests; *user* is empty without one.
        intent: Of the answer served, or of the one that another user has.
        tuning_version: In force.
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


_FIELDS = {field.name for field in fields(Decision)}


class DecisionLog:
    """The last lookups of all replicas of a namespace, kept in the keyed store.

    Args:
        store: Where the log is.
        name: The log's key.
        keep: Lookups to keep; 0 switches the log off.
    """

    def __init__(self, store: KeyValueStore, name: str, keep: int) -> None:
        self._store = store
        self._name = name
        self._keep = keep
        self._waiting: deque[Decision] = deque()
        self._writing = asyncio.Lock()
        self.recent: deque[Decision] = deque(maxlen=min(keep, 200))
        """This replica's last decisions, newest last."""
        self.dropped = 0
        """Decisions lost because the store was away."""

    def add(self, decision: Decision) -> None:
        """Take a decision; it is in the store after the next `flush`."""
        if not self._keep:
            return
        self.recent.append(decision)
        if len(self._waiting) >= _WAITING:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append(decision)

    async def flush(self) -> None:
        """Write what waits; raises `BackendError`, and keeps it then."""
        async with self._writing:
            if not self._waiting:
                return
            taken, self._waiting = self._waiting, deque()
            texts = [json.dumps(asdict(item), separators=(",", ":")) for item in taken]
            try:
                await self._store.append(self._name, texts, keep=self._keep)
            except BaseException:
                self._waiting.extendleft(reversed(taken))
                raise

    async def last(self, count: int) -> list[Decision]:
        """Return the newest decisions of all replicas, oldest first."""
        found = await self._store.last(self._name, count)
        return [item for _, text in found if (item := parse(text)) is not None]

    async def forget_user(self, user: str) -> int:
        """Remove the decisions of a user's digest; return how many there were."""
        # What is on its way is waited for: it must not arrive after the others were removed.
        async with self._writing:
            self._waiting = deque(item for item in self._waiting if item.user != user)
            found = await self._store.last(self._name, self._keep + _SLACK)
            positions = [
                position
                for position, text in found
                if (item := parse(text)) is not None and item.user == user
            ]
            await self._store.remove(self._name, positions)
            return len(positions)


def parse(text: str) -> Decision | None:
    """Return the decision in *text*; `None` for what is not one of this version."""
    try:
        values: Any = json.loads(text)
        known = {name: values[name] for name in _FIELDS}
        known["reasons"] = tuple(known["reasons"])
        return Decision(**known)
    except (TypeError, ValueError, KeyError):
        return None


def reasons_of(decisions: Sequence[Decision]) -> dict[str, int]:
    """Return how often each reason ended a lookup without a response."""
    counted: dict[str, int] = {}
    for item in decisions:
        if item.reason:
            counted[item.reason] = counted.get(item.reason, 0) + 1
    return dict(sorted(counted.items(), key=lambda pair: -pair[1]))
