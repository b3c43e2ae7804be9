"""What in a question or its answer looks like it is about one person.

Sharing by policy rests on a promise: the answers of this intent are the same for everybody. This
check is the net below it, for the answer that breaks the promise. It looks for what names a person
or their affairs, and errs on the side of sharing where companies publish the same kind of thing:

- e-mail addresses, unless the answer alone has it and it is a role's (`support@...`);
- phone numbers in the question; in the answer alone only mobile ones (Google's libphonenumber);
- payment cards (13 to 19 digits of a card network, with their Luhn check) and IBANs;
- numbers of orders, invoices, bookings, parcels, contracts, customers and the like;
- the user's id, and the names that the caller gave.

What it cannot see: a name that nobody gave it, an address, an illness.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal

import phonenumbers
from stdnum import iban, luhn

Kind = Literal["email", "phone", "card", "iban", "number", "user_id", "name"]

_LONGEST = 20_000
"""Characters of each text that are looked at."""

_EMAIL = re.compile(r"\b([\w.+%-]{1,64})@[\w-]{1,63}(?:\.[\w-]{1,63})+", re.ASCII)
_ROLES = re.compile(
    r"(?:support|help|info|contact|service|sales|care|team|office|hello|reply|billing|"
    r"press|jobs|careers|privacy|returns|orders|feedback|kontakt|hilfe|admin|security|legal|"
    r"claims|accounts|customer)",
    re.IGNORECASE,
)
_LONG_NUMBER = re.compile(r"(?<![\w.])\d(?:[ -]?\d){12,18}(?![\w])")
_CARD_NETWORK = re.compile(r"3[0-9]|4|5[0-9]|6[0-9]|2[2-7]")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?\b")
_PHONE_LIKE = re.compile(r"\+\d(?:[\s()./-]{0,3}\d){6,14}")
_WITH_DIGITS = re.compile(r"[\w-]*\d[\w-]*", re.ASCII)
_FEWEST_DIGITS = 4
_BEFORE = 48
_OF_AN_AFFAIR = re.compile(
    r"\b(?:order|invoice|booking|reservation|tracking|parcel|shipment|customer|account|policy|"
    r"contract|case|claim|ticket|member(?:ship)?|transaction|reference|"
    r"bestell(?:ung|nummer)|auftrags?(?:nummer)?|rechnungs?(?:nummer)?|kunden(?:nummer)?|"
    r"sendungs?(?:nummer)?|vertrags?(?:nummer)?|commande|facture|pedido|factura)"
    r"(?:[\s:#-]*(?:numbers?|no\.?|nr\.?|id|code|ref(?:erence)?|nummer|n°))?"
    r"(?:\s+(?:is|ist|lautet|est|es))?[\s:#-]{1,3}$",
    re.IGNORECASE,
)
_YEAR = re.compile(r"(?:19|20)\d\d")
_NOBODY = frozenset(
    "admin anonymous customer default guest none null operator system test user visitor".split()
)
_SHORTEST_ID = 4


def personal(
    question: str, answers: Sequence[str], user_id: str | None = None, names: Sequence[str] = ()
) -> Kind | None:
    """Return what looks personal first, or `None`.

    Args:
        question: What the user said.
        answers: What would be shared: the response, the documents.
        user_id: Of the user; ids of fewer than 4 characters, and words as `guest`, are not sought.
        names: Of the user, as the caller knows them.
    """
    question = question[:_LONGEST]
    found = _anywhere(question) or _of_person(question, user_id, names)
    if found is None and _phones(question):
        found = "phone"
    if found is None and any(_emails(question)):
        found = "email"
    for text in answers if found is None else ():
        text = text[:_LONGEST]  # noqa: PLW2901
        found = _anywhere(text) or _of_person(text, user_id, names)
        if found is None and any(not _ROLES.search(name) for name in _emails(text)):
            found = "email"
        if found is None and _phones(text, only=phonenumbers.PhoneNumberType.MOBILE):
            found = "phone"
        if found is not None:
            break
    return found


def _anywhere(text: str) -> Kind | None:
    """Return what is personal wherever it stands."""
    if not any(map(str.isdigit, text)):
        return None
    for match in _LONG_NUMBER.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        if _CARD_NETWORK.match(digits) and luhn.is_valid(digits):
            return "card"
    if any(iban.is_valid(match[0]) for match in _IBAN.finditer(text)):
        return "iban"
    return "number" if any(map(_is_of_an_affair, _WITH_DIGITS.finditer(text))) else None


def _is_of_an_affair(match: re.Match[str]) -> bool:
    """Whether what has digits is the number of an order, a contract, ..."""
    word = match[0]
    if sum(map(str.isdigit, word)) < _FEWEST_DIGITS or _YEAR.fullmatch(word):
        return False
    start = match.start()
    return _OF_AN_AFFAIR.search(match.string[max(0, start - _BEFORE) : start]) is not None


def _of_person(text: str, user_id: str | None, names: Sequence[str]) -> Kind | None:
    """Return whether the text names this very user."""
    known = user_id is not None and len(user_id) >= _SHORTEST_ID
    if known and user_id is not None and user_id.casefold() not in _NOBODY and _has(text, user_id):
        return "user_id"
    return "name" if any(name.strip() and _has(text, name.strip()) for name in names) else None


def _has(text: str, word: str) -> bool:
    """Whether *word* stands in *text* as a word of its own, in any case."""
    text, word = text.casefold(), word.casefold()
    return word in text and re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text) is not None


def _phones(text: str, only: int | None = None) -> bool:
    """Whether there is a phone number in international form; *only* of this type."""
    if "+" not in text:
        return False
    for match in _PHONE_LIKE.finditer(text):
        try:
            number = phonenumbers.parse(match[0])
        except phonenumbers.NumberParseException:
            continue
        if phonenumbers.is_valid_number(number) and (
            only is None or phonenumbers.number_type(number) == only
        ):
            return True
    return False


def _emails(text: str) -> Iterator[str]:
    """Yield what stands before the @ of each e-mail address."""
    if "@" in text:
        yield from (match[1] for match in _EMAIL.finditer(text))
