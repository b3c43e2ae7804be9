"""Single flight: concurrent callers with the same key share one computation."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from functools import partial
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")


class _Flight(Generic[Result]):
    """A running computation.

    Attributes:
        task: Task that computes.
        waiting: Number of callers that wait for it.
        joined: Whether more than one caller ever did.
        needs: Flights of any cache that its own computation waits for.
        note: What its computation left for those that wait: see `leave_note`.
    """

    __slots__ = ("joined", "needs", "note", "task", "waiting")

    task: asyncio.Task[Result]

    def __init__(self) -> None:
        self.waiting = 0
        self.joined = False
        self.needs: list[_Flight[Any]] = []
        self.note: object = None

    def depends_on(self, other: _Flight[Any]) -> bool:
        """Return whether this one cannot end before *other* does."""
        seen: set[int] = set()
        pending: list[_Flight[Any]] = [self]
        while pending:
            flight = pending.pop()
            if flight is other:
                return True
            if id(flight) not in seen:
                seen.add(id(flight))
                pending.extend(flight.needs)
        return False


_within: ContextVar[_Flight[Any] | None] = ContextVar("glasscache_within", default=None)
"""Flight to whose computation this task belongs."""


def leave_note(note: object) -> None:
    """Leave *note* for the callers that wait for the computation that this task belongs to."""
    within = _within.get()
    if within is not None:
        within.note = note


_DEEPEST = 50
"""Maximal depth of circular computations: a few end by themselves, more never do."""

_depth: ContextVar[int] = ContextVar("glasscache_depth", default=0)


@contextlib.contextmanager
def in_a_circle() -> Iterator[None]:
    """Count a computation within one that waits for it.

    Raises:
        RecursionError: If they are nested too deeply: each might take a thread.
    """
    depth = _depth.get()
    if depth >= _DEEPEST:
        raise RecursionError("the computations of some answers ask for each other endlessly")
    token = _depth.set(depth + 1)
    try:
        yield
    finally:
        _depth.reset(token)


class SingleFlight(Generic[Result]):
    """Runs one task per key; callers that come while it runs wait for its result.

    The task belongs to no caller: cancelling one leaves the others their result, and cancelling the
    last one cancels the task.
    """

    def __init__(self) -> None:
        self._flights: dict[str, _Flight[Result]] = {}
        self._numbers = itertools.count(1)
        self._arriving: dict[int, None] = {}
        # Oldest first: number of its end, in the order of arrivals, its result, and itself.
        self._landed: dict[str, tuple[int, Result, _Flight[Result]]] = {}

    @contextlib.contextmanager
    def arrival(self) -> Iterator[int]:
        """Announce a caller that may `run` something, but does not know its key yet.

        It also gets the results of tasks that end before it does: of ten thousand concurrent
        callers some are so late that a short task is over.
        """
        number = next(self._numbers)
        self._arriving[number] = None
        try:
            yield number
        finally:
            self._leave(number)

    def _leave(self, number: int) -> None:
        self._arriving.pop(number, None)
        oldest = next(iter(self._arriving), None)
        while self._landed:
            key, (ended, *_) = next(iter(self._landed.items()))
            if oldest is not None and ended > oldest:
                break
            del self._landed[key]

    def inside(self, key: str) -> bool:
        """Return whether the task of *key* waits for the caller: waiting for it would never end.

        The caller then belongs to that computation, or to another one that it needs.
        """
        flight, within = self._flights.get(key), _within.get()
        return flight is not None and within is not None and flight.depends_on(within)

    def joining(self, key: str, arrival: int | None = None) -> Callable[[], object] | None:
        """Return how to read the note of the task that `run` would wait for; `None` without one."""
        landed = self._landed.get(key)
        if arrival is not None and landed is not None and landed[0] > arrival:
            flight: _Flight[Result] | None = landed[2]
        else:
            flight = self._flights.get(key)
        return None if flight is None else lambda: flight.note

    async def run(
        self, key: str, work: Callable[[], Awaitable[Result]], arrival: int | None = None
    ) -> tuple[Result, bool]:
        """Return the result of *work* and whether another caller had started it.

        Args:
            key: Key of the computation.
            work: The computation, run for the first caller.
            arrival: The caller's number from `arrival`.

        Raises:
            Exception: The error of *work*; each of several callers gets its own copy.
        """
        if arrival is not None:
            landed = self._landed.get(key)
            self._leave(arrival)
            if landed is not None and landed[0] > arrival:
                return landed[1], True
        flight = self._flights.get(key)
        joined = flight is not None
        if flight is None:
            flight = self._start(key, work)
        flight.waiting += 1
        flight.joined = flight.joined or joined
        within = _within.get()
        if within is not None:
            within.needs.append(flight)
        try:
            return await asyncio.shield(flight.task), joined
        except Exception as error:
            if not flight.joined:
                raise
            failure = own_copy(error)
        finally:
            if within is not None:
                within.needs.remove(flight)
            flight.waiting -= 1
            if flight.waiting == 0 and not flight.task.done():
                self._land(key, flight)
                flight.task.cancel()
        # Not inside the handler, which would make the shared exception its context.
        raise failure

    def _start(self, key: str, work: Callable[[], Awaitable[Result]]) -> _Flight[Result]:
        flight: _Flight[Result] = _Flight()
        flight.task = asyncio.ensure_future(_as_coroutine(work, flight))
        self._flights[key] = flight
        flight.task.add_done_callback(partial(self._end, key, flight))
        return flight

    def _end(self, key: str, flight: _Flight[Result], task: asyncio.Task[Result]) -> None:
        self._land(key, flight)
        if self._arriving and not task.cancelled() and task.exception() is None:
            self._landed.pop(key, None)
            self._landed[key] = (next(self._numbers), task.result(), flight)

    def _land(self, key: str, flight: _Flight[Result]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]


async def _as_coroutine(work: Callable[[], Awaitable[Result]], flight: _Flight[Result]) -> Result:
    _within.set(flight)
    return await work()


def own_copy(error: Exception) -> Exception:
    """Return another exception of the same type, arguments, attributes and traceback.

    Notes and frames that one caller adds are not on the copies of the others. No constructor of
    *error*'s own class is called, since its arguments are unknown. An exception that cannot be
    copied without one is returned itself.
    """
    kind = type(error)
    builtin: Any = next(base for base in kind.__mro__ if not base.__flags__ & _HEAP_TYPE)
    try:
        copied: Exception = builtin.__new__(kind, *error.args)
        builtin.__init__(copied, *error.args)
        for base in kind.__mro__:
            for name, value in vars(base).items():
                if inspect.ismemberdescriptor(value) and getattr(error, name, None) is not None:
                    with contextlib.suppress(AttributeError, TypeError):
                        setattr(copied, name, getattr(error, name))
        vars(copied).update(vars(error))
        if hasattr(error, "__notes__"):
            copied.__notes__ = list(error.__notes__)
        copied.__cause__, copied.__context__ = error.__cause__, error.__context__
        copied.__suppress_context__ = error.__suppress_context__
        return copied.with_traceback(error.__traceback__)
    except Exception:  # noqa: BLE001 - a shared exception is better than another one
        return error


_HEAP_TYPE = 1 << 9
"""Flag of a class that Python code defined: see `Py_TPFLAGS_HEAPTYPE`."""
