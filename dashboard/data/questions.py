"""Most frequent questions, as far as texts are captured. No Streamlit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pandas as pd

from cache_core.observability.decisions import Decision

Order = Literal["most asked", "most often unanswered", "most saved"]
ORDERS: tuple[Order, ...] = ("most asked", "most often unanswered", "most saved")

_COLUMNS: dict[Order, str] = {
    "most asked": "asked", "most often unanswered": "unanswered", "most saved": "saved_usd",
}  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def questions(decisions: Sequence[Decision], order: Order, most: int = 100) -> pd.DataFrame:
    """Return the most frequent questions: text, counts, money and users, by *order*.

    Variants of a message in letter case, spaces and final signs are one question.

    Args:
        decisions: Decisions, oldest first; those without a text are left out.
        order: Sorted by this.
        most: Number of rows.
    """
    columns = ["question", "asked", "answered", "unanswered", "saved_usd", "users", "intent"]
    rows = [
        (item.message, item.message_text, item.stands_for, item.outcome == "hit",
         item.saved_usd, item.user, item.intent)
        for item in decisions
        if item.message_text and item.outcome != "bypass"
    ]  # fmt: skip
    frame = pd.DataFrame(
        rows, columns=["message", "question", "weight", "hit", "saved", "user", "intent"]
    )
    if frame.empty:
        return pd.DataFrame(columns=columns)
    frame["answered"] = frame["weight"].where(frame["hit"], 0.0)
    frame["saved_usd"] = frame["saved"] * frame["weight"]
    groups = frame.groupby("message", sort=False)
    found = groups.agg(
        question=("question", "last"),
        asked=("weight", "sum"),
        answered=("answered", "sum"),
        saved_usd=("saved_usd", "sum"),
        users=("user", "nunique"),
        intent=("intent", "max"),
    )
    for name in ("asked", "answered"):
        found[name] = found[name].round().astype(int)
    found["unanswered"] = found["asked"] - found["answered"]
    by = _COLUMNS[order]
    return found[found[by] > 0].nlargest(most, by)[columns].reset_index(drop=True)


def csv(table: pd.DataFrame) -> str:
    """Return *table* as CSV; what a spreadsheet would take for a formula is text."""
    safe = table.copy()
    for name in safe.select_dtypes(include=["object", "string"]):
        safe[name] = safe[name].map(
            lambda cell: f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell
        )
    return str(safe.to_csv(index=False))
