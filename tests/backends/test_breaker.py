"""The circuit breaker: when it opens, probes and closes, and what counts as a failure."""

from __future__ import annotations

import asyncio
import logging

import pytest

from cache_core.backends.breaker import Breaker, transitions
from cache_core.model.exceptions import BackendError


class Time:
    """Monotonic seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def fail(breaker: Breaker, error: BaseException) -> None:
    with pytest.raises(BackendError), breaker:
        raise error


def test_a_breaker_opens_probes_and_closes() -> None:
    """After its failures in a row it lets one call through per interval, until one succeeds."""
    now = Time()
    breaker = Breaker("b", failures=3, probe_seconds=0.25, clock=now)
    for _ in range(2):
        fail(breaker, ConnectionError("away"))
    assert breaker.state == "closed"
    fail(breaker, ConnectionError("away"))
    assert (breaker.state, breaker.last_error) == ("open", "ConnectionError: away")
    with pytest.raises(BackendError) as refused, breaker:
        pytest.fail("an open breaker lets nothing through")
    assert refused.value.reason == "breaker_open"
    now.now += 0.3
    assert breaker.state == "half_open"
    fail(breaker, ConnectionError("still"))
    assert breaker.state == "open"
    now.now += 0.3
    with breaker, pytest.raises(BackendError), breaker:
        pytest.fail("one probe at a time")
    assert breaker.state == "closed"


def test_a_success_ends_the_row() -> None:
    """Failures with a success between them never open it."""
    breaker = Breaker("b", failures=2)
    for _ in range(5):
        fail(breaker, OSError())
        with breaker:
            pass
    assert breaker.state == "closed"


def test_failures_are_logged_by_kind() -> None:
    """A timeout is told apart from another error, and the original's type is kept."""
    breaker = Breaker("b", failures=99)
    for error, reason in ((TimeoutError(), "timeout"), (OSError("x"), "backend_error")):
        with pytest.raises(BackendError) as told, breaker:
            raise error
        assert (told.value.reason, told.value.error_type) == (reason, type(error).__name__)


def test_cancellation_is_no_failure() -> None:
    """A cancelled call passes, counts nothing, and a cancelled probe lets the next one probe."""
    now = Time()
    breaker = Breaker("b", failures=1, probe_seconds=10, clock=now)
    with pytest.raises(asyncio.CancelledError), breaker:
        raise asyncio.CancelledError
    assert breaker.state == "closed"
    fail(breaker, OSError())
    now.now += 11
    with pytest.raises(asyncio.CancelledError), breaker:
        raise asyncio.CancelledError
    assert breaker.state == "half_open"


def test_an_answer_that_is_an_error_is_a_sign_of_life() -> None:
    """Exceptions that the backend itself answered fail the call, not the backend."""
    breaker = Breaker("b", failures=1, answered=(KeyError,))
    fail(breaker, KeyError("refused"))
    assert breaker.state == "closed"


def test_transitions_are_counted_and_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each opening and closing counts, a failed probe does not; a flapping one logs less and less."""
    caplog.set_level(logging.INFO, "glasscache")
    now = Time()
    monkeypatch.setattr("time.monotonic", now)
    breaker = Breaker("flapping", failures=2, probe_seconds=0.25, answered=(KeyError,), clock=now)
    assert transitions({"b": breaker}) == {("b", "open"): 0, ("b", "closed"): 0}
    for _ in range(2):
        fail(breaker, ConnectionError("to somebody's secret"))
    assert transitions({"b": breaker}) == {("b", "open"): 1, ("b", "closed"): 0}
    now.now += 0.3
    fail(breaker, OSError())
    now.now += 0.3
    fail(breaker, KeyError("refused"))
    assert breaker.transitions == {"open": 1, "closed": 1}
    opened, closed = caplog.records
    assert (opened.levelname, closed.levelname) == ("WARNING", "INFO")
    assert opened.getMessage() == (
        "flapping: breaker open after 2 failures in a row, the last a ConnectionError; "
        "probed every 0.25 s"
    )
    assert closed.getMessage() == "flapping: breaker closed, the backend answers again"
    caplog.clear()
    for _ in range(100):
        for _ in range(2):
            fail(breaker, OSError())
        now.now += 0.3
        with breaker:
            pass
    assert breaker.transitions == {"open": 101, "closed": 101}
    assert 0 < len(caplog.records) < 20
