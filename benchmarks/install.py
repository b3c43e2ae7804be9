"""Packages, megabytes and seconds of each extra, installed into an empty environment, and used.

Run from the project's root, with the development dependencies and a package index:

    python -m benchmarks.install                    all extras, with this Python
    python -m benchmarks.install base semantic      some of them; base is none
    python -m benchmarks.install all --python python3.12 --python python3.13
    python -m benchmarks.install --write-docs       and the table in docs/installation.md

The wheel is built from the sdist, so both are tried. In each environment every package of it is
imported, `glasscache --help` has to run, and a question is asked twice, the second time in other
words where that extra brings all that L2 needs: *answers* are the tiers that had the answer. The
megabytes are those of all files of the environment's packages, compiled ones included. The seconds
include the downloads: pip's cache is not used.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from benchmarks.support import docs_table
from tests.support import extras
from tests.support.paths import ROOT

HEADER = ["extra", "Python", "packages", "MB", "seconds", "answers", "largest, MB"]
_LARGEST = 3
_BASE = "base"
"""Name of the install without an extra, on the command line."""

_TRIED = """
import asyncio, json, platform

import cache_core, glasscache.integrations, glasscache.telemetry, glasscache.testing
from glasscache import ConfigurationError, MultiLevelCache

async def main():
    async with MultiLevelCache(sharing="all") as cache:
        try:
            await cache.ready()
        except ConfigurationError:
            asked = ["How do I reset my password?"]  # without L2
        else:
            asked = ["How do I reset my password?", "How can I reset my password?"]
        await cache.put(asked[0], "ann", "By the link below the form.")
        return [(await cache.lookup(each, "bob")).tier for each in asked]

print(json.dumps([platform.python_version(), asyncio.run(main())]))
"""


class Installed(NamedTuple):
    """Contents of an environment after an install.

    Attributes:
        extra: Name of the extra, empty for none.
        python: Version of Python.
        packages: Number of distributions, without glasscache and pip.
        megabytes: Size of all files.
        seconds: Duration of the install.
        answers: Tiers that had the answer to a question that was asked again.
        largest: Name and megabytes of the largest top-level folders.
    """

    extra: str
    python: str
    packages: int
    megabytes: float
    seconds: float
    answers: list[str]
    largest: list[tuple[str, float]]


def build_wheel(target: Path) -> Path:
    """Return the wheel of the working tree, built from its sdist into *target*."""
    command = ["-m", "build", "--no-isolation", "--outdir", str(target)]
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    (wheel,) = target.glob("*.whl")
    return wheel


def install(wheel: Path, extra: str, place: Path, interpreter: str = sys.executable) -> Installed:
    """Install *wheel* with *extra* into a new environment at *place*, and use it.

    Raises:
        subprocess.CalledProcessError: If it cannot be installed, or does not work.
    """
    subprocess.run([interpreter, "-m", "venv", "--without-pip", str(place)], check=True)
    python = place / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    wanted = f"{wheel}[{extra}]" if extra else str(wheel)
    start = time.perf_counter()
    subprocess.run([*pip, "install", "--quiet", "--no-cache-dir", wanted], check=True)
    seconds = time.perf_counter() - start
    listed = subprocess.run(
        [*pip, "list", "--format", "json"], check=True, capture_output=True, text=True
    )
    packages = {item["name"] for item in json.loads(listed.stdout)} - {"glasscache", "pip"}
    (site,) = place.glob("lib/python*/site-packages")
    sizes = sorted(((_megabytes(path), path.name) for path in site.iterdir()), reverse=True)
    largest = [(name, size) for size, name in sizes[:_LARGEST]]
    version, answers = _use(place)
    megabytes = sum(size for size, _ in sizes)
    return Installed(extra, version, len(packages), megabytes, seconds, answers, largest)


def _use(place: Path) -> tuple[str, list[str]]:
    """Return the version of Python in an environment, and the tiers that answered there."""
    with tempfile.TemporaryDirectory() as elsewhere:
        kept = {name: value for name, value in os.environ.items()
                if not name.startswith(("CACHE_", "PYTHON", "REDIS_", "CHROMA_"))}  # fmt: skip
        environment = {**kept, "CACHE_DIR": elsewhere}
        for command in (
            [place / "bin" / "glasscache", "--help"],
            [place / "bin" / "python", "-c", _TRIED],
        ):
            done = subprocess.run(
                command, cwd=elsewhere, env=environment, check=True, stdout=subprocess.PIPE
            )
    version, answers = json.loads(done.stdout)
    return version, [tier or "none" for tier in answers]


def _megabytes(path: Path) -> float:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


def table(found: list[Installed]) -> str:
    """Return the results as a Markdown table."""
    rows = [
        [
            f"`{item.extra}`" if item.extra else "none",
            item.python,
            str(item.packages),
            f"{item.megabytes:,.0f}",
            f"{item.seconds:.0f}",
            ", ".join(item.answers),
            ", ".join(f"{name} {size:,.0f}" for name, size in item.largest),
        ]
        for item in found
    ]
    return docs_table.markdown(HEADER, rows)


def installs(wanted: Iterable[str], interpreters: Iterable[str]) -> Iterable[Installed]:
    """Yield the result of each extra with each Python, from one wheel."""
    interpreters = list(interpreters)
    with tempfile.TemporaryDirectory() as folder:
        wheel = build_wheel(Path(folder))
        for extra in wanted:
            for interpreter in interpreters:
                with tempfile.TemporaryDirectory() as place:
                    yield install(wheel, extra, Path(place), interpreter)


def main() -> None:
    """Install each extra and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("extras", nargs="*", help=f"extras, {_BASE} for none; default: all of them")
    parser.add_argument(
        "--python", action="append", metavar="PYTHON",
        help="an interpreter to install with, 3.11 or newer; repeat it for several; default: this",
    )  # fmt: skip
    parser.add_argument(
        "--write-docs", action="store_true", help="write the table into docs/installation.md"
    )
    options = parser.parse_args()
    if options.write_docs and options.extras:
        parser.error("--write-docs takes all extras")
    wanted = [extras.BASE if name == _BASE else name for name in options.extras] or extras.names()
    unknown = sorted(set(wanted) - set(extras.names()))
    if unknown:
        parser.error(f"no such extra: {', '.join(unknown)}")
    found = []
    for done in installs(wanted, options.python or [sys.executable]):
        found.append(done)
        print(table([done]).splitlines()[-1], file=sys.stderr)
    body = f"{table(found)}\n\nMeasured on: {docs_table.machine()}."
    print(body)
    if options.write_docs:
        docs_table.write(docs_table.INSTALLATION, "extras", body)


if __name__ == "__main__":
    main()
