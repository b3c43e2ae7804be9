"""Guard of letters: codes, case, accents and layout must be the same in both texts.

Embedding models fold letter case, drop accents, marks, control signs and layout, and read codes in
pieces, so two texts may have the same vector and differ in a flag, an id, a unit or a line. This
guard permits only differences that change no plain sentence: case that means nothing,
spaces, the signs at the edges of words. Everything else must be the same on both sides, in the
same order. It also rejects one name in the place of another: Niger and Nigeria.

The guard of numbers compares numbers without letters, by value.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

from cache_core.tiers.guards.language import english, is_function_word, is_name, is_word
from cache_core.tiers.guards.times import is_date
from cache_core.tiers.guards.units import unit
from cache_core.tiers.guards.words import FUNCTION

_TYPESET = str.maketrans(
    {
        "’": "'",
        "‘": "'",
        "ʼ": "'",
        "“": '"',
        "”": '"',
        "„": '"',
        "–": "-",
        "—": "-",
        "…": "...",
        "´": "'",
    }
)
"""Typographic signs, each with the typed one."""

_SPACE = re.compile(r"[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_QUOTED = re.compile(r"\"([^\"\n]+)\"|`([^`\n]+)`|«([^«»\n]+)»|(?<!\w)'([^'\n]+)'(?!\w)")
_GIVEN = re.compile(r":[ \n]+(?=[^\W\d_])")
"""Separator before a quoted text: fix this: ..."""

_STROKES = str.maketrans("łđøı", "ldoi")
_OPENING = "(\"'¿¡"
_CLOSING = ".,;:!?)\"'-。，、！？؟।"
_NUMBER = re.compile(
    r"[#№§]?[-+±~<>≤≥−]{0,2}(?:[A-Z]{0,3}[$€£¥₹])?(?:[0-9]+(?:[.,:/'-][0-9]+)*|[¼½¾⅐-⅞])[%°]?[$€£¥₹]?"
    r"([^\W\d_]{0,3})"
)
_WITH_NUMBER = re.compile(r"[0-9][^-]*(?:-[^-]+)+")
_UNIT_PARTS = re.compile(r"[A-Za-zµμ]+")
_UNIT_SIGNS = frozenset("$€£¥₹%°/^²³23")
_BEFORE_AMOUNT = re.compile(r"(?<=[$€£¥₹#№§]) +(?=[0-9])")
_BETWEEN_TABS = re.compile(r"[^\t]+")
_DOTTED = frozenset(("am", "pm", "eg", "ie", "us", "uk", "usa", "eu", "phd"))
"""Abbreviations written with and without full stops."""

_BRAND = re.compile(r"(?:[A-Z][a-z]{2,}|[a-z])[A-Z][a-z]{2,}s?")
"""Name with a capital within, which people also write without: PayPal, iPhone."""
_JOINED = re.compile(r"[-,;!?]+|\.{2,}")
"""Signs that join words: check-in, please,help, wait...what."""

_STANDING = frozenset((".", ".."))
"""Signs with a meaning of their own: git add ."""
_HALVES_OF_DAY = frozenset(("am", "pm"))
_ORDINALS = frozenset(("st", "nd", "rd", "th"))
_LOUD = 2
"""Fewest words of a text that, all in capitals, is shouted."""
_HEADLINE = 3
"""Fewest words of four letters and more that, all capitalised, make a headline."""


_TELLING = 4
"""Fewest letters of a common word that, in capitals, is another word: aids and AIDS."""
_LONG = 6
"""Fewest letters of an unknown word that, in capitals, is a code, not an acronym."""


class _Word(NamedTuple):
    """A word as it is written.

    Attributes:
        text: The word, in NFC.
        first: Whether it begins a sentence, so that its capital says nothing.
        counted: Whether a number stands before it, so that it may be a unit.
        named: Whether a number or another capital stands beside it: Windows 10, Apple Pay.
    """

    text: str
    first: bool = False
    counted: bool = False
    named: bool = False


class _Letters(NamedTuple):
    """Features of a text that are compared.

    Attributes:
        exact: Quotations, codes, signs, names of one letter: the same in both, to the letter.
        layout: Indentation of each line, and places of tabs.
        words: Plain words by their lower case, in order.
        marked: Lower-case words by their form without marks.
        names: Names of persons, places and brands, in lower case.
        compounds: Capitalised words with the capitalised word beside each, in lower case.
        given: The text after a colon, without a last full stop.
        loud: Whether it is shouted or a headline, so that its capitals say nothing.
    """

    exact: tuple[str, ...]
    layout: tuple[str, ...]
    words: dict[str, list[_Word]]
    marked: dict[str, set[str]]
    names: frozenset[str]
    compounds: frozenset[tuple[str, str]]
    given: str
    loud: bool


def forget() -> None:
    """Clear the cache of analysed texts."""
    _letters.cache_clear()


def prepare(text: str) -> None:
    """Analyse *text* ahead of `agree`."""
    _letters(text)


def agree(asked: str, stored: str) -> bool:
    """Return whether two texts differ in words and harmless letters only."""
    ours, theirs = _letters(asked), _letters(stored)
    if ours.exact != theirs.exact or ours.layout != theirs.layout:
        return False
    if ours.given != theirs.given and _sounds(ours.given) == _sounds(theirs.given) != "":
        return False
    shared = ours.marked.keys() & theirs.marked.keys()
    if any(ours.marked[bare] != theirs.marked[bare] for bare in shared):
        return False
    if (ours.names - theirs.names - theirs.words.keys()) and (
        theirs.names - ours.names - ours.words.keys()
    ):
        return False
    if _extends(ours, theirs) or _extends(theirs, ours):
        return False
    loud = ours.loud or theirs.loud
    return all(
        _same_case(one, two, loud=loud)
        for word in ours.words.keys() & theirs.words.keys()
        for one, two in zip(ours.words[word], theirs.words[word], strict=False)
    )


@lru_cache(maxsize=1_024)
def _letters(text: str) -> _Letters:
    text = _SPACE.sub(" ", unicodedata.normalize("NFC", text).translate(_TYPESET)).strip()
    text = _BEFORE_AMOUNT.sub("", text)
    codes: list[str] = []
    words: list[_Word] = []
    for line in text.split("\n"):
        _sort(re.split(r"[ \t]+", line), codes, words)
    words = [
        _beside(*three) for three in zip([None, *words], words, [*words[1:], None], strict=False)
    ]
    loud = _is_loud([word.text for word in words if len(word.text) > 1])
    alone = [] if loud else [word.text for word in words if _stands_alone(word)]
    quoted = ["".join(groups) for groups in _QUOTED.findall(text)]
    by_word: dict[str, list[_Word]] = {}
    marked: dict[str, set[str]] = {}
    for word in words:
        lower = word.text.lower()
        by_word.setdefault(lower, []).append(word)
        marked.setdefault(_bare(lower), set()).add(lower)
    exact = (*quoted, *codes, *alone)
    # German writes every noun with a capital.
    capitals = not loud and english(text)
    names = frozenset(filter(None, (_name(word, capitals=capitals) for word in words)))
    compounds = frozenset(_compounds(words) if capitals else ())
    return _Letters(exact, _layout(text), by_word, marked, names, compounds, _given(text), loud)


def _given(text: str) -> str:
    """Return the part of *text* after a colon, without a last full stop."""
    found = _GIVEN.search(text)
    return "" if found is None else " ".join(text[found.end() :].rstrip(".?").split())


def _sounds(text: str) -> str:
    """Return the letters and digits of *text* alone."""
    return "".join(filter(str.isalnum, text.lower()))


def _layout(text: str) -> tuple[str, ...]:
    """Return each line's indentation and tabs; empty for a single line without tabs."""
    lines = [line for line in text.split("\n") if line.strip()]
    if len(lines) == 1 and "\t" not in text:
        return ()
    return tuple(_BETWEEN_TABS.sub(_count_words, line) for line in lines)


