"""Checks that texts are English, and that two of them differ in known words only.

The guards know English. A negation, a number word or a preposition of another language means
nothing to them, so two texts agree only if every word that differs is understood. Language
detectors are wrong too often on two to five words. The evidence is a vocabulary
and the function words that no other language in Latin script shares.
"""

from __future__ import annotations

import gzip
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from functools import cache, lru_cache
from importlib.resources import files
from typing import NamedTuple

from cache_core.tiers.guards.units import unit
from cache_core.tiers.guards.words import undotted

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_BESIDE_NUMBER = re.compile(
    r"(?<=[0-9¼½¾]) ?[°%]?([A-Za-zµμ]+(?:/[A-Za-z]+)?)[23²³]?(?![^\W\d_])"
    r"|(?<![^\W\d_])([A-Za-z]{1,3}) ?(?=[$€£¥₹]?[0-9])"
)
_ACRONYM = re.compile(r"\b[A-Z]{2,5}\b")
_HALF_OF_DAY = re.compile(r"\b([ap])\.\s?m\b\.?", re.IGNORECASE)

_EVIDENCE = frozenset(
    "the you your yours yourself she they them their theirs this that these those my ours "
    "what where when why how which whom whose does did doing done being having could would should "
    "might cannot with from into onto about after before because while until though although "
    "whether than but please every each both other another again never always just only still "
    "already yes dont doesnt didnt isnt arent wasnt wont cant couldnt shouldnt wouldnt havent "
    "hasnt hadnt im ive youre theyre whats thats wheres hows lets".split()
)
"""Function words of English that no other language in Latin script uses, or hardly any."""

_COMMON = frozenset(
    "a i he is are was were be been am have has had do his him her me us we it its our of or and "
    "if in on at an as to for by no not so can will must may any all some more most too very there "
    "here then who like get got over under up out off need want make know see one go".split()
)
"""Frequent English words that other languages also have: evidence neither way."""

_ELSEWHERE = frozenset(
    "ab ad ag al ale ani ant au aus aux av az ba bin bis co com con cum da dam dan dare dari "
    "das de del dem den der des di die dig din dine dos du ein el em en er es et eta ex fin "
    "gang gar ge ha hab hat hay hen het hin ho hon hun il im ini ins ist jam je jest kan kann "
    "kein la las le les li lo los ma mai man mar mas mat meg mehr mein men mes met mi mig mir "
    "mit moi mot na nah nee nein nem ni nie nit noch non nu nun nut och od oder og ohne "
    "om ora os ou pa pan par pas pe po pod por pour pra pro qua quae que qui quo ra re sa "
    "sans se sera si sich sie sig sin sind sine sobre son sous su sub suis sur ta tak tam tan "
    "te tem ter ti toi ton tot tout tres tu um uma un una und une uno ut va van vel ver "
    "vi vid von voor vor vot wann war wat wees wenn wer wie wir wo ya yang ye yo za ze zo zu "
    "zum zur".split()
)
"""Rare English words that are function words in other languages."""

_WRITTEN = frozenset(
    "ok okay pls plz thx ty hi hiya hallo yep nope asap eg ie etc vs faq mr mrs ms app apps wifi "
    "sms pdf url usa uk eu atm gps tv pc admin info am pm st nd rd th o'clock nr mon tue tues "
    "wed thu thur thurs fri sat sun jan feb mar apr jun jul aug sep sept oct nov dec".split()
)
"""Abbreviations and greetings, which the vocabulary lacks."""

_MAGNITUDES = frozenset("k m b mn bn mio am pm".split())
"""Words right after a number that are no units."""

_ENDINGS = frozenset(("s", "t", "m", "re", "ve", "ll", "d"))
_STEMS = frozenset(
    "i ain aren can couldn daren didn doesn don hadn hasn haven isn mayn mightn mustn needn oughtn "
    "shan shouldn wasn weren won wouldn how who let o".split()
)

_UNKNOWN_BESIDE_EVIDENCE = 0.34
_UNKNOWN_ALONE = 0.25
"""Shares of a text's words that may be unknown, with and without a function word of English.

0.5 % of the 21,400 translations into 40 languages of Latin script in Django 5.2's catalogues pass,
nearly all of them technical terms taken from English.
"""

_PLAIN_WORDS = 2
"""Other English words that replace a function word if no foreign one is there."""

