"""Every regular expression of ours takes a time that is linear in the text, whatever the text is."""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import cache_core
import dashboard
import glasscache
import telemetry

_SHORT, _LONG = 500, 4_000
_SIZES_APART = _LONG / _SHORT
_MOST = 3 * _SIZES_APART
"""A quadratic one takes 64 times as long for eight times the text, a linear one 8 times."""

_QUICK = 0.03
"""Seconds for the longer text below which no growth is measured."""

_ALPHABET = (
    "a", "A", "0", "1", "_", "-", ".", ",", " ", "\t", "\n", "@", "#", "/", "(", "[", "<", "{", "|",
    "'", '"', ":", "+", "*", "é", "ß", "中", "\u0660", "a1", "1a", "a ", "1 ", "a.", "1.", "a-", "1-",
    "a@", "a_", "1,", "1:", "ab12", "ab 12 ", "(a", "<a ", "{a", "[a", "a\n", "http://", "key=",
    '\\"', "\\", "%", "$1", "a'b", "1/", "+1", "no ", "not ", "x=1 ",
)  # fmt: skip


_SCRIPTS = {"dashboard.app", "dashboard.served"}
_ADAPTERS = {
    f"glasscache.integrations.{path.stem}"
    for path in Path(glasscache.__path__[0], "integrations").glob("*.py")
}
"""Modules that need a framework each; they have no patterns."""


def _modules() -> Iterator[str]:
    for package in (glasscache, cache_core, telemetry, dashboard):
        for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            # Scripts draw, or serve, when they are imported.
            if ".views." not in found.name and found.name not in _SCRIPTS | _ADAPTERS:
                yield found.name


_ANCHORED = {"match", "fullmatch"}
_METHODS = re.compile(r"\b(\w+)\.(match|fullmatch|search|finditer|findall|sub|subn|split)\(")


def _used() -> dict[str, set[str]]:
    """Return by which methods each name is used as a pattern, in all of our sources."""
    found: dict[str, set[str]] = {}
    for package in (glasscache, cache_core, telemetry, dashboard):
        for path in Path(package.__path__[0]).rglob("*.py"):
            for name, method in _METHODS.findall(path.read_text("utf-8")):
                found.setdefault(name, set()).add(method)
    return found


def _patterns() -> dict[re.Pattern[str], bool]:
    """Return every compiled pattern in the globals of our modules, in containers and classes too.

    Each with whether it is only matched from the beginning on: then it need not be searched for.
    """
    used = _used()
    found: dict[re.Pattern[str], bool] = {}
    for name in sorted({*_modules(), "cache_core", "telemetry", "dashboard"}):
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        for key, value in vars(module).items():
            anchored = isinstance(value, re.Pattern) and used.get(key, {"search"}) <= _ANCHORED
            todo = [value]
            if isinstance(value, type) and value.__module__ == name:
                todo += vars(value).values()
            while todo:
                item = todo.pop()
                if isinstance(item, re.Pattern):
                    if isinstance(item.pattern, str):
                        found[item] = found.get(item, True) and anchored
                elif isinstance(item, dict):
                    todo += [*item.keys(), *item.values()]
                elif isinstance(item, (list, tuple, set, frozenset)) and len(item) < 1_000:
                    todo += item
    return found


PATTERNS = _patterns()


def _texts(pattern: re.Pattern[str]) -> list[str]:
    """Return what runs of *pattern* are made of: the alphabet, and its own literal words."""
    own = set(re.findall(r"[a-z]{2,12}", pattern.pattern)[:6])
    return [*_ALPHABET, *sorted(word + end for word in own for end in ("", " "))]


def _seconds(
    pattern: re.Pattern[str], text: str, times: int = 1, *, anchored: bool = False
) -> float:
    found = []
    for _ in range(times):
        start = time.thread_time()
        for _match in () if anchored else pattern.finditer(text):
            pass
        pattern.match(text)
        pattern.fullmatch(text)
        found.append(time.thread_time() - start)
    return min(found)


def grows(pattern: re.Pattern[str], *, anchored: bool = False) -> str:
    """Return of what a text is that takes more than a linear time; empty if there is none."""
    for unit in _texts(pattern):
        for end in ("", "!", "\x00"):
            long = (unit * (_LONG // len(unit) + 1))[:_LONG] + end
            if _seconds(pattern, long, anchored=anchored) < _QUICK:
                continue
            short = (unit * (_SHORT // len(unit) + 1))[:_SHORT] + end
            # Measured again, and the least of several: others use this machine.
            one = _seconds(pattern, short, 5, anchored=anchored)
            eight = _seconds(pattern, long, 2, anchored=anchored)
            if eight > _QUICK and eight > _MOST * one:
                return f"{unit!r} and {end!r}: {one:.4f} s, {eight:.4f} s"
    return ""


def test_patterns_are_found() -> None:
    """The check sees those that are in tuples, classes and packages, and not too few."""
    assert len(PATTERNS) > 60
    assert "cache_core.operations.put.personal.affairs" in sys.modules


@pytest.mark.parametrize(
    ("pattern", "linear"),
    [
        (r"[\w-]*\d[\w-]*", False), (r"(?<![\w-])[a-z-]*\d[\w-]*", True), (r"\s+$", False),
        (r"(?:a|bb)+c", False), (r"[a-z]{1,64}@", True), (r"\d+(?:\.\d+)?", True),
    ],
)  # fmt: skip
def test_the_check_tells_them_apart(pattern: str, linear: bool) -> None:
    """It knows quadratic patterns from linear ones."""
    assert (grows(re.compile(pattern)) == "") == linear


@pytest.mark.slow
def test_every_pattern_is_linear() -> None:
    """No run of anything makes one of ours take a time that grows with its square."""
    bad = {
        pattern.pattern: why
        for pattern, anchored in PATTERNS.items()
        if (why := grows(pattern, anchored=anchored))
    }
    assert bad == {}
