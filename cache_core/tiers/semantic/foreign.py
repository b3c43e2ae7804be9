"""Notice that most messages are in a language that is not matched by similarity."""

from __future__ import annotations

import logging

log = logging.getLogger("glasscache")

_ENOUGH = 20
"""Answers needed before the share is evaluated."""


class ForeignNotice:
    """Logs once that most messages are not English, which hits do not show."""

    def __init__(self) -> None:
        self._answers = 0
        self._foreign = 0
        self._said = False

    def note(self, *, foreign: bool) -> None:
        """Count an answer to be stored; *foreign* if its message's language is not matched."""
        self._answers += 1
        self._foreign += foreign
        if self._said or self._answers < _ENOUGH or 2 * self._foreign < self._answers:
            return
        self._said = True
        log.warning(
            "l2: %d of the first %d answers are not matched by similarity (unreadable): their "
            "messages are not English. With an embedding model that knows their language "
            "(EMBEDDING_MODEL), set CACHE_LANGUAGES=any; see docs/languages.md",
            self._foreign,
            self._answers,
        )
