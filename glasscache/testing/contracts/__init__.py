"""Contract suites, for the tests of your own backend: see docs/testing.md.

Importing this package needs pytest and pytest-asyncio; `glasscache.testing` does not.
"""

from cache_core.testing.contracts import IndexContract, StoreContract, TierBench, TierContract

__all__ = ["IndexContract", "StoreContract", "TierBench", "TierContract"]