_SHORTHAND = {"u": "you", "ya": "you", "ur": "your", "r": "are", "n": "and", "wanna": "want"}
_NEGATING = frozenset("no not nor non never none cannot cant dont wont without".split())
"""Words that no misspelling may stand for: the guards look for them."""
_POLITE = ("thanks", "thank", "hello", "sorry", "help", "good")

_SHORT_TYPO = 3
"""Letters of the shortest word that may be a misspelling of one in the other text."""
_FREE_TYPO = 6
"""Letters of the shortest word that may be a misspelling of any English word."""
_LONG_TYPO = 8
"""Shortest word, in letters, that may have two slips."""
_MOST_SLIPS = 8
_LONGEST = 30
"""Most words with slips in a text, and most letters in one of them: bounds on the time."""
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


class _Words(NamedTuple):
    """The words of a text, in lower case.

    Attributes:
        words: Number of occurrences of each word.
        english: Whether the words show the text to be English.
    """

    words: Counter[str]
    english: bool


@cache
def _vocabulary() -> tuple[frozenset[str], frozenset[str]]:
    """Return the lower-case words of the vocabulary, and its names in lower case."""
    packed = files("cache_core.tiers.guards").joinpath("vocabulary/english.txt.gz").read_bytes()
    listed = gzip.decompress(packed).decode("ascii").split()
    words = frozenset(word for word in listed if word[0].islower())
    return words, frozenset(word.lower() for word in listed if word[0].isupper())


def load() -> None:
    """Read the vocabulary now, so that no lookup waits for it."""
    _vocabulary()


def is_word(word: str) -> bool:
    """Return whether *word*, in lower case, is a common English word, not only a name."""
    return word in _vocabulary()[0]


def is_name(word: str) -> bool:
    """Return whether *word*, in lower case, is a known name."""
    return word in _vocabulary()[1]


def is_function_word(word: str) -> bool:
    """Return whether *word*, in lower case, is a frequent English function word."""
    return word in _EVIDENCE or word in _COMMON


def forget() -> None:
    """Clear the cache of analysed texts."""
    _read.cache_clear()


def english(text: str) -> bool:
    """Return whether *text* is English by its words; a text without words is."""
    return _read(text).english


def readable(text: str, guards: Collection[str]) -> bool:
    """Return whether *text* may be matched by similarity with *guards* in force."""
    return "language" not in guards or english(text)


def understood(asked: str, stored: str) -> bool:
    """Return whether both texts are English, and differ in known words only."""
    one, two = _read(asked), _read(stored)
    if not (one.english and two.english):
        return False
    ours, theirs = one.words - two.words, two.words - one.words
    if "".join(ours).replace("-", "") == "".join(theirs).replace("-", ""):
        # "log in" and "login", "T-shirt" and "tshirt".
        return True
    return _all_known(ours, theirs) and _all_known(theirs, ours)


@lru_cache(maxsize=1_024)
def _read(text: str) -> _Words:
    text = undotted(_HALF_OF_DAY.sub(r"\1m", unicodedata.normalize("NFC", text)))
    text = _BESIDE_NUMBER.sub(_without_unit, text)
    found = [part for word in _WORD.findall(text) for part in _parts(word.lower())]
    if any(sign.isdecimal() for sign in text):
        found = [word for word in found if len(word) == 1 or not unit(word)]
    said = Counter(_SHORTHAND.get(word, word) for word in found)
    acronyms = frozenset(() if text.isupper() else map(str.lower, _ACRONYM.findall(text)))
    return _Words(said, _is_english([word for word in found if word not in acronyms]))


def _without_unit(match: re.Match[str]) -> str:
    """Blank a unit beside a number: the guard of numbers compares it."""
    names = (match[1] or match[2]).lower().split("/")
    return " " if all(unit(name) or name in _MAGNITUDES for name in names) else match[0]


def _parts(word: str) -> list[str]:
    """Split a compound at its hyphens, unless it is one word or has a single letter."""
    word = word.replace("’", "'")
    if "-" not in word:
        return [word]
    joined, parts = word.replace("-", ""), word.split("-")
    if joined in _WRITTEN or is_word(joined):
        return [joined]
    return [word] if any(len(part) == 1 for part in parts) else parts


