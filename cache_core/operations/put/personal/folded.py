"""Folded text, for the search of personal data: one spelling of letters, digits, marks, spaces.

All functions take time linear in the text's length.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from functools import lru_cache

_PLAIN = {
    **dict.fromkeys("\u2018\u2019\u201b\u02bc\u2032\u0060\u00b4\uff07", "'"),
    **dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033\u300c\u300d", '"'),
    **dict.fromkeys("\u3002\uff0e\u30fb\u00b7\u2022\u2219\u2027\u2024", "."),
    "\u2044": "/", "\u2215": "/", "\u2212": "-", "\u30fc": "-", "\u00b0": "o",
    "\u0131": "i", "\u00f8": "o", "\u0142": "l", "\u0111": "d", "\u00e6": "ae", "\u0153": "oe",
}  # fmt: skip
_LINE_ENDS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
_TAG = re.compile(r"</?[a-z][a-z\d]{0,15}(?: [^<>]{0,200})?/?>")
_PIECE = re.compile(r"[^\W\d_]+|\d+")


def fold(text: str) -> str:
    """Return *text* in one spelling, for searching, not for display.

    Compatibility forms (full width, ligatures, circled) become plain ones, letters lose case and
    accents, digits of all scripts become 0 to 9, dashes `-`, spaces a space, line ends a line feed;
    invisible characters and HTML tags are removed.
    """
    if text.isascii():
        text = text.lower().replace("`", "'").replace("\t", " ").replace("\r", "\n")
    else:
        text = unicodedata.normalize("NFKD", text).casefold()
        text = text.translate({ord(character): _plain(character) for character in set(text)})
    return _TAG.sub("", text)


@lru_cache(maxsize=4_096)
def _plain(character: str) -> str:
    if character in _PLAIN:
        return _PLAIN[character]
    if character in _LINE_ENDS:
        return "\n"
    match unicodedata.category(character):
        case "Nd":
            return str(unicodedata.decimal(character))
        case "Pd":
            return "-"
        case "Zs" | "Cc":
            return " "
        case "Mn" | "Mc" | "Me" | "Cf":
            return ""
    return character


def pieces(text: str) -> list[tuple[str, int, int]]:
    """Return the words and runs of digits of folded text, each with its start and end."""
    return [(found[0], *found.span()) for found in _PIECE.finditer(text)]


# first code points of blocks whose words no spaces separate, each with the one after
_DENSE = (
    0x0E00, 0x0EE0, 0x1000, 0x10A0, 0x1100, 0x1200, 0x1780, 0x1800, 0x2E80, 0x3130, 0x3190, 0xA4D0,
    0xAC00, 0xD7B0, 0xF900, 0xFB00, 0x20000, 0x40000,
)  # fmt: skip


def is_dense(character: str) -> bool:
    """Return whether this script does not separate words: Han, kana, Hangul, Thai, ..."""
    return bisect_right(_DENSE, ord(character)) % 2 == 1


def has_word(text: str, word: str) -> bool:
    """Return whether *text* has *word*, both folded, as a whole word.

    An underscore is no letter: Markdown uses it.
    """
    start = text.find(word)
    while start >= 0:
        end = start + len(word)
        if not (start and _joined(text[start - 1], word[0])) and not (
            end < len(text) and _joined(word[-1], text[end])
        ):
            return True
        start = text.find(word, start + 1)
    return False


def _joined(one: str, other: str) -> bool:
    return one.isalnum() and other.isalnum() and not (is_dense(one) or is_dense(other))
