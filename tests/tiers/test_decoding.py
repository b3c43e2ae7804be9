"""Decoding once what is asked for again and again changes nothing but the time that it takes."""

from __future__ import annotations

from typing import Any

import pytest

from cache_core.model import envelope
from cache_core.model.sealing import Sealer
from cache_core.model.values import Entry
from cache_core.tiers.decoding import ENTRIES_KEPT, KEPT_SECONDS, LARGEST, Decoder

NAME = "the key"
ENTRY = Entry(response="at nine", intent="hours", scope="ann", generation="g", created=1.0)
TEXT = envelope.encode(ENTRY, NAME)
READERS = ("ann", "shared")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that were really decoded."""
    found: list[str] = []
    real = envelope.decode

    def decode(text: str, *more: Any) -> Entry:
        found.append(text)
        return real(text, *more)

    monkeypatch.setattr(envelope, "decode", decode)
    return found


def test_an_equal_text_is_decoded_once(decoded: list[str]) -> None:
    """The second reader gets the same entry."""
    decoder = Decoder()
    for _ in range(3):
        assert decoder.decode(TEXT, NAME, READERS, None, 100.0) == ENTRY
    assert decoded == [TEXT]


def test_another_text_under_the_name_is_decoded() -> None:
    """A newly stored entry is served; one damaged since is not."""
    decoder = Decoder()
    assert decoder.decode(TEXT, NAME, READERS, None, 100.0) == ENTRY
    with pytest.raises(envelope.CorruptError):
        decoder.decode(TEXT.replace("nine", "five"), NAME, READERS, None, 100.0)
    later = ENTRY._replace(response="at ten")
    assert decoder.decode(envelope.encode(later, NAME), NAME, READERS, None, 100.0) == later


def test_who_may_not_read_it_does_not() -> None:
    """An entry's scope and key are checked for each reader."""
    decoder = Decoder()
    assert decoder.decode(TEXT, NAME, READERS, None, 100.0) == ENTRY
    with pytest.raises(envelope.ForeignError):
        decoder.decode(TEXT, NAME, ("bob", "shared"), None, 100.0)
    with pytest.raises(envelope.CorruptError):
        decoder.decode(TEXT, "another key", READERS, None, 100.0)


@pytest.mark.parametrize(
    ("entry", "sealer"),
    [
        (ENTRY._replace(rag_results=[{"id": "doc"}]), None),
        (ENTRY._replace(response="x" * LARGEST), None),
        (ENTRY, Sealer(["k" * 43 + "="])),
    ],
    ids=["documents", "large", "sealed"],
)
def test_what_is_not_kept(entry: Entry, sealer: Sealer | None, decoded: list[str]) -> None:
    """Documents, which their reader may change; what is large; what is stored unreadable."""
    decoder, text = Decoder(), envelope.encode(entry, NAME, sealer)
    one = decoder.decode(text, NAME, READERS, sealer, 100.0)
    other = decoder.decode(text, NAME, READERS, sealer, 100.0)
    assert one == other == entry
    assert len(decoded) == 2
    assert one.rag_results is None or one.rag_results is not other.rag_results


@pytest.mark.parametrize("later", [KEPT_SECONDS, -1.0])
def test_nothing_is_kept_for_long(later: float, decoded: list[str]) -> None:
    """Not even while the clock is set back."""
    decoder = Decoder()
    for now in (100.0, 100.0 + KEPT_SECONDS / 2, 100.0 + later):
        assert decoder.decode(TEXT, NAME, READERS, None, now) == ENTRY
    assert len(decoded) == 2


def test_only_so_many_are_kept(decoded: list[str]) -> None:
    """The last one asked for is always among them."""
    decoder = Decoder()
    for number in range(ENTRIES_KEPT + 1):
        name = f"key {number}"
        decoder.decode(envelope.encode(ENTRY, name), name, READERS, None, 100.0)
    assert len(decoded) == ENTRIES_KEPT + 1
    assert len(decoder._found) <= ENTRIES_KEPT
    decoder.decode(envelope.encode(ENTRY, name), name, READERS, None, 100.0)
    assert len(decoded) == ENTRIES_KEPT + 1
