"""Finds payment cards, bank accounts and national identities, known by their form alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from importlib import import_module

from stdnum import iban, luhn

_RUN = re.compile(r"(?<![\d.,])\d+(?:[ ._/*-]{1,3}\d+){0,40}")
_GROUP = re.compile(r"\d+")
_CARD_NETWORK = re.compile(r"3[0-9]|4|5[0-9]|6[0-9]|2[2-7]")
_CARD = range(13, 20)
_CARD_GROUP = 3
_ARTICLE = re.compile(
    r"\b(?:isbn|ean|gtin|upc|sku|imei|siret|siren|serial|article|artikel)\b\W{0,3}\w{0,8}\W{0,3}$"
)
_IBAN = re.compile(r"(?<![^\W_])[a-z]{2}\d\d(?:[ .-]{0,3}[a-z\d]){11,44}")
_IBAN_LENGTHS = range(15, 35)

_Valid = Callable[[str], bool]


def _any(_number: str) -> bool:
    return True


_IDENTITIES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(rf"(?<![^\W_]){form}(?![^\W_])"), checked)
    for form, checked in (
        (r"\d{3}-\d\d-\d{4}", ""),  # US social security
        (r"[a-z]{2} ?\d\d ?\d\d ?\d\d ?[a-d]", ""),  # GB national insurance
        (r"[a-z]{6}\d\d[a-z]\d\d[a-z]\d{3}[a-z]", "it.codicefiscale"),
        (r"\d{8}[ -]?[a-z]", "es.dni"),
        (r"[xyz][ -]?\d{7}[ -]?[a-z]", "es.nie"),
        (r"[12] ?\d\d ?\d\d ?[\dab]{2} ?\d{3} ?\d{3} ?\d\d", "fr.nir"),
        (r"\d{11}", "pl.pesel"),
        (r"\d{17}[\dx]", "cn.ric"),
        (r"\d{3}\.\d{3}\.\d{3}-\d\d", "br.cpf"),
        (r"(?:\d\d)?\d{6}[-+]\d{4}", "se.personnummer"),
        (r"\d{6}[-+a]\d{3}[a-z\d]", "fi.hetu"),
        (r"\d{6}-\d{4}", "dk.cpr"),
        (r"756\.\d{4}\.\d{4}\.\d\d", "ch.ssn"),
        (r"\d\d\.\d\d\.\d\d-\d{3}\.\d\d", "be.nn"),
        (r"\d{4} \d{4} \d{4}", "in_.aadhaar"),
        # Numbers given out since October 2020 have no check digit.
        (r"\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])-[1-8]\d{6}", ""),  # KR resident
        (r"\d{3}-\d{3}-\d{3}[ -]\d\d", ""),  # RU insurance
        (r"[a-z]{1,2}\d{6}\([\da]\)", ""),  # HK identity card
        (r"[a-z]{5}\d{4}[a-z]", "in_.pan"),
        (r"[a-z]{4}\d{6}[a-z]{6}[a-z\d]\d", "mx.curp"),
        (r"\d\d-\d{8}-\d", "ar.cuit"),
        (r"\d{11}", "br.cpf"),
        (r"\d{12}", "ru.inn"),
        (r"\d{13}", "ro.cnp"),
        (r"\d{13}", "si.emso"),
        (r"\d{11}", "tr.tckimlik"),
        (r"\d{13}", "za.idnr"),
    )
)


def has_card(text: str) -> bool:
    """Return whether folded *text* has a payment card's number: 13 to 19 digits in any groups."""
    for run in _RUN.finditer(text):
        groups = _GROUP.findall(run[0])
        if sum(map(len, groups)) < _CARD.start:
            continue
        if _ARTICLE.search(text[max(0, run.start() - 32) : run.start()]):
            continue
        if any(_CARD_NETWORK.match(digits) and luhn.is_valid(digits) for digits in _cards(groups)):
            return True
    return False


def _cards(groups: list[str]) -> Iterator[str]:
    """Yield the candidates for a card's number: consecutive groups of three digits or more."""
    whole = "".join(groups)
    if len(whole) in _CARD:
        yield whole
    for start in range(len(groups)):
        digits = ""
        for group in groups[start:]:
            if len(group) < _CARD_GROUP or len(digits) + len(group) >= _CARD.stop:
                break
            digits += group
            if len(digits) in _CARD:
                yield digits


def has_iban(text: str) -> bool:
    """Return whether folded *text* has an IBAN."""
    for match in _IBAN.finditer(text):
        compact = re.sub(r"[ .-]", "", match[0])
        if any(
            len(compact) >= length and iban.is_valid(compact[:length]) for length in _IBAN_LENGTHS
        ):
            return True
    return False


def has_identity(text: str) -> bool:
    """Return whether folded *text* has a national identity number."""
    return any(
        _check(name)(match[0]) for form, name in _IDENTITIES for match in form.finditer(text)
    )


def _check(name: str) -> _Valid:
    return import_module(f"stdnum.{name}").is_valid if name else _any
