"""The life of a cache: how its parts are opened, reached again after an outage, and closed."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import secrets
import weakref
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from cache_core.breaker import Breaker
from cache_core.clock import Clock
from cache_core.contexts import ContextWatch
from cache_core.defaults import default_instruments
from cache_core.embedder import Embedder
from cache_core.exceptions import BackendError, ConfigurationError
from cache_core.flight import SingleFlight
from cache_core.housekeeping import Housekeeper, agreed, replicas, somebody_has_l2
from cache_core.instrumentation import CacheCall, CacheState, Instrument, Instruments
from cache_core.invalidation import Invalidator
from cache_core.keys import PREFIX
from cache_core.leases import Leases
from cache_core.live_tuning import LiveTuning
from cache_core.parts import Parts, assemble, make_store, name_of_store
from cache_core.reading import Reader
from cache_core.remedies import remedy
from cache_core.sealing import make_sealer
from cache_core.settings import Settings, TuningEnvironment
from cache_core.stats import CacheStats
from cache_core.steps import MOST_PENDING
from cache_core.stores.base import KeyValueStore, WrapStore
from cache_core.stores.vectors import WrapIndex
from cache_core.tuning import Tuning
from cache_core.tuning_layers import Layer
from cache_core.tuning_trail import TUNING
from cache_core.unconfirmed import Request, Unconfirmed
from cache_core.verdicts import LOG, Verdicts, Verifier, Verify
from cache_core.writing import Writer

log = logging.getLogger("glasscache")

_RETRY_SECONDS = 0.25


async def _no_one(_: Request) -> None:
    """Make nothing: nobody said how."""


@dataclass(frozen=True, slots=True)
class Running:
    """What exists only while a cache is open."""

    parts: Parts
    reader: Reader
    writer: Writer
    invalidator: Invalidator
    housekeeper: Housekeeper
    leases: Leases
    verdicts: Verdicts
    verifier: Verifier | None


class Engine:
    """What a cache runs on.

    Args:
        settings: Fixed ones.
        namespace: Of the cache.
        arguments: Tuning values from the constructor.
        constants: Returns the tuning values that were changed in the module.
        redis_pool, embedder, clock, instruments: Given ones, instead of those that are made.
        verify: Checks a share of the semantic hits.
        wrap_store, wrap_index: Return what to use in the place of a store or an index.
    """

    def __init__(
        self,
        settings: Settings,
        namespace: str,
        *,
        arguments: Mapping[str, Any],
        constants: Callable[[], Mapping[str, Any]],
        redis_pool: Any,
        embedder: Embedder | None,
        clock: Clock | None,
        instruments: Sequence[Instrument] | None,
        verify: Verify | None,
        wrap_store: WrapStore | None = None,
        wrap_index: WrapIndex | None = None,
    ) -> None:
        self.settings = settings
        self.namespace = namespace
        self.replica = secrets.token_hex(4)
        self.stats = CacheStats()
        self.contexts = ContextWatch()
        self.flight: SingleFlight[str] = SingleFlight()
        self.refreshing: dict[str, asyncio.Task[None]] = {}
        """Answers that are being made anew before they expire."""
        self.instruments = Instruments([self.stats])
        self.running: Running | None = None
        self.when_running: dict[Hashable, Callable[[Running], Awaitable[Any]]] = {}
        """Invalidations that were asked for while the store had not been reached yet."""
        self.lost_feedback = 0
        """Verdicts that were given while the store was away."""
        self.away = ""
        """Why the store was not reached when the cache was opened, and what to do."""
        self.make: Callable[[Request], Awaitable[Any]] = _no_one
        """Makes an invalidation that another process left."""
        self.invalidations = 0
        """How often this cache was told to invalidate something."""
        self.counters: Callable[[], Mapping[str, Any]] = self.stats.snapshot
        """What the heartbeat tells of this replica."""
        self._arguments = arguments
        self._constants = constants
        self._redis_pool = redis_pool
        self._embedder = embedder
        self._clock = clock
        self._verify = verify
        self._wrap_store = wrap_store
        self._wrap_index = wrap_index
        self._given_instruments = instruments
        # Weakly: `get_cache` keeps caches by their loop, and a loop must be able to go.
        self._loop: weakref.ref[asyncio.AbstractEventLoop] | None = None
        self._opening = asyncio.Lock()
        self._retry: asyncio.Task[None] | None = None
        self.unconfirmed = Unconfirmed(
            settings.dir,
            namespace,
            self.replica,
            name_of_store(settings, redis_pool),
            make_sealer(settings),
        )
        """Invalidations that wait for a backend."""
        self.live = LiveTuning(self._started_with, self._tuned, self._reported)
        """The tuning, followed and changed while the cache is open."""

    def _started_with(self) -> list[Layer]:
        return [
            ("the environment", TuningEnvironment().given()),
            ("a module constant", self._constants()),
            ("the constructor", self._arguments),
        ]

    @property
    def tuning(self) -> Tuning:
        """The tuning in force; swapped whole."""
        return self.live.current

    def _tuned(self, what: Literal["applied", "rejected"]) -> None:
        """Count a change of the tuning, and let the gauges follow at once."""
        call = CacheCall("tune", outcome=what, tuning_version=self.live.current.version)
        self.instruments.record(call)
        if self.running is not None:
            self.instruments.report(self.running.housekeeper.state())

    async def _reported(self) -> Mapping[str, Any]:
        """Return the tuning values in force where lookups are served, as far as replicas agree."""
        if self.running is None:
            return {}
        # It only fills in what the audit trail shows: no reason for a change to fail.
        with contextlib.suppress(BackendError):
            return agreed(await replicas(self.running.parts), self.replica)
        return {}

    def postpone(self, name: Hashable, work: Callable[[Running], Awaitable[Any]]) -> None:
        """Do *work* as soon as the store is reached; the last one of a *name* is enough."""
        self.when_running[name] = work
        if len(self.when_running) > MOST_PENDING:
            del self.when_running[next(iter(self.when_running))]
            self.unconfirmed.lost += 1
            log.error("too many invalidations wait for the store: some are lost; clear the cache")

    @property
    def here(self) -> Running | None:
        """The open parts, if they are open in this event loop."""
        return self.running if self._is_home() else None

    async def started(self) -> Running | None:
        """Return the open parts, opening them first; `None` while the store is away."""
        if self.here is None:
            await self.open()
        return self.running

    def _is_home(self) -> bool:
        """Whether this is the event loop that the cache was opened in."""
        return self._loop is not None and self._loop() is asyncio.get_running_loop()

    async def open(self) -> None:
        """Open the parts; idempotent.

        Raises:
            ConfigurationError: For a changed module constant that is out of bounds.
            RuntimeError: If the cache is already open in another running event loop.
        """
        loop = asyncio.get_running_loop()
        last = self._loop() if self._loop is not None else None
        if last is not loop:
            if last is not None and last.is_running():
                msg = "this cache is open in another event loop; use get_cache(), one per loop"
                raise RuntimeError(msg)
            if self._loop is not None:
                # What belonged to a loop that ended cannot be closed any more, only left. Rows
                # that it had not written out come back from the feed, as those of another replica.
                self.replica = secrets.token_hex(4)
            if self.running is not None:
                self.running.parts.abandon()
            self.live.abandon()
            self._loop, self._opening = weakref.ref(loop), asyncio.Lock()
            self.running = self._retry = None
            self.flight, self.refreshing = SingleFlight(), {}
        if self.running is None and self._retry is None:
            # Whoever opens the cache may be cancelled; what is half open must not be lost.
            await asyncio.shield(loop.create_task(self._open_once()))

    async def _open_once(self) -> None:
        async with self._opening:
            if self.running is None and self._retry is None:
                await self._open()

    async def _open(self) -> None:
        self.live.rebase()
        watching = self._given_instruments
        if watching is None:
            watching = default_instruments(self.namespace)
        self.instruments = Instruments([self.stats, *watching])
        store = await asyncio.to_thread(make_store, self.settings, self._redis_pool, self._clock)
        if self._wrap_store is not None:
            store = self._wrap_store(store)
        await store.open()
        try:
            await self._run_on(store)
        except BackendError as error:
            why = str(store.breaker.last_error or error).rstrip(" .:")
            self.away = f"{why}. {remedy(error)}"
            log.error(
                "%s cannot be reached: %s. Nothing is cached until it is; it is tried again every "
                "second",
                store.breaker.backend,
                self.away,
            )
            self.instruments.report(self._away(store.breaker))
            # In no context: an outage must not go on in the trace of whoever met it first.
            self._retry = asyncio.get_running_loop().create_task(
                self._keep_trying(store), context=contextvars.Context()
            )

    def _lost(self) -> dict[str, int]:
        return {"feedback": self.lost_feedback, "invalidations": self.unconfirmed.lost}

    def _away(self, breaker: Breaker | None) -> CacheState:
        return CacheState(
            backends={breaker.backend: False} if breaker is not None else {},
            breakers={breaker.backend: breaker.state} if breaker is not None else {},
            entries={},
            tuning=self.tuning,
            pending_invalidations=len(self.when_running),
            dropped=self._lost(),
        )

    def _report_closed(self, last: CacheState) -> None:
        """Say that there are no backends any more: whatever was known of them is not any longer."""
        self.instruments.report(replace(last, backends={}, breakers={}, entries={}))

    async def _run_on(self, store: KeyValueStore) -> None:
        await self.live.load(store, f"{PREFIX}:{self.namespace}:{{{TUNING}}}")
        parts = await assemble(
            self.settings,
            self.namespace,
            store,
            self.instruments,
            self.replica,
            lambda: self.tuning.embedding_usd,
            self._embedder,
            self._wrap_index,
        )
        self.unconfirmed.store = name_of_store(self.settings, self._redis_pool, parts.secret)
        invalidator = Invalidator(parts, self.unconfirmed, lambda: somebody_has_l2(parts))
        verdicts = Verdicts(store, parts.keys.own(LOG), parts.decisions, self.instruments)
        verifier = None
        if self._verify is not None:
            verifier = Verifier(self._verify, verdicts, self.instruments)
        housekeeper = Housekeeper(
            parts,
            invalidator,
            self.instruments,
            self.replica,
            self.live,
            lambda: self.counters(),  # noqa: PLW0108 - set after this
            self.contexts,
            lambda: verifier.dropped if verifier is not None else 0,
            self.settings.heartbeat,
            lambda: self.unconfirmed.adopt(self.make),
            self._lost,
        )
        running = Running(
            parts,
            Reader(parts, self.settings, self.instruments),
            Writer(parts, self.settings),
            invalidator,
            housekeeper,
            Leases(store, self.settings.compute_lease, self.settings.compute_wait),
            verdicts,
            verifier,
        )
        waiting = await self._begin_waiting(running)
        # What is not found at once is vetoed.
        await invalidator.search_for_others(self.tuning)
        self.running = running
        self.when_running.clear()
        self.instruments.report(housekeeper.state())
        housekeeper.start()
        self.live.follow()
        self._announce()
        await asyncio.gather(*waiting)

    async def _begin_waiting(self, running: Running) -> list[asyncio.Task[Any]]:
        """Begin with what waits for the store: vetoed before any lookup is answered.

        An invalidation is planned, and so vetoed, before it waits for anything.
        """
        begun: dict[Hashable, asyncio.Task[Any]] = {}
        try:
            while more := self.when_running.keys() - begun.keys():
                for name in more:
                    work = self.when_running[name](running)
                    begun[name] = asyncio.ensure_future(work)
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            for task in begun.values():
                task.cancel()
            await asyncio.gather(*begun.values(), return_exceptions=True)
            raise
        return list(begun.values())

    async def _keep_trying(self, store: KeyValueStore) -> None:
        try:
            while self.running is None:
                await asyncio.sleep(_RETRY_SECONDS)
                try:
                    await store.tend()
                    await self._run_on(store)
                except BackendError:
                    continue
                except Exception:
                    log.exception("glasscache cannot start; it is tried again")
        except asyncio.CancelledError:
            if self.running is None:
                await store.close()
            raise

    def _announce(self) -> None:
        for field, origin in self.live.origins.items():
            log.info("%s=%s from %s", field, getattr(self.tuning, field), origin)
        if self.tuning.sharing == "private":
            log.info(
                "answers are private to their user: name the intents whose answers are the same "
                "for everybody in shared_intents=[...] or CACHE_SHARED_INTENTS to share them"
            )

    async def ready(self, timeout: float = 10.0) -> None:
        """Wait until the store is reached, *timeout* seconds at most, and the model is loaded.

        Raises:
            BackendError: If the store was not reached.
            ConfigurationError: If the model cannot be loaded, or the extra is missing.
        """
        await self.open()
        if self.running is None and self._retry is not None:
            await asyncio.wait([self._retry], timeout=timeout)
        running = self.running
        if running is None:
            raise BackendError("timeout", "StoreAway", f"no store within {timeout:.0f} s")
        if running.parts.missing:
            msg = "L2 is on, but its extra is missing: pip install 'glasscache[semantic]'"
            raise ConfigurationError(msg)
        semantic = running.parts.semantic
        if semantic is not None:
            await semantic.embedder.wait_ready()
            with contextlib.suppress(BackendError):
                await semantic.tier.tend()
                await running.invalidator.steps.retry()
                await running.invalidator.apply(self.tuning)

    async def close(self) -> None:
        """Write out what waits and close; idempotent. `open` opens again."""
        if not self._is_home():
            if self.running is not None:
                self.live.abandon()
                self.running.parts.abandon()
            self.running = None
            return
        # Whoever closes the cache may be cancelled; what is half closed must not be lost.
        await asyncio.shield(asyncio.get_running_loop().create_task(self._close()))

    async def _stop_refreshing(self) -> None:
        tasks = list(self.refreshing.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _close(self) -> None:
        async with self._opening, contextlib.AsyncExitStack() as last_first:
            retry, self._retry = self._retry, None
            running, self.running = self.running, None
            # Even where one is cancelled, as by the end of the loop, the others have their turn.
            if running is not None:
                last_first.callback(lambda: self._report_closed(running.housekeeper.state()))
                last_first.push_async_callback(running.parts.close)
                last_first.push_async_callback(running.invalidator.steps.close)
                last_first.push_async_callback(running.housekeeper.close)
                last_first.push_async_callback(running.leases.close)
                last_first.push_async_callback(self._stop_refreshing)
                if running.verifier is not None:
                    last_first.push_async_callback(running.verifier.close)
            elif retry is not None:
                last_first.callback(lambda: self._report_closed(self._away(None)))
            last_first.push_async_callback(self.live.close)
            if retry is not None and not retry.done():
                retry.cancel()
                await asyncio.gather(retry, return_exceptions=True)
