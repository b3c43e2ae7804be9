"""Swapped words as a doubt."""

from __future__ import annotations

import pytest

from cache_core.tiers.guards.slots import swapped

SWAPPED = [
    ("Is the Leeds branch open late?", "Is the Manchester branch open late?"),
    ("storage quota of the Business plan", "storage quota of the Basic plan"),
    ("how do I cancel my subscription", "how do I end my subscription"),
]
AGREES = [
    ("Is the Leeds branch open late?", "is the leeds branch open late"),
    ("Where is my parcel?", "When does the shop open on Sundays?"),
    ("how do I cancel my subscription", "how do I cancel the subscription"),
    ("cancelling a subscription", "cancel my subscriptoin"),
    ("how do I cancel my subscription", "how do I cancel my subscription today by mail"),
]


@pytest.mark.parametrize(("asked", "stored"), SWAPPED)
def test_a_swapped_word_is_a_doubt(asked: str, stored: str) -> None:
    """One word of the same frame swapped for another is doubtful, in either direction."""
    assert swapped(asked, stored)
    assert swapped(stored, asked)


@pytest.mark.parametrize(("asked", "stored"), AGREES)
def test_other_differences_are_no_doubt(asked: str, stored: str) -> None:
    """Another spelling, form or frame, and words on one side only, are not swapped words."""
    assert not swapped(asked, stored)
