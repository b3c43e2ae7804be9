"""What beats what: the tuning that several layers of values come to, and where each came from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from cache_core.exceptions import ConfigurationError
from cache_core.intent_tuning import INTENT_PREFIX
from cache_core.tuning import Tuning

CHANGE = "the change"
"""The origin of values that somebody is about to tune."""

Layer = tuple[str, Mapping[str, Any]]
"""A name for where values come from (`"the environment"`, ...), and the values."""


def make_tuning(*layers: Layer, version: int = 0) -> tuple[Tuning, dict[str, str]]:
    """Return the tuning of *layers*, strongest last, and where each given value came from.

    Args:
        *layers: Where values come from.
        version: Of the last change.

    Raises:
        ConfigurationError: Naming the field, its origin, the value, the bounds and the default.
    """
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for name, layer in layers:
        values.update(layer)
        origin.update(dict.fromkeys(layer, name))
    if "shared_intents" in values and "sharing" not in values:
        # Naming intents to share is asking for them to be shared.
        values["sharing"] = "intents"
        origin["sharing"] = "the intents named"
    try:
        return Tuning(**{**values, "version": version}), origin
    except ValidationError as error:
        raise ConfigurationError(_refusal(error, origin)) from None


def _refusal(error: ValidationError, origin: Mapping[str, str]) -> str:
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]] or ["tuning"]
    field = place[0]
    name = INTENT_PREFIX + ".".join(place[1:]) if field == "intents" and place[1:] else field
    msg = (
        f"{name}={first['input']!r} (from {origin.get(field, 'unknown')}) is refused: "
        f"{first['msg']}"
    )
    bounds = Tuning.bounds().get(place[-1] if field == "intents" else field)
    if bounds is None:
        return msg
    msg += f". {bounds.title}: {bounds.expected}"
    if field == "intents" or origin.get(field) == CHANGE:
        return msg
    default = Tuning.model_fields[field].default
    return msg + f". Correct it there, or leave it out for the default, {default!r}"
