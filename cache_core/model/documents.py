"""Documents from retrievers: copied when they are put, and restored with their types.

JSON has six types. Other values that can be restored exactly are stored as tagged values: tuples,
sets, bytes, dates, decimals, UUIDs, paths, NaN, numpy scalars and arrays, dicts with keys that are
not str. Anything else, above all an object of a class, cannot be restored safely from a store that
others can write to. Such documents are left out whole: a caller with nine of ten would skip
retrieval.
"""

from __future__ import annotations

import base64
import json
import math
import pathlib
from collections import OrderedDict, UserString, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, ValuesView
from collections.abc import Set as AbstractSet
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any, Literal, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from cache_core.model.document_ids import ids_of, names_of

TAG = "$"
"""Name of the only field of a tagged value: `{"$": [kind, ...]}`."""

_DEEPEST = 200
"""Most levels of nesting; deeper values need the slow JSON parser, then exceed the stack."""

_MOST = 100_000
"""Most documents of an iterator: an endless one must not block the event loop."""

LeftOut = Literal["", "too_large", "unsupported"]


class Taken(NamedTuple):
    """Copy of documents, as of the put.

    Attributes:
        values: JSON values, tagged where needed; `None` without documents, or if *left_out*.
        tagged: Whether `restored` has to be applied.
        ids: Ids that `invalidate_document` finds the answer by; also of documents left out.
        left_out: Reason why the documents are not stored; empty if they are.
        kind: The type that cannot be stored, for the log.
        given: Whether there were any documents.
    """

    values: list[Any] | None = None
    tagged: bool = False
    ids: tuple[str, ...] = ()
    left_out: LeftOut = ""
    kind: str = ""
    given: bool = False


