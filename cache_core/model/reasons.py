"""Reasons why a lookup was not answered, in words: the one table for every surface."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class InWords(NamedTuple):
    """Texts of a reason.

    Attributes:
        short: Text for a chart, a badge or a column: 30 characters at most.
        long: Text for an explanation: without a capital letter and without a full stop.
    """

    short: str
    long: str


REASONS: Mapping[str, InWords] = {
    "cold": InWords("nothing stored", "nothing is stored for it"),
    "expired": InWords("expired", "what is stored is older than its TTL"),
    "invalidated": InWords("invalidated", "what is stored was invalidated"),
    "other_scope": InWords(
        "another user has it",
        "another user has an answer to this very message; it is private to them",
    ),
    "below_threshold": InWords("not similar enough", "the nearest question is not similar enough"),
    "unsure": InWords(
        "not sure enough", "the nearest question's answer may be wrong for more than max_wrong"
    ),
    "guard_veto": InWords(
        "vetoed by a guard", "a similar question differs in something that matters"
    ),
    "has_history": InWords(
        "a follow-up", "a follow-up is not matched by similarity; give standalone= to do so"
    ),
    "truncated": InWords(
        "too long for the model", "the message is longer than the embedding model reads"
    ),
    "unreadable": InWords(
        "not understood",
        "not understood, so similarity means nothing: signs that the model does not know, another "
        "language than English, or a similar question that differs in unknown words",
    ),
    "context_limit": InWords(
        "too many contexts", "there are too many contexts for another vector index"
    ),
    "warming": InWords("model still loading", "the embedding model is still loading"),
    "corrupt": InWords("unreadable entry", "what was stored could not be read"),
    "day_over": InWords(
        "its day is over",
        "what is stored was true for a day that has ended, in the zone of CACHE_TIMEZONE",
    ),
    "too_old": InWords(
        "older than max_age", "what is stored is older than the max_age= that the caller allows"
    ),
    "left_out": InWords(
        "not stored when put",
        "it was put but not stored: too large, or documents of a type that cannot be restored; the "
        "log of the process that put it names the type",
    ),
    "timeout": InWords("timeout", "a backend took longer than its budget"),
    "backend_error": InWords("backend failed", "a backend failed"),
    "breaker_open": InWords("backend is down", "a backend is unavailable and was not asked"),
    "overloaded": InWords("overloaded", "more was asked than could be embedded in time"),
    "isolation": InWords(
        "isolation stopped it",
        "a backend returned what is of another scope; it was not served",
    ),
    "empty": InWords("empty message", "the message is empty"),
    "too_large": InWords("too large to be cached", "the message is too large to be cached"),
    "disabled": InWords("every tier is off", "every tier is off"),
    "no_user": InWords("no user to keep it for", "there is no user to keep the answer for"),
    "not_users_turn": InWords(
        "not the user's turn", "the last turn is not the user's, as within the steps of an agent"
    ),
    "not_text": InWords(
        "a picture or a file", "a turn has more than text: a picture, file or sound"
    ),
    "stateful": InWords(
        "state at the provider", "the provider keeps a part of the conversation, which is not seen"
    ),
    "several_answers": InWords("several answers", "more than one answer was requested"),
    "opaque": InWords(
        "a parameter is opaque", "a parameter of the request has no value that can be compared"
    ),
    "declined": InWords(
        "declined", "the caller asked for a new answer, or for nothing to be stored"
    ),
    "not_approved": InWords(
        "rejected by the approver", "the nearest question's answer was in doubt, and was rejected"
    ),
    "approval_failed": InWords(
        "the approver failed", "the nearest question's answer was in doubt, and the approver failed"
    ),
    "approval_late": InWords(
        "the approver was late",
        "the nearest question's answer was in doubt, and was not approved in time",
    ),
    "approval_budget": InWords(
        "no approvals left",
        "the nearest question's answer was in doubt, and approvals_per_minute were used up",
    ),
    "approved": InWords("approved", "it was in doubt and was approved before it was served"),
    "unconfirmed": InWords("unconfirmed", "its generation could not be read"),
}
"""Texts of every `Reason`: of misses, errors and bypasses, and of some hits."""


def short(reason: str) -> str:
    """Return a reason in a few words; an unknown one, of a newer version, unchanged."""
    return REASONS[reason].short if reason in REASONS else reason


def long(reason: str) -> str:
    """Return the explanation of a reason; empty if it is unknown."""
    return REASONS[reason].long if reason in REASONS else ""
