"""One approver with its breaker: a function, called off the event loop and checked strictly."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from cache_core.backends.breaker import Breaker
from cache_core.model.calls import called, is_asynchronous
from cache_core.model.exceptions import BackendError

AT_ONCE = 8
"""Calls at the same time, those of a plain function that never returned included."""

_PROBE_SECONDS = 5.0
"""Pause between probes of an approver that failed: each may cost money."""


class Opinion(NamedTuple):
    """Opinion of an approver that knows what it cost.

    Attributes:
        approved: Whether the stored answer may be served.
        model: Name of the model by which `Tuning.prices` knows the price; empty for none.
        tokens_in, tokens_out: Tokens read and written.
    """

    approved: bool
    model: str = ""
    tokens_in: int = 0
    tokens_out: int = 0


Approve: TypeAlias = Callable[[str, str, str], Awaitable[bool | Opinion] | bool | Opinion]
"""Called with the asked message, a stored one that is near, and the answer stored for that; returns
whether that answer answers the asked message, too. A plain function is called in a thread."""


class ApproverError(Exception):
    """An approver gave no opinion; the text says how it failed, without any text of a message."""


class Approver:
    """Calls an approver.

    Args:
        function: The approver.
        seconds: Time limit of one call.
        failures: Failures in a row that open the breaker.
    """

    def __init__(self, function: Approve, *, seconds: float, failures: int) -> None:
        self._function = function
        self._seconds = seconds
        self._plain = not is_asynchronous(function)
        self._lock = threading.Lock()
        self._inside = 0
        self.breaker = Breaker("approver", failures=failures, probe_seconds=_PROBE_SECONDS)
        self.breaker.where = "approve="

    @property
    def is_full(self) -> bool:
        """True while as many calls of a plain function have not returned as may be made."""
        return self._inside >= AT_ONCE

    async def ask(self, message: str, stored: str, response: str) -> Opinion:
        """Return the opinion on an answer.

        Args:
            message: The asked message.
            stored: The message that the answer is stored for.
            response: The answer.

        Raises:
            BackendError: If there is none: the function raised, took too long, or returned neither
                `True` nor `False`; or, as `breaker_open`, it was not called.
        """
        with self.breaker:
            async with asyncio.timeout(self._seconds):
                return _opinion(await self._made(message, stored, response))

    async def _made(self, *texts: str) -> Any:
        """Return what the function returns; its errors may quote the texts, so no text is kept."""
        try:
            if not self._plain:
                return await called(partial(self._function, *texts))
            with self._lock:
                self._inside += 1
            return await called(partial(self._counted, *texts))
        except BackendError as error:
            if error.reason == "timeout":
                raise TimeoutError from None
            if error.reason == "overloaded":  # it asks for patience, or is still loading
                raise
            raise ApproverError(error.error_type) from None
        except TimeoutError:
            raise TimeoutError from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise ApproverError("CancelledError") from None
        except BaseException as error:  # the agent's own code
            # One from a thread is no key that somebody pressed.
            if isinstance(error, KeyboardInterrupt) and not self._plain:
                raise
            raise ApproverError(type(error).__name__) from None

    def _counted(self, *texts: str) -> Any:
        try:
            return self._function(*texts)
        finally:
            with self._lock:
                self._inside -= 1


def _opinion(made: Any) -> Opinion:
    """Return what a function returned as an opinion; a wrong type would approve, or cost nothing.

    Raises:
        ApproverError: If it is none.
    """
    opinion = made if isinstance(made, Opinion) else Opinion(made)
    approved = type(opinion.approved)
    if approved is not bool:
        raise ApproverError(f"returned {approved}, not True or False")
    tokens = (opinion.tokens_in, opinion.tokens_out)
    if not all(isinstance(count, int) and count >= 0 for count in tokens):
        raise ApproverError("returned numbers of tokens that are no numbers from 0")
    return opinion
