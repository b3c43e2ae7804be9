"""Tallies: what the metrics take over is what they would have observed themselves."""

from __future__ import annotations

import math
import random

import pytest
from opentelemetry.trace import SpanContext
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from telemetry.tallies import KEPT, BulkHistogram, Distribution, Sum

BOUNDS = (0.001, 0.01, 0.1, 1.0)


def shown(registry: CollectorRegistry) -> list[str]:
    """Return what is exposed, without the times at which metrics were made."""
    lines = generate_latest(registry).decode().splitlines()
    return [line for line in lines if "_created" not in line]


def test_a_distribution_is_what_a_histogram_would_have_observed() -> None:
    """Values in, on and beyond the bounds end in the same buckets, over several flushes."""
    one, other = CollectorRegistry(), CollectorRegistry()
    plain = Histogram("seconds", "s", ["of"], registry=one, buckets=BOUNDS).labels("a")
    bulk = BulkHistogram("seconds", "s", ["of"], registry=other, buckets=BOUNDS).labels("a")
    tally = Distribution(bulk)
    values = [*BOUNDS, 0.0, 5.0, *(random.Random(7).choice((0.25, 0.5, 2.0)) for _ in range(200))]
    for number, value in enumerate(values):
        plain.observe(value)
        tally.observe(value)
        if number % 50 == 0:
            tally.flush()
    assert shown(one) != shown(other), "the last ones still wait"
    tally.flush()
    tally.flush()
    assert shown(one) == shown(other)


def test_what_is_no_number_takes_no_other_observation_with_it() -> None:
    """A NaN is ignored; the sum stays a number, and every other value is counted."""
    registry = CollectorRegistry()
    tally = Distribution(BulkHistogram("seconds", "s", registry=registry, buckets=BOUNDS))
    for value in (0.05, math.nan, 0.5):
        tally.observe(value)
    tally.flush()
    assert registry.get_sample_value("seconds_count") == 2
    assert registry.get_sample_value("seconds_sum") == 0.55


def test_observations_that_nobody_looks_at_do_not_pile_up() -> None:
    """Without a flush the metric takes them over all the same, now and then."""
    registry = CollectorRegistry()
    tally = Distribution(BulkHistogram("seconds", "s", registry=registry, buckets=BOUNDS))
    for _ in range(2 * KEPT + 1):
        tally.observe(0.05)
    assert registry.get_sample_value("seconds_count") == 2 * KEPT
    tally.flush()
    assert registry.get_sample_value("seconds_count") == 2 * KEPT + 1


def test_a_sampled_observation_keeps_its_exemplar() -> None:
    """Each bucket has the last one with a trace, with its value and trace, and counts it once."""
    registry = CollectorRegistry()
    child = BulkHistogram("seconds", "s", registry=registry, buckets=BOUNDS)
    tally = Distribution(child)
    first, last = (SpanContext(number, 2, is_remote=False) for number in (0x1E, 0x1F))
    tally.observe(0.05, first)
    tally.observe(0.06, last)
    tally.observe(0.07)
    tally.flush()
    (family,) = registry.collect()
    bucket = next(item for item in family.samples if item.labels.get("le") == "0.1")
    assert bucket.value == 3
    assert bucket.exemplar is not None
    assert bucket.exemplar.value == 0.06
    assert bucket.exemplar.labels == {"trace_id": f"{0x1F:032x}", "span_id": f"{2:016x}"}
    tally.observe(0.05)
    tally.flush()
    (family,) = registry.collect()
    kept = next(item for item in family.samples if item.labels.get("le") == "0.1")
    assert kept.exemplar == bucket.exemplar, "nobody has a newer one"


@pytest.mark.parametrize("kind", [Counter, Gauge])
def test_a_sum_is_moved_once(kind: type[Counter | Gauge]) -> None:
    """A flushed tally is not flushed again."""
    registry = CollectorRegistry()
    tally = Sum(kind("things", "t", registry=registry))
    tally.amount += 2
    tally.flush()
    tally.flush()
    tally.amount += 1
    tally.flush()
    assert next(item.value for family in registry.collect() for item in family.samples) == 3
