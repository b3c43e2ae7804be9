"""Arguments as callers give them: a wrong type or range is told at once, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from cache_core import envelope
from cache_core.intent_tuning import MAX_TTL
from cache_core.models import BypassReason, Entry
from cache_core.settings import Settings

_TRIPLE = 3
_MOST_USD = 1_000_000.0

MAX_USER_CHARS = 1_024
MAX_CONTEXT_CHARS = 65_536
"""Of all texts in it, keys included; every other value counts as one."""

MAX_INTENT_CHARS = 256
_DEEPEST = 500


def check_message(
    message: object,
    user_id: object,
    standalone: object,
    settings: Settings,
    context: object = None,
) -> BypassReason | None:
    """Return why a message is not cacheable, or `None`.

    Too large are a message over `max_message_bytes`, a user id of more than 1,024 characters, and a
    context with more than 65,536.

    Raises:
        TypeError: For something that is no message or no user, or a bottomless context.
    """
    if not isinstance(message, str):
        msg = f"message must be a str, not {type(message).__name__}; decode bytes first"
        raise TypeError(msg)
    if standalone is not None and not isinstance(standalone, str):
        msg = f"standalone must be a str, not {type(standalone).__name__}; decode bytes first"
        raise TypeError(msg)
    if user_id is not None and not isinstance(user_id, str):
        msg = f"user_id must be a str or None, not {type(user_id).__name__}: use str(user_id)"
        raise TypeError(msg)
    if not settings.tiers:
        return "disabled"
    text = message if standalone is None else standalone
    # 4 bytes at most per character: most messages need not be encoded to be measured.
    limit = settings.max_message_bytes
    if 4 * len(text) > limit and len(text.encode("utf-8", "surrogatepass")) > limit:
        return "too_large"
    if user_id is not None and len(user_id) > MAX_USER_CHARS:
        return "too_large"
    if context and _exceeds(context, MAX_CONTEXT_CHARS):
        return "too_large"
    return None if text and not text.isspace() else "empty"


def _exceeds(context: object, limit: int) -> bool:
    """Whether a context has more than *limit* characters; looks at no more than that."""
    waiting: list[tuple[object, int]] = [(context, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > _DEEPEST:
            msg = f"context must be JSON, nested {_DEEPEST} deep at most"
            raise TypeError(msg)
        limit -= max(1, len(value)) if isinstance(value, str) else 1
        inner: Iterable[object] = ()
        if isinstance(value, Mapping):
            limit -= sum(
                len(key) if isinstance(key, str) else 1 for key in islice(value, max(0, limit) + 1)
            )
            inner = value.values()
        elif isinstance(value, (list, tuple)):
            inner = value
        waiting += ((item, depth + 1) for item in islice(inner, max(0, limit) + 1))
        if limit < 0:
            return True
    return False


def check_put(
    response: object,
    intent: object,
    ttl: object,
    tags: object,
    cost_usd: object,
    personal: object = (),
) -> None:
    """Check what is to be stored.

    Raises:
        TypeError: For a value of another type.
        ValueError: For a TTL or cost out of range.
    """
    for name, value in (("response", response), ("intent", intent)):
        if value is not None and not isinstance(value, str):
            msg = f"{name} must be a str or None, not {type(value).__name__}"
            raise TypeError(msg)
    _check_number("ttl", ttl, MAX_TTL)
    _check_number("cost_usd", cost_usd, _MOST_USD)
    if ttl == 0:
        msg = f"ttl=0 is refused: expected more than 0 and up to {MAX_TTL:.0f} s"
        raise ValueError(msg)
    for name, value in (("tags", tags), ("personal", personal)):
        if not isinstance(value, (list, tuple, set, frozenset)) or not all(
            isinstance(item, str) for item in value
        ):
            msg = f"{name} must be a list of str"
            raise TypeError(msg)


def _check_number(name: str, value: object, most: float) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        msg = f"{name} must be a number, not {type(value).__name__}"
        raise TypeError(msg)
    if not 0 <= value <= most:
        msg = f"{name}={value!r} is refused: expected a number from 0 to {most:.0f}"
        raise ValueError(msg)


def check_documents(documents: Any) -> list[Any] | None:
    """Return *documents* as a list of JSON values; raises `TypeError` otherwise."""
    if documents is None:
        return None
    if isinstance(documents, (str, bytes, Mapping)) or not isinstance(documents, Sequence):
        msg = f"rag_results must be a list of JSON values, not {type(documents).__name__}"
        raise TypeError(msg)
    found = list(documents)
    envelope.encode(Entry(rag_results=found), "")
    return found


def check_label(kind: str, value: object) -> str:
    """Return a document id, tag or user id; raises `TypeError` for what is none."""
    if not isinstance(value, str) or not value:
        msg = f"the {kind} must be a non-empty str"
        raise TypeError(msg)
    return value


def warm_item(number: int, item: object) -> tuple[str, str | None, str]:
    """Return one answer for `warm_cache`.

    Raises:
        TypeError, ValueError: Naming the item.
    """
    if not isinstance(item, (tuple, list)) or len(item) != _TRIPLE:
        msg = f"item {number} must be (query, user_id, response), got {item!r}"
        raise ValueError(msg)
    query, user_id, response = item
    if not isinstance(query, str) or not isinstance(response, str):
        msg = f"item {number}: query and response must be str"
        raise TypeError(msg)
    if user_id is not None and not isinstance(user_id, str):
        msg = f"item {number}: user_id must be a str or None, not {type(user_id).__name__}"
        raise TypeError(msg)
    return query, user_id, response
