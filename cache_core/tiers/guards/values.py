"""Guard of numbers: numbers with their units, rates, operators, dates and codes."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

from cache_core.tiers.guards import times, units
from cache_core.tiers.guards.quantities import Number, numbers
from cache_core.tiers.guards.words import ASIDE, PEOPLE, Token, stem

_COMPARISONS = frozenset("< > <= >= == != = ± ≈ ^ && || += -= *= /=".split())
_ARITHMETIC = frozenset("+ - * /".split())
_ROMAN = frozenset("ivxlc")
_NO_CODES = frozenset("a i u r".split())
"""Single letters that are words in messages."""
_EVERY = frozenset("per each every".split())
_SAME_UNITS = ({"pound", "lb"}, {"pound", "gbp"})
"""Units of which one may be meant by the name of the other."""


class Values(NamedTuple):
    """Numbers, signs, dates and codes of a text.

    `periods` are the hours, weeks and so on without a number, `per` what a rate is per otherwise.
    """

    numbers: tuple[Number, ...]
    rates: Counter[str]
    signs: tuple[str, ...]
    dates: Counter[str]
    codes: frozenset[str]
    words: frozenset[str]
    periods: frozenset[str]
    per: frozenset[str]


def read(tokens: Sequence[Token]) -> Values:
    """Return the values in *tokens*."""
    found = tuple(numbers(tokens))
    taken = {number.place + offset for number in found for offset in range(number.size)}
    return Values(
        found,
        Counter(_rates(tokens, found)),
        tuple(_signs(tokens)),
        times.dates(tokens),
        frozenset(_codes(tokens, taken)),
        frozenset(token.text for token in tokens),
        frozenset(
            unit
            for place, token in enumerate(tokens)
            if place not in taken and (unit := units.unit(token.text)) in units.PERIODS
        ),
        frozenset(
            stem(after.text)
            for token, after in itertools.pairwise(tokens)
            if token.text == "per" and after.kind == "word" and not units.unit(after.text)
        ),
    )


def agree(asked: Values, stored: Values) -> bool:
    """Return whether both texts have the same values for the same purposes."""
    return (
        asked.dates == stored.dates
        and asked.rates == stored.rates
        and asked.signs == stored.signs
        and _same_numbers(asked.numbers, stored.numbers)
        and _same_codes(asked, stored)
        and not (asked.periods - stored.periods and stored.periods - asked.periods)
        and not (asked.per - stored.per and stored.per - asked.per)
    )


# ------------------------------------------------------------------------------------- numbers


def _same_numbers(asked: Sequence[Number], stored: Sequence[Number]) -> bool:
    """Return whether the numbers agree; a soft one needs a partner only if one is left."""
    if asked == stored:
        return True
    ours = [number for number in asked if not number.soft]
    theirs = [number for number in stored if not number.soft]
    sides = ((ours, theirs), (asked, stored), (ours, stored), (asked, theirs))
    return any(
        len(one) == len(two) and (_same_labelled(one, two) or _same_in_order(one, two))
        for one, two in sides
    )


def _same_in_order(asked: Sequence[Number], stored: Sequence[Number]) -> bool:
    return all(_same(one, two) for one, two in zip(asked, stored, strict=True))


def _same(one: Number, two: Number) -> bool:
    return (
        same_value(one.value, two.value)
        and (one.unit == two.unit or {one.unit, two.unit} in _SAME_UNITS)
        and one.qualifier == two.qualifier
        and not (one.thing and one.thing == two.beyond != two.thing)
        and not (two.thing and two.thing == one.beyond != one.thing)
        and _same_role(one.role, two.role)
    )


def same_value(one: str, two: str) -> bool:
    """Return whether two values are equal; a fraction may be a decimal in the other text."""
    if one == two or ("/" in one) == ("/" in two):
        return one == two
    try:
        return Fraction(one) == Fraction(two)
    except (ValueError, ZeroDivisionError):
        return False


def _same_role(one: str, two: str) -> bool:
    """Return whether two roles agree; "from" and "to" may be left out, a limit may not."""
    limits = {"less", "more"}
    return one == two or (not ({one, two} & limits) and "" in {one, two})


def _same_labelled(asked: Sequence[Number], stored: Sequence[Number]) -> bool:
    """Return whether numbers with a label each agree, in any order."""
    own, other = _labelled(asked), _labelled(stored)
    return (
        own is not None
        and other is not None
        and own.keys() == other.keys()
        and all(_same(number, other[label]) for label, number in own.items())
    )


def _labelled(found: Sequence[Number]) -> dict[tuple[str, str], Number] | None:
    labelled = {}
    for number in found:
        label = (number.unit or number.thing, number.role)
        if label == ("", "") or label in labelled:
            return None
        labelled[label] = number
    return labelled


# --------------------------------------------------------------------------------------- rates


def _rates(tokens: Sequence[Token], found: Sequence[Number]) -> Iterator[str]:
    """Yield the rates: "per day", "3 times a week", "km/h", "monthly"."""
    ends = {number.place + number.size for number in found}
    ends_of_units = {end - 1 for end in ends}
    for place, token in enumerate(tokens):
        if token.text in units.RATES:
            yield units.RATES[token.text]
            continue
        if place in ends_of_units and token.text in units.OF_RATE:
            yield units.OF_RATE[token.text][1]
            continue
        if place + 1 >= len(tokens):
            continue
        after = tokens[place + 1]
        of_number = place in ends or place - 1 in ends
        if token.text in {"a", "an"}:
            period = units.unit(after.text) if of_number else ""
        elif token.text in _EVERY:
            period = units.unit(after.text)
        elif token.text == "/" and of_number and after.kind == "word":
            yield units.unit(after.text, after.raw) or after.text
            continue
        else:
            continue
        if period in units.PERIODS:
            yield period


# --------------------------------------------------------------------------------------- signs


def _signs(tokens: Sequence[Token]) -> Iterator[str]:
    """Yield comparisons, arithmetic between operands, and signs at the end of a name (A+, C#)."""
    for place, token in enumerate(tokens):
        if token.kind != "sign":
            continue
        sign = token.text
        before = tokens[place - 1] if place else None
        after = tokens[place + 1] if place + 1 < len(tokens) else None
        if sign in _COMPARISONS:
            # at the end or the beginning of a line it is a slip or a quotation mark
            if before is not None and after is not None and after.kind != "mark":
                yield sign
            continue
        ends_name = (
            token.glued
            and before is not None
            and (before.kind == "word" or before.text == sign)
            and (after is None or not after.glued or after.kind == "mark" or after.text == sign)
        )
        if (
            (ends_name and sign in {"+", "#"})
            or (ends_name and sign in {"-", "*"} and before is not None and len(before.text) < 3)
            or (sign in _ARITHMETIC and _between_operands(before, token, after))
        ):
            yield sign


def _between_operands(before: Token | None, sign: Token, after: Token | None) -> bool:
    """Return whether *sign* joins numbers or single letters, with space on both sides or none."""
    if before is None or after is None or sign.glued != after.glued:
        return False
    return all(token.kind == "number" or (len(token.text) == 1 and token.kind == "word")
               for token in (before, after))  # fmt: skip


# --------------------------------------------------------------------------------------- codes


def _codes(tokens: Sequence[Token], taken: set[int]) -> Iterator[str]:
    """Yield single letters, Roman numerals and short words in capitals that are names.

    If the whole text is in capitals, they mean nothing.
    """
    shouted = all(token.raw.isupper() for token in tokens if token.kind == "word")
    for place, token in enumerate(tokens):
        if token.kind != "word" or place in taken or "'" in token.raw:
            continue
        if place and tokens[place - 1].text == "/":
            continue
        if len(token.raw) == 1 and _is_part(tokens, place):
            continue
        bracketed = 0 < place < len(tokens) - 1 and tokens[place - 1].text == "("
        if len(token.raw) == 1:
            capital = token.raw.isupper() and place > 0 and not shouted
            if bracketed or (token.text not in _NO_CODES) or (capital and token.text == "a"):
                yield token.text
        elif token.text in ASIDE or token.text == "asap":
            continue
        elif not shouted and token.raw.isupper() and len(token.raw) <= 5:
            yield token.text


def _is_part(tokens: Sequence[Token], place: int) -> bool:
    """Return whether the letter at *place* begins a word such as "e-mail"."""
    after = tokens[place + 1 : place + 3]
    return (
        [token.glued for token in after] == [True, True]
        and after[0].text == "-"
        and after[1].kind == "word"
    )


def _same_codes(asked: Values, stored: Values) -> bool:
    """Return whether no code of one text is another, or a missing single letter, in the other."""
    ours, theirs = asked.codes - stored.words, stored.codes - asked.words
    # the article, too, is a word of nearly every text
    ours, theirs = (
        ours | ({"a"} & asked.codes - stored.codes),
        theirs | ({"a"} & stored.codes - asked.codes),
    )
    if ours and theirs:
        return False
    return not any(_names_one_of_a_kind(code) for code in ours | theirs)


def _names_one_of_a_kind(code: str) -> bool:
    return (len(code) == 1 and code not in PEOPLE) or _ROMAN.issuperset(code)
