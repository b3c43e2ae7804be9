"""What a cache does beside answering: flush, sweep, probe, retry, tell how it is."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import json
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from cache_core.contexts import ContextWatch
from cache_core.exceptions import BackendError
from cache_core.instrumentation import CacheState, Instruments
from cache_core.invalidation import Invalidator
from cache_core.logs import RateLimited
from cache_core.models import Level
from cache_core.parts import Parts
from cache_core.stores.base import RowWrite, Write
from cache_core.tuning import Tuning

log = RateLimited(logging.getLogger("glasscache"))

TICK = 0.25
"""Seconds between flushes of the decision log, and between probes of a backend that is down."""

HEARTBEAT_TTL = 10.0
REPLICAS = "replicas"
_TICKS_PER_SECOND = 4
_TICKS_PER_COUNT = 20


class Housekeeper:
    """The one background task of a cache.

    Args:
        parts: Of the cache.
        invalidator: Has invalidations to retry and to apply.
        instruments: Told the state every second.
        replica: Name of this process.
        tuning: Returns the tuning in force.
        counters: Returns what was counted so far, as JSON values.
        contexts: Knows which context key churns.
        lost_checks: Returns how many verifications were not made.
    """

    def __init__(
        self,
        parts: Parts,
        invalidator: Invalidator,
        instruments: Instruments,
        replica: str,
        tuning: Callable[[], Tuning],
        counters: Callable[[], Mapping[str, Any]],
        contexts: ContextWatch,
        lost_checks: Callable[[], int],
    ) -> None:
        self._parts = parts
        self._invalidator = invalidator
        self._instruments = instruments
        self._replica = replica
        self._tuning = tuning
        self._counters = counters
        self._contexts = contexts
        self._lost_checks = lost_checks
        self._entries: dict[Level, int] = {}
        self._task: asyncio.Task[None] | None = None
        self._warned_contexts = False

    def start(self) -> None:
        """Begin; the task carries none of the starter's context, so that no span lasts for ever."""
        self._task = asyncio.get_running_loop().create_task(
            self._run(), name="glasscache-housekeeping", context=contextvars.Context()
        )

    async def close(self) -> None:
        """Stop, and say goodbye."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        with contextlib.suppress(BackendError):
            await self._parts.store.delete([self._heartbeat_name()])

    async def _run(self) -> None:
        tick = 0
        while True:
            due = [self._quietly(self._parts.decisions.flush)]
            store_down = self._parts.store.breaker.state != "closed"
            if store_down or tick % _TICKS_PER_SECOND == 0:
                due.append(self._quietly(self._parts.store.tend))
            if tick % _TICKS_PER_SECOND == 0:
                due += [
                    self._quietly(partial(self._tend_semantic, tick)),
                    self._quietly(self._beat),
                ]
                due.append(self._quietly(lambda: self._invalidator.tend(self._tuning())))
            if tick % _TICKS_PER_COUNT == 0:
                due.append(self._quietly(self._keep_secret))
            # With return_exceptions a cancelled gather waits until all have ended.
            await asyncio.gather(*due, return_exceptions=True)
            if tick % _TICKS_PER_SECOND == 0:
                self._instruments.report(self.state())
            tick += 1
            await asyncio.sleep(TICK)

    async def _quietly(self, work: Callable[[], Awaitable[Any]]) -> None:
        try:
            await work()
        except BackendError as error:
            if error.reason != "breaker_open":
                log.limited(
                    f"housekeeping {error.error_type}", "a backend is away: %s", error.error_type
                )
        except Exception as error:  # noqa: BLE001 - the next tick tries again
            log.limited(
                "housekeeping", "housekeeping: unexpected %s: %s", type(error).__name__, error
            )

    async def _tend_semantic(self, tick: int) -> None:
        semantic = self._parts.semantic
        if semantic is None:
            return
        await semantic.index.tend(self._parts.store.now())
        await semantic.tier.tend()
        if tick % _TICKS_PER_COUNT == 0:
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
        backends.update(dict.fromkeys(self._parts.missing, False))
        return CacheState(
            backends=backends,
            breakers={name: breaker.state for name, breaker in breakers.items()},
            entries=dict(self._entries),
            tuning=self._tuning(),
            pending_invalidations=self._invalidator.pending,
            dropped={
                "decisions": self._parts.decisions.dropped,
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
    names = sorted(await parts.store.rows(parts.keys.own(REPLICAS)))
    found: list[dict[str, Any]] = []
    for text in await parts.store.read(names) if names else ():
        if text is None:
            continue
        with contextlib.suppress(ValueError):
            beat = json.loads(text)
            if isinstance(beat, dict):
                found.append(beat)
    return found
