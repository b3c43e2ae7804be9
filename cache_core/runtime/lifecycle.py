"""The life of a cache: how its parts are opened, reached again after an outage, and closed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import sys
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from cache_core.backends.base import KeyValueStore
from cache_core.backends.breaker import Breaker
from cache_core.backends.forking import leave_to_parent
from cache_core.config.live import LiveTuning, StartedWith
from cache_core.config.settings import Settings, UnusableUrl
from cache_core.config.stage import Stage
from cache_core.config.trail import TUNING, TuningChange
from cache_core.config.tuning import Tuning
from cache_core.model.exceptions import BackendError, ConfigurationError
from cache_core.model.keys import Keys
from cache_core.model.remedies import remedy, said
from cache_core.model.sealing import make_sealer
from cache_core.model.tasks import background, off_loop, trace_background, traced_or_quiet
from cache_core.model.values import Invalidation
from cache_core.observability.defaults import default_instruments
from cache_core.observability.instruments import Instruments
from cache_core.observability.records import TuneRecord
from cache_core.observability.stats import CacheStats
from cache_core.operations.compute.flight import SingleFlight
from cache_core.operations.invalidate.outbox import Outbox, Request
from cache_core.operations.put.limits import WriteLimits
from cache_core.operations.put.rules import Rules
from cache_core.operations.replica import Counts, Replica
from cache_core.operations.sightings import Sightings
from cache_core.runtime.assembly import Given, Parts, assemble, make_store, name_of_store
from cache_core.runtime.open import Open
from cache_core.runtime.unavailable import Unavailable

log = logging.getLogger("glasscache")

_RETRY_SECONDS = 0.25

_settling = threading.Lock()
"""Held while an engine gets its home: callers in several threads may come at once."""


@dataclass(slots=True)
class Family:
    """State shared by the engines of one cache: its own, and the one in the thread for other loops.

    Attributes:
        stats: Counts what they do.
        sightings: What lookups saw.
        engines: All of them.
    """

    stats: CacheStats = field(default_factory=CacheStats)
    sightings: Sightings = field(default_factory=Sightings)
    engines: list[Engine] = field(default_factory=list)


class Engine:
    """Engine of a cache in one event loop: opens it, reaches its store again, closes it.

    Args:
        settings: Fixed ones.
        namespace: Name of the cache.
        started_with: Tuning that this process was started with.
        given: Parts that are not made here.
        family: Shared with the other engines of the cache.
    """

    def __init__(
        self,
        settings: Settings,
        namespace: str,
        started_with: StartedWith,
        given: Given,
        family: Family,
    ) -> None:
        self.settings = settings
        self.namespace = namespace
        self.replica = secrets.token_hex(4)
        self.family = family
        self.flight: SingleFlight[str] = SingleFlight()
        self.outbox = Outbox(
            settings.dir,
            namespace,
            self.replica,
            name_of_store(settings, given.redis_pool),
            make_sealer(settings.encryption_keys),
        )
        """Invalidations that wait for a backend."""
        self.live = LiveTuning(started_with, self)
        """The tuning, followed and changed while the cache is open."""
        self._counts = Counts()
        self._given = given
        self._keys = Keys(namespace, secrets.token_bytes(32))
        self._limits = WriteLimits()
        # Weakly: a loop must be able to go. A closed engine may be opened in another one.
        self._loop: weakref.ref[asyncio.AbstractEventLoop] | None = None
        self._settled = False
        self._opening = asyncio.Lock()
        self._retry: asyncio.Task[None] | None = None
        # Parts whose closing has begun: the loop may end before they are closed.
        self._ending: Parts | None = None
        # Closes what was opened, the last one first.
        self._resources = contextlib.AsyncExitStack()
        self.instruments = Instruments([family.stats])
        self.cache: Open | Unavailable = self._not_reached()
        family.engines.append(self)

    def _not_reached(self, breaker: Breaker | None = None) -> Unavailable:
        return Unavailable(self, self._keys, self.flight, self.outbox, self._as_replica(), breaker)

    def _as_replica(self) -> Replica:
        return Replica(
            self.replica,
            self.settings,
            self.live,
            self.instruments,
            self.family.stats,
            self.family.sightings,
            self._counts,
        )

    @property
    def store_backend(self) -> Literal["redis", "embedded"]:
        """Kind of keyed store that the settings name."""
        given = self._given.redis_pool is not None or self.settings.redis_url
        return "redis" if given else "embedded"

    @property
    def tuning(self) -> Tuning:
        """The tuning in force; swapped whole."""
        return self.live.current

    def tuned(self, what: Literal["applied", "rejected"]) -> None:
        """Count a change of the tuning, and let the gauges follow immediately."""
        self.instruments.record(TuneRecord(what, self.live.current.version))
        if isinstance(self.cache, Open):
            self.instruments.report(self.cache.state())

    def metrics(self) -> dict[str, Any]:
        """Return what was counted, as JSON values; see `MultiLevelCache.get_metrics`."""
        return self._as_replica().metrics(self.namespace)

    async def tune(
        self,
        changes: Mapping[str, Any],
        *,
        author: str,
        note: str,
        expected_version: int | None,
        dry_run: bool,
        stage: Stage | None,
    ) -> TuningChange:
        """Change the tuning of every replica; see `MultiLevelCache.tune`."""
        await self.current()
        return await self.live.tune(
            changes, author=author, note=note, expected_version=expected_version, dry_run=dry_run,
            seen=await self._reported(), stage=stage,
        )  # fmt: skip

    async def confirm_tuning(self, *, author: str, note: str, expected: int | None) -> TuningChange:
        """End the stage of the change in force, and keep it; see `MultiLevelCache`."""
        await self.current()
        return await self.live.confirm(author=author, note=note, expected_version=expected)

    async def revert_tuning(self, version: int, *, author: str, note: str) -> TuningChange:
        """Tune again what was tuned as of *version*; see `MultiLevelCache`."""
        await self.current()
        seen = await self._reported()
        return await self.live.revert(version, author=author, note=note, seen=seen)

    async def stand_in(self) -> None:
        """Go by what the replicas report, where nobody tuned; see `MultiLevelCache`."""
        await self.current()
        self.live.stand_in(await self._reported())

    async def tuning_history(self, limit: int) -> list[TuningChange]:
        """Return the newest changes of the tuning, newest first."""
        await self.current()
        return await self.live.history(limit)

    async def _reported(self) -> Mapping[str, Any]:
        """Return the tuning values in force where lookups are served, as far as replicas agree."""
        # It only fills in what the audit trail shows: no reason for a change to fail.
        with contextlib.suppress(BackendError):
            if isinstance(self.cache, Open):
                return await self.cache.parts.fleet.agreed()
        return {}

    async def current(self) -> Open | Unavailable:
        """Return the verbs as of now, opening the cache first."""
        if sys.is_finalizing():
            return self._not_reached()
        if not self.holds_something or not self.is_home():
            await self.open()
            if not self.is_home():
                return self._not_reached()
        return self.cache

    async def invalidate(self, request: Request, *, dry_run: bool = False) -> Invalidation:
        """Invalidate answers; none of the cache's engines serves what is pending."""
        complete = dry_run
        try:
            done = await (await self.current()).invalidate(request, dry_run=dry_run)
            complete = complete or done.complete
        finally:
            if not complete:
                for other in self.family.engines:
                    if other is not self:
                        other.withhold(request)
        return done

    def withhold(self, request: Request) -> None:
        """Serve nothing of what is pending in another engine; in any thread."""
        home = self.home
        if home is None or not isinstance(self.cache, Open):
            return
        with contextlib.suppress(RuntimeError):  # closed in the meantime
            home.call_soon_threadsafe(self.cache.invalidator.plan, request, self.tuning)

    async def adopt(self) -> None:
        """Make the invalidations that other processes left."""
        await self.outbox.adopt(self.invalidate)

    def is_home(self) -> bool:
        """Return whether the running event loop is the one that this was opened in."""
        return self._loop is not None and self._loop() is asyncio.get_running_loop()

    @property
    def holds_something(self) -> bool:
        """True while files, threads or tasks are held until `close`."""
        return self.cache.reached or self._retry is not None

    def is_here(self) -> bool:
        """Return whether this is open in the running event loop, or in none if none runs."""
        try:
            return self.is_home()
        except RuntimeError:
            return self.cache.reached

    @property
    def home(self) -> asyncio.AbstractEventLoop | None:
        """The loop that this is open in; `None` when it is in none, or that was closed."""
        loop = self._loop() if self._settled and self._loop is not None else None
        return None if loop is None or loop.is_closed() else loop

    def settle(self) -> bool:
        """Make the running loop the home of an engine without one; return whether it is home."""
        with _settling:
            if not self._settled:
                self._settled = True
                if not self.is_home():
                    self._loop = weakref.ref(asyncio.get_running_loop())
                    self._begin_anew()
        return self.is_home()

    def _begin_anew(self) -> None:
        # Rows that it had not written out come back from the feed, as those of another replica.
        self.replica = secrets.token_hex(4)
        self.live.abandon()
        self._retry = None
        self._resources = contextlib.AsyncExitStack()
        self._opening = asyncio.Lock()
        self.flight = SingleFlight()
        self.cache = self._not_reached()

    def leave(self) -> None:
        """Give back what belonged to a loop that was closed; may be called in any thread."""
        with _settling:
            if self.home is not None:
                return
            ending, self._ending = self._ending, None
            left, self.cache, self._retry = self.cache, self._not_reached(), None
            self._resources = contextlib.AsyncExitStack()
        if ending is not None:
            ending.abandon()
        if isinstance(left, Open):
            self.live.abandon()
            left.parts.abandon()
            self._report_closed(left)

    async def open(self) -> None:
        """Open the parts; idempotent.

        Raises:
            ConfigurationError: For a changed module constant that is out of bounds.
            RuntimeError: If it has its home in another event loop.
        """
        if sys.is_finalizing():
            return
        if not self.settle():
            msg = "this engine is open in another event loop"
            raise RuntimeError(msg)
        if not self.holds_something:
            # Before the first context is made: it is the process's, and a closed cache may have
            # set it otherwise.
            trace_background(traced=self.settings.trace_background)
            # The caller that opens the cache may be cancelled; what is half open must not be lost.
            await asyncio.shield(
                asyncio.get_running_loop().create_task(self._open_once(), context=traced_or_quiet())
            )

    async def _open_once(self) -> None:
        async with self._opening:
            # It may have been closed, and settled elsewhere, while this waited.
            if self.settle() and not self.holds_something:
                await self._open()

    def drop(self) -> None:
        """Close what nobody can use any more; called by the garbage collector, in any thread."""
        # Kept until it is closed: its loop may end before that.
        _dropped.add(self)
        home = self.home
        if home is not None:
            with contextlib.suppress(RuntimeError):  # closed in the meantime
                home.call_soon_threadsafe(_begin_closing, self)

    async def _open(self) -> None:
        for engine in tuple(_dropped):
            if engine.home is None:
                _dropped.discard(engine)
                await off_loop(engine.leave)
        self.live.rebase()
        given = self._given
        watching = given.instruments
        if watching is None:
            watching = default_instruments(self.namespace, otel_metrics=self.settings.otel_metrics)
        self.instruments = Instruments([self.family.stats, *watching])
        self.cache = self._not_reached()
        if given.owns_pool:
            self._resources.push_async_callback(given.redis_pool.aclose)
        store = await off_loop(make_store, self.settings, given)
        self._resources.push_async_callback(store.close)
        await store.open()
        # Later failures may only follow from it, and say less.
        first = store.breaker.last
        try:
            await self._run_on(store)
        except BackendError as error:
            error = first or store.breaker.last or error
            self.cache = unavailable = self._not_reached(store.breaker)
            unavailable.why = f"{said(error)}. {remedy(error)}"
            # One that cannot be used was reported when it was read.
            if not isinstance(self.settings.redis_url, UnusableUrl):
                log.error(
                    "%s cannot be reached: %s. Nothing is cached until it is; it is tried again "
                    "every second",
                    store.breaker.backend,
                    unavailable.why,
                )
            self.instruments.report(unavailable.state())
            # Detached from the caller's context: an outage must not stay in the first one's trace.
            self._retry = asyncio.get_running_loop().create_task(
                self._keep_trying(store), context=background()
            )

    def _report_closed(self, cache: Open | Unavailable) -> None:
        """Report that there are no backends any more: what was known of them is outdated."""
        self.instruments.report(
            replace(cache.state(), backends={}, breakers={}, transitions={}, entries={}, servers=())
        )
        if self._given.instruments is None:
            # Those were made when this was opened, and are made again then.
            self.instruments.close()

    async def _run_on(self, store: KeyValueStore) -> None:
        await self.live.load(store, f"{self.settings.prefix}:{self.namespace}:{{{TUNING}}}")
        # What an attempt has opened is closed with it when it fails.
        async with contextlib.AsyncExitStack() as closing:
            replica = self._as_replica()
            parts = await assemble(replica, self.namespace, store, self._given, closing)
            self.outbox.store = name_of_store(self.settings, self._given.redis_pool, parts.secret)
            rules = Rules(self._limits, self._given.cacheable)
            cache = Open(
                parts, self.outbox, self.flight, rules, self._given.verify, self,
                replica,
            )  # fmt: skip
            # Anything not found immediately stays on the denylist.
            await cache.invalidator.search_for_others(self.tuning)
            # No lookup is answered before: nothing is awaited in between.
            for request in self.outbox.requests:
                cache.invalidator.plan(request, self.tuning)
            self.cache = cache
            self.instruments.report(cache.state())
            self.live.follow()
            closing.push_async_callback(self.live.close)
            cache.start(closing)
            self._resources.push_async_callback(closing.pop_all().aclose)
        self._announce()

    async def _keep_trying(self, store: KeyValueStore) -> None:
        while not self.cache.reached:
            await asyncio.sleep(_RETRY_SECONDS)
            # Lookups of an outage count in its hours, not in that of its end.
            self.family.stats.hours.take(store.now(), self.tuning.saves("l1", None))
            try:
                await store.tend()
                await self._run_on(store)
            except BackendError:
                continue
            except Exception:
                log.exception("glasscache cannot start; it is tried again")

    def _announce(self) -> None:
        if self._given.approve is not None and not self.tuning.approve_margin:
            log.info(
                "approve= is not called while approve_margin is 0: glasscache tune set "
                "approve_margin=0.1, or CACHE_APPROVE_MARGIN in every process"
            )
        for name, origin in self.live.origins.items():
            log.info("%s=%s from %s", name, getattr(self.tuning, name), origin)
        if self.tuning.sharing == "private":
            log.info(
                "answers are private to their user: name the intents whose answers are the same "
                "for everybody in shared_intents=[...] or CACHE_SHARED_INTENTS to share them"
            )
        if self.tuning.sharing != "auto" and self.live.origins.get("promote_after"):
            log.info("promote_after has no effect without sharing='auto'")

    async def ready(self, timeout: float = 10.0) -> None:
        """Wait until the store is reached, *timeout* seconds at most, and the model is loaded.

        Raises:
            BackendError: If the store was not reached.
            ConfigurationError: If the model cannot be loaded, or the extra is missing.
        """
        await self.open()
        if not self.cache.reached and self._retry is not None:
            await asyncio.wait([self._retry], timeout=timeout)
        cache = self.cache
        if isinstance(cache, Unavailable):
            raise BackendError("timeout", "StoreAway", f"no store within {timeout:.0f} s")
        if cache.parts.missing:
            raise ConfigurationError(f"L2 is on but unavailable: {cache.parts.off}")
        semantic = cache.parts.semantic
        if semantic is not None:
            await semantic.embedder.wait_ready()
            with contextlib.suppress(BackendError):
                await semantic.tier.tend()
                await cache.invalidator.steps.retry()
                await cache.invalidator.apply(self.tuning)

    async def close(self) -> None:
        """Write out what waits and close; idempotent. `open` opens again, in any loop.

        Called in another loop than the one that this is open in, it gives back what it can once
        that loop was closed, and else does nothing.
        """
        if not self.is_home():
            self.leave()
            if self.home is None:
                self._settled = False
            return
        # The caller that closes the cache may be cancelled; what is half closed must not be lost.
        await asyncio.shield(
            asyncio.get_running_loop().create_task(self._close(), context=traced_or_quiet())
        )

    async def _close(self) -> None:
        """Close what was opened, in the reverse order: each part has registered how."""
        async with self._opening:
            held, cache, retry = self.holds_something, self.cache, self._retry
            try:
                if retry is not None and not retry.done():
                    retry.cancel()
                    await asyncio.gather(retry, return_exceptions=True)
                    cache = self.cache
                self._ending = cache.parts if isinstance(cache, Open) else None
                self.cache, self._retry = self._not_reached(), None
                await self._resources.aclose()
                self._ending = None
            finally:
                if held:
                    self._report_closed(cache)
                self._settled = False


_closing: set[asyncio.Task[None]] = set()
_dropped: set[Engine] = set()
"""Dropped and not yet closed: once its loop has ended, the next engine to open leaves it."""


async def _close_dropped(engine: Engine) -> None:
    await engine.close()
    _dropped.discard(engine)


def _begin_closing(engine: Engine) -> None:
    task = asyncio.get_running_loop().create_task(_close_dropped(engine), context=background())
    _closing.add(task)
    task.add_done_callback(_closing.discard)


def _forked() -> None:
    global _settling  # noqa: PLW0603 - somebody may have held the parent's
    _settling = threading.Lock()
    leave_to_parent(*_closing, *_dropped)
    _closing.clear()
    _dropped.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
