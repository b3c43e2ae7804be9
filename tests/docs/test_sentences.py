"""Docstrings: every test has one, and none begins as a question does."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from tests.support.paths import ROOT

TEST = (ast.FunctionDef, ast.AsyncFunctionDef)
DOCUMENTED = (ast.Module, ast.ClassDef, *TEST)
PACKAGES = ("glasscache", "cache_core", "telemetry", "dashboard", "grafana", "tests", "benchmarks")
NO_BEGINNING = frozenset(
    "what which who whoever whose how whether where when why that those of as taking going".split()
)
"""Words that name neither the thing nor what it does: see CONTRIBUTING.md, "How we write"."""

ENDED = re.compile(r"""[.:?!`"')\]]\s*$""")
BLOCK = re.compile(r"(^|\n)( {4}|[*-] |\d+\. |```|\|)[^\n]*$")


def test_every_test_has_its_sentence() -> None:
    """Each test function begins with a docstring, in the shipped contract suites, too."""
    contracts = ROOT / "cache_core" / "testing" / "contracts"
    silent = [
        f"{path.relative_to(ROOT)}::{node.name}"
        for folder in (ROOT / "tests", contracts)
        for path in folder.rglob("*.py")
        for node in nodes(path)
        if isinstance(node, TEST) and node.name.startswith("test_") and not ast.get_docstring(node)
    ]
    assert silent == []


def test_docstrings_begin_with_what_the_thing_is_or_does() -> None:
    """No module, class, function or constant begins with a question word or the like."""
    found = [
        f"{place}: {text.splitlines()[0]}"
        for package in PACKAGES
        for place, text in docstrings(package)
        if first_word(text) in NO_BEGINNING
    ]
    assert found == []


@functools.cache
def nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def docstrings(package: str) -> Iterator[tuple[str, str]]:
    """Yield the place and the text of each docstring of a package."""
    for path in (ROOT / package).rglob("*.py"):
        for node in nodes(path):
            if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node)):
                yield f"{path.relative_to(ROOT)}::{getattr(node, 'name', '')}", text
            for line, text in below_assignments(getattr(node, "body", ())):
                yield f"{path.relative_to(ROOT)}:{line}", text


def below_assignments(body: object) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each string that follows an assignment in a block."""
    if not isinstance(body, list):
        return
    for assigned, text in pairwise(body):
        if not isinstance(assigned, (ast.Assign, ast.AnnAssign)) or not isinstance(text, ast.Expr):
            continue
        if isinstance(text.value, ast.Constant) and isinstance(text.value.value, str):
            yield text.lineno, text.value.value.strip()


def first_word(text: str) -> str:
    return re.split(r"\W", text, maxsplit=1)[0].lower()


def test_docstrings_end_with_their_sentence() -> None:
    """No paragraph of a docstring stops in the middle of a sentence; indented blocks are no text."""
    found = [
        f"{place}: {paragraph[-60:]}"
        for package in PACKAGES
        for place, text in docstrings(package)
        for paragraph in re.split(r"\n\s*\n", text)
        if not ENDED.search(paragraph) and not BLOCK.search(paragraph)
    ]
    assert found == []
