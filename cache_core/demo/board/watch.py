"""What the board knows of the cache: an instrument like any other."""

from __future__ import annotations

import time
from collections import OrderedDict, deque

from cache_core.demo.agent import quantile
from cache_core.instrumentation import CacheCall, CacheState, Operation, Scope
from cache_core.models import LEVELS, Level

_CALLS_KEPT = 2_048
_RATE_SECONDS = 10.0


class Watch:
    """An instrument that remembers what the last lookups did, and how long each tier took."""

    def __init__(self) -> None:
        self.state: CacheState | None = None
        """As last reported."""
        self._seconds: dict[Level, deque[float]] = {level: deque(maxlen=1_000) for level in LEVELS}
        self._calls: OrderedDict[str, CacheCall] = OrderedDict()
        self._times: deque[float] = deque(maxlen=10_000)
        self._started = time.monotonic()

    def scope(self, operation: Operation, level: Level | None) -> Scope | None:
        """Watching needs no scope."""
        return None

    def record(self, call: CacheCall) -> None:
        """Remember a lookup."""
        if call.operation != "lookup":
            return
        self._times.append(time.monotonic())
        for part in call.calls:
            if part.level is not None:
                self._seconds[part.level].append(part.seconds)
        self._calls[call.lookup_id] = call
        if len(self._calls) > _CALLS_KEPT:
            self._calls.popitem(last=False)

    def report(self, state: CacheState) -> None:
        """Remember how things are."""
        self.state = state

    def call(self, lookup_id: str) -> CacheCall | None:
        """Return the record of a recent lookup."""
        return self._calls.get(lookup_id)

    def seconds(self, level: Level) -> float | None:
        """Return the median latency of a tier; `None` while it was not asked."""
        return quantile(self._seconds[level], 0.5) if self._seconds[level] else None

    def lookups_per_second(self) -> float:
        """Return the rate over the last ten seconds."""
        now = time.monotonic()
        while self._times and self._times[0] < now - _RATE_SECONDS:
            self._times.popleft()
        return len(self._times) / max(1.0, min(_RATE_SECONDS, now - self._started))
