"""From a lookup to an answer: one computation for all who ask for the same thing at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from cache_core.computing import Compute, computed
from cache_core.engine import Engine, Running
from cache_core.exceptions import BackendError
from cache_core.instrumentation import CacheCall
from cache_core.leases import Lease
from cache_core.logs import RateLimited
from cache_core.models import Answer, Hit, Level, LookupResult, Query
from cache_core.tuning import Tuning

log = RateLimited(logging.getLogger("glasscache"))

_REFRESHING = 8
"""Answers that are made anew at the same time; others are skipped, the next hit tries again."""

_RESPONSES: tuple[Level, ...] = ("l1", "l2")


@dataclass(frozen=True, slots=True)
class Wanted:
    """An answer that somebody wants.

    Attributes:
        query: Returns the query, by the keys of an open cache or, without one, those of this cache.
        compute: Makes the response.
        lookup: Looks it up; with True also what is stale.
        put: Stores an answer, as the result of a lookup.
    """

    query: Callable[[Running | None], Query]
    compute: Compute
    lookup: Callable[[bool], Awaitable[LookupResult]]
    put: Callable[[Answer, LookupResult], Awaitable[object]]


class Answering:
    """Answers from the cache, or computes.

    - *Of callers in this process* who want the same at the same time, one computes and all get its
      answer.
    - *Of processes on the same store* too, by a lease in it: the others wait until the answer is
      stored. A process that dies is replaced once its lease ends. While the store is away each
      process computes for itself.
    - *The same* means message, user, context, history, and the invalidations before: nobody gets
      what was computed for another user, nor what began before an invalidation they came after.

    Args:
        engine: Of the cache.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def answer(self, wanted: Wanted) -> str:
        """Return the cached response, or compute and store it.

        Raises:
            Exception: Whatever computing raises, unless a stale answer may be served instead.
        """
        with self._engine.flight.arrival() as arrival:
            result = await wanted.lookup(False)
            if result.response is not None:
                self._refresh_soon(wanted, result)
                return result.response
            if result.outcome == "bypass":
                return await self._compute(wanted, result, None, None)
            running = self._engine.running
            query = wanted.query(running)
            since = self._since(result)
            name = self._name(query, result, since)
            if self._engine.flight.inside(name):
                # Asked for by its own computation, which holds the lease.
                return await self._compute(wanted, result, running, None)
            response, joined = await self._engine.flight.run(
                name,
                lambda: self._take_turns(wanted, result, running, query, since),
                arrival,
            )
        if joined:
            self._joined()
        return response

    def _since(self, result: LookupResult) -> str | None:
        """Return the invalidations that a lookup knew of; `None` if it could not."""
        seen = result.sighting.generation if result.sighting is not None else None
        return seen.invalidated if seen is not None else None

    def _name(self, query: Query, result: LookupResult, since: str | None) -> str:
        """Return a name that only calls for the same thing have."""
        # Without a user there is nobody to share a computation with: it could be anybody's.
        whose = query.user or result.lookup_id
        # Nobody joins a computation from before an invalidation that they came after.
        known = f"unknown {self._engine.invalidations}" if since is None else since
        if result.sighting is not None:
            known += f" {result.sighting.position}"
        return f"{query.tag} {whose} {query.context} {query.history} {known}"

    def _joined(self) -> None:
        self._engine.instruments.record(CacheCall("compute", outcome="joined"))

    async def _take_turns(
        self,
        wanted: Wanted,
        result: LookupResult,
        running: Running | None,
        query: Query,
        since: str | None,
    ) -> str:
        """Compute, unless another process does, or others had ended before this one began."""
        if running is None:
            return await self._compute(wanted, result, running, None)
        key = self._lease(running, query, since)
        look = partial(running.reader.exactly, query, self._engine.tuning)
        turn: Hit | Lease | None
        try:
            turn = await look() if key is None else await running.leases.turn(key, look)
        except BackendError:
            turn = None
        if isinstance(turn, Hit) and turn.entry.response is not None:
            self._joined()
            return turn.entry.response
        lease = turn if isinstance(turn, Lease) else None
        try:
            return await self._compute(wanted, result, running, lease)
        except Exception as error:
            stale = await self._stale(wanted)
            if stale is None:
                raise
            log.limited(
                "stale",
                "computing an answer failed (%s): a stale one was served",
                type(error).__name__,
            )
            return stale
        finally:
            if lease is not None:
                lease.release()

    def _lease(self, running: Running, query: Query, since: str | None) -> str | None:
        """Return the key of the lease on an answer; `None` if other processes can't be joined.

        They find the answer in L1, under the generation that this process saw, and only a user's.
        """
        if since is None or query.user is None or not running.leases.seconds:
            return None
        return running.parts.keys.lease(query, since) if "l1" in running.parts.tiers else None

    async def _stale(self, wanted: Wanted) -> str | None:
        if not self._engine.tuning.stale_seconds:
            return None
        return (await wanted.lookup(True)).response

    async def _compute(
        self,
        wanted: Wanted,
        result: LookupResult,
        running: Running | None,
        lease: Lease | None,
        before: float | None = None,
    ) -> str:
        """Compute, and store what may be stored; *before*: when what it replaces was stored."""
        with self._engine.instruments.operation("compute"):
            answer = await computed(wanted.compute, result)
        if running is not None and running is not self._engine.running:
            # Closed meanwhile: the answer is still the caller's, but storing would reopen.
            return answer.response
        if lease is not None and await self._is_fenced(wanted, running, lease, before):
            part = CacheCall("put", "l1", "bypass", "fenced")
            self._engine.instruments.record(
                CacheCall("put", outcome="bypass", reason="fenced", calls=[part])
            )
            return answer.response
        await wanted.put(answer, result)
        return answer.response

    async def _is_fenced(
        self, wanted: Wanted, running: Running | None, lease: Lease, before: float | None
    ) -> bool:
        """Whether a newer holder of *lease* stored an answer meanwhile: that one stays.

        The lease, if it is still held, is renewed for longer than a put may take.
        """
        if running is None or await lease.renew():
            return False
        found = await running.reader.exactly(wanted.query(running), self._engine.tuning)
        return found is not None and (before is None or found.entry.created > before)

    # ------------------------------------------------------------------------------ refresh

    def _refresh_soon(self, wanted: Wanted, result: LookupResult) -> None:
        """Make an answer anew in the background, if it is in the last part of its life."""
        running, tuning = self._engine.running, self._engine.tuning
        if running is None or not tuning.refresh_share or result.age_seconds is None:
            return
        query = wanted.query(running)
        life = _life(result, query, tuning, [lv for lv in _RESPONSES if lv in running.parts.tiers])
        if result.age_seconds < life * (1 - tuning.refresh_share):
            return
        since = self._since(result)
        name = self._name(query, result, since)
        if name in self._engine.refreshing:
            return
        if len(self._engine.refreshing) >= _REFRESHING:
            self._engine.instruments.record(CacheCall("refresh", outcome="skipped"))
            return
        task = asyncio.get_running_loop().create_task(
            self._refresh(wanted, result, running, query, since)
        )
        self._engine.refreshing[name] = task
        task.add_done_callback(lambda _: self._engine.refreshing.pop(name, None))

    async def _refresh(
        self,
        wanted: Wanted,
        result: LookupResult,
        running: Running,
        query: Query,
        since: str | None,
    ) -> None:
        with self._engine.instruments.operation("refresh") as call:
            lease: Lease | None = None
            try:
                key = self._lease(running, query, since)
                taken = None if key is None else await running.leases.take(key)
                if isinstance(taken, str):
                    call.outcome = "skipped"
                    return
                lease = taken
                now = running.parts.store.now()
                before = now - (result.age_seconds or 0.0)
                found = await running.reader.exactly(query, self._engine.tuning)
                if found is not None and found.age < (result.age_seconds or 0.0) - _SAME_AGE:
                    call.outcome = "skipped"
                    return
                # Only the label is known of it: whatever else shaped the old answer may have aged.
                anew = LookupResult(
                    None, result.intent, None, "miss" if result.intent is None else "partial",
                    lookup_id=result.lookup_id, sighting=result.sighting,
                )  # fmt: skip
                await self._compute(wanted, anew, running, lease, before + _SAME_AGE)
                call.outcome = "stored"
            except BackendError:
                call.outcome = "skipped"
            except Exception as error:  # noqa: BLE001 - the answer that is there goes on being served
                call.outcome, call.error_type = "error", type(error).__name__
                log.limited("refresh", "a refresh failed (%s)", type(error).__name__)
            finally:
                if lease is not None:
                    lease.release()


_SAME_AGE = 1.0
"""Seconds by which the ages of one answer may differ between two looks at it."""


def _life(result: LookupResult, query: Query, tuning: Tuning, tiers: list[Level]) -> float:
    """Return how long an answer is served, in seconds: until the last tier lets it expire."""
    if result.own_ttl is not None:
        return result.own_ttl
    kept = [level for level in tiers if level != "l2" or not query.history]
    return max((tuning.ttl(level, result.intent) for level in kept), default=0.0)
