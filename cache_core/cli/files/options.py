"""Options for reading a file, and the summary of what was read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from cache_core.cli.console import counted, err, fail
from cache_core.cli.files import Column, FileRow, How, Report, UnusableFile, read
from cache_core.model.exceptions import ConfigurationError

_PANEL = "Reading the file"

Map = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="NAME=COLUMN",
        help="Column of a value, if its name does not show it; repeatable. NAME= ignores a value; "
        "context=A,B makes an object of several columns.",
        rich_help_panel=_PANEL,
    ),
]
Encoding = Annotated[
    str | None,
    typer.Option(
        help="The file's encoding. Default: detected; reported if it is a guess.",
        rich_help_panel=_PANEL,
    ),
]
NoHeader = Annotated[
    bool,
    typer.Option(
        "--no-header",
        help="The first row is data; --map names the columns by number, as query=1.",
        rich_help_panel=_PANEL,
    ),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="Reject the file for one bad row. Default: bad rows are skipped and counted.",
        rich_help_panel=_PANEL,
    ),
]
Limit = Annotated[
    int | None, typer.Option(min=1, help="Read only the first N rows.", rich_help_panel=_PANEL)
]


def how(
    mapped: Sequence[str] | None, encoding: str | None, no_header: bool, strict: bool,
    limit: int | None,
) -> How:  # fmt: skip
    """Return the options as settings for reading a file."""
    return How(tuple(mapped or ()), encoding, not no_header, strict, limit)


def rows(file: Path, columns: Sequence[Column], given: How) -> tuple[list[FileRow], Report]:
    """Return the rows of a file; an unusable one ends the command.

    Exits with 2 for a file that cannot be opened or options that do not fit it, and with 1 for a
    file without anything usable.
    """
    report = Report()
    try:
        with err.status(f"reading {file}") as status:
            found: list[FileRow] = []
            for row in read(file, columns, given, report):
                found.append(row)
                if len(found) % 1_000 == 0:
                    status.update(f"reading {file}: {counted(len(found), 'rows')}")
    except UnusableFile as error:
        fail(str(error), code=1)
    except ConfigurationError as error:
        fail(str(error))
    except MemoryError:
        fail(f"{file} does not fit into memory: --limit takes its first rows", code=1)
    return found, report


def print_report(report: Report) -> None:
    """Print on stderr the file's format, the columns used, and the rows skipped."""
    for line, style in report_lines(report):
        err.print(Text(line, style), highlight=False, soft_wrap=False)


def report_lines(report: Report) -> list[tuple[str, str]]:
    """Return the lines of `print_report`, each with its style."""
    sources: dict[str, list[str]] = {}
    for name, columns in report.used.items():
        sources.setdefault(" or ".join(map(repr, columns)), []).append(name)
    used = ", ".join(f"{' and '.join(names)} <- {source}" for source, names in sources.items())
    passed = _some([repr(name) for name in report.passed_over])
    lines = [(f"{report.name}: {report.form}, {counted(report.rows, 'rows')}.", "")]
    lines.append((f"{used or 'no column'}; passed over: {passed or 'nothing'}.", "dim"))
    if report.guessed:
        said = f"It is not UTF-8: read as {report.encoding}, with words like {report.example!r}."
        lines.append((f"{said} If that is wrong, name its --encoding.", "yellow"))
    if report.before:
        lines.append((f"Passed over before the header: {counted(report.before, 'lines')}.", "dim"))
    if report.skipped:
        lines.append((_skipped(report), "yellow" if report.bad else "dim"))
    return lines


def _skipped(report: Report) -> str:
    parts = [counted(report.empty, "empty rows")] if report.empty else []
    parts += [f"{count:,} where {why}" for why, count in report.bad.most_common(3)]
    rest = len(report.bad) - 3
    if rest > 0:
        parts.append(f"{rest} other reasons")
    said = f"Skipped {counted(report.skipped, 'rows')}: {'; '.join(parts)}."
    if report.examples:
        line, why = report.examples[0]
        said += f" The first is line {line}: {why}."
    return said


def _some(names: Sequence[str], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
