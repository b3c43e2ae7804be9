"""Advice on sharing for the operator: private by default must not look broken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cache_core.config.tuning import Tuning
from cache_core.observability.stats import CacheStats


def sharing_advice(stats: CacheStats, tuning: Tuning) -> dict[str, Any]:
    """Return the number of lookups that missed although another user had the answer, and advice.

    Keys: `mode`, `shared_intents`, `other_scope_misses`, `other_scope_share` (of the lookups that
    could be answered, 0..1), `by_intent`, `advice` (a sentence; empty if there is nothing to do).
    """
    intents = dict(stats.other_scope_intents.most_common())
    missed = stats.miss_reasons["l1", "other_scope"]
    answerable = stats.lookups - stats.outcomes["bypass"]
    return {
        "mode": tuning.sharing,
        "shared_intents": sorted(tuning.shared_intents),
        "other_scope_misses": missed,
        "other_scope_share": round(missed / answerable, 4) if answerable else 0.0,
        "by_intent": {intent or "(none)": count for intent, count in intents.items()},
        "advice": advice_on_sharing(missed, answerable, [name for name in intents if name]),
    }


def advice_on_sharing(missed: int, answerable: int, intents: Sequence[str]) -> str:
    """Return what to share, in sentences; empty if no lookup missed another user's answer.

    Args:
        missed: Lookups that missed although another user had the answer.
        answerable: Lookups that could be answered.
        intents: Intents of those answers, most first.
    """
    if not missed:
        return ""
    start = (
        f"{missed:,} of {answerable:,} lookups missed although another user had the answer to the "
        "very same message."
    )
    if not intents:
        return (
            f"{start} Answers are private unless you say otherwise: pass shared=True to put(), or "
            "give answers an intent and name those that are the same for everybody in "
            "shared_intents=[...] or CACHE_SHARED_INTENTS."
        )
    most = intents[0]
    return (
        f"{start} By intent, most first: {', '.join(intents[:5])}. Share those whose answers are "
        "the same for everybody, and only those: an answer that speaks of its user must stay "
        f"private. For {most!r} that would be CACHE_SHARED_INTENTS={most} or "
        f"MultiLevelCache(shared_intents=[{most!r}])."
    )
