"""Reading of a file's rows, with a report of its contents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from cache_core.cli.files import delimited, json_text, shapes
from cache_core.cli.files.columns import Column, Matcher, mapping
from cache_core.cli.files.errors import BadValue, UnusableFile
from cache_core.cli.files.record import FileRecord
from cache_core.cli.files.roles import spoken
from cache_core.cli.files.source import FAULTS, Source, opened
from cache_core.model.exceptions import ConfigurationError

_JSON = {".json", ".jsonl", ".ndjson", ".jsonlines"}
_NAMED = 20
"""Most columns that a message lists."""

_EXAMPLES = 5
_NESTED = 100
_FROM_TURNS = {"message", "response", "history", "context"}


class How(NamedTuple):
    """Settings for reading a file.

    Attributes:
        mapped: `NAME=COLUMN` pairs, which override guesses from the columns' names.
        encoding: The file's encoding; `None` to detect it.
        header: Whether the first row names the columns; else they are `1`, `2`, ...
        strict: Whether a bad row is an error; else it is counted.
        limit: Most rows; `None` for all.
    """

    mapped: Sequence[str] = ()
    encoding: str | None = None
    header: bool = True
    strict: bool = False
    limit: int | None = None


class FileRow(NamedTuple):
    """Usable row: its line, and its values by the names of the wanted columns."""

    line: int
    values: dict[str, Any]


@dataclass(slots=True)
class Report:
    """Summary of a file; complete when all rows have been read.

    Attributes:
        name: The file's name.
        form: The file's format, in words.
        encoding: Encoding as in `Source`, like the next two.
        guessed, example: Whether the encoding is a guess, and a word decoded with it.
        before: Number of records before the header.
        columns: Number of rows with a value, by column.
        used: Number of rows whose value came from a column, by name and column.
        rows: Number of usable rows.
        empty: Number of empty rows.
        bad: Number of bad rows, by error.
        examples: The first bad rows: line and error.
        conversations: Number of rows that contain turns.
        strangers: Number of conversations without a named user.
        spoken: The columns of speaker and text, if each row is a turn of a chat.
    """

    name: str = ""
    form: str = ""
    encoding: str = "utf-8"
    guessed: bool = False
    example: str = ""
    before: int = 0
    columns: Counter[str] = field(default_factory=Counter)
    used: dict[str, Counter[str]] = field(default_factory=dict)
    rows: int = 0
    empty: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    examples: list[tuple[int, str]] = field(default_factory=list)
    conversations: int = 0
    strangers: int = 0
    spoken: tuple[str, ...] = ()

    @property
    def skipped(self) -> int:
        """Number of rows that were not used."""
        return self.empty + self.bad.total()

    @property
    def passed_over(self) -> list[str]:
        """Columns that no value was taken from, in order."""
        shown = {column for columns in self.used.values() for column in columns}
        used = shown | {part for column in shown for part in column.split(" + ")}
        heads = {column.partition(".")[0] for column in used}
        return [column for column in self.columns if column not in used | heads]

    def note_bad(self, line: int, why: str) -> None:
        """Count a bad row."""
        self.bad[why.partition(",")[0]] += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append((line, why))

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "name": self.name,
            "format": self.form,
            "encoding": self.encoding,
            "columns": {name: list(columns) for name, columns in self.used.items()},
            "passed_over": self.passed_over,
            "rows": self.rows,
            "empty": self.empty,
            "bad": self.bad.total(),
            "bad_rows": [{"line": line, "error": why} for line, why in self.examples],
        }


def read(path: Path, columns: Sequence[Column], how: How, report: Report) -> Iterator[FileRow]:
    """Yield the usable rows of a file; fill *report*.

    Args:
        path: The file; `-` for standard input.
        columns: Columns to read.
        how: Settings for reading.
        report: A new report; complete after the last row.

    Raises:
        ConfigurationError: If the file cannot be opened, or *how* does not fit it.
        UnusableFile: If no row is usable; with *how.strict*, if one is not.
    """
    given = mapping(how.mapped, columns)
    matcher = Matcher(columns, given)
    report.name = path.name
    try:
        with opened(path, how.encoding) as source:
            report.name, report.encoding = source.name, source.encoding
            report.guessed, report.example = source.guessed, source.example
            found = _chats(_records(path, source, matcher, how, report), report)
            rows = (row for record in found for row in _rows(record, columns, matcher, how, report))
            for row in islice(rows, how.limit):
                report.rows += 1
                yield row
    except UnusableFile as error:
        raise UnusableFile(f"{report.name}: {error}") from None
    except UnicodeError as error:
        raise UnusableFile(f"{report.name}: not {report.encoding} ({error})") from None
    except FAULTS as error:
        raise ConfigurationError(f"{report.name} cannot be read to its end: {error}") from None
    _check_mapped(given, report)
    if not report.rows:
        raise UnusableFile(_nothing(report, columns))


def _records(
    path: Path, source: Source, matcher: Matcher, how: How, report: Report
) -> Iterator[FileRecord]:
    if _JSON.intersection(map(str.lower, path.suffixes)) or json_text.is_json(source.text):
        report.form, found = json_text.records(source.text, _Judge(matcher))
        return found
    layout = delimited.layout(source.text, matcher, header=how.header)
    report.form = layout.words
    report.before = max(0, layout.skipped - 1)
    report.columns.update(dict.fromkeys(layout.header, 0))
    return delimited.records(source.text, layout)


def _chats(records: Iterator[FileRecord], report: Report) -> Iterator[FileRecord]:
    """Return the records; if each is one turn of a chat, the chats."""
    first = list(islice(records, 1))
    every = chain(first, records)
    if not first or not shapes.is_turn(first[0].values):
        return every
    report.form += ", a turn of a chat in each row"
    report.spoken = spoken(first[0].values)
    report.columns.update(dict.fromkeys(first[0].values, 1))
    return shapes.gathered(every)


class _Judge(NamedTuple):
    """Recogniser of rows by the names of their columns."""

    matcher: Matcher

    def is_row(self, values: Mapping[str, Any], *, weak: bool) -> bool:
        if shapes.holder(values) is not None:
            return True
        plain = tuple(name for name, value in values.items() if not isinstance(value, list))
        return self.matcher.is_complete(plain, weak=weak)

    def are_pairs(self, values: Mapping[str, Any]) -> bool:
        pair = self.matcher.is_complete(("question", "answer"), weak=False)
        lone = self.matcher.is_complete(("question",), weak=False)
        texts = all(isinstance(value, str) for value in values.values())
        return bool(values) and texts and pair and not lone and not self.matcher.knows(values)


def _rows(
    record: FileRecord, columns: Sequence[Column], matcher: Matcher, how: How, report: Report
) -> Iterator[FileRow]:
    """Yield the usable rows of a record; count the bad ones."""
    if not record.error and not any(_is_something(value) for value in record.values.values()):
        report.empty += 1
        return
    if not report.spoken:
        given = (name for name, value in record.values.items() if _is_something(value))
        report.columns.update(given)
    expanded = _expanded(record, matcher, report)
    while True:
        try:
            found = next(expanded, None)
            if found is None:
                return
            row = FileRow(record.line, _converted(*found, columns, matcher, report))
        except (BadValue, RecursionError) as error:
            why = "nested too deep" if isinstance(error, RecursionError) else str(error)
            if how.strict:
                raise UnusableFile(f"line {record.line}: {why}") from None
            report.note_bad(record.line, why)
        else:
            yield row


def _is_something(value: Any) -> bool:
    return not (
        value is None or value in ("", [], {}) or (isinstance(value, str) and value.isspace())
    )


def _expanded(
    record: FileRecord, matcher: Matcher, report: Report
) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the rows in a row, each with the column of the turns it was made from, if any.

    Raises:
        BadValue: If it contains no usable row.
    """
    if record.error:
        raise BadValue(record.error)
    values = record.values
    path = shapes.holder(values)
    if path is None:
        whole = shapes.with_input(values)
        matched = matcher.match(tuple(whole))
        asked, said = (matched.get(name, (None,))[0] for name in (matcher.asked, "response"))
        yield from ((row, "") for row in shapes.variants(whole, asked, said))
        return
    report.conversations += 1
    # the asking user matters in traffic, but not in answers
    stranger = not matcher.wants("response") and "user_id" not in matcher.match(tuple(values))
    report.strangers += stranger
    column, name = shapes.conversation(values, "id") or ("", str(report.conversations))
    for row in shapes.requests(values, path):
        if stranger and "user_id" not in matcher.match(tuple(row)):
            row["user_id"] = f"conversation {name}"
            if column:
                report.used.setdefault("user_id", Counter())[column] += 1
        yield row, ".".join(path)


