"""Conversion of a file's values: to text, an id, a time, a flag, a context.

Every function accepts any JSON value or CSV cell, returns `None` for nothing, and raises
`BadValue` with what was expected and what was found.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from html import unescape
from typing import Any

from cache_core.cli.files.errors import BadValue
from cache_core.cli.files.roles import content, is_turns, role

_DEEPEST = 100
"""Most levels of a context, history or documents; the cache itself rejects 500."""

_TEXTUAL = {"text", "input_text", "output_text", "message"}
"""Types of content parts that are text."""

_MILLI = 1e11
"""Times above this are not seconds, which would lie beyond the year 5000."""

_LAST = 253_402_300_799
"""The end of the year 9999, in seconds since the epoch."""

_TRUE = {"true", "yes", "y", "t", "1"}
_FALSE = {"false", "no", "n", "f", "0"}
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?(e[+-]?\d+)?", re.IGNORECASE)


def found(value: Any) -> str:
    """Return a description of a value, for an error."""
    if isinstance(value, str):
        return repr(value[:40])
    names = {bool: "true/false", dict: "an object", list: "a list", type(None): "nothing"}
    return names.get(type(value), f"the number {value!r:.40}")


def text(value: Any) -> str | None:
    """Return text, also from a number, content parts, a message or a model's reply."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        return value if value and not value.isspace() else None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _number(value)
    if isinstance(value, list) and value:
        return _text_of_list(value)
    if isinstance(value, Mapping):
        kind = value.get("type")
        if kind is not None and str(kind) not in _TEXTUAL:
            raise BadValue(f"expected text alone, found a part of type {kind!r:.40}")
        for name in ("choices", "message", "content", "text", "value", "parts"):
            if value.get(name) is not None:
                inner = value[name]
                return text(inner[0] if name == "choices" and isinstance(inner, list) and inner
                            else inner)  # fmt: skip
    raise BadValue(f"expected text, found {found(value)}")


def _text_of_list(parts: list[Any]) -> str | None:
    """Return the text of content parts, or of the assistant's last turn."""
    if is_turns(parts):
        said = [turn for turn in parts if role(turn) == "assistant"]
        return text(content(said[-1])) if said else None
    if not all(isinstance(part, Mapping) for part in parts):
        raise BadValue(f"expected text, found {found(parts)}")
    texts = [text(part) for part in parts]
    return text("".join(part for part in texts if part))


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    if not math.isfinite(value):
        raise BadValue(f"expected a finite number, found {value}")
    return str(int(value)) if value.is_integer() else str(value)


def user(value: Any) -> str | None:
    """Return a user's id, which is often a number."""
    if isinstance(value, (bool, list, Mapping)):
        raise BadValue(f"expected text or a number, found {found(value)}")
    read = text(value)
    return read.strip() if read else None


def label(value: Any) -> str | None:
    """Return an intent or an answer's id."""
    return user(value)


def labels(value: Any) -> tuple[str, ...] | None:
    """Return tags: a list, or a text separated by `,`, `;` or `|`."""
    value = _from_json(value)
    if value is None:
        return None
    if isinstance(value, str):
        value = re.split(r"[,;|]", value)
    if not isinstance(value, list):
        value = [value]
    return tuple(filter(None, (user(item) for item in value))) or None


def flag(value: Any) -> bool | None:
    """Return true or false, also from text and from 0 and 1."""
    if value is None or isinstance(value, bool):
        return value
    word = str(value).strip().casefold()
    if not word or word == "nan":
        return None
    if word in _TRUE | _FALSE | {"1.0", "0.0"} and not isinstance(value, (list, Mapping)):
        return word in _TRUE | {"1.0"}
    raise BadValue(f"expected true or false, found {found(value)}")


def seconds(value: Any) -> float | None:
    """Return a time in seconds, from seconds, milli-, micro- or nanoseconds, or ISO 8601.

    Text without a zone counts as UTC.
    """
    if isinstance(value, (bool, list, Mapping)):
        raise BadValue(f"expected a time, found {found(value)}")
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        if isinstance(value, str) and not _NUMBER.fullmatch(value.strip()):
            when = datetime.fromisoformat(_zone(value.strip()))
            return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
        number = float(value)
    except (ValueError, OverflowError):
        number = math.nan
    if math.isnan(number) and isinstance(value, float):
        return None
    while number > _MILLI:
        number /= 1_000
        if math.isinf(number):
            break
    if not -_LAST <= number <= _LAST:
        raise BadValue(
            f"expected seconds, milliseconds or ISO 8601, as 2026-11-01T09:30:00Z, "
            f"found {found(value)}"
        )
    return number


