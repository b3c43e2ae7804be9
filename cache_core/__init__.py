"""glasscache: the cache for LLM agents that you can see through."""

from cache_core.backends.approver.base import Opinion
from cache_core.backends.approver.cross_encoder import CrossEncoderApprover
from cache_core.backends.approver.llm import LLMApprover
from cache_core.backends.embedder.function import FunctionEmbedder
from cache_core.config.settings import Settings
from cache_core.config.stage import Stage
from cache_core.config.tuning import Tuning
from cache_core.model.exceptions import BackendError, ConfigurationError, GlasscacheError
from cache_core.model.values import Answer, Invalidation, LookupResult, TierExplanation
from cache_core.multilevel_cache import MultiLevelCache, close_cache, get_cache
from cache_core.observability.stats import CacheStats

__version__ = "0.2.0"

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
    "close_cache",
    "get_cache",
]
