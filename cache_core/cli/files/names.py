"""Comparison of column names, tolerant of people's variations."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_WORD = re.compile(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+(?![a-z])|\d+")


@lru_cache(4_096)
def squashed(name: str) -> str:
    """Return a name without case, spaces and signs, so that `User ID` equals `user_id`."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return "".join(letter for letter in folded if letter.isalnum())


def plural(word: str) -> str:
    """Return the plural of an English word."""
    return f"{word[:-1]}ies" if word.endswith(("ry", "ly")) else f"{word}s"


@lru_cache(4_096)
def words(name: str) -> frozenset[str]:
    """Return the words of a name, folded: those of `userQuestion` and of `user_question`."""
    return frozenset(map(squashed, _WORD.findall(unicodedata.normalize("NFKC", name))))
