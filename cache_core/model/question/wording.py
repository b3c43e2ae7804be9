"""Two forms of a message: exact, for answering it, and loose, for invalidating it.

The exact form folds only differences that cannot change the meaning of a plain sentence. Case,
punctuation, line breaks and spaces carry meaning in code, flags, ids and URLs, and in any text that
is itself the subject of the question, so any text that is not clearly plain is left unchanged.
"""

from __future__ import annotations

import re
import unicodedata

_LONGEST = 200
"""Longest text, in characters, that is checked for being one plain sentence."""

_SHORT = 2
"""Most letters of a last word that may be a symbol, which the sign after it belongs to."""

_SHORT_WORDS = frozenset("do go he in it me my no of off ok on or so to up us we".split())

_FINAL = " .!?…。！？؟।"

_WORD = r"[^\W\d_]+(?:['’-][^\W\d_]+)*"
_SENTENCE = re.compile(rf"(?:(?:{_WORD}|\d+),? )*{_WORD}[.?]?")
"""One line of words and whole numbers separated by single spaces; the last is a word."""

_QUESTIONS = frozenset(
    "how what what's when when's where where's which who who's whom whose why "
    "wann warum was welche welchen welcher welches wer weshalb wie wieso wieviel wo woher wohin "
    "combien pourquoi quand quel quelle quelles quels "
    "cuándo cuánto cuántos cuánta cuántas cuál cuáles cómo dónde qué quién "
    "perché quanto quanti quando quale quali "
    "hoeveel waar waarom wanneer welk wat waarheen".split()
)
"""First words of questions: a final full stop after one of them cannot make a statement."""

_INVERTED = frozenset(
    "are aren't can can't could couldn't did didn't do does doesn't don't had has hasn't have "
    "haven't is isn't may might must shall should shouldn't was wasn't were weren't will won't "
    "would wouldn't".split()
)
"""Verbs that begin a question if a subject follows."""

_NAMES = frozenset({"may", "will"})
"""Verbs of these that are names, too."""

_SUBJECTS = frozenset("I we you they he she it there this that these those my your our".split())
_REQUESTING = frozenset({"do", "don't", "have"})
"""Verbs of these that also begin a request, unless one of these subjects follows."""

_REQUESTING_SUBJECTS = frozenset({"I", "we", "you", "they"})

_REQUESTS = frozenset(
    "add book cancel change check compare confirm create delete describe explain extend find get "
    "give list make move open order pay reactivate refund remove remind renew reset resend return "
    "send ship show stop summarise summarize tell track unsubscribe update upgrade".split()
)
"""Verbs that begin a request before one of `_OBJECTS`: else they may be names, or commands."""

_OBJECTS = frozenset(
    "a all an any every it me my our some that the their them these this those your".split()
)

_OPENINGS = frozenset("and but hello hey hi no ok okay please so thanks yes".split())
"""Words before the actual beginning."""

_OTHERS = frozenset(
    "an any are because but did does every for from had has if is isn't it its let's maybe my need "
    "only our please she should since some thank thanks that the their them then there these they "
    "this those until want was we were while with without would you your".split()
)
"""Other first words whose capital only marks the beginning: no names, no symbols."""

_QUOTING = frozenset(
    "address character characters code command complete correct domain email expression file "
    "filename fix folder glob grammar handle hashtag id ids key letter letters operator passphrase "
    "password path pattern phrase pin pronounce proofread punctuate punctuation quote regex regexp "
    "say sentence sentences sign spell spelled spelling spelt statement string symbol syntax text "
    "token translate translated translation type typed url username word words write written "
    "rewrite".split()
)
"""Words that may precede a quoted text which the message is about, letter by letter."""


def loose_form(message: str) -> str:
    """Return the form of *message* by which invalidations match: equal for all its variants.

    NFC, casefolded, white space collapsed, final sentence punctuation removed unless nothing else
    is left.
    """
    if message.isascii():
        text = message.lower()
    else:
        text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", message).casefold())
    text = " ".join(text.split())
    return text.rstrip(_FINAL) or text


def exact_form(message: str) -> str:
    """Return the form of *message* by which exact lookups match.

    NFC, without outer white space. A plain sentence also loses the capital of its first word, and
    one final `.` or `?`; but a statement never becomes the question of the same words, nor the
    reverse.
    """
    text = message.strip()
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    if len(text) > _LONGEST or _SENTENCE.fullmatch(text) is None:
        return text
    words = text.rstrip(".?").split(" ")
    plain = [word.rstrip(",") for word in words]
    if not all(map(_is_ordinary, plain)) or not _QUOTING.isdisjoint(map(str.lower, plain[:-1])):
        return text
    first = words[0] if _is_pronoun(plain[0]) else words[0][0].lower() + words[0][1:]
    signs = _meaningless([first, *words[1:]])
    if signs is None:
        return text
    means_something = len(words[-1]) <= _SHORT and words[-1] not in _SHORT_WORDS
    end = text[len(first) :]
    return first + (end if means_something or end[-1:] not in signs else end[:-1])


def _meaningless(words: list[str]) -> str | None:
    """Return the final signs that mean nothing after *words*; `None` if even the capital may."""
    first, *others = [word.replace("’", "'") for word in words]
    if first.rstrip(",") in _OPENINGS:
        return _meaningless(others) or "" if others else "."
    second = others[0].rstrip(",") if others else ""
    if first in _QUESTIONS:
        return ".?"
    if first in _INVERTED:
        asks = second in (_REQUESTING_SUBJECTS if first in _REQUESTING else _SUBJECTS)
        if asks:
            return ".?"
        if first not in _REQUESTING | _NAMES:
            return "?"
        return None
    if first in _REQUESTS and second in _OBJECTS:
        return "."
    return "." if first in _OTHERS or _is_pronoun(first) else None


def _is_pronoun(word: str) -> bool:
    return word.replace("’", "'").partition("'")[0] == "I"


def _is_ordinary(word: str) -> bool:
    """Return whether a word is in lower case, capitalised, a number, or "I"."""
    rest = word[1:]
    return (
        word.islower() or word.isdecimal() or word == "I" or (word[0].isupper() and rest.islower())
    )
