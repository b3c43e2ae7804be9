"""Numbers of a text: their values, units and roles."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from cache_core.tiers.guards import numerals, times, units
from cache_core.tiers.guards.numerals import Numeral, kind_of
from cache_core.tiers.guards.words import ARTICLES, FUNCTION, OWNERS, Token, stem

_NAMED_BY_STRING = frozenset(
    "version release v ver section chapter clause article rule paragraph § level node python php "
    "java ios android".split()
)

_ROLES = {
    word: words[0]
    for words in (
        "start from since starting between".split(),
        "end to until till through".split(),
        "less before under below fewer less most maximum max younger smaller shorter lower "
        "lighter cheaper earlier sooner".split(),
        "more after over above more least minimum min exceeding older larger bigger longer taller "
        "higher heavier later".split(),
    )
    for word in words
}
_BEFORE_A_TIME = frozenset("until till to by before after from since".split())
_WITH_MINUTES = re.compile(r"\d{1,2}\.\d\d\Z")
_PASSED_OVER = ARTICLES | OWNERS | {"than", "at", "of"}


class Number(NamedTuple):
    """A number in a text.

    Attributes:
        value: The digits, in one spelling, with any sign.
        unit: The unit of measurement; else empty.
        role: `start`, `end`, `less` or `more` if a word says so; else empty.
        qualifier: The word between it and its unit, such as "business" of days.
        thing: The word that it belongs to, if it has no unit.
        beyond: The word after that.
        soft: Whether it may be no number at all, such as "one".
        place: The place of its first token.
        size: Number of tokens, unit included.
    """

    value: str
    unit: str = ""
    role: str = ""
    qualifier: str = ""
    thing: str = ""
    beyond: str = ""
    soft: bool = False
    place: int = 0
    size: int = 1


def numbers(tokens: Sequence[Token]) -> Iterator[Number]:
    """Yield the numbers that *tokens* name, in order."""
    start: Number | None = None
    for number in _each(tokens):
        if start is not None:
            yield _spanning(tokens, start, number)
        start = number if number.role == "start" else None
        if start is None:
            yield number
    if start is not None:
        yield start


def _spanning(tokens: Sequence[Token], start: Number, end: Number) -> Number:
    """Return *start* with the unit of its range, if it stands behind the end only: 2 to 4 pm."""
    joined = end.role == "end" or tokens[end.place - 1].text == "and"
    if not joined or start.unit or not end.unit:
        return start
    value = start.value
    if end.unit == "clock":
        hour = times.clock(value)
        if hour is None:
            return start
        # Both ends are in the same half of the day where that is a span.
        noon = 12 * 60
        last = times.clock(end.value) or 0
        value = times.written(hour + noon if hour < noon <= last and hour + noon <= last else hour)
    return start._replace(value=value, unit=end.unit, qualifier=end.qualifier, thing="", beyond="")


def _each(tokens: Sequence[Token]) -> Iterator[Number]:
    place = 0
    while place < len(tokens):
        read = numerals.read(tokens, place)
        if read is None:
            place += 1
            continue
        found = _described(tokens, place, read)
        yield from found
        place += found[0].size


def _described(tokens: Sequence[Token], place: int, read: Numeral) -> list[Number]:
    unit, qualifier, after = (read.unit, "", read.after)
    if not unit:
        unit, qualifier, after = _unit(tokens, place, read.after)
    value = _sign(tokens, place) + _trimmed(tokens, place, read.value, unit)
    role = read.role or _role(tokens, place, after)
    thing, beyond = ("", "") if unit else _thing(tokens, place, read.after)
    if not unit and (hour := _hour(tokens, place, value)):
        value, unit, thing, beyond = hour, "clock", "", ""
    size = after - place
    first = Number(value, unit, role, qualifier, thing, beyond, read.soft, place, size)
    others = [
        first._replace(value=other, role=its_role, unit=unit if its_role else "")
        for other, its_role in read.more
    ]
    return [first, *others]


def _hour(tokens: Sequence[Token], place: int, value: str) -> str:
    """Return a bare number that is a time of day, as one: at 8, until 9.15; else empty."""
    before = tokens[place - 1].text if place else ""
    is_time = before == "at" or (before in _BEFORE_A_TIME and _WITH_MINUTES.match(value))
    minute = times.clock(value) if is_time else None
    return "" if minute is None else times.written(minute)


def _trimmed(tokens: Sequence[Token], place: int, value: str, unit: str) -> str:
    """Return *value* without zeros at its end that mean nothing; a version keeps them."""
    if "." not in value or not value.replace(".", "", 1).isdigit():
        return value
    if not (unit or value.endswith(".00")) or (
        place and tokens[place - 1].text in _NAMED_BY_STRING
    ):
        return value
    return value.rstrip("0").rstrip(".")


# --------------------------------------------------------------------- words beside a value


def _sign(tokens: Sequence[Token], place: int) -> str:
    """Return the sign of the number at *place*: glued to it alone, or a word."""
    at = place - 1
    if at >= 0 and tokens[at].text in units.CURRENCY_SIGNS:
        at -= 1
        place -= 1
    if at < 0:
        return ""
    sign = tokens[at].text
    if sign in {"minus", "negative"}:
        return "-"
    if sign == "plus" and (not at or tokens[at - 1].kind != "number"):
        return "+"
    if sign in {"+", "-"} and tokens[place].glued and not (at and tokens[at].glued):
        return sign
    return ""


def _unit(tokens: Sequence[Token], place: int, after: int) -> tuple[str, str, int]:
    """Return the number's unit, the word between them, and the place after both."""
    if place:
        before = tokens[place - 1].text
        if before in units.CURRENCY_SIGNS or (
            before in units.CURRENCIES and not (after < len(tokens) and _is_unit(tokens, after))
        ):
            return units.unit(before), "", after
    if after >= len(tokens):
        return "", "", after
    if tokens[after].text == "-" and tokens[after].glued and after + 1 < len(tokens):
        after += 1
    if found := _is_unit(tokens, after):
        return (*_powered(tokens, after, found),)
    first = tokens[after]
    if first.kind != "word" or first.text in FUNCTION or after + 1 >= len(tokens):
        return "", "", after
    second = tokens[after + 1]
    found = _is_unit(tokens, after + 1)
    if found and len(second.text) > 2:
        name, _, end = _powered(tokens, after + 1, found)
        if first.text in {"square", "sq", "cubic", "cu"}:
            return name + ("2" if first.text.startswith("s") else "3"), "", end
        return name, stem(first.text), end
    if found and first.text in {"square", "sq", "cubic", "cu"}:
        return found + ("2" if first.text.startswith("s") else "3"), "", after + 2
    return "", "", after


