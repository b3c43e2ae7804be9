"""What may change while the cache runs: one frozen, bounded model, swapped whole.

The bounds declared here make the validation, the error message and the dashboard's sliders.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cache_core.exceptions import ConfigurationError
from cache_core.models import Level

INTENT_PATTERN = re.compile(r"[\w:.-]{1,64}", re.ASCII)
"""What an intent label must look like to be shared or counted: free text may name a person."""

MAX_TTL = 30 * 86_400.0
"""The longest TTL, in seconds: generation tokens are made to outlive twice this."""

GuardName = Literal["numbers", "negation"]
Sharing = Literal["private", "intents", "all"]
Ttl = Annotated[float, Field(gt=0, le=MAX_TTL, allow_inf_nan=False)]
Price = Annotated[float, Field(ge=0, le=1_000, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Tuning(BaseModel):
    """The live values. A lookup reads them once, at its start.

    Attributes:
        version: Of the last change; 0 when nobody changed anything.
        semantic_threshold: Least cosine similarity of a semantic hit, 0..1.
        l1_ttl, l2_ttl, l3_ttl, l4_ttl: Seconds until an entry of a tier expires.
        guards: Vetoes on a semantic match.
        sharing: Whose answers everybody may get: nobody's, those of *shared_intents*, or all.
        shared_intents: Intents whose answers are the same for every user.
        response_usd, intent_usd, retrieval_usd: What a cached response, label or retrieval saves.
        embedding_usd: What one embedding costs.
        verify_share: Share of semantic hits that `verify` checks after they were served, 0..1.
        verification_usd: What one such check costs.
        hit_rate_objective: The overall hit rate that the alert holds the cache to, 0..1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = Field(default=0, ge=0)
    semantic_threshold: Share = 0.95
    l1_ttl: Ttl = 3_600.0
    l2_ttl: Ttl = 86_400.0
    l3_ttl: Ttl = 21_600.0
    l4_ttl: Ttl = 43_200.0
    guards: tuple[GuardName, ...] = ("numbers", "negation")
    sharing: Sharing = "private"
    shared_intents: frozenset[str] = frozenset()
    response_usd: Price = 0.03
    intent_usd: Price = 0.001
    retrieval_usd: Price = 0.005
    embedding_usd: Price = 0.0
    verify_share: Share = 0.02
    verification_usd: Price = 0.0
    hit_rate_objective: Share = 0.6

    def ttl(self, level: Level) -> float:
        """Return the TTL of a tier in seconds."""
        match level:
            case "l1":
                return self.l1_ttl
            case "l2":
                return self.l2_ttl
            case "l3":
                return self.l3_ttl
            case "l4":
                return self.l4_ttl

    def shares(self, intent: str | None) -> bool:
        """Whether an answer with *intent* may be read by every user."""
        if self.sharing == "all":
            return True
        return self.sharing == "intents" and intent in self.shared_intents

    def saves(self, level: Level, cost_usd: float | None) -> float:
        """Return what a hit of *level* saves, in USD; an entry's own cost beats the prices."""
        if level == "l3":
            return self.intent_usd
        if level == "l4":
            return self.retrieval_usd
        if cost_usd is not None:
            return cost_usd
        return self.response_usd + self.intent_usd + self.retrieval_usd


def make_tuning(*layers: tuple[str, Mapping[str, Any]]) -> tuple[Tuning, dict[str, str]]:
    """Return the tuning of *layers*, strongest last, and where each given value came from.

    Args:
        *layers: A name for the origin (`"environment"`, ...) and its values.

    Raises:
        ConfigurationError: Naming the field, its origin, the value, the bounds and the default.
    """
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for name, layer in layers:
        values.update(layer)
        origin.update(dict.fromkeys(layer, name))
    try:
        return Tuning(**values), origin
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0]) if first["loc"] else "tuning"
        msg = (
            f"{field}={first['input']!r} (from {origin.get(field, 'unknown')}) is refused: "
            f"{first['msg']}"
        )
        if field in Tuning.model_fields:
            default = Tuning.model_fields[field].default
            msg += f". Correct it there, or leave it out for the default, {default!r}"
        raise ConfigurationError(msg) from None
