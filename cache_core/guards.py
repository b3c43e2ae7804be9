"""Vetoes on a semantic match: what two questions must agree in, however similar they are.

Changed numbers, swapped places and dropped negations score higher than true paraphrases, so no
threshold can tell them apart; a comparison of the texts can. A word list here is a closed class of
the language (units, prepositions, negations), never a list of what some traffic was about.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from cache_core.tuning import GuardName

_TOKEN = re.compile(r"\d+(?:[.,:/-]\d+)*|[^\W\d_]+(?:['’][^\W\d_]+)?|[$€£¥%]|[,;.?!]+")
_GROUPING = re.compile(r",(?=\d{3}(?!\d))")

# "one" and "second" are mostly pronoun and noun, "may" and "march" mostly verbs.
_COUNT_WORDS = {
    word: str(number)
    for number, word in enumerate(
        "two three four five six seven eight nine ten eleven twelve".split(), start=2
    )
}
_DATE_WORDS = frozenset(
    "monday tuesday wednesday thursday friday saturday sunday today tomorrow yesterday "
    "january february april june july august september october november december".split()
)
_NEGATIONS = frozenset(
    "not no never none nothing neither nor without cannot unable non "
    "dont doesnt didnt isnt arent wasnt werent wont cant couldnt shouldnt wouldnt havent hasnt "
    "hadnt".split()
)


def _named(groups: str) -> dict[str, str]:
    """Return each word of *groups*, one a line, with the first of its line."""
    lines = [line.split() for line in groups.strip().splitlines()]
    return {word: words[0] for words in lines for word in words}


_UNITS = _named("""
second seconds sec secs
minute minutes min mins
hour hours hr hrs
day days
night nights
week weeks wk wks
month months mo
quarter quarters
year years yr yrs
am
pm
gram grams g
kilogram kilograms kilo kilos kg kgs
pound pounds lb lbs gbp £
ounce ounces oz
ton tons tonne tonnes
millimeter millimeters millimetre millimetres mm
centimeter centimeters centimetre centimetres cm
meter meters metre metres
kilometer kilometers kilometre kilometres km kms
inch inches
foot feet ft
yard yards
mile miles mi
milliliter milliliters millilitre millilitres ml
liter liters litre litres
gallon gallons
kilobyte kilobytes kb
megabyte megabytes mb
gigabyte gigabytes gb
terabyte terabytes tb
cent cents
dollar dollars usd $
euro euros eur €
yen jpy ¥
franc francs chf
rupee rupees inr
percent pct %
thousand k
million mn
billion bn
""")
"""Units as they are written after, or before, a number."""

_ROLES = _named("""
start from since starting
end to until till through
less before under below fewer most
more after over above least
""")
"""Words that say what a number before or after which they stand is for."""

_PASSED_OVER = frozenset("than at the a an my your our his her their its this that".split())
_LINKS = frozenset("to into onto than before after over under".split())
"""Words whose two sides are not the same when swapped."""

_STOPS = _LINKS | frozenset("from and or for in on with by of at as if when".split())


class Number(NamedTuple):
    """A number in a text.

    Attributes:
        value: As digits, without grouping.
        unit: What it counts, where that is a unit of measurement; else empty.
        role: `start`, `end`, `less` or `more`, where a word says so; else empty.
    """

    value: str
    unit: str = ""
    role: str = ""


class _Facts(NamedTuple):
    """What the guards compare of a text."""

    numbers: tuple[Number, ...]
    dates: tuple[str, ...]
    moves: frozenset[tuple[str, str]]
    negated: bool


def forget() -> None:
    """Keep nothing of the texts that were compared."""
    _facts.cache_clear()


def numbers(text: str) -> list[Number]:
    """Return the numbers of *text*, in order."""
    return list(_facts(text).numbers)


def negated(text: str) -> bool:
    """Whether *text* contains a negation."""
    return _facts(text).negated


# The question that was asked is compared with several stored ones.
@lru_cache(maxsize=1_024)
def _facts(text: str) -> _Facts:
    tokens = [token.casefold().replace("’", "'") for token in _TOKEN.findall(text)]
    return _Facts(
        tuple(_numbers(tokens)),
        tuple(token for token in tokens if token in _DATE_WORDS),
        frozenset(_moves(tokens)),
        any(token in _NEGATIONS or token.endswith("n't") for token in tokens),
    )


def _numbers(tokens: Sequence[str]) -> Iterator[Number]:
    for place, token in enumerate(tokens):
        if token[0].isdigit():
            value = _GROUPING.sub("", token)
        elif token in _COUNT_WORDS:
            value = _COUNT_WORDS[token]
        else:
            continue
        yield Number(value, _unit(tokens, place), _role(tokens, place))


def _unit(tokens: Sequence[str], place: int) -> str:
    """Return the unit right after a number, or one word further, or the sign before it."""
    if place and tokens[place - 1] in {"$", "€", "£", "¥"}:
        return _UNITS[tokens[place - 1]]
    for token in tokens[place + 1 : place + 3]:
        if token in _UNITS:
            return _UNITS[token]
        if not token[0].isalpha() or token in _STOPS or token in _COUNT_WORDS:
            break
    return ""


def _role(tokens: Sequence[str], place: int) -> str:
    """Return what the word before a number says that it is for."""
    for token in reversed(tokens[max(0, place - 3) : place]):
        if token in _ROLES:
            return _ROLES[token]
        if token not in _PASSED_OVER and token not in {"$", "€", "£", "¥"}:
            break
    return ""


def _moves(tokens: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Return (from what, to what) of every phrase that goes from one thing to another."""
    sources = [thing for place, token in enumerate(tokens) if token == "from"  # noqa: S105
               if (thing := _thing(tokens[place + 1 :]))]  # fmt: skip
    for place, token in enumerate(tokens):
        if token not in _LINKS:
            continue
        target = _thing(tokens[place + 1 :])
        if not target:
            continue
        before = _thing(tokens[:place][::-1])
        if before:
            yield before, target
        if token in {"to", "into", "onto"}:
            yield from ((source, target) for source in sources)


