"""Audit log of operators' actions, in the store; the tuning keeps its own history."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from operator import attrgetter
from typing import NamedTuple

from cache_core.backends.base import Logs
from cache_core.backends.log import Log
from cache_core.model.stored import Flag, Format, Moment, Whole

AUDIT = "audit"
RECORDS_KEPT = 10_000
OF_USER = ", of user "
"""Separator of the message in a target and the beginning of a user's digest."""


class AuditRecord(NamedTuple):
    """One action of an operator.

    Attributes:
        at: The store's time, seconds since the epoch.
        id: Identifies the action.
        author: The operator.
        action: The action, such as `invalidate message`.
        target: The action's target. Never a message's text, unless capture is on.
        note: The operator's reason.
        removed: Entries removed; `None` while unknown.
        complete: Whether every backend confirmed it; `None` while unknown.
    """

    at: Moment
    id: str
    author: str
    action: str
    target: str
    note: str = ""
    removed: Whole | None = None
    complete: Flag | None = None


FORMAT = Format(AuditRecord, (1,))


class AuditLog:
    """Log of the last actions, of all users of the same store.

    Each is recorded before it is carried out, so that none is unseen, and again with its result.

    Args:
        store: Store of the log.
        name: The log's key.
    """

    def __init__(self, store: Logs, name: str) -> None:
        self._store = store
        self._log = Log(store, name, FORMAT, RECORDS_KEPT)

    async def begin(self, author: str, action: str, target: str, note: str = "") -> AuditRecord:
        """Record an action that is about to be carried out.

        Raises:
            BackendError: If the store is unavailable; then it must not be carried out.
        """
        record = AuditRecord(self._store.now(), secrets.token_hex(6), author, action, target, note)
        await self._log.append([record])
        return record

    async def end(self, record: AuditRecord, *, removed: int, complete: bool) -> AuditRecord:
        """Record the result of an action.

        Raises:
            BackendError: If the store is unavailable.
        """
        record = record._replace(removed=removed, complete=complete)
        await self._log.append([record])
        return record

    async def last(self, count: int) -> list[AuditRecord]:
        """Return the newest records, oldest first.

        Raises:
            BackendError: If the store is unavailable.
        """
        # Each has up to two lines in the log.
        found = {record.id: record for record in await self._log.last(2 * count)}
        return sorted(found.values(), key=attrgetter("at"))[-count:]

    async def forget(self, shown: Callable[[str], str]) -> None:
        """Rewrite the records whose target must be erased.

        Args:
            shown: Returns a target's permitted form; unchanged for most.

        Raises:
            BackendError: If the store failed.
        """

        def change(record: AuditRecord) -> AuditRecord:
            target = shown(record.target)
            return record if target == record.target else record._replace(target=target)

        await self._log.rewrite(change)
