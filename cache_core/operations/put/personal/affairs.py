"""Numbers of orders, invoices, bookings, contracts and the like, in folded text.

A number belongs to an affair because of the words around it: its noun, before or after, with only
words between them that may describe any number.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from cache_core.operations.put.personal import words
from cache_core.operations.put.personal.folded import pieces

_BEFORE = 64
_AFTER = 48
_MOST_WORDS = 9
_FEWEST_DIGITS = 4
_FEWEST_DIGITS_NUMBERED = 3
_CODE = 5
_PREFIX = 4
_NUMBER = re.compile(
    r"\d[a-z\d]{0,30}(?:[-/._ ](?=[a-z]{0,4}\d)[a-z\d]{1,30}){0,6}(?:-[a-z]{1,3}(?![a-z]))?"
)
_LETTERS_BEFORE = re.compile(rf"(?<![a-z])[a-z]{{1,{_PREFIX}}}$")
_YEAR = re.compile(r"(?:19|20)\d\d(?:[-/. ](?:\d\d?|(?:19|20)\d\d)){0,2}")
_DATE = re.compile(r"\d{1,2}[./-]\d{1,2}[./-](?:19|20)?\d\d")
_DECIMAL = re.compile(r"\d+\.\d\d?")
_ADJACENT = re.compile(r"[ /#*'\"(]*")
_ENDS = re.compile(r"[.!?;](?:\s|$)|\n\s*\n")
_UNIT = re.compile(r"[ +]?([%$\u20ac\u00a3\u00a5+]|[^\W\d_]+)")
_MONEY_BEFORE = re.compile(r"(?:[$\u20ac\u00a3\u00a5]|\b(?:eur|usd|gbp|chf|rs|inr|jpy)) ?$")
_HASH = re.compile(r"(?<![^\W_])#(?=[a-z\d-]{0,12}\d)([a-z\d]{1,20}(?:[-_][a-z\d]{1,20}){0,4})")
_HASHED_THINGS = re.compile(
    r"\b(?:issue|issues|pr|pull|request|bug|commit|fix|fixes|closes|color|colour|farbe|hex|css|item|"
    r"model|part|article|artikel|page|chapter|room|lot|channel|rule|rfc|size|version|step|question)\W{0,3}$"
)


class _Around(NamedTuple):
    """A word, and the text between it and its neighbour towards the number."""

    text: str
    gap: str


def has_affair(text: str) -> bool:
    """Return whether folded *text* has the number of an order, an invoice, ..."""
    if any(_is_hashed(match) for match in _HASH.finditer(text)):
        return True
    return any(_is_of_affair(text, *match.span()) for match in _NUMBER.finditer(text))


def has_affair_in_table(text: str) -> bool:
    """Return whether a Markdown table has one, named by its column."""
    return any(map(has_affair, _rows_of_tables(text)))


def _is_hashed(match: re.Match[str]) -> bool:
    """Return whether a number after # stands alone: the reader knows what it is of."""
    if sum(map(str.isdigit, match[1])) < _FEWEST_DIGITS or _YEAR.fullmatch(match[1]):
        return False
    start = match.start()
    return _HASHED_THINGS.search(match.string[max(0, start - 24) : start]) is None


def _is_of_affair(text: str, start: int, end: int) -> bool:
    letters = _LETTERS_BEFORE.search(text, max(0, start - _PREFIX - 1), start)
    if letters is not None and letters[0] not in words.NUMBER and not _is_noun(letters[0]):
        start = letters.start()
    number = text[start:end]
    digits = sum(map(str.isdigit, number))
    if digits < _FEWEST_DIGITS_NUMBERED and len(number) < _CODE:
        return False
    if not digits or _YEAR.fullmatch(number) or _DATE.fullmatch(number):
        return False
    if _DECIMAL.fullmatch(number):
        return False
    before, after = text[max(0, start - _BEFORE) : start], text[end : end + _AFTER]
    if _MONEY_BEFORE.search(before):
        return False
    if _is_amount(after):
        return False
    named, numbered = _noun_before(before)
    if not named:
        named, numbered = _noun_after(after)
    if numbered:
        code = len(number) >= _CODE and not number.isdigit() and " " not in number
        return digits >= _FEWEST_DIGITS_NUMBERED or code
    return named and digits >= _FEWEST_DIGITS


