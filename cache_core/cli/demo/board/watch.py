"""Instrument that feeds the board."""

from __future__ import annotations

import time
from collections import OrderedDict, deque

from cache_core.cli.demo.agent import quantile
from cache_core.model.values import LEVELS, Level
from cache_core.observability.instruments import CacheState, Scope
from cache_core.observability.records import LookupRecord, Operation, Record

_LOOKUPS_KEPT = 2_048
_RATE_SECONDS = 10.0


class Watch:
    """Instrument that remembers recent lookups, and each tier's latencies."""

    def __init__(self) -> None:
        self.start_over()

    def start_over(self) -> None:
        """Forget all lookups so far."""
        self._seconds: dict[Level, deque[float]] = {level: deque(maxlen=1_000) for level in LEVELS}
        self._lookups: OrderedDict[str, LookupRecord] = OrderedDict()
        self._times: deque[float] = deque(maxlen=10_000)
        self._started = time.monotonic()

    def scope(self, operation: Operation, level: Level | None) -> Scope | None:
        """Return `None`: watching needs no scope."""
        return None

    def record(self, record: Record) -> None:
        """Remember a lookup."""
        if not isinstance(record, LookupRecord):
            return
        self._times.append(time.monotonic())
        for part in record.calls:
            self._seconds[part.level].append(part.seconds)
        self._lookups[record.lookup_id] = record
        if len(self._lookups) > _LOOKUPS_KEPT:
            self._lookups.popitem(last=False)

    def report(self, state: CacheState) -> None:
        """Ignore the state: the board asks the cache for it."""

    def lookup(self, lookup_id: str) -> LookupRecord | None:
        """Return the record of a recent lookup."""
        return self._lookups.get(lookup_id)

    def seconds(self, level: Level) -> float | None:
        """Return the median latency of a tier; `None` if it was not asked yet."""
        return quantile(self._seconds[level], 0.5) if self._seconds[level] else None

    def lookups_per_second(self) -> float:
        """Return the rate over the last ten seconds."""
        now = time.monotonic()
        while self._times and self._times[0] < now - _RATE_SECONDS:
            self._times.popleft()
        return len(self._times) / max(1.0, min(_RATE_SECONDS, now - self._started))
