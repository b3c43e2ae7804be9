"""One lookup of a checked message: asked, counted and remembered."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from cache_core.backends.base import Values
from cache_core.model.exceptions import BackendError
from cache_core.model.keys import Keys
from cache_core.model.question.days import Days
from cache_core.model.question.users import warn_of_nobody
from cache_core.model.values import Generation, LookupResult, Outcome, Query, Sighting
from cache_core.observability.evidence import Evidence, Found, Sink, hand_out
from cache_core.observability.records import LookupRecord, TierRecord
from cache_core.operations.arguments import Asked
from cache_core.operations.lookup.ask import Reader
from cache_core.operations.lookup.record import capture, finish, result_of, sighting_of
from cache_core.operations.replica import Replica
from cache_core.tiers.journal import Journal


class Lookups:
    """Looks up messages.

    Args:
        reader: Asks the tiers.
        keys: Names what is looked up.
        store: Has the generations; its clock is that of all replicas.
        journal: Log of broad invalidations.
        sinks: Process each lookup that the tiers were asked for.
        replica: This cache.
    """

    def __init__(
        self,
        reader: Reader,
        keys: Keys,
        store: Values,
        journal: Journal,
        sinks: Sequence[Sink],
        replica: Replica,
    ) -> None:
        self._reader = reader
        self._keys = keys
        self._store = store
        self._journal = journal
        self._sinks = sinks
        self._replica = replica
        self._days = Days(replica.settings.timezone)

    async def run(
        self, asked: Asked, *, handed_out: bool, allow_stale: bool = False
    ) -> LookupResult:
        """Return what is known for a message.

        Args:
            asked: The message.
            handed_out: Whether the caller gets intent and documents; else they save nothing.
            allow_stale: As for `MultiLevelCache.lookup`.
        """
        replica = self._replica
        if asked.bypass is not None:
            return unanswered(asked, replica)
        if asked.where.history is not None:
            asked = await asked.settled()
        query = asked.query(self._keys)
        if asked.user_id is not None and query.user is None:
            warn_of_nobody()
        if asked.wants.no_lookup:
            return await self._declined(query)
        tuning = replica.live.current
        if allow_stale:
            query = query._replace(grace=tuning.stale_seconds)
        record = LookupRecord(replica.next_lookup(), tuning.version)
        with replica.instruments.operation(record):
            position, until = self._journal.position, self._days.end(self._store.now())
            found = await self._reader.find(query, tuning, record)
            sighting = sighting_of(query, found, position, until)
            result = result_of(found, record.lookup_id, sighting)
            if result.tier == "l2" and result.stored_for and not self._is_of(query, found):
                # Of a variant, in another letter case for instance.
                result = result._replace(stored_for="")
            finish(record, result, found, handed_out=handed_out)
            if replica.settings.capture_message_content and not asked.wants.no_store:
                capture(record, query, found)
        replica.sightings.note(sighting, answered=result.response is not None)
        hand_out(Evidence(record, query, asked.where, found, result, tuning), self._sinks)
        return result

    async def _declined(self, query: Query) -> LookupResult:
        """Record a lookup whose caller wants a new answer; only invalidations are read, for it."""
        replica = self._replica
        record = LookupRecord(replica.next_lookup(), replica.live.current.version)
        with replica.instruments.operation(record):
            record.outcome, record.reason = "bypass", "declined"
            position, until = self._journal.position, self._days.end(self._store.now())
            generation: Generation | None = None
            with contextlib.suppress(BackendError):
                generation = Generation(*await self._store.read(self._keys.generations(query)))
            seen = Sighting(
                query.tag, query.user, generation, position, exact=query.exact, until=until
            )
        replica.sightings.note(seen, answered=False)
        return LookupResult(
            None, None, None, "bypass", lookup_id=record.lookup_id, reasons=("declined",),
            sighting=seen,
        )  # fmt: skip

    def _is_of(self, query: Query, found: Found) -> bool:
        """Return whether the answer found was stored for exactly the message of *query*."""
        answered = found.answered
        message = None if answered is None or answered.hit is None else answered.hit.entry.message
        return message is not None and self._keys.names(message)[1] == query.exact


def unanswered(asked: Asked, replica: Replica) -> LookupResult:
    """Record a lookup that no tier was asked for: a bypass, else an error of the store."""
    bypass = asked.bypass or ("declined" if asked.wants.no_lookup else None)
    outcome: Outcome = "error" if bypass is None else "bypass"
    reason = bypass or "backend_error"
    record = LookupRecord(replica.next_lookup(), replica.tuning.version)
    with replica.instruments.operation(record):
        record.outcome, record.reason = outcome, reason
        if bypass is None:
            record.calls = [TierRecord("l1", outcome="error", reason=reason)]
    return LookupResult(None, None, None, outcome, lookup_id=record.lookup_id, reasons=(reason,))
