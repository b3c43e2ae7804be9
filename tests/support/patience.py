"""Settings for tests that are not about time: a busy machine must not turn into an outcome."""

from __future__ import annotations

PATIENT = {
    "exact_budget": 10.0,
    "embedding_budget": 10.0,
    "search_budget": 10.0,
    "lookup_budget": 20.0,
    "approve_budget": 60.0,
    "put_budget": 20.0,
}