def _is_english(words: list[str]) -> bool:
    if not words:
        return True
    if any(map(_is_evidence, words)):
        unknown = sum(not _familiar(word) for word in words)
        return unknown <= _UNKNOWN_BESIDE_EVIDENCE * len(words)
    unknown = sum(word in _ELSEWHERE or not _familiar(word) for word in words)
    plain = sum(len(word) > 2 and is_word(word) and word not in _COMMON for word in words)
    telling = plain >= _PLAIN_WORDS and _ELSEWHERE.isdisjoint(words)
    share = _UNKNOWN_BESIDE_EVIDENCE if telling else _UNKNOWN_ALONE
    return unknown < share * len(words)


def _is_evidence(word: str) -> bool:
    """Return whether *word* is an English function word or contraction: don't, I'm, you've."""
    if word in _EVIDENCE:
        return True
    stem, apostrophe, ending = word.rpartition("'")
    if not apostrophe or "'" in stem or ending not in _ENDINGS - {"s", "d"}:
        return False
    return stem in _STEMS or _known(stem)


def _familiar(word: str) -> bool:
    """Return whether *word* is known; the letter that begins "T-shirt" may be any."""
    return _known(word.partition("-")[2] or word)


def _known(word: str) -> bool:
    words, names = _vocabulary()
    if len(word) == 1:
        return word in {"a", "i"}
    if "-" in word:
        return False
    if any(word in known for known in (words, names, _EVIDENCE, _WRITTEN, _STEMS)):
        return True
    if word.endswith("s") and word[:-1] in _WRITTEN:
        return True
    stem, apostrophe, ending = word.rpartition("'")
    if not apostrophe or "'" in stem or ending not in _ENDINGS:
        return False
    return stem in _STEMS or _known(stem)


def _all_known(words: Iterable[str], others: Iterable[str]) -> bool:
    """Return whether each of *words* is known, or a misspelling or plural of a known word."""
    doubtful = [word for word in words if word in _ELSEWHERE or not _known(word)]
    return len(doubtful) <= _MOST_SLIPS and all(
        len(word) <= _LONGEST and (any(_misspelt(word, other) for other in others) or _slip(word))
        for word in doubtful
    )


def _misspelt(word: str, other: str) -> bool:
    """Return whether *word* is a misspelling, singular or plural of *other*."""
    if word.rstrip("s") == other.rstrip("s"):
        return True
    shorter = min(len(word), len(other))
    if shorter < _SHORT_TYPO or len(other) > _LONGEST:
        return False
    if not _known(other) or other in _ELSEWHERE or _negates(word, other):
        return False
    return _edits(word, other) <= (2 if shorter >= _LONG_TYPO else 1)


def _slip(word: str) -> bool:
    """Return whether *word* is a misspelling of a frequent English word, or of a long one."""
    if (
        not word.isascii()
        or word in _ELSEWHERE
        or any(_edits(word, negation) <= 1 for negation in _NEGATING)
    ):
        return False
    if len(word) >= _FREE_TYPO and any(
        is_word(near) and not _negates(word, near) for near in _neighbours(word)
    ):
        return True
    return any(
        len(frequent) > _SHORT_TYPO and _edits(word, frequent) == 1
        for frequent in (*_EVIDENCE, *_COMMON, *_POLITE)
        if abs(len(word) - len(frequent)) <= 1
    )


def _negates(word: str, other: str) -> bool:
    """Return whether one word is the other with a prefix, which may negate it: un-, in-, a-."""
    return word.endswith(other) or other.endswith(word) or other in _NEGATING


def _neighbours(word: str) -> Iterator[str]:
    """Yield the strings that are one edit away from *word*."""
    for place in range(len(word) + 1):
        start, rest = word[:place], word[place:]
        if rest:
            yield start + rest[1:]
        if len(rest) > 1:
            yield start + rest[1] + rest[0] + rest[2:]
        for letter in _LETTERS:
            yield start + letter + rest
            if rest:
                yield start + letter + rest[1:]


def _edits(one: str, two: str) -> int:
    """Return the edit distance; two neighbours swapped are one edit (OSA)."""
    before: list[int] = []
    last = list(range(len(two) + 1))
    for row, letter in enumerate(one, start=1):
        now = [row]
        for column, other in enumerate(two, start=1):
            least = min(last[column] + 1, now[-1] + 1, last[column - 1] + (letter != other))
            swapped = row > 1 and column > 1 and letter == two[column - 2] and one[row - 2] == other
            now.append(min(least, before[column - 2] + 1) if swapped else least)
        before, last = last, now
    return last[-1]