def _zone(when: str) -> str:
    """Return ISO 8601 for `fromisoformat`, from `2026-11-01 09:30:00 UTC` and the like."""
    return re.sub(r"\s*(UTC|GMT)$", "+00:00", when)


def context(value: Any) -> str | dict[str, Any] | None:
    """Return a context: text, or a JSON object, also as text."""
    value = _from_json(value)
    if value is None or value in ({}, []):
        return None
    if _is_said(value):
        return text(value)
    if isinstance(value, (dict, list)):
        whole: dict[str, Any] = _finite(value if isinstance(value, dict) else {"context": value})
        return whole
    if isinstance(value, bool):
        return str(value).lower()
    return text(value)


def _is_said(value: Any) -> bool:
    """Return whether a value is a system prompt of a chat API: a message, or its parts."""
    parts = value if isinstance(value, list) else [value]
    return bool(parts) and all(
        isinstance(part, dict)
        and part
        and part.keys() <= {"role", "type", "text", "content", "parts"}
        for part in parts
    )


def documents(value: Any) -> tuple[Any, ...] | None:
    """Return retrieved documents: a list, or a single document."""
    value = _from_json(value)
    if value is None:
        return None
    return tuple(_finite(value if isinstance(value, list) else [value]))


def turns(value: Any) -> tuple[Any, ...] | None:
    """Return the earlier turns: texts, objects, or pairs of question and answer."""
    value = _from_json(value)
    if value is None:
        return None
    if not isinstance(value, list):
        raise BadValue(f"expected a list of turns, found {found(value)}")
    given: list[Any] = []
    for turn in value:
        if (
            isinstance(turn, list)
            and len(turn) == 2
            and all(isinstance(part, str) for part in turn)
        ):
            given += [{"role": name, "content": part}
                      for name, part in zip(("user", "assistant"), turn, strict=True)]  # fmt: skip
        elif isinstance(turn, (str, dict)):
            given.append(turn)
        else:
            raise BadValue(f"expected turns of text or objects, found {found(turn)}")
    return tuple(_finite(given))


def _from_json(value: Any) -> Any:
    """Return the JSON value in a cell, or the value itself; `None` for nothing."""
    if isinstance(value, float) and math.isnan(value):
        return None
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    if value.lstrip()[0] in "[{":
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _finite(value: Any) -> Any:
    """Return a JSON value that the cache accepts as a context, a history or documents."""
    try:
        json.dumps(value, allow_nan=False)
        if _depth(value) > _DEEPEST:
            raise RecursionError(f"nested more than {_DEEPEST} deep")
    except (ValueError, RecursionError) as error:
        raise BadValue(f"expected JSON with finite numbers ({error})") from None
    return value


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level := [
        inner
        for item in level
        if isinstance(item, (dict, list))
        for inner in (item.values() if isinstance(item, dict) else item)
    ]:
        depth += 1
    return depth


_LINE_AFTER = {"p", "div", "tr", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "table", "pre"}
_BEFORE = {"br": "\n", "li": "\n- ", "td": " ", "th": " "}
_LEFT_OUT = {"script", "style", "head"}
_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)(?=[\s/>])([^<>]*)>|<![^<>]*>")
_RUNNING = re.compile(
    r"</?(?:p|div|br|ul|ol|li|a|b|i|em|strong|span|h[1-6]|table|td|img)(?=[\s/>])[^<>]*>",
    re.IGNORECASE,
)
_LINK = re.compile(r"""\bhref\s*=\s*["']?((?:https?:|mailto:)[^"'\s>]+)""", re.IGNORECASE)


def has_html(value: str) -> bool:
    """Return whether a text contains HTML tags of running text."""
    return _RUNNING.search(value) is not None


def plain(value: str) -> str:
    """Return HTML as text: a line for each paragraph and list item, links after their text."""
    # the standard library's parser takes quadratic time for unclosed tags
    parts: list[str] = []
    links: list[str] = []
    hidden = at = 0
    for tag in _TAG.finditer(value):
        parts.append("" if hidden else re.sub(r"\s+", " ", value[at : tag.start()]))
        at = tag.end()
        closing, name, attributes = tag[1], (tag[2] or "").lower(), tag[3]
        if name in _LEFT_OUT:
            hidden = max(0, hidden - 1) if closing else hidden + 1
        elif name == "a" and not closing:
            link = _LINK.search(attributes)
            links.append(f" ({link[1]})" if link else "")
        elif name == "a":
            parts.append(links.pop() if links else "")
        elif closing:
            parts.append("\n" if name in _LINE_AFTER else "")
        else:
            parts.append(_BEFORE.get(name, ""))
    parts.append("" if hidden else re.sub(r"\s+", " ", value[at:]))
    rows = [" ".join(row.split()) for row in unescape("".join(parts)).split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(rows)).strip()
