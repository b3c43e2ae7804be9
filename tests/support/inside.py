"""Parts of an open cache that its public interface does not show."""

from __future__ import annotations

from cache_core import MultiLevelCache
from cache_core.runtime.open import Open


def inside(cache: MultiLevelCache) -> Open:
    """Return the verbs and parts of a cache; raises `AssertionError` unless it is open."""
    found = cache._serving.cache
    assert isinstance(found, Open), f"{cache.namespace} is not open"
    return found
