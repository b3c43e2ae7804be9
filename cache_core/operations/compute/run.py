"""From a lookup to an answer: one computation for all who ask for the same thing concurrently."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from cache_core.backends.base import Timed
from cache_core.config.tuning import Tuning
from cache_core.model.exceptions import BackendError
from cache_core.model.keys import Keys
from cache_core.model.logs import RateLimited
from cache_core.model.values import Answer, Generation, Hit, Level, LookupResult, Query
from cache_core.observability.records import ComputeRecord, PartRecord, PutRecord, RefreshRecord
from cache_core.operations.answers import How, What, computed_put
from cache_core.operations.arguments import Asked, reason_of
from cache_core.operations.compute.calling import Compute, LostError, computed, takes_result
from cache_core.operations.compute.flight import SingleFlight, in_a_circle, leave_note
from cache_core.operations.compute.popular import Popular
from cache_core.operations.compute.turns import Lease, Turns
from cache_core.operations.replica import Replica

log = RateLimited(logging.getLogger("glasscache"))

_REFRESHING = 8
"""Answers that are recomputed at the same time; others are skipped, the next hit tries again."""

_REMEMBERED = 1_000
"""Refreshed answers that are remembered, at most."""

_RESPONSES: tuple[Level, ...] = ("l1", "l2")


@dataclass(frozen=True, slots=True)
class Wanted:
    """An answer that a caller wants.

    Attributes:
        asked: The message.
        compute: Makes the response.
        otherwise: What the caller said of the answer, by which it is stored.
        personal: Names of the user.
        terms: Digest of the last two.
    """

    asked: Asked
    compute: Compute
    otherwise: Answer
    personal: tuple[str, ...] = ()
    terms: str = ""


class Cache(Protocol):
    """Cache in which an answer is looked up before it is computed, and stored afterwards."""

    async def lookup(
        self, asked: Asked, *, handed_out: bool, allow_stale: bool = False
    ) -> LookupResult:
        """Return what is known for a message; with *allow_stale* also what has expired."""
        ...

    async def put(self, asked: Asked, what: What, how: How, lookup: LookupResult | None) -> str:
        """Store an answer, as the result of *lookup*; return the outcome."""
        ...


class CacheSource(Protocol):
    """Something that has the cache, which may be opened and closed while an answer is computed.

    Computing asks it, one layer up, because a computation must survive the reopening of its cache.
    """

    async def current(self) -> Cache:
        """Return the cache as of now."""
        ...


class Exact(Protocol):
    """The tiers, for what other processes computed."""

    @property
    def levels(self) -> Collection[Level]:
        """The tiers that are on."""
        ...

    async def exactly(self, query: Query, tuning: Tuning) -> Hit | None:
        """Return L1's answer as of now, counting nothing."""
        ...


