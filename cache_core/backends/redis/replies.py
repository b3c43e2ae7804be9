"""Conversion between redis-py's commands and replies and the keyed store's values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from cache_core.backends.base import Write
from cache_core.backends.breaker import Breaker
from cache_core.model.exceptions import BackendError

_LAST_NUMBER = 2**64 - 1
"""The largest second part of a stream ID."""


def set_command(write: Write) -> tuple[Any, ...]:
    """Return the command that stores *write*."""
    life = () if write.ttl is None else ("PX", millis(write.ttl))
    return ("SET", write.key, write.value, *life)


def checked(result: Any, breaker: Breaker) -> Any:
    """Return *result*, an exception as a `BackendError` of *breaker*'s Redis."""
    if isinstance(result, BackendError):
        return breaker.named(result.copy())
    if isinstance(result, Exception):
        error = BackendError("backend_error", type(result).__name__, str(result))
        return breaker.named(error)
    return result


def is_wrong_type(error: BackendError) -> bool:
    """Return whether Redis rejected a command because of the key's type."""
    return "WRONGTYPE" in str(error)


def millis(seconds: float | None) -> int | None:
    """Return a life in milliseconds, at least one; `None` is forever."""
    return None if seconds is None else max(1, int(seconds * 1000))


def text_of(value: Any) -> str | None:
    """Return a reply as text; invalid UTF-8 becomes text that no envelope equals."""
    if value is None or isinstance(value, str):
        return value
    text: str = value.decode("utf-8", "replace")
    return text


def texts_of(values: Iterable[Any]) -> list[str | None]:
    """Return replies as texts, as `text_of` does."""
    return [
        value if value is None or isinstance(value, str) else value.decode("utf-8", "replace")
        for value in values
    ]


def next_position(position: str) -> str:
    """Return the stream ID that directly follows *position*.

    An exclusive start, `(ID`, needs Redis 6.2. An invalid ID is returned unchanged.
    """
    millis_, _, number = position.partition("-")
    if not (position.isascii() and millis_.isdecimal() and (number or "0").isdecimal()):
        return position
    if int(number or 0) < _LAST_NUMBER:
        return f"{millis_}-{int(number or 0) + 1}"
    return f"{int(millis_) + 1}-0"


def stream_of(reply: Any) -> list[tuple[str, str]]:
    """Return (id, value) of stream entries, in either form of redis-py's parsers."""
    found: list[tuple[str, str]] = []
    for position, fields in reply or ():
        pairs = dict(
            fields.items()
            if isinstance(fields, Mapping)
            else zip(fields[::2], fields[1::2], strict=True)
        )
        value = pairs.get(b"v", pairs.get("v"))
        found.append((text_of(position) or "", text_of(value) or ""))
    return found


def stamped(now: float, life: float | None) -> str:
    """Return the prefix of a hash's row: its time of writing and its life, in seconds.

    Without a life the row lives as long as its hash. Rows sort by time of writing.
    """
    at = f"{now:017.6f}"
    return f"{at} " if life is None else f"{at}+{math.ceil(life)} "


def end_of(text: str) -> float | None:
    """Return a row's expiry, in seconds since the epoch; `None` for an invalid row."""
    at, _, life = text.partition(" ")[0].partition("+")
    try:
        return float(at) + float(life) if life else float(at) and math.inf
    except ValueError:
        return None


def row_of(text: str, now: float) -> str | None:
    """Return the value of a row, without its stamp; `None` if it has expired."""
    stamp, _, value = text.partition(" ")
    if "+" in stamp:
        end = end_of(text)
        if end is not None and end < now:
            return None
    return value
