"""Tallies: plain numbers of events since the last scrape.

An L1 hit takes little longer than one command to Redis, and changing seven Prometheus metrics a
tenth of that. So a lookup is counted here, and moved to the metrics when they are scraped.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

from opentelemetry import trace
from prometheus_client import Counter, Histogram
from prometheus_client.samples import Exemplar, Sample

KEPT = 10_000
"""Most observations that wait to be put into buckets, as without scrapes."""


class Tally(Protocol):
    """Counter of something; not thread-safe by itself."""

    def flush(self) -> None:
        """Move the counts to the metric."""
        ...


class Example(NamedTuple):
    """Observation with a link to its trace.

    Attributes:
        value: The observed value.
        at: Time in seconds since the epoch.
        span: Context of its span.
    """

    value: float
    at: float
    span: trace.SpanContext


def _bare(samples: Iterable[Sample]) -> Iterable[Sample]:
    return tuple(sample for sample in samples if sample.name != "_created")


class BareCounter(Counter):
    """Counter without a series of when it was created: nothing reads them, every third was one."""

    def _child_samples(self) -> Iterable[Sample]:
        return _bare(super()._child_samples())


class BulkHistogram(Histogram):
    """Histogram that accepts many observations in one call, without `_created` series either."""

    def _child_samples(self) -> Iterable[Sample]:
        return _bare(super()._child_samples())

    def bounds(self) -> list[float]:
        """Return the upper bounds of the buckets."""
        return list(self._upper_bounds)

    def add(self, counts: list[int], total: float, examples: Mapping[int, Example]) -> None:
        """Add observations.

        Args:
            counts: Number of observations in each bucket.
            total: Sum of the values.
            examples: An observation for some of the buckets, by number.
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
    """Tally for a child of a counter or gauge.

    Args:
        child: The child.
        more: Takes over the counts too, as OpenTelemetry does.
        into: A total that these counts belong to.

    Attributes:
        amount: The count since the last flush.
    """

    __slots__ = ("_child", "_into", "_more", "amount")

    def __init__(
        self, child: Any, more: Callable[[float], None] | None = None, into: Sum | None = None
    ) -> None:
        self._child = child
        self._more = more
        self._into = into
        self.amount = 0.0

    def flush(self) -> None:
        """Move the counts to the metric."""
        if self.amount:
            amount, self.amount = self.amount, 0.0
            self._child.inc(amount)
            if self._more is not None:
                self._more(amount)
            if self._into is not None:
                self._into.amount += amount


class Distribution:
    """Tally for a child of a `BulkHistogram`.

    Args:
        child: The child.
        more: Takes over the values too, as OpenTelemetry does.
        into: Counts the observations.
    """

    __slots__ = ("_bounds", "_child", "_examples", "_into", "_more", "_values")

    def __init__(
        self,
        child: BulkHistogram,
        more: Callable[[list[float]], None] | None = None,
        into: Sum | None = None,
    ) -> None:
        self._child = child
        self._more = more
        self._into = into
        self._bounds = child.bounds()
        self._clear()

    def _clear(self) -> None:
        self._values: list[float] = []
        self._examples: dict[int, Example] = {}

    def observe(self, value: float, span: trace.SpanContext | None = None) -> None:
        """Record *value*, with the span to link to; a bucket keeps its last one."""
        values = self._values
        values.append(value)
        if span is not None:
            self._examples[bisect_left(self._bounds, value)] = Example(value, time.time(), span)
        if len(values) >= KEPT:
            self.flush()

    def flush(self) -> None:
        """Move the counts to the metric."""
        if self._values:
            values, examples = self._values, self._examples
            self._clear()
            if self._into is not None:
                self._into.amount += len(values)
            total = sum(values)
            if math.isnan(total):
                # a value that is no number would be in no bucket, and make the sum NaN for ever
                values = [value for value in values if math.isfinite(value)]
                total = sum(values)
            # all together: finding its bucket would take each value longer than the rest
            values.sort()
            below = [bisect_right(values, bound) for bound in self._bounds]
            counts = [after - before for before, after in pairwise([0, *below])]
            self._child.add(counts, total, examples)
            if self._more is not None:
                self._more(values)
