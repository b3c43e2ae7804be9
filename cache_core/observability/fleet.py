"""Replicas of a namespace: their heartbeats in the store, and their common tuning.

Any program with access to the store can write to it, so heartbeats are validated when read.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter

from cache_core.backends.base import Keyed, RowWrite, Write
from cache_core.backends.breaker import State
from cache_core.config.intents import INTENT_PREFIX, unflatten
from cache_core.config.layers import make_tuning
from cache_core.config.live import TUNED
from cache_core.config.tuning import Tuning
from cache_core.model.exceptions import ConfigurationError
from cache_core.model.keys import Keys
from cache_core.model.stored import Flag, Moment, Number, from_store
from cache_core.observability.instruments import CacheState
from cache_core.observability.stats import CacheStats

REPLICAS = "replicas"
"""Name of the namespace's list of replicas."""

_INDEXES = {"chroma", "vectors"}
"""Backends of a replica with L2."""

_BEAT_SECONDS = 10.0
"""Seconds without a heartbeat after which a replica counts as ended."""

_LISTED_SECONDS = 86_400.0
_LISTED = 1_000
_Name = Annotated[str, Field(pattern=r"\A[A-Za-z0-9_-]{1,64}\z")]
_COUNTED: Mapping[str, Any] = CacheStats().snapshot()
_NUMBER: TypeAdapter[float] = TypeAdapter(Number)
_FRESHNESS: TypeAdapter[dict[str, dict[str, float | None]]] = TypeAdapter(
    dict[str, dict[str, Number | None]]
)


class _Sharing(BaseModel):
    """Result of `sharing_advice`."""

    mode: str = ""
    shared_intents: list[str] = []
    other_scope_misses: Number = 0
    other_scope_share: Number = 0.0
    by_intent: dict[str, Number] = {}
    advice: str = ""


class _Heartbeat(BaseModel):
    """Heartbeat of any version: missing fields are 0 or empty, others are ignored."""

    replica: _Name
    pid: Number = 0
    at: Moment = 0
    tuning_version: Number = 0
    tuning: dict[str, Any] = {}
    tuning_origins: dict[str, str] = {}
    backends: dict[_Name, Flag] = {}
    loading: list[_Name] = []
    breakers: dict[_Name, State] = {}
    counters: dict[str, Any] = {}
    dropped: dict[_Name, Number] = {}


@dataclass(frozen=True, slots=True)
class ReplicaReport:
    """Process with an open cache, as described by its last heartbeat.

    Attributes:
        name: Name of the replica.
        pid: Id of its process.
        at: The store's time of the heartbeat.
        tuning_version: Version of the tuning in force there.
        values: The tuning values in force there, flat, as reported.
        tuning: The same; `None` if it reports none, or some that this version rejects.
        origins: Origin of each tuning value.
        backends: Whether each backend works.
        loading: Backends that do not work yet, and will without intervention.
        breakers: The state of each breaker.
        counters: Counts, as from `get_metrics()` there.
        age_seconds: Seconds since the heartbeat.
        dropped: Pieces of work that it lost since it started, per queue.
    """

    name: str
    pid: int
    at: float
    tuning_version: int
    values: Mapping[str, Any]
    tuning: Tuning | None
    origins: Mapping[str, str]
    backends: Mapping[str, bool]
    loading: Sequence[str]
    breakers: Mapping[str, str]
    counters: Mapping[str, Any]
    age_seconds: float
    dropped: Mapping[str, float] = field(default_factory=dict)

    @property
    def works(self) -> dict[str, bool]:
        """State of each backend, without those that still load."""
        return {name: up for name, up in self.backends.items() if name not in self.loading}

    @property
    def serves(self) -> bool:
        """True if it has served lookups: a command or a dashboard never does."""
        return bool(self.counters.get("operations"))


@dataclass(frozen=True, slots=True)
class InForce:
    """Tuning in force where lookups are served.

    Attributes:
        tuning: The tuning; if replicas differ, that of the newest version.
        origins: Origin of each value.
        differing: Fields in which replicas differ.
        replicas: The replicas that are alive.
    """

    tuning: Tuning
    origins: Mapping[str, str]
    differing: frozenset[str] = frozenset()
    replicas: Sequence[ReplicaReport] = field(default_factory=tuple)


