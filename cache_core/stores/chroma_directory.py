"""Directories of the embedded Chroma: one process each, the corrupt ones set aside.

Chroma does not lock its directory, and two processes in one lose entries without a word.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import chromadb
from chromadb.config import Settings
from filelock import FileLock, Timeout

from cache_core.stores.chroma_rebuild import Journal, finish_rebuilds

log = logging.getLogger("glasscache")

_SLOTS = 64
_EMPTY_SECONDS = 1.0
_held: dict[Path, Slot] = {}
_mutex = threading.Lock()


class Slot:
    """A directory that this process holds, how many caches use it, and what they write."""

    def __init__(self, path: Path, lock: FileLock) -> None:
        self.path = path
        self.journal = Journal()
        self._lock = lock
        self._users = 1
        self._empty: dict[str, float] = {}
        self.writes = 0
        """How many writes were made; this process makes all of them."""

    @property
    def alone(self) -> bool:
        """Whether one cache uses it."""
        return self._users == 1

    def write(self, name: str, ids: Sequence[str], work: Callable[[], Any]) -> Any:
        """Do *work*, which writes the rows *ids* of collection *name*."""
        try:
            return self.journal.write(name, ids, work)
        finally:
            # After the write: a search that began before its end may have found nothing.
            self.writes += 1
            self._empty.pop(name, None)

    def is_empty(self, name: str) -> bool:
        """Whether collection *name* is known to have no rows: there is nothing to search."""
        return time.monotonic() < self._empty.get(name, 0.0)

    def note_empty(self, name: str, writes: int) -> None:
        """Remember for a second that a search found no rows.

        Unless something was written since there were *writes*. Not for longer, because an
        application may write into the collection itself.
        """
        if self.writes == writes:
            self._empty[name] = time.monotonic() + _EMPTY_SECONDS

    def join(self) -> None:
        """Use it too."""
        self._users += 1

    def release(self) -> None:
        """Give the directory back when the last cache of this process left."""
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
    """Open the newest sound index in *slot*; a corrupt one is renamed and an empty one begun."""
    path = slot.path
    path.mkdir(mode=0o700, exist_ok=True)
    numbers = [int(child.name) for child in path.iterdir() if child.name.isdigit()]
    number = max(numbers, default=1)
    current = path / str(number)
    try:
        return _client(current, mend=slot.alone), current
    except (KeyboardInterrupt, SystemExit, PermissionError):
        raise
    # Chroma's native part panics with an exception that is no Exception.
    except BaseException as error:
        if not slot.alone:
            # Another cache of this process works in it.
            raise
        aside = path / f"{number}.corrupt"
        current.rename(aside)
        log.error(
            "chroma: the index in %s cannot be opened (%s: %s); set aside as %s, starting empty",
            current, type(error).__name__, error, aside.name,
        )  # fmt: skip
        # Under a new name, because Chroma remembers a path whose opening failed.
        fresh = path / str(number + 1)
        return _client(fresh, mend=False), fresh


def _client(path: Path, *, mend: bool) -> Any:
    client = chromadb.PersistentClient(str(path), settings=Settings(anonymized_telemetry=False))
    if mend:
        finish_rebuilds(client)
    for collection in client.list_collections():
        # A damaged index file shows only when it is searched.
        if collection.count():
            found = collection.get(limit=1, include=["embeddings"])
            collection.query(query_embeddings=found["embeddings"], n_results=1, include=[])
    return client


def _forget_parent() -> None:
    """Let a forked child take a directory of its own: the parent still holds the others."""
    from chromadb.api.shared_system_client import SharedSystemClient

    _held.clear()
    SharedSystemClient.clear_system_cache()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)
