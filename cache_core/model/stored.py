"""Stored records: their format, and validation of whatever a store returned.

A store may return anything: JSON of any depth, values of any type and size.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import fields, replace
from typing import Annotated, Any, Generic, TypeVar

from pydantic import Field, TypeAdapter
from pydantic_core import from_json

_LARGEST = 1e15
_LAST_TIME = 253_402_214_400.0
"""9999-12-31 00:00 UTC in seconds since the epoch: later times have no date in every zone."""

Number = Annotated[float, Field(strict=True, ge=-_LARGEST, le=_LARGEST, allow_inf_nan=False)]
"""Finite number in a safe range."""

Whole = Annotated[int, Field(strict=True, ge=-_LARGEST, le=_LARGEST)]
"""Integer in a safe range."""

Moment = Annotated[Number, Field(ge=0, lt=_LAST_TIME)]
"""Time in seconds since the epoch, years 1970 to 9999."""

Share = Annotated[Number, Field(ge=0, le=1)]
"""Number from 0 to 1."""

Flag = Annotated[bool, Field(strict=True)]
"""True or false, not a number."""

Plain = Annotated[str, Field(pattern=r"\A[\x00-\x7F]*\z")]
"""ASCII text, such as digests and names, that every store can look up."""

Record = TypeVar("Record")

_in_pydantic = threading.RLock()
if hasattr(os, "register_at_fork"):
    # Pydantic imports modules while it makes an adapter, and initialises each of its parts on first
    # use. A child forked meanwhile by another thread would wait for ever for what nobody ends in
    # it, so a fork waits for both.
    os.register_at_fork(
        before=_in_pydantic.acquire,
        after_in_parent=_in_pydantic.release,
        after_in_child=_in_pydantic.release,
    )


def from_store(text: str) -> Any:
    """Return the JSON value in *text*; raise `ValueError` if it is none, or nested too deep."""
    try:
        with _in_pydantic:
            return from_json(text, allow_inf_nan=False)
    except ValueError:
        pass
    try:
        # the slower parser also reads lone surrogates, and values nested more than 200 deep
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


class Format(Generic[Record]):
    """Stored form of one type of record: JSON with all its fields.

    A named tuple is stored as a list, a dataclass as an object. Reading validates by the fields'
    annotations: use the types above, which are strict.

    Args:
        record: The type of the records.
        versions: Version numbers that a list may begin with; the first one is written. In an older
            one, fields missing at the end get their default. If empty, a list has no number.
    """

    def __init__(self, record: type[Record], versions: tuple[int, ...] = ()) -> None:
        self._record = record
        self._versions = versions
        self._made: TypeAdapter[Record] | None = None

    @property
    def _adapter(self) -> TypeAdapter[Record]:
        # created lazily: it takes a millisecond, and few commands need them all
        if self._made is None:
            self._made = TypeAdapter(self._record)
        return self._made

    def text(self, record: Record) -> str:
        """Return the stored form of *record*."""
        if isinstance(record, tuple):
            return _COMPACT([*self._versions[:1], *record])
        return json.dumps({field.name: getattr(record, field.name) for field in fields(record)})  # type: ignore[arg-type]

    def parse(self, text: str) -> Record | None:
        """Return the record in *text*; `None` if it is invalid or has unknown fields."""
        try:
            return self.checked(from_store(text))
        except (TypeError, ValueError):
            return None

    def checked(self, value: Any) -> Record:
        """Return the record with these fields, a JSON list or object.

        Raises:
            TypeError, ValueError: If they are invalid.
        """
        if self._versions:
            version, *value = value
            if version not in self._versions:
                raise ValueError(version)
        elif isinstance(value, dict):
            unknown = value.keys() - {field.name for field in fields(self._record)}  # type: ignore[arg-type]
            if unknown:
                raise ValueError(unknown)
        with _in_pydantic:
            return self._adapter.validate_python(value)


_COMPACT = json.JSONEncoder(separators=(",", ":")).encode


def changed(record: Record, **values: Any) -> Record:
    """Return *record*, a named tuple or a dataclass, with other values in some fields."""
    if isinstance(record, tuple):
        return record._replace(**values)  # type: ignore[attr-defined, no-any-return]
    return replace(record, **values)  # type: ignore[type-var]
