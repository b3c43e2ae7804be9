"""Context of a message: read as JSON when a call is made; and a watch for keys that churn."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, TypeAlias

_KEYS = 64
_VALUES = 100
_LOOKED_AT = 8
_MOSTLY = 0.9
_FEW = 16
"""Fewest values of a key that is reported as changing with almost every lookup."""

_DEEPEST = 200

MAX_CONTEXT_CHARS = 65_536
"""Most characters of all texts in it, keys included; every other value counts as one."""

FixedContext: TypeAlias = tuple[str, str]
"""Context as of the call that passed it: `text` or `mapping`, and its text or its JSON."""


class TooLargeError(Exception):
    """The context has more than `MAX_CONTEXT_CHARS`."""


def read_context(context: Any) -> FixedContext | None:
    """Return *context* as of now; `None` for none, an empty text and an empty mapping.

    Args:
        context: A text, or a mapping, dataclass or pydantic model of JSON values.

    Raises:
        TypeError: For any other type, naming the argument; also for NaN, and for keys that are not
            str: 1 and "1" would become the same.
        TooLargeError: For more than `MAX_CONTEXT_CHARS`.
    """
    if context is None or (isinstance(context, str) and not context):
        return None
    if isinstance(context, str):
        if len(context) > MAX_CONTEXT_CHARS:
            raise TooLargeError
        return "text", str.__str__(context)
    value = _fields(context)
    if not isinstance(value, Mapping):
        msg = f"context must be a str or a JSON mapping, not {type(context).__name__}"
        raise TypeError(msg)
    if not value:
        return None
    plain = _Plain(MAX_CONTEXT_CHARS).of(value, 0)
    try:
        return "mapping", json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except ValueError as error:
        msg = f"context must be JSON: {error}"
        raise TypeError(msg) from None


def _fields(value: Any) -> Any:
    """Return the fields of a dataclass or pydantic model; any other value as it is."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
    if callable(getattr(value, "model_dump", None)) and not isinstance(value, type):
        return value.model_dump()
    return value


class _Plain:
    """Converter of mappings and sequences to dicts and lists, up to a number of characters.

    Args:
        limit: Most characters.
    """

    def __init__(self, limit: int) -> None:
        self._left = limit

    def of(self, value: Any, depth: int) -> Any:
        """Return *value* in a form that `json.dumps` accepts."""
        self._left -= max(1, len(value)) if isinstance(value, str) else 1
        if self._left < 0:
            raise TooLargeError
        if depth > _DEEPEST:
            msg = f"context must be JSON, nested {_DEEPEST} deep at most"
            raise TypeError(msg)
        if value is None or isinstance(value, (str, int, float)):
            return value
        value = _fields(value)
        if isinstance(value, Mapping):
            return {self._key(name): self.of(item, depth + 1) for name, item in value.items()}
        if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)):
            return [self.of(item, depth + 1) for item in value]
        if getattr(value, "shape", None) == () and callable(getattr(value, "item", None)):
            return self.of(value.item(), depth + 1)  # a number of numpy's
        msg = f"context must be JSON: {type(value).__name__} is not"
        raise TypeError(msg)

    def _key(self, name: Any) -> str:
        if not isinstance(name, str):
            msg = f"context must be JSON: keys must be str, not {type(name).__name__}"
            raise TypeError(msg)
        self._left -= len(name)
        return name


def fields_of(context: FixedContext) -> Mapping[str, Any]:
    """Return the fields of a context; a text is one field."""
    kind, text = context
    return json.loads(text) if kind == "mapping" else {"(text)": text}


class ContextWatch:
    """Remembers a few values of each context key, as hashes, to find the one that churns.

    At most 64 keys with 100 values each. A list or mapping is identified by its size and its first
    plain values.
    """

    def __init__(self) -> None:
        self._values: dict[str, set[int]] = {}
        self._noted: dict[str, int] = {}
        self._other_keys = False

    def note(self, context: Mapping[str, Any]) -> None:
        """Record the fields of a context."""
        for name, value in islice(context.items(), _KEYS):
            seen = self._values.get(name)
            if seen is None:
                if len(self._values) >= _KEYS:
                    self._other_keys = True
                    continue
                seen = self._values[name] = set()
            if len(seen) < _VALUES:
                seen.add(hash(_mark(value)))
                self._noted[name] = self._noted.get(name, 0) + 1

    def churning(self) -> str:
        """Return the key with the most values, or the empty string.

        `(the keys themselves)` if those change more than any key's values.
        """
        name = max(self._values, key=lambda name: len(self._values[name]), default="")
        if self._other_keys and len(self._values[name]) < _KEYS:
            return "(the keys themselves)"
        return str(name)

    def always_new(self) -> str:
        """Return the key with another value in almost every lookup, or the empty string."""
        name = self.churning()
        if name not in self._values:
            return name
        values = len(self._values[name])
        return name if values >= max(_FEW, _MOSTLY * self._noted[name]) else ""


def _mark(value: object) -> Hashable:
    """Return a cheap value that mostly differs if *value* does."""
    if isinstance(value, (str, int, float)):
        return value
    if isinstance(value, Mapping):
        return (len(value), *_plain(value.keys()), *_plain(value.values()))
    if isinstance(value, (list, tuple)):
        return (len(value), *_plain(value))
    return None


def _plain(values: Iterable[object]) -> list[Hashable]:
    first = islice(values, _LOOKED_AT)
    return [value for value in first if isinstance(value, (str, int, float))]
