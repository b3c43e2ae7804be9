"""Settings that are fixed when a cache starts: addresses, budgets and limits.

An environment variable can set each field: `CACHE_` and the field's name in capitals, besides the
short names: REDIS_URL, CHROMA_URL and those that begin with EMBEDDING_. See `environment.py`.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias
from zoneinfo import ZoneInfoNotFoundError

import platformdirs
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from cache_core.backends.chroma.address import parse_chroma_url
from cache_core.backends.embedder.endpoint import Endpoint
from cache_core.backends.embedder.tokens import UNKNOWN_TOKENIZER
from cache_core.backends.endpoint import check_base
from cache_core.backends.redis.sentinels import SCHEMES, parse_sentinel_url
from cache_core.config import environment
from cache_core.config.capture import wanted
from cache_core.config.tuning import Tuning
from cache_core.model import durations
from cache_core.model.exceptions import ConfigurationError
from cache_core.model.keys import PREFIX
from cache_core.model.question.days import Days
from cache_core.model.urls import has_sound_port
from cache_core.model.values import LEVELS, Level

_REDIS_SCHEMES = ("redis://", "rediss://", "unix://")

TUNING_VARIABLES = (
    "semantic_threshold", "sharing", "shared_intents", "l1_ttl", "l2_ttl", "l3_ttl", "l4_ttl",
    "response_usd", "intent_usd", "retrieval_usd", "embedding_usd", "embedding_tokens_usd",
    "hit_rate_objective", "stale_seconds", "refresh_share", "languages", "prices",
    "approve_margin", "approvals_per_minute", "approval_usd",
)  # fmt: skip
"""Tuning values that the environment may set; the others keep their defaults."""

_LANGUAGES: TypeAdapter[str] = TypeAdapter(Literal["en", "any"])
"""Languages matched by similarity: English alone, or whatever the embedding model knows."""


def _default_directory() -> Path:
    """Return the user's cache directory; without a home, the user's own temporary directory."""
    # platformdirs raises RuntimeError for a user id without a name and without HOME.
    with contextlib.suppress(Exception):
        return Path(platformdirs.user_cache_dir("glasscache", appauthor=False)).absolute()
    owner = os.getuid() if hasattr(os, "getuid") else "cache"
    try:
        temporary = tempfile.gettempdir()
    except OSError:
        temporary = os.sep
    return Path(temporary, f"glasscache-{owner}")


def _parts_of(value: Any) -> Any:
    """Return a comma-separated text as a tuple; any other value unchanged."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _levels_of(value: Any) -> Any:
    return _parts_of(value.lower()) if isinstance(value, str) else value


def _directory(value: Path) -> Path:
    try:
        return value.expanduser().absolute()
    except (RuntimeError, OSError) as error:
        reason = str(error).rstrip(".")
        raise ValueError(f"{reason}; give an absolute path") from None


def _redis_url(value: str | None) -> str | None:
    if not value:
        return None
    if value.startswith(SCHEMES):
        parse_sentinel_url(value)
    elif not (value.startswith(_REDIS_SCHEMES) and has_sound_port(value)):
        raise ValueError(
            "expected redis://host:port/db, rediss://..., unix:///path or "
            "redis+sentinel://host:port,host2:port/name-of-master/db"
        )
    return value


def _chroma_url(value: str | None) -> str | None:
    if value:
        parse_chroma_url(value)
    return value or None


def _endpoint_url(value: str | None) -> str | None:
    if not value:
        return None
    check_base(value, "EMBEDDING_API_KEY")
    return value


def _known_zone(value: str | None) -> str | None:
    try:
        Days(value or None)
    except (ValueError, OSError, ZoneInfoNotFoundError):
        raise ValueError("expected an IANA time zone such as Europe/Berlin or UTC") from None
    return value or None


class UnusableUrl(str):
    """Invalid URL from the environment: its part is off, and logs why.

    Another store instead would miss the invalidations made in the intended one.
    """

    __slots__ = ()


