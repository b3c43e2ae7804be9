"""The names that `cache_core` exports."""

from __future__ import annotations

import cache_core


def test_the_public_names_exist() -> None:
    """Everything in __all__ can be imported."""
    assert all(hasattr(cache_core, name) for name in cache_core.__all__)
