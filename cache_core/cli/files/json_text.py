"""JSON in its common forms: lines, an array, or an object that contains the rows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol, TextIO

from cache_core.cli.files import values
from cache_core.cli.files.errors import UnusableFile
from cache_core.cli.files.record import FileRecord
from cache_core.cli.files.roles import is_turns
from cache_core.cli.files.source import MAX_RECORD, lines

_CHUNK = 2**20
_LINES_LOOKED_AT = 20
_LONGEST_WORD = 16
"""More characters than a literal or an escape, which the end of the buffer may cut."""

_DEEP = 3
"""Most objects around the list of rows."""

_BAD = (ValueError, RecursionError)
_NOTHING = object()
_BLANK = " \t\r\n\ufeff"


class Judge(Protocol):
    """Recogniser of rows."""

    def is_row(self, values: Mapping[str, Any], *, weak: bool) -> bool:
        """Return whether an object is a row itself, with *weak* names if allowed."""
        ...

    def are_pairs(self, values: Mapping[str, Any]) -> bool:
        """Return whether an object's names may be questions, and its values their answers."""
        ...


_BEGINS = re.compile(r'[\s\ufeff]*(\{\s*["}]|\[\s*[\[{"\]])')


def is_json(text: TextIO) -> bool:
    """Return whether a file begins like a JSON object or array; reads from its start."""
    begins = _BEGINS.match(text.read(_CHUNK)) is not None
    text.seek(0)
    return begins


def records(text: TextIO, judge: Judge) -> tuple[str, Iterator[FileRecord]]:
    """Return the form in words, and the rows.

    Raises:
        UnusableFile: If the text is not JSON.
    """
    first = _first_line(text)
    text.seek(0)
    value = _parsed(first)
    if value is _NOTHING:
        if first.strip(_BLANK)[:1] not in {"{", "["} or _is_broken_line(text):
            return "JSON Lines", _by_line(text, judge)
        return "JSON", _documents(text, judge)
    if _is_alone(text):
        return "JSON", (FileRecord(1, row) for row in _rows(value, judge))
    return "JSON Lines", _by_line(text, judge)


def _first_line(text: TextIO) -> str:
    return next((line for line in lines(text) if line.strip(_BLANK)), "")


def _is_alone(text: TextIO) -> bool:
    """Return whether exactly one line is not blank; rewinds the file."""
    count = 0
    for line in lines(text):
        count += bool(line.strip(_BLANK))
        if count > 1:
            break
    text.seek(0)
    return count == 1


def _is_broken_line(text: TextIO) -> bool:
    """Return whether the first line is a damaged one of JSON Lines; rewinds the file."""
    some = [_parsed(line) for line in islice(lines(text), _LINES_LOOKED_AT)]
    text.seek(0)
    if not any(isinstance(value, dict) for value in some):
        return False
    try:
        for _ in _Values(text).all():
            pass
    except UnusableFile:
        return True
    else:
        return False
    finally:
        text.seek(0)


def _parsed(line: str) -> Any:
    try:
        return json.loads(line.strip(_BLANK))
    except _BAD:
        return _NOTHING


def _by_line(text: TextIO, judge: Judge) -> Iterator[FileRecord]:
    for number, line in enumerate(lines(text), start=1):
        if not line.strip(_BLANK):
            continue
        try:
            value = json.loads(line.strip(_BLANK).removesuffix(","))
        except _BAD as error:
            yield FileRecord(number, {}, f"not JSON ({_short(error)})")
            continue
        yield from _line_records(number, value, judge)


def _line_records(number: int, value: Any, judge: Judge) -> Iterator[FileRecord]:
    """Yield the rows of one line or element: a row, the turns of a conversation, or several."""
    if isinstance(value, Mapping):
        yield FileRecord(number, dict(value))
    elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        turns = {"messages": value}
        for row in [turns] if judge.is_row(turns, weak=False) else value:
            yield FileRecord(number, dict(row))
    elif (
        isinstance(value, list)
        and value
        and not any(isinstance(item, (Mapping, list)) for item in value)
    ):
        yield FileRecord(number, {str(place): item for place, item in enumerate(value, start=1)})
    else:
        yield FileRecord(number, {}, f"expected an object, found {type(value).__name__}")


def _documents(text: TextIO, judge: Judge) -> Iterator[FileRecord]:
    """Yield the rows of a file without one value per line."""
    values = _Values(text)
    if values.peek() == "[":
        yield from (
            record
            for line, value in values.elements()
            for record in _line_records(line, value, judge)
        )
        return
    found = [*values.all()]
    if len(found) == 1:
        line, value = found[0]
        yield from (FileRecord(line, row) for row in _rows(value, judge))
        return
    for line, value in found:
        yield from _line_records(line, value, judge)


