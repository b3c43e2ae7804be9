"""Results as callers see them: their fields, in their order, and their text."""

from __future__ import annotations

import pickle

from cache_core.model.values import LookupResult, Sighting


def test_a_result_shows_what_is_of_use() -> None:
    """The sighting is for put alone: kept, compared and pickled, but not shown."""
    sighting = Sighting("a-tag", "ann", None, "12")
    result = LookupResult(None, "faq", None, "partial", lookup_id="r-1", sighting=sighting)
    assert repr(result).startswith("LookupResult(response=None, intent='faq', rag_results=None, ")
    assert "lookup_id='r-1'" in repr(result)
    assert "sighting" not in repr(result)
    assert "a-tag" not in str(result)
    assert result != result._replace(sighting=None)
    assert pickle.loads(pickle.dumps(result)) == result


def test_the_fields_of_a_result_keep_their_order() -> None:
    """Callers may unpack a `LookupResult` or index it: new fields come last."""
    assert LookupResult._fields == (
        "response", "intent", "rag_results", "outcome", "tier", "similarity", "age_seconds",
        "stale", "lookup_id", "reasons", "sighting", "own_ttl", "stored_for",
    )  # fmt: skip
