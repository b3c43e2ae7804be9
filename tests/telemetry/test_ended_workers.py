"""Files of ended workers: merged without losing or doubling a count, whenever a process dies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector

from telemetry import ended

ALIVE = 1_000_000
KINDS = ("counter", "histogram", "summary", "gauge_sum")


def _work(directory: Path, worker: int, amount: float) -> None:
    """Leave the files of a worker, as the client writes them; also those that do not add up."""
    for kind in (*KINDS, "gauge_max", "gauge_all"):
        file = MmapedDict(str(directory / f"{kind}_{worker}.db"))
        for label in ("a", "b"):
            names, values = (("x",), (label,)) if kind != "histogram" else (("le",), ("1.0",))
            name = f"{kind}_x" + ("_bucket" if kind == "histogram" else "")
            key = mmap_key(f"{kind}_x", name, names, values, "help")
            file.write_value(key, amount + (label == "b"), 0.0)
        file.close()


def _scraped(directory: Path) -> dict[tuple[str, str], float]:
    return {
        (sample.name, str(sample.labels)): sample.value
        for family in MultiProcessCollector(None, str(directory)).collect()
        for sample in family.samples
    }


def _merge(directory: Path) -> None:
    with ended.locked(directory) as alone:
        assert alone
        ended.merge(directory, lambda worker: worker >= ALIVE)


def _files(directory: Path) -> list[str]:
    return sorted(file.name for file in directory.iterdir() if file.suffix == ".db")


def test_a_hundred_ended_workers_are_one_file_of_each_kind(tmp_path: Path) -> None:
    """A scrape shows the same before and after merging, and again when more have ended."""
    _work(tmp_path, ALIVE, 5)
    for worker in range(1, 101):
        _work(tmp_path, worker, worker)
    before = _scraped(tmp_path)
    _merge(tmp_path)
    assert _scraped(tmp_path) == before
    for kind in KINDS:
        assert len([name for name in _files(tmp_path) if name.startswith(f"{kind}_")]) == 2, kind
    assert len([name for name in _files(tmp_path) if name.startswith("gauge_max_")]) == 101
    files = _files(tmp_path)
    _merge(tmp_path)
    assert _files(tmp_path) == files, "nothing to do, nothing done"
    _work(tmp_path, 500, 7)
    before = _scraped(tmp_path)
    _merge(tmp_path)
    assert _scraped(tmp_path) == before
    assert len(_files(tmp_path)) == len(files) + 2, "its gauges that do not add up"


@pytest.mark.parametrize("step", range(40))
def test_a_process_that_ends_while_it_merges_loses_nothing(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended after any of its changes to the directory, the next merge restores every count."""
    _work(tmp_path, ALIVE, 5)
    for worker in range(1, 4):
        _work(tmp_path, worker, worker)
    before = _scraped(tmp_path)
    changes = 0

    class EndedError(BaseException):
        """The end of the process."""

    def counted(change):
        def changed(*args, **more):
            nonlocal changes
            if changes == step:
                raise EndedError
            changes += 1
            return change(*args, **more)

        return changed

    with monkeypatch.context() as patched:
        for name in ("rename", "unlink"):
            patched.setattr(os, name, counted(getattr(os, name)))
        patched.setattr(ended, "_write", counted(ended._write))
        try:
            _merge(tmp_path)
        except EndedError:
            pass
        else:
            assert step >= 28, "every step was cut off"
    _merge(tmp_path)
    assert _scraped(tmp_path) == before
    assert not list(tmp_path.glob("*.part"))
    assert not list(tmp_path.glob("*.db.*"))


def test_an_empty_file_of_a_worker_that_died_early_is_no_obstacle(tmp_path: Path) -> None:
    """A worker killed between making its file and writing it leaves nothing to add."""
    _work(tmp_path, 1, 3)
    (tmp_path / "counter_2.db").touch()
    _merge(tmp_path)
    assert next(name for name in _files(tmp_path) if name.startswith("counter_"))[8:14] == "ended-"
