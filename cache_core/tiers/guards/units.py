"""Units beside a number: one canonical name for all spellings of each."""

from __future__ import annotations

from collections.abc import Iterator

_PREFIXES = {
    "p": "pico", "n": "nano", "u": "micro", "µ": "micro", "μ": "micro", "m": "milli",
    "c": "centi", "d": "deci", "h": "hecto", "k": "kilo", "M": "mega", "G": "giga", "T": "tera",
}  # fmt: skip
# Symbol, names, and prefixes that are in use. A lower-case "m" means mega where milli is not.
_SCALED = (
    ("g", "gram gramme", "n u µ μ m c d k"),
    ("m", "meter metre", "n u µ μ m c d k"),
    ("l", "liter litre", "u µ μ m c d h"),
    ("W", "watt", "m k M G T"),
    ("Wh", "watthour", "m k M G T"),
    ("V", "volt", "u µ μ m k M"),
    ("A", "amp ampere", "n u µ μ m k"),
    ("Ah", "amphour", "m k"),
    ("Hz", "hertz", "k M G T"),
    ("Pa", "pascal", "h k M G"),
    ("J", "joule", "m k M G"),
    ("N", "newton", "m k M"),
    ("mol", "mole", "p n u µ μ m"),
    ("bit", "bit", "k M G T"),
    ("B", "byte", "k M G T"),
    ("iB", "ibyte", "k M G T"),
    ("px", "pixel", "M G"),
    ("cal", "calorie", "k"),
    ("s", "second sec", "n u µ μ m"),
    ("dB", "decibel", ""),
)
_PLAIN = """
minute minutes min mins
hour hours hr hrs h
day days
night nights
week weeks wk wks
month months mo mth
quarter quarters
year years yr yrs
decade decades
century centuries
weekday weekdays
weekend weekends
pound pounds
lb lbs
gbp £ quid
ounce ounces oz
ton tons tonne tonnes
stone stones
inch inches
foot feet ft
yard yards yd
mile miles mi
acre acres
hectare hectares ha
gallon gallons gal
pint pints pt
cup cups
tablespoon tablespoons tbsp tbs
teaspoon teaspoons tsp
bar bars
psi
iu
unit units
cent cents ct cts
usd dollar dollars $
eur euro euros €
jpy yen ¥
chf franc francs sfr
inr rupee rupees rs ₹
cad
aud
nzd
sek
nok
dkk
krona krone kr
pln zł zloty
btc bitcoin bitcoins
eth ether
percent pct %
degree degrees deg °
celsius c
fahrenheit f
kelvin
times time x
"""
_BY_CASE = frozenset("W Wh V J N Pa".split())
"""Base units with both milli and mega in use."""

PERIODS = frozenset("second minute hour day night week month quarter year".split())
"""Periods that a rate may be per."""

RATES = {
    "hourly": "hour", "daily": "day", "nightly": "night", "weekly": "week", "monthly": "month",
    "quarterly": "quarter", "yearly": "year", "annual": "year", "annually": "year",
    "annum": "year",
}  # fmt: skip
CURRENCY_SIGNS = frozenset("$ € £ ¥ ₹".split())
CURRENCIES = frozenset("usd eur gbp jpy chf inr cad aud nzd sek nok dkk pln btc eth".split())
POWERED = frozenset("meter centimeter millimeter kilometer decimeter foot inch yard mile".split())
"""Units of length, which have squares and cubes."""

OF_RATE = {
    "bps": ("bit", "second"), "kbps": ("kilobit", "second"), "mbps": ("megabit", "second"),
    "gbps": ("gigabit", "second"), "kph": ("kilometer", "hour"), "kmh": ("kilometer", "hour"),
    "mph": ("mile", "hour"), "rpm": ("revolution", "minute"), "fps": ("frame", "second"),
}  # fmt: skip
"""Compound units: what is counted, and per what."""
_SHORT = {
    "mcg": "microgram", "cc": "milliliter", "kgs": "kilogram", "kilo": "kilogram",
    "kilos": "kilogram", "kms": "kilometer", "gbs": "gigabyte", "mbs": "megabyte",
    "mp": "megapixel",
    "sqm": "meter2", "sqft": "foot2", "sqkm": "kilometer2", "cbm": "meter3",
}  # fmt: skip


def _scaled() -> Iterator[tuple[str, str]]:
    for symbol, names, prefixes in _SCALED:
        first, *others = names.split()
        for name in (first, *others):
            yield name, first
            yield name + "s", first
        yield symbol.casefold(), first
        for prefix in prefixes.split():
            long = _PREFIXES[prefix]
            for name in (first, *others):
                yield long + name, long + first
                yield long + name + "s", long + first
            if not (prefix == "M" and symbol in _BY_CASE):
                yield (prefix + symbol).casefold(), long + first


def _named() -> dict[str, str]:
    table = {
        word: words[0]
        for line in _PLAIN.strip().splitlines()
        for words in [line.split()]
        for word in words
    }
    return dict(_scaled()) | table | {word: name for word, (name, _) in OF_RATE.items()} | _SHORT


_UNITS = _named()
_MEGA = {"M" + symbol: "mega" + names.split()[0] for symbol, names, _ in _SCALED
         if symbol in _BY_CASE}  # fmt: skip
_BITS = {short + "b": long + "bit" for short, long in (("k", "kilo"), ("M", "mega"), ("G", "giga"))}


def unit(word: str, raw: str = "") -> str:
    """Return the canonical name of the unit *word*, or empty; *raw* is its original spelling."""
    return _MEGA.get(raw) or _BITS.get(raw) or _UNITS.get(word, "")
