"""Rebuild of an embedded collection: a copy without the deleted rows replaces it.

Chroma neither frees a deleted row's space nor removes it from the graph. The copy is made while the
collection is searched and written; a journal lists the rows to copy again.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from cache_core.model.batches import batched

log = logging.getLogger("glasscache")

# With a high sync_threshold each row that is not yet in the index file slows down puts.
SYNC_THRESHOLD = 200
CONFIGURATION = {"hnsw": {"space": "cosine", "sync_threshold": SYNC_THRESHOLD, "batch_size": 100}}

COPY = "-rebuilt"
"""Suffix of an unfinished copy's name."""

REPLACED = "-replaced"
"""Suffix of the name of a collection whose copy is complete."""

# Chroma does not search while it writes: for 10 ms with 20 rows, for 300 with 1,000.
_PAGE = 20
_PAUSE = 0.01
_IDS_PAGE = 1_000


class WriteLog:
    """Serialises writes to a directory, and records those made during a rebuild."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._touched: dict[str, set[str]] = {}

    def write(self, name: str, ids: Sequence[str], work: Callable[[], Any]) -> Any:
        """Run *work*, which writes or deletes the rows *ids* of collection *name*."""
        with self._lock:
            if name in self._touched:
                self._touched[name].update(ids)
            return work()

    @contextlib.contextmanager
    def recording(self, name: str) -> Iterator[bool]:
        """Record writes to *name*; yields False if it is already being rebuilt."""
        with self._lock:
            mine = name not in self._touched
            if mine:
                self._touched[name] = set()
        try:
            yield mine
        finally:
            if mine:
                with self._lock:
                    del self._touched[name]

    def locked(self, work: Callable[[], Any]) -> Any:
        """Run *work* without concurrent writes."""
        with self._lock:
            return work()

    def take(self, name: str) -> list[str]:
        """Return the rows written since the last call; needs `locked`."""
        touched, self._touched[name] = self._touched[name], set()
        return sorted(touched)


def rebuild(client: Any, name: str, journal: WriteLog, stopped: threading.Event) -> bool:
    """Replace collection *name* by a copy without deleted rows; runs in a thread of its own.

    Returns:
        Whether it was replaced. If *stopped* was set meanwhile, or anything failed, the collection
        is unchanged.
    """
    try:
        with journal.recording(name) as mine:
            return mine and _replace(client, name, journal, stopped)
    except (KeyboardInterrupt, SystemExit):
        raise
    # Chroma's native part panics with an exception that is no Exception.
    except BaseException as error:  # noqa: BLE001
        log.warning("chroma: an index was not rebuilt: %s: %s", type(error).__name__, error)
        return False


def _replace(client: Any, name: str, journal: WriteLog, stopped: threading.Event) -> bool:
    finish_rebuilds(client, name)
    old = client.get_collection(name, embedding_function=None)
    fresh = client.create_collection(
        name + COPY, configuration=CONFIGURATION, embedding_function=None
    )
    try:
        ids = journal.locked(lambda: _ids(old))
        while len(ids) > _PAGE:
            for page in batched(ids, _PAGE):
                # The interpreter waits for this thread at exit, without setting *stopped*.
                if stopped.wait(_PAUSE) or not threading.main_thread().is_alive():
                    client.delete_collection(name + COPY)
                    return False
                _copy(old, fresh, page)
            ids = journal.locked(lambda: journal.take(name))
        _copy(old, fresh, ids)

        def swap() -> None:
            _copy(old, fresh, journal.take(name))
            # Renamed before it is deleted: users of the old handle find the new one by name.
            old.modify(name=name + REPLACED)
            fresh.modify(name=name)
            client.delete_collection(name + REPLACED)

        journal.locked(swap)
    except BaseException:
        with contextlib.suppress(Exception):
            finish_rebuilds(client, name)
        raise
    return True


def _ids(collection: Any) -> list[str]:
    found: list[str] = []
    while True:
        page = collection.get(limit=_IDS_PAGE, offset=len(found), include=[])["ids"]
        found += page
        if not page:
            return found


def _copy(old: Any, fresh: Any, ids: Sequence[str]) -> None:
    """Copy the rows *ids* from *old* to *fresh*, deleting those that *old* does not have."""
    for wanted in batched(list(ids), _PAGE):
        page = old.get(ids=wanted, include=["embeddings", "metadatas"])
        if page["ids"]:
            fresh.upsert(
                ids=page["ids"], embeddings=page["embeddings"], metadatas=page["metadatas"]
            )
        if gone := set(wanted).difference(page["ids"]):
            fresh.delete(ids=sorted(gone))


def finish_rebuilds(client: Any, only: str | None = None) -> None:
    """Finish interrupted rebuilds of one collection, or of all."""
    found = {collection.name: collection for collection in client.list_collections()}
    for name, collection in found.items():
        original = name.removesuffix(COPY).removesuffix(REPLACED)
        if name == original or only not in {None, original}:
            continue
        if name.endswith(COPY) and original not in found and original + REPLACED in found:
            collection.modify(name=original)
        elif name.endswith(COPY) or original in found or original + COPY in found:
            client.delete_collection(name)
        else:
            collection.modify(name=original)
