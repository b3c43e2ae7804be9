"""Which generation of a message the lookups saw, until the puts that follow them.

A value computed before an invalidation must never be stored as if it were of after it. So a put
is held against what the lookup before it saw. That is, in this order:

1. what `put(lookup=...)` was given: a `LookupResult` carries it;
2. the lookup of this message in the same task, by a context variable: nobody has to carry it;
3. the oldest lookup of this message and user, in any task of this cache, that found no response
   and was not followed by a put yet.

Without any of them the put is no result of a lookup, and belongs to the generation in force. Where
a lookup may have been forgotten here, none was seen: an invalidated message is not stored then.

What a task itself invalidated after its lookup does not keep its put from being stored: it knows.
"""

from __future__ import annotations

import itertools
import time
from collections import OrderedDict
from collections.abc import Callable
from contextvars import ContextVar

from cache_core.models import Generation, Query, Sighting

_IN_A_TASK = 16
_KNOWN = 64
KEPT = 10_000
"""Messages, with their user, of which lookups without a put are remembered."""

_GENERATIONS = 16
_LOST_SECONDS = 3_600.0
"""How long after its lookup, at most, a put is expected when more than `KEPT` wait for theirs."""

_Seen = tuple[Generation | None, str]
_seen: ContextVar[tuple[tuple[int, Sighting], ...]] = ContextVar("glasscache_seen", default=())
"""Of the last lookups of a task, the newest first: the id of their cache, and what they saw.

They are of `_IN_A_TASK` different messages and users at most, however often each was looked up."""

_known: ContextVar[tuple[str, ...]] = ContextVar("glasscache_known", default=())
_ids = itertools.count(1)


class Sightings:
    """What the lookups of one cache saw.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._id = next(_ids)
        self._clock = clock
        # Of all that was seen of a message, the oldest first: how many lookups wait for their put.
        self._open: OrderedDict[tuple[str, str | None], dict[_Seen, int]] = OrderedDict()
        self._lost_at: float | None = None

    def note(self, sighting: Sighting, *, answered: bool) -> None:
        """Leave what a lookup saw to the put that may follow.

        Args:
            sighting: What it saw.
            answered: Whether it found a response: then only a put in the same task may follow.
        """
        seen, own = _seen.get(), (self._id, sighting)
        tag, user, generation, position, _ = sighting
        if not seen or seen[0] != own:
            # One comes and one goes: what waits for its turn to go is collected as garbage over
            # and over, which took longer than the rest of noting a lookup.
            rest = [item for item in seen if item[1][0] != tag or not self._is_of(item, sighting)]
            _seen.set((own, *rest[: _IN_A_TASK - 1]))
        if answered:
            return
        waiting = self._open.setdefault((tag, user), {})
        saw = (generation, position)
        waiting[saw] = waiting.get(saw, 0) + 1
        if len(waiting) > _GENERATIONS or len(self._open) > KEPT:
            if len(waiting) > _GENERATIONS:
                del waiting[next(iter(waiting))]
            else:
                self._open.popitem(last=False)
            self._lost_at = self._clock()

    def take(self, query: Query) -> Sighting | None:
        """Return what the lookup saw that a put follows, once; `None` if it follows none."""
        found = self._take(query)
        return None if found is None else found._replace(known=_known.get())

    def _take(self, query: Query) -> Sighting | None:
        seen = [kept for owner, kept in _seen.get() if owner == self._id and kept.tag == query.tag]
        # A put may be for another user than the lookup: for everybody, or for who logged in.
        seen.sort(key=lambda kept: kept.user != query.user)
        if seen:
            found = seen[0]
            _seen.set(tuple(item for item in _seen.get() if not self._is_of(item, found)))
            self.settle(found)
            return found
        for generation, position in self._open.get((query.tag, query.user), {}):
            found = Sighting(query.tag, query.user, generation, position)
            self.settle(found)
            return found
        if self._lost_at is not None and self._clock() - self._lost_at < _LOST_SECONDS:
            return Sighting(query.tag, query.user, None)
        return None

    def _is_of(self, item: tuple[int, Sighting], found: Sighting) -> bool:
        """Whether a lookup was this cache's, of the same message and user as *found*."""
        owner, kept = item
        return owner == self._id and kept[:2] == found[:2]

    def settle(self, sighting: Sighting) -> None:
        """Take note that the put has come."""
        name = (sighting.tag, sighting.user)
        saw = (sighting.generation, sighting.position)
        waiting = self._open.get(name)
        if waiting is None or saw not in waiting:
            return
        if waiting[saw] > 1:
            waiting[saw] -= 1
            return
        del waiting[saw]
        if not waiting:
            del self._open[name]


def know(token: str) -> None:
    """Take note of an invalidation that this task makes: what it puts from now on knows of it.

    Only of this one: what others invalidate meanwhile still holds against its earlier lookups.
    """
    _known.set((*_known.get()[1 - _KNOWN :], token))
