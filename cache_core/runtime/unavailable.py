"""The verbs of a cache while its store was not reached: each has its honest outcome."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from cache_core.backends.breaker import Breaker, transitions
from cache_core.model.exceptions import BackendError
from cache_core.model.keys import Keys
from cache_core.model.values import Invalidation, LookupResult, TierExplanation, Where
from cache_core.observability.decisions import Decision
from cache_core.observability.instruments import CacheState
from cache_core.observability.records import InvalidationRecord
from cache_core.observability.verdicts import Source, Verdict
from cache_core.operations.answers import How, What
from cache_core.operations.arguments import Asked, ask
from cache_core.operations.compute.flight import SingleFlight
from cache_core.operations.compute.run import CacheSource, Computing
from cache_core.operations.invalidate.outbox import Outbox, Request
from cache_core.operations.lookup.run import unanswered
from cache_core.operations.put.run import not_stored
from cache_core.operations.replica import Counts, Replica


class Unavailable:
    """A cache whose store was not reached.

    Args:
        owner: Has another cache once the store is reached.
        keys: Distinguish messages; those of the store are not known yet.
        flight: The computations that are under way.
        outbox: Keeps the invalidations until the store is reached.
        replica: This cache.
        breaker: Breaker of a store that cannot be reached; `None` if none was tried.

    Attributes:
        why: Why the store was not reached when the cache was opened, and what to do.
    """

    reached = False

    def __init__(
        self,
        owner: CacheSource,
        keys: Keys,
        flight: SingleFlight[str],
        outbox: Outbox,
        replica: Replica,
        breaker: Breaker | None,
    ) -> None:
        self._outbox = outbox
        self._replica = replica
        self._breaker = breaker
        self.why = ""
        self.compute = Computing(owner, keys, flight, replica).answer

    async def lookup(
        self, asked: Asked, *, handed_out: bool, allow_stale: bool = False
    ) -> LookupResult:
        """Count an error."""
        del handed_out, allow_stale
        return unanswered(asked, self._replica)

    async def put(self, asked: Asked, what: What, how: How, lookup: LookupResult | None) -> str:
        """Count everything as dropped."""
        del how, lookup
        return not_stored(asked, what, self._replica)

    async def warm(
        self,
        items: Sequence[tuple[str, str | None, str]],
        where: Where,
        intent: str | None,
        how: How,
        progress: Callable[[int], None],
    ) -> int:
        """Count everything as dropped; return 0."""
        del how
        for query, user_id, response in items:
            asked = ask(query, user_id, where, self._replica.settings)
            not_stored(asked, What(response, intent), self._replica)
        progress(len(items))
        return 0

    async def invalidate(self, request: Request, *, dry_run: bool = False) -> Invalidation:
        """Keep a request until the store is reached."""
        pending = Invalidation(0, complete=False, pending=("store",))
        if dry_run:
            return pending
        with self._replica.instruments.operation(InvalidationRecord(request.kind)) as record:
            record.outcome = "error"
            self._replica.counts.invalidations += 1
            self._outbox.add(request)
        return pending

    async def explain(self, asked: Asked) -> list[TierExplanation]:
        """Return nothing: no tier can be asked."""
        del asked
        return []

    async def feedback(self, lookup_id: str, *, correct: bool, source: Source) -> bool:
        """Count a verdict as lost."""
        del lookup_id, correct, source
        self._replica.counts.lost_feedback += 1
        return False

    async def judge(self, decision: Decision, *, correct: bool, source: Source) -> bool:
        """Raise `BackendError`."""
        del decision, correct, source
        _refuse()

    async def decisions(self, count: int) -> list[Decision]:
        """Raise `BackendError`."""
        del count
        _refuse()

    async def verdicts(self, count: int) -> list[Verdict]:
        """Raise `BackendError`."""
        del count
        _refuse()

    def state(self) -> CacheState:
        """Return how the cache is now."""
        breakers = {} if self._breaker is None else {self._breaker.backend: self._breaker}
        return CacheState(
            backends=dict.fromkeys(breakers, False),
            breakers={name: breaker.state for name, breaker in breakers.items()},
            transitions=transitions(breakers),
            entries={},
            tuning=self._replica.tuning,
            pending_invalidations=len(self._outbox.requests),
            dropped=lost(self._replica.counts, self._outbox),
        )

    def recent(self, count: int) -> list[Decision]:
        """Return nothing: no lookup had a decision."""
        del count
        return []


def _refuse() -> NoReturn:
    raise BackendError("backend_error")


def lost(counts: Counts, outbox: Outbox) -> Mapping[str, int]:
    """Return what was dropped, per queue, whether the store is reached or not."""
    return {"feedback": counts.lost_feedback, "invalidations": outbox.lost}
