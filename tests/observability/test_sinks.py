"""Sinks that fail: the answer reaches the caller, the others process it, and the loss is counted."""

from __future__ import annotations

import logging

import pytest

from cache_core.config.tuning import Tuning
from cache_core.model.values import LookupResult, Query, Where
from cache_core.observability.evidence import Evidence, Found, hand_out
from cache_core.observability.records import LookupRecord
from cache_core.observability.stats import CacheStats
from tests.support.caches import CacheFactory
from tests.support.patience import PATIENT

SECRET = "alpha-secret"


class FakeSink:
    """Sink that raises *failure*, or remembers what it was given."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.dropped = 0
        self.seen: list[Evidence] = []

    def note(self, evidence: Evidence) -> None:
        if self.failure is not None:
            raise self.failure
        self.seen.append(evidence)


def evidence() -> Evidence:
    query = Query(SECRET, "tag", "user", "shared", "context", "", "exact")
    result = LookupResult(None, None, None, "miss")
    return Evidence(LookupRecord("1", 0), query, Where(), Found(), result, Tuning())


def test_a_failing_sink_loses_the_lookup_alone(caplog: pytest.LogCaptureFixture) -> None:
    """Every lookup that a sink fails at counts as dropped, is logged once, and reaches the next."""
    failing, other = FakeSink(ValueError(SECRET)), FakeSink()
    with caplog.at_level(logging.WARNING, "glasscache"):
        for _ in range(3):
            hand_out(evidence(), [failing, other])
    assert (failing.dropped, other.dropped) == (3, 0)
    assert len(other.seen) == 3
    lines = [line for line in caplog.messages if "FakeSink" in line]
    assert lines == ["FakeSink: unexpected ValueError; please report it"]
    assert SECRET not in caplog.text


def test_failures_of_another_kind_are_logged_again(caplog: pytest.LogCaptureFixture) -> None:
    """Each type of error of a sink has a line of its own."""
    with caplog.at_level(logging.WARNING, "glasscache"):
        hand_out(evidence(), [FakeSink(KeyError(SECRET)), FakeSink(OSError(SECRET))])
    assert ["KeyError" in caplog.text, "OSError" in caplog.text] == [True, True]


async def test_a_lookup_survives_its_sinks(
    make_cache: CacheFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer is returned while a sink of the cache fails, which its state reports."""

    def fail(stats: CacheStats, given: Evidence) -> None:
        raise RuntimeError(given.query.text)

    cache = await make_cache(settings=PATIENT)
    await cache.put(SECRET, "ann", "answer")
    monkeypatch.setattr(CacheStats, "note", fail)
    assert (await cache.lookup(SECRET, "ann")).response == "answer"
    assert await cache.get_or_compute(SECRET, "ann", lambda: "made") == "answer"
    await cache.operator.flush_decisions()
    assert len(await cache.decisions()) == 2
    assert cache.state.dropped["churn"] == 2
