"""Who changed what besides the tuning, which keeps a history of its own: a log in the store."""

from __future__ import annotations

import json
import secrets
from typing import NamedTuple

from cache_core.stored import are_numbers, are_texts, from_store
from cache_core.stores.base import KeyValueStore

AUDIT = "audit"
KEPT = 10_000
_VERSION = 1


class AuditRecord(NamedTuple):
    """One thing that somebody did.

    Attributes:
        at: The store's time, seconds since the epoch.
        id: Names it.
        author: Who did it.
        action: What was done, as `invalidate message`.
        target: What it was done to. Never a message's text, unless capture is on.
        note: Why.
        removed: Entries that went; `None` while that is not known.
        complete: Whether every backend confirmed it; `None` while that is not known.
    """

    at: float
    id: str
    author: str
    action: str
    target: str
    note: str = ""
    removed: int | None = None
    complete: bool | None = None


class AuditLog:
    """The last things that were done, by everybody who uses the same store.

    A record is written before it is acted on, so that nothing is done unseen, and again with what
    came of it.

    Args:
        store: Keeps the log.
        name: The log's key.
    """

    def __init__(self, store: KeyValueStore, name: str) -> None:
        self._store = store
        self._name = name

    async def begin(self, author: str, action: str, target: str, note: str = "") -> AuditRecord:
        """Record what is about to be done.

        Raises:
            BackendError: If the store is away; then it must not be done.
        """
        record = AuditRecord(self._store.now(), secrets.token_hex(6), author, action, target, note)
        await self._append(record)
        return record

    async def end(self, record: AuditRecord, *, removed: int, complete: bool) -> AuditRecord:
        """Record what came of it.

        Raises:
            BackendError: If the store is away.
        """
        record = record._replace(removed=removed, complete=complete)
        await self._append(record)
        return record

    async def last(self, count: int) -> list[AuditRecord]:
        """Return the newest records, oldest first.

        Raises:
            BackendError: If the store is away.
        """
        found: dict[str, AuditRecord] = {}
        # Each has up to two lines in the log.
        for _, text in await self._store.last(self._name, 2 * count):
            record = _parse(text)
            if record is not None:
                found[record.id] = record
        return list(found.values())[-count:]

    async def _append(self, record: AuditRecord) -> None:
        await self._store.append(
            self._name, [json.dumps([_VERSION, *record], separators=(",", ":"))], keep=KEPT
        )


def _parse(text: str) -> AuditRecord | None:
    try:
        version, *values = from_store(text)
        found = AuditRecord(*values) if version == _VERSION else None
    except (TypeError, ValueError):
        return None
    if found is None:
        return None
    sound = (
        are_texts([found.id, found.author, found.action, found.target, found.note])
        and are_numbers([found.at] if found.removed is None else [found.at, found.removed])
        and isinstance(found.complete, bool | None)
    )
    return found if sound else None
