"""Vetoes on a semantic match: what two questions must agree in, however similar they are.

Changed numbers and dropped negations score higher than true paraphrases, so no threshold can tell
them apart; a comparison of the texts can.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable

from cache_core.tuning import GuardName

_NUMBER = re.compile(r"\d+(?:[.,:/-]\d+)*")
_GROUPING = re.compile(r",(?=\d{3}(?!\d))")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")

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


def numbers(text: str) -> Counter[str]:
    """Return the numbers, dates and weekdays of *text*, each with how often it occurs."""
    found = Counter(_GROUPING.sub("", number) for number in _NUMBER.findall(text))
    for word in _WORD.findall(text.casefold()):
        if word in _COUNT_WORDS:
            found[_COUNT_WORDS[word]] += 1
        elif word in _DATE_WORDS:
            found[word] += 1
    return found


def negated(text: str) -> bool:
    """Whether *text* contains a negation."""
    for word in _WORD.findall(text.casefold().replace("’", "'")):
        if word in _NEGATIONS or word.endswith("n't"):
            return True
    return False


_GUARDS: dict[GuardName, Callable[[str, str], bool]] = {
    "numbers": lambda asked, stored: numbers(asked) == numbers(stored),
    "negation": lambda asked, stored: negated(asked) == negated(stored),
}


def veto(asked: str, stored: str, names: Iterable[GuardName]) -> GuardName | None:
    """Return the first guard by which an answer to *stored* must not answer *asked*."""
    if asked == stored:
        return None
    for name in names:
        if not _GUARDS[name](asked, stored):
            return name
    return None
