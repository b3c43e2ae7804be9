"""Recognition of the same answer."""

from __future__ import annotations

import itertools

import pytest

from cache_core.policy.answers import AnswerText, named, named_or_equal, same_documents


def answer_text(
    text: str, answer_id: str | None = None, documents: tuple[str, ...] = ()
) -> AnswerText:
    return AnswerText(text, "".join(named(answer_id, documents)))


OPEN = "We are open from 9 to 18 on weekdays, and closed on Sundays."
SAME = [
    (answer_text("It takes 3 days."), answer_text("  it takes 3  days"), "only the layout differs"),
    (
        answer_text("Ask us by mail.", "faq-7"),
        answer_text("Write to the desk.", "faq-7"),
        "the caller's name",
    ),
    (
        answer_text(OPEN, documents=("b", "a")),
        answer_text(
            "On weekdays our shop is open from 9 to 18; Sundays it is closed.", documents=("a", "b")
        ),
        "the same documents, numbers and words",
    ),
    (
        answer_text(OPEN, "faq-1", ("a",)),
        answer_text(OPEN, documents=("a",)),
        "equal texts, one of them named",
    ),
]
DIFFERENT = [
    (
        answer_text("Yes.", "faq-7"),
        answer_text("Yes.", "faq-8"),
        "names given by the caller decide alone",
    ),
    (answer_text("It takes 3 days."), answer_text("It takes 4 days."), "the texts differ"),
    (
        answer_text(OPEN, documents=("a",)),
        answer_text(OPEN.replace("18", "20"), documents=("a",)),
        "a number",
    ),
    (
        answer_text(OPEN, documents=("handbook",)),
        answer_text("Refunds arrive within 9 to 18 banking hours.", documents=("handbook",)),
        "one document with the answers to two questions",
    ),
    (
        answer_text(OPEN, documents=("a",)),
        answer_text(OPEN + " Come in!", documents=("b",)),
        "other documents",
    ),
    (
        answer_text(OPEN),
        answer_text("Open from 9 to 18 on weekdays, closed on Sundays, we are."),
        "no documents",
    ),
]


def _same(one: AnswerText, other: AnswerText) -> bool:
    return named_or_equal(one, other) is True or same_documents(one, other)


@pytest.mark.parametrize(("one", "other"), [case[:2] for case in SAME], ids=[c[2] for c in SAME])
def test_the_same_answer(one: AnswerText, other: AnswerText) -> None:
    """Equal texts, names and documents make two answers the same, in either order."""
    assert _same(one, other)
    assert _same(other, one)


@pytest.mark.parametrize(
    ("one", "other"), [case[:2] for case in DIFFERENT], ids=[c[2] for c in DIFFERENT]
)
def test_different_answers(one: AnswerText, other: AnswerText) -> None:
    """Another name, number, document or wording makes two answers different, in either order."""
    assert not _same(one, other)
    assert not _same(other, one)


def test_an_answer_is_the_same_as_itself() -> None:
    """Whatever an answer is named by, it equals itself."""
    for one in itertools.chain.from_iterable(case[:2] for case in SAME + DIFFERENT):
        assert named_or_equal(one, one) is True