def _count_words(match: re.Match[str]) -> str:
    """Return the number of words of a line, or between its tabs, after its indentation."""
    piece = match[0]
    return f"{piece[: len(piece) - len(piece.lstrip())]}{len(piece.split())}"


def _sort(chunks: Iterable[str], codes: list[str], words: list[_Word]) -> None:
    """Sort a line's *chunks*, split at spaces, into codes and plain words."""
    first, counted = True, False
    for chunk in filter(None, chunks):
        plain = chunk.lstrip(_OPENING).rstrip(_CLOSING)
        number = _NUMBER.fullmatch(plain)
        parts = None if number else _parts(plain)
        if number:
            _take_unit(number[1], words)
        elif counted and _is_measure(plain):
            pass
        elif _WITH_NUMBER.fullmatch(plain):
            # 9am-5pm, 5-day.
            _sort(plain.split("-"), codes, words)
        elif parts is None:
            codes.append(_without_stop(chunk))
        elif not parts and chunk in _STANDING:
            codes.append(chunk)
        else:
            starts = [(first, counted), *[(False, False)] * len(parts)]
            words += [_Word(part, *start) for part, start in zip(parts, starts, strict=False)]
        if number or (len(plain) == 1 and plain.islower()):
            codes += _factorial(chunk, plain)
        counted = number is not None and not number[1]
        first = not number and (chunk[-1] in ".!?:" or (first and not parts))


