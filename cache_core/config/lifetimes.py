"""Lifetimes of stored values, in seconds; the TTLs themselves are part of the tuning."""

from __future__ import annotations

from cache_core.config.intents import MAX_TTL
from cache_core.config.tuning import Tuning
from cache_core.model.values import Entry, Level

KEEP_FACTOR = 2.0
"""TTLs for which an entry is kept: it distinguishes `expired` from `cold`, lets a raised TTL affect
stored entries, and permits stale answers."""

TOKEN_SECONDS = KEEP_FACTOR * MAX_TTL + 86_400.0
"""Lifetime of an invalidation's tokens: longer than that of all entries they refer to."""


def kept_seconds(entry: Entry, level: Level, tuning: Tuning) -> float:
    """Return the seconds after its put for which a tier keeps its part of *entry*."""
    return KEEP_FACTOR * (tuning.ttl(level, entry.intent) if entry.ttl is None else entry.ttl)
