"""Requests from a file of recorded traffic, ready for a replay."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cache_core.cli.files import REQUESTS, FileRow, How, Report, read
from cache_core.whatif.replay import TrafficRow


def read_rows(path: Path, limit: int | None = None) -> list[TrafficRow]:
    """Return the rows of a file of recorded traffic, ordered by time.

    Args:
        path: CSV or JSON in any format that `cache_core.cli.files` reads.
        limit: Most rows, from the first.

    Raises:
        ConfigurationError: If the file or a row is bad, with its line and what is expected.
    """
    return in_order(read(path, REQUESTS, How(strict=True, limit=limit), Report()))


def in_order(rows: Iterable[FileRow]) -> list[TrafficRow]:
    """Return the rows of a file, by time if all have one: exports begin with the newest."""
    found = [TrafficRow(**row.values) for row in rows]
    if all(row.t is not None for row in found):
        found.sort(key=lambda row: row.t or 0.0)
    return found
