"""What happened since the last look, in plain numbers.

An L1 hit takes little longer than one command to Redis, and the changes of seven Prometheus metrics
a tenth of that. So a lookup is counted here, and the metrics follow when somebody looks.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

from opentelemetry import trace
from prometheus_client import Histogram
from prometheus_client.samples import Exemplar

KEPT = 10_000
"""Observations that wait to be put into buckets: with nobody who looks, they become no more."""


class Tally(Protocol):
    """Counts something; not thread-safe by itself."""

    def flush(self) -> None:
        """Move what was counted to the metric."""
        ...


class Example(NamedTuple):
    """An observation whose trace can be found.

    Attributes:
        value: That was observed.
        at: When, in seconds since the epoch.
        span: In which.
    """

    value: float
    at: float
    span: trace.SpanContext


class BulkHistogram(Histogram):
    """A histogram that takes many observations at once."""

    def bounds(self) -> list[float]:
        """Return the upper bounds of the buckets."""
        return list(self._upper_bounds)

    def add(self, counts: list[int], total: float, examples: Mapping[int, Example]) -> None:
        """Add observations.

        Args:
            counts: How many are in each bucket.
            total: Sum of their values.
            examples: One of them for some of the buckets, by number.
        """
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)
        self._sum.inc(total)
        for number, (value, at, span) in examples.items():
            ids = {
                "trace_id": trace.format_trace_id(span.trace_id),
                "span_id": trace.format_span_id(span.span_id),
            }
            self._buckets[number].set_exemplar(Exemplar(ids, value, at))


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

    __slots__ = ("_bounds", "_child", "_examples", "_values")

    def __init__(self, child: BulkHistogram) -> None:
        self._child = child
        self._bounds = child.bounds()
        self._clear()

    def _clear(self) -> None:
        self._values: list[float] = []
        self._examples: dict[int, Example] = {}

    def observe(self, value: float, span: trace.SpanContext | None = None) -> None:
        """Take note of *value*, and of the span it can be found by: a bucket's last one is kept."""
        values = self._values
        values.append(value)
        if span is not None:
            self._examples[bisect_left(self._bounds, value)] = Example(value, time.time(), span)
        if len(values) >= KEPT:
            self.flush()

    def flush(self) -> None:
        """Move what was counted to the metric."""
        if self._values:
            values, examples = self._values, self._examples
            self._clear()
            total = sum(values)
            if math.isnan(total):
                # What is no number would be in no bucket, and the sum none for ever.
                values = [value for value in values if math.isfinite(value)]
                total = sum(values)
            # All at once: to find its bucket took each value longer than the rest of counting it.
            values.sort()
            below = [bisect_right(values, bound) for bound in self._bounds]
            counts = [after - before for before, after in pairwise([0, *below])]
            self._child.add(counts, total, examples)
