"""Record, result and evidence of a lookup, in the order in which their facts become known.

Each tier's answer goes into its record as it arrives. What all of them said is the result, and the
sighting for the put that may follow; with it the lookup's own record is finished.
"""

from __future__ import annotations

import logging
from typing import Literal

from cache_core.config.capture import captured
from cache_core.config.intents import label_of
from cache_core.config.tuning import Tuning
from cache_core.model.exceptions import BackendError
from cache_core.model.logs import RateLimited
from cache_core.model.remedies import log_failure
from cache_core.model.values import Hit, LookupResult, Miss, Outcome, Query, Sighting
from cache_core.observability.evidence import INTENT_AND_DOCUMENTS, Found, entry_of
from cache_core.observability.records import LookupRecord, TierRecord

log = RateLimited(logging.getLogger("glasscache"))


def tier_answered(record: TierRecord, answer: Hit | Miss, tuning: Tuning, grace: float) -> None:
    """Write a tier's answer into its record.

    Args:
        record: Of the tier.
        answer: From it.
        tuning: In force.
        grace: Seconds by which an answer may be older than its TTL.
    """
    if record.level == "l2" and (nearest := entry_of(answer)) is not None:
        record.threshold = tuning.threshold(nearest.intent)
    record.similarity = answer.similarity
    if isinstance(answer, Miss):
        record.outcome = "miss"
        record.reason = answer.reason
        record.guard = answer.guard
        record.other_intent = answer.other_intent
        return
    record.outcome = "hit"
    record.age_seconds = answer.age
    record.reason = answer.remark if record.level == "l2" else ""
    record.ttl_seconds = answer.ttl
    if grace > 0 and answer.age > answer.ttl:
        # It spares nothing: computing another one was tried before.
        record.stale = True
    else:
        record.saved_usd = tuning.saves(record.level, answer.entry.cost_usd)


def tier_failed(record: TierRecord, error: BackendError) -> None:
    """Write into a tier's record that it cannot answer, and log it."""
    record.outcome = "error"
    record.reason = error.reason
    record.error_type = error.error_type
    if error.reason == "isolation":
        log.limited(
            "isolation",
            "%s: an entry of another scope was found and not served; see docs/architecture.md",
            record.level,
        )
    else:
        log_failure(f"{record.level} cannot answer", error)


def sighting_of(query: Query, found: Found, position: str, until: float) -> Sighting:
    """Return what a lookup saw; the generation is of the first tier that read it.

    Args:
        query: The message.
        found: By the tiers.
        position: Up to where the log of invalidations was known before.
        until: When the local day of the lookup ends.
    """
    for item in found.asked:
        if item.answer is not None and item.answer.generation is not None:
            return Sighting(query.tag, query.user, item.answer.generation, position,
                            exact=query.exact, until=until)  # fmt: skip
    return Sighting(query.tag, query.user, None, exact=query.exact, until=until)


def result_of(found: Found, lookup_id: str, sighting: Sighting) -> LookupResult:
    """Return what the tiers said as one result."""
    reasons: tuple[str, ...] = ()
    for item in found.asked:
        reason = item.record.reason
        if reason and reason not in reasons:
            reasons += (reason,)
    answered = found.answered
    if answered is not None and answered.hit is not None:
        tier, answer = answered.record, answered.hit
        similarity = 1.0 if tier.level == "l1" else answer.similarity
        return LookupResult(
            answer.entry.response, answer.entry.intent, None, "hit", tier.level, similarity,
            answer.age, tier.stale, lookup_id, reasons, sighting,
            answer.entry.ttl if answer.entry.until is None else answer.ttl,
            _stored_for(answer) if answer.matched == sighting.tag else "",
        )  # fmt: skip
    label, documents = found.hit("l3"), found.hit("l4")
    outcome: Outcome = "miss"
    if label is not None or documents is not None:
        outcome = "partial"
    elif any(item.record.outcome == "error" for item in found.asked):
        outcome = "error"
    return LookupResult(
        response=None,
        intent=label.entry.intent if label is not None else None,
        rag_results=list(documents.entry.rag_results or ()) if documents is not None else None,
        outcome=outcome,
        lookup_id=lookup_id,
        reasons=reasons,
        sighting=sighting,
    )


def _stored_for(answer: Hit) -> Literal["user", "shared", "policy"]:
    if answer.scope == "user":
        return "user"
    return "policy" if answer.entry.by_policy else "shared"


def finish(record: LookupRecord, result: LookupResult, found: Found, *, handed_out: bool) -> None:
    """Finish a lookup's record.

    Args:
        record: The record.
        result: For the caller.
        found: By the tiers.
        handed_out: Whether the caller gets intent and documents; else they save nothing.
    """
    calls: list[TierRecord] = []
    saved, failed = 0.0, None
    for item in found.asked:
        part = item.record
        if part.level in INTENT_AND_DOCUMENTS and not handed_out:
            part.saved_usd = 0.0
        saved += part.saved_usd
        if part.outcome == "error" and failed is None:
            failed = part
        calls.append(part)
    record.calls = calls
    record.outcome = result.outcome
    record.level = result.tier
    record.similarity = result.similarity
    record.age_seconds = result.age_seconds
    record.stale = result.stale
    record.saved_usd = saved
    record.intent = label_of(result.intent)
    if result.outcome == "error" and failed is not None:
        record.reason, record.error_type = failed.reason, failed.error_type
    elif result.outcome != "hit":
        record.reason = _telling(found)


def _telling(found: Found) -> str:
    """Return the one reason that says most about a lookup without a response.

    L1's, when something was stored for this very message; else L2's.
    """
    reasons = {item.record.level: item.record.reason for item in found.asked}
    exact = reasons.get("l1", "")
    if exact in {"", "cold"} or reasons.get("l2") == "guard_veto":
        return reasons.get("l2") or exact
    return exact


def capture(record: LookupRecord, query: Query, found: Found) -> None:
    """Write the message, and the response or the nearest one, into a lookup's record."""
    nearest = found.nearest
    entry = entry_of(nearest) if nearest is not None else None
    record.message_text = captured(query.text)
    record.response_text = captured(entry.response) if entry is not None else ""
