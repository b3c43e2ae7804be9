"""Calls the function that makes an answer: asynchronous or plain, with or without argument."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import threading
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from typing import Any, TypeAlias

from cache_core.model.values import Answer, LookupResult

Compute: TypeAlias = Callable[..., Awaitable[str | Answer] | str | Answer]
"""Function or coroutine function of no argument, or of the `LookupResult`.

A plain function is called in a thread of its own, so that it may block."""

_NEEDS_LOOP = ("no running event loop", "There is no current event loop in thread")
"""Errors of asyncio for a plain function that creates a task: it must be called in the loop."""


class LostError(Exception):
    """The event loop of a computation has ended; the argument is the function."""


async def computed(compute: Compute, result: LookupResult) -> Answer:
    """Return the answer of *compute*; *result* saves it the steps whose values are known.

    A value that is neither a str nor an `Answer` becomes the response of one anyway: it was paid
    for and belongs to its caller, even if it cannot be stored.
    """
    call = functools.partial(compute, result) if takes_result(compute) else compute
    made: Any = call() if _is_asynchronous(compute) else await _in_thread(call)
    if inspect.isawaitable(made):
        made = await made
    return made if isinstance(made, Answer) else Answer(made)


def terms_of(answer: Answer, personal: tuple[str, ...]) -> str:
    """Return a digest of the terms for storing an answer; empty for the defaults.

    Args:
        answer: Has the terms; its response and documents do not count.
        personal: Names of the user, by which an answer is kept private.
    """
    said = (
        answer.intent, answer.shared, answer.share_documents, answer.ttl,
        sorted(answer.tags), sorted(answer.document_ids), sorted(personal),
    )  # fmt: skip
    if said == (None, None, None, None, [], [], []):
        return ""
    return blake2b(repr(said).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _is_asynchronous(compute: Any) -> bool:
    """Return whether calling *compute* only makes a coroutine; unknown for a wrapper: False."""
    while isinstance(compute, functools.partial):
        compute = compute.func
    return inspect.iscoroutinefunction(compute) or inspect.iscoroutinefunction(
        getattr(compute, "__call__", None)  # noqa: B004 - not whether it can be called
    )


async def _in_thread(work: Callable[[], Any]) -> Any:
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

    threading.Thread(target=run, name="glasscache-compute", daemon=True).start()
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


def takes_result(compute: Compute) -> bool:
    """Return whether *compute* is called with the `LookupResult`."""
    try:
        parameters = inspect.signature(compute).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(
        parameter.kind in {parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD}
        and parameter.default is parameter.empty
        for parameter in parameters
    )
