"""Digest of the earlier turns of a conversation, in whatever form a program keeps them.

The content counts: role, text, tool calls and names, in their order. Fields that only identify or
measure a message object do not: ids, times, token counts, nulls. Message objects of SDKs are read
by their attributes, so that none of those libraries is needed.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import partial
from hashlib import blake2b
from pathlib import PurePath
from secrets import token_hex
from types import SimpleNamespace
from typing import Any, NamedTuple
from unicodedata import normalize
from uuid import UUID

from cache_core.model.logs import RateLimited
from cache_core.model.question.wording import exact_form
from cache_core.model.tasks import off_loop

log = RateLimited(logging.getLogger("glasscache"), 3_600.0)

MAX_HISTORY_CHARS = 64 * 1_048_576
"""Most characters and bytes of a history, pictures included."""

MAX_HISTORY_VALUES = 20_000
"""Most values of a history: they are read on the event loop, for about a microsecond each."""

_LONG = 512
"""Fewest characters or bytes of a value that is replaced by its digest."""

_CHUNK = 1_048_576
_ON_THE_LOOP = 262_144
"""Most characters and bytes digested on the event loop, at 0.3 ms a MiB; more go to a thread."""

_DEEPEST = 60
_HEAP_TYPE = 1 << 9
"""Flag of a class defined in Python code: see `Py_TPFLAGS_HEAPTYPE`."""

_HUGE = 1 << 64
"""Larger ints are written in hexadecimal: Python refuses to write very large ones in decimal."""

_ROLES = {"ai": "assistant", "aimessagechunk": "assistant", "human": "user", "model": "assistant",
          "humanmessagechunk": "user"}  # fmt: skip
"""Other names of `user` and `assistant`."""

_ATTACHED = ("attachments", "audio", "experimental_attachments", "files", "images", "refusal")
"""Fields of a message that hold content besides `content`."""

_REFERRING = ("tool_call_id", "toolCallId", "tool_use_id", "toolUseId", "call_id")
"""Fields by which a tool's result refers to its call."""

_VOLATILE = frozenset(
    "annotations at cache_control conversation_id cost created created_at createdat date duration "
    "encrypted_content finish_reason id index latency latency_ms logprobs message_id metadata "
    "model msg_id object parent_id request_id response_metadata run_id session_id signature state "
    "status stop_reason stop_sequence system_fingerprint thread_id time timestamp token_usage "
    "tokens trace_id ts updated_at updatedat usage usage_metadata uuid version".split()
) | {name.lower() for name in _REFERRING}  # fmt: skip
"""Names, in lower case, of fields that identify or measure a turn or a part of one."""

_PLAIN = frozenset({"content", "role"})
_OF_A_TEXT = frozenset({"block_type", "text", "type"})
_TEXT_PARTS = frozenset({None, "text", "input_text", "output_text"})


class History(NamedTuple):
    """Turns as of the call that passed them.

    Attributes:
        turns: Content of each turn, as immutable JSON values.
        size: Number of their characters and bytes.
        unreadable: Type of a value whose content cannot be read; empty without one. Such a
            history equals no other.
    """

    turns: tuple[list[Any], ...]
    size: int
    unreadable: str = ""


class TooLargeError(Exception):
    """The history is too large to digest."""


def read_history(history: Any) -> History | None:
    """Return the content of *history*; `None` without any turn.

    Args:
        history: A list, or another iterable in order, of turns: a text, a mapping, a (role,
            content) pair, or a message object.

    Raises:
        TypeError: For any other type, or endless nesting.
        TooLargeError: For more than `MAX_HISTORY_CHARS` or `MAX_HISTORY_VALUES`.
    """
    if isinstance(history, (str, bytes, bytearray, Mapping, AbstractSet)) or not isinstance(
        history, Iterable
    ):
        msg = (
            "history must be a list of str or of {'role', 'content'} or of message objects, "
            f"not {type(history).__name__}"
        )
        raise TypeError(msg)
    reader = _Reader()
    turns = tuple(reader.turn(turn) for turn in history)
    if not turns and isinstance(history, Iterator):
        # the put after the lookup that consumed it would store an answer to no history at all
        raise TypeError("history is an iterator that was read already: give a list")
    if not turns:
        return None
    if reader.unreadable:
        log.limited(
            "unreadable history",
            "a history holds a %s, whose content cannot be compared: messages after it are never "
            "answered from the cache. Pass its content as text or bytes",
            reader.unreadable,
        )
    return History(turns, reader.size, reader.unreadable)


