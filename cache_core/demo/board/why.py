"""Why the cache answered, or did not: its decisions in words."""

from __future__ import annotations

from cache_core.demo.agent import Served
from cache_core.instrumentation import CacheCall
from cache_core.tuning import Tuning

WHY_WIDTH = 30
"""Columns; no explanation in `WHY` is longer."""

WHY = {
    "cold": "nothing like it asked before",
    "expired": "known, but older than its TTL",
    "invalidated": "known, but invalidated since",
    "other_scope": "another user's answer: private",
    "has_history": "follow-up: exact history only",
    "truncated": "longer than the model reads",
    "unreadable": "characters the model lacks",
    "context_limit": "too many contexts to index",
    "warming": "the model is still loading",
    "corrupt": "what was stored was unreadable",
    "timeout": "a backend took too long",
    "backend_error": "a backend failed",
    "breaker_open": "a backend is down: not asked",
    "overloaded": "too many wait for an embedding",
    "isolation": "of another scope: not served",
    "empty": "nothing was said",
    "too_large": "too large to be cached",
    "disabled": "every tier is switched off",
    "no_user": "nobody to keep it for",
}
_GUARDS = {
    "numbers": "other numbers",
    "negation": "one says not",
    "direction": "the other way round",
}


def why(served: Served, call: CacheCall | None, tuning: Tuning) -> str:
    """Return in words why the cache answered, or why it did not."""
    result = served.result
    if result.tier == "l1":
        shared = tuning.shares(served.request.intent)
        return "same words, shared by all" if shared else "same user, same words"
    if result.tier == "l2" and call is not None:
        if "unconfirmed" in result.reasons:
            return "means the same (unconfirmed)"
        return f"means the same (from {tuning.semantic_threshold:g})"
    return _why_not(call, result.reasons)


def tiers(call: CacheCall | None) -> str:
    """Return the tiers that gave something."""
    parts = call.calls if call is not None else ()
    return " ".join(part.level.upper() for part in parts if part.level and part.outcome == "hit")


def similarity(call: CacheCall | None) -> float | None:
    """Return how near the nearest stored question was, whatever came of it."""
    parts = call.calls if call is not None else ()
    exact = next((part for part in parts if part.level == "l1"), None)
    if exact is not None and exact.outcome == "hit":
        return 1.0
    return next((part.similarity for part in parts if part.level == "l2"), None)


def _why_not(call: CacheCall | None, reasons: tuple[str, ...]) -> str:
    if call is None:
        return WHY.get(reasons[0], reasons[0]) if reasons else ""
    semantic = next((part for part in call.calls if part.level == "l2"), None)
    if semantic is not None and call.reason == semantic.reason:
        if call.reason == "below_threshold":
            return f"nearest question is under {semantic.threshold or 0:g}"
        if call.reason == "guard_veto":
            differs = _GUARDS.get(semantic.guard, semantic.guard)
            return f"alike, but {differs}"
    return WHY.get(call.reason, call.reason)
