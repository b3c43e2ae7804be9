"""Waiting in tests: until something holds, and in a task of its own."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def until(condition: Callable[[], Any], seconds: float = 15.0) -> float:
    """Wait until *condition*, a function or a coroutine function, holds.

    Returns:
        The seconds that it took.

    Raises:
        AssertionError: It did not hold within *seconds*.
    """
    started = time.monotonic()
    while True:
        found = condition()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return time.monotonic() - started
        assert time.monotonic() - started < seconds, f"not within {seconds:g} s"
        await asyncio.sleep(0.01)


def wait_until(
    condition: Callable[[], object], what: str = "the condition", seconds: float = 20.0
) -> float:
    """Wait until *condition* holds, without an event loop; an `OSError` means not yet.

    Returns:
        The seconds that it took.

    Raises:
        AssertionError: It did not hold within *seconds*; names *what*.
    """
    started = time.monotonic()
    while True:
        with contextlib.suppress(OSError):
            if condition():
                return time.monotonic() - started
        assert time.monotonic() - started < seconds, f"not within {seconds:g} s: {what}"
        time.sleep(0.1)


async def apart(work: Coroutine[Any, Any, T]) -> T:
    """Await *work* in a task of its own, which keeps what it learns to itself."""
    return await asyncio.create_task(work)
