"""Values of numerals, written in digits or in words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from cache_core.tiers.guards import times, units
from cache_core.tiers.guards.words import ARTICLES, Token

_ONES = {
    word: value
    for value, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
        "fifteen sixteen seventeen eighteen nineteen".split()
    )
}
_TENS = {
    word: value
    for value, word in zip(
        range(20, 100, 10),
        "twenty thirty forty fifty sixty seventy eighty ninety".split(),
        strict=True,
    )
} | {"fourty": 40}
_MAGNITUDES = {
    "dozen": 12, "hundred": 100, "thousand": 1_000, "k": 1_000, "million": 10**6, "mn": 10**6,
    "mio": 10**6, "billion": 10**9, "bn": 10**9, "trillion": 10**12, "lakh": 10**5,
    "crore": 10**7,
}  # fmt: skip
_MAGNITUDES |= {
    word + "s": _MAGNITUDES[word] for word in ("dozen", "hundred", "thousand", "million")
}
_LETTERS = {"m": 10**6, "b": 10**9}
_ORDINALS = {
    word: value
    for value, word in enumerate(
        "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth "
        "thirteenth fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth".split(),
        start=1,
    )
} | {word[:-1] + "ieth": value for word, value in _TENS.items()}
_DECADES = {word[:-1] + "ies": value for word, value in _TENS.items()}
_TIMES = {"twice": 2, "thrice": 3}
_PARTS = {"quarter": "1/4", "quarters": "1/4", "third": "1/3", "thirds": "1/3", "fifths": "1/5"}
_MANY = frozenset("dozens hundreds thousands millions".split())
_ONLY_AFTER = frozenset("k mn mio bn".split())
_NAMED_TIMES = {"noon": "12:00", "midday": "12:00", "midnight": "00:00"}
_HOUR, _DAYS = 60, 31
_STARTS = frozenset(
    (*_ONES, *_TENS, *_MAGNITUDES, *_ORDINALS, *_TIMES, *_DECADES)
) | frozenset("noon midday midnight half quarter once a an".split())  # fmt: skip
"""Words that may begin a number."""
_LONG = 20
"""Fewest digits of a number that is a code."""
_DENOMINATORS = frozenset((2, 3, 4, 5, 6, 8, 10, 16))
_GROUPED = re.compile(r"\d{1,3}(?:([,.'’ ])\d{3})(?:\1\d{3})*\Z")
_PLAIN_DECIMAL = re.compile(r"(\d+)[.,](\d+)\Z")
_MIXED = re.compile(r"(\d{1,3}(?:,\d{3})+)\.(\d+)\Z|(\d{1,3}(?:\.\d{3})+),(\d+)\Z")
_FRACTION = re.compile(r"(\d{1,2})/(\d{1,2})\Z")
_DAY = re.compile(r"(\d{4})-(\d{2})-(\d{2})\Z")
_MILITARY = re.compile(r"(?:[01]\d|2[0-3])[0-5]\d\Z")
"""Time of day in four digits, before "hours"."""
_RANGE = re.compile(r"([\d.,:]+)[-–]([\d.,:]+)\Z")


class Numeral(NamedTuple):
    """Value that was read, and the place of the token after it."""

    value: str
    after: int
    unit: str = ""
    soft: bool = False
    more: tuple[tuple[str, str], ...] = ()
    """Other values of the same token, each with its role."""
    role: str = ""


def read(tokens: Sequence[Token], place: int) -> Numeral | None:
    """Return the number, fraction, time or ordinal at *place*; `None` if there is none."""
    token = tokens[place]
    if token.kind == "number":
        return _read_digits(tokens, place)
    if token.kind == "word":
        return _read_words(tokens, place)
    return None


def _read_digits(tokens: Sequence[Token], place: int) -> Numeral:
    digits = tokens[place].raw.replace("’", "'")
    after = place + 1
    word = _text(tokens, after)
    if found := _DAY.match(digits):
        return Numeral(str(int(found[3])), after, "date", more=((found[1], ""),))
    if found := _RANGE.match(digits):
        return _read_range(tokens, place, found[1], found[2])
    if clock := _read_clock(tokens, digits, after):
        return clock
    if digits.isdigit():
        if word == "s" and tokens[after].glued:
            return Numeral(digits, after + 1, "decade")
        if word in {"st", "nd", "rd", "th"} and tokens[after].glued:
            return Numeral(digits, after + 1, _ordinal_unit(tokens, place, after + 1))
        if len(digits) < 3 and _month_beside(tokens, place, after):
            return Numeral(str(int(digits)), after, "date")
        # A whole number and a simple fraction behind it are one number: 2 1/2.
        if len(digits) < _LONG and (part := _fraction(_text(tokens, after))):
            return Numeral(str(int(digits) + part), after + 1)
    if part := _fraction(digits):
        return Numeral(str(part), after + (word in {"a", "an", "of"}))
    value = _value(digits)
    if word in _MAGNITUDES:
        return Numeral(_times(value, _MAGNITUDES[word]), after + 1)
    if word in _LETTERS and tokens[after].glued and _is_amount(tokens, place):
        return Numeral(_times(value, _LETTERS[word]), after + 1)
    return Numeral(value, after)


def _read_clock(tokens: Sequence[Token], digits: str, after: int) -> Numeral | None:
    """Return the time of day in *digits*, with or without a word after them."""
    word = _text(tokens, after)
    if word == "past" and digits.isdigit() and int(digits) < _HOUR:
        hour = _text(tokens, after + 1)
        clock = times.clock(f"{_ONES.get(hour, hour)}:{int(digits):02}")
        return None if clock is None else Numeral(times.written(clock), after + 2, "clock")
    if digits == "12" and word in _NAMED_TIMES:
        return Numeral(_NAMED_TIMES[word], after + 1, "clock")
    if word in {"hours", "hrs", "h"} and _MILITARY.match(digits):
        minute = times.clock(f"{digits[:2]}:{digits[2:]}")
        return None if minute is None else Numeral(times.written(minute), after + 1, "clock")
    half = word if word in {"am", "pm"} else ""
    has_word = bool(half) or word in {"o'clock", "oclock", "uhr"}
    if not has_word and ":" not in digits:
        return None
    minute = times.clock(digits, half)
    return None if minute is None else Numeral(times.written(minute), after + has_word, "clock")


def _fraction(digits: str) -> Fraction | None:
    """Return the fraction in *digits*; `None` for a date, the number of a file and the like."""
    if found := _FRACTION.match(digits):
        over, under = int(found[1]), int(found[2])
        if 0 < over < under and under in _DENOMINATORS:
            return Fraction(over, under)
    return None


def _is_amount(tokens: Sequence[Token], place: int) -> bool:
    """Return whether the letter after the number is a magnitude: after money, or capital."""
    before = tokens[place - 1].text if place else ""
    money = before in units.CURRENCY_SIGNS or before in units.CURRENCIES
    return money or tokens[place + 1].raw in {"M", "B"}


def _read_range(tokens: Sequence[Token], place: int, first: str, last: str) -> Numeral:
    """Return both ends of a range in one token: times of day if "am" or "pm" follows."""
    after, unit = place + 1, ""
    half = _text(tokens, place + 1)
    ends = [_value(first), _value(last)]
    if half in {"am", "pm"} or ":" in first + last:
        minutes = [times.clock(end, half if half in {"am", "pm"} else "") for end in (first, last)]
        if None not in minutes:
            ends, unit = [times.written(minute or 0) for minute in minutes], "clock"
            after += half in {"am", "pm"}
    return Numeral(ends[0], after, unit, more=((ends[1], "end"),), role="start")


def _value(digits: str) -> str:
    """Return *digits* in one spelling: no grouping, a point for decimals.

    A point before three digits groups if the last is a zero, since few people write such decimals.
    """
    found = _GROUPED.match(digits)
    if found and not digits.startswith("0") and (found[1] != "." or digits.endswith("0")):
        return re.sub(r"\D", "", digits)
    if found := _MIXED.match(digits):
        whole, part = (found[1], found[2]) if found[1] else (found[3], found[4])
        return re.sub(r"\D", "", whole) + "." + part
    if found := _PLAIN_DECIMAL.match(digits):
        return f"{found[1]}.{found[2]}"
    return digits


def _times(value: str, factor: int) -> str:
    try:
        product = Decimal(value) * factor
    except ArithmeticError:
        return f"{value}*{factor}"
    return format(product.normalize(), "f")


def _read_words(tokens: Sequence[Token], place: int) -> Numeral | None:
    word = tokens[place].text
    if word not in _STARTS:
        return None
    after = place + 1
    follows = _text(tokens, after)
    if word in _NAMED_TIMES:
        return Numeral(_NAMED_TIMES[word], after, "clock")
    if word in {"half", "quarter"}:
        return _read_part(tokens, place, word, follows)
    if word in _TIMES:
        return Numeral(str(_TIMES[word]), after, "times")
    if word in _DECADES:
        return Numeral(str(_DECADES[word]), after, "decade")
    if word == "once":
        return Numeral("1", after, "times", soft=True)
    if word in ARTICLES and word != "the":
        return _read_article(tokens, after, follows)
    if word in _ORDINALS:
        return _read_ordinal(tokens, place, word, follows)
    return _read_cardinal(tokens, place)


def _read_article(tokens: Sequence[Token], after: int, follows: str) -> Numeral | None:
    """Return the value of "a hundred" or "a third of"."""
    if follows in _MAGNITUDES and follows not in _ONLY_AFTER:
        return _read_cardinal(tokens, after)
    behind = _text(tokens, after + 1)
    if follows in _PARTS and (behind == "of" or units.unit(behind)):
        return Numeral(_PARTS[follows], after + 1)
    # "An hour" may be one hour, or mean nothing.
    if units.unit(follows) in units.PERIODS:
        return Numeral("1", after, soft=True)
    return None


def _read_part(tokens: Sequence[Token], place: int, word: str, follows: str) -> Numeral | None:
    """Return the value of a half or a quarter of something, or of an hour."""
    if follows in {"past", "to", "after"}:
        hour = _text(tokens, place + 2)
        hour = str(_ONES.get(hour, hour))
        minute = times.clock(hour)
        if minute is not None:
            shift = 30 if word == "half" else 15
            shift = -shift if follows == "to" else shift
            return Numeral(times.written((minute + shift) % 1_440), place + 3, "clock")
    if word == "quarter":
        return None
    after = place + 1
    if follows == "a" and _text(tokens, after + 1) in _MAGNITUDES:
        return Numeral(_times("0.5", _MAGNITUDES[_text(tokens, after + 1)]), after + 2)
    after += follows == "of"
    return Numeral("1/2", after + (_text(tokens, after) in {"a", "an"}))


def _read_ordinal(tokens: Sequence[Token], place: int, word: str, follows: str) -> Numeral | None:
    before = tokens[place - 1].text if place else ""
    if word == "second" and (
        before in {"per", "a", "each", "every", "/"} or not (follows.isalpha() or follows == "-")
    ):
        return None
    if word == "third" and follows == "of" and before in {"a", "one", "two"}:
        return None
    after = place + 1
    return Numeral(str(_ORDINALS[word]), after, _ordinal_unit(tokens, place, after))


def _ordinal_unit(tokens: Sequence[Token], place: int, after: int) -> str:
    return "date" if _month_beside(tokens, place, after) else "th"


def _month_beside(tokens: Sequence[Token], place: int, after: int) -> bool:
    """Return whether a month is next to *place*, with or without "of"."""
    if after < len(tokens) and tokens[after].text == "of":
        after += 1
    beside = [place - 1] if place else []
    beside += [after] if after < len(tokens) else []
    return any(times.month_or_day(tokens, other) in times.MONTH_NAMES for other in beside)


def _read_cardinal(tokens: Sequence[Token], place: int) -> Numeral | None:
    """Return a number in words: "one hundred and five", "twenty-five", "two million"."""
    value, after, ordinal = _sum(tokens, place)
    if after == place or (after == place + 1 and tokens[place].text in _MANY):
        return None
    if ordinal:
        return Numeral(str(value), after, _ordinal_unit(tokens, place, after))
    word = _text(tokens, after)
    soft = after == place + 1 and tokens[place].text == "one"
    if (soft and word in {"third", "quarter"}) or word in {"thirds", "quarters", "fifths"}:
        return Numeral(str(value * Fraction(_PARTS[word])), after + 1)
    if value < _HOUR and (clock := _read_clock(tokens, str(value), after)):
        return clock
    if 0 < value <= _DAYS and _month_beside(tokens, place, after):
        return Numeral(str(value), after, "date")
    if [_text(tokens, after + offset) for offset in range(3)] == ["and", "a", "half"]:
        return Numeral(str(value + Fraction(1, 2)), after + 3)
    return Numeral(str(value), after, soft=soft)


def _sum(tokens: Sequence[Token], place: int) -> tuple[int, int, bool]:
    """Return the sum of the number words from *place* on, their end, and if it is an ordinal."""
    total = part = 0
    at, last = place, ""
    while at < len(tokens):
        if last and _joins(tokens, at, last):
            at += 1
        word = tokens[at].text
        kind = kind_of(word)
        if kind == "one" and last in {"", "ten", "magnitude"}:
            part += _ONES[word]
        elif kind == "ten" and last in {"", "magnitude"}:
            part += _TENS[word]
        elif kind == "magnitude" and (last or word not in _ONLY_AFTER):
            factor = _MAGNITUDES[word]
            part = max(part, 1) * factor
            if factor >= 1_000:
                total, part = total + part, 0
        elif kind == "ordinal" and last in {"ten", "magnitude"} and word != "second":
            return total + part + _ORDINALS[word], at + 1, True
        else:
            break
        last, at = kind, at + 1
    while at > place and tokens[at - 1].text in {"-", "and"}:
        at -= 1
    return total + part, at, False


def _joins(tokens: Sequence[Token], at: int, last: str) -> bool:
    """Return whether a hyphen, or "and" after a hundred, joins two number words."""
    if not kind_of(_text(tokens, at + 1)):
        return False
    word = tokens[at].text
    return (word == "-" and tokens[at].glued) or (word == "and" and last == "magnitude")


def kind_of(word: str) -> str:
    """Return `one`, `ten`, `magnitude` or `ordinal` for a number word; else empty."""
    if word in _ONES:
        return "one"
    if word in _TENS:
        return "ten"
    if word in _MAGNITUDES:
        return "magnitude"
    return "ordinal" if word in _ORDINALS else ""


def _text(tokens: Sequence[Token], place: int) -> str:
    return tokens[place].text if place < len(tokens) else ""
