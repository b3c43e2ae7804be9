"""Thread with an event loop, for caches whose callers' loops come and go.

Connections, locks and background duties belong to the event loop in which a cache was opened. With
a loop for every request, or several loops in threads, it is opened once, in the loop of this
thread, and the callers' loops only wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar
from weakref import WeakSet

from cache_core.model.values import Answer, LookupResult
from cache_core.operations.compute.calling import Compute, LostError, computed

Result = TypeVar("Result")

_LOOK_SECONDS = 0.25
"""Seconds between checks that a caller's loop, which computes, still runs."""

_EXIT_SECONDS = 2.0
"""Time limit for closing the guests when the process ends."""


class Guest(Protocol):
    """Object that was opened in the host's loop."""

    async def close(self) -> None:
        """Write pending data."""
        ...


class Host:
    """The thread and its loop.

    Attributes:
        loop: The loop; runs until the process ends.
        guests: Objects to close then.
    """

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.guests: WeakSet[Guest] = WeakSet()
        self._thread = threading.Thread(target=self._run, name="glasscache-loop", daemon=True)
        self._thread.start()
        # Runs before thread pools are shut down; `atexit` would run after.
        register = getattr(threading, "_register_atexit", None)
        if register is not None:
            with contextlib.suppress(RuntimeError):  # the process is ending already
                register(self._exit)

    def is_here(self) -> bool:
        """Return whether the caller is in the host's thread."""
        return threading.current_thread() is self._thread

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def _exit(self) -> None:
        if _hosts[:1] == [self]:
            with contextlib.suppress(Exception):
                asyncio.run_coroutine_threadsafe(self._close(), self.loop).result(_EXIT_SECONDS)

    async def _close(self) -> None:
        closing = [guest.close() for guest in list(self.guests)]
        await asyncio.gather(*closing, return_exceptions=True)


_hosts: list[Host] = []
_starting = threading.Lock()


def host() -> Host:
    """Return the host of this process, started."""
    with _starting:
        if not _hosts:
            _hosts.append(Host())
        return _hosts[0]


async def run_hosted(
    work: Callable[[], Coroutine[Any, Any, Result]], carried: Sequence[ContextVar[Any]] = ()
) -> Result:
    """Return the result of *work*, run in the host's loop, in the caller's context.

    Cancelling the caller cancels it.

    Args:
        work: Called in the host's loop.
        carried: Context variables whose values after *work* are set for the caller.
    """

    async def run() -> tuple[Result, list[tuple[ContextVar[Any], Any]]]:
        result = await work()
        context = contextvars.copy_context()
        return result, [
            (variable, context[variable]) for variable in carried if variable in context
        ]

    future = asyncio.run_coroutine_threadsafe(run(), host().loop)
    result, left = await asyncio.wrap_future(future)
    for variable, value in left:
        variable.set(value)
    return result


def wait_hosted(work: Coroutine[Any, Any, Result], guest: Guest) -> Result:
    """Return the result of *work*, run in the host's loop in the caller's context; blocks.

    Args:
        work: What to run.
        guest: Closed when the process ends, if it still exists then.

    Raises:
        RuntimeError: If called in the host's own thread, which would wait for itself.
    """
    found = host()
    if found.is_here():
        work.close()
        raise RuntimeError("the blocking interface cannot be used in the cache's own event loop")
    found.guests.add(guest)
    future = asyncio.run_coroutine_threadsafe(work, found.loop)
    try:
        return future.result()
    finally:
        future.cancel()  # of no effect once it is done


def start_hosted(work: Coroutine[Any, Any, object]) -> None:
    """Start *work* in the host's loop, in the caller's context, and do not wait for it."""
    asyncio.run_coroutine_threadsafe(work, host().loop)


def in_loop(loop: asyncio.AbstractEventLoop, compute: Compute) -> Compute:
    """Return a function for the host that runs *compute* in *loop*, its caller's.

    It raises `LostError` if that loop ends or stops before the result.
    """

    async def elsewhere(result: LookupResult) -> Answer:
        work = computed(compute, result)
        try:
            future = asyncio.run_coroutine_threadsafe(work, loop)
        except RuntimeError:  # it was closed
            work.close()
            raise LostError(elsewhere) from None
        waiting = asyncio.wrap_future(future)
        stood_still = False
        try:
            while not (await asyncio.wait({waiting}, timeout=_LOOK_SECONDS))[0]:
                stands_still = not loop.is_running()
                if stands_still and stood_still:
                    raise LostError(elsewhere)
                stood_still = stands_still
        finally:
            waiting.cancel()
        # An exception that ends the caller's loop, as SystemExit, must not end the host's.
        if waiting.cancelled() or not isinstance(waiting.exception(), Exception | None):
            raise LostError(elsewhere)
        return waiting.result()

    return elsewhere


def _forked() -> None:
    """Let a forked child start its own host: it has none of its parent's threads."""
    global _starting  # noqa: PLW0603 - the parent's may have been held
    _hosts.clear()
    _starting = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