class Computing:
    """Answers from the cache, or computes: once for all callers in this process.

    Those callers share a computation who want *the same* at the same time. That is message, user,
    context, history, the terms of storing the answer, and the invalidations before: nobody gets
    what was computed for another user, nor what began before an invalidation they came after, and
    no answer is stored for more people than its caller said.

    Args:
        owner: Has the cache.
        keys: Names what is computed.
        flight: The computations that are under way.
        replica: This cache.
    """

    def __init__(
        self, owner: CacheSource, keys: Keys, flight: SingleFlight[str], replica: Replica
    ) -> None:
        self._owner = owner
        self._keys = keys
        self._flight = flight
        self._replica = replica

    async def answer(self, wanted: Wanted) -> str:
        """Return the cached response, or compute and store it.

        Raises:
            Exception: Whatever computing raises, unless a stale answer may be served instead.
        """
        while True:
            try:
                return await self._answer(wanted)
            except LostError as error:
                # Others who waited for it compute again; its own caller has ended.
                if wanted.compute in error.args:
                    raise asyncio.CancelledError from None

    async def _answer(self, wanted: Wanted) -> str:
        with self._flight.arrival() as arrival:
            # What it knows is handed out by computing, if at all, and once for all who wait.
            result = await self._lookup(wanted)
            if result.response is not None:
                self._found(wanted, result)
                return result.response
            if result.outcome == "bypass":
                return (await self._compute(wanted, result))[0]
            if wanted.asked.wants.no_store:
                # What is not stored helps no process that waits for it.
                return await self._alone(wanted, result)
            query = self._query(wanted)
            since = _since(result)
            name = self._name(wanted, query, result, since)
            if self._flight.inside(name):
                # Asked for by its own computation, which holds the lease.
                with in_a_circle():
                    return (await self._compute(wanted, result))[0]
            work = partial(self._take_turns, wanted, result, query, since)
            note = self._flight.joining(name, arrival)
            if note is None:
                return (await self._flight.run(name, work, arrival))[0]
            waiting = ComputeRecord(outcome="joined", is_own=False)
            with self._replica.instruments.operation(waiting):
                try:
                    return (await self._flight.run(name, work, arrival))[0]
                finally:
                    found = note()
                    waiting.waited_for = found if isinstance(found, ComputeRecord) else None

    async def _lookup(self, wanted: Wanted, *, allow_stale: bool = False) -> LookupResult:
        cache = await self._owner.current()
        return await cache.lookup(wanted.asked, handed_out=False, allow_stale=allow_stale)

    def _query(self, wanted: Wanted) -> Query:
        return wanted.asked.query(self._keys)

    def _name(self, wanted: Wanted, query: Query, result: LookupResult, since: str | None) -> str:
        """Return a name that only calls for the same thing have."""
        # Without a user there is nobody to share a computation with: it could be anybody's.
        whose = query.user or result.lookup_id
        # Nobody joins a computation from before an invalidation that they came after.
        known = f"unknown {self._replica.counts.invalidations}" if since is None else since
        if result.sighting is not None:
            # Nor one from before midnight: what it says of today is of another day.
            known += f" {result.sighting.position} {result.sighting.until}"
        what = f"{query.tag} {query.exact} {whose} {query.context} {query.history}"
        return f"{what} {known} {wanted.terms}"

    def _found(self, wanted: Wanted, result: LookupResult) -> None:
        """Take note of an answer that was found."""

    async def _take_turns(
        self, wanted: Wanted, result: LookupResult, query: Query, since: str | None
    ) -> str:
        """Compute for all callers in this process; *query* and *since* name what."""
        del query, since
        return await self._alone(wanted, result)

    async def _alone(self, wanted: Wanted, result: LookupResult, lease: Lease | None = None) -> str:
        """Compute, whatever others do."""
        return (await self._compute(wanted, result, lease, record=_left_to_others()))[0]

    async def _compute(
        self,
        wanted: Wanted,
        result: LookupResult,
        lease: Lease | None = None,
        before: float | None = None,
        record: ComputeRecord | None = None,
    ) -> tuple[str, str]:
        """Compute, and store what may be stored; *before*: when what it replaces was stored.

        Returns:
            The response, and the outcome of its put.
        """
        with self._replica.instruments.operation(record or ComputeRecord()) as done:
            answer = await computed(wanted.compute, result)
            if before is None and takes_result(wanted.compute):
                done.saved_usd = self._spared(result)
        refused = await self._refused(wanted, lease, before)
        if refused:
            self._not_stored(refused)
            return answer.response, "bypass"
        try:
            most_bytes = self._replica.settings.max_value_bytes
            what, how = computed_put(answer, wanted.otherwise, wanted.personal, result, most_bytes)
            cache = await self._owner.current()
            return answer.response, await cache.put(wanted.asked, what, how, result)
        except Exception as error:  # noqa: BLE001 - what was paid for is returned whatever happens
            log.limited("invalid", "an answer was returned and not stored: %s", reason_of(error))
            self._not_stored("invalid")
        return answer.response, "bypass"

    async def _refused(self, wanted: Wanted, lease: Lease | None, before: float | None) -> str:
        """Return why no put is made for an answer; empty if one is."""
        del lease, before
        return "declined" if wanted.asked.wants.no_store else ""

    def _spared(self, result: LookupResult) -> dict[Level, float]:
        """Return what the intent and the documents of *result* spared who computed with them."""
        known: list[Level] = ["l3"] if result.intent is not None else []
        if result.rag_results is not None:
            known.append("l4")
        tuning = self._replica.tuning
        return {level: tuning.saves(level, None) for level in known}

    def _not_stored(self, reason: str) -> None:
        """Count an answer that no put was made for."""
        self._replica.instruments.record(
            PutRecord(
                self._replica.tuning.version,
                [PartRecord("l1", "bypass", reason)],
                outcome="bypass",
                reason=reason,
            )
        )


