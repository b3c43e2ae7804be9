"""What each tier would say to a message, and why, in words."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from cache_core.deadline import Deadline
from cache_core.exceptions import BackendError
from cache_core.models import LEVELS, Hit, Level, Miss, Query, TierExplanation
from cache_core.tiers.base import Tier
from cache_core.tuning import Tuning

WHY = {
    "cold": "nothing is stored for it",
    "expired": "what is stored is older than its TTL",
    "invalidated": "what is stored was invalidated",
    "other_scope": "another user has an answer to this very message; it is private to them",
    "below_threshold": "the nearest question is not similar enough",
    "guard_veto": "a similar question differs in something that matters",
    "has_history": "a follow-up is not matched by similarity; give standalone= to do so",
    "truncated": "the message is longer than the embedding model reads",
    "unreadable": "the model does not know all its characters, so similarity means nothing",
    "context_limit": "there are too many contexts for another vector index",
    "warming": "the embedding model is still loading",
    "corrupt": "what was stored could not be read",
    "timeout": "a backend took longer than its budget",
    "backend_error": "a backend failed",
    "breaker_open": "a backend is away and was not asked",
    "overloaded": "more was asked than could be embedded in time",
    "isolation": "a backend returned what is of another scope; it was not served",
    "empty": "the message is empty",
    "too_large": "the message is too large to be cached",
    "disabled": "every tier is off",
    "no_user": "there is no user to keep the answer for",
}
"""Every reason why a lookup was not answered, in words."""


async def explain(
    tiers: Mapping[Level, Tier], query: Query, tuning: Tuning, budget: float
) -> list[TierExplanation]:
    """Ask every tier, whatever the others say; nothing is counted.

    Args:
        tiers: Those that are on.
        query: The message.
        tuning: In force.
        budget: Seconds for each tier.
    """
    return list(
        await asyncio.gather(
            *(_explain(level, tiers.get(level), query, tuning, budget) for level in LEVELS)
        )
    )


async def _explain(
    level: Level, tier: Tier | None, query: Query, tuning: Tuning, budget: float
) -> TierExplanation:
    threshold = tuning.semantic_threshold if level == "l2" else None
    if tier is None:
        return TierExplanation(level, "off", detail="this tier is off")
    try:
        async with Deadline(budget):
            answer = await tier.get(query, tuning)
    except TimeoutError:
        return TierExplanation(level, "error", "timeout", detail=f"no answer in {budget} s")
    except BackendError as error:
        return TierExplanation(
            level, "error", error.reason, detail=f"the backend failed: {error.error_type}"
        )
    nearest = answer.entry if isinstance(answer, Hit) else answer.nearest
    if level == "l2" and nearest is not None:
        threshold = tuning.threshold(nearest.intent)
    if isinstance(answer, Hit):
        return _hit(level, answer, tuning, threshold)
    return _miss(level, answer, threshold)


def duration(seconds: float) -> str:
    """Return seconds as people say them; whole seconds below a minute."""
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= (2 * size if unit == "days" else size):
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.0f} s"


_HOW_SHARED: Mapping[str, str] = {
    "put": "",
    "warm": " (an operator's)",
    "promotion": " (promoted: enough different users got the same)",
}


def _hit(level: Level, answer: Hit, tuning: Tuning, threshold: float | None) -> TierExplanation:
    entry = answer.entry
    ttl = tuning.ttl(level, entry.intent) if entry.ttl is None else entry.ttl
    what = {"l1": "the response", "l2": "a response", "l3": "the intent", "l4": "the documents"}
    whose = "of this user" if answer.scope == "user" else "shared by all users"
    if answer.scope == "shared":
        whose += _HOW_SHARED[entry.source]
    detail = f"serves {what[level]} {whose}, {duration(answer.age)} old of {duration(ttl)}"
    if answer.similarity is not None:
        detail += f", to a question of similarity {answer.similarity:.4f} (threshold {threshold})"
    if not answer.confirmed:
        detail += "; its generation could not be read"
    return TierExplanation(
        level, "hit", "" if answer.confirmed else "unconfirmed", answer.similarity, threshold,
        answer.age, ttl, answer.scope, detail,
    )  # fmt: skip


def _miss(level: Level, answer: Miss, threshold: float | None) -> TierExplanation:
    detail = WHY[answer.reason]
    if answer.similarity is not None:
        detail += f"; nearest {answer.similarity:.4f}, threshold {threshold}"
    if answer.guard:
        detail += f"; vetoed by the guard {answer.guard!r}"
    if answer.other_intent:
        detail += (
            f"; its intent is {answer.other_intent!r}: if such answers are the same for everybody, "
            "name it in shared_intents"
        )
    return TierExplanation(
        level, "miss", answer.reason, answer.similarity, threshold, detail=detail
    )
