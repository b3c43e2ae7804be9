"""What is written down of a finished lookup: its record, and its decision."""

from __future__ import annotations

from cache_core.decisions import Decision
from cache_core.instrumentation import CacheCall
from cache_core.models import LookupResult, Query
from cache_core.reading import Found
from cache_core.tuning import Tuning


def finish(call: CacheCall, result: LookupResult, found: Found, *, handed_out: bool) -> None:
    """Write what a lookup found into its record.

    Args:
        call: The record.
        result: What the caller gets.
        found: What the tiers said.
        handed_out: Whether the caller gets intent and documents; else they save nothing.
    """
    calls = [item.call for item in found.asked]
    for part in calls:
        if part.level in {"l3", "l4"} and not handed_out:
            part.saved_usd = 0.0
    call.calls = calls
    call.outcome = result.outcome
    call.level = result.tier
    call.similarity = result.similarity
    call.age_seconds = result.age_seconds
    call.saved_usd = sum(part.saved_usd for part in calls)
    failed = next((part for part in calls if part.outcome == "error"), None)
    if result.outcome == "error" and failed is not None:
        call.reason, call.error_type = failed.reason, failed.error_type
    elif result.outcome != "hit":
        call.reason = _telling(found)


def _telling(found: Found) -> str:
    """Return the one reason that says most about a lookup without a response.

    L1's, when something was stored for this very message; else L2's.
    """
    reasons = {item.call.level: item.call.reason for item in found.asked}
    exact = reasons.get("l1", "")
    if exact in {"", "cold"} or reasons.get("l2") == "guard_veto":
        return reasons.get("l2") or exact
    return exact


def decide(
    query: Query, result: LookupResult, found: Found, call: CacheCall, tuning: Tuning, now: float
) -> Decision:
    """Return the decision that a finished lookup was."""
    semantic = found.of("l2")
    answer = semantic.answer if semantic is not None else None
    hit = found.hit("l1") or found.hit("l2")
    exact = found.of("l1")
    other_intent = exact.call.other_intent if exact is not None else ""
    similarity = getattr(answer, "similarity", None)
    return Decision(
        at=now,
        lookup_id=result.lookup_id,
        outcome=result.outcome,
        level=result.tier or "",
        reason=call.reason,
        reasons=result.reasons,
        similarity=similarity,
        unvetoed=getattr(answer, "unvetoed", similarity),
        threshold=tuning.semantic_threshold,
        age_seconds=result.age_seconds,
        seconds=call.seconds,
        saved_usd=call.saved_usd,
        message=query.tag,
        matched=hit.matched if hit is not None else "",
        user=query.user or "",
        intent=result.intent or other_intent,
        tuning_version=tuning.version,
    )
