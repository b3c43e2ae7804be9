"""A replica as its heartbeat tells of it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cache_core.exceptions import ConfigurationError
from cache_core.intent_tuning import INTENT_PREFIX, unflatten
from cache_core.tuning import Tuning
from cache_core.tuning_layers import make_tuning


@dataclass(frozen=True, slots=True)
class Replica:
    """A process with an open cache.

    Attributes:
        name: Of the replica.
        pid: Of its process.
        tuning_version: In force there.
        tuning: In force there; `None` if it does not say.
        backends: Whether each works.
        breakers: The state of each breaker.
        counters: As `get_metrics()` there.
        age_seconds: Since it last said so.
    """

    name: str
    pid: int
    tuning_version: int
    tuning: Tuning | None
    backends: Mapping[str, bool]
    breakers: Mapping[str, str]
    counters: Mapping[str, Any]
    age_seconds: float


def replica(beat: Mapping[str, Any], now: float) -> Replica:
    """Return the replica whose heartbeat is *beat*, as `heartbeats.parse` returns it."""
    values, version = None, beat["tuning_version"]
    # A replica of another version may have other fields.
    with contextlib.suppress(ConfigurationError, ValueError, TypeError):
        values = make_tuning(("replica", unflatten(beat["tuning"])), version=version)[0]
    return Replica(
        name=beat["replica"],
        pid=beat["pid"],
        tuning_version=version,
        tuning=values,
        backends=beat["backends"],
        breakers=beat["breakers"],
        counters=beat["counters"],
        age_seconds=max(0.0, now - beat["at"]),
    )


def in_force(alive: Sequence[Replica], mine: Tuning, origins: Mapping[str, str]) -> Tuning:
    """Return the values in force on the replicas.

    Args:
        alive: The replicas.
        mine: As this process sees them, which was started with other values than they.
        origins: Where each of *mine* comes from.
    """
    known = [item for item in alive if item.tuning is not None]
    # A command serves no lookups, and was started with other values than the agent.
    serving = [item for item in known if item.counters.get("operations")] or known
    newest = max(serving, key=lambda item: item.tuning_version, default=None)
    if newest is None or newest.tuning is None:
        return mine
    if newest.tuning_version >= mine.version:
        return newest.tuning
    # It has not reported since the last change.
    tuned = {
        name: value
        for name, value in mine.flat().items()
        if origins.get("intents" if name.startswith(INTENT_PREFIX) else name) == "tuned"
    }
    layers = ("replica", unflatten({**newest.tuning.flat(), **tuned}))
    return make_tuning(layers, version=mine.version)[0]
