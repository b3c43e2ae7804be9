"""Approval before serving: answers in the band of doubt are put to an approver first.

One call per question and stored answer at a time, for all callers. What was approved is remembered
in the store until the entry ends, so that it serves the next lookup of any replica without a call;
what was rejected is remembered in this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

from cache_core.backends.approver.base import AT_ONCE, Approver, Opinion
from cache_core.backends.base import Keyed, RowWrite, Write
from cache_core.config.tuning import Tuning
from cache_core.model.exceptions import BackendError
from cache_core.model.keys import Keys
from cache_core.model.logs import RateLimited
from cache_core.model.values import Doubt, MissReason, Query
from cache_core.observability.instruments import Instruments
from cache_core.observability.records import ApprovalRecord, ApprovalVerdict
from cache_core.tiers.journal import Journal

log = RateLimited(logging.getLogger("glasscache"))

Settled: TypeAlias = Literal["approved"] | MissReason
"""Result of a doubt: approval, or the reason for a miss."""

_REASONS: Mapping[ApprovalVerdict, Settled] = {
    "approved": "approved",
    "rejected": "not_approved",
    "failed": "approval_failed",
    "timed_out": "approval_late",
    "over_budget": "approval_budget",
}

_REJECTED_KEPT = 4_096
"""Newest rejections that are remembered."""

_RESERVE = 0.05
"""Seconds of a lookup's budget that are left to search again once something was approved."""

_CLOSE_SECONDS = 1.0


class Approvals:
    """Puts doubts to an approver.

    Args:
        approver: The approver.
        store: Remembers what was approved.
        keys: Names the lists of what belongs to a user.
        journal: Counts the erasures of users.
        instruments: Count the calls.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        approver: Approver,
        store: Keyed,
        keys: Keys,
        journal: Journal,
        instruments: Instruments,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._approver = approver
        self._store = store
        self._keys = keys
        self._journal = journal
        self._instruments = instruments
        self._budget = _Budget(clock)
        self._flights: dict[str, asyncio.Task[ApprovalVerdict]] = {}
        self._rejected: OrderedDict[str, None] = OrderedDict()

    async def settle(self, query: Query, doubt: Doubt, tuning: Tuning, until: float) -> Settled:
        """Return whether *doubt* is approved, else the reason why it is not served.

        A call that takes longer goes on without its lookup: its approval serves the next one.

        Args:
            query: The asked message.
            doubt: The stored answer.
            tuning: In force.
            until: End of the lookup's budget, in seconds of `time.monotonic`.
        """
        if doubt.name in self._rejected:
            return "not_approved"
        left = until - _RESERVE - time.monotonic()
        if left <= 0:
            return "approval_late"
        flight = self._flights.get(doubt.name)
        if flight is None:
            refused = self._refusal(tuning)
            if refused is not None:
                self._instruments.record(ApprovalRecord(refused))
                return _REASONS[refused]
            flight = self._start(query, doubt, tuning)
        await asyncio.wait([flight], timeout=left)
        if not flight.done():
            return "approval_late"
        return "approval_failed" if flight.cancelled() else _REASONS[flight.result()]

    def _refusal(self, tuning: Tuning) -> ApprovalVerdict | None:
        """Return why no call is made now; `None` if one is."""
        if self._approver.is_full or self._approver.breaker.state == "open":
            return "failed"
        busy = len(self._flights) >= AT_ONCE
        return "over_budget" if busy or not self._budget.take(tuning) else None

    def _start(self, query: Query, doubt: Doubt, tuning: Tuning) -> asyncio.Task[ApprovalVerdict]:
        flight = asyncio.get_running_loop().create_task(self._fly(query, doubt, tuning))
        self._flights[doubt.name] = flight
        flight.add_done_callback(lambda _: self._flights.pop(doubt.name, None))
        return flight

    async def _fly(self, query: Query, doubt: Doubt, tuning: Tuning) -> ApprovalVerdict:
        started, erasures = time.perf_counter(), self._journal.users_forgotten
        verdict: ApprovalVerdict = "failed"
        spent = tuning.approval_usd
        try:
            opinion = await self._approver.ask(query.text, doubt.message, doubt.response)
            verdict = "approved" if opinion.approved else "rejected"
            spent = _price(opinion, tuning)
        except BackendError as error:
            verdict = "timed_out" if error.reason == "timeout" else "failed"
            if error.reason in {"overloaded", "breaker_open"}:
                spent = 0.0
            log.limited("approve", "approve= failed: %s", error)
        finally:
            seconds = time.perf_counter() - started
            self._instruments.record(ApprovalRecord(verdict, spent, seconds))
        if verdict == "approved":
            await self._remember(doubt, erasures)
        elif verdict == "rejected":
            self._rejected[doubt.name] = None
            if len(self._rejected) > _REJECTED_KEPT:
                self._rejected.popitem(last=False)
        return verdict

    async def _remember(self, doubt: Doubt, erasures: int) -> None:
        """Store an approval; listed under its user, so that erasing them erases it.

        Args:
            doubt: What was approved.
            erasures: Number of erasures when it was asked about: its user may have been erased by a
                later one.
        """
        if erasures != self._journal.users_forgotten:
            return
        index = self._keys.index("user", doubt.owner)
        with contextlib.suppress(BackendError):
            if doubt.owner:
                await self._store.put_rows(
                    [RowWrite(index, {doubt.key: ""}, doubt.life, longest=True)]
                )
            await self._store.write([Write(doubt.key, doubt.name, doubt.life)])
            if not doubt.owner:
                return
            # An erasure is logged before it lists what is the user's.
            await self._journal.catch_up()
            if erasures != self._journal.users_forgotten:
                await self._store.delete([doubt.key])
                await self._store.delete_rows(index, [doubt.key])

    def forget(self) -> None:
        """Drop what is remembered here: a user was erased."""
        self._rejected.clear()

    async def close(self) -> None:
        """Cancel all calls."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        if flights:
            await asyncio.wait(flights, timeout=_CLOSE_SECONDS)


def _price(opinion: Opinion, tuning: Tuning) -> float:
    """Return what a call cost, in USD: by its tokens where the model has a price."""
    known = tuning.cost_usd(opinion.model, opinion.tokens_in, opinion.tokens_out)
    return tuning.approval_usd if known is None else known


class _Budget:
    """Calls per minute: a bucket of a minute's calls that is refilled evenly.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._used = 0.0
        self._at = clock()

    def take(self, tuning: Tuning) -> bool:
        """Count a call; return whether it is within the budget."""
        now = self._clock()
        rate = tuning.approvals_per_minute
        self._used = max(0.0, self._used - (now - self._at) * rate / 60)
        self._at = now
        if self._used + 1 > rate:
            return False
        self._used += 1
        return True
