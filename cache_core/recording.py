"""What is written down of a finished lookup: its record, and its decision."""

from __future__ import annotations

from cache_core.capture import captured
from cache_core.decisions import NOTHING, Decision
from cache_core.instrumentation import CacheCall
from cache_core.models import Entry, Hit, LookupResult, Miss, Query
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
    calls: list[CacheCall] = []
    saved, failed = 0.0, None
    for item in found.asked:
        part = item.call
        if part.level in {"l3", "l4"} and not handed_out:
            part.saved_usd = 0.0
        saved += part.saved_usd
        if part.outcome == "error" and failed is None:
            failed = part
        calls.append(part)
    call.calls = calls
    call.outcome = result.outcome
    call.level = result.tier
    call.similarity = result.similarity
    call.age_seconds = result.age_seconds
    call.stale = result.stale
    call.saved_usd = saved
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
    threshold = semantic.call.threshold if semantic is not None else None
    hit = found.hit("l1") or found.hit("l2")
    nearest = hit if hit is not None else answer
    beyond = len(found.asked) > 1
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
        threshold=tuning.semantic_threshold if threshold is None else threshold,
        age_seconds=result.age_seconds,
        seconds=call.seconds,
        saved_usd=call.saved_usd,
        message=query.tag,
        matched=nearest.matched if nearest is not None else "",
        user=query.user or "",
        intent=result.intent or other_intent,
        tuning_version=tuning.version,
        scope=nearest.scope if nearest is not None else "",
        context=query.context,
        history=query.history,
        ages=_ages(found) if beyond else NOTHING,
        expired=_expired(found) if beyond else NOTHING,
        message_text=call.message_text,
        matched_text=_matched_text(nearest) if call.message_text else "",
        response_text=call.response_text,
    )


def capture(call: CacheCall, query: Query, found: Found) -> None:
    """Write the message, and the response or the nearest one, into a lookup's record."""
    semantic = found.of("l2")
    answer = found.hit("l1") or (semantic.answer if semantic is not None else None)
    entry = _entry(answer)
    call.message_text = captured(query.text)
    call.response_text = captured(entry.response) if entry is not None else ""


def _matched_text(answer: Hit | Miss | None) -> str:
    entry = _entry(answer)
    return captured(entry.message) if entry is not None else ""


def _entry(answer: Hit | Miss | None) -> Entry | None:
    return answer.nearest if isinstance(answer, Miss) else answer and answer.entry


def _ages(found: Found) -> dict[str, float]:
    return {
        item.call.level: item.answer.age
        for item in found.asked
        if item.call.level is not None and isinstance(item.answer, Hit)
    }


def _expired(found: Found) -> dict[str, float]:
    return {
        item.call.level: item.answer.expired_age
        for item in found.asked
        if item.call.level is not None
        and isinstance(item.answer, Miss)
        and item.answer.expired_age is not None
    }
