"""Calls the function that makes an answer: asynchronous or plain, with or without argument."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from typing import Any, TypeAlias

from cache_core.model.calls import called
from cache_core.model.values import Answer, LookupResult

Compute: TypeAlias = Callable[..., Awaitable[str | Answer] | str | Answer]
"""Function or coroutine function of no argument, or of the `LookupResult`.

A plain function is called in a thread of its own, so that it may block."""


class LostError(Exception):
    """The event loop of a computation has ended; the argument is the function."""


async def computed(compute: Compute, result: LookupResult) -> Answer:
    """Return the answer of *compute*; *result* saves it the steps whose values are known.

    A value that is neither a str nor an `Answer` becomes the response of one anyway: it was paid
    for and belongs to its caller, even if it cannot be stored.
    """
    call = functools.partial(compute, result) if takes_result(compute) else compute
    made: Any = await called(call)
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
