"""Instrument that keeps all records."""

from __future__ import annotations

from typing import Any

from cache_core.model.values import Level
from cache_core.observability.instruments import CacheState, Scope
from cache_core.observability.records import Operation, Record, ScopedRecord, TierRecord


class _RecordingScope:
    detailed = True

    def __init__(self, owner: RecordingInstrument) -> None:
        self._owner = owner

    def close(self, record: ScopedRecord | TierRecord) -> None:
        self._owner.closed.append(record)


class RecordingInstrument:
    """Instrument that keeps all records.

    Attributes:
        opened: Operation and tier of every scope, in order.
        closed: The finished record of every scope.
        recorded: Every finished operation.
        states: Every reported state.
    """

    def __init__(self) -> None:
        self.opened: list[tuple[Operation, Level | None]] = []
        self.closed: list[ScopedRecord | TierRecord] = []
        self.recorded: list[Record] = []
        self.states: list[CacheState] = []

    def scope(self, operation: Operation, level: Level | None) -> Scope | None:
        """Record the opening of a scope."""
        self.opened.append((operation, level))
        return _RecordingScope(self)

    def record(self, record: Record) -> None:
        """Keep a finished operation."""
        self.recorded.append(record)

    def report(self, state: CacheState) -> None:
        """Keep a state."""
        self.states.append(state)

    def of(self, operation: Operation) -> list[Any]:
        """Return the finished operations of one kind: for `lookup` each a `LookupRecord`."""
        return [record for record in self.recorded if record.operation == operation]
