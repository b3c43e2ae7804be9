"""Review queue: pairs of questions without a verdict. No Streamlit."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import pandas as pd

from cache_core.observability.decisions import Decision
from cache_core.observability.verdicts import Verdict

Order = Literal["near the threshold", "recent hits"]
ORDERS: tuple[Order, ...] = ("near the threshold", "recent hits")

NEAR = 0.15
"""Largest distance from the threshold at which a pair is worth a review."""

_BIN = 0.02


def unjudged(
    decisions: Sequence[Decision],
    verdicts: Sequence[Verdict],
    *,
    threshold: float,
    order: Order,
    skipped: Collection[tuple[str, str]] = (),
) -> list[Decision]:
    """Return the pairs to judge, the most useful first; each pair of questions once.

    Args:
        decisions: Decisions, oldest first.
        verdicts: Verdicts; a reviewed pair is not shown again.
        threshold: The threshold in force.
        order: By distance from the threshold, served or not; or the hits, newest first.
        skipped: Pairs of digests, message and matched one, to omit.
    """
    reviewed = {(item.message, item.matched) for item in verdicts if item.source == "review"}
    found: dict[tuple[str, str], Decision] = {}
    for item in reversed(decisions):
        pair = (item.message, item.matched)
        if pair in found or pair in reviewed or pair in skipped:
            continue
        if not item.matched or item.matched == item.message or item.unvetoed is None:
            continue
        served = item.outcome == "hit" and item.level == "l2"
        near = item.outcome != "hit" and abs(item.unvetoed - threshold) <= NEAR
        if served or (near and order == "near the threshold"):
            found[pair] = item
    pairs = list(found.values())
    if order == "near the threshold":
        pairs.sort(key=lambda item: abs((item.unvetoed or 0.0) - threshold))
    return pairs


def readable(pairs: Sequence[Decision]) -> list[Decision]:
    """Return the pairs with recorded texts."""
    return [item for item in pairs if item.message_text and item.matched_text]


def by_similarity(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """Return the number of verdicts by `similarity` (to `end`) and `verdict`."""
    rows = pd.DataFrame(
        [(item.similarity, item.verdict) for item in verdicts if item.similarity is not None],
        columns=["similarity", "verdict"],
    )
    rows["similarity"] = (rows["similarity"].astype("float64") // _BIN * _BIN).round(4)
    table = rows.groupby(["similarity", "verdict"]).size().rename("verdicts").reset_index()
    table["end"] = table["similarity"] + _BIN
    return table
