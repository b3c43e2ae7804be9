"""Decodes stored texts to entries; repeated ones once."""

from __future__ import annotations

from collections.abc import Collection

from cache_core.model import envelope
from cache_core.model.sealing import Sealer
from cache_core.model.values import Entry

KEPT_SECONDS = 60.0
"""Seconds at most that a decoded entry stays in memory."""

ENTRIES_KEPT = 2_048
LARGEST = 4_096
"""Maximal number of entries kept, and characters of each: some 10 MB of memory at most."""

_NOTHING: tuple[str | None, Entry] = (None, Entry())


class Decoder:
    """Decodes as `envelope.decode` does, and remembers the results for a while.

    Equal texts under the same name are equal entries, so a popular answer is parsed and checked
    once. Its reader's scope is checked every time. Sealed entries are not remembered.
    """

    def __init__(self) -> None:
        self._found: dict[str, tuple[str, Entry]] = {}
        self._since = 0.0

    def decode(
        self, text: str, name: str, readable: Collection[str], sealer: Sealer | None, now: float
    ) -> Entry:
        """Return the entry in *text*.

        Args:
            text, name, readable, sealer: See `envelope.decode`, also for the errors raised.
            now: The store's time, in seconds.
        """
        if not 0 <= now - self._since < KEPT_SECONDS:
            self._found.clear()
            self._since = now
        known, entry = self._found.get(name, _NOTHING)
        if known == text and entry.scope in readable:
            return entry
        entry = envelope.decode(text, name, readable, sealer)
        # Documents are lists and dicts, which the caller may change.
        if sealer is None and entry.rag_results is None and len(text) <= LARGEST:
            if len(self._found) >= ENTRIES_KEPT:
                self._found.clear()
            self._found[name] = (text, entry)
        return entry

    def forget(self) -> None:
        """Drop all decoded entries."""
        self._found.clear()
