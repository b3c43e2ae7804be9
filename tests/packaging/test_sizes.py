"""Limits of size that the code keeps."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

import cache_core
from cache_core.cli.app import app
from tests.support.paths import ROOT

PACKAGES = ("glasscache", "cache_core", "telemetry", "dashboard", "grafana")
MOST_ARGUMENTS = 7

Function = ast.FunctionDef | ast.AsyncFunctionDef


def test_no_function_takes_more_than_seven_arguments() -> None:
    """Only methods of the public classes and commands take more, `self` not counted."""
    public = public_places()
    assert public, "the public API is found"
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path, node in functions()
        if arguments(node) > MOST_ARGUMENTS and (str(path), first_line(node)) not in public
    ]
    assert found == []


def test_the_exceptions_are_needed() -> None:
    """The public API has functions with more arguments: the limit's exceptions are found."""
    public = public_places()
    large = {node.name for path, node in functions()
             if arguments(node) > MOST_ARGUMENTS and (str(path), first_line(node)) in public}  # fmt: skip
    assert {"put", "get_or_compute", "invalidate"} <= large


def functions() -> Iterator[tuple[Path, Function]]:
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, Function):
                    yield path, node


def arguments(node: Function) -> int:
    given = node.args
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    return sum(item.arg not in {"self", "cls"} for item in every)


def first_line(node: Function) -> int:
    return min([node.lineno, *(item.lineno for item in node.decorator_list)])


def public_places() -> set[tuple[str, int]]:
    """Return file and first line of each function that `cache_core` exports or the command runs."""
    found: set[Any] = set()
    for name in cache_core.__all__:
        item = getattr(cache_core, name)
        found.add(item)
        if inspect.isclass(item):
            found |= {value for key, value in inspect.getmembers(item, inspect.isfunction)
                      if key == "__init__" or not key.startswith("_")}  # fmt: skip
    found |= set(commands(app))
    places = set()
    for item in found:
        code = getattr(inspect.unwrap(item), "__code__", None)
        if code is not None:
            places.add((code.co_filename, code.co_firstlineno))
    return places


def commands(typed: typer.Typer) -> Iterator[Any]:
    for command in typed.registered_commands:
        yield command.callback
    for group in typed.registered_groups:
        if group.typer_instance is not None:
            yield from commands(group.typer_instance)