def _thing(tokens: Sequence[str]) -> str:
    """Return the first of *tokens* that names something, before the phrase ends; else nothing."""
    passed = ""
    for token in tokens:
        if token in _STOPS or not token[0].isalnum():
            break
        if token not in _PASSED_OVER:
            return token
        passed = token
    # With nothing behind it, "a" is no article but a name: from A to B.
    return passed


def _same_numbers(asked: str, stored: str) -> bool:
    """Whether both texts have the same numbers for the same purposes, and the same dates.

    Numbers are compared in order, unless every one has a unit or a role of its own to know it by.
    """
    ours, theirs = _facts(asked), _facts(stored)
    if ours.dates != theirs.dates or len(ours.numbers) != len(theirs.numbers):
        return False
    own, other = _labelled(ours.numbers), _labelled(theirs.numbers)
    if own is not None and other is not None and own.keys() == other.keys():
        return own == other
    return all(
        one.value == two.value and _agree(one.unit, two.unit) and _agree(one.role, two.role)
        for one, two in zip(ours.numbers, theirs.numbers, strict=True)
    )


def _labelled(found: Sequence[Number]) -> dict[tuple[str, str], str] | None:
    """Return value by unit and role; `None` unless each has a label that no other has."""
    labelled = {(number.unit, number.role): number.value for number in found}
    return labelled if len(labelled) == len(found) and ("", "") not in labelled else None


def _agree(one: str, two: str) -> bool:
    return not one or not two or one == two


def _same_direction(asked: str, stored: str) -> bool:
    """Whether nothing that goes from one thing to another in *asked* goes back in *stored*."""
    ours, theirs = _facts(asked).moves, _facts(stored).moves
    return not any(
        one != two and (two, one) in theirs and (one, two) not in theirs for one, two in ours
    )


_GUARDS: dict[GuardName, Callable[[str, str], bool]] = {
    "numbers": _same_numbers,
    "negation": lambda asked, stored: negated(asked) == negated(stored),
    "direction": _same_direction,
}


def veto(asked: str, stored: str, names: Iterable[GuardName]) -> GuardName | None:
    """Return the first guard by which an answer to *stored* must not answer *asked*."""
    if asked == stored:
        return None
    for name in names:
        if not _GUARDS[name](asked, stored):
            return name
    return None
