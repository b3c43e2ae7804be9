"""Overrides of the tuning for single intents, and their names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from cache_core.model import durations
from cache_core.model.exceptions import ConfigurationError
from cache_core.policy.limits import MAX_WRONG

INTENT_PATTERN = re.compile(r"[\w:.-]{1,64}", re.ASCII)
"""Form of an intent label that may be shared or counted: free text may name a person."""

MAX_TTL = 30 * 86_400.0
"""Longest TTL, in seconds: generation tokens outlive twice this."""

MAX_INTENTS = 200
"""Most intents with overrides of their own."""

INTENT_PREFIX = "intent."
"""Prefix of an override's name, `intent.LABEL.FIELD`, wherever single fields are named."""


def label_of(intent: str | None) -> str:
    """Return *intent* if it is a label; else empty."""
    return intent if intent and _is_label(intent) else ""


@lru_cache(4 * MAX_INTENTS)
def _is_label(text: str) -> bool:
    return INTENT_PATTERN.fullmatch(text) is not None


def number(value: Any) -> Any:
    """Return *value*; raise `ValueError` if it is true or false."""
    # JSON's true is not 1
    if isinstance(value, bool):
        msg = "a number is expected, not true or false"
        raise ValueError(msg)  # noqa: TRY004 - pydantic takes no other
    return value


def duration(value: Any) -> Any:
    """Return a duration with a unit, such as `2h`, in seconds, and a number unchanged."""
    return durations.seconds(number(value))


def _labels(found: Mapping[str, IntentTuning]) -> Mapping[str, IntentTuning]:
    for label in found:
        if INTENT_PATTERN.fullmatch(label) is None:
            msg = f"an intent is 1 to 64 letters, digits, '_', '.', ':', '-', not {label!r}"
            raise ValueError(msg)
    return Overrides(found)


def _plain(found: Mapping[str, IntentTuning]) -> dict[str, Any]:
    return {
        label: override.model_dump(mode="json", exclude_none=True)
        for label, override in sorted(found.items())
    }


IntentField = Literal["semantic_threshold", "max_wrong", "l1_ttl", "l2_ttl", "l4_ttl", "shared"]
Ttl = Annotated[float, BeforeValidator(duration), Field(gt=0, le=MAX_TTL, allow_inf_nan=False)]
Share = Annotated[float, BeforeValidator(number), Field(ge=0, le=1, allow_inf_nan=False)]
Wrong = Annotated[float, BeforeValidator(number), Field(ge=0, le=MAX_WRONG, allow_inf_nan=False)]

INTENT_FIELDS: tuple[str, ...] = get_args(IntentField)
"""Fields that an override may change."""


class IntentTuning(BaseModel):
    """Overrides for the answers of one intent; `None` inherits the value for all.

    Attributes:
        semantic_threshold: Lowest similarity at which L2 serves such an answer, 0 to 1.
        max_wrong: Share of the hits with such an answer that may be wrong, 0 to 0.2; 0 for the
            threshold.
        l1_ttl, l2_ttl, l4_ttl: Seconds until such an answer, or its documents, expire.
        shared: Whether every user may get such an answer, overriding *sharing*.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    semantic_threshold: Share | None = None
    max_wrong: Wrong | None = None
    l1_ttl: Ttl | None = None
    l2_ttl: Ttl | None = None
    l4_ttl: Ttl | None = None
    shared: bool | None = None


class Overrides(Mapping[str, IntentTuning]):
    """Overrides by intent in a frozen model: can be copied and pickled, not changed."""

    __slots__ = ("_found",)

    def __init__(self, found: Mapping[str, IntentTuning] | None = None) -> None:
        self._found = dict(found or {})

    def __getitem__(self, label: str) -> IntentTuning:
        return self._found[label]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def __repr__(self) -> str:
        return repr(self._found)


Intents = Annotated[
    Mapping[str, IntentTuning],
    Field(max_length=MAX_INTENTS),
    AfterValidator(_labels),
    PlainSerializer(_plain),
]


def flatten(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return *values* with each override of `intents` under a name of its own.

    Raises:
        ConfigurationError: If `intents` is no mapping of mappings.
    """
    flat = {name: value for name, value in values.items() if name != "intents"}
    intents = values.get("intents") or {}
    if not isinstance(intents, Mapping):
        raise ConfigurationError(f"intents={intents!r} is refused: a mapping is expected")
    for label, override in intents.items():
        if isinstance(override, IntentTuning):
            override = override.model_dump(exclude_none=True)  # noqa: PLW2901
        if not isinstance(override, Mapping):
            raise ConfigurationError(f"intents[{label!r}] is refused: a mapping is expected")
        for name, value in override.items():
            flat[f"{INTENT_PREFIX}{label}.{name}"] = value
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that `flatten` was given."""
    values: dict[str, Any] = {}
    intents: dict[str, dict[str, Any]] = {}
    for name, value in flat.items():
        if name.startswith(INTENT_PREFIX):
            label, _, field = name.removeprefix(INTENT_PREFIX).rpartition(".")
            intents.setdefault(label, {})[field] = value
        else:
            values[name] = value
    return {**values, "intents": intents} if intents else values
