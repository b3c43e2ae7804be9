"""The path of one lookup: exact first, then by similarity with the partial tiers beside it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Collection, Coroutine, Mapping
from typing import Any

from cache_core.backends.deadline import Deadline
from cache_core.config.settings import Settings
from cache_core.config.tuning import Tuning
from cache_core.model.exceptions import BackendError
from cache_core.model.logs import RateLimited, place_of
from cache_core.model.values import Hit, Level, Miss, Query
from cache_core.observability.evidence import INTENT_AND_DOCUMENTS, Found, TierAnswer
from cache_core.observability.instruments import Instruments
from cache_core.observability.records import LookupRecord, TierRecord
from cache_core.operations.lookup.approve import Approvals
from cache_core.operations.lookup.hedging import Hedging
from cache_core.operations.lookup.record import tier_answered, tier_failed
from cache_core.tiers.base import Tier

log = RateLimited(logging.getLogger("glasscache"))


class Reader:
    """Asks the tiers.

    Args:
        tiers: Those that are on.
        settings: For the budgets.
        instruments: For the scopes around each tier.
        approvals: Settles doubts of L2; `None` for none.
    """

    def __init__(
        self,
        tiers: Mapping[Level, Tier],
        settings: Settings,
        instruments: Instruments,
        approvals: Approvals | None = None,
    ) -> None:
        self._approvals = approvals
        self._tiers = tiers
        self._settings = settings
        self._instruments = instruments
        self._hedging = Hedging(settings.hedge_delay, self._beyond)
        beyond: tuple[Level, ...] = ("l2", *INTENT_AND_DOCUMENTS)
        self._second: Level | None = next((name for name in beyond if name in tiers), None)

    def find(self, query: Query, tuning: Tuning, record: LookupRecord) -> Awaitable[Found]:
        """Ask L1; without an answer L2, and beside it L3 and L4.

        Nothing else is started while L1 may still answer soon: an embedding costs a hundred times
        what an exact answer does. Only a store that is late is not waited for.

        Args:
            query: The message.
            tuning: In force.
            record: Of the lookup; its level says meanwhile which tier is waited for.
        """
        deadline = time.monotonic() + self._settings.lookup_budget
        find = self._find_stale if query.grace else self._find
        return find(query, tuning, record, deadline)

    async def _find_stale(
        self, query: Query, tuning: Tuning, record: LookupRecord, deadline: float
    ) -> Found:
        # Nothing stale before anything fresh, wherever that is.
        found = await self._find(query._replace(grace=0.0), tuning, record, deadline)
        if found.answered is None:
            stale = await self._find(query, tuning, record, deadline)
            return found if stale.answered is None else stale
        return found

    async def _find(
        self, query: Query, tuning: Tuning, record: LookupRecord, deadline: float
    ) -> Found:
        exact = self._tiers.get("l1")
        record.level = "l1" if exact is not None else self._second
        if exact is None:
            return Found(await self._beyond(query, tuning, record, deadline))
        hedge = self._hedging.watch(query, tuning, record, deadline)
        try:
            first = await self._ask(exact, query, tuning, record, None)
            if first.hit is not None:
                return Found([first])
            self._hedging.leave(hedge)
            record.level = self._second
            rest = await (hedge.task or self._beyond(query, tuning, record, deadline))
            return Found([first, *rest])
        finally:
            self._hedging.leave(hedge)
            if hedge.task is not None:
                await _reap([hedge.task])

    @property
    def levels(self) -> Collection[Level]:
        """The tiers that are on."""
        return self._tiers.keys()

    async def exactly(self, query: Query, tuning: Tuning) -> Hit | None:
        """Return L1's answer as of now, counting nothing; `None` without one."""
        exact = self._tiers.get("l1")
        if exact is None:
            return None
        with contextlib.suppress(BackendError):
            answer = await exact.get(query, tuning)
            return answer if isinstance(answer, Hit) else None
        return None

    async def _beyond(
        self, query: Query, tuning: Tuning, record: LookupRecord, deadline: float
    ) -> list[TierAnswer]:
        """Ask L2, L3 and L4; the latter two count only if L2 has no answer."""
        start = asyncio.get_running_loop().create_task
        beside = [
            start(self._ask(tier, query, tuning, record, None))
            for level in INTENT_AND_DOCUMENTS
            if (tier := self._tiers.get(level)) is not None
        ]
        try:
            found: list[TierAnswer] = []
            semantic = self._tiers.get("l2")
            if semantic is not None:
                budget = max(0.001, deadline - time.monotonic())
                found.append(await self._ask(semantic, query, tuning, record, budget))
                if found[0].hit is not None:
                    return found
            return found + [await task for task in beside]
        finally:
            await _reap(beside)

    def _ask(
        self, tier: Tier, query: Query, tuning: Tuning, lookup: LookupRecord, budget: float | None
    ) -> Coroutine[Any, Any, TierAnswer]:
        """Ask one tier, within *budget* seconds; `None` leaves it to the store's own limit."""
        record = TierRecord(tier.level)
        ask = self._ask_observed if lookup.detailed else self._ask_tier
        return ask(tier, query, tuning, record, budget)

    async def _ask_observed(
        self, tier: Tier, query: Query, tuning: Tuning, record: TierRecord, budget: float | None
    ) -> TierAnswer:
        with self._instruments.part(record):
            return await self._ask_tier(tier, query, tuning, record, budget)

    async def _ask_tier(
        self, tier: Tier, query: Query, tuning: Tuning, record: TierRecord, budget: float | None
    ) -> TierAnswer:
        level = tier.level
        started = time.perf_counter()
        if level == "l2":
            record.threshold = tuning.semantic_threshold
        answer: Hit | Miss | None = None
        try:
            if budget is None:
                answer = await tier.get(query, tuning)
            else:
                until = time.monotonic() + budget
                async with Deadline(budget):
                    answer = await tier.get(query, tuning)
                    if isinstance(answer, Miss) and answer.doubt is not None:
                        answer = await self._settled(tier, query, tuning, answer, until)
        except TimeoutError:
            tier_failed(record, BackendError("timeout", "TimeoutError"))
        except BackendError as error:
            tier_failed(record, error)
        except Exception as error:  # noqa: BLE001 - the agent must not fail because of us
            log.limited("bug", "%s: unexpected %s; please report it", level, place_of(error))
            tier_failed(record, BackendError("backend_error", type(error).__name__))
        else:
            tier_answered(record, answer, tuning, query.grace)
        if record.ttl_seconds is None:
            record.ttl_seconds = tuning.ttl(level)
        record.seconds = time.perf_counter() - started
        return TierAnswer(record, answer, answer if isinstance(answer, Hit) else None)

    async def _settled(
        self, tier: Tier, query: Query, tuning: Tuning, miss: Miss, until: float
    ) -> Hit | Miss:
        """Return the answer in doubt if it is approved before *until*, else the miss."""
        # What is stale was in doubt before, when it was asked for what is fresh.
        if self._approvals is None or miss.doubt is None or query.grace:
            return miss
        settled = await self._approvals.settle(query, miss.doubt, tuning, until)
        if settled != "approved":
            return miss._replace(reason=settled)
        # Again, because it may have been invalidated meanwhile.
        return await tier.get(query._replace(approved=miss.doubt.name), tuning)


async def _reap(
    tasks: list[asyncio.Task[list[TierAnswer]]] | list[asyncio.Task[TierAnswer]],
) -> None:
    """Leave no task behind: what nobody needs any more is cancelled, and has ended."""
    unfinished = [task for task in tasks if not task.done()]
    for task in unfinished:
        task.cancel()
    if unfinished:
        await asyncio.gather(*unfinished, return_exceptions=True)
