"""Reasons in words: each of the closed sets has both texts."""

from __future__ import annotations

from typing import get_args

from cache_core.model.reasons import REASONS, long, short
from cache_core.model.values import ERROR_REASONS, MISS_REASONS, BypassReason


def test_every_reason_has_a_short_and_a_long_text() -> None:
    """Every reason of a miss, error, bypass and hit has a text, and no two have the same."""
    reasons = {*MISS_REASONS, *ERROR_REASONS, *get_args(BypassReason), "unconfirmed", "approved"}
    assert reasons == set(REASONS)
    for texts in zip(*REASONS.values(), strict=True):
        assert all(texts)
        assert len(set(texts)) == len(texts)
    assert all(len(words.short) <= 30 for words in REASONS.values())
    assert not any(words.long.endswith(".") for words in REASONS.values())


def test_a_reason_of_a_newer_version_is_shown_as_it_is() -> None:
    """A replica of another version may report one that this one does not know."""
    assert (short("moonphase"), long("moonphase")) == ("moonphase", "")
    assert (short("cold"), long("cold")) == ("nothing stored", "nothing is stored for it")
