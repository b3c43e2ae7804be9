"""Guard of order: who does what to whom, and what goes from where to where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from cache_core.tiers.guards.quantities import Number
from cache_core.tiers.guards.units import PERIODS
from cache_core.tiers.guards.words import (
    ARTICLES,
    ASIDE,
    AUXILIARIES,
    LINKS,
    OWNERS,
    PEOPLE,
    Token,
    stem,
)

_MOVES = frozenset("to into onto than before after over under ->".split())
"""Words whose two sides cannot be swapped."""
_INTO = frozenset("to into onto ->".split())
_STOPS = _MOVES | frozenset("from and or for in on with by of at as if when".split())
_PASSED_OVER = ARTICLES | OWNERS | {"than", "at"}
_COORDINATES = frozenset("and or , &".split())
_CONTRARY = {
    ("to", "from"), ("into", "from"), ("onto", "from"), ("by", "for"), ("by", "to"), ("via", "to"),
    ("via", "from"), ("for", "from"), ("in", "outside"), ("in", "behind"),
}  # fmt: skip
"""Pairs of links that reverse the meaning when one replaces the other."""
_SKIPPED = ARTICLES | OWNERS | AUXILIARIES | ASIDE
_OFFERING = frozenset("can could will would shall may might do does".split())
_SUBJECTS = frozenset("i we you he she they".split())
_GET = frozenset("get gets got gotten getting".split())
_DAYS = frozenset("today tomorrow yesterday tonight".split())
"""Days, whose place is free, and which are compared as dates."""
_ENOUGH_SHARED = 0.75
_FAR = 10
"""Most tokens between a link and its thing."""


class Order(NamedTuple):
    """Word order of a text.

    Attributes:
        words: Content words in order, each with the link before it and its phrase.
        plain: All words but articles, in order, commas included.
        people: Persons spoken of, in order.
        moves: (source, target) of each phrase that goes from one thing to another.
        linked: (link, the thing after it).
        links: Number of occurrences of each link.
        auxiliaries: Auxiliary verbs in order.
        clauses: Number of content words before the end of each clause.
    """

    words: tuple[tuple[str, str, int], ...]
    plain: tuple[str, ...]
    people: tuple[str, ...]
    moves: frozenset[tuple[str, str]]
    linked: frozenset[tuple[str, str]]
    links: Counter[str]
    auxiliaries: tuple[str, ...]
    clauses: tuple[int, ...]


def read(tokens: Sequence[Token], found: Sequence[Number]) -> Order:
    """Return the word order of *tokens*; *found* are their numbers."""
    words, clauses = _words(tokens, _named(found))
    texts = [token.text for token in tokens]
    return Order(
        tuple(words),
        tuple(token.text for token in tokens
              if token.text == "," or (token.kind != "mark" and token.text not in _SKIPPED)),
        tuple(PEOPLE[token.text] for token in tokens if token.text in PEOPLE),
        frozenset(_moves(texts)),
        frozenset((text, thing) for place, text in enumerate(texts) if text in LINKS
                  if (thing := _thing(texts[place + 1 : place + _FAR]))),
        Counter(text for text in texts if text in LINKS),
        tuple(text for text in texts if text in AUXILIARIES),
        tuple(clauses),
    )  # fmt: skip


def same_direction(asked: Order, stored: Order) -> bool:
    """Return whether nothing that goes one way in *asked* goes the other way in *stored*."""
    if _turned(asked.moves, stored.moves) or _turned(stored.moves, asked.moves):
        return False
    mine, other = asked.linked - stored.linked, stored.linked - asked.linked
    return not any(
        thing == same and ((link, instead) in _CONTRARY or (instead, link) in _CONTRARY)
        for link, thing in mine
        for instead, same in other
    )


def _turned(ours: frozenset[tuple[str, str]], theirs: frozenset[tuple[str, str]]) -> bool:
    """Return whether something goes one way in *ours* and only the other way in *theirs*."""
    return any(
        one != two and (two, one) in theirs and (one, two) not in theirs for one, two in ours
    )


def agree(asked: Order, stored: Order) -> bool:
    """Return whether the shared words have the same order, or their order means nothing.

    If the links between them differ too, the sentence is built in another way
    ("my profile password", "the password of my profile"), and the order means nothing.
    """
    ours = Counter(word for word, _, _ in asked.words)
    theirs = Counter(word for word, _, _ in stored.words)
    shared = {word for word, count in ours.items() if theirs[word] == count}
    one = [part for part in asked.words if part[0] in shared]
    two = [part for part in stored.words if part[0] in shared]
    first, second = [word for word, _, _ in one], [word for word, _, _ in two]
    longest = max(len(asked.words), len(stored.words))
    if len(first) > 1 and first == second and longest - len(first) < 2 and _by(asked, stored):
        return False
    if not one or len(one) < _ENOUGH_SHARED * longest:
        return True
    if first == second:
        same_words = len(one) == len(asked.words) == len(stored.words)
        return not same_words or _same_people(asked, stored)
    if asked.links != stored.links:
        return True
    if len(first) < 3 and not any(link for _, link, _ in (*one, *two)):
        return True
    return (
        _phrases(one) == _phrases(two)
        or _coordinated(asked.plain, stored.plain)
        or (
            _linked(one) == _linked(two)
            and (_rotated(asked, first, second) or _rotated(stored, second, first))
        )
    )


def _same_people(asked: Order, stored: Order) -> bool:
    """Return whether two texts with the same words speak of the same people in their places.

    An offer and a request mean the same: "can I", "can you". Statements of facts do not.
    """
    ours, theirs = asked.people, stored.people
    if ours == theirs or Counter(ours) == Counter(theirs):
        return ours == theirs
    built_alike = asked.links == stored.links and asked.auxiliaries == stored.auxiliaries
    return not (
        built_alike
        and len(ours) == len(theirs)
        and asked.auxiliaries
        and not _OFFERING & set(asked.auxiliaries)
    )


def _by(asked: Order, stored: Order) -> bool:
    """Return whether the links differ by one "by" only: it turns the subject into the object."""
    more, less = asked.links - stored.links, stored.links - asked.links
    return more + less == Counter(("by",))


def _phrases(parts: Sequence[tuple[str, str, int]]) -> Counter[tuple[str, ...]]:
    """Return the phrases of *parts*: each its first link and its words."""
    phrases: dict[int, list[str]] = {}
    for word, link, phrase in parts:
        phrases.setdefault(phrase, [link]).append(word)
    return Counter(tuple(words) for words in phrases.values())


def _linked(parts: Sequence[tuple[str, str, int]]) -> set[tuple[str, str]]:
    """Return each preposition or conjunction with the word after it."""
    first: dict[int, tuple[str, str]] = {}
    for word, link, phrase in parts:
        if link and link not in AUXILIARIES:
            first.setdefault(phrase, (link, word))
    return set(first.values())


def _coordinated(asked: Sequence[str], stored: Sequence[str]) -> bool:
    """Return whether the texts differ only by the order of a list joined by "and" or "or"."""
    start, end = 0, 0
    shorter = min(len(asked), len(stored))
    while start < shorter and asked[start] == stored[start]:
        start += 1
    while end < shorter - start and asked[-1 - end] == stored[-1 - end]:
        end += 1
    one, two = asked[start : len(asked) - end], stored[start : len(stored) - end]
    return len(one) == len(two) and sorted(_listed(one)) == sorted(_listed(two))


def _listed(words: Sequence[str]) -> list[tuple[str, ...]]:
    things: list[tuple[str, ...]] = [()]
    for word in words:
        if word in _COORDINATES:
            things.append(())
        else:
            things[-1] += (word,)
    return [thing for thing in things if thing]


def _rotated(order: Order, words: Sequence[str], others: Sequence[str]) -> bool:
    """Return whether *others* are *words* with a first clause moved to the end."""
    if len(words) != len(order.words):
        return False
    return any([*words[end:], *words[:end]] == others for end in order.clauses)


def _named(found: Sequence[Number]) -> dict[int, Number | None]:
    """Return the number at each of its places; `None` for one known by its unit.

    A number that no other can be mistaken for is compared by value, wherever it is.
    """
    labels = Counter(number.unit for number in found)
    places: dict[int, Number | None] = {}
    for number in found:
        known = number.unit and number.unit != "times" and labels[number.unit] == 1
        known = known or (number.soft and number.unit in PERIODS)
        places |= dict.fromkeys(range(number.place, number.place + number.size))
        if not known:
            places[number.place] = number
    return places


def _words(
    tokens: Sequence[Token], numbered: dict[int, Number | None]
) -> tuple[list[tuple[str, str, int]], list[int]]:
    words: list[tuple[str, str, int]] = []
    clauses = []
    link, phrase = "", 0
    for place, token in enumerate(tokens):
        word = token.text
        if place in numbered:
            number = numbered[place]
            if number is not None:
                words.append((f"{number.value} {number.unit}", link, phrase))
            continue
        if token.kind == "mark":
            link, phrase = "", phrase + 1
            clauses.append(len(words))
        elif (word in LINKS and not _names(token, place)) or word in AUXILIARIES:
            link, phrase = word, phrase + 1
        elif word in _GET and "by" in (follows.text for follows in tokens[place + 2 : place + 4]):
            # A passive, as "is" would be: gets bitten by.
            link, phrase = word, phrase + 1
        elif word in _SUBJECTS and words and words[-1][2] == phrase:
            link, phrase = "", phrase + 1
        elif token.kind == "word" and _counts(token, place):
            words.append((stem(word), link, phrase))
    return words, clauses


def _counts(token: Token, place: int) -> bool:
    if _names(token, place):
        return True
    word = token.text
    return (
        word not in _SKIPPED and word not in _DAYS and not (word.endswith("ly") and len(word) > 4)
    )


def _names(token: Token, place: int) -> bool:
    """Return whether a word that looks like an article is a name: blood group A."""
    return place > 0 and token.raw == "A"


def _moves(tokens: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (source, target) of each phrase that goes from one thing to another."""
    sources = {
        thing
        for place, token in enumerate(tokens)
        if token == "from"  # noqa: S105 - a word
        and (thing := _thing(tokens[place + 1 : place + _FAR]))
    }
    for place, token in enumerate(tokens):
        if token not in _MOVES:
            continue
        target = _thing(tokens[place + 1 : place + _FAR])
        if not target:
            continue
        before = _thing(tokens[max(0, place - _FAR) : place][::-1])
        if before:
            yield before, target
        if token in _INTO:
            yield from ((source, target) for source in sources)


def _thing(tokens: Sequence[str]) -> str:
    """Return the first of *tokens* that names something before the phrase ends; else empty."""
    passed = ""
    for token in tokens:
        if token in _STOPS or not token[0].isalnum():
            break
        if token not in _PASSED_OVER:
            return token
        passed = token
    # "A" with nothing after it is no article but a name: from A to B.
    return passed
