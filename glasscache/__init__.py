"""glasscache: the cache for LLM agents that you can see through.

`glasscache.telemetry` has metrics and spans, `glasscache.testing` doubles for tests, and
`glasscache.integrations` the agent frameworks. The names here are those of `cache_core`.
"""

from cache_core import (
    Answer,
    BackendError,
    CacheStats,
    ConfigurationError,
    CrossEncoderApprover,
    FunctionEmbedder,
    GlasscacheError,
    Invalidation,
    LLMApprover,
    LookupResult,
    MultiLevelCache,
    Opinion,
    Settings,
    Stage,
    TierExplanation,
    Tuning,
    __version__,
    close_cache,
    get_cache,
)

__all__ = [
    "Answer",
    "BackendError",
    "CacheStats",
    "ConfigurationError",
    "CrossEncoderApprover",
    "FunctionEmbedder",
    "GlasscacheError",
    "Invalidation",
    "LLMApprover",
    "LookupResult",
    "MultiLevelCache",
    "Opinion",
    "Settings",
    "Stage",
    "TierExplanation",
    "Tuning",
    "__version__",
    "close_cache",
    "get_cache",
]
