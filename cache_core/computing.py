"""Calling the function that makes an answer, in whatever form its author wrote it."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeAlias

from cache_core.models import Answer, LookupResult

Compute: TypeAlias = Callable[..., Awaitable[str | Answer] | str | Answer]
"""A function or coroutine function of no argument, or of the `LookupResult`."""


async def computed(compute: Compute, result: LookupResult) -> Answer:
    """Return what *compute* makes; *result* saves it the steps whose values are known.

    Raises:
        TypeError: If it makes neither a str nor an `Answer`.
    """
    made: Any = compute(result) if _takes_result(compute) else compute()
    if inspect.isawaitable(made):
        made = await made
    if isinstance(made, str):
        return Answer(made)
    if isinstance(made, Answer):
        return made
    msg = f"compute must return a str or an Answer, not {type(made).__name__}"
    raise TypeError(msg)


def completed(answer: Answer, otherwise: Answer) -> Answer:
    """Return *answer* with what it leaves open taken from *otherwise*, and the tags of both."""

    def either(field: str) -> Any:
        value = getattr(answer, field)
        return getattr(otherwise, field) if value is None else value

    open_fields = ("shared", "share_documents", "ttl", "cost_usd")
    return replace(
        answer,
        **{field: either(field) for field in open_fields},
        intent=answer.intent or otherwise.intent,
        tags=(*otherwise.tags, *answer.tags),
    )


def _takes_result(compute: Compute) -> bool:
    try:
        parameters = inspect.signature(compute).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(
        parameter.kind in {parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD}
        and parameter.default is parameter.empty
        for parameter in parameters
    )
