"""Personal check: finds data about one person in a question and its answer.

Sharing by policy assumes that the answers of an intent are the same for everybody. This check
catches the answer that breaks the assumption. It looks for whatever identifies a person or their
affairs, and errs on the side of sharing if companies publish the same kind of thing:

- e-mail addresses, unless they are a role's (`support@...`);
- phone numbers in the question; in the answer only mobile ones, and those called the reader's;
- payment cards (13 to 19 digits of a card network, with their Luhn check) and IBANs;
- national identity numbers, by their check digits, and dates of birth;
- numbers of orders, invoices, bookings, parcels, contracts, customers and the like;
- the user's id, and the names that the caller passed.

It searches all texts completely, in time linear in their length. It cannot find an unknown name,
a postal address or an illness.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal

from cache_core.operations.put.personal import phones, words
from cache_core.operations.put.personal.affairs import has_affair, has_affair_in_table
from cache_core.operations.put.personal.folded import fold, has_word
from cache_core.operations.put.personal.identities import has_card, has_iban, has_identity

Kind = Literal[
    "email", "phone", "card", "iban", "identity", "birth", "number", "user_id", "name", "length"
]

LONGEST = 1_000_000
"""Most characters of all texts together; longer texts are not searched, and count as `length`."""

_SLICE = 16_000
"""Characters per search: threads take turns between two searches."""

_OVERLAP = 256
_LOCAL = re.compile(r"(?<![\w.+%'-])[\w.+%'-]{1,64}$")
_DOMAIN = re.compile(
    r"[^\W_](?:[\w-]{0,62})(?:\.[\w-]{1,63}){0,8}\.(?:xn--[a-z\d-]{1,59}|[^\W\d_]{2,24})(?![^\W_])"
)
_SPELLED_AT = re.compile(r" ?[(\[{<] ?(?:at|@) ?[)\]}>] ?")
_SPELLED_DOT = re.compile(r" ?[(\[{<] ?(?:dot|punkt|\.) ?[)\]}>] ?")
_PART = re.compile(r"[._+-]+")
_BIRTH_WITHIN = 48
_NOBODY = frozenset(
    "admin anonymous customer default guest none null operator system test user visitor".split()
)
SHORTEST_ID = 4
"""Fewest characters of a user id that is looked for."""


def personal(
    question: str, answers: Sequence[str], user_id: str | None = None, names: Sequence[str] = ()
) -> Kind | None:
    """Return the first kind of personal data found, or `None`.

    Args:
        question: The user's message.
        answers: The texts to share: the response, the documents.
        user_id: The user's id; ids of fewer than 4 characters and words like `guest` are ignored.
        names: The user's names, as the caller knows them.
    """
    if len(question) + sum(map(len, answers)) > LONGEST:
        return "length"
    sought = _sought(user_id, names)
    for place, text in enumerate((question, *answers)):
        found = _in(fold(text), sought, public=place > 0)
        if found is not None:
            return found
    return None


def _sought(user_id: str | None, names: Sequence[str]) -> list[tuple[Kind, str]]:
    """Return the words that identify this user, folded."""
    found: list[tuple[Kind, str]] = []
    if user_id is not None and len(user_id) >= SHORTEST_ID and user_id.casefold() not in _NOBODY:
        found.append(("user_id", fold(user_id)))
    found += [("name", fold(name).strip()) for name in names]
    return [(kind, word) for kind, word in found if word]


def _in(text: str, sought: Sequence[tuple[Kind, str]], *, public: bool) -> Kind | None:
    """Return the kind of personal data in a folded text; companies may publish a *public* one."""
    for kind, word in sought:
        if has_word(text, word):
            return kind
    for start in range(0, len(text), _SLICE):
        found = _in_slice(text[max(0, start - _OVERLAP) : start + _SLICE], public=public)
        if found is not None:
            return found
    return "number" if has_affair_in_table(text) else None


def _in_slice(text: str, *, public: bool) -> Kind | None:
    digits = any(map(str.isdigit, text))
    if digits and has_card(text):
        return "card"
    if digits and has_iban(text):
        return "iban"
    if digits and has_identity(text):
        return "identity"
    if digits and _has_birth(text):
        return "birth"
    if digits and has_affair(text):
        return "number"
    if any(not _is_role(local) for local in _emails(text)):
        return "email"
    return "phone" if digits and phones.has_phone(text, public=public) else None


def _has_birth(text: str) -> bool:
    return words.BORN_ON.search(text) is not None or any(
        words.BIRTH_DATE.search(text, match.end(), match.end() + _BIRTH_WITHIN) is not None
        for match in words.BIRTH.finditer(text)
    )


def _emails(text: str) -> Iterator[str]:
    """Yield the local part of each e-mail address."""
    text = _SPELLED_DOT.sub(".", _SPELLED_AT.sub("@", text))
    place = text.find("@")
    while place >= 0:
        if _DOMAIN.match(text, place + 1) is not None:
            local = _LOCAL.search(text, max(0, place - 64), place)
            if local is not None:
                yield local[0].strip("._-'")
        place = text.find("@", place + 1)


def _is_role(local: str) -> bool:
    """Return whether all of a local part names a role, not a person."""
    parts = [part for part in _PART.split(local.strip("'%")) if not part.isdigit()]
    return (
        bool(parts)
        and all(part in words.ROLE_PARTS for part in parts)
        and any(part in words.ROLES for part in parts)
    )