class _LeftOutError(Exception):
    """The documents are not stored, for this reason."""

    def __init__(self, reason: LeftOut, kind: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.kind = kind


def taken(documents: Any, document_ids: Any, most_bytes: int) -> Taken:
    """Return a copy of *documents* to store, and their ids.

    Args:
        documents: A list, tuple, set, iterator or other sequence of anything, or `None`.
        document_ids: More ids from the caller, besides those in the documents.
        most_bytes: Most bytes of the documents in stored form: ASCII JSON.

    Raises:
        TypeError: If either is no such collection: one document, or a str.
    """
    named = _named(document_ids)
    if documents is None:
        return Taken(ids=named)
    try:
        found = list(_limited(_iterator(documents)))
    except TypeError:
        raise
    except Exception as error:  # noqa: BLE001 - the caller's iterator; the answer is still stored
        return Taken(ids=named, left_out="unsupported", kind=type(error).__name__, given=True)
    ids = tuple(dict.fromkeys((*named, *ids_of(found))))
    if len(found) > _MOST:
        return Taken(ids=ids, left_out="too_large", given=True)
    encoder = _Encoder(most_bytes)
    try:
        values = [encoder.encode(item, 1) for item in found]
        if len(json.dumps(values)) > most_bytes:
            raise _LeftOutError("too_large")
    except _LeftOutError as error:
        return Taken(ids=ids, left_out=error.reason, kind=error.kind, given=bool(found))
    except Exception as error:  # noqa: BLE001 - objects of others may raise whenever looked at
        kind = type(error).__name__
        return Taken(ids=ids, left_out="unsupported", kind=kind, given=bool(found))
    return Taken(values, encoder.tagged, ids, given=bool(found))


def _named(document_ids: Any) -> tuple[str, ...]:
    if isinstance(document_ids, (list, tuple, AbstractSet)) and all(
        isinstance(item, str) and item for item in document_ids
    ):
        return tuple(dict.fromkeys(name for item in document_ids for name in names_of(item)))
    msg = "document_ids must be a list of non-empty str"
    raise TypeError(msg)


def _iterator(documents: Any) -> Iterator[Any]:
    is_array = type(documents).__module__ == "numpy" and hasattr(documents, "ndim")
    if is_array or (
        isinstance(documents, (Sequence, AbstractSet, Iterator, ValuesView))
        and not isinstance(documents, (str, UserString, bytes, bytearray, memoryview, range))
    ):
        return iter(documents)
    msg = f"rag_results must be a list of documents, not {type(documents).__name__}"
    raise TypeError(msg)


def _limited(documents: Iterator[Any]) -> Iterator[Any]:
    """Yield at most one document more than may be stored."""
    for number, item in enumerate(documents):
        yield item
        if number >= _MOST:
            return


# -------------------------------------------------------------------------------- storing


class _Encoder:
    """Encoder of values as JSON values.

    Args:
        most: Characters after which it gives up: a value may contain itself, or be huge.
    """

    def __init__(self, most: int) -> None:
        self._left = most
        self.tagged = False

    def encode(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind is str:
            self._spend(len(value))
            return value
        self._spend(1)
        if value is None or kind is bool or kind is int:
            return value
        if kind is float and math.isfinite(value):
            return value
        if depth > _DEEPEST:
            raise _LeftOutError("unsupported", "a value that is nested too deep")
        if kind is list:
            return [self.encode(item, depth + 1) for item in value]
        if kind is dict and TAG not in value and all(type(name) is str for name in value):
            self._spend(sum(map(len, value)))
            return {name: self.encode(item, depth + 1) for name, item in value.items()}
        self.tagged = True
        return {TAG: self._tagged(kind, value, depth + 1)}

    def _tagged(self, kind: type, value: Any, depth: int) -> list[Any]:
        """Return the name of a type, and the arguments for `restored` to build a value of it."""
        if kind in _SCALARS:
            name, encode, _ = _SCALARS[kind]
            parts = encode(value)
            self._spend(sum(len(part) for part in parts if isinstance(part, str)))
            return [name, *parts]
        if kind in _COLLECTIONS:
            return [_COLLECTIONS[kind], *(self.encode(item, depth) for item in value)]
        if kind is deque:
            items = (self.encode(item, depth) for item in value)
            return ["deque", value.maxlen, *items]
        if kind in {dict, OrderedDict}:
            pairs = (
                [self.encode(name, depth), self.encode(item, depth)] for name, item in value.items()
            )
            return [kind.__name__, *pairs]
        if kind.__module__ == "numpy":
            return self._numpy(kind, value)
        raise _LeftOutError("unsupported", kind.__qualname__)

    def _numpy(self, kind: type, value: Any) -> list[Any]:
        import numpy as np

        if kind is not np.ndarray and not isinstance(value, np.generic):
            raise _LeftOutError("unsupported", kind.__qualname__)
        if value.dtype.hasobject or value.dtype.names or kind is np.void:
            raise _LeftOutError("unsupported", f"{kind.__qualname__} of {value.dtype}")
        packed = _packed(value.tobytes())
        self._spend(len(packed))
        shape = list(value.shape) if kind is np.ndarray else None
        return ["numpy", value.dtype.str, shape, packed]

    def _spend(self, characters: int) -> None:
        self._left -= characters
        if self._left < 0:
            raise _LeftOutError("too_large")


def _packed(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _zone(zone: tzinfo | None) -> Any:
    """Return a time zone as JSON: the key of a named one, the arguments of a fixed one."""
    if zone is None:
        return None
    if type(zone) is ZoneInfo and zone.key:
        return zone.key
    if type(zone) is timezone:
        name = zone.tzname(None)
        offset = zone.utcoffset(None)
        seconds = [offset.days, offset.seconds, offset.microseconds]
        return seconds if name == timezone(offset).tzname(None) else [*seconds, name]
    raise _LeftOutError("unsupported", type(zone).__qualname__)


def _unzoned(value: Any) -> timezone | ZoneInfo | None:
    if value is None:
        return None
    if isinstance(value, str):
        return ZoneInfo(value)
    days, seconds, microseconds, *name = value
    offset = timedelta(days, seconds, microseconds)
    return timezone(offset, *name) if offset or name else UTC


def _timed(value: datetime | time) -> list[Any]:
    return [value.replace(tzinfo=None).isoformat(), value.fold, _zone(value.tzinfo)]


_Codec = tuple[str, Callable[[Any], list[Any]], Callable[..., Any]]
_SCALARS: Mapping[type, _Codec] = {
    float: ("float", lambda value: [repr(value)], float),
    complex: ("complex", lambda value: [repr(value.real), repr(value.imag)],
              lambda real, imag: complex(float(real), float(imag))),
    bytes: ("bytes", lambda value: [_packed(value)],
            lambda packed: base64.b64decode(packed, validate=True)),
    bytearray: ("bytearray", lambda value: [_packed(value)],
                lambda packed: bytearray(base64.b64decode(packed, validate=True))),
    Decimal: ("Decimal", lambda value: [str(value)], Decimal),
    UUID: ("UUID", lambda value: [value.hex], UUID),
    date: ("date", lambda value: [value.isoformat()], date.fromisoformat),
    datetime: ("datetime", _timed, lambda text, fold, zone:
               datetime.fromisoformat(text).replace(fold=fold, tzinfo=_unzoned(zone))),
    time: ("time", _timed, lambda text, fold, zone:
           time.fromisoformat(text).replace(fold=fold, tzinfo=_unzoned(zone))),
    timedelta: ("timedelta", lambda value: [value.days, value.seconds, value.microseconds],
                timedelta),
    pathlib.PurePosixPath: ("PurePosixPath", lambda value: [str(value)], pathlib.PurePosixPath),
    pathlib.PureWindowsPath: ("PureWindowsPath", lambda value: [str(value)],
                              pathlib.PureWindowsPath),
    pathlib.PosixPath: ("PosixPath", lambda value: [str(value)], pathlib.PosixPath),
    pathlib.WindowsPath: ("WindowsPath", lambda value: [str(value)], pathlib.WindowsPath),
}  # fmt: skip
_COLLECTIONS: Mapping[type, str] = {tuple: "tuple", set: "set", frozenset: "frozenset"}

# -------------------------------------------------------------------------------- restoring


def restored(values: Sequence[Any]) -> list[Any]:
    """Return the original documents from their tagged values.

    Raises:
        ValueError: If a value is invalid.
    """
    try:
        return [_restored(value) for value in values]
    except Exception as error:  # noqa: BLE001 - a store may return anything
        msg = f"no documents: {type(error).__name__}"
        raise ValueError(msg) from None


def _restored(value: Any) -> Any:
    if isinstance(value, list):
        return [_restored(item) for item in value]
    if not isinstance(value, dict):
        return value
    if TAG not in value:
        return {name: _restored(item) for name, item in value.items()}
    name, *parts = value[TAG]
    return _MAKERS[name](*parts)


def _numpy_restored(kind: str, shape: list[int] | None, packed: str) -> Any:
    import numpy as np

    raw = np.frombuffer(base64.b64decode(packed, validate=True), dtype=np.dtype(kind))
    return raw[0] if shape is None else raw.reshape(shape).copy()


def _pairs(make: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda *pairs: make((_restored(name), _restored(item)) for name, item in pairs)


def _items(make: Callable[[Iterable[Any]], Any]) -> Callable[..., Any]:
    return lambda *items: make(_restored(item) for item in items)


_MAKERS: Mapping[str, Callable[..., Any]] = {
    **{name: make for name, _, make in _SCALARS.values()},
    **{kind.__name__: _items(kind) for kind in _COLLECTIONS},
    "deque": lambda most, *items: deque((_restored(item) for item in items), most),
    "dict": _pairs(dict),
    "OrderedDict": _pairs(OrderedDict),
    "numpy": _numpy_restored,
}
