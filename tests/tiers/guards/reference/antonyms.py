"""Maker of `cache_core/tiers/guards/vocabulary/antonyms.txt`: the antonyms of WordNet 3.0.

`python -m tests.tiers.guards.reference.antonyms DIRECTORY` prints the list, from the directory of
WordNet's files, such as /usr/share/wordnet of Debian's package wordnet-base.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from cache_core.tiers.guards.language import is_function_word, is_word
from cache_core.tiers.guards.words import FUNCTION

_ANTONYM = "!"
_WORDS = 3
"""Place of the number of words in a line of WordNet, two hexadecimal digits."""


def antonyms(directory: Path) -> Iterator[str]:
    """Yield the pairs of common words that are antonyms, as lines "cold : hot".

    Without words of grammar, and without pairs in which one word is the other with a prefix or a
    suffix: the guard of negation has rules for these. Irregular forms of verbs, comparatives and
    superlatives of adjectives stand beside them.
    """
    forms = {part: _irregular(directory / f"{part}.exc") for part in ("adj", "verb")}
    pairs: dict[tuple[str, str], list[list[str]]] = {}
    for part in ("adj", "adv", "noun", "verb"):
        for one, other in _antonyms(directory / f"data.{part}"):
            pair = min(one, other), max(one, other)
            if all(map(_counts, pair)) and not (one in other or other in one):
                sides = pairs.setdefault(pair, [[pair[0]], [pair[1]]])
                for word, side in zip(pair, sides, strict=True):
                    more = forms.get(part, {}).get(word, []) + _compared(word, part)
                    side += [form for form in more if form not in side and is_word(form)]
    for _, (one_side, other_side) in sorted(pairs.items()):
        yield f"{' '.join(one_side)} : {' '.join(other_side)}"


def _compared(word: str, part: str) -> list[str]:
    """Return the regular comparative and superlative of an adjective."""
    if part != "adj":
        return []
    stem = word[:-1] + "i" if word.endswith("y") else word.removesuffix("e")
    return [stem + "er", stem + "est"]


def _counts(word: str) -> bool:
    return is_word(word) and not is_function_word(word) and word not in FUNCTION


def _antonyms(data: Path) -> Iterator[tuple[str, str]]:
    synsets: dict[str, tuple[list[str], list[str]]] = {}
    for line in data.read_text(encoding="ascii").splitlines():
        if line.startswith(" "):
            continue
        fields = line.partition(" | ")[0].split()
        end = _WORDS + 1 + 2 * int(fields[_WORDS], 16)
        words = [word.partition("(")[0].lower() for word in fields[_WORDS + 1 : end : 2]]
        synsets[fields[0]] = words, fields[end + 1 : end + 1 + 4 * int(fields[end])]
    for words, pointers in synsets.values():
        for at in range(0, len(pointers), 4):
            kind, synset, _, ends = pointers[at : at + 4]
            if kind == _ANTONYM:
                source, target = bytes.fromhex(ends)
                yield words[source - 1], synsets[synset][0][target - 1]


def _irregular(exceptions: Path) -> dict[str, list[str]]:
    forms: dict[str, list[str]] = {}
    for line in exceptions.read_text(encoding="ascii").splitlines():
        form, *words = line.split()
        for word in words:
            forms.setdefault(word, []).append(form)
    return forms


if __name__ == "__main__":
    print("\n".join(antonyms(Path(sys.argv[1]))))
