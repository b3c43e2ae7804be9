"""Recognition of the same answer."""

from __future__ import annotations

import itertools

import pytest

from cache_core.policy.answers import Told, named, same


def told(text: str, answer_id: str | None = None, documents: tuple[str, ...] = ()) -> Told:
    return Told(text, "".join(named(answer_id, documents)))


OPEN = "We are open from 9 to 18 on weekdays, and closed on Sundays."
SAME = [
    (told("It takes 3 days."), told("  it takes 3  days"), "only the layout differs"),
    (told("Ask us by mail.", "faq-7"), told("Write to the desk.", "faq-7"), "the caller's name"),
    (
        told(OPEN, documents=("b", "a")),
        told(
            "On weekdays our shop is open from 9 to 18; Sundays it is closed.", documents=("a", "b")
        ),
        "the same documents, numbers and words",
    ),
    (told(OPEN, "faq-1", ("a",)), told(OPEN, documents=("a",)), "equal texts, one of them named"),
]
DIFFERENT = [
    (told("Yes.", "faq-7"), told("Yes.", "faq-8"), "names given by the caller decide alone"),
    (told("It takes 3 days."), told("It takes 4 days."), "the texts differ"),
    (told(OPEN, documents=("a",)), told(OPEN.replace("18", "20"), documents=("a",)), "a number"),
    (
        told(OPEN, documents=("handbook",)),
        told("Refunds arrive within 9 to 18 banking hours.", documents=("handbook",)),
        "one document with the answers to two questions",
    ),
    (told(OPEN, documents=("a",)), told(OPEN + " Come in!", documents=("b",)), "other documents"),
    (told(OPEN), told("Open from 9 to 18 on weekdays, closed on Sundays, we are."), "no documents"),
]


@pytest.mark.parametrize(("one", "other"), [case[:2] for case in SAME], ids=[c[2] for c in SAME])
def test_the_same_answer(one: Told, other: Told) -> None:
    """Equal texts, names and documents make two answers the same, in either order."""
    assert same(one, other)
    assert same(other, one)


@pytest.mark.parametrize(
    ("one", "other"), [case[:2] for case in DIFFERENT], ids=[c[2] for c in DIFFERENT]
)
def test_different_answers(one: Told, other: Told) -> None:
    """Another name, number, document or wording makes two answers different, in either order."""
    assert not same(one, other)
    assert not same(other, one)


def test_an_answer_is_the_same_as_itself() -> None:
    """Whatever an answer is named by, it equals itself."""
    for one in itertools.chain.from_iterable(case[:2] for case in SAME + DIFFERENT):
        assert same(one, one)
