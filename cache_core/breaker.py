"""A breaker for one backend: after some failures in a row it only probes now and then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Literal, Self

from cache_core.exceptions import BackendError

State = Literal["closed", "open", "half_open"]


class Breaker:
    """Counts failures in a row; as a context manager it guards one call.

    A call that ends in an exception becomes a `BackendError`. Cancellation is neither a success
    nor a failure, and passes.

    Args:
        backend: Name used in metrics and logs: `redis`, `embedded`, `chroma`, `embedder`.
        failures: Failures in a row that open it.
        probe_seconds: While open, one call is let through this often.
        answered: Exceptions that show the backend to be alive: they fail the call, not the backend.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        backend: str,
        *,
        failures: int = 5,
        probe_seconds: float = 0.25,
        answered: tuple[type[Exception], ...] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.backend = backend
        self.last_error = ""
        self._limit = failures
        self._probe_seconds = probe_seconds
        self._answered = answered
        self._clock = clock
        self._failures = 0
        self._next_probe = 0.0
        self.answers = 0
        """How many guarded calls succeeded."""
        self.faults = 0
        """How many failures were counted."""

    @property
    def state(self) -> State:
        """`open` lets nothing through; `half_open` lets the next call probe."""
        if self._failures < self._limit:
            return "closed"
        return "open" if self._clock() < self._next_probe else "half_open"

    def __enter__(self) -> Self:
        if self._failures >= self._limit:
            if self._clock() < self._next_probe:
                raise self._named(BackendError("breaker_open"))
            self._next_probe = self._clock() + self._probe_seconds
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self._failures = 0
            self.answers += 1
            return
        if not isinstance(error, Exception) or isinstance(error, BackendError):
            if isinstance(error, asyncio.CancelledError):
                self._next_probe = 0.0
            if isinstance(error, BackendError):
                self._named(error)
            return
        if isinstance(error, self._answered):
            self._failures = 0
        else:
            self.fail(error)
        reason: Literal["timeout", "backend_error"] = (
            "timeout" if isinstance(error, TimeoutError) else "backend_error"
        )
        raise self._named(BackendError(reason, type(error).__name__, str(error))) from error

    def _named(self, error: BackendError) -> BackendError:
        error.backend = error.backend or self.backend
        return error

    def fail(self, error: Exception) -> None:
        """Count a failure that happened outside a guarded call."""
        self._failures += 1
        self.faults += 1
        self.last_error = f"{type(error).__name__}: {error}"
        if self._failures >= self._limit:
            self._next_probe = self._clock() + self._probe_seconds


class Queueing:
    """Tells a queue from a backend that does not answer, around one call within its breaker.

    Who gave up while others were answered stood in a queue: `overloaded`, which is no failure of
    the backend. While nobody is answered the backend may be away; but what fails at the same time
    fails once: two hundred that were asked together are not two hundred failures in a row.

    Args:
        breaker: Of the backend.
    """

    __slots__ = ("_answers", "_breaker", "_faults")

    def __init__(self, breaker: Breaker) -> None:
        self._breaker = breaker

    def __enter__(self) -> Self:
        self._answers, self._faults = self._breaker.answers, self._breaker.faults
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not isinstance(error, TimeoutError):
            return
        if self._breaker.answers != self._answers:
            raise BackendError("overloaded", "QueueTimeout") from error
        if self._breaker.faults != self._faults:
            raise BackendError("timeout", "TimeoutError") from error
