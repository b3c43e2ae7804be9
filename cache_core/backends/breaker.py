"""Circuit breaker of one backend: after several failures in a row it only probes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Literal, Self

from cache_core.model.exceptions import BackendError
from cache_core.model.logs import RateLimited

log = RateLimited(logging.getLogger("glasscache"), longest=60.0)

State = Literal["closed", "open", "half_open"]


class Breaker:
    """Counts failures in a row; as a context manager it guards one call.

    A call that ends in an exception becomes a `BackendError`. Cancellation is neither a success
    nor a failure, and passes.

    Args:
        backend: Name used in metrics and logs: `redis`, `embedded`, `chroma`, `vectors` (those in
            Redis), `embedder`.
        failures: Failures in a row that open it.
        probe_seconds: While open, one call is let through this often.
        answered: Exceptions that prove the backend available: they fail the call only.
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
        self.where = ""
        """The setting to change to reach the backend, such as `REDIS_URL`."""
        self.last_error = ""
        self.last: BackendError | None = None
        """The last failure, until a call succeeds."""
        self._limit = failures
        self._probe_seconds = probe_seconds
        self._answered = answered
        self._clock = clock
        self._failures = 0
        self._next_probe = 0.0
        self.answers = 0
        """Number of guarded calls that succeeded."""
        self.faults = 0
        """Number of failures counted."""
        self.transitions: Counter[State] = Counter({"open": 0, "closed": 0})
        """Times that it opened and closed; a failed probe is neither."""

    @property
    def state(self) -> State:
        """`open` lets nothing through; `half_open` lets the next call probe."""
        if self._failures < self._limit:
            return "closed"
        return "open" if self._clock() < self._next_probe else "half_open"

    def __enter__(self) -> Self:
        if self._failures >= self._limit:
            if self._clock() < self._next_probe:
                raise self.named(BackendError("breaker_open"))
            self._next_probe = self._clock() + self._probe_seconds
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            if self._failures:
                self._close()
            self.answers += 1
            self.last = None
            return
        if not isinstance(error, Exception) or isinstance(error, BackendError):
            if isinstance(error, asyncio.CancelledError):
                self._next_probe = 0.0
            if isinstance(error, BackendError):
                self.named(error)
            return
        if isinstance(error, self._answered):
            self._close()
        else:
            self.fail(error)
        reason: Literal["timeout", "backend_error"] = (
            "timeout" if isinstance(error, TimeoutError) else "backend_error"
        )
        found = self.named(BackendError(reason, type(error).__name__, str(error)))
        # A copy, because the raised one keeps alive the frames that it passes.
        self.last = found.copy()
        raise found from error

    def named(self, error: BackendError) -> BackendError:
        """Return *error* with the name of this backend, and its setting."""
        error.backend = error.backend or self.backend
        error.where = error.where or self.where
        return error

    def again(self) -> BackendError:
        """Return the last failure, for a call that cannot be made before it is mended."""
        if self.last is not None:
            return self.last.copy()
        return self.named(BackendError("backend_error", "NotConnected", "not connected yet"))

    def fail(self, error: Exception) -> None:
        """Count a failure that happened outside a guarded call."""
        self._failures += 1
        self.faults += 1
        self.last_error = f"{type(error).__name__}: {error}"
        if self._failures >= self._limit:
            self._next_probe = self._clock() + self._probe_seconds
        if self._failures == self._limit:
            self.transitions["open"] += 1
            log.limited(
                f"{self.backend} open",
                "%s: breaker open after %d failures in a row, the last a %s; probed every %g s",
                self.backend,
                self._limit,
                type(error).__name__,
                self._probe_seconds,
            )

    def _close(self) -> None:
        if self._failures >= self._limit:
            self.transitions["closed"] += 1
            log.limited(
                f"{self.backend} closed",
                "%s: breaker closed, the backend answers again",
                self.backend,
                level=logging.INFO,
            )
        self._failures = 0


def transitions(breakers: Mapping[str, Breaker]) -> dict[tuple[str, State], int]:
    """Return how often each of *breakers*, by name, changed to a state."""
    return {
        (name, state): count
        for name, breaker in breakers.items()
        for state, count in breaker.transitions.items()
    }


class Queueing:
    """Distinguishes overload from outage, around one call within its breaker.

    A timeout while other calls succeed is `overloaded`, which is no failure of the backend. While
    none succeeds the backend may be unavailable, but concurrent timeouts count as one failure: two
    hundred concurrent calls are not two hundred failures in a row.

    Args:
        breaker: The backend's breaker.
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
