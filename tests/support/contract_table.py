"""Table of docs/integrations.md: which adapter keeps which rule of the contract, from its own tests.

    python -m tests.support.contract_table --write-docs

runs the contract of every adapter and writes the table. Whenever all tests of an adapter have run,
its row in the page is compared with what they did.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import pytest

from benchmarks.support import docs_table
from glasscache.testing.contracts import AdapterContract
from glasscache.testing.contracts.adapter import NOT_COUNTED
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "integrations.md"
NAME = "contract"
FOLDER = ROOT / "tests" / "integrations"
_KEPT, _PARTLY, _NOT = "yes", "yes, but", "-"


class Case(NamedTuple):
    """Outcome of a test.

    Attributes:
        of: Which of its rule's cases it is; empty for a rule with one.
        outcome: `passed`, `skipped` or `failed`.
        why: Why it does not apply, or differs.
    """

    of: str
    outcome: str
    why: str


def rules() -> dict[str, Callable[..., Any]]:
    """Return the contract's tests by name, in its order."""
    return {name: found for name, found in vars(AdapterContract).items()
            if name.startswith("test_")}  # fmt: skip


def sentence(test: Callable[..., Any]) -> str:
    """Return the first sentence of a test's docstring, in one line."""
    return " ".join((test.__doc__ or "").split("\n\n")[0].split())


def title(cls: type) -> str:
    """Return the name of an adapter, which is the docstring of its class of tests."""
    return " ".join((cls.__doc__ or "").split()).rstrip(".")


class Row(NamedTuple):
    """An adapter's row.

    Attributes:
        cells: Its title, and a cell for each rule.
        notes: What does not apply or differs: number of the rule with its case, and why.
    """

    cells: tuple[str, ...]
    notes: frozenset[tuple[str, str]]


class Recorder:
    """Record of what the tests of each adapter did.

    Attributes:
        rows: Cases by class and rule.
        checks: Whether a complete row is compared with the page.
    """

    def __init__(self) -> None:
        self.rows: dict[type, dict[str, list[Case]]] = {}
        self.checks = True

    def record(self, item: Any, report: pytest.TestReport) -> None:
        """Record a test's own part, not that of its fixtures."""
        cls, name = getattr(item, "cls", None), getattr(item, "originalname", "")
        if report.when != "call" or cls is None or not issubclass(cls, AdapterContract):
            return
        if name not in rules():
            return
        given = item.callspec.params if hasattr(item, "callspec") else {}
        of = str(given.get("feature") or given.get("kind") or "")
        why = dict(report.user_properties).get(NOT_COUNTED)
        why = f"not counted: {why}" if why else ""
        if report.outcome == "skipped" and isinstance(report.longrepr, tuple):
            why = report.longrepr[2].removeprefix("Skipped: ")
        elif report.outcome == "passed" and getattr(cls, name) is not rules()[name]:
            why = sentence(getattr(cls, name))
        self.rows.setdefault(cls, {}).setdefault(name, []).append(Case(of, report.outcome, why))

    def row(self, cls: type) -> Row | None:
        """Return an adapter's row; `None` if a test did not run, or failed."""
        found = self.rows.get(cls, {})
        cells, notes = [title(cls)], set()
        for number, (name, test) in enumerate(rules().items(), start=1):
            cases = found.get(name, [])
            if len(cases) != _expected(test) or any(case.outcome == "failed" for case in cases):
                return None
            skipped = sum(case.outcome == "skipped" for case in cases)
            differs = any(case.why for case in cases)
            cells.append(_NOT if skipped == len(cases) else _PARTLY if differs else _KEPT)
            notes |= {
                (f"{number}, {case.of}" if case.of else str(number), case.why.rstrip("."))
                for case in cases
                if case.why
            }
        return Row(tuple(cells), frozenset(notes))

    def check(self, cls: type) -> None:
        """Compare a complete row with the page.

        Raises:
            AssertionError: If the page has another one.
        """
        row = self.row(cls) if self.checks else None
        if row is not None:
            command = "python -m tests.support.contract_table --write-docs"
            assert documented().get(title(cls)) == row, f"{PAGE.name} differs: {command}"


def _expected(test: Callable[..., Any]) -> int:
    """Return the number of cases of a rule."""
    marks = [mark for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize"]
    return len(marks[0].args[1]) if marks else 1


def legend() -> list[str]:
    """Return the rules with their numbers."""
    return [f"{number}. {sentence(test)}" for number, test in enumerate(rules().values(), start=1)]


def body(found: Iterable[Row]) -> str:
    """Return the whole block: the rules, the table, and each note with its adapters."""
    ordered = sorted(found, key=lambda row: row.cells[0].lower())
    numbers = [str(number) for number in range(1, len(rules()) + 1)]
    table = [f"| adapter | {' | '.join(numbers)} |", "|---" * (len(numbers) + 1) + "|"]
    table += [f"| {' | '.join(row.cells)} |" for row in ordered]
    noted: dict[tuple[str, str], list[str]] = {}
    for row in ordered:
        for note in row.notes:
            noted.setdefault(note, []).append(row.cells[0])
    notes = [
        f"- {of}: {why}. *{'; '.join(titles)}*"
        for (of, why), titles in sorted(
            noted.items(), key=lambda item: (int(item[0][0].split(",")[0]), item)
        )
    ]
    return "\n".join([*legend(), "", *table, "", *notes])


def documented() -> dict[str, Row]:
    """Return the rows in the page, by title."""
    written = docs_table.between(PAGE.read_text("utf-8"), NAME)
    notes = re.findall(r"^- ([^:\n]+): (.*)\. \*(.*)\*$", written, re.MULTILINE)
    found = {}
    for line in re.findall(r"^\| (.*) \|$", written, re.MULTILINE)[1:]:
        cells = tuple(line.split(" | "))
        of_it = {(of, why) for of, why, titles in notes if cells[0] in titles.split("; ")}
        found[cells[0]] = Row(cells, frozenset(of_it))
    return found


RECORDED = Recorder()
"""The one of this process, filled by the hooks in tests/integrations/conftest.py."""


def main() -> int:
    """Run the contract of every adapter; print the table, or write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write-docs", action="store_true", help=f"write it into {PAGE.name}")
    options = parser.parse_args()
    # of the module that the hooks have: this one runs as __main__
    recorded = importlib.import_module("tests.support.contract_table").RECORDED
    recorded.checks = False
    files = [str(path) for path in sorted(FOLDER.glob("test_*.py"))
             if "AdapterContract" in path.read_text("utf-8")]  # fmt: skip
    names = " or ".join(rules())
    status = pytest.main(["-q", "-n", "0", "--rootdir", str(ROOT), "-k", names, *files])
    if status:
        return int(status)
    text = body(row for cls in recorded.rows if (row := recorded.row(cls)) is not None)
    print(text)
    if options.write_docs:
        docs_table.write(PAGE, NAME, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
