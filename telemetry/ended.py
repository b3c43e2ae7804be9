"""Files of ended workers in Prometheus multiprocess mode, merged into one for each kind.

A server that recycles its workers leaves files of 0.2 MiB for each, and a scrape reads all of them.
What ended workers counted must stay, so their files are added up. Every step can be the last one of
a process: inputs are renamed first, the new file's name says of which merge it is, and by it the
next call finds out whether to delete the inputs or to rename them back.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from prometheus_client.mmap_dict import MmapedDict

_KINDS = ("counter", "histogram", "summary", "gauge_sum")
"""Kinds of files whose values add up; those of other gauges do not."""

_LOCK = "glasscache-ended.lock"

_ENDED = "ended-"
"""Beginning of what a merged file has in place of a process id."""


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[bool]:
    """Keep other processes from merging; yield whether this one may, False where locks fail."""
    try:
        import fcntl

        descriptor = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except (ImportError, OSError):
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def merge(directory: Path, is_alive: Callable[[int], bool]) -> None:
    """Merge the files of ended workers; call it while they are `locked`.

    Args:
        directory: The one that the workers share.
        is_alive: Returns whether a process runs.
    """
    _complete(directory)
    for kind in _KINDS:
        files = [file for file in directory.glob(f"{kind}_*.db") if _has_ended(file, is_alive)]
        merged = [file for file in files if _owner(file).startswith(_ENDED)]
        if len(files) > len(merged):
            _add_up(directory, kind, files)


def _owner(file: Path) -> str:
    """Return the process id in a file's name, or the token of a merge."""
    return file.stem.rpartition("_")[2]


def _has_ended(file: Path, is_alive: Callable[[int], bool]) -> bool:
    owner = _owner(file)
    return owner.startswith(_ENDED) or (owner.isdigit() and not is_alive(int(owner)))


def _add_up(directory: Path, kind: str, files: Iterable[Path]) -> None:
    token = _ENDED + secrets.token_hex(8)
    inputs = [file.rename(file.with_name(f"{file.name}.{token}")) for file in files]
    made = directory / f"{kind}_{token}.part"
    _write(made, _sums(inputs))
    made.rename(_result(directory, kind, token))
    for file in inputs:
        file.unlink()


def _result(directory: Path, kind: str, token: str) -> Path:
    return directory / f"{kind}_{token}.db"


def _sums(files: Iterable[Path]) -> dict[str, float]:
    found: dict[str, float] = {}
    for file in files:
        if not file.stat().st_size:
            continue
        for key, value, _, _ in MmapedDict.read_all_values_from_file(str(file)):  # type: ignore[no-untyped-call]
            found[key] = found.get(key, 0.0) + value
    return found


def _write(file: Path, values: dict[str, float]) -> None:
    made: Any = MmapedDict(str(file))  # type: ignore[no-untyped-call]
    try:
        for key, value in values.items():
            made.write_value(key, value, 0.0)
    finally:
        made.close()


def _complete(directory: Path) -> None:
    """Complete or undo the merges of processes that ended while they merged."""
    for part in directory.glob("*.part"):
        part.unlink()
    for file in directory.glob(f"*.db.{_ENDED}*"):
        name, _, token = file.name.rpartition(".")
        kind = re.sub(r"_[^_]*\.db$", "", name)
        if _result(directory, kind, token).exists():
            file.unlink()
        else:
            file.rename(file.with_name(name))