class _Long:
    """Long text or bytes, represented by a digest."""

    __slots__ = ("_digest", "value")

    def __init__(self, value: str | bytes) -> None:
        self.value = value
        self._digest = ""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Long) and self.value == other.value

    def __hash__(self) -> int:
        return hash(self.value)

    def digest(self) -> str:
        """Return the value's digest, computed once."""
        if not self._digest:
            hasher = blake2b(digest_size=16)
            value = self.value
            if isinstance(value, str) and len(value) <= _CHUNK and not value.isascii():
                value = normalize("NFC", value)
            for start in range(0, len(value), _CHUNK):
                part = value[start : start + _CHUNK]
                hasher.update(part.encode("utf-8", "surrogatepass") if isinstance(part, str)
                              else part)  # fmt: skip
            self._digest = hasher.hexdigest()
        return self._digest


class _Reader:
    """Reader of turns into JSON values that counts how much it has read."""

    def __init__(self) -> None:
        self.size = 0
        self.unreadable = ""
        self._values = 0
        self._calls: dict[Any, int] = {}

    def _spend(self, size: int) -> None:
        self.size += size
        self._values += 1
        if self.size > MAX_HISTORY_CHARS or self._values > MAX_HISTORY_VALUES:
            raise TooLargeError

    # -------------------------------------------------------------------------- turns

    def turn(self, turn: Any) -> list[Any]:
        """Return the content of one turn."""
        if type(turn) is dict and _PLAIN.issuperset(turn):
            # nearly all turns are like this
            role, content = turn.get("role"), turn.get("content")
            if role and isinstance(role, str) and isinstance(content, str):
                return ["turn", _role(role), "", self._text(content), [], []]
        if isinstance(turn, str):
            return ["text", self._text(exact_form(turn) if len(turn) <= _LONG else turn)]
        if isinstance(turn, (tuple, list)) and not hasattr(turn, "_fields"):
            role, content = turn if len(turn) == 2 else (None, None)
            if isinstance(role, str):
                return ["turn", _role(role), "", self._content(content), [], []]
        get = _getter(turn)
        if get is None and hasattr(turn, "role"):
            get = partial(_attribute, turn)
        if get is None:
            msg = (
                "a turn must be a str, a mapping, a (role, content) pair or a message object, "
                f"not {type(turn).__name__}"
            )
            raise TypeError(msg)
        role = _plain(get("role")) or _plain(get("type")) or _plain(get("kind"))
        content = self._said(get)
        calls = get("tool_calls") or get("function_call") or _additional(get)
        if not role or (content is None and not calls):
            return ["fields", self._part(turn, 1)]
        found = self._tool_calls(calls)
        more = [[name, self._value(get(name), 1)] for name in _ATTACHED if get(name)]
        if (number := self._refers(get)) is not None:
            more.append(["call", number])
        name = get("name")
        said = name if isinstance(name, str) else ""
        return ["turn", _role(role), said, content, found, more]

    def _said(self, get: Callable[[str], Any]) -> Any:
        """Return the content of a message from whichever fields hold it."""
        content = get("content")
        parts = get("blocks") or get("parts")
        if not isinstance(parts, (list, tuple)):
            return None if content is None else self._content(content)
        found = self._content(parts)
        if content is None or (said := self._content(content)) == found:
            return found
        return [said, found]

    def _content(self, content: Any) -> Any:
        """Return a message's content; a single text equals a list of this text only."""
        if content is None:
            return None
        if isinstance(content, str):
            return self._text(content)
        if isinstance(content, (list, tuple)):
            parts = [self._text(item) if isinstance(item, str) else self._part(item, 1)
                     for item in content]  # fmt: skip
            return parts[0] if len(parts) == 1 and isinstance(parts[0], (str, _Long)) else parts
        return self._part(content, 1)

    def _part(self, part: Any, depth: int) -> Any:
        """Return the content of a part, or of a turn of an unknown form."""
        get = _getter(part)
        if get is None:
            return self._value(part, depth)
        kind, text = get("type") or get("block_type"), get("text")
        fields = {name: value for name, value in _fields(part).items() if value is not None}
        kept = {
            name: value
            for name, value in fields.items()
            if not (isinstance(name, str) and name.lower() in _VOLATILE)
        }
        if not kept.keys() - {"type"}:
            kept = fields
        if isinstance(text, str) and not kept.keys() - _OF_A_TEXT and _plain(kind) in _TEXT_PARTS:
            return self._text(text)
        if isinstance(kind, str) and ("use" in kind or "call" in kind) and "output" not in kind:
            self._number(fields)
        found = {_key(name): self._value(value, depth + 1) for name, value in kept.items()}
        for name in ("arguments", "args", "input"):
            if isinstance(kept.get(name), str):
                found[name] = self._arguments(kept[name])
        if kind is not None and (number := self._refers(get)) is not None:
            found["#call"] = number
        return found

    def _text(self, text: str) -> Any:
        self._spend(len(text))
        text = text.strip()
        if len(text) > _LONG:
            return _Long(text)
        return text if text.isascii() else normalize("NFC", text)

    # -------------------------------------------------------------------------- tools

    def _tool_calls(self, calls: Any) -> list[Any]:
        """Return names and arguments of tool calls, in order."""
        if not calls:
            return []
        found: list[Any] = []
        for call in calls if isinstance(calls, (list, tuple)) else [calls]:
            get = _getter(call)
            if get is None:
                found.append(self._value(call, 1))
                continue
            self._number(_fields(call))
            inner = _getter(get("function")) or get
            arguments = next(
                (value for name in ("arguments", "args", "input")
                 if (value := inner(name)) is not None), None
            )  # fmt: skip
            if inner("name") is None:
                found.append(self._part(call, 1))
            else:
                found.append([self._value(inner("name"), 1), self._arguments(arguments)])
        return found

    def _arguments(self, arguments: Any) -> Any:
        """Return a call's arguments, given as text or as an object, in any order and spacing."""
        if isinstance(arguments, str):
            self._spend(len(arguments))
            try:
                # numbers stay texts: 1 and 1.0 may differ to a tool
                arguments = json.loads(
                    arguments, parse_float=_Number, parse_int=_Number, parse_constant=_Number,
                    object_pairs_hook=_once,
                )  # fmt: skip
            except (ValueError, RecursionError):
                return self._value(arguments, 1)
        return self._value(arguments, 1)

    def _number(self, fields: Mapping[Any, Any]) -> None:
        """Number a call: ids are random, but the call that a result belongs to is content."""
        for name in ("id", *_REFERRING):
            identity = fields.get(name)
            if isinstance(identity, str):
                self._calls.setdefault(identity, len(self._calls))

    def _refers(self, get: Callable[[str], Any]) -> int | None:
        for name in _REFERRING:
            identity = get(name)
            if isinstance(identity, str):
                return self._calls.get(identity)
        return None

    # -------------------------------------------------------------------------- values

    def _value(self, value: Any, depth: int) -> Any:
        """Return any value as JSON; types that JSON lacks are tagged."""
        if depth > _DEEPEST:
            msg = f"history must not be nested more than {_DEEPEST} deep"
            raise TypeError(msg)
        if isinstance(value, _Number):
            self._spend(1)
            return {"#": ["number", str.__str__(value)]}
        if isinstance(value, Enum):
            return self._value(value.value, depth + 1)
        if isinstance(value, str):
            self._spend(len(value))
            return value if len(value) <= _LONG else _Long(value)
        if value is None or isinstance(value, bool):
            self._spend(1)
            return value
        if isinstance(value, (int, float)):
            self._spend(1)
            huge = isinstance(value, int) and abs(value) > _HUGE
            kind = int if isinstance(value, int) else float
            return {"#": ["number", f"{value:x}" if huge else kind.__repr__(value)]}
        if isinstance(value, Mapping):
            self._spend(1)
            return {_key(name): self._value(item, depth + 1) for name, item in value.items()}
        if isinstance(value, (list, tuple)) or (
            isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview))
        ):
            self._spend(1)
            return [self._value(item, depth + 1) for item in value]
        return self._other(value, depth)

    def _other(self, value: Any, depth: int) -> Any:
        self._spend(1)
        if isinstance(value, (bytes, bytearray, memoryview)):
            self._spend(len(value))
            return {"#bytes": _Long(bytes(value))}
        if isinstance(value, (date, time, timedelta, Decimal, UUID, PurePath)):
            return {"#": [type(value).__name__, str(value)]}
        if isinstance(value, AbstractSet):
            items = [self._value(item, depth + 1) for item in value]
            return {"#set": sorted(items, key=_written)}
        if getattr(value, "shape", None) == () and callable(getattr(value, "item", None)):
            return self._value(value.item(), depth + 1)
        if callable(getattr(value, "tobytes", None)):  # arrays and pictures
            data = value.tobytes()
            self._spend(len(data))
            shape = [str(getattr(value, name, "")) for name in ("dtype", "shape", "mode", "size")]
            return {"#bytes": _Long(data), "#": [type(value).__name__, *shape]}
        fields = _fields(value)
        if fields:
            return {_key(name): self._value(item, depth + 1) for name, item in fields.items()}
        self.unreadable = type(value).__name__
        return {"#": ["unreadable", token_hex(16)]}


