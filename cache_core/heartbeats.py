"""What a replica's heartbeat may hold: whoever can write to the store can put anything there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cache_core.stats import CacheStats
from cache_core.stored import are_numbers, are_texts, from_store

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_STATES = ("closed", "open", "half_open")
_COUNTED: Mapping[str, Any] = CacheStats().snapshot()
_SHARING: Mapping[str, Any] = {
    "mode": "", "shared_intents": [], "other_scope_misses": 0, "other_scope_share": 0.0,
    "by_intent": {}, "advice": "",
}  # fmt: skip


def parse(text: str) -> dict[str, Any] | None:
    """Return the heartbeat in *text*, with all that one has; `None` for what is none.

    A replica of another version may know more, which is left out, or less, which is 0 or empty.
    """
    try:
        beat = from_store(text)
        names = [beat["replica"], *beat.get("backends", ()), *beat.get("breakers", ())]
        tuning, origins = beat.get("tuning", {}), beat.get("tuning_origins", {})
        backends, breakers = beat.get("backends", {}), beat.get("breakers", {})
        numbers = {name: beat.get(name, 0) for name in ("pid", "at", "tuning_version")}
        given = beat.get("counters", {})
        counters = {**_like(_COUNTED, given), "sharing": _sharing(given.get("sharing", {}))}
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    sound = (
        all(isinstance(name, str) and _NAME.fullmatch(name) for name in names)
        and all(isinstance(part, dict) for part in (tuning, origins, backends, breakers))
        and are_texts(origins.values())
        and all(isinstance(works, bool) for works in backends.values())
        and all(state in _STATES for state in breakers.values())
        and are_numbers(numbers.values())
    )
    if not sound:
        return None
    return {
        "replica": beat["replica"],
        "pid": int(numbers["pid"]),
        "at": numbers["at"],
        "tuning_version": int(numbers["tuning_version"]),
        "tuning": tuning,
        "tuning_origins": origins,
        "backends": backends,
        "breakers": breakers,
        "counters": counters,
    }


def _like(model: Any, given: Any, name: str = "") -> Any:
    """Return the numbers of *given* under the names of *model*, and raise for anything else."""
    if isinstance(model, Mapping):
        if not isinstance(given, dict):
            raise TypeError(name)
        return {key: _like(part, given.get(key, part), key) for key, part in model.items()}
    if not are_numbers([given]) or (given < 0 and not name.endswith("usd")):
        raise ValueError(name)
    return given


def _sharing(given: Any) -> dict[str, Any]:
    """Return what `sharing_advice` tells, and raise for anything else."""
    if not isinstance(given, dict):
        raise TypeError("sharing")
    found = {name: given.get(name, empty) for name, empty in _SHARING.items()}
    sound = (
        isinstance(found["by_intent"], dict)
        and isinstance(found["shared_intents"], list)
        and are_texts([found["mode"], found["advice"], *found["shared_intents"]])
        and are_numbers([found["other_scope_misses"], found["other_scope_share"]])
        and are_numbers(found["by_intent"].values())
    )
    if not sound:
        raise ValueError("sharing")
    return found
