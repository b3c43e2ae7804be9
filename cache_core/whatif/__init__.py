"""Replay of recorded traffic with another threshold, policy, TTL or sharing rule.

Pure functions of the decision log and the verdicts, which neither read nor change a cache.
"""

from cache_core.whatif.scopes import SharingEstimate, sharing
from cache_core.whatif.shadow import Judged, ShadowEstimate, shadows, shadows_by_intent
from cache_core.whatif.threshold import (
    GRID,
    Recommendation,
    ThresholdEstimate,
    recommend,
    thresholds,
)
from cache_core.whatif.ttl import (
    AgeBin,
    TtlEstimate,
    TtlRecommendation,
    TtlReport,
    recommend_ttl,
    ttls,
)

__all__ = [
    "GRID",
    "AgeBin",
    "Judged",
    "Recommendation",
    "ShadowEstimate",
    "SharingEstimate",
    "ThresholdEstimate",
    "TtlEstimate",
    "TtlRecommendation",
    "TtlReport",
    "recommend",
    "recommend_ttl",
    "shadows",
    "shadows_by_intent",
    "sharing",
    "thresholds",
    "ttls",
]
