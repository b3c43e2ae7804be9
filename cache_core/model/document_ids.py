"""Ids of documents, by which they can be invalidated, wherever a retriever puts them.

Frameworks disagree about where the id is, and often give two: that of a chunk, and that of the
file it was cut from. An operator knows one of them. So every identifying field is collected: a
superfluous id costs a row in an index, a missing one leaves an outdated answer in service.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import numbers
import pathlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from uuid import UUID

_LONGEST = 32_768
"""Longest id, in characters; longer values are texts."""

_FIELDS = 1_000
"""Most fields of a document that are read; embeddings and the like do not count."""

_IDENTIFYING = frozenset({
    "id", "ids", "uid", "uuid", "guid", "uri", "url", "urls", "link", "href", "source", "sources",
    "path", "paths", "file", "files", "filename", "filenames", "filepath", "ref", "key", "docid",
    "fileid", "nodeid", "chunkid", "doc", "document", "sourcefile", "sourcepage", "permalink",
})  # fmt: skip
"""Last words of the names of identifying fields."""

_NAMED = frozenset({"file", "doc", "document", "source", "page", "blob", "object", "storage"})
"""Owners whose `name` is an id, in `file_name` or in `{"document": {"name": ...}}`."""

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_FRAGMENT = re.compile(r"((?:[A-Za-z][\w+.-]*://|.*\.\w{1,8}(?=#))[^#]*)#", re.DOTALL)
_PROPERTIES = (
    "id", "uuid", "doc_id", "document_id", "ref_doc_id", "node_id", "source", "uri", "url",
    "metadata", "meta", "node", "document",
)  # fmt: skip


def same_id(value: str) -> str:
    """Return *value* normalised for comparison: NFC, without white space around it.

    File systems decompose: a Mac's `Rückgabe.pdf` has one code point more.
    """
    return unicodedata.normalize("NFC", value).strip() or value


def ids_of(documents: Iterable[Any]) -> list[str]:
    """Return all ids in *documents*, each once.

    They are the values of fields with an identifying name (`id`, `source`, `metadata.doc_id`,
    `node.ref_doc_id`, `location.s3Location.uri`), in mappings and in objects. The part of a URL or
    file name before a fragment is another id.
    """
    found: dict[str, None] = {}
    for document in documents:
        # properties of foreign objects may raise anything
        with contextlib.suppress(Exception):
            for value in _ids(document):
                found |= dict.fromkeys(names_of(value))
    return list(found)


def names_of(value: str) -> list[str]:
    """Return the ids in *value*: itself, and the document that it is a part of."""
    whole = _FRAGMENT.match(value)
    return [same_id(value)] if whole is None else [same_id(value), same_id(whole[1])]


def _ids(document: Any) -> Iterator[str]:
    waiting: list[tuple[str, Any]] = [("", document)]
    seen: set[int] = set()
    looked_at = 0
    while waiting and looked_at < _FIELDS:
        container, item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, (list, tuple)) and not hasattr(item, "_fields"):
            # a document and its score, or several chunks
            waiting += [(container, part) for part in item[:_FIELDS] if not _is_plain(part)]
            continue
        for name, value in _fields(item).items():
            looked_at += 1
            if _identifies(str(name), container):
                yield from _texts(value)
            if not _is_plain(value):
                waiting.append((str(name), value))


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (str, bytes, int, float)) or callable(value)


def _identifies(name: str, container: str) -> bool:
    words = [word.lower() for word in _WORD.findall(name)]
    if not words:
        return False
    if words[-1] == "name":
        owner = words[-2:-1] or [word.lower() for word in _WORD.findall(container)][-1:]
        return bool(_NAMED.intersection(owner))
    return words[-1] in _IDENTIFYING


def _texts(value: Any) -> Iterator[str]:
    """Yield *value* as an id, or the ids in a list of values."""
    values = value if isinstance(value, (list, tuple)) else (value,)
    for item in values[:_FIELDS]:
        plain = item.value if isinstance(item, enum.Enum) else item
        if isinstance(plain, numbers.Real):
            yield from _of_number(plain)
        elif isinstance(plain, (str, UUID, pathlib.PurePath)):
            text = str(plain)
            if text and not text.isspace() and len(text) <= _LONGEST:
                yield text


def _of_number(value: numbers.Real) -> Iterator[str]:
    """Yield a whole number as an id, also as tables write it: `7` and `7.0`."""
    if isinstance(value, numbers.Integral):
        if not isinstance(value, bool):
            yield str(int(value))
    elif float(value).is_integer():
        yield from (str(int(float(value))), str(float(value)))


def _fields(value: Any) -> Mapping[Any, Any]:
    """Return the fields of a mapping or an object by their names."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, (set, frozenset, enum.Enum)):
        return {}
    names: Iterable[str] = getattr(value, "_fields", ())
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
    found = {name: getattr(value, name, None) for name in names}
    found |= getattr(value, "__dict__", {})
    if not found and hasattr(value, "keys") and hasattr(value, "__getitem__"):
        return {name: value[name] for name in value.keys()}  # noqa: SIM118 - no mapping: a row
    for name in _PROPERTIES:
        found.setdefault(name, getattr(value, name, None))
    return found
