"""Reasons of the cache's decisions, in words."""

from __future__ import annotations

from cache_core.cli.demo.agent import Served
from cache_core.config.tuning import Tuning
from cache_core.model.reasons import short
from cache_core.observability.records import LookupRecord

WHY_WIDTH = 30
"""Columns of the longest explanation."""

_GUARDS = {
    "numbers": "other numbers",
    "negation": "one says not",
    "direction": "the other way round",
    "order": "words in another order",
    "opposites": "one says the opposite",
    "letters": "other letters, case or code",
    "language": "unknown words",
}


def why(served: Served, record: LookupRecord | None, tuning: Tuning) -> str:
    """Return the reason of a hit or a miss, in words."""
    result = served.result
    if result.tier == "l1":
        shared = tuning.shares(served.request.intent)
        return "same words, shared by all" if shared else "same user, same words"
    if result.tier == "l2" and record is not None:
        if "unconfirmed" in result.reasons:
            return "means the same (unconfirmed)"
        return f"means the same (from {tuning.semantic_threshold:g})"
    return _why_not(record, result.reasons)


def tiers(record: LookupRecord | None) -> str:
    """Return the tiers that had a hit."""
    parts = record.calls if record is not None else ()
    return " ".join(part.level.upper() for part in parts if part.outcome == "hit")


def similarity(record: LookupRecord | None) -> float | None:
    """Return the similarity of the nearest stored question, whatever the outcome."""
    parts = record.calls if record is not None else ()
    exact = next((part for part in parts if part.level == "l1"), None)
    if exact is not None and exact.outcome == "hit":
        return 1.0
    return next((part.similarity for part in parts if part.level == "l2"), None)


def _why_not(record: LookupRecord | None, reasons: tuple[str, ...]) -> str:
    if record is None:
        return short(reasons[0]) if reasons else ""
    semantic = next((part for part in record.calls if part.level == "l2"), None)
    if semantic is not None and record.reason == semantic.reason:
        if record.reason == "below_threshold":
            return f"nearest question is under {semantic.threshold or 0:g}"
        if record.reason == "guard_veto":
            differs = _GUARDS.get(semantic.guard, semantic.guard)
            return f"alike, but {differs}"
    return short(record.reason)