def _take_unit(name: str, words: list[_Word]) -> None:
    """Append the letters right after a number as a word; mark the word before as named."""
    if name and name.lower() not in _ORDINALS:
        words.append(_Word(name, counted=True))
    if words:
        words[-1] = words[-1]._replace(named=True)


def _is_measure(plain: str) -> bool:
    """Return whether *plain* is a unit with signs or powers; the guard of numbers compares it."""
    names = _UNIT_PARTS.findall(plain)
    rest = set(_UNIT_PARTS.sub("", plain))
    return bool(rest) and rest <= _UNIT_SIGNS and all(unit(name.lower(), name) for name in names)


def _factorial(chunk: str, plain: str) -> list[str]:
    """Return the exclamation marks right after a number or letter: they may be an operator."""
    after = chunk.partition(plain)[2]
    marks = after[: len(after) - len(after.lstrip("!"))]
    return [marks] if marks else []


def _without_stop(chunk: str) -> str:
    """Return a code without the sign that ends its sentence or clause."""
    chunk = chunk.lstrip("(\"'")
    while chunk and chunk[-1] in ")\"'" and chunk.count(")") != chunk.count("("):
        chunk = chunk[:-1]
    ends = len(chunk) > 1 and chunk[-1] in ".,;:?" and (chunk[-2].isalnum() or chunk[-2] in ")\"'")
    return chunk[:-1] if ends else chunk


def _parts(plain: str) -> list[str] | None:
    """Return the words in *plain*, empty if it has only signs; `None` if it is no plain text."""
    undotted = plain.replace(".", "")
    if undotted.lower() in _DOTTED:
        return [undotted]
    if not plain or plain == "&":
        return ["and"] if plain else []
    parts = [part.strip("'") for part in _JOINED.split(plain)]
    if not all(part and _is_plain(part) for part in parts):
        return None
    if any(len(part) == 1 and part != "i" for part in parts[1:]):
        return None
    if len(parts) > 1 and len(parts[0]) == 1:
        # T-shirt, e-mail: one word.
        return ["-".join(parts)] if _is_plain("".join(parts)) else None
    return parts


def _is_plain(part: str) -> bool:
    """Return whether *part* is letters, apostrophes and marks in the case of a normal word."""
    letters = part.replace("'", "")
    if not letters.isascii():
        if not all(unicodedata.category(sign)[0] in "LM" for sign in letters):
            return False
        if unicodedata.normalize("NFKC", part) != part:
            return False
    elif not letters.isalpha():
        return False
    in_case = part in {part.lower(), part.upper(), _title(part)}
    return in_case or _BRAND.fullmatch(part) is not None or _is_plural(part)


