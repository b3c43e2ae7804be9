"""Countries and kinds of telephone numbers, by libphonenumber, which the extra `personal` brings.

`phonenumbers` takes 48 MB, so it is no base dependency. Its smaller edition `phonenumberslite` has
the same import name and works as well.
"""

from __future__ import annotations

import importlib.util
import re
from functools import cache, lru_cache
from typing import NamedTuple

REGIONS = tuple(
    "US GB DE FR IT ES PT NL BE AT CH IE DK SE NO FI PL CZ SK HU RO BG GR HR UA RU TR IL AE SA EG "
    "ZA NG KE IN PK BD TH VN ID MY SG PH HK TW JP KR CN AU NZ BR AR MX CL CO PE".split()
)
"""Countries whose national formats are known."""

_GROUP = re.compile(r"\d+")


class Reading(NamedTuple):
    """Interpretation of a number in one country.

    Attributes:
        mobile: True for a mobile number.
        either: True for a number of which nothing says whether it is mobile.
        public: True for a toll-free, shared-cost or premium-rate number, or a company's.
        written: The national format, folded.
        groups: The digits of `written`, without trunk prefix zeros.
    """

    mobile: bool
    either: bool
    public: bool
    written: str
    groups: tuple[str, ...]


@cache
def is_installed() -> bool:
    """Return whether libphonenumber is installed."""
    return importlib.util.find_spec("phonenumbers") is not None


def are_loaded() -> bool:
    """Return whether `readings` is fast by now: its first call takes 0.15 s."""
    return not is_installed() or readings.cache_info().misses > 0


def groups_of(written: str) -> tuple[str, ...]:
    """Return the groups of digits in *written*, without the zeros of a trunk prefix."""
    found = _GROUP.findall(written)
    bare = [group.lstrip("0") if place == 0 else group for place, group in enumerate(found)]
    return tuple(group for group in bare if group)


@lru_cache(maxsize=2_048)
def readings(written: str) -> tuple[Reading, ...]:
    """Return the interpretations of a number in `REGIONS`, where it is valid.

    Raises:
        ModuleNotFoundError: If libphonenumber is not installed.
    """
    import phonenumbers
    from phonenumbers import PhoneNumberFormat, PhoneNumberType

    if written.startswith("00"):
        written = "+" + written[2:]
    found = []
    for region in ("US",) if written.startswith("+") else REGIONS:
        try:
            number = phonenumbers.parse(written, region)
        except phonenumbers.NumberParseException:
            continue
        if not phonenumbers.is_valid_number(number):
            continue
        national = phonenumbers.format_number(number, PhoneNumberFormat.NATIONAL)
        kind = phonenumbers.number_type(number)
        found.append(
            Reading(
                mobile=kind == PhoneNumberType.MOBILE,
                either=kind == PhoneNumberType.FIXED_LINE_OR_MOBILE,
                public=kind
                in (
                    PhoneNumberType.TOLL_FREE,
                    PhoneNumberType.SHARED_COST,
                    PhoneNumberType.PREMIUM_RATE,
                    PhoneNumberType.UAN,
                ),
                written=national.lower(),
                groups=groups_of(national),
            )
        )
    return tuple(found)
