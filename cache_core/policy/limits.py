"""Limits of the policy that the tuning must know."""

from __future__ import annotations

LEAST_SIMILARITY = 0.70
"""Similarity below which nothing is served, whatever was learned: an invalidation searches as far
as L2 serves, and must not take everything with it."""

MAX_WRONG = 0.2
"""Greatest share of wrong hits that may be allowed."""
