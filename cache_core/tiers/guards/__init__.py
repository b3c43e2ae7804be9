"""Guards: veto a semantic match if the two questions differ in a fact, however similar they are.

Changed numbers, swapped places and dropped negations score higher than true paraphrases, so no
threshold separates them; a comparison of the texts does. A word list here is a closed class of
the language (units, prepositions, negations), never a list of the subjects of some traffic.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import lru_cache
from typing import NamedTuple

from cache_core.config.tuning import GuardName
from cache_core.tiers.guards import language, letters, negation, opposites, order, values
from cache_core.tiers.guards.quantities import Number
from cache_core.tiers.guards.words import tokenise

__all__ = ["Number", "forget", "load", "negated", "numbers", "prepare", "veto"]


_LONGEST = 4_096
"""Longest texts, in characters, whose facts are compared: 20 ms at most."""


class _Facts(NamedTuple):
    """Facts of a text that the guards compare."""

    values: values.Values
    negations: negation.Negations
    order: order.Order
    opposites: opposites.Opposites


@lru_cache(maxsize=1_024)
def _facts(text: str) -> _Facts:
    tokens = tokenise(text)
    found = values.read(tokens)
    return _Facts(
        found,
        negation.read(tokens),
        order.read(tokens, found.numbers),
        opposites.read(tokens),
    )


def prepare(text: str, names: Collection[GuardName]) -> None:
    """Analyse *text* ahead of `veto`: a lookup has the time for it while its vector is made."""
    if len(text) > _LONGEST:
        return
    if not _GUARDS.keys().isdisjoint(names):
        _facts(text)
    if "letters" in names:
        letters.prepare(text)


def load() -> None:
    """Read the word lists now, so that no lookup waits for them."""
    language.load()
    opposites.load()


def forget() -> None:
    """Clear the caches of analysed texts."""
    _facts.cache_clear()
    language.forget()
    letters.forget()


def numbers(text: str) -> list[Number]:
    """Return the numbers of *text*, in order."""
    return list(_facts(text).values.numbers)


def negated(text: str) -> bool:
    """Return whether *text* contains a negation."""
    return bool(_facts(text).negations.kinds)


_GUARDS: dict[GuardName, Callable[[_Facts, _Facts], bool]] = {
    "numbers": lambda asked, stored: values.agree(asked.values, stored.values),
    "negation": lambda asked, stored: negation.agree(asked.negations, stored.negations),
    "direction": lambda asked, stored: order.same_direction(asked.order, stored.order),
    "order": lambda asked, stored: order.agree(asked.order, stored.order),
    "opposites": lambda asked, stored: opposites.agree(asked.opposites, stored.opposites),
}


_OF_TEXTS: dict[GuardName, Callable[[str, str], bool]] = {
    "letters": letters.agree,
    "language": language.understood,
}


def veto(asked: str, stored: str, names: Iterable[GuardName]) -> GuardName | None:
    """Return the first guard that vetoes answering *asked* with the answer to *stored*.

    Texts longer than any question must have the same words.
    """
    if asked == stored:
        return None
    names = list(names)
    if max(len(asked), len(stored)) > _LONGEST:
        if asked.casefold().split() != stored.casefold().split():
            return next(iter(names), None)
        names = [name for name in names if name in _OF_TEXTS]
    return next((name for name in names if not _agree(name, asked, stored)), None)


def _agree(name: GuardName, asked: str, stored: str) -> bool:
    if name in _OF_TEXTS:
        return _OF_TEXTS[name](asked, stored)
    return _GUARDS[name](_facts(asked), _facts(stored))
