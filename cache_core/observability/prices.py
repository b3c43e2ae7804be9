"""Prices behind sums of money, in words: a sum without its price says little."""

from __future__ import annotations

from collections.abc import Mapping

from cache_core.config.tuning import Tuning
from cache_core.observability.sums import REST, Sums

_FIELDS = ("response_usd", "intent_usd", "retrieval_usd")


def in_words(sums: Sums, tuning: Tuning, origins: Mapping[str, str]) -> str:
    """Return the price at which the savings in *sums* were counted, in one or two sentences.

    Args:
        sums: What was counted.
        tuning: In force where lookups are served.
        origins: Origin of each of its values.
    """
    price = f"{tuning.saves('l1', None):g}"
    earlier = {name: count for name, count in sums.prices.items() if name not in {price, REST}}
    chosen = any(origins.get(name, "default") != "default" for name in _FIELDS)
    first = f"An answer counts {price} USD" + (
        "" if chosen else ", the default: set your own with glasscache tune set response_usd=PRICE"
    )
    if earlier:
        first += "; earlier ones " + ", ".join(
            f"{name} ({count:,})" for name, count in sorted(earlier.items())
        )
    saved = sums.saved.get("l1", 0.0) + sums.saved.get("l2", 0.0)
    counted = sum(sums.prices.values())
    mean = saved / counted if counted else 0.0
    known = sum(float(name) * count for name, count in sums.prices.items() if name != REST)
    own = REST not in sums.prices and abs(known - saved) > 0.005 * max(known, saved)
    return first + (
        f". Some were put with a price of their own: the mean is {mean:.4g} USD." if own else "."
    )
