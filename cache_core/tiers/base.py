"""Protocol of a tier. Tiers know neither each other nor the metrics."""

from __future__ import annotations

import logging
from typing import Protocol

from cache_core.config.tuning import Tuning
from cache_core.model.logs import RateLimited
from cache_core.model.values import Entry, Hit, Level, Miss, NotStored, Query, Scope

log = RateLimited(logging.getLogger("glasscache"))


class Tier(Protocol):
    """One tier of the cache.

    Every coroutine raises only `BackendError`, when a backend fails.
    """

    @property
    def level(self) -> Level:
        """Level of the tier."""
        ...

    async def get(self, query: Query, tuning: Tuning) -> Hit | Miss:
        """Return the entry stored for *query*, or the reason why none can be served."""
        ...

    async def put(self, query: Query, entry: Entry, scope: Scope, tuning: Tuning) -> NotStored:
        """Store this tier's part of *entry* for *scope*; readable when this returns.

        Returns:
            Reason why it was not stored; empty if it was.
        """
        ...


def tell_locked() -> None:
    """Log that an entry cannot be decrypted here, with the remedy."""
    log.limited(
        "locked",
        "an entry was sealed with a key that this process does not have, and was not served: give "
        "all replicas the same CACHE_ENCRYPTION_KEYS",
    )
