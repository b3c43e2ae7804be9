"""Directories of the embedded Chroma: one process each, the corrupt ones set aside.

Chroma does not lock its directory, and two processes in one silently lose entries.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import chromadb
from chromadb.api.shared_system_client import SharedSystemClient
from filelock import FileLock, Timeout

from cache_core.backends.chroma.rebuild import WriteLog, finish_rebuilds
from cache_core.backends.chroma.settings import own_settings
from cache_core.backends.forking import leave_to_parent

log = logging.getLogger("glasscache")

_SLOTS = 64
_EMPTY_SECONDS = 1.0
_SCARCE = (
    "Too many open files", "unable to open database file", "database is locked", "disk is full",
    "No space left", "can't start new thread", "Resource temporarily unavailable",
    "Cannot allocate memory",
)  # fmt: skip
"""Words of errors for what the process or the machine lacks, and not the index."""

_held: dict[Path, Slot] = {}
_mutex = threading.Lock()
_clients = threading.Lock()
"""Held while a client is opened or closed: Chroma's own registry is not thread-safe."""

_native = {"used": False, "lost": False}
"""Use of Chroma's native part in this process (used), and in a parent (lost)."""


class Slot:
    """Directory held by this process, its number of caches, and their writes."""

    def __init__(self, path: Path, lock: FileLock) -> None:
        self.path = path
        self.journal = WriteLog()
        self._lock = lock
        self._users = 1
        self._empty: dict[str, float] = {}
        self.writes = 0
        """Number of writes; this process makes all of them."""

    @property
    def alone(self) -> bool:
        """True while one cache uses it."""
        return self._users == 1

    def write(self, name: str, ids: Sequence[str], work: Callable[[], Any]) -> Any:
        """Run *work*, which writes the rows *ids* of collection *name*."""
        try:
            return self.journal.write(name, ids, work)
        finally:
            # After the write, because a search that began before its end may have found nothing.
            self.writes += 1
            self._empty.pop(name, None)

    def is_empty(self, name: str) -> bool:
        """Return whether collection *name* is known to have no rows to search."""
        return time.monotonic() < self._empty.get(name, 0.0)

    def note_empty(self, name: str, writes: int) -> None:
        """Remember for a second that a search found no rows.

        Ignored if anything was written since there were *writes*. Not for longer, because an
        application may write into the collection itself.
        """
        if self.writes == writes:
            self._empty[name] = time.monotonic() + _EMPTY_SECONDS

    def join(self) -> None:
        """Count one more cache."""
        self._users += 1

    def release(self) -> None:
        """Release the directory once the last cache of this process has left."""
        with _mutex:
            self._users -= 1
            if self._users == 0:
                _held.pop(self.path.parent, None)
                self._lock.release()


def open_directory(base: Path) -> tuple[Any, Slot, str]:
    """Return a Chroma client on a directory under *base* that no other process uses.

    Returns:
        The client, the slot to release after closing it, and the directory of the index.

    Raises:
        OSError: If *base* cannot be used, or if all 64 directories are taken.
    """
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    slot = _take(base)
    try:
        with _clients:
            client, place = _open(slot)
        return client, slot, str(place)
    except BaseException:
        slot.release()
        raise


def _take(base: Path) -> Slot:
    with _mutex:
        if base in _held:
            _held[base].join()
            return _held[base]
        for number in range(_SLOTS):
            lock = FileLock(base / f"chroma-{number}.lock", thread_local=False)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            if number:
                log.info(
                    "chroma: another process uses %s; this one keeps a copy of the semantic index "
                    "in chroma-%d, within a second of it. To share one index, set CHROMA_URL",
                    base / "chroma-0",
                    number,
                )
            slot = Slot(base / f"chroma-{number}", lock)
            _held[base] = slot
            return slot
    msg = f"all {_SLOTS} semantic indexes under {base} are in use; run a server, set CHROMA_URL"
    raise OSError(msg)


def _open(slot: Slot) -> tuple[Any, Path]:
    """Open the newest index in *slot*; a corrupt one is renamed and an empty one started."""
    path = slot.path
    path.mkdir(mode=0o700, exist_ok=True)
    names = [child.name for child in path.iterdir()]
    aside = [int(name.partition(".")[0]) for name in names if name.endswith(".corrupt")]
    number = max(map(int, filter(str.isdigit, names)), default=max(aside, default=0) + 1)
    current = path / str(number)
    try:
        return _client(current, mend=slot.alone), current
    except (KeyboardInterrupt, SystemExit, PermissionError):
        raise
    # Chroma's native part panics with an exception that is no Exception.
    except BaseException as error:
        if not slot.alone or not current.exists() or _is_scarcity(error):
            # Another cache of this process uses it, it could not be created, or it may be sound.
            raise
        corrupt = current.rename(path / f"{number}.corrupt")
        log.error(
            "chroma: the index in %s cannot be opened (%s: %s); set aside as %s, starting empty",
            current, type(error).__name__, error, corrupt.name,
        )  # fmt: skip
        # Under a new name, because Chroma remembers a path whose opening failed.
        fresh = path / str(number + 1)
        return _client(fresh, mend=False), fresh


def _is_scarcity(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or any(words in str(error) for words in _SCARCE)


def close_client(client: Any) -> None:
    """Close a client that `open_directory` returned."""
    with _clients:
        client.close()


def is_thin_client() -> bool:
    """Return whether `chromadb-client` is installed, which knows servers only."""
    return importlib.util.find_spec("chromadb.is_thin_client") is not None


def can_be_embedded() -> bool:
    """Return whether this process can open an index: not if a parent used one before the fork.

    The thread pool of Chroma's native part never restarts in a forked child: a call that needs it
    does not return, and holds the interpreter's lock meanwhile.
    """
    return not _native["lost"]


def _client(path: Path, *, mend: bool) -> Any:
    _native["used"] = True
    try:
        client = chromadb.PersistentClient(str(path), settings=own_settings())
    except BaseException:
        # Chroma would return the half-opened index from now on.
        SharedSystemClient._identifier_to_system.pop(str(path), None)  # noqa: SLF001 - theirs
        raise
    if mend:
        finish_rebuilds(client)
    for collection in client.list_collections():
        # A damaged index file is only noticed when it is searched.
        if collection.count():
            found = collection.get(limit=1, include=["embeddings"])
            collection.query(query_embeddings=found["embeddings"], n_results=1, include=[])
    return client


def _forget_parent() -> None:
    """Drop the parent's directories and clients without closing them."""
    global _clients, _mutex
    _native["lost"] = _native["lost"] or _native["used"]
    leave_to_parent(dict(_held), SharedSystemClient._identifier_to_system)  # noqa: SLF001 - theirs
    _clients, _mutex = threading.Lock(), threading.Lock()
    _held.clear()
    SharedSystemClient.clear_system_cache()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)