class _Number(str):
    """Number as written in JSON."""

    __slots__ = ()


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; raise `ValueError` if a name occurs twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _key(name: Any) -> str:
    """Return the name of a field; one that is not a str differs from any str."""
    if isinstance(name, str):
        return "#" + name if name.startswith("#") else str.__str__(name)
    return f"#{type(name).__name__} {name!r}"


def _role(role: str) -> str:
    return _ROLES.get(role.lower(), role)


def _plain(role: Any) -> str | None:
    value = role.value if isinstance(role, Enum) else role
    return value if isinstance(value, str) and value else None


def _additional(get: Callable[[str], Any]) -> Any:
    inner = _getter(get("additional_kwargs"))
    return None if inner is None else inner("tool_calls") or inner("function_call")


def _getter(value: Any) -> Callable[[str], Any] | None:
    """Return a function that reads a field of a mapping or an object; `None` without fields."""
    if isinstance(value, Mapping):
        return value.get
    fields = _fields(value)
    if not fields:
        return None

    return lambda name: fields[name] if name in fields else _attribute(value, name)


def _attribute(value: Any, name: str) -> Any:
    try:
        found = getattr(value, name, None)
    except Exception:  # noqa: BLE001 - a property of somebody else's class
        return None
    return None if callable(found) else found


