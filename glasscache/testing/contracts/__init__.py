"""Contract suites, for the tests of your own backend or adapter: see docs/testing.md.

Importing this package needs pytest and pytest-asyncio; `glasscache.testing` does not.
"""

import pytest

# Before it is imported, so that a failed assertion shows its values.
pytest.register_assert_rewrite(f"{__name__}.adapter")

from cache_core.testing.contracts import (  # noqa: E402
    IndexContract,
    StoreContract,
    TierBench,
    TierContract,
)
from glasscache.testing.contracts.adapter import AdapterContract, Ask, Bench  # noqa: E402

__all__ = [
    "AdapterContract",
    "Ask",
    "Bench",
    "IndexContract",
    "StoreContract",
    "TierBench",
    "TierContract",
]