def _unless_unusable(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    return value if isinstance(value, UnusableUrl) else check(value)


def _lowered(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


Vectors: TypeAlias = Literal["auto", "chroma", "redis"]

Seconds: TypeAlias = Annotated[
    float, BeforeValidator(durations.seconds), Field(gt=0, le=60, allow_inf_nan=False)
]


class Settings(BaseModel):
    """Fixed settings of a cache; `glasscache settings` prints those in force."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    redis_url: Annotated[
        str | None, AfterValidator(_redis_url), WrapValidator(_unless_unusable)
    ] = Field(
        default=None,
        description="redis://, rediss://, unix:// or redis+sentinel:// URL; if unset, the "
        "embedded store is used.",
    )
    prefix: str = Field(
        default=PREFIX,
        pattern=r"^[\w:./-]{1,64}$",
        description="Beginning of every key and channel in Redis, before a colon, for an ACL that "
        "requires one. It must be the same wherever answers are shared.",
    )
    chroma_url: Annotated[str | None, AfterValidator(_chroma_url)] = Field(
        default=None,
        description="http:// or https:// URL of a Chroma server, with optional login, path, tenant "
        "and database; if unset, Chroma runs embedded.",
    )
    vectors: Annotated[Vectors, BeforeValidator(_lowered)] = Field(
        default="auto",
        description="Where shared answers are searched by meaning: chroma, redis (vector sets, "
        "Redis 8.2 or later), or auto: a Chroma server if there is one, else vector sets if the "
        "Redis has them, else the embedded Chroma.",
    )
    embedding_model: str = Field(
        default="all-MiniLM-L6-v2",
        min_length=1,
        description="A sentence-transformers model: a name or a directory; with embedding_url the "
        "name of the endpoint's model.",
    )
    embedding_backend: Literal["auto", "onnx", "torch", "http"] = Field(
        default="auto",
        description="Library that runs the model: onnx for all-MiniLM-L6-v2 alone, torch for any, "
        "http for the endpoint of embedding_url; auto is http if that is set, else onnx where it "
        "can be. Their vectors of the same model are not compared.",
    )
    embedding_url: Annotated[str | None, AfterValidator(_endpoint_url)] = Field(
        default=None,
        description="http:// or https:// base URL of an OpenAI-compatible endpoint, such as "
        "https://api.openai.com/v1: /embeddings is appended.",
    )
    embedding_api_key: SecretStr | None = Field(
        default=None,
        description="Key of that endpoint, sent as a bearer token.",
    )
    embedding_window: int | None = Field(
        default=None,
        gt=0,
        le=1_000_000,
        description="Tokens that the endpoint's model reads; default: 256. Longer messages are not "
        "matched by meaning.",
    )
    embedding_tokenizer: str = Field(
        default=UNKNOWN_TOKENIZER,
        min_length=1,
        description="Tokenizer of the endpoint's model: the path of its tokenizer.json; bytes for "
        "a byte-level one, as OpenAI's; unknown matches ASCII messages only. Without a file each "
        "byte is counted as a token.",
    )
    embedding_identity: str = Field(
        default="",
        max_length=200,
        description="Name by which vectors of the endpoint's model are kept, for one model under "
        "several URLs, or another model under the same; default: URL and model.",
    )
    torch_threads: int = Field(
        default=1,
        ge=0,
        le=1_024,
        description="Threads of torch where it runs the model, process-wide; 0 leaves them as "
        "the application set them. With more than 1, an embedding on busy cores may take 40 times "
        "as long.",
    )
    dir: Annotated[Path, AfterValidator(_directory)] = Field(
        default_factory=_default_directory,
        description="Data directory of the embedded parts, created with mode 0700.",
    )
    key: str | None = Field(
        default=None,
        min_length=8,
        repr=False,
        description="Secret of the key digests; default: random, kept in the store.",
    )
    tiers: Annotated[frozenset[Level], BeforeValidator(_levels_of)] = Field(
        default=frozenset(LEVELS), description="The tiers that are on, comma-separated."
    )

    encryption_keys: Annotated[tuple[SecretStr, ...], BeforeValidator(_parts_of)] = Field(
        default=(),
        description="Encryption keys for entries and captured texts at rest, "
        "comma-separated: the first encrypts, all decrypt. Create one: openssl rand -base64 32.",
    )

    timezone: Annotated[str | None, AfterValidator(_known_zone)] = Field(
        default=None,
        description="IANA time zone that days end in, for answers that depend on the day, such as "
        "Europe/Berlin; default: the machine's.",
    )

    exact_budget: Seconds = Field(
        default=0.05, description="Timeout of one Redis or SQLite call, in seconds."
    )
    embedding_budget: Seconds = Field(
        default=0.25, description="Timeout of one embedding, in seconds."
    )
    search_budget: Seconds = Field(
        default=0.15, description="Timeout of one vector search, in seconds."
    )
    lookup_budget: Seconds = Field(default=0.5, description="Timeout of a lookup, in seconds.")
    approve_budget: Seconds = Field(
        default=2.0,
        description="Timeout of one approval, in seconds. A lookup waits for it within its own "
        "budget; one that comes later serves the next lookup.",
    )
    put_budget: Seconds = Field(default=1.0, description="Timeout of a put, in seconds.")
    hedge_delay: Seconds = Field(
        default=0.005, description="Seconds after which the semantic tier stops waiting for L1."
    )

    compute_lease: Annotated[float, BeforeValidator(durations.seconds)] = Field(
        default=5.0,
        ge=0,
        le=60,
        allow_inf_nan=False,
        description="Seconds until others may compute an answer whose computing process died; "
        "renewed while it computes. 0: each process computes for itself.",
    )
    compute_wait: Annotated[float, BeforeValidator(durations.seconds)] = Field(
        default=60.0,
        gt=0,
        le=3_600,
        allow_inf_nan=False,
        description="Longest wait, in seconds, for an answer that another process computes.",
    )

    max_message_bytes: int = Field(
        default=32_768,
        gt=0,
        description="Bytes of the longest message that is looked up; longer ones bypass the cache.",
    )
    max_value_bytes: int = Field(
        default=1_048_576, gt=0, description="Bytes of the largest answer that is stored."
    )
    max_entries: int = Field(
        default=1_000_000,
        gt=0,
        description="Entries of the embedded store; the oldest are evicted.",
    )
    max_bytes: int = Field(
        default=1_073_741_824,
        gt=0,
        description="Bytes of the embedded store; the oldest are evicted.",
    )
    max_contexts: int = Field(
        default=64, gt=0, le=64, description="Most contexts with a vector index."
    )
    decisions: int = Field(default=10_000, ge=0, description="Most lookups in the decision log.")
    capture_message_content: Annotated[bool, BeforeValidator(wanted)] = Field(
        default=False,
        description="Whether spans and the decision log record messages and responses: true, "
        "false, or OpenTelemetry's no_content, span_only, event_only (here: no), span_and_event.",
    )
    trace_background: bool = Field(
        default=False,
        description="Whether instrumented clients, as of Redis, make spans of the cache's "
        "background work: about ten traces a second of an idle cache. The cache that is opened "
        "last decides for its process.",
    )
    otel_metrics: bool = Field(
        default=True,
        description="Whether metrics also go to OpenTelemetry's MeterProvider, where the "
        "application has set one; false where a collector scrapes them as well.",
    )
    heartbeat: bool = Field(
        default=True,
        description="Whether this process reports itself as a replica; commands and the dashboard "
        "do not.",
    )
    breaker_failures: int = Field(default=5, gt=0, description="Failures that open a breaker.")
    breaker_probe: Seconds = Field(default=0.25, description="Pause between probes, in seconds.")

    @property
    def endpoint(self) -> Endpoint | None:
        """The embedding endpoint, if there is one."""
        if self.embedding_url is None:
            return None
        key = self.embedding_api_key
        return Endpoint(
            self.embedding_url,
            None if key is None else key.get_secret_value(),
            # No lookup and no put waits longer for a vector.
            timeout=max(self.embedding_budget, self.put_budget),
            window=self.embedding_window,
            tokenizer=self.embedding_tokenizer,
            identity=self.embedding_identity,
        )

    @model_validator(mode="before")
    @classmethod
    def _with_environment(cls, values: Any) -> Any:
        """Add the environment's values; the caller's own override them."""
        if not isinstance(values, Mapping):
            return values
        others = [name for name in cls.model_fields if name not in values]
        found, refused = _from_environment(others)
        environment.report(refused)
        environment.report(misspelt_lines(), environment.log.warning)
        return {**found, **values}


def _from_environment(fields: Iterable[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the environment's settings, and a line for each invalid variable."""
    fields = list(fields)
    found, refused = environment.accepted(environment.given(fields), _checked)
    if "redis_url" in fields and "redis_url" not in found:
        found.update({v.field: UnusableUrl(v.text) for v in environment.given(["redis_url"])})
    return found, refused


def _checked(field: str, text: str) -> Any:
    info = Settings.model_fields[field]
    form: Any = Annotated[(info.annotation, field, *info.metadata)]
    return TypeAdapter(form).validate_python(text)


def tuning_environment() -> dict[str, Any]:
    """Return the environment's tuning values; log the invalid ones."""
    found, refused = _tuning_from_environment()
    environment.report(refused)
    return found


def _tuning_from_environment() -> tuple[dict[str, Any], list[str]]:
    given = environment.given(TUNING_VARIABLES)
    found, refused = environment.accepted(given, _checked_tuning, _expected)
    if found.pop("languages", "en") == "any":
        guards = Tuning.model_fields["guards"].default
        found["guards"] = tuple(name for name in guards if name != "language")
    return found, refused


def _checked_tuning(field: str, text: str) -> Any:
    if field == "languages":
        return _LANGUAGES.validate_python(text.lower())
    value = _parts_of(text) if field in {"shared_intents", "prices"} else text
    return getattr(Tuning.model_validate({field: value}), field)


def _expected(field: str) -> str:
    """Return a variable's bounds, as an addition to the error."""
    bounds = Tuning.bounds().get(field)
    return f" ({bounds.title}: {bounds.expected})" if bounds is not None else ""


def refused_variables() -> list[str]:
    """Return a line for each environment variable that is invalid, and ignored."""
    return [*_from_environment(Settings.model_fields)[1], *_tuning_from_environment()[1]]


def misspelt_variables() -> dict[str, str]:
    """Return the environment variables that are not read, with the name that was probably meant."""
    return environment.misspelt([*Settings.model_fields, *TUNING_VARIABLES])


def misspelt_lines() -> list[str]:
    """Return a line for each variable of `misspelt_variables`."""
    return [
        f"{name} is not read: did you mean {meant}?" for name, meant in misspelt_variables().items()
    ]


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
        shown = environment.shown(name, first["input"])
        raise ConfigurationError(f"setting {name}={shown} is refused: {why}") from None