class Fleet:
    """Replicas that share a store.

    Args:
        store: Store of the heartbeats.
        keys: Names of the heartbeats.
        own: Name of this replica.
    """

    def __init__(self, store: Keyed, keys: Keys, own: str) -> None:
        self._store = store
        self._keys = keys
        self._own = own

    async def beat(
        self,
        state: CacheState,
        origins: Mapping[str, str],
        counters: Mapping[str, Any],
    ) -> None:
        """Write this replica's heartbeat.

        Args:
            state: Its current state.
            origins: Origin of each value of its tuning.
            counters: Counts, as from `get_metrics()`.

        Raises:
            BackendError: If the store failed.
        """
        now = self._store.now()
        beat = {
            "replica": self._own,
            "pid": os.getpid(),
            "at": now,
            "tuning_version": state.tuning.version,
            "tuning": state.tuning.flat(),
            "tuning_origins": dict(origins),
            "backends": dict(state.backends),
            "loading": list(state.loading),
            "breakers": dict(state.breakers),
            "counters": dict(counters),
            "dropped": dict(state.dropped),
        }
        name = self._name(self._own)
        await self._store.write([Write(name, json.dumps(beat), _BEAT_SECONDS)])
        listed = RowWrite(self._keys.own(REPLICAS), {name: f"{now:.0f}"}, _LISTED_SECONDS, _LISTED)
        await self._store.put_rows([listed])

    async def leave(self) -> None:
        """Delete this replica's heartbeat.

        Raises:
            BackendError: If the store failed.
        """
        await self._store.delete([self._name(self._own)])

    async def others(self) -> list[ReplicaReport]:
        """Return the other replicas that are alive, by name; `BackendError` as `alive`."""
        return [replica for replica in await self.alive() if replica.name != self._own]

    async def alive(self) -> list[ReplicaReport]:
        """Return the replicas that are alive, by name.

        Raises:
            BackendError: If the store failed.
        """
        listed = sorted(await self._store.rows(self._keys.own(REPLICAS)))
        start = self._keys.own("replica-").removesuffix("}")
        names = [name for name in listed if name.startswith(start)]
        now = self._store.now()
        found: list[ReplicaReport] = []
        for name, text in zip(names, await self._store.read(names) if names else (), strict=True):
            replica = None if text is None else parse(text, now)
            if replica is not None and name == self._name(replica.name):
                found.append(replica)
        return found

    async def agreed(self) -> dict[str, Any]:
        """Return the tuning values that the other replicas have in common, as `agreed` does.

        Raises:
            BackendError: If the store failed.
        """
        return agreed(await self.others())

    async def somebody_has_l2(self) -> bool:
        """Return whether another replica that is alive searches for similar questions.

        Raises:
            BackendError: If the store failed.
        """
        return any(_INDEXES & replica.breakers.keys() for replica in await self.others())

    def _name(self, replica: str) -> str:
        return self._keys.own(f"replica-{replica}")


def serving(replicas: Sequence[ReplicaReport]) -> list[ReplicaReport]:
    """Return the replicas that have served lookups; all of them if none has.

    A command or the dashboard is started with other values than the agent is.
    """
    return [replica for replica in replicas if replica.serves] or list(replicas)


def agreed(replicas: Sequence[ReplicaReport]) -> dict[str, Any]:
    """Return the tuning values, flat, that the replicas which serve lookups have in common."""
    reported = [replica.values for replica in serving(replicas) if replica.values]
    if not reported:
        return {}
    first, *rest = reported
    return {
        name: value
        for name, value in first.items()
        if all(name in other and other[name] == value for other in rest)
    }


def in_force(
    replicas: Sequence[ReplicaReport], mine: Tuning, origins: Mapping[str, str]
) -> InForce:
    """Return the tuning in force on the replicas; *mine* while none is alive.

    The values with which an agent was started are known only from its heartbeat. Values tuned at
    runtime are in the store, and override them.

    Args:
        replicas: The replicas that are alive.
        mine: This process's tuning, which was started with other values.
        origins: Origin of each value of *mine*.
    """
    known = serving([replica for replica in replicas if replica.tuning is not None])
    newest = max(known, key=lambda replica: replica.tuning_version, default=None)
    if newest is None or newest.tuning is None:
        return InForce(mine, origins, replicas=replicas)
    tuning = newest.tuning
    if newest.tuning_version < mine.version:
        # It has not reported since the last change.
        tuned = {
            name: value
            for name, value in mine.flat().items()
            if origins.get("intents" if name.startswith(INTENT_PREFIX) else name) == TUNED
        }
        layer = ("replica", unflatten({**tuning.flat(), **tuned}))
        tuning = make_tuning(layer, version=mine.version)[0]
    common, found = agreed(known), dict(origins)
    untuned = [name for name, origin in origins.items() if origin != TUNED and name != "intents"]
    for name in untuned:
        reported = {replica.origins.get(name, "default") for replica in known}
        found[name] = reported.pop() if len(reported) == 1 else "differs by replica"
    differing = frozenset(name for name in untuned if name not in common)
    return InForce(tuning, found, differing, replicas)


def parse(text: str, now: float) -> ReplicaReport | None:
    """Return the replica with the heartbeat *text*, as of *now*; `None` if it is invalid."""
    try:
        beat = _Heartbeat.model_validate(from_store(text))
        sharing = _Sharing.model_validate(beat.counters.get("sharing", {}))
        freshness = _FRESHNESS.validate_python(beat.counters.get("freshness", {}))
        counters = {
            **_like(_COUNTED, beat.counters),
            "sharing": sharing.model_dump(),
            "freshness": freshness,
        }
    except (TypeError, ValueError):
        return None
    version = int(beat.tuning_version)
    return ReplicaReport(
        name=beat.replica,
        pid=int(beat.pid),
        at=beat.at,
        tuning_version=version,
        values=beat.tuning,
        tuning=_tuning(beat.tuning, version),
        origins=beat.tuning_origins,
        backends=beat.backends,
        loading=beat.loading,
        breakers=beat.breakers,
        counters=counters,
        age_seconds=max(0.0, now - beat.at),
        dropped=beat.dropped,
    )


def _tuning(values: Mapping[str, Any], version: int) -> Tuning | None:
    with contextlib.suppress(ConfigurationError, ValueError, TypeError):
        return make_tuning(("replica", unflatten(values)), version=version)[0] if values else None
    return None


def _like(model: Any, given: Any, name: str = "") -> Any:
    """Return the numbers of *given* under the names of *model*; raise for anything else."""
    if isinstance(model, Mapping):
        if not isinstance(given, dict):
            raise TypeError(name)
        return {key: _like(part, given.get(key, part), key) for key, part in model.items()}
    number = _NUMBER.validate_python(given)
    if number < 0 and not name.endswith("usd"):
        raise ValueError(name)
    return given
