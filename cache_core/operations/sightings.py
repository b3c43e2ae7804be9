"""Sightings: the generation that each lookup read, kept for the put that follows it.

A value computed before an invalidation must never be stored as a newer one. So a put is checked
against the sighting of the lookup before it, in this order:

1. the one in `put(lookup=...)`: a `LookupResult` carries it;
2. the lookup of this message in the same task, by a context variable;
3. the oldest lookup of this message and user, in any task of this cache, that found no response
   and was not followed by a put yet;
4. a lookup in the same task of a variant of this message, in another letter case for instance: it
   read the same generation.

Without any of them the put follows no lookup, and belongs to the generation in force. If sightings
of its message were dropped, the put is checked against the invalidations since the oldest dropped
sighting of any message.

A put is not rejected for an invalidation that its own task made after the lookup.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from typing import NamedTuple

from cache_core.model.values import Generation, Query, Sighting
from cache_core.tiers.denylist import Place, place

_IN_A_TASK = 16
"""Lookups of a task, of different messages and users, that a put may follow."""

_LONGEST = 2 * _IN_A_TASK
_KNOWN = 64
SIGHTINGS_KEPT = 10_000
"""Pairs of message and user whose lookups without a put are remembered."""

_GENERATIONS = 16
_PLACES = 64
_BYTES = 2**19
_LOST_SECONDS = 3_600.0
"""Seconds after its lookup in which a put may still come, once `SIGHTINGS_KEPT` are open."""

_Saw = tuple[Generation | None, str, float | None]
"""Generation and journal position that a lookup read, and the end of its day."""


class _Knew(NamedTuple):
    """A lookup's knowledge of invalidations: whether it read the store, and its position."""

    reached: bool
    position: str

    def order(self) -> tuple[bool, Place]:
        return self.reached, place(self.position)


class _Seen(NamedTuple):
    """A lookup of a task, with those before it: adding one copies nothing.

    Attributes:
        owner: Id of the cache.
        sighting: What the lookup saw.
        before: The lookup before it.
        length: Number of lookups, including this one.
    """

    owner: int
    sighting: Sighting
    before: _Seen | None
    length: int


_seen: ContextVar[_Seen | None] = ContextVar("glasscache_seen", default=None)
"""The task's last lookup."""

_known: ContextVar[tuple[str, ...]] = ContextVar("glasscache_known", default=())
_ids = itertools.count(1)

CARRIED = (_seen, _known)
"""Context variables that a task gets back from work done for it in another thread."""


class _Forgotten:
    """Set of messages whose sightings were dropped within the last hour or two.

    A Bloom filter: with a million an hour, one in seven other messages seems to be in it.
    """

    def __init__(self) -> None:
        self._newer = self._older = bytearray()
        self._since = -math.inf

    def add(self, digest: str, now: float) -> None:
        """Add the digest of a message."""
        if now - self._since > _LOST_SECONDS:
            self._older, self._newer, self._since = self._newer, bytearray(_BYTES), now
        for place_, bit in self._bits(digest):
            self._newer[place_] |= bit

    def may_have(self, digest: str) -> bool:
        """Return whether *digest* was added; false positives are possible."""
        bits = list(self._bits(digest))
        return any(
            found and all(found[place_] & bit for place_, bit in bits)
            for found in (self._newer, self._older)
        )

    @staticmethod
    def _bits(digest: str) -> Iterator[tuple[int, int]]:
        # A digest needs no further hashing.
        for start in (0, 8):
            bit = int(digest[start : start + 8], 16) % (8 * _BYTES)
            yield bit >> 3, 1 << (bit & 7)


