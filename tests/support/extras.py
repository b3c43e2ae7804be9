"""Extras of the distribution: their requirements, and the packages that pip would install for them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.paths import ROOT

BASE = ""
"""Name of the install without an extra."""

TORCH = re.compile(r"torch|transformers|sentence-transformers|triton")
CUDA = re.compile(r"nvidia-.*|cuda-.*|cupy.*")
_UNREACHABLE = re.compile(
    r"No matching distribution|Max retries|NewConnectionError|NameResolution|Connection(Error|Reset)"
    r"|timed out|Temporary failure"
)


class IndexUnreachableError(Exception):
    """No package index answers from this machine."""


@cache
def project() -> dict[str, Any]:
    """Return the table `project` of pyproject.toml."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        found: dict[str, Any] = tomllib.load(file)["project"]
    return found


def names() -> list[str]:
    """Return the names of all extras, after that of the install without one."""
    return [BASE, *project()["optional-dependencies"]]


def requirements(extra: str) -> list[str]:
    """Return the requirements of an install with *extra*, its base included."""
    return [*project()["dependencies"], *_own(extra)]


def _own(extra: str) -> Iterator[str]:
    for item in project()["optional-dependencies"].get(extra, ()):
        inner = re.fullmatch(r"glasscache\[([\w,-]+)\]", item)
        if inner is None:
            yield item
        else:
            for name in inner[1].split(","):
                yield from _own(name)


Packages = dict[str, list[str]]
"""Requirements by the name of a package, as its metadata has them."""


@cache
def resolved(*needed: str) -> Packages:
    """Return the packages that pip would install into an empty environment.

    Raises:
        IndexUnreachableError: If no index answers.
        AssertionError: If pip fails otherwise.
    """
    command = [
        sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet",
        "--no-input", "--retries", "1", "--report", "-", *needed,
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, cwd=ROOT
    )
    if done.returncode and _UNREACHABLE.search(done.stderr):
        raise IndexUnreachableError(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    found = [item["metadata"] for item in json.loads(done.stdout)["install"]]
    return {canonicalize_name(item["name"]): item.get("requires_dist", []) for item in found}


def needed(packages: Packages, requirements: Iterable[str]) -> set[str]:
    """Return which of the *packages* the *requirements* bring, on this machine.

    Raises:
        KeyError: If one that is needed is not among them.
    """
    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    pending = [(item, "") for item in requirements]
    while pending:
        text, extra = pending.pop()
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        found.add(name)
        for wanted in ("", *requirement.extras):
            if (name, wanted) not in seen:
                seen.add((name, wanted))
                pending += [(item, wanted) for item in packages[name]]
    return found
