"""What a cache does beside answering: flush, sweep, probe, retry, tell how it is.

Each duty goes round by itself, so that a backend that is slow delays nobody but those that need it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import json
import logging
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from cache_core.contexts import ContextWatch
from cache_core.exceptions import BackendError
from cache_core.heartbeats import parse
from cache_core.instrumentation import CacheState, Instruments
from cache_core.invalidation import Invalidator
from cache_core.live_tuning import LiveTuning
from cache_core.logs import RateLimited
from cache_core.models import Level
from cache_core.parts import Parts
from cache_core.remedies import tell
from cache_core.stores.base import RowWrite, Write

log = RateLimited(logging.getLogger("glasscache"))

TICK = 0.25
"""Seconds between flushes of the decision log, and between probes of a backend that is down."""

HEARTBEAT_TTL = 10.0
REPLICAS = "replicas"
_SECOND = 1.0

RENEWED_SECONDS = 60.0
"""How often it is said what still waits for a vector index: well before that is forgotten."""

_COUNT_SECONDS = 5.0


class Housekeeper:
    """The background duties of a cache.

    Args:
        parts: Of the cache.
        invalidator: Has invalidations to retry and to apply.
        instruments: Told the state every second.
        replica: Name of this process.
        live: Has the tuning in force.
        counters: Returns what was counted so far, as JSON values.
        contexts: Knows which context key churns.
        lost_checks: Returns how many verifications were not made.
        heartbeat: Whether to tell the other processes of this one.
        adopt: Makes the invalidations that other processes left.
        lost: Returns what else was dropped, per queue.
    """

    def __init__(
        self,
        parts: Parts,
        invalidator: Invalidator,
        instruments: Instruments,
        replica: str,
        live: LiveTuning,
        counters: Callable[[], Mapping[str, Any]],
        contexts: ContextWatch,
        lost_checks: Callable[[], int],
        heartbeat: bool = True,
        adopt: Callable[[], Awaitable[None]] | None = None,
        lost: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        self._parts = parts
        self._invalidator = invalidator
        self._instruments = instruments
        self._replica = replica
        self._live = live
        self._counters = counters
        self._contexts = contexts
        self._lost_checks = lost_checks
        self._heartbeat = heartbeat
        self._adopt = adopt
        self._lost = lost
        self._entries: dict[Level, int] = {}
        self._next_count = 0.0
        self._tasks: list[asyncio.Task[None]] = []
        self._warned_contexts = False

    def start(self) -> None:
        """Begin; no task carries the starter's context, so that no span lasts for ever."""
        store = self._parts.store
        duties: list[tuple[str, Callable[[], Awaitable[Any]], Callable[[], float]]] = [
            ("decisions", self._parts.decisions.flush, lambda: TICK),
            ("store", store.tend, lambda: TICK if store.breaker.state != "closed" else _SECOND),
            ("retry", self._invalidator.steps.retry, lambda: TICK),
            ("invalidations", self._follow_invalidations, lambda: TICK),
            ("secret", self._keep_secret, lambda: _COUNT_SECONDS),
            ("report", self._report, lambda: _SECOND),
        ]
        if self._heartbeat:
            duties.append(("heartbeat", self._beat, lambda: _SECOND))
            duties.append(("adopt", self._adopt_unconfirmed, lambda: _COUNT_SECONDS))
        if self._parts.semantic is not None:
            duties += [
                ("semantic", self._tend_semantic, lambda: _SECOND),
                ("feed", self._apply_feed, lambda: _SECOND),
                ("arriving", self._parts.semantic.tier.keep_findable, lambda: RENEWED_SECONDS),
            ]
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(
                self._go_round(work, pause),
                name=f"glasscache-{name}",
                context=contextvars.Context(),
            )
            for name, work, pause in duties
        ]

    async def close(self) -> None:
        """Stop, and say goodbye."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._heartbeat:
            with contextlib.suppress(BackendError):
                await self._parts.store.delete([self._heartbeat_name()])

    async def _go_round(
        self, work: Callable[[], Awaitable[Any]], pause: Callable[[], float]
    ) -> None:
        while True:
            await self._quietly(work)
            await asyncio.sleep(pause())

    async def _quietly(self, work: Callable[[], Awaitable[Any]]) -> None:
        try:
            await work()
        except BackendError as error:
            tell("a backend is away", error)
        except Exception as error:  # noqa: BLE001 - the next tick tries again
            log.limited(
                "housekeeping", "housekeeping: unexpected %s: %s", type(error).__name__, error
            )

    async def _report(self) -> None:
        self._instruments.report(self.state())

    async def _adopt_unconfirmed(self) -> None:
        if self._adopt is not None and self._parts.store.breaker.state == "closed":
            await self._adopt()

    async def _follow_invalidations(self) -> None:
        await self._parts.recent.catch_up()
        await self._invalidator.search_for_others(self._live.current)

    async def _apply_feed(self) -> None:
        await self._invalidator.apply(self._live.current)

    async def _tend_semantic(self) -> None:
        semantic = self._parts.semantic
        if semantic is None:
            return
        await semantic.index.tend(self._parts.store.now())
        await semantic.tier.tend()
        now = asyncio.get_running_loop().time()
        if now >= self._next_count:
            self._next_count = now + _COUNT_SECONDS
            self._entries["l2"] = await semantic.index.count()
        if semantic.tier.refused_contexts and not self._warned_contexts:
            self._warned_contexts = True
            logging.getLogger("glasscache").warning(
                "more contexts than a namespace may have vector indexes: L2 is skipped for the "
                "others. Leave what changes with every request out of context=; the key with the "
                "most values is %r",
                self._contexts.churning(),
            )

    async def _keep_secret(self) -> None:
        if not await self._parts.secret.keep(self._parts.store):
            log.limited(
                "secret",
                "the store lost the secret of the keys and another replica made a new one: "
                "restart this one to share answers with it, or set CACHE_KEY for all",
            )

    async def _beat(self) -> None:
        now = self._parts.store.now()
        state = self.state()
        beat = {
            "replica": self._replica,
            "pid": os.getpid(),
            "at": now,
            "tuning_version": state.tuning.version,
            "tuning": state.tuning.flat(),
            "tuning_origins": dict(self._live.origins),
            "backends": dict(state.backends),
            "breakers": dict(state.breakers),
            "counters": dict(self._counters()),
        }
        name = self._heartbeat_name()
        await self._parts.store.write([Write(name, json.dumps(beat), HEARTBEAT_TTL)])
        record = {name: f"{now:.0f}"}
        await self._parts.store.put_rows(
            [RowWrite(self._parts.keys.own(REPLICAS), record, 86_400.0, 1_000)]
        )

    def _heartbeat_name(self) -> str:
        return self._parts.keys.own(f"replica-{self._replica}")

    def state(self) -> CacheState:
        """Return how the cache is now."""
        breakers = self._parts.breakers
        backends = {name: breaker.state == "closed" for name, breaker in breakers.items()}
        semantic = self._parts.semantic
        if semantic is not None:
            backends["embedder"] = backends["embedder"] and semantic.embedder.ready
            backends["chroma"] = backends["chroma"] and semantic.chroma.connected
        backends.update(dict.fromkeys(self._parts.missing, False))
        return CacheState(
            backends=backends,
            breakers={name: breaker.state for name, breaker in breakers.items()},
            entries=dict(self._entries),
            tuning=self._live.current,
            pending_invalidations=self._invalidator.steps.pending,
            dropped={
                "decisions": self._parts.decisions.dropped,
                **self._lost(),
                "semantic_puts": semantic.tier.dropped if semantic is not None else 0,
                "verification": self._lost_checks(),
                "vectors": semantic.chroma.dropped if semantic is not None else 0,
            },
        )


async def replicas(parts: Parts) -> list[dict[str, Any]]:
    """Return the heartbeats of the replicas that are alive, oldest name first.

    Raises:
        BackendError: If the store cannot be asked.
    """
    listed = sorted(await parts.store.rows(parts.keys.own(REPLICAS)))
    start = parts.keys.own("replica-").removesuffix("}")
    names = [name for name in listed if name.startswith(start)]
    found: list[dict[str, Any]] = []
    for name, text in zip(names, await parts.store.read(names) if names else (), strict=True):
        if text is None:
            continue
        beat = parse(text)
        if beat is not None and name == parts.keys.own(f"replica-{beat['replica']}"):
            found.append(beat)
    return found


async def somebody_has_l2(parts: Parts) -> bool:
    """Whether a replica that is alive looks for similar questions; `BackendError` as `replicas`."""
    return any("chroma" in (beat.get("breakers") or ()) for beat in await replicas(parts))


def agreed(beats: Sequence[Mapping[str, Any]], besides: str) -> dict[str, Any]:
    """Return the tuning values, flat, that the replicas which serve lookups have in common.

    A command or the tuner is started with other values than the agent is, and serves no lookups.

    Args:
        beats: Heartbeats.
        besides: The replica that asks.
    """
    others = serving([beat for beat in beats if beat.get("replica") != besides])
    values = [beat["tuning"] for beat in others if isinstance(beat.get("tuning"), dict)]
    if not values:
        return {}
    first, *rest = values
    return {
        name: value
        for name, value in first.items()
        if all(name in other and other[name] == value for other in rest)
    }


def serving(beats: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the replicas that have served lookups; all of them if none has."""
    return [beat for beat in beats if _lookups(beat)] or list(beats)


def _lookups(beat: Mapping[str, Any]) -> bool:
    counters = beat.get("counters")
    return isinstance(counters, Mapping) and bool(counters.get("operations"))
