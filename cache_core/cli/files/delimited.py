"""Delimited text: CSV and its relatives, with any delimiter."""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TextIO

from cache_core.cli.files.columns import Matcher
from cache_core.cli.files.record import FileRecord
from cache_core.cli.files.source import MAX_RECORD, lines

DELIMITERS = {",": "','", ";": "';'", "\t": "tab", "|": "'|'"}

_NONE = "\x1f"
"""Delimiter of a file of one column: a character that no text contains."""

_SAMPLE = 2**16
_LOOKED_AT = 50
_HEADER_WITHIN = 10
"""Rows among which the header is sought: exports may begin with a title."""

_EVEN = 0.75
"""Lowest share of rows of equal width in a table with unknown columns."""

_LONGEST_RECORD = 10_000
"""Most lines of a record; an unclosed quotation mark would take in the whole rest."""

_SEPARATOR = re.compile(r'"?sep=([,;|\t])"?\r?\n?')
"""First line in which Excel names the delimiter."""

_ESCAPED = re.compile(r'\\"(?!\s*([,;\t|\r\n]|\Z))')
_DOUBLED = re.compile(r'[^,;\t|\r\n\\]""|""[^,;\t|\r\n]')
"""Patterns of the two ways to quote a quotation mark."""

_UNCLOSED = "a quotation mark is opened and not closed; inside a text it is written twice"


@dataclass(frozen=True, slots=True)
class Layout:
    """Format of the rows of a file.

    Attributes:
        delimiter: The character between two values.
        escaped: Whether a quotation mark in a text is escaped by a backslash, not doubled.
        skipped: Number of records up to and including the header.
        header: Names of the columns; empty if the first row is data.
        width: Number of columns.
    """

    delimiter: str
    escaped: bool
    skipped: int
    header: tuple[str, ...]
    width: int

    @property
    def words(self) -> str:
        """The layout in words."""
        if self.delimiter == _NONE:
            return "one column"
        return f"columns separated by {DELIMITERS[self.delimiter]}"


def layout(text: TextIO, matcher: Matcher, *, header: bool = True) -> Layout:
    """Return the format of a file, detected from its beginning; reads from its start.

    The delimiter whose header names all required columns wins, then the one with the most rows of
    equal width, then the one with the most columns.
    """
    sample = text.read(_SAMPLE)
    text.seek(0)
    named = _SEPARATOR.match(sample)
    escaped = _ESCAPED.search(sample) is not None and _DOUBLED.search(sample) is None
    candidates = named[1] if named else "".join(DELIMITERS)
    judged = [_judged(sample, delimiter, escaped, header, matcher) for delimiter in candidates]
    (complete, even, width), chosen = max(judged, key=lambda one: one[0])
    if named or (width > 1 and (complete or even >= _EVEN)):
        return chosen
    return _judged(sample, _NONE, escaped, header, matcher)[1]


def _judged(
    sample: str, delimiter: str, escaped: bool, header: bool, matcher: Matcher
) -> tuple[tuple[bool, float, int], Layout]:
    """Return the quality of a delimiter, and the layout with it."""
    rows = _sampled(sample, delimiter, escaped)
    at = _header_at(rows, matcher) if header else 0
    names = rows[at] if rows else []
    width = len(names)
    even = sum(len(row) == width for row in rows) / len(rows) if width > 1 else 0.0
    complete = header and matcher.is_complete(tuple(names), weak=True)
    found = unique(names) if header else ()
    return (complete, round(even, 1), width), Layout(delimiter, escaped, at + header, found, width)


def unique(names: Sequence[str]) -> tuple[str, ...]:
    """Return unique column names: blank and repeated ones are named by their place."""
    found: dict[str, None] = {}
    for number, given in enumerate(names, start=1):
        name = given.strip().strip("\ufeff")
        found[name if name and name not in found else f"{name or 'column'} ({number})"] = None
    return tuple(found)


def records(text: TextIO, how: Layout) -> Iterator[FileRecord]:
    """Yield the rows after the header, with an error for those that do not fit it."""
    parsed = _split(text, how)
    for line, values, error in islice(parsed, how.skipped, None):
        names = how.header or tuple(str(place) for place in range(1, len(values) + 1))
        wrong = error or _too_many(values, how)
        yield FileRecord(line, dict(zip(names, values, strict=False)), wrong)


def _too_many(values: Sequence[str], how: Layout) -> str:
    """Return the error of a row with more values than columns; else empty."""
    if not any(value.strip() for value in values[how.width :]):
        return ""
    return (
        f"{len(values)} values in {how.width} columns, as a text that contains the delimiter "
        f"{DELIMITERS.get(how.delimiter, repr(how.delimiter))} must stand in quotation marks"
    )


def _sampled(sample: str, delimiter: str, escaped: bool) -> list[list[str]]:
    given = iter(sample.splitlines(keepends=True))
    found = [
        row for _, row, error in islice(_parsed(given, delimiter, escaped), _LOOKED_AT) if not error
    ]
    # the last record of a full sample may be cut
    if len(sample) == _SAMPLE and len(found) > 1:
        found.pop()
    return found


def _header_at(rows: Sequence[Sequence[str]], matcher: Matcher) -> int:
    """Return the index of the first row that names all required columns, else 0."""
    complete = (matcher.is_complete(tuple(row), weak=True) for row in rows[:_HEADER_WITHIN])
    return next((at for at, found in enumerate(complete) if found), 0)


def _split(text: TextIO, how: Layout) -> Iterator[tuple[int, list[str], str]]:
    # a limit of the whole process: only ever raised
    csv.field_size_limit(max(csv.field_size_limit(), MAX_RECORD))
    return _parsed(lines(text), how.delimiter, how.escaped)


def _parsed(
    given: Iterator[str], delimiter: str, escaped: bool
) -> Iterator[tuple[int, list[str], str]]:
    """Yield each record that is not blank: its first line's number, its values, its error.

    After an invalid record, parsing continues in the line after its first one: one stray quotation
    mark costs one row, not all that follow.
    """
    how = {"delimiter": delimiter, "skipinitialspace": True}
    if escaped:
        how |= {"escapechar": "\\", "doublequote": False}
    again: deque[str] = deque()
    line = 0
    while True:
        taken: list[str] = []
        values, error = _next(_source(again, given, taken), how, strict=True)
        if not taken:
            return
        if error:
            again.extendleft(reversed(taken[1:]))
            del taken[1:]
            values, error = _loosely(taken[0], how, error)
        if (error or values) and not (line == 0 and _SEPARATOR.fullmatch(taken[0])):
            yield line + 1, values, error
        line += len(taken)


def _source(again: deque[str], given: Iterator[str], taken: list[str]) -> Iterator[str]:
    """Yield lines and append them to *taken*; ends after the longest record."""
    while len(taken) < _LONGEST_RECORD:
        line = again.popleft() if again else next(given, None)
        if line is None:
            return
        taken.append(line)
        yield line


def _next(source: Iterator[str], how: dict[str, Any], *, strict: bool) -> tuple[list[str], str]:
    try:
        return next(csv.reader(source, strict=strict, **how)), ""
    except StopIteration:
        return [], ""
    except csv.Error as error:
        return [], _UNCLOSED if "end of data" in str(error) else str(error)


def _loosely(line: str, how: dict[str, Any], error: str) -> tuple[list[str], str]:
    """Parse a single line that is not strictly CSV, such as `"a" , "b"`."""
    if line.count('"') % 2:
        return [], _UNCLOSED if "expected after" in error else error
    values, other = _next(iter([line]), how, strict=False)
    return values, other or ("" if values else error)
