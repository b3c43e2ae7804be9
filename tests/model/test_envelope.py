"""Envelopes of stored entries: any change is found."""

from __future__ import annotations

import pytest

from cache_core.model import envelope
from cache_core.model.values import Entry


def test_a_changed_character_is_corrupt() -> None:
    """Wherever one character of a stored entry differs, it is not served, though it decodes."""
    entry = Entry(response="at nine", message="when", scope="s", generation="g", created=1.0)
    text = envelope.encode(entry, "key")
    assert envelope.decode(text, "key", ("s",)) == entry
    for place, at in enumerate(text):
        for other in {"a", "0", " ", "z"} - {at}:
            changed = text[:place] + other + text[place + 1 :]
            with pytest.raises((envelope.CorruptError, envelope.ForeignError)):
                envelope.decode(changed, "key", ("s",))
