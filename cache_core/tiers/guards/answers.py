"""Comparison of two answers by their facts, in whatever words.

The guards compare questions, which are short and much alike, and may veto too much: that is a miss.
Two wordings of one answer are whole sentences, built freely. So facts are compared as sets here,
and what may be mere style is a doubt: neither the same answer nor another one.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from cache_core.tiers.guards import language, negation, opposites, order, times, values
from cache_core.tiers.guards.negation import Negations
from cache_core.tiers.guards.opposites import Placed
from cache_core.tiers.guards.order import Order
from cache_core.tiers.guards.quantities import Number
from cache_core.tiers.guards.slots import swapped_words
from cache_core.tiers.guards.units import unit
from cache_core.tiers.guards.words import ARTICLES, FUNCTION, Token, stem, tokenise

Comparison = Literal["agree", "doubt", "conflict"]
"""No fact differs; one is on one side only, or may be the opposite; one stands for another."""

LONGEST = 4_096
"""Characters of the longest answer whose facts are compared: a few milliseconds."""

_CLOSE = 0.75
"""Share of one answer's words from which the other is an edit of it. A model that answers anew
words all of it anew; where nearly all words stay, what differs is a change: "not", "or" for "and",
a sentence more, an item less, the same words in another order.
"""

_ENDS = frozenset(".!?;")
_TELLING = 4
"""Words of the shortest sentence that is compared for itself."""

_Value = tuple[str, str]
"""A number and its unit."""

_ONE_UNIT = {"gbp": "pound", "lb": "pound", "th": "", "times": ""}
_CONDITIONS = frozenset("if unless provided providing".split())
_MAY_CONDITION = _CONDITIONS | frozenset(
    "when where once as while until till before after for with without only who whose that "
    "which".split()
)
"""Words by which another wording may say on what an answer depends."""

_FREE = frozenset("free gratis complimentary".split())
_PAID = frozenset("fee fees charge charges charged surcharge pay pays paid cost costs".split())

_OTHER_LIMIT = {"less": "more", "more": "less"}
_BEFORE_SENTENCE = frozenset(".!?:;>-*\"'`“”‘’•()")
_AMOUNT = re.compile(
    r"[^\w]*[0-9][0-9.,:/–-]*[^\W\d]{0,4}(?:[–-][0-9.,:]*[^\W\d]{0,7}|/[^\W\d]+)?[^\w]*"
)
_QUOTED = re.compile(r"\"([^\"\n]+)\"|“([^”\n]+)”|`([^`\n]+)`")
_EDGES = "`'\"“”()[]<>,.;:!?*_"


class _Facts(NamedTuple):
    """Facts of an answer.

    Attributes:
        firm: Numbers with their units.
        values: The same, with words that may be no numbers, such as "one".
        limits: Numbers with `less` or `more`, where a word before them says so.
        rates: Periods and the like that something is per.
        dates: Days, months, parts of the day.
        codes: Codes, flags, addresses and quotations, without the signs around them.
        chunks: All that stands between spaces, likewise.
        names: Capitalised words within a sentence.
        stems: All words, without inflections.
        content: The content words by their stems; numbers and units are compared as such.
        negations, order, opposites: For the polarity.
        signs: Comparisons and arithmetic.
        words: All words, numbers and signs but articles, in order.
        sentences: The same of each sentence.
        plain: Whether it is English.
    """

    firm: frozenset[_Value]
    values: frozenset[_Value]
    limits: frozenset[tuple[_Value, str]]
    rates: frozenset[str]
    dates: frozenset[str]
    codes: frozenset[str]
    chunks: frozenset[str]
    names: frozenset[str]
    stems: frozenset[str]
    content: Mapping[str, str]
    negations: Negations
    order: Order
    opposites: tuple[Placed, ...]
    signs: tuple[str, ...]
    words: tuple[str, ...]
    sentences: frozenset[tuple[str, ...]]
    plain: bool


def compare(one: str, other: str) -> Comparison:
    """Return whether the facts of two answers agree.

    A doubt if either is longer than `LONGEST`, or is not English.
    """
    if max(len(one), len(other)) > LONGEST:
        return "doubt"
    ours, theirs = _facts(one), _facts(other)
    if not (ours.plain and theirs.plain):
        return "doubt"
    left = [
        (_unmatched(ours.firm, theirs.values), _unmatched(theirs.firm, ours.values)),
        (ours.rates - theirs.rates, theirs.rates - ours.rates),
        (_missing(ours.codes, theirs, other), _missing(theirs.codes, ours, one)),
        (ours.names - theirs.stems, theirs.names - ours.stems),
    ]
    if any(mine and yours for mine, yours in left):
        return "conflict"
    if any(mine or yours for mine, yours in left) or ours.dates != theirs.dates:
        return "doubt"
    swapped = swapped_words(ours.content, theirs.content)
    return "doubt" if swapped or _contrary(ours, theirs) or _edited(ours, theirs) else "agree"


def _contrary(ours: _Facts, theirs: _Facts) -> bool:
    """Return whether one answer may say the opposite of the other."""
    return (
        _turned(ours.limits, theirs.limits)
        or negation.contrary(ours.negations, theirs.negations)
        or not order.same_direction(ours.order, theirs.order)
        or opposites.in_place(ours.opposites, theirs.opposites)
        or any(_said_once(*sides) for sides in ((ours, theirs), (theirs, ours)))
    )


def _said_once(one: _Facts, other: _Facts) -> bool:
    """Return whether only *one* has a condition, or is free where the other has a price."""
    mine, yours = one.negations.words, other.negations.words
    conditional = bool(mine & _CONDITIONS) and not yours & _MAY_CONDITION
    return conditional or bool(mine & _FREE and not yours & _FREE and yours & _PAID)


def _edited(ours: _Facts, theirs: _Facts) -> bool:
    """Return whether one text, or a sentence of it, may be that of the other with a change.

    That is one with nearly all of its words, or with other signs or periods.
    """
    if ours.signs != theirs.signs:
        return True
    mine, yours = _spans(ours), _spans(theirs)
    if _unmatched(mine, yours) and _unmatched(yours, mine):
        return True
    fewest = min(len(ours.words), len(theirs.words))
    if ours.words != theirs.words and _shared(ours.words, theirs.words) >= _CLOSE * fewest:
        return True
    return any(
        _shared(one, other) >= _CLOSE * max(len(one), len(other))
        for one in ours.sentences - theirs.sentences
        for other in theirs.sentences - ours.sentences
    )


def _shared(one: Sequence[str], other: Sequence[str]) -> int:
    return (Counter(one) & Counter(other)).total()


def _spans(facts: _Facts) -> list[_Value]:
    """Return the numbers with a unit, "an hour" as well."""
    return [value for value in facts.values if value[1]]


def _facts(text: str) -> _Facts:
    tokens = tokenise(text)
    found = values.read(tokens)
    words = [token.text for token in tokens if token.kind == "word"]
    taken = {number.place + offset for number in found.numbers for offset in range(number.size)}
    rest = [token.text for place, token in enumerate(tokens)
            if token.kind == "word" and place not in taken]  # fmt: skip
    return _Facts(
        frozenset(_value(number) for number in found.numbers if _is_firm(number, tokens)),
        frozenset(_value(number) for number in found.numbers),
        frozenset((_value(number), number.role) for number in found.numbers
                  if number.role in _OTHER_LIMIT),
        frozenset(found.rates),
        frozenset(date.removeprefix("from ").removeprefix("to ").rstrip("s")
                  for date in found.dates),
        frozenset(_codes(text)),
        frozenset(map(_bare, text.split())),
        frozenset(_names(tokens)),
        frozenset(map(stem, words)),
        {stem(word): word for word in rest if word not in FUNCTION and not unit(word)},
        negation.read(tokens),
        order.read(tokens, found.numbers),
        opposites.placed(tokens),
        tuple(sorted(found.signs)),
        tuple(_words(tokens)),
        frozenset(_sentences(tokens)),
        language.english(text),
    )  # fmt: skip


def _words(tokens: Sequence[Token]) -> Iterator[str]:
    for token in tokens:
        # A capital one is a letter, as in room A, or begins a sentence.
        if token.kind != "mark" and (token.text not in ARTICLES or token.raw == "A"):
            yield token.text


def _sentences(tokens: Sequence[Token]) -> Iterator[tuple[str, ...]]:
    """Yield the words of each sentence that is long enough to be known by them."""
    for ends, sentence in itertools.groupby(tokens, lambda token: token.text in _ENDS):
        words = () if ends else tuple(_words([*sentence]))
        if len(words) >= _TELLING:
            yield words


# ------------------------------------------------------------------------------------- numbers


def _value(number: Number) -> _Value:
    """Return a number with its unit; a time of day in one spelling."""
    of = _ONE_UNIT.get(number.unit, number.unit)
    if of == "clock" or ":" in number.value:
        minute = times.clock(number.value)
        if minute is not None:
            return times.written(minute), "clock"
    return number.value, of


def _is_firm(number: Number, tokens: Sequence[Token]) -> bool:
    """Return whether a number needs its like in the other answer.

    "first", "once", "an hour" and a bare "one" do not.
    """
    if number.value == "1" and number.unit in {"th", "times"}:
        return False
    return not number.soft or (number.unit != "" and tokens[number.place].text not in ARTICLES)


def _unmatched(mine: Iterable[_Value], others: Iterable[_Value]) -> list[_Value]:
    others = list(others)
    return [one for one in mine if not any(_equal(one, two) for two in others)]


def _equal(one: _Value, two: _Value) -> bool:
    """Return whether two values are equal; a unit may be left out on one side, as in 8 to 10 kg."""
    if _is_hour(one, two) or _is_hour(two, one):
        return True
    return values.same_value(one[0], two[0]) and (one[1] == two[1] or "" in {one[1], two[1]})


def _is_hour(time: _Value, bare: _Value) -> bool:
    """Return whether a bare number is the full hour of a time of day."""
    if time[1] != "clock" or bare[1] or len(bare[0]) > len("24"):
        return False
    minute = times.clock(bare[0])
    return minute is not None and times.written(minute) == time[0]


def _turned(ours: frozenset[tuple[_Value, str]], theirs: frozenset[tuple[_Value, str]]) -> bool:
    """Return whether a number is the most in one answer and only the least in the other."""
    return any(
        (value, _OTHER_LIMIT[role]) in theirs and (value, role) not in theirs
        for value, role in ours
    )


# --------------------------------------------------------------------------------- names, codes


def _names(tokens: Sequence[Token]) -> Iterable[str]:
    """Yield the stems of capitalised words that begin no sentence, heading or quotation."""
    for before, token in itertools.pairwise(tokens):
        if token.kind != "word" or not token.raw[0].isupper() or len(token.raw) < len("EU"):
            continue
        if before.text in _BEFORE_SENTENCE or times.is_date(token.text):
            continue
        if token.text in FUNCTION or unit(token.text, token.raw):
            continue
        yield stem(token.text)


def _codes(text: str) -> Iterator[str]:
    """Yield codes, addresses and quotations, without the signs around them."""
    for chunk in text.split():
        code = _bare(chunk)
        if any(map(str.isalpha, code)) and not (_AMOUNT.fullmatch(code) or _is_plain(code)):
            yield code
    for quoted in _QUOTED.findall(text):
        yield from filter(None, map(_bare, quoted))


def _is_plain(chunk: str) -> bool:
    """Return whether a piece of text is a word, an abbreviation, or known words with hyphens."""
    if chunk.replace("'", "").isalpha() or all(len(part) == 1 for part in chunk.split(".")):
        return True
    parts = re.split("[/'-]", chunk)
    return all(len(part) == 1 or language.is_word(part) or language.is_name(part) for part in parts)


def _bare(chunk: str) -> str:
    """Return a piece of text in lower case, without the signs around it."""
    return chunk.casefold().replace("’", "'").strip(_EDGES).removesuffix("'s").strip(_EDGES)


def _missing(codes: Iterable[str], there: _Facts, text: str) -> list[str]:
    """Return the *codes* that another answer, with its text, does not have."""
    folded = text.casefold()
    return [
        code for code in codes if code not in there.chunks and not (" " in code and code in folded)
    ]