def _is_amount(after: str) -> bool:
    """Return whether a number's next word is the thing that it counts."""
    unit = _UNIT.match(after)
    return unit is not None and (
        unit[1] in words.UNITS
        or unit[1] in "%+$\u20ac\u00a3\u00a5"
        or words.DENSE_UNIT.match(unit[1]) is not None
    )


def _noun_before(before: str) -> tuple[bool, bool]:
    """Return whether an affair is named right before, and whether it is said to have a number."""
    dense = None if before.isascii() else words.DENSE_BEFORE.search(before)
    if dense is not None:
        return True, dense["number"] is not None
    around = _towards(before, pieces(before), len(before), -1)
    numbered = False
    for place, (word, gap) in enumerate(around[:_MOST_WORDS]):
        if _ENDS.search(gap) and not (word in words.NUMBER and gap.startswith(".")):
            break
        if numbered and word in words.POSSESSIVE:
            return True, True
        # the letters before a number, as in "RE-48213"
        letters = place == 0 and len(word) <= _PREFIX and gap in {"", "-", "/"}
        if word in words.NUMBER and not word.isdigit():
            numbered = True
        # in "number of my order" the noun is nearer
        earlier = [item.text for item in around[place + 1 : place + 3]]
        if _is_noun(word) and not (earlier and earlier[0] in words.NO_AFFAIR_BEFORE):
            numbered = numbered or not words.NUMBER.isdisjoint(earlier) or _names_number(word)
            adjacent = place == 0 and _ADJACENT.fullmatch(gap) is not None
            return numbered or adjacent or word not in words.PLURAL, numbered
        if not letters and word not in words.BETWEEN:
            break
    return False, False


def _noun_after(after: str) -> tuple[bool, bool]:
    """Return the same for words right after, as in "48213 is my order number"."""
    if not after.isascii() and words.DENSE_AFTER.match(after):
        return True, True
    around = _towards(after, pieces(after), 0, 1)
    said = numbered = owned = False
    for place, (word, gap) in enumerate(around[:_MOST_WORDS]):
        if _ENDS.search(gap):
            break
        said = said or word in words.IS or any(mark in gap for mark in "(-:=")
        owned = owned or word in words.POSSESSIVE
        if _is_noun(word):
            then = around[place + 1] if place + 1 < len(around) else None
            follows = then is not None and then.text in words.NUMBER and not _ENDS.search(then.gap)
            ends = then is None or re.search(r"[^\s'\"*_]", then.gap) is not None
            numbered = numbered or follows or _names_number(word)
            return numbered or (said and owned and ends), numbered
        numbered = numbered or word in words.NUMBER
        if word not in words.BETWEEN:
            break
    return False, False


def _towards(
    text: str, found: Sequence[tuple[str, int, int]], edge: int, step: int
) -> list[_Around]:
    """Return the words from the number on, each with the text between it and the one before."""
    around = []
    for word, start, end in found[::step][: _MOST_WORDS + 1]:
        around.append(_Around(word, text[end:edge] if step < 0 else text[edge:start]))
        edge = start if step < 0 else end
    return around


def _is_noun(word: str) -> bool:
    return word in words.SINGULAR or word in words.PLURAL or _names_number(word)


def _names_number(word: str) -> bool:
    """Return whether *word* is a compound such as `ordernumber`, `Bestellnummer`, `customerid`."""
    if word in words.OWN_NUMBERS:
        return True
    for ending in words.COMPOUNDS:
        stem = word.removesuffix(ending)
        if stem != word and (stem in words.STEMS or stem.removesuffix("s") in words.STEMS):
            return True
    return False


def _rows_of_tables(text: str) -> list[str]:
    """Return each row of the Markdown tables in *text* as `header: cell` lines."""
    lines = text.split("\n")
    found: list[str] = []
    header: list[str] = []
    for place, line in enumerate(lines):
        if "|" not in line:
            header = []
            continue
        follows = lines[place + 1] if place + 1 < len(lines) else ""
        if "-" in follows and not follows.strip("|-: "):
            header = _cells(line)
        elif header and line.strip("|-: "):
            cells = zip(header, _cells(line), strict=False)
            found.append("\n\n".join(f"{name}: {cell}" for name, cell in cells))
    return found


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]
