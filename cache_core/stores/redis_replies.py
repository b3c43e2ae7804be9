"""What redis-py takes and returns, as the keyed store's values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cache_core.exceptions import BackendError
from cache_core.stores.base import Write


def set_command(write: Write) -> tuple[Any, ...]:
    """Return the command that stores *write*."""
    life = () if write.ttl is None else ("PX", millis(write.ttl))
    return ("SET", write.key, write.value, *life)


def checked(result: Any) -> Any:
    """Return *result*, or as a `BackendError` what Redis refused."""
    if isinstance(result, BackendError):
        return result.copy()
    if isinstance(result, Exception):
        return BackendError("backend_error", type(result).__name__, str(result))
    return result


def is_wrong_type(error: BackendError) -> bool:
    """Whether Redis refused a command because the key holds another kind of value."""
    return "WRONGTYPE" in str(error)


def millis(seconds: float | None) -> int | None:
    """Return a life in milliseconds, at least one; `None` for ever."""
    return None if seconds is None else max(1, int(seconds * 1000))


def text_of(value: Any) -> str | None:
    """Return a reply as text; what is not UTF-8 becomes text that no envelope equals."""
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


def stream_of(reply: Any) -> list[tuple[str, str]]:
    """Return (id, value) of stream entries, whichever form redis-py parsed them into."""
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
