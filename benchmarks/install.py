"""Packages, megabytes and seconds of each extra, installed into an empty environment.

Run from the project's root, with the development dependencies and a package index:

    python -m benchmarks.install                    all extras
    python -m benchmarks.install semantic models    some of them
    python -m benchmarks.install --write-docs       and the table in docs/installation.md

The megabytes are those of all files of the environment's packages, compiled ones included. The
seconds include the downloads: pip's cache is not used.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import NamedTuple

from benchmarks.support import docs_table
from tests.support import extras
from tests.support.paths import ROOT

HEADER = ["extra", "packages", "MB", "seconds", "largest, MB"]
_LARGEST = 3


class Installed(NamedTuple):
    """Contents of an environment after an install.

    Attributes:
        extra: Name of the extra, empty for none.
        packages: Number of distributions, without glasscache and pip.
        megabytes: Size of all files.
        seconds: Duration of the install.
        largest: Name and megabytes of the largest top-level folders.
    """

    extra: str
    packages: int
    megabytes: float
    seconds: float
    largest: list[tuple[str, float]]


def build_wheel(target: Path) -> Path:
    """Return the wheel of the working tree, built into *target*."""
    command = ["-m", "build", "--wheel", "--no-isolation", "--outdir", str(target)]
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    (wheel,) = target.glob("*.whl")
    return wheel


def install(wheel: Path, extra: str, place: Path) -> Installed:
    """Install *wheel* with *extra* into a new environment at *place*."""
    venv.create(place, with_pip=False)
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
    return Installed(extra, len(packages), sum(size for size, _ in sizes), seconds, largest)


def _megabytes(path: Path) -> float:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


def table(found: list[Installed]) -> str:
    """Return the results as a Markdown table."""
    rows = [
        [
            f"`{item.extra}`" if item.extra else "none",
            str(item.packages),
            f"{item.megabytes:,.0f}",
            f"{item.seconds:.0f}",
            ", ".join(f"{name} {size:,.0f}" for name, size in item.largest),
        ]
        for item in found
    ]
    return docs_table.markdown(HEADER, rows)


def main() -> None:
    """Install each extra and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("extras", nargs="*", help="extras; default: each, and none")
    parser.add_argument(
        "--write-docs", action="store_true", help="write the table into docs/installation.md"
    )
    options = parser.parse_args()
    if options.write_docs and options.extras:
        parser.error("--write-docs takes all extras")
    found = []
    with tempfile.TemporaryDirectory() as folder:
        wheel = build_wheel(Path(folder))
        for extra in options.extras or extras.names():
            with tempfile.TemporaryDirectory() as place:
                found.append(install(wheel, extra, Path(place)))
            print(table(found[-1:]).splitlines()[-1], file=sys.stderr)
    body = f"{table(found)}\n\nMeasured on: {docs_table.machine()}."
    print(body)
    if options.write_docs:
        docs_table.write(docs_table.INSTALLATION, "extras", body)


if __name__ == "__main__":
    main()
