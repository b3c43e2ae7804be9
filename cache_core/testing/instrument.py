"""An instrument that keeps what it was told."""

from __future__ import annotations

from cache_core.instrumentation import CacheCall, CacheState, Operation, Scope
from cache_core.models import Level


class _RecordingScope:
    detailed = True

    def __init__(self, owner: RecordingInstrument) -> None:
        self._owner = owner

    def close(self, call: CacheCall) -> None:
        self._owner.closed.append(call)


class RecordingInstrument:
    """An instrument that keeps what it was told.

    Attributes:
        opened: Operation and tier of every scope, in order.
        closed: The finished call of every scope.
        recorded: Every finished operation.
        states: Every reported state.
    """

    def __init__(self) -> None:
        self.opened: list[tuple[Operation, Level | None]] = []
        self.closed: list[CacheCall] = []
        self.recorded: list[CacheCall] = []
        self.states: list[CacheState] = []

    def scope(self, operation: Operation, level: Level | None) -> Scope | None:
        """Note that a scope was opened."""
        self.opened.append((operation, level))
        return _RecordingScope(self)

    def record(self, call: CacheCall) -> None:
        """Keep a finished operation."""
        self.recorded.append(call)

    def report(self, state: CacheState) -> None:
        """Keep a state."""
        self.states.append(state)

    def of(self, operation: Operation) -> list[CacheCall]:
        """Return the finished operations of one kind."""
        return [call for call in self.recorded if call.operation == operation]
