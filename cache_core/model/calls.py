"""Calls of an application's own functions, asynchronous or plain, off the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import threading
from collections.abc import Callable
from typing import Any

_NEEDS_LOOP = ("no running event loop", "There is no current event loop in thread")
"""Errors of asyncio for a plain function that creates a task: it must be called in the loop."""


def is_asynchronous(function: Any) -> bool:
    """Return whether calling *function* only makes a coroutine; unknown for a wrapper: False."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - not whether it can be called
    )


async def called(call: Callable[[], Any]) -> Any:
    """Return the result of *call*: awaited if it is asynchronous, else made in a thread."""
    made: Any = call() if is_asynchronous(call) else await in_thread(call)
    return await made if inspect.isawaitable(made) else made


async def in_thread(work: Callable[[], Any]) -> Any:
    """Return the result of *work*, called in a thread, in this context.

    The thread is not in a pool: a computation may wait for another one, which needs a thread too.
    Neither a cancelled caller nor the end of the process waits for it.
    """
    loop = asyncio.get_running_loop()
    context = contextvars.copy_context()
    done: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()

    def run() -> None:
        outcome: tuple[Any, BaseException | None]
        try:
            outcome = context.run(work), None
        except BaseException as error:  # noqa: BLE001 - raised to the caller
            outcome = None, error
        with contextlib.suppress(RuntimeError):  # a closed loop has no caller left
            loop.call_soon_threadsafe(_settle, done, outcome)

    threading.Thread(target=run, name="glasscache-call", daemon=True).start()
    made, error = await done
    if error is None:
        return made
    if isinstance(error, RuntimeError) and str(error).startswith(_NEEDS_LOOP):
        return work()
    try:
        raise error
    finally:
        # Breaks a reference cycle of the exception and this frame.
        del error


def _settle(done: asyncio.Future[Any], outcome: tuple[Any, BaseException | None]) -> None:
    if not done.done():
        done.set_result(outcome)
