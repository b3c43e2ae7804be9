"""Recognition of the same answer, in whatever words.

Two questions may share a stored answer if their answers are the same. That is known for certain
where the agent names its answers (`answer_id=`), and where the texts are equal. All other answers
are compared once, after a put: those made from the same documents are the same if no fact differs
and they share enough of their words, because one document may hold the answers to many questions.
Of other texts it is judged by their facts and their vectors, and stays unknown in between.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from typing import Literal, NamedTuple

from cache_core.model.question.wording import loose_form

_NAMED_BY_CALLER = "i"
_NAMED_BY_DOCUMENTS = "d"

_SHARED_WORDS = 1 / 3
"""Least share of the shorter answer's longer words that another wording of it repeats."""

_COMPARED = 8_192
"""Characters of an answer whose words are compared."""

Verdict = Literal["same", "different", "unknown"]

ALIKE = 0.81
UNLIKE = 0.62
"""Cosines of two answers from which they are the same, if their facts agree, and below which they
are different. Chosen for the packaged model by `python -m benchmarks.answers`."""

_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_WORD = re.compile(r"[^\W\d_]{4,}")
"""Words that are compared: shorter ones are mostly in every answer."""


class AnswerText(NamedTuple):
    """An answer, as far as it must be known to recognise it.

    Attributes:
        text: The response.
        name: Digest of its name, after the kind that `named` returned; empty without one.
    """

    text: str
    name: str = ""


def named(answer_id: str | None, documents: Collection[str]) -> tuple[str, str]:
    """Return kind and text of an answer's name; both empty if it has none.

    Args:
        answer_id: The caller's name of it; it comes first.
        documents: Ids of the documents that it came from.
    """
    if answer_id:
        return _NAMED_BY_CALLER, answer_id
    if documents:
        return _NAMED_BY_DOCUMENTS, "\0".join(sorted(documents))
    return "", ""


def by_caller(name: str) -> bool:
    """Return whether the caller gave an answer its name."""
    return name[:1] == _NAMED_BY_CALLER


def named_or_equal(one: AnswerText, other: AnswerText) -> bool | None:
    """Return whether names by the caller or equal texts make two answers the same.

    Names decide alone, if both answers have one. Texts are equal without regard to case, spaces and
    final signs. `None` if neither tells: names that only one has, or other texts.
    """
    if one.name[:1] == other.name[:1] == _NAMED_BY_CALLER:
        return one.name == other.name
    return True if loose_form(one.text) == loose_form(other.text) else None


def same_documents(one: AnswerText, other: AnswerText) -> bool:
    """Return whether two answers come from the same documents, with equal numbers and shared words.

    They are the same answer unless a fact of one stands for another one in the other.
    """
    return (
        one.name == other.name
        and one.name[:1] == _NAMED_BY_DOCUMENTS
        and _numbers(one.text) == _numbers(other.text)
        and _overlap(one.text, other.text)
    )


def judged(similarity: float, *, agree: bool) -> Verdict:
    """Return what the vectors of two answers say of them.

    Args:
        similarity: Cosine of the vectors.
        agree: Whether the facts of the answers agree; if not, that is a doubt.
    """
    if similarity < UNLIKE:
        return "different"
    return "same" if agree and similarity >= ALIKE else "unknown"


def _numbers(text: str) -> Counter[str]:
    return Counter(_NUMBER.findall(text[:_COMPARED]))


def _overlap(one: str, other: str) -> bool:
    """Return whether the shorter of two answers repeats enough words of the other."""
    words, others = (set(_WORD.findall(text[:_COMPARED].casefold())) for text in (one, other))
    fewest = min(len(words), len(others))
    return fewest > 0 and len(words & others) >= _SHARED_WORDS * fewest
