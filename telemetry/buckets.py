"""Buckets of histograms: their upper bounds."""

from __future__ import annotations

from collections.abc import Sequence

from cache_core.observability.sums import LATENCIES

from . import names

SIMILARITIES = (0.5, 0.6, 0.7, 0.75, 0.8, 0.84, 0.87, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99, 1.0)  # fmt: skip # noqa: E501
_AGES = (1, 10, 60, 300, 900, 3_600, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800)
_CALLS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0)
_BUCKETS = {
    names.COMPUTE_SECONDS.name: _CALLS,
    names.VERIFICATION_SECONDS.name: _CALLS,
    names.APPROVAL_SECONDS.name: _CALLS,
    names.SIMILARITY.name: SIMILARITIES,
    names.ENTRY_AGE.name: _AGES,
}


def bounds_of(metric: names.Metric) -> Sequence[float]:
    """Return the upper bounds of a histogram's buckets, in its unit."""
    return _BUCKETS.get(metric.name, LATENCIES)
