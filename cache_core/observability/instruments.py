"""Seam between the cache and its instruments: scopes and finished records.

An operation opens a *scope*, so that spans nest around the work; when it ends, whatever happened,
it is *recorded* once, finished: see `records`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Protocol, TypeVar, runtime_checkable

from cache_core.backends.breaker import State
from cache_core.config.tuning import Tuning
from cache_core.model.exceptions import BackendError
from cache_core.model.logs import RateLimited, place_of
from cache_core.model.values import Level
from cache_core.observability.records import (
    ComputeRecord,
    Operation,
    Record,
    ScopedRecord,
    TierRecord,
)

log = RateLimited(logging.getLogger("glasscache"))

Own = TypeVar("Own", bound=ScopedRecord)
Part = TypeVar("Part", bound=ScopedRecord | TierRecord)


@dataclass(frozen=True, slots=True)
class CacheState:
    """State of a cache, as opposed to events; reported about every second.

    Attributes:
        backends: Name of each backend in use, and whether it works; False for one whose extra is
            missing; none once the cache is closed.
        breakers: State of each backend's breaker.
        transitions: How often the breaker of a backend came to be `open` or `closed` since it was
            made, by backend and state.
        entries: Stored entries per tier, where the store reports them.
        tuning: In force.
        pending_invalidations: Invalidations that some backend has not confirmed.
        dropped: What was lost since the start, per queue.
        servers: Run ids of the Redis servers in use, the last known ones; empty without Redis.
        loop_lag: Longest delay of the cache's event loop since the last report, in seconds.
        loading: Backends that do not work yet, and will without intervention: an embedding model
            that loads, for its first five minutes.
    """

    backends: Mapping[str, bool]
    breakers: Mapping[str, State]
    transitions: Mapping[tuple[str, State], int]
    entries: Mapping[Level, int]
    tuning: Tuning
    pending_invalidations: int
    dropped: Mapping[str, int]
    servers: Sequence[str] = ()
    loop_lag: float = 0.0
    loading: Sequence[str] = ()


class Scope(Protocol):
    """Scope that an instrument opened around a call.

    Attributes:
        detailed: Whether the tiers that are asked within should be surrounded, too.
    """

    detailed: bool

    def close(self, record: ScopedRecord | TierRecord) -> None:
        """End it. *record* is finished."""
        ...


class Instrument(Protocol):
    """Watches a cache. What it raises is logged and never reaches the cache's caller."""

    def record(self, record: Record) -> None:
        """Take note of a finished operation; not called for the `get` of a single tier."""
        ...

    def report(self, state: CacheState) -> None:
        """Take note of how things are."""
        ...


@runtime_checkable
class ScopingInstrument(Instrument, Protocol):
    """An instrument that surrounds calls, as a span does."""

    def scope(self, operation: Operation, level: Level | None) -> Scope | None:
        """Open what should surround a call, in the caller's context; `None` for nothing."""
        ...


@runtime_checkable
class ClosingInstrument(Instrument, Protocol):
    """An instrument that gives something back when its cache is closed."""

    def close(self) -> None:
        """Give it back; it is notified of nothing any more."""
        ...


class Instruments:
    """The instruments of a cache, each guarded from the others and the cache from all.

    Args:
        instruments: Notified in this order.
    """

    def __init__(self, instruments: Sequence[Instrument] = ()) -> None:
        self._instruments = tuple(instruments)
        self.scoping = tuple(
            item for item in self._instruments if isinstance(item, ScopingInstrument)
        )

    def part(self, record: TierRecord) -> Observed[TierRecord]:
        """Surround one tier's part of a lookup: that one is recorded with it."""
        return Observed(self, record, record.level, None)

    def operation(self, record: Own) -> Observed[Own]:
        """Surround an operation, and hand *record* to every instrument on the way out.

        It is recorded before the scopes are closed: what is counted can be found by its span.
        """
        observed = Observed(self, record, None, record)
        if isinstance(record, ComputeRecord):
            record.scopes = observed.opened
        return observed

    def record(self, record: Record) -> None:
        """Hand a finished operation to every instrument."""
        for instrument in self._instruments:
            try:
                instrument.record(record)
            except Exception as error:  # noqa: BLE001 - watching must not hurt
                self.broken(instrument, error)

    def report(self, state: CacheState) -> None:
        """Hand the state to every instrument."""
        for instrument in self._instruments:
            try:
                instrument.report(state)
            except Exception as error:  # noqa: BLE001 - watching must not hurt
                self.broken(instrument, error)

    def close(self) -> None:
        """Let those that give something back do so."""
        for instrument in self._instruments:
            if isinstance(instrument, ClosingInstrument):
                try:
                    instrument.close()
                except Exception as error:  # noqa: BLE001 - watching must not hurt
                    self.broken(instrument, error)

    @staticmethod
    def broken(part: object, error: Exception) -> None:
        """Say that an instrument raised."""
        log.limited(
            "instrument",
            "instrument %s is broken: %s",
            type(part).__qualname__,
            place_of(error),
        )


class Observed(Generic[Part]):
    """A call with its scopes around it. A class, because a generator costs a lookup 5 us more."""

    __slots__ = ("_instruments", "_level", "_record", "_recorded", "_started", "opened")

    def __init__(
        self, instruments: Instruments, record: Part, level: Level | None, recorded: Record | None
    ) -> None:
        self._instruments = instruments
        self._record = record
        self._level = level
        self._recorded = recorded
        self.opened: list[Scope] = []

    def __enter__(self) -> Part:
        record = self._record
        for instrument in self._instruments.scoping:
            try:
                scope = instrument.scope(record.operation, self._level)
                if scope is not None:
                    self.opened.append(scope)
                    record.detailed = record.detailed or scope.detailed
            except Exception as error:  # noqa: BLE001 - watching must not hurt
                self._instruments.broken(instrument, error)
        self._started = time.perf_counter()
        return record

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        record = self._record
        record.seconds = time.perf_counter() - self._started
        if error is not None:
            record.outcome = "error" if isinstance(error, Exception) else "cancelled"
            if isinstance(error, BackendError):
                record.reason, record.error_type = error.reason, error.error_type
            else:
                record.error_type = type(error).__name__
        if self._recorded is not None:
            self._instruments.record(self._recorded)
        for scope in reversed(self.opened):
            try:
                scope.close(record)
            except Exception as failure:  # noqa: BLE001 - watching must not hurt
                self._instruments.broken(scope, failure)
