"""Contract suites of the protocols, for the tests of your own backend: see docs/testing.md.

Importing this package needs pytest and pytest-asyncio; `cache_core.testing` does not.
"""

from __future__ import annotations

import pytest

# Before they are imported, so that a failed assertion shows its values.
pytest.register_assert_rewrite(f"{__name__}.store", f"{__name__}.vectors", f"{__name__}.tier")

from cache_core.testing.contracts.store import StoreContract  # noqa: E402
from cache_core.testing.contracts.tier import TierBench, TierContract  # noqa: E402
from cache_core.testing.contracts.vectors import IndexContract  # noqa: E402

__all__ = ["IndexContract", "StoreContract", "TierBench", "TierContract"]
