"""Stored texts as entries; what is asked for again and again is decoded once."""

from __future__ import annotations

from collections.abc import Collection

from cache_core import envelope
from cache_core.models import Entry
from cache_core.sealing import Sealer

KEPT_SECONDS = 60.0
"""What was decoded is in this process's memory no longer than this."""

KEPT = 2_048
LARGEST = 4_096
"""How many entries are kept, and the characters of the longest: some 10 MB of memory at most."""

_NOTHING: tuple[str | None, Entry] = (None, Entry())


class Decoder:
    """Does what `envelope.decode` does, and remembers for a while what it found.

    Equal texts under the same name are equal entries, so a popular answer is parsed and summed up
    once. Whether its reader may see it is checked every time. What is sealed is not kept readable.
    """

    def __init__(self) -> None:
        self._found: dict[str, tuple[str, Entry]] = {}
        self._since = 0.0

    def decode(
        self, text: str, name: str, readable: Collection[str], sealer: Sealer | None, now: float
    ) -> Entry:
        """Return the entry in *text*.

        Args:
            text, name, readable, sealer: As for `envelope.decode`, which says what is raised, too.
            now: The store's time, in seconds.
        """
        if not 0 <= now - self._since < KEPT_SECONDS:
            self._found.clear()
            self._since = now
        known, entry = self._found.get(name, _NOTHING)
        if known == text and entry.scope in readable:
            return entry
        entry = envelope.decode(text, name, readable, sealer)
        # Documents are lists and dicts: whoever gets them may change them.
        if sealer is None and entry.rag_results is None and len(text) <= LARGEST:
            if len(self._found) >= KEPT:
                self._found.clear()
            self._found[name] = (text, entry)
        return entry

    def forget(self) -> None:
        """Keep nothing of what was decoded."""
        self._found.clear()
