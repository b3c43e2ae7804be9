"""Guard of negation: how much each text negates, in which clauses, and by prefixes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from cache_core.tiers.guards.words import ARTICLES, FUNCTION, OWNERS, PEOPLE, Token, stem

_NEGATIONS = frozenset(
    "not no never none nothing nobody nowhere neither nor without cannot unable non hardly "
    "scarcely barely rarely seldom except excl excluding exclude excludes excluded exempt "
    "exempts exempted lack lacks lacking lacked unless cant dont doesnt didnt isnt arent "
    "wasnt werent wont couldnt shouldnt wouldnt havent hasnt hadnt aint".split()
)
_SHUNNING = frozenset(
    "avoid avoids avoided avoiding refrain refrains abstain abstains prevent prevents prevented "
    "preventing".split()
)
_BEFORE_TO = frozenset("yet fail fails failed failing refuse refuses refused refusing".split())
_BEFORE_ING = frozenset("stop stops stopped quit cease".split())
_KEEPING = frozenset("keep keeps stop stops block blocks".split())
_KEPT = 6
"""Most tokens between such a word and "from" with a verb: keep them from seeing."""
_REPLACING = {"instead": "of", "rather": "than"}
_SUBJECTS = ARTICLES | OWNERS | PEOPLE.keys() | frozenset(
    "there they it any some someone anyone everyone somebody anybody everybody".split()
)  # fmt: skip
_OPENERS = frozenset("thanks thank thx problem worries worry doubt".split())
_PARTIAL = frozenset("all every everyone everybody everything always both necessarily".split())
_PREFIXES = ("un", "in", "im", "il", "ir", "dis", "non", "mis", "de")
_REVERSED = frozenset(
    "unlock unblock unsubscribe uninstall undo unlink unpack unfreeze untie unplug unzip unmute "
    "unpin unload unfold unwrap unlist unregister unenroll unfollow undelete unhide".split()
)
"""Actions of their own that undo another, often said in other words."""
_NO_PREFIX = (
    "under", "unit", "uniq", "unif", "univ", "union", "unicode", "uncle", "until", "unless",
    "unfort", "unto", "unilateral", "unison",
)  # fmt: skip
_NEGATIVE = frozenset(
    "impossible illegal invalid incorrect inactive incomplete insecure insufficient incompatible "
    "inaccurate inappropriate ineligible inaccessible invisible irregular irrelevant irreversible "
    "improper impractical inadequate incapable inconsistent ineffective infrequent intolerant "
    "involuntary illegible illogical irresponsible irresponsibly impermissible inadmissible "
    "disallowed disapproved disapprove dissatisfied disqualified dishonest".split()
)
_NOT_LESS = frozenset("unless regardless nonetheless nevertheless bless less doubtless".split())
_ENDS_CLAUSE = frozenset(
    "but and or which who that because if when while before after although though so".split()
)
_WITHOUT_APOSTROPHE = frozenset(word for word in _NEGATIONS if word.endswith("nt"))
_BE = frozenset("isn't aren't wasn't weren't isnt arent wasnt werent".split())
_RELATIVES = frozenset("who which that".split())
_ASKED = frozenset("how why what where when who which if whether".split())
_UNSURE = frozenset("know understand sure idea clue".split())
"""Words behind the negation of an indirect question: "I don't know how"."""


class Negations(NamedTuple):
    """The negations of a text.

    Attributes:
        kinds: Kind of each negation, in order: "not", or "not all".
        clauses: Content words of each negation's clause.
        free: Number of times something is free, or free of something.
        words: All words.
    """

    kinds: tuple[str, ...]
    clauses: tuple[frozenset[str], ...]
    free: int
    words: frozenset[str]


def read(tokens: Sequence[Token]) -> Negations:
    """Return the negations in *tokens*."""
    found = list(_found(tokens))
    kinds = []
    for place in found:
        after = tokens[place + 1].text if place + 1 < len(tokens) else ""
        kinds.append("not all" if after in _PARTIAL else "not")
    words = frozenset(token.text for token in tokens if token.kind == "word")
    free = sum(token.text == "free" for token in tokens)
    return Negations(tuple(kinds), _clauses(tokens, found), free, words)


def agree(asked: Negations, stored: Negations) -> bool:
    """Return whether both negate equally often, in the same clauses, and not by prefix."""
    if asked.kinds != stored.kinds or asked.free != stored.free:
        return False
    if asked.clauses != stored.clauses and _moved(asked, stored):
        return False
    ours, theirs = asked.words - stored.words, stored.words - asked.words
    return not (_prefixed(ours, theirs) or _prefixed(theirs, ours))


def contrary(one: Negations, two: Negations) -> bool:
    """Return whether two longer texts may negate different things: more, elsewhere, by prefix."""
    if len(one.kinds) != len(two.kinds) or (one.clauses != two.clauses and _moved(one, two)):
        return True
    ours, theirs = one.words - two.words, two.words - one.words
    return _prefixed(ours, theirs) or _prefixed(theirs, ours)


def _found(tokens: Sequence[Token]) -> Iterator[int]:
    for place, token in enumerate(tokens):
        if token.kind == "word" and _negates(tokens, place, token.text):
            yield place


def _negates(tokens: Sequence[Token], place: int, word: str) -> bool:
    after = tokens[place + 1] if place + 1 < len(tokens) else None
    follows = after.text if after is not None else ""
    if follows in _UNSURE and _asks_indirectly(tokens, place):
        return False
    if word in {"no", "not"}:
        return _is_negation(tokens, place, word, after)
    if word == "never":
        return follows != "mind"
    if word.endswith("n't") or word in _WITHOUT_APOSTROPHE:
        return not _asks(tokens, place, follows)
    if word in _NEGATIONS or word in _SHUNNING:
        return True
    if word == "but":
        return place > 0 and tokens[place - 1].text in _PARTIAL
    if word in _BEFORE_TO:
        return follows == "to"
    if word == "used":
        return follows == "to" and place > 0 and tokens[place - 1].text in _SUBJECTS
    if word in _BEFORE_ING and follows.endswith("ing"):
        return True
    if word in _KEEPING:
        return _keeps_from(tokens, place)
    if word in {"apart", "other"}:
        return follows == ("from" if word == "apart" else "than")
    if word in _REPLACING:
        return follows == _REPLACING[word]
    return _negative(word)


def _asks_indirectly(tokens: Sequence[Token], place: int) -> bool:
    """Return whether the negation belongs to "I don't know how", "no idea why" or the like."""
    back = tokens[max(0, place - 2) : place]
    ahead = tokens[place + 2].text if place + 2 < len(tokens) else ""
    return ahead in _ASKED and (not place or any(token.text in {"i", "we"} for token in back))


def _is_negation(tokens: Sequence[Token], place: int, word: str, after: Token | None) -> bool:
    """Return whether "no" or "not" negates, and is no "No. 5", answer or "or not"."""
    if after is None or after.kind == "mark":
        numbered = (
            after is not None
            and after.text == "."
            and place + 2 < len(tokens)
            and tokens[place + 2].kind == "number"
        )
        opens = word == "no" and (not place or tokens[place - 1].kind == "mark")
        return not (numbered or opens or (place and tokens[place - 1].text == "or"))
    if word == "not":
        return after.text != "only"
    return not (after.kind == "number" or after.text in _OPENERS or after.text == "#")


def _asks(tokens: Sequence[Token], place: int, follows: str) -> bool:
    """Return whether an auxiliary with "n't" begins a question or is its tag: no negation."""
    if place and tokens[place - 1].kind != "mark":
        return False
    if tokens[place].text in _BE:
        return any(token.text == "?" for token in tokens[place:]) or follows in _SUBJECTS
    return follows in _SUBJECTS


def _keeps_from(tokens: Sequence[Token], place: int) -> bool:
    """Return whether somebody is kept from doing something: "stop them from seeing"."""
    behind = [token.text for token in tokens[place + 1 : place + _KEPT + 2]]
    return any(
        word == "from" and after.endswith("ing") for word, after in itertools.pairwise(behind)
    )


def _negative(word: str) -> bool:
    """Return whether *word* has a negative prefix or suffix."""
    if word in _NEGATIVE:
        return True
    if word.endswith("less"):
        return word not in _NOT_LESS
    return (
        word.startswith("un")
        and len(word) > 5
        and not word.startswith(_NO_PREFIX)
        and word not in _REVERSED
        and stem(word) not in _REVERSED_STEMS
    )


_REVERSED_STEMS = frozenset(stem(word) for word in _REVERSED)


def _clauses(tokens: Sequence[Token], places: Sequence[int]) -> tuple[frozenset[str], ...]:
    """Return the content words of each place's clause."""
    clauses, done = [], -1
    for place in places:
        if place >= done:
            start, done = place, place + 1
            while start and not _ends(tokens[start - 1]):
                start -= 1
            while done < len(tokens) and not _ends(tokens[done]):
                done += 1
            if start and tokens[start - 1].text in _RELATIVES:
                start = max(0, start - 2)
            clause = frozenset(_content(tokens[start:done]))
        clauses.append(clause)
    return tuple(clauses)


def _content(tokens: Sequence[Token]) -> Iterator[str]:
    for token in tokens:
        word = token.text
        if token.kind == "word" and word not in FUNCTION and word not in _NEGATIONS:
            yield stem(word)


def _ends(token: Token) -> bool:
    return token.kind == "mark" or token.text in _ENDS_CLAUSE


def _moved(asked: Negations, stored: Negations) -> bool:
    """Return whether each text affirms something that only the other one negates."""
    ours, theirs = ({stem(word) for word in side.words} for side in (asked, stored))
    return any(
        (one - two) & theirs and (two - one) & ours
        for one, two in zip(asked.clauses, stored.clauses, strict=True)
    )


def _prefixed(ours: frozenset[str], theirs: frozenset[str]) -> bool:
    """Return whether one of *ours* is one of *theirs* with a negative prefix or suffix."""
    if not ours or not theirs:
        return False
    stems = theirs | {stem(word) for word in theirs}
    return any(
        word.startswith(prefix)
        and (word[len(prefix) :] in stems or stem(word)[len(prefix) :] in stems)
        for word in ours
        for prefix in _PREFIXES
        if len(word) > len(prefix) + 2
    ) or any(word.endswith("less") and stem(word[:-4]) in stems for word in ours)
