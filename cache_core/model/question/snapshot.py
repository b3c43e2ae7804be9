"""Snapshots of arguments, so that later changes by the caller have no effect."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, ParamSpec, TypeVar

from cache_core.model.question import contexts, histories
from cache_core.model.values import Where

P = ParamSpec("P")
Result = TypeVar("Result")


def take(context: Any, history: Any, standalone: Any) -> Where:
    """Return context and history as of now; a *standalone* message needs no history.

    Raises:
        TypeError: For a context or history of another type.
    """
    if context is None and history is None:
        return _NOWHERE if standalone is None else Where(standalone=standalone)
    try:
        fixed = contexts.read_context(context)
        turns = None
        if history is not None and standalone is None:
            turns = histories.read_history(history)
    except (contexts.TooLargeError, histories.TooLargeError):
        return Where(standalone=standalone, too_large=True)
    except RecursionError:
        raise TypeError("context and history must not be nested that deep") from None
    except (TypeError, ValueError):
        raise
    except Exception as error:
        # a proxy without its request, a row without its session: attributes may raise anything
        msg = f"context and history must be readable; reading one raised {type(error).__name__}"
        raise TypeError(msg) from error
    return Where(fixed, turns, standalone=standalone)


_NOWHERE = Where()


async def settled(where: Where) -> Where:
    """Return *where* with the fingerprint of its history."""
    if where.history is None or where.after:
        return where
    return where._replace(after=await histories.fingerprint_of(where.history))


def at_once(
    method: Callable[P, Coroutine[Any, Any, Result]],
) -> Callable[P, Coroutine[Any, Any, Result]]:
    """Decorator for a method that reads its arguments before it returns a coroutine.

    For its callers it is a coroutine function: errors are raised when it is awaited.
    """

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, Result]:
        try:
            return method(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - whatever an argument's own methods raise, too
            return _raising(error)

    _mark_as_coroutine_function(call)
    return call


async def _raising(error: Exception) -> NoReturn:
    raise error


def _mark_as_coroutine_function(function: Any) -> None:
    mark = getattr(inspect, "markcoroutinefunction", None)  # since Python 3.12
    if mark is not None:
        mark(function)
    else:
        function._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]  # noqa: SLF001 - what asyncio and unittest.mock look for before 3.12