class _Values:
    """Consecutive JSON values, decoded while the text is read."""

    def __init__(self, text: TextIO) -> None:
        self._text = text
        self._buffer = ""
        self._at = 0
        self._line = 1
        self._ended = False
        self._decode = json.JSONDecoder().raw_decode

    def peek(self) -> str:
        """Return the next character that is not blank; empty at the end."""
        while True:
            while self._at < len(self._buffer) and self._buffer[self._at] in _BLANK:
                self._line += self._buffer[self._at] == "\n"
                self._at += 1
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if not self._more():
                return ""

    def all(self) -> Iterator[tuple[int, Any]]:
        """Yield each value with the number of its first line."""
        while sign := self.peek():
            if sign == ",":
                self._at += 1
            else:
                yield self._line, self._value()

    def elements(self) -> Iterator[tuple[int, Any]]:
        """Yield each element of an array with the number of its first line."""
        self._at += 1
        while (sign := self.peek()) != "]":
            if not sign:
                raise UnusableFile(
                    f"line {self._line}: the array is not closed: is the file complete?"
                )
            if sign == ",":
                self._at += 1
            else:
                yield self._line, self._value()
        self._at += 1
        yield from self.all()

    def _value(self) -> Any:
        while True:
            try:
                value, end = self._decode(self._buffer, self._at)
            except _BAD as error:
                if self._is_final(error) or not self._more():
                    raise UnusableFile(
                        f"{self._where(error)}: not JSON ({_short(error)})"
                    ) from None
                continue
            # a number at the buffer's end may continue after it
            if end == len(self._buffer) and self._more():
                continue
            self._line += self._buffer.count("\n", self._at, end)
            self._at = end
            return value

    def _is_final(self, error: Exception) -> bool:
        """Return whether reading on cannot correct the error."""
        if not isinstance(error, json.JSONDecodeError) or error.msg.startswith("Unterminated"):
            return isinstance(error, RecursionError)
        return error.pos + _LONGEST_WORD < len(self._buffer)

    def _where(self, error: Exception) -> str:
        at = error.pos if isinstance(error, json.JSONDecodeError) else self._at
        return f"line {self._line + self._buffer.count(chr(10), self._at, at)}"

    def _more(self) -> bool:
        """Read as much again as is in the buffer, so that long values cost little."""
        if self._ended:
            return False
        self._buffer = self._buffer[self._at :]
        self._at = 0
        if len(self._buffer) > MAX_RECORD:
            raise UnusableFile(
                f"line {self._line}: a value has more than {MAX_RECORD:,} characters"
            )
        chunk = self._text.read(max(_CHUNK, len(self._buffer)))
        self._ended = not chunk
        self._buffer += chunk
        return bool(chunk)


def _short(error: Exception) -> str:
    return "nested too deep" if isinstance(error, RecursionError) else str(error)[:120]


def _rows(document: Any, judge: Judge) -> Iterator[dict[str, Any]]:
    """Yield the rows of one document."""
    if isinstance(document, list):
        found = [record.values for record in _elements(document, judge)]
    elif isinstance(document, Mapping):
        found = _held(document, judge)
    else:
        found = []
    if not found and document not in ([], {}):
        raise UnusableFile(f"expected a list of rows, found {values.found(document)}")
    yield from found


def _elements(values: Sequence[Any], judge: Judge) -> Iterator[FileRecord]:
    for number, value in enumerate(values, start=1):
        yield from _line_records(number, value, judge)


def _held(document: Mapping[str, Any], judge: Judge) -> list[dict[str, Any]]:
    """Return the rows of an object: itself, its columns, its longest list, or its pairs."""
    table = _table(document)
    if table and judge.is_row(table[0], weak=True):
        return table
    columns = _columns(document)
    if columns is not None and judge.is_row(columns[0], weak=False):
        return columns
    if judge.is_row(document, weak=False):
        return [dict(document)]
    lists = sorted(_lists(document, _DEEP), key=len, reverse=True)
    for found in lists:
        if any(judge.is_row(item, weak=True) for item in found):
            return found
    if judge.is_row(document, weak=True):
        return [dict(document)]
    if judge.are_pairs(document):
        return [{"question": key, "answer": value} for key, value in document.items()]
    return lists[0] if lists else [dict(document)] if document else []


def _lists(value: Mapping[str, Any], depth: int) -> Iterator[list[dict[str, Any]]]:
    """Yield the lists of objects in an object, and the objects in it by id."""
    for item in (value, *value.values()):
        inner = list(item.values()) if isinstance(item, Mapping) else item
        if _are_all(inner, dict) and not is_turns(inner):
            yield [dict(row) for row in inner]
    if depth > 1:
        for item in value.values():
            if isinstance(item, Mapping):
                yield from _lists(item, depth - 1)


def _table(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a table of lists: `columns` and `data`, or `values` under their header."""
    header: Any = document.get("columns")
    rows: Any = document.get("data")
    values = document.get("values")
    if header is None and isinstance(values, list) and len(values) > 1:
        header, rows = values[0], values[1:]
    if header is None or not _are_all(header, str) or not _are_all(rows, list):
        return []
    return [dict(zip(header, row, strict=False)) for row in rows]


def _are_all(values: Any, kind: type) -> bool:
    return (
        isinstance(values, list) and bool(values) and all(isinstance(one, kind) for one in values)
    )


def _columns(document: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return the rows of an object of columns: lists, or objects with the same keys."""
    columns = {
        name: value if isinstance(value, list) else list(value.values())
        for name, value in document.items()
        if isinstance(value, (list, Mapping))
    }
    lengths = {len(column) for column in columns.values()}
    if len(columns) < 2 or len(columns) != len(document) or len(lengths) != 1 or not max(lengths):
        return None
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
