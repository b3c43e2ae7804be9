"""Durations in short notation, read and written."""

from __future__ import annotations

import pytest

from cache_core.model.durations import seconds, text


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0 s"), (0.25, "250 ms"), (0.005, "5 ms"), (1, "1 s"), (90, "1.5 m"), (3_600, "1 h"),
     (5_400, "1.5 h"), (3_661, "3661 s"), (86_400, "1 d"), (2_592_000, "30 d")],
)  # fmt: skip
def test_a_written_duration_is_read_back(value: float, shown: str) -> None:
    """The largest unit that is exact in few digits, in a form that every setting accepts."""
    assert text(value) == shown
    assert seconds(shown) == value


def test_numbers_are_seconds() -> None:
    """A number, also as text, is returned unchanged; pydantic converts the text."""
    assert (seconds(5), seconds("5"), seconds("1.5"), seconds(None)) == (5, "5", "1.5", None)


@pytest.mark.parametrize("wrong", ["", "1x", "h", "1h30", "one hour", "-1h"])
def test_anything_else_says_what_is_expected(wrong: str) -> None:
    """The error shows how a duration is written."""
    with pytest.raises(ValueError, match="such as 250ms, 90s, 15m, 2h or 7d"):
        seconds(wrong)