class Sightings:
    """Sightings of one cache's lookups.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._id = next(_ids)
        self._clock = clock
        # Number of lookups without a put, by message and user, then by sighting, oldest first.
        self._open: OrderedDict[tuple[str, str | None], dict[_Saw, int]] = OrderedDict()
        # Knowledge of dropped lookups, with the time of the last drop.
        self._lost: dict[_Knew, float] = {}
        self._forgotten = _Forgotten()
        # Two event loops may use a cache concurrently.
        self._lock = threading.RLock()

    def note(self, sighting: Sighting, *, answered: bool) -> None:
        """Remember a sighting for the put that may follow.

        Args:
            sighting: The lookup's sighting.
            answered: Whether it found a response: then only a put in the same task may follow.
        """
        last = _seen.get()
        if last is None:
            _seen.set(_Seen(self._id, sighting, None, 1))
        elif last.sighting != sighting or last.owner != self._id:
            if last.length >= _LONGEST:
                _remember(_lookups())
                last = _seen.get()
            _seen.set(_Seen(self._id, sighting, last, 1 if last is None else last.length + 1))
        if not answered:
            with self._lock:
                self._expect(sighting)

    def _expect(self, sighting: Sighting) -> None:
        exact = sighting.exact
        waiting = self._open.setdefault((exact, sighting.user), {})
        saw = (sighting.generation, sighting.position, sighting.until)
        waiting[saw] = waiting.get(saw, 0) + 1
        if len(waiting) > _GENERATIONS or len(self._open) > SIGHTINGS_KEPT:
            if len(waiting) > _GENERATIONS:
                oldest = next(iter(waiting))
                del waiting[oldest]
                self._lose(exact, [oldest])
            else:
                (forgotten, _), lookups = self._open.popitem(last=False)
                self._lose(forgotten, lookups)

    def _lose(self, exact: str, lookups: Iterable[_Saw]) -> None:
        """Record that sightings of a message are dropped."""
        now = self._clock()
        self._forgotten.add(exact, now)
        for generation, position, _ in lookups:
            self._lost[_Knew(generation is not None, position)] = now
        if len(self._lost) > _PLACES:
            # The older position covers the newer one; the oldest expires as before.
            *_, older, newest = sorted(self._lost, key=_Knew.order)
            self._lost[older] = max(self._lost[older], self._lost.pop(newest))

    def take(self, query: Query) -> Sighting | None:
        """Return, once, the sighting of the lookup that a put follows; `None` without one."""
        with self._lock:
            found = self._take(query)
        return None if found is None else found._replace(known=_known.get())

    def _take(self, query: Query) -> Sighting | None:
        variants = [
            kept for owner, kept in _lookups() if owner == self._id and kept.tag == query.tag
        ]
        seen = [kept for kept in variants if kept.exact == query.exact]
        # A put may be for another user than the lookup: for all users, or one who just logged in.
        seen.sort(key=lambda kept: kept.user != query.user)
        if seen:
            found = seen[0]
            _remember([item for item in _lookups() if not self._is_of(item, found)])
            self.settle(found)
            return found
        for generation, position, until in self._open.get((query.exact, query.user), {}):
            found = Sighting(query.tag, query.user, generation, position, exact=query.exact,
                             until=until)  # fmt: skip
            self.settle(found)
            return found
        if variants:
            # Not settled, because the variant's own put may still come.
            return variants[0]
        return self._oldest_lost(query)

    def _oldest_lost(self, query: Query) -> Sighting | None:
        """Return the oldest dropped sighting, if this put may follow a dropped one."""
        since = self._clock() - _LOST_SECONDS
        self._lost = {knew: at for knew, at in self._lost.items() if at > since}
        if not self._lost or not self._forgotten.may_have(query.exact):
            return None
        reached, position = min(self._lost, key=_Knew.order)
        return Sighting(query.tag, query.user, None, position, forgotten=reached)

    def _is_of(self, item: tuple[int, Sighting], found: Sighting) -> bool:
        """Return whether *item* is this cache's, of the same message and user as *found*."""
        owner, kept = item
        return owner == self._id and (kept.exact, kept.user) == (found.exact, found.user)

    def settle(self, sighting: Sighting) -> None:
        """Record that the put has come."""
        with self._lock:
            self._settle(sighting)

    def _settle(self, sighting: Sighting) -> None:
        name = (sighting.exact, sighting.user)
        saw = (sighting.generation, sighting.position, sighting.until)
        waiting = self._open.get(name)
        if waiting is None or saw not in waiting:
            return
        if waiting[saw] > 1:
            waiting[saw] -= 1
            return
        del waiting[saw]
        if not waiting:
            del self._open[name]


def _lookups() -> list[tuple[int, Sighting]]:
    """Return cache id and sighting of the task's last lookups, newest first.

    Only the last one of each message and user.
    """
    found: dict[tuple[int, str, str | None], tuple[int, Sighting]] = {}
    seen = _seen.get()
    while seen is not None and len(found) < _IN_A_TASK:
        owner, sighting, seen, _ = seen
        found.setdefault((owner, sighting.exact, sighting.user), (owner, sighting))
    return list(found.values())


def _remember(lookups: Sequence[tuple[int, Sighting]]) -> None:
    """Replace the task's last lookups; newest first."""
    seen: _Seen | None = None
    for length, (owner, sighting) in enumerate(reversed(lookups), 1):
        seen = _Seen(owner, sighting, seen, length)
    _seen.set(seen)


def known() -> tuple[str, ...]:
    """Return the invalidations made by this task, the newest last."""
    return _known.get()


def know(token: str) -> None:
    """Record an invalidation made by this task, for which its later puts are not rejected.

    Invalidations that others make meanwhile still apply to its earlier lookups.
    """
    _known.set((*_known.get()[1 - _KNOWN :], token))
