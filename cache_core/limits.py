"""How much one user may write: who fills the cache with answers is slowed down, and counted."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from cache_core.tuning import Tuning

_USERS = 20_000
"""Users whose buckets are kept; those who wrote longest ago are forgotten, and start anew."""


class WriteLimits:
    """Two token buckets per user: for everything, and for what every user may read.

    A bucket holds a minute's worth, and is refilled evenly. The limits hold per process, because
    asking a store would cost every put a round trip: with N replicas a user can write N times as
    much. Who has no user id is not limited: it could be anybody.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: OrderedDict[tuple[str, bool], tuple[float, float]] = OrderedDict()

    def take(self, user: str | None, tuning: Tuning, *, shared: bool) -> bool:
        """Take note of a put by a user's digest; return whether it is within the limits."""
        if user is None:
            return True
        own = self._take(user, tuning.puts_per_minute, shared=False)
        return own and (not shared or self._take(user, tuning.shared_puts_per_minute, shared=True))

    def _take(self, user: str, per_minute: float, *, shared: bool) -> bool:
        now = self._clock()
        left, before = self._buckets.pop((user, shared), (per_minute, now))
        left = min(per_minute, left + (now - before) * per_minute / 60)
        allowed = left >= 1
        self._buckets[user, shared] = (left - 1 if allowed else left, now)
        if len(self._buckets) > 2 * _USERS:
            self._buckets.popitem(last=False)
        return allowed