def _converted(
    values: dict[str, Any], turns: str, columns: Sequence[Column], matcher: Matcher, report: Report
) -> dict[str, Any]:
    """Return the wanted values of a row.

    Raises:
        BadValue: If a value cannot be converted, or a required one is missing.
    """
    matched = matcher.match(tuple(values))
    if any(column.required and column.name not in matched for column in columns):
        values = _flat(values)
        matched = matcher.match(tuple(values))
    found: dict[str, Any] = {}
    for column in columns:
        names = matched.get(column.name, ())
        try:
            value = column.convert(_value(values, names))
        except BadValue as error:
            raise BadValue(f"{column.name}: {error}") from None
        if value is None and column.required:
            if not names:
                report.columns.update(dict.fromkeys(values, 0))
            what = f"the {column.name} is empty" if names else f"no column for the {column.name}"
            raise BadValue(what)
        found[column.name] = value
        if value is not None and names:
            shown = _source(names, turns, report)
            if shown:
                report.used.setdefault(column.name, Counter())[shown] += 1
    return found


def _source(names: Sequence[str], turns: str, report: Report) -> str:
    """Return the source of a value in words; empty if no column has it."""
    if turns and names[0] in _FROM_TURNS:
        return " + ".join(report.spoken) or turns
    if turns and names[0] == "user_id" and "user_id" not in report.columns:
        return ""
    if turns and not report.spoken and names[0] not in report.columns:
        return f"{turns}.{names[0]}"
    return " + ".join(names)


