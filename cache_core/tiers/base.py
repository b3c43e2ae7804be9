"""What every tier can do. No tier knows another, nor who counts."""

from __future__ import annotations

import logging
from typing import Protocol

from cache_core.logs import RateLimited
from cache_core.models import Entry, Hit, Level, Miss, NotStored, Query, Scope
from cache_core.tuning import Tuning

log = RateLimited(logging.getLogger("glasscache"))


class Tier(Protocol):
    """One tier of the cache.

    Every coroutine raises `BackendError` when the backend failed, and nothing else.
    """

    @property
    def level(self) -> Level:
        """Which tier this is."""
        ...

    async def get(self, query: Query, tuning: Tuning) -> Hit | Miss:
        """Return what is stored for *query*, or why nothing can be served."""
        ...

    async def put(self, query: Query, entry: Entry, scope: Scope, tuning: Tuning) -> NotStored:
        """Store this tier's part of *entry* for *scope*; readable when this returns.

        Returns:
            Why it was not stored; empty when it was.
        """
        ...


def tell_locked() -> None:
    """Say that an entry cannot be opened here, and what to do."""
    log.limited(
        "locked",
        "an entry was sealed with a key that this process does not have, and was not served: give "
        "all replicas the same CACHE_ENCRYPTION_KEYS",
    )
