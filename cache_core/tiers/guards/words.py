"""Texts as tokens, and the closed word classes that several guards share."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

Kind = Literal["number", "word", "sign", "mark"]

_TOKEN = re.compile(
    r"(?P<number>\d{1,3}(?: \d{3})+(?!\d|[.,:/]\d)|\d+(?:[.,:/'’–-]\d+)*)"
    r"|(?P<word>[^\W\d_]+(?:['’][^\W\d_]+)*)"
    r"|(?P<sign><=|>=|==|!=|=>|->|&&|\|\||[-+*/]=|[-+*/^<>=±×÷≤≥≠≈→←−#°%$€£¥₹])"
    r"|(?P<mark>[^\w\s])"
)
_HALF_OF_DAY = re.compile(r"\b([ap])\.\s?m\b\.?", re.IGNORECASE)
_DOTTED = re.compile(r"\b[A-Z](?:\.[A-Z])+\b\.?")
_WITH = re.compile(r"\bw/(o\b)?", re.IGNORECASE)
_VULGAR = re.compile(r"[¼½¾⅐-⅞]")
_CLITIC = re.compile(r"(?:'s|'re|'ve|'ll|'d|'m|s')$")
_SAME_SIGN = {"≤": "<=", "≥": ">=", "≠": "!=", "×": "*", "÷": "/", "−": "-", "→": "->"}


class Token(NamedTuple):
    """A piece of a text.

    Attributes:
        text: The folded text: lower case, straight apostrophes, no `'s`; one spelling per sign.
        raw: The text as written.
        kind: `number` starts with a digit, `mark` is punctuation, `sign` any other character.
        glued: Whether no space separates it from the token before.
    """

    text: str
    raw: str
    kind: Kind
    glued: bool


ARTICLES = frozenset("the a an".split())
OWNERS = frozenset("my your our his her their its this that these those".split())
PEOPLE = {
    word: person
    for person, words in {
        "1": "i me my mine myself we us our ours ourselves",
        "2": "you your yours yourself",
        "3m": "he him his himself",
        "3f": "she her hers herself",
        "3p": "they them themselves",
    }.items()
    for word in words.split()
}
AUXILIARIES = frozenset(
    "is are was were be been being am do does did done have has had having can could will would "
    "shall should may might must isn't aren't wasn't weren't don't doesn't didn't haven't hasn't "
    "hadn't can't couldn't won't wouldn't shouldn't mustn't".split()
)
LINKS = frozenset(
    "about above across after against along among around as at before behind below beneath beside "
    "besides between beyond by despite during except for from in inside instead into near of off "
    "on onto out outside over past per since than through till to toward towards under until up "
    "upon using versus via vs with within without and or but nor if unless because while when "
    "whether so although though not no never then von nach zu bis mit ohne für à de du des pour "
    "avec sans a para con sin di da per -> - / < >".split()
) - {"a"}
"""Words that link the words after them to the rest."""

ASIDE = frozenset(
    "please pls kindly thanks thank thx hi hello hey dear just also too now already still again "
    "always often sometimes usually here there well ok okay sorry yes no "
    "what which who whom whose where why how when it they them he him she i me we us you mine "
    "yours hers ours theirs himself herself itself myself yourself let".split()
)
"""Words whose place means little."""

FUNCTION = ARTICLES | OWNERS | AUXILIARIES | LINKS | ASIDE


@lru_cache(maxsize=4_096)
def stem(word: str) -> str:
    """Return *word* without a common English inflection: a rough key for comparison."""
    if len(word) < 4:
        return word.removesuffix("e")
    for ending, put in (("ies", "y"), ("sses", "ss"), ("ing", ""), ("ied", "y"), ("ed", "")):
        if word.endswith(ending) and len(word) - len(ending) > 2:
            word = word[: -len(ending)] + put
            break
    else:
        if word.endswith("s") and word[-2] not in "su":
            word = word[:-1]
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "ls":
        word = word[:-1]
    return word.removesuffix("e")


def undotted(text: str) -> str:
    """Return *text* with abbreviations in capitals written together: US for U.S."""
    return _DOTTED.sub(lambda found: found[0].replace(".", ""), text)


def tokenise(text: str) -> Sequence[Token]:
    """Return the tokens of *text*; compatibility characters (m², ℃) become plain ones."""
    if not text.isascii():
        text = _VULGAR.sub(lambda found: " " + found[0], text)
        text = unicodedata.normalize("NFKC", text).replace("⁄", "/")
    text = _HALF_OF_DAY.sub(r"\1m", text)
    text = undotted(text)
    text = _WITH.sub(lambda found: "without" if found[1] else "with ", text)
    tokens, end = [], -1
    for found in _TOKEN.finditer(text):
        raw, kind = found[0], found.lastgroup
        token = raw.casefold().replace("’", "'")
        if kind == "word" and "'" in token:
            token = _CLITIC.sub("", token)
        elif kind == "sign":
            token = _SAME_SIGN.get(token, token)
        tokens.append(Token(token, raw, kind, found.start() == end))  # type: ignore[arg-type]
        end = found.end()
    return tokens