class SharedComputing(Computing):
    """The same while the store is reached: once for all processes on it, too.

    By a lease in the store: the others wait until the answer is stored. A process that dies is
    replaced once its lease ends.

    Args:
        owner, keys, flight, replica: As for `Computing`.
        store: Its clock is that of all replicas.
        reader: Asks L1 for what others computed.
        leases: The rights to compute.
    """

    def __init__(
        self,
        owner: CacheSource,
        keys: Keys,
        flight: SingleFlight[str],
        replica: Replica,
        store: Timed,
        reader: Exact,
        leases: Turns,
    ) -> None:
        super().__init__(owner, keys, flight, replica)
        self._store = store
        self._reader = reader
        self._leases = leases
        self._closed = False
        self.refreshing: dict[str, asyncio.Task[None]] = {}
        """Answers that are being recomputed before they expire."""
        self._popular = Popular()
        # When what was recomputed had been stored, by the name of the answer.
        self._refreshed: dict[str, float] = {}

    def stop_storing(self) -> None:
        """Store no answer any more that is still being computed."""
        self._closed = True

    async def close(self) -> None:
        """Cancel what is being recomputed."""
        tasks = list(self.refreshing.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _take_turns(
        self, wanted: Wanted, result: LookupResult, query: Query, since: str | None
    ) -> str:
        """Compute, unless another process does, or others had ended before this one began."""
        turn = await self._turn(wanted, query, since)
        if isinstance(turn, Hit) and turn.entry.response is not None:
            return turn.entry.response
        lease = turn if isinstance(turn, Lease) else None
        try:
            return await self._alone(wanted, result, lease)
        finally:
            if lease is not None:
                lease.release()

    async def _alone(self, wanted: Wanted, result: LookupResult, lease: Lease | None = None) -> str:
        """Compute, whatever others do; if that fails, return a stale answer."""
        try:
            return await super()._alone(wanted, result, lease)
        except LostError:
            raise
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

    async def _turn(self, wanted: Wanted, query: Query, since: str | None) -> Hit | Lease | None:
        """Return another process's answer, or the lease to compute it, or neither."""
        key = self._lease(wanted, query, since)
        look = partial(self._reader.exactly, query, self._replica.tuning)
        joined = False

        @contextlib.contextmanager
        def waiting(holder: str) -> Iterator[ComputeRecord]:
            nonlocal joined
            record = ComputeRecord(outcome="joined", is_own=False, waited_elsewhere=holder)
            leave_note(record)
            with self._replica.instruments.operation(record):
                yield record
            joined = record.outcome == "joined"

        try:
            turn = await look() if key is None else await self._leases.turn(key, look, waiting)
        except BackendError:
            return None
        if isinstance(turn, Hit) and not joined:
            self._replica.instruments.record(ComputeRecord(outcome="joined", is_own=False))
        return turn

    def _lease(self, wanted: Wanted, query: Query, since: str | None) -> str | None:
        """Return the key of the lease on an answer; `None` if other processes can't be joined.

        They find the answer in L1, under the generation that this process saw, and only a user's.
        """
        if since is None or query.user is None or not self._has_leases:
            return None
        return self._keys.lease(query, since + wanted.terms)

    @property
    def _has_leases(self) -> bool:
        return bool(self._leases.seconds) and "l1" in self._reader.levels

    async def _stale(self, wanted: Wanted) -> str | None:
        if not self._replica.tuning.stale_seconds:
            return None
        return (await self._lookup(wanted, allow_stale=True)).response

    async def _refused(self, wanted: Wanted, lease: Lease | None, before: float | None) -> str:
        """Return why no put is made for an answer: `declined`, `closed`, or `fenced`.

        Closed meanwhile, the answer is still the caller's, but storing would reopen. Fenced is an
        answer whose lease has a newer holder who stored one: that one stays. A lease that is still
        held is renewed for longer than a put may take.
        """
        if wanted.asked.wants.no_store:
            return "declined"
        if self._closed:
            return "closed"
        if lease is None or await lease.renew():
            return ""
        if before is None:
            before = lease.since - _SAME_AGE
        newer = await self._stored_since(before, self._query(wanted))
        return "fenced" if newer else ""

    async def _stored_since(self, when: float, query: Query) -> bool:
        """Return whether L1 has an answer from after a time, whatever age the caller allows."""
        query = query._replace(max_age=None)
        found = await self._reader.exactly(query, self._replica.tuning)
        return found is not None and found.entry.created > when

    # ------------------------------------------------------------------------------ refresh

    def _found(self, wanted: Wanted, result: LookupResult) -> None:
        """Recompute an answer in the background, if it is old, or popular and due for a check."""
        tuning = self._replica.tuning
        if self._closed or wanted.asked.wants.no_store or result.age_seconds is None:
            return
        # Every hit counts, also of another question with this answer.
        popular = tuning.recheck_share > 0 and self._popular.due(result, tuning.recheck_share)
        if not (popular or tuning.refresh_share) or not result.stored_for:
            # Of another message: what is computed for this one would not replace it.
            return
        query = self._query(wanted)
        life = _life(result, query, tuning, [lv for lv in _RESPONSES if lv in self._reader.levels])
        if not popular and result.age_seconds < life * (1 - tuning.refresh_share):
            return
        # There is one answer, for all callers and all ways of storing it.
        if result.stored_for != "user":
            query = query._replace(user=query.shared)
        name = f"{query.tag} {query.exact} {query.user} {query.context} {query.history}"
        stored = self._store.now() - result.age_seconds
        if name in self.refreshing or self._was_refreshed(name, stored):
            return
        if len(self.refreshing) >= _REFRESHING:
            self._replica.instruments.record(RefreshRecord(outcome="skipped"))
            return
        task = asyncio.get_running_loop().create_task(self._refresh(wanted, result, name))
        self.refreshing[name] = task
        task.add_done_callback(lambda _: self.refreshing.pop(name, None))

    def _was_refreshed(self, name: str, stored: float) -> bool:
        """Return whether the answer of that time was refreshed here, though perhaps not replaced.

        One that looks personal, or has to be voted for, does not replace it: once is enough.
        """
        return abs(self._refreshed.get(name, -math.inf) - stored) < _SAME_AGE

    def _refresh_key(self, query: Query, result: LookupResult) -> str | None:
        """Return the key of the lease on recomputing an answer; `None` if there are no leases."""
        seen = result.sighting.generation if result.sighting is not None else None
        if seen is None or not self._has_leases:
            return None
        if result.stored_for == "user":
            return self._keys.lease(query, seen.invalidated)
        shared = query._replace(user=query.shared)
        return self._keys.lease(shared, Generation(seen.message).invalidated)

    async def _refresh(self, wanted: Wanted, result: LookupResult, name: str) -> None:
        query = self._query(wanted)
        with self._replica.instruments.operation(RefreshRecord()) as record:
            lease: Lease | None = None
            try:
                key = self._refresh_key(query, result)
                taken = None if key is None else await self._leases.take(key)
                if isinstance(taken, str):
                    record.outcome = "skipped"
                    return
                lease = taken
                now = self._store.now()
                before = now - (result.age_seconds or 0.0)
                found = await self._reader.exactly(query, self._replica.tuning)
                if found is not None and found.age < (result.age_seconds or 0.0) - _SAME_AGE:
                    record.outcome = "skipped"
                    return
                # Only the label is known of it: whatever else shaped the old answer may have aged.
                anew = LookupResult(
                    None, result.intent, None, "miss" if result.intent is None else "partial",
                    lookup_id=result.lookup_id, sighting=result.sighting,
                    stored_for=result.stored_for,
                )  # fmt: skip
                _, put = await self._compute(wanted, anew, lease, before + _SAME_AGE)
                # A partial put may be one of the intent only.
                stored = put in {"stored", "queued"} or (
                    put == "partial" and await self._stored_since(before + _SAME_AGE, query)
                )
                record.outcome = "stored" if stored else "skipped"
                self._refreshed[name] = before
                while len(self._refreshed) > _REMEMBERED:
                    del self._refreshed[next(iter(self._refreshed))]
            except BackendError:
                record.outcome = "skipped"
            except Exception as error:  # noqa: BLE001 - the answer that is there goes on being served
                record.outcome, record.error_type = "error", type(error).__name__
                log.limited("refresh", "a refresh failed (%s)", type(error).__name__)
            finally:
                if lease is not None:
                    lease.release()


def _left_to_others() -> ComputeRecord:
    """Return the record of a computation, to which those that wait for it can refer."""
    record = ComputeRecord()
    leave_note(record)
    return record


def _since(result: LookupResult) -> str | None:
    """Return the invalidations that a lookup knew of; `None` if it could not."""
    seen = result.sighting.generation if result.sighting is not None else None
    return seen.invalidated if seen is not None else None


_SAME_AGE = 1.0
"""Seconds by which the ages of one answer may differ between two looks at it."""


def _life(result: LookupResult, query: Query, tuning: Tuning, tiers: list[Level]) -> float:
    """Return how long an answer is served, in seconds: until the last tier lets it expire."""
    if result.own_ttl is not None:
        return result.own_ttl
    kept = [level for level in tiers if level != "l2" or not query.history]
    return max((tuning.ttl(level, result.intent) for level in kept), default=0.0)
