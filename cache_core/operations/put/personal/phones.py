"""Telephone numbers in folded text, as people of many countries write them.

libphonenumber says which country and kind a number is of. The country of a national number is
unknown, so all of `numbering.REGIONS` are tried. Without libphonenumber the check is stricter: all
that may be written like a person's number somewhere counts as one.
"""

from __future__ import annotations

import re

from cache_core.operations.put.personal import numbering
from cache_core.operations.put.personal import words as known

MOST = 300
"""Most distinct numbers looked up in a text, 3 ms each; a text with more counts as having one."""

_CANDIDATE = re.compile(r"(?<![\da-z_.,$-])\+?\(?\+?\d(?:[ ()./-]{0,3}\d){6,16}(?!\d|[.,]\d|[a-z])")
_DAY = r"(?:0?[1-9]|[12]\d|3[01])[./-](?:0?[1-9]|1[0-2])[./-](?:19|20)?\d\d"
_ISO_DAY = r"(?:19|20)\d\d[./-](?:0?[1-9]|1[0-2])[./-](?:0?[1-9]|[12]\d|3[01])"
_DATES = re.compile(
    rf"(?:{_DAY}|{_ISO_DAY}|(?:19|20)\d\d)(?: ?[-/] ?(?:{_DAY}|{_ISO_DAY}|(?:19|20)\d\d))?"
)
_INTERNET = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}")
_NORTH_AMERICAN = re.compile(r"(?:1[ .-]?)?(?:\([2-9]\d\d\) ?|[2-9]\d\d[ .-])[2-9]\d\d[ .-]\d{4}")
_TOLL_FREE = re.compile(r"\(?(?:0800|0120)\)?[ ./-]")
"""Begin of a number that the called one pays, in many countries; Japan has 0120, too."""
_GROUP = re.compile(r"\d+")
_ARTICLE = re.compile(
    r"\b(?:isbn|issn|ean|gtin|upc|sku|mpn|part|article|artikel|item|model|modell|product|produkt|"
    r"serial|version|vat|ust|siret|siren|hrb|fax|compan\w{1,3}|regist\w{1,8})\b[^\n]{0,16}$"
)
_WORD = re.compile(r"[^\W\d_]+")
_FEWEST_DIGITS = 7
_MOBILE_DIGITS = 9
"""Fewest digits of a number that is unlikely to be a quantity."""

_ONE_BLOCK = (10, 11)
"""Digits of a mobile number that is written in one block, without a leading 0."""

_BEFORE = 40
_AFTER = 24


def has_phone(text: str, *, public: bool) -> bool:
    """Return whether folded *text* has a person's telephone number.

    Args:
        text: The text to search.
        public: Whether companies' numbers are expected: then only mobile ones count, and those
            that the text calls the reader's.
    """
    looked_up = set()
    for match in _CANDIDATE.finditer(text):
        written = match[0]
        if not _may_be_phone(written, text[match.end() : match.end() + _AFTER]):
            continue
        before = text[max(0, match.start() - _BEFORE) : match.start()]
        if _ARTICLE.search(before):
            continue
        words = _WORD.findall(before)[-5:]
        looked_up.add(written)
        if len(looked_up) > MOST:
            return True
        if _of_a_person(written, words) if public else _is_phone(written, words):
            return True
    return False


def _may_be_phone(written: str, after: str) -> bool:
    digits = "".join(_GROUP.findall(written))
    if not _FEWEST_DIGITS <= len(digits) <= 15 or len(set(digits)) == 1:
        return False
    if written.startswith("0.") or _DATES.fullmatch(written):
        return False
    unit = re.match(r" ?([%$\u20ac\u00a3\u00a5]|[a-z]+)", after)
    return unit is None or unit[1] not in known.UNITS


def _is_phone(written: str, words: list[str]) -> bool:
    """Return whether a person may be reached at this number."""
    digits = "".join(_GROUP.findall(written))
    if any(map(_is_calling, words)):
        return True
    if _INTERNET.fullmatch(written):
        return False
    if not numbering.is_installed():
        trunk = written.lstrip("(").startswith(("0", "+"))
        return trunk or len(_GROUP.findall(written)) > 1 or len(digits) in _ONE_BLOCK
    if written.lstrip("(").startswith("+"):
        return len(digits) >= 8
    if _NORTH_AMERICAN.fullmatch(written):
        return True
    found = numbering.readings(written)
    if written.lstrip("(").startswith("0"):
        return bool(found)
    groups = numbering.groups_of(written)
    mobile = [item for item in found if item.mobile or item.either]
    if len(_GROUP.findall(written)) == 1:
        return bool(mobile) and len(digits) in _ONE_BLOCK
    exact = any(item.groups == groups for item in mobile)
    return exact or (bool(mobile) and len(digits) >= _MOBILE_DIGITS)


def _of_a_person(written: str, words: list[str]) -> bool:
    """Return whether this is a mobile number, or the reader's by the words before it."""
    if _is_theirs(words):
        return _is_phone(written, words)
    groups = numbering.groups_of(written)
    trunk = written.lstrip("(").startswith(("0", "+"))
    if not trunk and len(groups) == 1:
        return False
    if not numbering.is_installed():
        return _INTERNET.fullmatch(written) is None and _TOLL_FREE.match(written) is None
    found = numbering.readings(written)
    # written as the country writes it, it belongs to that country
    alike = [item for item in found if item.written == written]
    if not alike and (trunk or sum(map(len, groups)) >= _MOBILE_DIGITS):
        alike = [item for item in found if item.groups == groups]
    likely = alike or (found if trunk else ())
    return any(item.mobile for item in likely) and not any(item.public for item in likely)


def _is_calling(word: str) -> bool:
    return (
        word.startswith(known.CALLING)
        or word in known.CALL
        or re.search(known.DENSE_CALLING, word) is not None
    )


def _is_theirs(words: list[str]) -> bool:
    """Return whether the words before a number call it the reader's."""
    if not known.US.isdisjoint(words):
        return False
    for place, word in enumerate(words):
        after = words[place + 1 :]
        if word in known.YOURS and any(map(_is_calling, after)):
            return True
        if word in known.WE and not known.CALL.isdisjoint(after):
            return True
        if _is_calling(word) and after and after[0] in known.YOU:
            return True
        if known.DENSE_YOURS.search(word):
            return True
    return False
