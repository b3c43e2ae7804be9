"""The most frequent questions, and their export."""

from __future__ import annotations

import io

import pandas as pd
import pytest

from dashboard.data.questions import Order, csv, questions
from tests.dashboard.test_overview import decision


def asked(text: str, outcome: str, user: str, saved: float = 0.0, weight: float = 1.0) -> object:
    """Return a lookup whose text was captured."""
    return decision(1.0, outcome)._replace(
        message=text.lower().strip("?"), message_text=text, user=user, saved_usd=saved,
        stands_for=weight,
    )  # fmt: skip


LOOKUPS = [
    asked("When?", "miss", "ann", weight=3.0),
    asked("How much?", "hit", "ann", 0.03),
    asked("how much", "hit", "bob", 0.9),
    asked("How much?", "miss", "cid"),
    asked("When", "hit", "bob", 0.5),
    asked("Never counted", "bypass", "bob"),
    asked("", "miss", "bob"),
]


@pytest.mark.parametrize(
    ("order", "first"),
    [
        ("most asked", ("When", 4, 1, 3, 0.5, 2)),
        ("most often unanswered", ("When", 4, 1, 3, 0.5, 2)),
        ("most saved", ("How much?", 3, 2, 1, 0.93, 3)),
    ],
)
def test_variants_of_a_question_are_one(order: Order, first: tuple[object, ...]) -> None:
    """A sampled lookup counts for all it stands for; bypasses and unknown texts are left out."""
    found = questions(LOOKUPS, order)  # type: ignore[arg-type]
    assert tuple(found.iloc[0])[:6] == first
    assert sorted(found["asked"]) == [3, 4]


def test_without_texts_there_is_none() -> None:
    """Digests are no questions."""
    assert questions([decision(1.0)], "most asked").empty


def test_an_export_has_no_formulas() -> None:
    """Text that a spreadsheet would run is text in the file, and numbers are numbers."""
    table = pd.DataFrame({"question": ["=HYPERLINK(1)", "@x", "fine"], "asked": [-1, 2, 3]})
    read = pd.read_csv(io.StringIO(csv(table)))
    assert read["question"].tolist() == ["'=HYPERLINK(1)", "'@x", "fine"]
    assert read["asked"].tolist() == [-1, 2, 3]
