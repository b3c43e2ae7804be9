"""Rates of personal data found, by kind and country, and of texts mistaken for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple
from unittest import mock

from cache_core.operations.put.personal import numbering, personal
from tests.support import personal_texts as texts


class Case(NamedTuple):
    """A text with something personal in it.

    Attributes:
        kind: Of what is personal.
        where: The language or country; empty where that does not matter.
        text: The question, or the answer.
        asked: Whether it is the question.
    """

    kind: str
    where: str
    text: str
    asked: bool

    @property
    def found(self) -> bool:
        """Return whether it is seen."""
        asked, answer = (self.text, "Yes.") if self.asked else ("Tell me", self.text)
        return personal(asked, [answer]) is not None


def cases() -> Iterator[Case]:
    """Yield every text."""
    for language, templates in texts.AFFAIRS.items():
        for template in templates:
            for number in texts.NUMBERS:
                yield Case("number", language, template.format(number), asked=False)
        for spelling in texts.SPELLED:
            spelled = templates[0].format(spelling.format("48213"))
            yield Case("number", language, spelled, asked=False)
    for separator in texts.SEPARATORS:
        for card in texts.CARDS:
            yield Case("card", "", f"Card {card.format(separator)} is charged", asked=False)
            yield Case("card", "", f"{card.format(separator)} 12/27 is mine", asked=True)
        for iban in texts.IBANS:
            yield Case("iban", "", f"We pay to {iban.format(separator)} soon", asked=False)
            yield Case("iban", "", f"iban:{iban.format(separator).lower()}", asked=True)
    for email in texts.EMAILS:
        yield Case("email", "", f"We wrote to {email}.", asked=False)
        yield Case("email", "", f"**{email}**", asked=True)
    for birth in texts.BIRTHS:
        yield Case("birth", "", birth, asked=False)
    for identity in texts.IDENTITIES:
        yield Case("identity", "", identity, asked=False)
    for country, phone in texts.phones():
        yield Case("phone, asked", country, f"please note {phone} as mine", asked=True)
        yield Case("phone, answered", country, f"Your mobile number: {phone}.", asked=False)
        yield Case("phone, answered alone", country, f"We have {phone} on file.", asked=False)


def taken_wrongly() -> list[str]:
    """Return what companies publish and is taken for personal in an answer."""
    return [text for text in texts.PUBLIC if personal("Tell me", [text]) is not None]


@contextlib.contextmanager
def without_libphonenumber() -> Iterator[None]:
    """Check as in an environment without the extra `personal`."""
    with mock.patch.object(numbering, "is_installed", return_value=False):
        yield
