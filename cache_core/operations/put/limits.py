"""Limits on one user's puts, so that no user can fill the cache."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from cache_core.config.tuning import Tuning

_USERS = 20_000
"""Users whose buckets are kept; those who wrote longest ago are dropped, and start over."""


class WriteLimits:
    """Two token buckets per user: for all puts, and for shared ones.

    A bucket holds the tokens of a minute and is refilled evenly. The limits hold per process,
    because a store would cost every put a round trip: with N replicas a user can write N times as
    much. Puts without a user id are not limited.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: OrderedDict[tuple[str, bool], tuple[float, float]] = OrderedDict()

    def take(self, user: str | None, tuning: Tuning, *, shared: bool) -> bool:
        """Count a put by a user's digest; return whether it is within the limits."""
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
