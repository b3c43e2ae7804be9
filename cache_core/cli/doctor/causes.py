"""Causes of misses, found in the decision log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from cache_core.config.lifetimes import KEEP_FACTOR
from cache_core.config.tuning import Tuning
from cache_core.model.reasons import long
from cache_core.observability.decisions import Decision

_NEAR = 0.1
"""Similarity below the threshold at which the nearest question is another question."""

_OF_L1 = (
    "other_scope", "too_old", "expired", "invalidated", "corrupt", "day_over", "left_out",
)  # fmt: skip
_OF_L2 = (
    "has_history", "truncated", "unreadable", "context_limit", "warming", "guard_veto", "unsure",
    "not_approved", "approval_failed", "approval_late", "approval_budget", "below_threshold",
)  # fmt: skip


class Cause(NamedTuple):
    """Cause of misses.

    Attributes:
        text: The cause: a clause without a full stop.
        fix: What to do.
    """

    text: str
    fix: str


def _reason(name: str, fix: str) -> Cause:
    return Cause(long(name), fix)


CAUSES: dict[str, Cause] = {
    "other_scope": _reason(
        "other_scope",
        "glasscache stats names the intents; share those whose answers are the same for "
        "everybody: CACHE_SHARED_INTENTS, or put(shared=True).",
    ),
    "too_old": _reason(
        "too_old",
        "Allow a higher max_age= (max-age in Cache-Control, for glasscache proxy), or set it only "
        "where an older answer would be wrong.",
    ),
    "expired": _reason(
        "expired",
        "Raise the TTL if answers stay right for longer: glasscache tune set l1_ttl=6h l2_ttl=7d.",
    ),
    "invalidated": _reason(
        "invalidated",
        "See who invalidates so much (glasscache dashboard, page Audit), or whether Redis evicts "
        "(redis-eviction).",
    ),
    "corrupt": _reason(
        "corrupt",
        "Give all replicas the same CACHE_KEY and CACHE_ENCRYPTION_KEYS, and no other program "
        "this prefix.",
    ),
    "day_over": _reason("day_over", "Set CACHE_TIMEZONE to your users' zone."),
    "left_out": _reason(
        "left_out", "See the agent's log for the type, or raise CACHE_MAX_VALUE_BYTES."
    ),
    "has_history": _reason(
        "has_history", "Pass standalone=, the follow-up rewritten to need no history."
    ),
    "truncated": _reason(
        "truncated", "Pass the user's message alone, without prompt and documents."
    ),
    "unreadable": _reason(
        "unreadable", "Use a multilingual model and CACHE_LANGUAGES=any: docs/languages.md."
    ),
    "context_limit": _reason(
        "context_limit", "Take out of context= what changes often, or raise CACHE_MAX_CONTEXTS."
    ),
    "warming": _reason("warming", "await cache.ready() before the first lookup."),
    "guard_veto": _reason("guard_veto", "Usually right; docs/tuning.md says what each guard does."),
    "unsure": _reason("unsure", "Give verdicts (feedback, verify), or raise max_wrong a little."),
    "not_approved": _reason(
        "not_approved", "Usually right; what it rejects is compared with the fresh answer."
    ),
    "approval_failed": _reason("approval_failed", "See what the agent's log says of approve=."),
    "approval_late": _reason(
        "approval_late",
        "Answer faster than CACHE_LOOKUP_BUDGET; what is approved later serves the next lookup.",
    ),
    "approval_budget": _reason(
        "approval_budget", "Raise it: glasscache tune set approvals_per_minute=120."
    ),
    "below_threshold": _reason(
        "below_threshold",
        "Try a lower threshold on the recorded lookups: glasscache dashboard, page Tuning.",
    ),
    "not_stored": Cause(
        "the same question was asked before by the same user, and its answer is not stored",
        "Put the answer under the message, user, context and history of the lookup, or use "
        "get_or_compute; the agent's get_metrics()['put_outcomes'] counts what was dropped.",
    ),
    "no_user": Cause(
        "they name no user, and nothing is shared: there is nobody to keep an answer for",
        "Pass the user's id to lookup and put, or share the answers: CACHE_SHARED_INTENTS.",
    ),
    "context": Cause(
        "context= differs each time a question is asked again",
        "Take out of context= what changes with every request (a date, a request id): the agent's "
        "get_metrics()['churn'] names the field.",
    ),
    "history": Cause(
        "history= differs each time a question is asked again",
        "Follow-ups belong to their conversation. Pass standalone=, and no ids or times in turns: "
        "the agent's get_metrics()['churn'] names the field.",
    ),
    "new": Cause(
        "nobody asked these questions before, in these words or similar ones",
        "Warm the cache with known questions (glasscache warm), and see with glasscache replay "
        "what this traffic allows.",
    ),
    "error": Cause("a backend failed", "See the findings on Redis, vectors and the model."),
}


def causes(
    decisions: Iterable[Decision], tuning: Tuning, first: Collection[str] = ()
) -> Counter[str]:
    """Return the number of unanswered lookups by cause, a key of `CAUSES`.

    Args:
        decisions: Lookups of the log, oldest first.
        tuning: The tuning in force.
        first: Reasons that go before all others.
    """
    found: Counter[str] = Counter()
    kept = KEEP_FACTOR * max(tuning.l1_ttl, tuning.l2_ttl)
    for cause, item in _judged(decisions, (*first, *_OF_L1, *_OF_L2), kept):
        found[cause] += round(item.stands_for)
    return found


def _judged(
    decisions: Iterable[Decision], order: tuple[str, ...], kept: float
) -> Iterator[tuple[str, Decision]]:
    seen: dict[tuple[str, ...], float] = {}
    for item in decisions:
        if item.outcome != "hit":
            yield _cause(item, order, seen, kept), item
        asked = (item.message, item.user)
        seen["exact", *asked, item.context, item.history] = item.at
        seen["context", *asked, item.history] = item.at
        seen["history", *asked, item.context] = item.at


def _cause(
    item: Decision, order: tuple[str, ...], seen: Mapping[tuple[str, ...], float], kept: float
) -> str:
    if item.outcome == "error":
        return "error"
    reasons = set(item.reasons)
    nearest = item.unvetoed
    if nearest is None or nearest < item.threshold - _NEAR:
        reasons.discard("below_threshold")
    asked = (item.message, item.user)
    reason = next((name for name in order if name in reasons), "")
    if reason and reason != "below_threshold":
        return reason
    before = seen.get(("exact", *asked, item.context, item.history))
    if before is not None and not item.user:
        return "no_user"
    if before is not None:
        # An entry that is deleted after its TTLs leaves no trace.
        return "expired" if item.at - before > kept else "not_stored"
    if ("context", *asked, item.history) in seen:
        return "context"
    if ("history", *asked, item.context) in seen:
        return "history"
    return reason or "new"
