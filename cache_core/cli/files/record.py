"""Raw row of a file, before its columns are known."""

from __future__ import annotations

from typing import Any, NamedTuple


class FileRecord(NamedTuple):
    """Raw row.

    Attributes:
        line: Number of its first line, from 1.
        values: Values by column.
        error: Reason why it could not be read; empty if it was.
    """

    line: int
    values: dict[str, Any]
    error: str = ""