def _value(values: Mapping[str, Any], names: Sequence[str]) -> Any:
    if len(names) > 1:
        return {name: values[name] for name in names}
    return values[names[0]] if names else None


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with the fields of its objects, by dotted names."""
    found: dict[str, Any] = dict(values)
    waiting = [(name, value) for name, value in values.items() if isinstance(value, Mapping)]
    while waiting and len(found) < _NESTED:
        name, value = waiting.pop(0)
        for key, inner in value.items():
            found[f"{name}.{key}"] = inner
            if isinstance(inner, Mapping):
                waiting.append((f"{name}.{key}", inner))
    return found


def _check_mapped(given: Mapping[str, Sequence[str]], report: Report) -> None:
    for name, wanted in given.items():
        if wanted and name not in report.used:
            raise ConfigurationError(
                f"--map {name}={','.join(wanted)}: no row of {report.name} has such a column with "
                f"something in it. It has {_listed(report)}"
            )


def _listed(report: Report) -> str:
    names = [repr(name) for name in report.columns]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more if names else "no columns"


def _nothing(report: Report, columns: Sequence[Column]) -> str:
    """Return the error about a file without a usable row."""
    required = [column.name for column in columns if column.required]
    expected = " and ".join(required)
    if not report.bad:
        return f"{report.name} has no rows; expected CSV or JSON with a {expected} in each"
    line, why = report.examples[0]
    said = f"{report.name}: no row has a {expected} that can be used. Line {line}: {why}. "
    if report.columns:
        said += f"Columns found: {_listed(report)}. "
    if any("no column" in reason for reason in report.bad):
        pairs = " ".join(f"--map {name}=COLUMN" for name in required)
        said += f"Name them: {pairs}"
        if "columns" in report.form:
            said += "; with --no-header, by their number, if the first row is data"
    return said.rstrip()