def _is_unit(tokens: Sequence[Token], place: int) -> str:
    token = tokens[place]
    if token.kind == "number" or token.raw == "a" or token.text in {"in", "at"}:
        return ""
    if token.text == "per" and place + 1 < len(tokens) and tokens[place + 1].text == "cent":
        return "percent"
    return units.unit(token.text, token.raw)


def _powered(tokens: Sequence[Token], place: int, found: str) -> tuple[str, str, int]:
    """Return the unit at *place* with its power or scale, and the place after it."""
    after = place + 1
    if tokens[place].text == "per":
        after += 1
    if found in units.POWERED and after < len(tokens):
        if tokens[after].raw in {"2", "3"} and tokens[after].glued:
            return found + tokens[after].raw, "", after + 1
        if tokens[after].text == "^" and after + 1 < len(tokens):
            return found + tokens[after + 1].raw, "", after + 2
    if found == "degree" and after < len(tokens):
        scale = units.unit(tokens[after].text)
        if scale in {"celsius", "fahrenheit", "kelvin"} or tokens[after].raw == "K":
            return scale or "kelvin", "", after + 1
    return found, "", after


def _role(tokens: Sequence[Token], place: int, after: int) -> str:
    """Return the role that the words around a number give it."""
    back = [token.text for token in reversed(tokens[max(0, place - 4) : place])]
    while back and (back[0] in units.CURRENCY_SIGNS or back[0] in {"+", "minus", "plus"}):
        back.pop(0)
    if back[:1] == ["."] and back[1:2] in (["min"], ["max"]):
        back.pop(0)
    for at, word in enumerate(back):
        if word == "to" and back[at + 1 : at + 2] == ["up"]:
            return "less"
        if word in _ROLES:
            return _ROLES[word]
        if word not in _PASSED_OVER:
            break
    if after + 1 < len(tokens) and tokens[after].text in {"to", "until", "till", "–"}:
        nearby = tokens[after + 1]
        if nearby.kind == "number" or kind_of(nearby.text):
            return "start"
    return ""


def _thing(tokens: Sequence[Token], place: int, after: int) -> tuple[str, str]:
    """Return the word that a number without a unit belongs to, and the one after that."""
    behind = [
        token.text
        for token in itertools.takewhile(_is_content, itertools.islice(tokens, after, after + 2))
    ]
    if behind:
        return stem(behind[0]), stem(behind[1]) if len(behind) > 1 else ""
    at = place - 1
    while at >= 0 and tokens[at].text in {"#", ".", "no", "number"}:
        at -= 1
    return stem(tokens[at].text) if at >= 0 and _is_content(tokens[at]) else "", ""


def _is_content(token: Token) -> bool:
    return token.kind == "word" and token.text not in FUNCTION
