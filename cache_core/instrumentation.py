"""The seam between the cache and whoever watches it: scopes, and finished records.

An operation opens a *scope*, so that spans nest around the work; when it ends, whatever happened,
it is *recorded* once, finished, with the calls to the tiers that it needed. Nothing here or in a
record carries a message, a user id or a key.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol

from cache_core.breaker import State
from cache_core.exceptions import BackendError
from cache_core.logs import RateLimited
from cache_core.models import Level
from cache_core.tuning import Tuning

log = RateLimited(logging.getLogger("glasscache"))

Operation = Literal["lookup", "get", "embed", "search", "compute", "put", "invalidate"]


@dataclass(slots=True)
class CacheCall:
    """One finished call: an operation of the cache, or the part that one tier had in it.

    Attributes:
        operation: What was done.
        level: The tier, for `get` and for each tier's part of a `put`.
        outcome: `hit`, `partial`, `miss`, `error`, `bypass` for a lookup; `hit`, `miss`, `error`
            for a tier; `stored`, `dropped`, `bypass` for a put; `ok` or `error` for the others;
            `cancelled` for all.
        reason: Why it was not a hit, from the closed sets in `models`; else empty.
        similarity: 0..1, of the nearest question, for L2.
        threshold: That L2 asked for.
        guard: That vetoed.
        age_seconds: Of the entry served.
        ttl_seconds: In force for the tier.
        saved_usd: What this hit saved.
        spent_usd: What an embedding cost.
        error_type: Name of the exception's type, after an error.
        other_intent: Intent of an answer that another user has.
        tuning_version: Of the tuning that was used.
        lookup_id: Of the lookup.
        count: How many things it did: entries of an invalidation.
        start: `time.time_ns()` when it began.
        seconds: How long it took.
        calls: The calls to tiers that were needed.
    """

    operation: Operation
    level: Level | None = None
    outcome: str = "ok"
    reason: str = ""
    similarity: float | None = None
    threshold: float | None = None
    guard: str = ""
    age_seconds: float | None = None
    ttl_seconds: float | None = None
    saved_usd: float = 0.0
    spent_usd: float = 0.0
    error_type: str = ""
    other_intent: str = ""
    tuning_version: int = 0
    lookup_id: str = ""
    count: int = 0
    start: int = 0
    seconds: float = 0.0
    calls: Sequence[CacheCall] = field(default=())


@dataclass(frozen=True, slots=True)
class CacheState:
    """What is, not what happened: reported about every second.

    Attributes:
        backends: Name of each backend in use, and whether it works; False for one whose extra is
            missing.
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
    """What an instrument opened around a call."""

    def close(self, call: CacheCall) -> None:
        """End it. *call* is finished."""
        ...


class Instrument(Protocol):
    """Watches a cache. What it raises is logged and never reaches the cache's caller."""

    def scope(self, operation: Operation, level: Level | None) -> Scope | None:
        """Open what should surround a call, in the caller's context; `None` for nothing."""
        ...

    def record(self, call: CacheCall) -> None:
        """Take note of a finished operation; not called for the `get` of a single tier."""
        ...

    def report(self, state: CacheState) -> None:
        """Take note of how things are."""
        ...


class Instruments:
    """The instruments of a cache, each guarded from the others and the cache from all.

    Args:
        instruments: Told in this order.
    """

    def __init__(self, instruments: Sequence[Instrument] = ()) -> None:
        self._instruments = tuple(instruments)

    @contextmanager
    def scope(
        self, operation: Operation, level: Level | None = None, *, recorded: bool = False
    ) -> Iterator[CacheCall]:
        """Surround a call; yields the record to be filled in, which is finished on the way out.

        With *recorded* it is handed to every instrument then, before the scopes are closed: what
        is counted can be told by its span.
        """
        call = CacheCall(operation, level, start=time.time_ns())
        opened: list[Scope] = []
        for instrument in self._instruments:
            try:
                scope = instrument.scope(operation, level)
            except Exception as error:  # noqa: BLE001 - watching must not hurt
                self._broken(instrument, error)
            else:
                if scope is not None:
                    opened.append(scope)
        started = time.perf_counter()
        try:
            yield call
        except BaseException as error:
            call.outcome = "error" if isinstance(error, Exception) else "cancelled"
            if isinstance(error, BackendError):
                call.reason, call.error_type = error.reason, error.error_type
            else:
                call.error_type = type(error).__name__
            raise
        finally:
            call.seconds = time.perf_counter() - started
            if recorded:
                self.record(call)
            for scope in reversed(opened):
                try:
                    scope.close(call)
                except Exception as error:  # noqa: BLE001 - watching must not hurt
                    self._broken(scope, error)

    def record(self, call: CacheCall) -> None:
        """Hand a finished operation to every instrument."""
        for instrument in self._instruments:
            try:
                instrument.record(call)
            except Exception as error:  # noqa: BLE001 - watching must not hurt
                self._broken(instrument, error)

    def operation(self, operation: Operation) -> AbstractContextManager[CacheCall]:
        """Surround an operation and record it on the way out."""
        return self.scope(operation, recorded=True)

    def report(self, state: CacheState) -> None:
        """Hand the state to every instrument."""
        for instrument in self._instruments:
            try:
                instrument.report(state)
            except Exception as error:  # noqa: BLE001 - watching must not hurt
                self._broken(instrument, error)

    @staticmethod
    def _broken(part: object, error: Exception) -> None:
        log.limited(
            "instrument",
            "instrument %s is broken: %s: %s",
            type(part).__qualname__,
            type(error).__name__,
            error,
        )
