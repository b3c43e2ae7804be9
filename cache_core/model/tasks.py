"""Background tasks: the context in which they run, and their end."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Iterable
from contextvars import Context, ContextVar
from functools import partial
from typing import Any, TypeVar

from opentelemetry import context as otel_context
from opentelemetry import trace

Result = TypeVar("Result")

_AGAIN = 0.5
"""Seconds that a cancelled task has for its clean-up before it is cancelled again."""


_SUPPRESSED = (
    "suppress_instrumentation",
    getattr(otel_context, "_SUPPRESS_INSTRUMENTATION_KEY", "suppress_instrumentation"),
)
"""Keys of OpenTelemetry's context by which instrumentations of clients make no spans."""

_quiet: ContextVar[bool] = ContextVar("glasscache_quiet", default=False)

_traced = False


def trace_background(*, traced: bool) -> None:
    """Set whether clients may make spans in background tasks of this process."""
    global _traced  # noqa: PLW0603 - caches share the clients' instrumentations, too
    _traced = traced


def background() -> Context:
    """Return a context for a background task: without the caller's span, and without others.

    An instrumented client would make a trace of every command: ten a second of an idle cache.
    """
    made = Context()
    if not _traced:
        made.run(_suppress)
    return made


def traced_or_quiet() -> Context:
    """Return the caller's context if its span is recorded, else one as for a background task."""
    recorded = trace.get_current_span().is_recording()
    return contextvars.copy_context() if recorded else background()


def traced_by() -> str:
    """Return the caller's sampled span as `trace_id-span_id` in hexadecimal; empty without one."""
    span = trace.get_current_span().get_span_context()
    if not (span.is_valid and span.trace_flags.sampled):
        return ""
    return f"{trace.format_trace_id(span.trace_id)}-{trace.format_span_id(span.span_id)}"


def is_quiet(context: Context) -> bool:
    """Return whether no spans are made in *context*."""
    return context.get(_quiet, False)


def _suppress() -> None:
    _quiet.set(True)
    current = otel_context.get_current()
    for key in _SUPPRESSED:
        current = otel_context.set_value(key, True, current)
    otel_context.attach(current)


async def off_loop(work: Callable[..., Result], *arguments: Any) -> Result:
    """Return `work(*arguments)`, run in a thread; in the caller's where none can be started.

    That is at a limit of threads, and once the interpreter is ending.
    """
    called = partial(contextvars.copy_context().run, work, *arguments)
    # Asked before, because an executor that starts no thread then lets its loop wait for ever.
    if not threading.main_thread().is_alive():
        return called()
    try:
        running = asyncio.get_running_loop().run_in_executor(None, called)
    except RuntimeError:
        return called()
    return await running


def heed_cancellation() -> None:
    """Raise `CancelledError` if this task was cancelled, and what it called lost that."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def end_all(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel *tasks* and return when all have ended.

    They may be cancelled more than once: `asyncio.gather` that is cancelled in the moment in which
    something in it fails raises that failure instead, and what outlives failures goes on.
    """
    ending = list(tasks)
    left = {task for task in ending if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_AGAIN)
    await asyncio.gather(*ending, return_exceptions=True)
