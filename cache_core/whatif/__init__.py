"""What-if: what another threshold, TTL or sharing rule would have done to recorded traffic.

Plain functions over the decision log and the verdicts. Nothing here asks a cache or changes one.
"""

from cache_core.whatif.scopes import SharingEstimate, sharing
from cache_core.whatif.threshold import (
    GRID,
    Recommendation,
    ThresholdEstimate,
    recommend,
    thresholds,
)
from cache_core.whatif.ttl import AgeBin, TtlEstimate, TtlReport, ttls

__all__ = [
    "GRID",
    "AgeBin",
    "Recommendation",
    "SharingEstimate",
    "ThresholdEstimate",
    "TtlEstimate",
    "TtlReport",
    "recommend",
    "sharing",
    "thresholds",
    "ttls",
]
