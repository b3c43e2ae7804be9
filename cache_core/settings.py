"""What is fixed when a cache starts: where its parts live and how long each may take.

Every field can be given by an environment variable: `CACHE_` and the field's name in capitals,
besides the three short names: REDIS_URL, CHROMA_URL and EMBEDDING_MODEL.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import platformdirs
from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from cache_core.capture import wanted
from cache_core.exceptions import ConfigurationError
from cache_core.models import LEVELS, Level

_REDIS_SCHEMES = ("redis://", "rediss://", "unix://")
_SECRET_ARGUMENT = re.compile(
    r"([?&;][^=&;#]*(?:pass|pwd|secret|token|credential|auth|api_?key)[^=&;#]*=)[^&#]*",
    re.IGNORECASE,
)

Seconds = Annotated[float, Field(gt=0, le=60, allow_inf_nan=False)]


def _default_directory() -> Path:
    return Path(platformdirs.user_cache_dir("glasscache", appauthor=False))


def _has_sound_port(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def without_secrets(url: str) -> str:
    """Return *url* as it may be printed: neither user nor password, before the host or as `?...=`.

    What is no URL is masked, too: it may be one that was mistyped.
    """
    url = _SECRET_ARGUMENT.sub(r"\1***", url)
    scheme, border, rest = url.partition("://") if "://" in url else ("", "", url)
    _, at, place = rest.rpartition("@")
    return f"{scheme}{border}***@{place}" if at else url


class Settings(BaseSettings):
    """Fixed settings of a cache; `glasscache settings` prints those in force."""

    model_config = SettingsConfigDict(
        env_prefix="CACHE_", frozen=True, extra="forbid", populate_by_name=True
    )

    redis_url: str | None = Field(
        default=None,
        validation_alias=AliasChoices("redis_url", "CACHE_REDIS_URL", "REDIS_URL"),
        description="redis://, rediss:// or unix:// URL; without one the embedded store is used.",
    )
    chroma_url: str | None = Field(
        default=None,
        validation_alias=AliasChoices("chroma_url", "CACHE_CHROMA_URL", "CHROMA_URL"),
        description="http(s):// URL of a `chroma run` server; without one Chroma runs embedded.",
    )
    embedding_model: str = Field(
        default="all-MiniLM-L6-v2",
        min_length=1,
        validation_alias=AliasChoices(
            "embedding_model", "CACHE_EMBEDDING_MODEL", "EMBEDDING_MODEL"
        ),
        description="A sentence-transformers model: a name or a directory.",
    )
    torch_threads: int = Field(
        default=1,
        ge=0,
        le=1_024,
        description="Threads of torch, in the whole process; 0 leaves torch as the application "
        "has set it. With more than 1, an embedding on busy cores may take 40 times as long.",
    )
    dir: Path = Field(
        default_factory=_default_directory,
        description="Data directory of the embedded parts, created with mode 0700.",
    )
    key: str | None = Field(
        default=None,
        min_length=8,
        repr=False,
        description="Secret of the key digests; default: random, kept in the store.",
    )
    tiers: Annotated[frozenset[Level], NoDecode] = Field(
        default=frozenset(LEVELS), description="The tiers that are on, comma-separated."
    )

    encryption_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        default=(),
        description="Keys that entries and captured texts are encrypted with at rest, "
        "comma-separated: the first encrypts, all decrypt. Each: openssl rand -base64 32.",
    )

    exact_budget: Seconds = Field(default=0.05, description="Seconds for a keyed round trip.")
    embedding_budget: Seconds = Field(default=0.25, description="Seconds for one embedding.")
    search_budget: Seconds = Field(default=0.15, description="Seconds for one vector search.")
    lookup_budget: Seconds = Field(default=0.5, description="Seconds for a whole lookup.")
    put_budget: Seconds = Field(default=1.0, description="Seconds for a whole put.")
    hedge_delay: Seconds = Field(
        default=0.005, description="Seconds after which the semantic tier stops waiting for L1."
    )

    compute_lease: float = Field(
        default=5.0,
        ge=0,
        le=60,
        allow_inf_nan=False,
        description="Seconds after which others compute an answer when the process that computes "
        "it for all died; renewed while it computes. 0: each process computes for itself.",
    )
    compute_wait: float = Field(
        default=60.0,
        gt=0,
        le=3_600,
        allow_inf_nan=False,
        description="Seconds to wait at most for the answer that another process computes.",
    )

    max_message_bytes: int = Field(default=32_768, gt=0, description="Longer ones bypass.")
    max_value_bytes: int = Field(default=1_048_576, gt=0, description="Larger ones are not put.")
    max_entries: int = Field(
        default=1_000_000, gt=0, description="Entries in the embedded store; the oldest go first."
    )
    max_bytes: int = Field(
        default=1_073_741_824, gt=0, description="Bytes of the embedded store; as above."
    )
    max_contexts: int = Field(
        default=64, gt=0, le=64, description="Contexts that may have a vector index."
    )
    decisions: int = Field(default=10_000, ge=0, description="Lookups the decision log keeps.")
    capture_message_content: bool = Field(
        default=False,
        validation_alias=AliasChoices(
            "capture_message_content",
            "CACHE_CAPTURE_MESSAGE_CONTENT",
            "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT",
        ),
        description="Whether spans and the decision log carry messages and responses: true, false, "
        "or as OpenTelemetry says it: no_content, span_only, event_only (here: no), "
        "span_and_event.",
    )
    heartbeat: bool = Field(
        default=True,
        description="Whether this process reports itself as a replica; what only looks does not.",
    )
    breaker_failures: int = Field(default=5, gt=0, description="Failures that open a breaker.")
    breaker_probe: Seconds = Field(default=0.25, description="Seconds between probes when open.")

    @field_validator("tiers", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return frozenset(part.strip().lower() for part in value.split(",") if part.strip())
        return value

    @field_validator("encryption_keys", mode="before")
    @classmethod
    def _split_keys(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("capture_message_content", mode="before")
    @classmethod
    def _as_convention(cls, value: Any) -> Any:
        return wanted(value)

    @field_validator("redis_url")
    @classmethod
    def _redis_scheme(cls, value: str | None) -> str | None:
        if value and not (value.startswith(_REDIS_SCHEMES) and _has_sound_port(value)):
            msg = "expected redis://host:port/db, rediss://... or unix:///path"
            raise ValueError(msg)
        return value or None

    @field_validator("chroma_url")
    @classmethod
    def _chroma_scheme(cls, value: str | None) -> str | None:
        if value and not value.startswith(("http://", "https://")):
            msg = "expected http://host:port or https://host:port"
            raise ValueError(msg)
        return value or None


class TuningEnvironment(BaseSettings):
    """The tuning values that an environment may set; the others stay at their defaults."""

    model_config = SettingsConfigDict(env_prefix="CACHE_", extra="ignore")

    semantic_threshold: str | None = Field(
        default=None,
        validation_alias=AliasChoices("CACHE_SEMANTIC_THRESHOLD", "SEMANTIC_THRESHOLD"),
    )
    sharing: str | None = None
    shared_intents: Annotated[frozenset[str], NoDecode] = frozenset()
    l1_ttl: str | None = None
    l2_ttl: str | None = None
    l3_ttl: str | None = None
    l4_ttl: str | None = None
    response_usd: str | None = None
    intent_usd: str | None = None
    retrieval_usd: str | None = None
    embedding_usd: str | None = None
    hit_rate_objective: str | None = None
    stale_seconds: str | None = None
    refresh_share: str | None = None

    @field_validator("shared_intents", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return frozenset(part.strip() for part in value.split(",") if part.strip())
        return value

    def given(self) -> dict[str, Any]:
        """Return what the environment really set."""
        return {name: value for name, value in self.model_dump().items() if value}


def load_settings(**values: Any) -> Settings:
    """Return the settings of the environment, overridden by *values* that are not `None`.

    Raises:
        ConfigurationError: Naming the field, the value and what is expected.
    """
    try:
        return Settings(**{name: value for name, value in values.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "settings"
        why = first["msg"].removeprefix("Value error, ")
        msg = f"setting {name}={_shown(name, first['input'])} is refused: {why}"
        raise ConfigurationError(msg) from None


def _shown(name: str, value: object) -> str:
    if name.lower().removeprefix("cache_") == "key":
        return "***"
    if name.lower().endswith("_url") and isinstance(value, str):
        return repr(without_secrets(value))
    return repr(value)
