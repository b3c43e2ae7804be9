"""Writes the dashboards: `python -m grafana.generate`; `--check` only reports differences."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from grafana.boards.overview import OVERVIEW
from grafana.boards.semantic import SEMANTIC
from grafana.boards.stores import STORES
from grafana.boards.tiers import TIERS
from grafana.builder.board import Board, to_json

BOARDS: tuple[Board, ...] = (OVERVIEW, TIERS, SEMANTIC, STORES)
DIRECTORY = Path(__file__).with_name("dashboards")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or compare; return the exit code, which is 1 if a file differs."""
    parser = argparse.ArgumentParser(prog="python -m grafana.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail on a difference")
    parser.add_argument("--directory", type=Path, default=DIRECTORY, help="of the JSON files")
    options = parser.parse_args(arguments)
    made = {options.directory / board.file: to_json(board) for board in BOARDS}
    if not options.check:
        options.directory.mkdir(parents=True, exist_ok=True)
        for path, text in made.items():
            path.write_text(text, encoding="utf-8")
        return 0
    wrong = [path for path, text in made.items() if not _holds(path, text)]
    wrong += sorted(set(options.directory.glob("*.json")) - made.keys())
    for path in wrong:
        sys.stderr.write(f"{path} is not what the script makes: run python -m grafana.generate\n")
    return 1 if wrong else 0


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main())
