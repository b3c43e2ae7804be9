"""The seam between the cache and whoever watches it: scopes, and finished records.

An operation opens a *scope*, so that spans nest around the work; when it ends, whatever happened,
it is *recorded* once, finished, with the calls to the tiers that it needed. Nothing here or in a
record carries a user id or a key; nor a text, unless `capture_message_content` is on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Protocol, runtime_checkable

from cache_core.breaker import State
from cache_core.exceptions import BackendError
from cache_core.logs import RateLimited
from cache_core.models import Level
from cache_core.tuning import Tuning

log = RateLimited(logging.getLogger("glasscache"))

Operation = Literal[
    "lookup", "get", "embed", "search", "compute", "refresh", "put", "invalidate", "verdict", "tune"
]


@dataclass(slots=True)
class CacheCall:
    """One finished call: an operation of the cache, or the part that one tier had in it.

    Attributes:
        operation: What was done.
        level: The tier, for `get` and for each tier's part of a `put`.
        outcome: `hit`, `partial`, `miss`, `error`, `bypass` for a lookup; `hit`, `miss`, `error`
            for a tier; `stored`, `queued`, `dropped`, `bypass` for a put; `ok`, `error`, or
            `joined` for a compute that another one spared; `stored`, `error`, `skipped` for a
            refresh; `ok` or `error` for the others; `cancelled` for all.
        reason: Why it was not a hit, from the closed sets in `models`; else empty.
        similarity: 0..1, of the nearest question, for L2.
        threshold: That L2 asked for.
        guard: That vetoed.
        age_seconds: Of the entry served.
        stale: Whether that is more than its TTL.
        ttl_seconds: In force for the tier; of a hit whose entry has its own, that one.
        saved_usd: What this hit saved.
        spent_usd: What an embedding cost.
        error_type: Name of the exception's type, after an error.
        other_intent: Intent of an answer that another user has.
        tuning_version: Of the tuning that was used.
        lookup_id: Of the lookup.
        count: How many things it did: entries of an invalidation.
        seconds: How long it took.
        calls: The calls to tiers that were needed.
        detailed: Whether what it consists of is surrounded, too: see `Scope`.
        message_text, response_text: Of a lookup, only while `capture_message_content` is on: the
            message, and the response that was served; without a hit the one that was nearest.
    """

    operation: Operation
    level: Level | None = None
    outcome: str = "ok"
    reason: str = ""
    similarity: float | None = None
    threshold: float | None = None
    guard: str = ""
    age_seconds: float | None = None
    stale: bool = False
    ttl_seconds: float | None = None
    saved_usd: float = 0.0
    spent_usd: float = 0.0
    error_type: str = ""
    other_intent: str = ""
    tuning_version: int = 0
    lookup_id: str = ""
    count: int = 0
    seconds: float = 0.0
    calls: Sequence[CacheCall] = field(default=())
    detailed: bool = False
    message_text: str = ""
    response_text: str = ""


@dataclass(frozen=True, slots=True)
class CacheState:
    """What is, not what happened: reported about every second.

    Attributes:
        backends: Name of each backend in use, and whether it works; False for one whose extra is
            missing; none once the cache is closed.
        breakers: State of each backend's breaker.
        entries: Stored entries per tier, where the store can tell.
        tuning: In force.
        pending_invalidations: Invalidations that some backend has not confirmed.
        dropped: What was lost since the start, per queue.
    """

    backends: Mapping[str, bool]
    breakers: Mapping[str, State]
    entries: Mapping[Level, int]
    tuning: Tuning
    pending_invalidations: int
    dropped: Mapping[str, int]


class Scope(Protocol):
    """What an instrument opened around a call.

    Attributes:
        detailed: Whether the tiers that are asked within should be surrounded, too.
    """

    detailed: bool

    def close(self, call: CacheCall) -> None:
        """End it. *call* is finished."""
        ...


class Instrument(Protocol):
    """Watches a cache. What it raises is logged and never reaches the cache's caller."""

    def record(self, call: CacheCall) -> None:
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


class Instruments:
    """The instruments of a cache, each guarded from the others and the cache from all.

    Args:
        instruments: Told in this order.
    """

    def __init__(self, instruments: Sequence[Instrument] = ()) -> None:
        self._instruments = tuple(instruments)
        self.scoping = tuple(
            item for item in self._instruments if isinstance(item, ScopingInstrument)
        )

    def part(self, call: CacheCall) -> Observed:
        """Surround *call*, a part of an operation: that one is recorded with it."""
        return Observed(self, call, recorded=False)

    def operation(self, operation: Operation) -> Observed:
        """Surround an operation and record it on the way out.

        It is recorded before the scopes are closed: what is counted can be told by its span.
        """
        return Observed(self, CacheCall(operation), recorded=True)

    def record(self, call: CacheCall) -> None:
        """Hand a finished operation to every instrument."""
        for instrument in self._instruments:
            try:
                instrument.record(call)
            except Exception as error:  # noqa: BLE001 - watching must not hurt
                self.broken(instrument, error)

    def report(self, state: CacheState) -> None:
        """Hand the state to every instrument."""
        for instrument in self._instruments:
            try:
                instrument.report(state)
            except Exception as error:  # noqa: BLE001 - watching must not hurt
                self.broken(instrument, error)

    @staticmethod
    def broken(part: object, error: Exception) -> None:
        """Say that an instrument raised."""
        log.limited(
            "instrument",
            "instrument %s is broken: %s: %s",
            type(part).__qualname__,
            type(error).__name__,
            error,
        )


class Observed:
    """A call with its scopes around it. A class, because a generator costs a lookup 5 us more."""

    __slots__ = ("_call", "_instruments", "_opened", "_recorded", "_started")

    def __init__(self, instruments: Instruments, call: CacheCall, *, recorded: bool) -> None:
        self._instruments = instruments
        self._call = call
        self._recorded = recorded
        self._opened: list[Scope] = []

    def __enter__(self) -> CacheCall:
        call = self._call
        for instrument in self._instruments.scoping:
            try:
                scope = instrument.scope(call.operation, call.level)
                if scope is not None:
                    self._opened.append(scope)
                    call.detailed = call.detailed or scope.detailed
            except Exception as error:  # noqa: BLE001 - watching must not hurt
                self._instruments.broken(instrument, error)
        self._started = time.perf_counter()
        return call

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        call = self._call
        call.seconds = time.perf_counter() - self._started
        if error is not None:
            call.outcome = "error" if isinstance(error, Exception) else "cancelled"
            if isinstance(error, BackendError):
                call.reason, call.error_type = error.reason, error.error_type
            else:
                call.error_type = type(error).__name__
        if self._recorded:
            self._instruments.record(call)
        for scope in reversed(self._opened):
            try:
                scope.close(call)
            except Exception as failure:  # noqa: BLE001 - watching must not hurt
                self._instruments.broken(scope, failure)
