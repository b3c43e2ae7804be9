"""The trail of tuning changes, as others write it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cache_core.config.live import TuningChange
from cache_core.config.trail import TrailRecord
from tests.support import servers

TRAIL = "gc1:default:{tuning}"
SOON = 5.0
"""Seconds that a busy machine may take for what is promised within one; see benchmarks/tuning.py."""

Scribble = Callable[[str, str], None]


@pytest.fixture
def scribble(store_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scribble]:
    """Writes a row of the trail as some other program would."""
    if store_kind == "embedded":

        def write(name: str, text: str) -> None:
            path = tmp_path / "cache" / "glasscache.db"
            with contextlib.closing(sqlite3.connect(path, timeout=5)) as file:
                file.execute("INSERT INTO rows VALUES (?, ?, ?, NULL, 0)", (TRAIL, name, text))
                file.commit()

        yield write
        return
    url = request.getfixturevalue("redis_url")
    with servers.admin(url) as client:
        yield lambda name, text: client.hset(TRAIL, name, f"0 {text}")  # type: ignore[misc]


def record(version: int, /, **tuned: Any) -> str:
    """A row as a newer or a hostile program might write it, without any check."""
    change = TuningChange(version, 1.0, "somebody", "", {}, dict(tuned), None)
    return TrailRecord(change, tuned).text
