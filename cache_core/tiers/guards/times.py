"""Words for days, months, seasons and times of day, and clock times as minutes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from cache_core.tiers.guards.units import PERIODS
from cache_core.tiers.guards.words import Token

_DAYS = {
    "monday": "mon", "tuesday": "tue tues", "wednesday": "wed", "thursday": "thu thur thurs",
    "friday": "fri", "saturday": "sat", "sunday": "sun", "weekday": "", "weekend": "",
}  # fmt: skip
_MONTHS = {
    "january": "jan", "february": "feb", "march": "mar", "april": "apr", "may": "",
    "june": "jun", "july": "jul", "august": "aug", "september": "sep sept", "october": "oct",
    "november": "nov", "december": "dec",
}  # fmt: skip
MONTH_NAMES = tuple(_MONTHS)
_DOUBTFUL = {"march": "march", "may": "may"} | {
    short: name
    for names in (_DAYS, _MONTHS)
    for name, shorts in names.items()
    for short in shorts.split()
}
"""Names that are also other words: only beside a number or after a preposition."""
_BEFORE_A_DATE = frozenset(
    "in of by since until till from to before after during for next last this early late mid on "
    "every each and or through -".split()
)
_PLAIN = (
    {name: name for name in (*_DAYS, *_MONTHS) if name not in {"may", "march"}}
    | {name + "s": name for name in _DAYS}
    | {
        word: word
        for word in "today tomorrow yesterday tonight spring summer autumn winter".split()
    }
    | {"morning": "morning", "mornings": "morning", "afternoon": "afternoon",
       "afternoons": "afternoon", "evening": "evening", "evenings": "evening",
       "overnight": "overnight"}
)  # fmt: skip
_PARTS_OF_DAY = frozenset("morning mornings afternoon afternoons evening evenings".split())
_SPAN = {"from": "from ", "since": "from "} | dict.fromkeys(
    "to until till through - –".split(), "to "
)
_BEFORE_DAY = frozenset("the of st nd rd th last next this".split())
_RELATIVE = frozenset("last next previous this past coming".split())
_AFTER_OWNER = frozenset("the my your our his her their its on in for since from of until".split())
_DAY = re.compile(r"\d{4}-(\d{2})-\d{2}\Z")
_CLOCK = re.compile(r"(\d{1,2})[:.](\d{2})\Z")


def is_date(word: str) -> bool:
    """Return whether *word*, in lower case, is only a day, a month or the like."""
    return word in _PLAIN


def dates(tokens: Sequence[Token]) -> Counter[str]:
    """Return the days, months, seasons, times of day, and "last" or "next" before them.

    A day that starts or ends a span is returned as "from monday", "to friday".
    """
    found: Counter[str] = Counter()
    for place, token in enumerate(tokens):
        word = token.text
        before = tokens[place - 1].text if place else ""
        if token.kind == "number":
            if day := _DAY.match(token.raw):
                found[MONTH_NAMES[(int(day[1]) - 1) % 12]] += 1
            continue
        if word in _PLAIN:
            if not _greets(tokens, place, before):
                found[_span(tokens, place) + _PLAIN[word]] += 1
        elif word in _DOUBTFUL:
            if month_or_day(tokens, place):
                found[_span(tokens, place) + _DOUBTFUL[word]] += 1
        elif word in _RELATIVE and place + 1 < len(tokens):
            after = tokens[place + 1].text
            of_time = after in PERIODS or after in _PLAIN or after in _DOUBTFUL
            if of_time or (word == "last" and before in _AFTER_OWNER and after.isalpha()):
                found[word] += 1
    return found


def _span(tokens: Sequence[Token], place: int) -> str:
    """Return "from " or "to " if a span of time starts or ends at *place*; else empty."""
    for token in reversed(tokens[max(0, place - 4) : place]):
        if token.text in _SPAN:
            return _SPAN[token.text]
        if token.kind != "number" and token.text not in _BEFORE_DAY:
            break
    return ""


def _greets(tokens: Sequence[Token], place: int, before: str) -> bool:
    """Return whether a time of day is part of a greeting: "Good morning", "Evening, ..."."""
    if tokens[place].text not in _PARTS_OF_DAY:
        return False
    if before in {"good", "happy"}:
        return True
    if before in _PLAIN or before in _DOUBTFUL:
        return False
    after = tokens[place + 1] if place + 1 < len(tokens) else None
    return place < 2 and (after is None or after.kind == "mark" or after.text == "to")


def month_or_day(tokens: Sequence[Token], place: int) -> str:
    """Return the full name of the month or day at *place*; empty if it is none."""
    word = tokens[place].text
    if word in _PLAIN:
        return _PLAIN[word]
    if word not in _DOUBTFUL:
        return ""
    before = tokens[place - 1] if place else None
    after = tokens[place + 1] if place + 1 < len(tokens) else None
    beside = (
        before is not None and (before.kind == "number" or before.text in _BEFORE_A_DATE)
    ) or (after is not None and (after.kind == "number" or after.text in {"-", "–"}))
    if word == "may" and tokens[place].raw == "may" and not (before and before.kind == "number"):
        beside = beside and before is not None and before.text in {"in", "of", "by", "since"}
    return _DOUBTFUL[word] if beside else ""


def clock(digits: str, half: str = "") -> int | None:
    """Return the minute of the day of *digits* before "am" or "pm"; `None` if they are no time."""
    found = _CLOCK.match(digits)
    hour, minute = (int(found[1]), int(found[2])) if found else (-1, 0)
    if not found and digits.isdigit() and len(digits) < 3:
        hour = int(digits)
    if not 0 <= hour <= 24 or minute > 59:
        return None
    if half:
        if not 1 <= hour <= 12 and not (hour <= 24 and found):
            return None
        if hour <= 12:
            hour = hour % 12 + (12 if half == "pm" else 0)
    return (hour * 60 + minute) % 1_440


def written(minute: int) -> str:
    """Return the minute of the day as a time: 09:05."""
    return f"{minute // 60:02}:{minute % 60:02}"
