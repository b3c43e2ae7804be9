"""Answers for `glasscache warm`, prepared from the rows of a file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from cache_core.cli.files import FileRow
from cache_core.cli.files.values import has_html, plain
from cache_core.model.question.days import ages, names_a_day
from cache_core.model.values import Context


class Options(NamedTuple):
    """Values given on the command line for all answers; they override those of the rows.

    Attributes:
        context: Context of all answers; `None` leaves each row's own.
        intent: Intent of all answers; likewise.
        tags: Tags in addition to the rows' own.
        plain: Whether HTML is converted to text.
    """

    context: Context
    intent: str | None
    tags: tuple[str, ...]
    plain: bool


class Kind(NamedTuple):
    """Values that answers stored together share.

    Attributes:
        context: The context as JSON, so that it can be compared; `null` for none.
        intent: The intent label.
        tags: The tags to invalidate them by.
    """

    context: str
    intent: str | None
    tags: tuple[str, ...]


class Prepared(NamedTuple):
    """Answer to be stored."""

    query: str
    user_id: str | None
    response: str
    kind: Kind


class Found(NamedTuple):
    """Answers read from the rows of a file.

    Attributes:
        answers: Answers to store.
        follow_ups: Number of omitted rows, whose answer depends on earlier turns.
        repeated: Number of rows whose question a later row answers.
        html: Number of answers that contain HTML.
        of_a_day: Number of answers that expire with the day they depend on, at any TTL.
    """

    answers: list[Prepared]
    follow_ups: int
    repeated: int
    html: int
    of_a_day: int


def prepared(rows: Iterable[FileRow], options: Options) -> Found:
    """Return the answers in rows; of two to the same question, the later one."""
    answers: dict[tuple[str, str], Prepared] = {}
    follow_ups = repeated = 0
    for row in rows:
        if row.values["history"]:
            follow_ups += 1
            continue
        answer = _answer(row.values, options)
        key = (answer.query, answer.kind.context)
        repeated += answers.pop(key, None) is not None
        answers[key] = answer
    html = sum(has_html(answer.response) for answer in answers.values())
    of_a_day = sum(
        ages(answer.query) or names_a_day(answer.response) for answer in answers.values()
    )
    return Found(list(answers.values()), follow_ups, repeated, html, of_a_day)


def _answer(values: dict[str, Any], options: Options) -> Prepared:
    given = values["context"] if options.context is None else options.context
    response = plain(values["response"]) if options.plain else values["response"]
    kind = Kind(
        json.dumps(given or None, sort_keys=True),
        options.intent or values["intent"],
        tuple(dict.fromkeys((*options.tags, *(values["tags"] or ())))),
    )
    return Prepared(values["query"].strip(), values["user_id"], response, kind)


def contexts(answers: Iterable[Prepared]) -> Counter[str]:
    """Return the contexts of answers, as JSON, with the number of answers in each."""
    return Counter(answer.kind.context for answer in answers)
