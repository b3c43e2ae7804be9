"""What happened since the last look, in plain numbers.

An L1 hit takes little longer than one command to Redis, and the changes of seven Prometheus metrics
a tenth of that. So a lookup is counted here, and the metrics follow when somebody looks.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any, Protocol

from prometheus_client import Histogram


class Tally(Protocol):
    """Counts something; not thread-safe by itself."""

    def flush(self) -> None:
        """Move what was counted to the metric."""
        ...


class BulkHistogram(Histogram):
    """A histogram that takes many observations at once."""

    def bounds(self) -> list[float]:
        """Return the upper bounds of the buckets."""
        return list(self._upper_bounds)

    def add(self, counts: list[int], total: float) -> None:
        """Add observations.

        Args:
            counts: How many are in each bucket.
            total: Sum of their values.
        """
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)
        self._sum.inc(total)


class Sum:
    """Counts for a child of a counter or gauge.

    Attributes:
        amount: Counted since the last flush.
    """

    __slots__ = ("_child", "amount")

    def __init__(self, child: Any) -> None:
        self._child = child
        self.amount = 0.0

    def flush(self) -> None:
        """Move what was counted to the metric."""
        if self.amount:
            amount, self.amount = self.amount, 0.0
            self._child.inc(amount)


class Distribution:
    """Observes for a child of a `BulkHistogram`."""

    __slots__ = ("_bounds", "_child", "_counts", "_total")

    def __init__(self, child: BulkHistogram) -> None:
        self._child = child
        self._bounds = child.bounds()
        self._clear()

    def _clear(self) -> None:
        self._counts = [0] * len(self._bounds)
        self._total = 0.0

    def observe(self, value: float, exemplar: dict[str, str] | None = None) -> None:
        """Take note of *value*; one with an exemplar goes to the metric at once."""
        if exemplar is not None:
            self._child.observe(value, exemplar)
            return
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def flush(self) -> None:
        """Move what was counted to the metric."""
        if any(self._counts):
            counts, total = self._counts, self._total
            self._clear()
            self._child.add(counts, total)