_NO_OBJECTS = (
    str, bytes, bytearray, memoryview, int, float, complex, list, tuple, AbstractSet, type,
    date, time, timedelta, Decimal, UUID, PurePath, Enum,
)  # fmt: skip


def _fields(value: Any) -> Mapping[Any, Any]:
    """Return the fields of a mapping, a dataclass, a model or another object; empty for a value."""
    if isinstance(value, Mapping):
        return value
    if hasattr(value, "_asdict"):
        return dict(value._asdict())
    if value is None or isinstance(value, _NO_OBJECTS) or callable(value):
        return {}
    if callable(getattr(value, "tobytes", None)) or not _is_of_python(type(value)):
        # it holds more than its attributes
        return {}
    if dataclasses.is_dataclass(value):
        return {item.name: getattr(value, item.name, None) for item in dataclasses.fields(value)}
    found = dict(getattr(value, "__dict__", {}))
    extra = getattr(value, "__pydantic_extra__", None)
    if isinstance(extra, Mapping):
        found.update(extra)
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if not name.startswith("__") and hasattr(value, name):
                found[name] = getattr(value, name)
    return found


def _is_of_python(kind: type) -> bool:
    """Return whether an object of this class keeps all its content in attributes."""
    plain = (object, SimpleNamespace)
    return all(base in plain or base.__flags__ & _HEAP_TYPE for base in kind.__mro__)


# ------------------------------------------------------------------------------------- digests


def _digested(value: object) -> Any:
    if isinstance(value, _Long):
        return {"#long": value.digest()}
    msg = f"{type(value).__name__} is not JSON"
    raise TypeError(msg)


def fingerprint(history: History) -> str:
    """Return a digest of *history*; combine it with a secret before it names anything."""
    hasher = blake2b(digest_size=32)
    for turn in history.turns:
        # one by one, so that other threads, also the event loop's, can run in between
        hasher.update(_written(turn).encode("ascii") + b"\n")
    return hasher.hexdigest()


async def fingerprint_of(history: History) -> str:
    """Return the digest of *history*, computed in a thread if that takes long."""
    if history.size <= _ON_THE_LOOP:
        return fingerprint(history)
    return await off_loop(fingerprint, history)


def last_texts(history: History, count: int) -> list[str]:
    """Return the texts in the last *count* turns of *history*."""
    found: list[str] = []
    said = [turn[3] if turn[0] == "turn" else turn[1] for turn in history.turns[-count:]]
    while said:
        item = said.pop()
        if isinstance(item, _Long):
            item = item.value
        if isinstance(item, str):
            found.append(item)
        elif isinstance(item, list):
            said += item
        elif isinstance(item, dict):
            said += item.values()
    return found


_FIELDS = ("role", "name", "content", "tool calls", "attachments")


def marks_of(history: History) -> dict[str, int]:
    """Return a number for each field, `turn 1 (system): content`, that changes with it."""
    found: dict[str, int] = {}
    for number, (kind, *parts) in enumerate(history.turns, 1):
        role = f" ({parts[0]})" if kind == "turn" else ""
        names = _FIELDS if kind == "turn" else ("text",)
        for name, part in zip(names, parts, strict=True):
            found[f"turn {number}{role}: {name}"] = hash(_written(part))
    return found


_written = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=_digested).encode
