"""Data directories: a check of the wanted one, and its replacement."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import stat
import tempfile
from pathlib import Path

log = logging.getLogger("glasscache")

_instead: dict[Path, Path | None] = {}
_memories: dict[Path, str] = {}


def usable_directory(wanted: Path) -> Path | None:
    """Return *wanted*, else a temporary directory; `None` if neither is writable.

    The problem with *wanted* is logged once.
    """
    try:
        _check(wanted)
    except OSError as error:
        if wanted not in _instead:
            _instead[wanted] = _temporary(wanted, error)
        return _instead[wanted]
    _instead.pop(wanted, None)
    return wanted


def memory_of(wanted: Path) -> str:
    """Return the name of this process's memory that replaces an unusable *wanted*.

    All event loops in which a cache is open share it, as they would share a file: an invalidation
    in one applies to all.
    """
    return f"{_memories.setdefault(wanted, secrets.token_hex(8))}-{os.getpid()}"


def _check(path: Path) -> None:
    """Make *path* if it is missing; raise `OSError` if it cannot be used."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_owner(path)
    with tempfile.TemporaryFile(dir=path) as file:
        _check_locks(file.fileno())


def _check_owner(path: Path) -> None:
    """Raise `PermissionError` for another user's directory in a world-writable parent."""
    shared = path.parent.stat().st_mode & stat.S_ISVTX
    if shared and hasattr(os, "geteuid") and path.lstat().st_uid not in {0, os.geteuid()}:
        raise PermissionError(13, "belongs to another user", str(path))


def _check_locks(file: int) -> None:
    """Raise `OSError` if the file system has no locks, as NFS without lockd.

    SQLite and Chroma would lose concurrent writes of two processes.
    """
    try:
        import fcntl
    except ImportError:  # Windows always has them
        return
    # Chroma's directories use flock, SQLite's files lockf.
    for lock in (fcntl.flock, fcntl.lockf):
        lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock(file, fcntl.LOCK_UN)


def _temporary(wanted: Path, why: OSError) -> Path | None:
    with contextlib.suppress(OSError):
        made = Path(tempfile.mkdtemp(prefix="glasscache-"))
        with contextlib.suppress(OSError):
            _check(made)
            log.error(
                "the data directory %s cannot be used (%s). This process uses %s, which no other "
                "process sees; set CACHE_DIR to a local directory that it may write to",
                wanted, why, made,
            )  # fmt: skip
            return made
        made.rmdir()
    log.error(
        "neither the data directory %s (%s) nor a temporary one can be used. What is kept in files "
        "is kept in the memory of this process until it ends; set CACHE_DIR to a local directory "
        "that it may write to",
        wanted, why,
    )  # fmt: skip
    return None
