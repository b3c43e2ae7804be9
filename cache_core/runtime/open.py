"""The verbs of a cache whose store was reached."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Protocol

from cache_core.model.exceptions import BackendError
from cache_core.model.question.users import NOBODY
from cache_core.model.remedies import log_failure
from cache_core.model.values import (
    Invalidation,
    Query,
    TierExplanation,
)
from cache_core.observability.decisions import Decision
from cache_core.observability.evidence import Sink
from cache_core.observability.records import InvalidationRecord
from cache_core.observability.verdicts import (
    LOG,
    Source,
    Verdicts,
    Verifier,
    Verify,
    verdict_log,
)
from cache_core.operations.arguments import Asked
from cache_core.operations.changes import Changes, Comparing
from cache_core.operations.compute import run as compute
from cache_core.operations.compute.flight import SingleFlight
from cache_core.operations.compute.run import SharedComputing
from cache_core.operations.compute.turns import Turns
from cache_core.operations.explain import explain, with_notes
from cache_core.operations.invalidate.entries import StoredEntries
from cache_core.operations.invalidate.erase import Forgetter
from cache_core.operations.invalidate.execute import Executor
from cache_core.operations.invalidate.outbox import Outbox, Request
from cache_core.operations.invalidate.retries import Worklist
from cache_core.operations.invalidate.run import Invalidator
from cache_core.operations.invalidate.semantic import Semantic
from cache_core.operations.learning import Learning
from cache_core.operations.lookup.approve import Approvals
from cache_core.operations.lookup.ask import Reader
from cache_core.operations.lookup.run import Lookups
from cache_core.operations.put.rules import Rules
from cache_core.operations.put.run import Puts
from cache_core.operations.put.write import Writer
from cache_core.operations.recognition import Recognition
from cache_core.operations.replica import Replica
from cache_core.operations.staging import Staging
from cache_core.runtime.assembly import Parts, suppressed
from cache_core.runtime.background import Adopter, Housekeeper
from cache_core.runtime.state import State


class CacheOwner(compute.CacheSource, Adopter, Protocol):
    """Something that opens and closes the cache."""


class Open:
    """A cache whose store was reached.

    Args:
        parts: What it is made of.
        outbox: Keeps the invalidations that a backend has not confirmed.
        flight: The computations that are under way.
        rules: What of the answers is stored.
        verify: Checks a share of the hits of L2; `None` for none.
        owner: Has this cache, and adopts the invalidations that other processes left.
        replica: This cache.
    """

    reached = True

    def __init__(
        self,
        parts: Parts,
        outbox: Outbox,
        flight: SingleFlight[str],
        rules: Rules,
        verify: Verify | None,
        owner: CacheOwner,
        replica: Replica,
    ) -> None:
        settings, store, keys = replica.settings, parts.store, parts.keys
        semantic = None if parts.semantic is None else parts.semantic.tier
        self._outbox = outbox
        self._replica = replica
        self.parts = parts
        self.invalidator = _invalidator(parts, outbox, lambda: replica.tuning.promote_after)
        self._verdicts = Verdicts(store, keys.own(LOG), parts.decisions, replica.instruments)
        self.verifier = (
            None if verify is None else Verifier(verify, self._verdicts, replica.instruments)
        )
        self._approvals = (
            None
            if parts.approver is None
            else Approvals(parts.approver, store, keys, parts.journal, replica.instruments)
        )
        if self._approvals is not None:
            parts.journal.when_forgotten.append(self._approvals.forget)
        self.reader = Reader(parts.tiers, settings, replica.instruments, self._approvals)
        self.writer = Writer(
            store, keys, parts.tiers, parts.journal, semantic, settings, self._take_back
        )
        self.leases = Turns(store, settings.compute_lease, settings.compute_wait)
        self.recognition = Recognition(None if parts.semantic is None else parts.semantic.vectors)
        self.learning = Learning(
            store, keys, parts.evidence, verdict_log(store, keys.own(LOG)), self.recognition,
            replica.instruments, replica.name,
        )  # fmt: skip
        parts.journal.when_forgotten += [self.learning.forget, self.recognition.forget]
        sinks: list[Sink] = [replica.stats, parts.decisions, self.learning]
        if self.verifier is not None:
            sinks.append(self.verifier)
        self.lookup = Lookups(self.reader, keys, store, parts.journal, sinks, replica).run
        self.puts = Puts(
            self.writer, keys, store, parts.journal, rules, replica,
            Comparing(self.learning, self._changes(parts), self.recognition),
        )  # fmt: skip
        self.put, self.warm = self.puts.run, self.puts.warm
        self.computing = SharedComputing(
            owner, keys, flight, replica, store, self.reader, self.leases
        )
        self.compute = self.computing.answer
        self.judge, self.verdicts = self._verdicts.judge_decision, self._verdicts.last
        self.withdraw = self._verdicts.withdraw
        self.decisions = parts.decisions.last
        state = State(parts, self.invalidator.steps, outbox, self.verifier, replica)
        self.state = state.now
        self.staging = Staging(
            replica.live, store, parts.decisions, verdict_log(store, keys.own(LOG))
        )
        self.housekeeper = Housekeeper(
            parts, self.invalidator, state, replica, owner, self.learning, self.staging
        )

    def _changes(self, parts: Parts) -> Changes:
        """Return what finds answers that changed."""
        shared_text = None if parts.semantic is None else parts.semantic.tier.rows.text_of
        return Changes(
            parts.store, parts.keys, shared_text, self._take_back, self.recognition,
            self._replica.instruments,
        )  # fmt: skip

    async def _take_back(self, label: str) -> None:
        """Invalidate every answer with a label."""
        await self.invalidate(Request("answer", label))

    def start(self, closing: AsyncExitStack) -> None:
        """Begin with the background duties; *closing* ends them, the last one first."""
        closing.push_async_callback(suppressed, self.housekeeper.write_history)
        closing.push_async_callback(self.invalidator.steps.close)
        closing.push_async_callback(self.housekeeper.close)
        # After the computations, whose puts compare answers.
        closing.push_async_callback(self.recognition.close)
        closing.push_async_callback(self.leases.close)
        closing.push_async_callback(self.computing.close)
        if self.verifier is not None:
            closing.push_async_callback(self.verifier.close)
        if self._approvals is not None:
            closing.push_async_callback(self._approvals.close)
        closing.callback(self.computing.stop_storing)
        self.housekeeper.start()

    async def invalidate(self, request: Request, *, dry_run: bool = False) -> Invalidation:
        """Invalidate answers; what is not confirmed is kept in the outbox."""
        if dry_run:
            # Not counted: nothing is invalidated.
            return await self.invalidator.make(request, self._replica.tuning, dry_run=True)
        with self._replica.instruments.operation(InvalidationRecord(request.kind)) as record:
            self._replica.counts.invalidations += 1
            complete = False
            try:
                done = await self.invalidator.make(request, self._replica.tuning)
                complete = done.complete
            finally:
                # A caller that is cancelled leaves the rest to be retried, too.
                if not complete:
                    self._outbox.add(request)
            record.count = done.removed
            record.outcome = "ok" if complete else "error"
            return done

    async def explain(self, asked: Asked) -> list[TierExplanation]:
        """Return what each tier would say to a message, and why; counts nothing."""
        asked = await asked.settled()
        query = self.parts.keys.query_in(asked.message, asked.user_id, asked.where)
        budget = self._replica.settings.lookup_budget
        found = await explain(self.parts.tiers, query, self._replica.tuning, budget)
        return with_notes(found, self._notes(query, asked))

    def _notes(self, query: Query, asked: Asked) -> list[str]:
        """Return what is to be said of a message besides what the tiers say."""
        notes = self._replica.stats.churn.notes(query, asked.where)
        if asked.where.too_large:
            notes.append("The context or the history is too large: a lookup bypasses the cache.")
        if asked.user_id is not None and query.user is None:
            notes.append(NOBODY)
        return notes

    async def feedback(self, lookup_id: str, *, correct: bool, source: Source) -> bool:
        """Record a verdict on a lookup; return whether it was."""
        try:
            return await self._verdicts.judge(lookup_id, correct=correct, source=source)
        except BackendError as error:
            self._replica.counts.lost_feedback += 1
            log_failure("feedback was lost", error)
            return False

    def recent(self, count: int) -> list[Decision]:
        """Return this replica's last decisions, newest last."""
        return list(self.parts.decisions.recent)[-count:] if count else []


def _invalidator(parts: Parts, outbox: Outbox, enough: Callable[[], int]) -> Invalidator:
    """Return what invalidates answers; *enough* returns how many users promote one."""
    store, keys, journal, semantic = parts.store, parts.keys, parts.journal, None
    if (l2 := parts.semantic) is not None:
        semantic = Semantic(l2.tier.waiting, l2.similar, l2.feed)
    entries = StoredEntries(store, keys, semantic.questions if semantic is not None else None)
    forgetter = Forgetter(store, keys, parts.decisions, journal, entries, semantic, enough)
    executor = Executor(store, keys, journal, entries, forgetter, semantic, parts.fleet)
    worklist = Worklist(executor, parts.denylist, outbox, store.breaker.backend)
    return Invalidator(worklist, executor, keys, journal, entries, semantic)
