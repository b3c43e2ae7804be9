"""Explanation of each tier's answer to a message, in words."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

from cache_core.backends.deadline import Deadline
from cache_core.config.tuning import Tuning
from cache_core.model.exceptions import BackendError
from cache_core.model.reasons import long
from cache_core.model.values import LEVELS, Hit, Level, Miss, Query, TierExplanation
from cache_core.tiers.base import Tier


async def explain(
    tiers: Mapping[Level, Tier], query: Query, tuning: Tuning, budget: float
) -> list[TierExplanation]:
    """Ask every tier, independently of the others; nothing is counted.

    Args:
        tiers: The tiers that are on.
        query: The message.
        tuning: The tuning in force.
        budget: Seconds for each tier.
    """
    query = query._replace(recorded=False)
    return list(
        await asyncio.gather(
            *(_explain(level, tiers.get(level), query, tuning, budget) for level in LEVELS)
        )
    )


def with_notes(found: Sequence[TierExplanation], notes: Sequence[str]) -> list[TierExplanation]:
    """Return *found* with notes on the message itself at the first tier that is on."""
    on = next((item for item in found if item.outcome != "off"), None)
    return [
        replace(item, detail=" ".join([f"{item.detail}.", *notes]))
        if item is on and notes
        else item
        for item in found
    ]


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
    """Return seconds in the largest unit that fits, with the next smaller one: `1 h 49 min`."""
    units = ((86_400, "day"), (3_600, "h"), (60, "min"), (1, "s"))
    whole = round(seconds)
    for (size, unit), (smaller, below) in itertools.pairwise(units):
        if whole >= (2 * size if unit == "day" else size):
            # to the smaller unit, lest it say 1 h 60 min
            count, rest = divmod(round(whole / smaller) * smaller, size)
            more = f" {rest // smaller} {below}" if rest else ""
            return f"{count} {unit}{'s' if unit == 'day' else ''}{more}"
    return f"{whole} s"


_HOW_SHARED: Mapping[str, str] = {
    "put": "",
    "warm": " (an operator's)",
    "promotion": " (promoted: enough different users got the same)",
}


def _hit(level: Level, answer: Hit, tuning: Tuning, threshold: float | None) -> TierExplanation:
    entry = answer.entry
    ttl = entry.life(tuning.ttl(level, entry.intent))
    what = {"l1": "the response", "l2": "a response", "l3": "the intent", "l4": "the documents"}
    whose = "of this user" if answer.scope == "user" else "shared by all users"
    if answer.scope == "shared":
        whose += _HOW_SHARED[entry.source]
    detail = f"serves {what[level]} {whose}, {duration(answer.age)} old, TTL {duration(ttl)}"
    if answer.similarity is not None:
        detail += f", to a question of similarity {answer.similarity:.4f} (threshold {threshold})"
    if answer.policy:
        detail += f"; policy: {answer.policy()}"
    if entry.until is not None:
        detail += "; it speaks of its day, and ends with it"
    if answer.approved:
        detail += f"; {long('approved')}"
    if not answer.confirmed:
        detail += f"; {long('unconfirmed')}"
    return TierExplanation(
        level, "hit", answer.remark, answer.similarity, threshold,
        answer.age, ttl, answer.scope, detail,
    )  # fmt: skip


def _miss(level: Level, answer: Miss, threshold: float | None) -> TierExplanation:
    detail = long(answer.reason)
    if answer.similarity is not None:
        detail += f"; nearest {answer.similarity:.4f}, threshold {threshold}"
    if answer.policy:
        detail += f"; policy: {answer.policy()}"
    if answer.guard:
        detail += f"; vetoed by the guard {answer.guard!r}"
    if answer.doubt is not None:
        detail += "; in the band of approval: an approver is asked first, where there is one"
    if answer.other_intent:
        detail += (
            f"; its intent is {answer.other_intent!r}: if such answers are the same for everybody, "
            "name it in shared_intents"
        )
    return TierExplanation(
        level, "miss", answer.reason, answer.similarity, threshold, detail=detail
    )
