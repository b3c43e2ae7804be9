"""Precedence: the tuning that several layers of values combine to, and each value's origin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from cache_core.config.intents import INTENT_PREFIX
from cache_core.config.tuning import Tuning
from cache_core.model.exceptions import ConfigurationError

CHANGE = "the change"
"""Origin of values in a change that is being made."""

Layer = tuple[str, Mapping[str, Any]]
"""Origin of values (`"the environment"`, ...), and the values."""


def make_tuning(*layers: Layer, version: int = 0) -> tuple[Tuning, dict[str, str]]:
    """Return the tuning of *layers*, strongest last, and the origin of each given value.

    Args:
        *layers: Origins with their values.
        version: Version of the last change.

    Raises:
        ConfigurationError: Naming the field, its origin, the value, the bounds and the default.
    """
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for name, layer in layers:
        values.update(layer)
        origin.update(dict.fromkeys(layer, name))
    if "shared_intents" in values and "sharing" not in values:
        # naming intents to share is a request to share them
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
        f"{first['msg'].removeprefix('Value error, ')}"
    )
    bounds = Tuning.bounds().get(place[-1] if field == "intents" else field)
    if bounds is None:
        return msg
    msg += f". {bounds.title}: {bounds.expected}"
    if field == "intents" or origin.get(field) == CHANGE:
        return msg
    default = Tuning.model_fields[field].default
    return msg + f". Correct it there, or leave it out for the default, {default!r}"
