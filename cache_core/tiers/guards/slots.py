"""Doubt about a neighbour: one or two words of the question's frame are swapped for others.

"Is the Leeds branch open late" and "is the Manchester branch open late" differ in a slot, "cancel"
and "end my subscription" do not, and the texts alone do not say which. So it is a doubt, for the
policy to weigh, and not a veto.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import SequenceMatcher

from cache_core.tiers.guards.words import FUNCTION, stem, tokenise

_SWAPPED = 2
"""Most words that are swapped on each side; more are another wording, not another slot."""

_ALIKE = 0.78
"""Share of equal letters from which a word is another spelling of the other."""


def swapped(asked: str, stored: str) -> bool:
    """Return whether few words differ on both sides, none a form of another, and the rest agrees.

    Function words do not count. The shared stems must be at least half of the shorter side's.
    """
    return swapped_words(_content(asked), _content(stored))


def swapped_words(ours: Mapping[str, str], theirs: Mapping[str, str]) -> bool:
    """Return the same of two texts whose content words are known, by their stems."""
    left, right = ours.keys() - theirs.keys(), theirs.keys() - ours.keys()
    if not (0 < len(left) <= _SWAPPED and 0 < len(right) <= _SWAPPED):
        return False
    if 2 * len(ours.keys() & theirs.keys()) < min(len(ours), len(theirs)):
        return False
    return not any(_alike(ours[one], theirs[other]) for one in left for other in right)


def _content(text: str) -> dict[str, str]:
    """Return the content words of a text by their stems."""
    words = (token.text for token in tokenise(text) if token.kind in {"word", "number"})
    return {stem(word): word for word in words if word not in FUNCTION}


def _alike(one: str, other: str) -> bool:
    return SequenceMatcher(None, one, other).ratio() >= _ALIKE