def _title(word: str) -> str:
    return word[:1].upper() + word[1:].lower()


def _is_plural(word: str) -> bool:
    """Return whether *word* is a form of an acronym: PINs, PIN's."""
    stem = word.removesuffix("s").removesuffix("'")
    return stem != word and len(stem) > 1 and stem.isupper()


def _bare(word: str) -> str:
    """Return *word* without marks, as embedding models read it."""
    if word.isascii():
        return word
    letters = unicodedata.normalize("NFD", word.casefold()).translate(_STROKES)
    return "".join(sign for sign in letters if unicodedata.category(sign)[0] != "M")


def _beside(before: _Word | None, word: _Word, after: _Word | None) -> _Word:
    """Return *word*, `named` if a neighbour has a capital of its own."""
    return word._replace(named=word.named or _capital(before) or _capital(after))


def _capital(word: _Word | None) -> bool:
    return word is not None and not word.first and word.text[0].isupper() and len(word.text) > 1


def _stands_alone(word: _Word) -> bool:
    """Return whether *word* must be the same to the letter: a one-letter name, US, IT."""
    text = word.text
    if word.counted and (len(text) == 1 or text.lower() in _HALVES_OF_DAY):
        return False
    if len(text) == 1:
        return text.isupper() and text != "I" and not (text == "A" and word.first)
    return text.isupper() and is_function_word(text.lower())


def _name(word: _Word, *, capitals: bool) -> str:
    """Return *word* in lower case if its capital or the list of names makes it one; else empty."""
    lower = word.text.lower().removesuffix("'s")
    if len(lower) < _TELLING or is_date(lower) or lower.startswith("i'"):
        return ""
    known = is_name(lower) and not is_word(lower)
    return lower if known or (capitals and _capital(word)) else ""


def _compounds(words: list[_Word]) -> Iterator[tuple[str, str]]:
    """Yield each capitalised word that is no first one, with a capitalised one beside it."""
    for one, two in itertools.pairwise(words):
        before, after = one.text.lower(), two.text.lower()
        if not _capital(two) or any(is_date(word) or word in FUNCTION for word in (before, after)):
            continue
        if _capital(one):
            yield before, after
            yield after, before
        elif one.first and one.text[0].isupper() and (is_name(before) or not is_word(before)):
            yield after, before


def _extends(one: _Letters, two: _Letters) -> bool:
    """Return whether a name of *two* has one word more in *one*: New York, iPhone Pro."""
    return any(name not in two.words and beside in two.words for name, beside in one.compounds)


def _is_loud(forms: list[str]) -> bool:
    """Return whether a text of these words is shouted or a headline."""
    if len(forms) >= _LOUD and all(form.isupper() for form in forms):
        return True
    long = [form for form in forms if len(form) > _HEADLINE]
    return len(long) >= _HEADLINE and all(form[0].isupper() for form in long)


def _same_case(one: _Word, two: _Word, *, loud: bool) -> bool:
    """Return whether two spellings that differ in case mean the same."""
    if one.text == two.text or one.text.lower() in {"i", *_HALVES_OF_DAY}:
        return True
    small, large = (one, two) if one.text > two.text else (two, one)
    lower = small.text.lower()
    if small.counted and large.counted and not is_word(lower):
        return False
    if loud or (large.first and large.text == _title(large.text)):
        return True
    if len(lower) == 1:
        return small.first or large.first
    acronym = large.text[1:].isupper() or _is_plural(large.text)
    if not is_word(lower):
        # Usa and USA, but neither Mb and MB nor codes.
        return len(lower) < _LONG and small.text == lower if acronym else len(lower) > 2
    if acronym:
        # People write pin for PIN, but aids and AIDS are two things.
        return len(lower) < _TELLING and not is_function_word(lower)
    return large.named or not is_name(lower)
