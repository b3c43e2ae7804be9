"""The path of one lookup: exact first, then by similarity with the partial tiers beside it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from cache_core.deadline import Deadline
from cache_core.exceptions import BackendError
from cache_core.hedging import Hedging
from cache_core.instrumentation import CacheCall, Instruments
from cache_core.logs import RateLimited
from cache_core.models import Hit, Level, LookupResult, Miss, Outcome, Query, Sighting
from cache_core.parts import Parts
from cache_core.remedies import tell
from cache_core.settings import Settings
from cache_core.tiers.base import Tier
from cache_core.tuning import Tuning

log = RateLimited(logging.getLogger("glasscache"))

_INTENT_AND_DOCUMENTS: tuple[Level, ...] = ("l3", "l4")


@dataclass(slots=True)
class Asked:
    """One tier that was asked: its finished call, and its answer unless it failed."""

    call: CacheCall
    answer: Hit | Miss | None
    hit: Hit | None
    """The answer, if it is one."""


class Found:
    """What the tiers that were needed said, in tier order."""

    __slots__ = ("asked",)

    def __init__(self, asked: Sequence[Asked] = ()) -> None:
        self.asked = asked

    def of(self, level: Level) -> Asked | None:
        """Return what a tier said, if it was needed."""
        for item in self.asked:
            if item.call.level == level:
                return item
        return None

    @property
    def answered(self) -> Asked | None:
        """The tier that has the response: nobody is needed after it."""
        last = self.asked[-1] if self.asked else None
        if last is None or last.hit is None or last.call.level in _INTENT_AND_DOCUMENTS:
            return None
        return last

    def hit(self, level: Level) -> Hit | None:
        """Return a tier's hit."""
        for item in self.asked:
            if item.call.level == level:
                return item.hit
        return None


class Reader:
    """Asks the tiers.

    Args:
        parts: Of the cache.
        settings: For the budgets.
        instruments: For the scopes around each tier.
    """

    def __init__(self, parts: Parts, settings: Settings, instruments: Instruments) -> None:
        self._tiers = parts.tiers
        self._settings = settings
        self._instruments = instruments
        self._hedging = Hedging(settings.hedge_delay, self._beyond)
        beyond: tuple[Level, ...] = ("l2", *_INTENT_AND_DOCUMENTS)
        self._second: Level | None = next((name for name in beyond if name in parts.tiers), None)

    def find(self, query: Query, tuning: Tuning, call: CacheCall) -> Awaitable[Found]:
        """Ask L1; without an answer L2, and beside it L3 and L4.

        Nothing else is started while L1 may still answer soon: an embedding costs a hundred times
        what an exact answer does. Only a store that is late is not waited for.

        Args:
            query: The message.
            tuning: In force.
            call: The lookup's record; its level says meanwhile which tier is waited for.
        """
        deadline = time.monotonic() + self._settings.lookup_budget
        find = self._find_stale if query.grace else self._find
        return find(query, tuning, call, deadline)

    async def _find_stale(
        self, query: Query, tuning: Tuning, call: CacheCall, deadline: float
    ) -> Found:
        # Nothing stale before anything fresh, wherever that is.
        found = await self._find(query._replace(grace=0.0), tuning, call, deadline)
        if found.answered is None:
            stale = await self._find(query, tuning, call, deadline)
            return found if stale.answered is None else stale
        return found

    async def _find(self, query: Query, tuning: Tuning, call: CacheCall, deadline: float) -> Found:
        exact = self._tiers.get("l1")
        call.level = "l1" if exact is not None else self._second
        if exact is None:
            return Found(await self._beyond(query, tuning, call, deadline))
        hedge = self._hedging.watch(query, tuning, call, deadline)
        try:
            first = await self._ask(exact, query, tuning, call, None)
            if first.hit is not None:
                return Found([first])
            self._hedging.leave(hedge)
            call.level = self._second
            rest = await (hedge.task or self._beyond(query, tuning, call, deadline))
            return Found([first, *rest])
        finally:
            self._hedging.leave(hedge)
            if hedge.task is not None:
                await _reap([hedge.task])

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
        self, query: Query, tuning: Tuning, call: CacheCall, deadline: float
    ) -> list[Asked]:
        """Ask L2, L3 and L4; the latter two count only if L2 has no answer."""
        beside = [
            asyncio.ensure_future(self._ask(tier, query, tuning, call, None))
            for level in _INTENT_AND_DOCUMENTS
            if (tier := self._tiers.get(level)) is not None
        ]
        try:
            found: list[Asked] = []
            semantic = self._tiers.get("l2")
            if semantic is not None:
                budget = max(0.001, deadline - time.monotonic())
                found.append(await self._ask(semantic, query, tuning, call, budget))
                if found[0].hit is not None:
                    return found
            return found + list(await asyncio.gather(*beside))
        finally:
            await _reap(beside)

    def _ask(
        self, tier: Tier, query: Query, tuning: Tuning, whole: CacheCall, budget: float | None
    ) -> Coroutine[Any, Any, Asked]:
        """Ask one tier, within *budget* seconds; `None` leaves it to the store's own limit."""
        call = CacheCall("get", tier.level)
        ask = self._ask_observed if whole.detailed else self._ask_tier
        return ask(tier, query, tuning, call, budget)

    async def _ask_observed(
        self, tier: Tier, query: Query, tuning: Tuning, call: CacheCall, budget: float | None
    ) -> Asked:
        with self._instruments.part(call):
            return await self._ask_tier(tier, query, tuning, call, budget)

    async def _ask_tier(
        self, tier: Tier, query: Query, tuning: Tuning, call: CacheCall, budget: float | None
    ) -> Asked:
        level = tier.level
        started = time.perf_counter()
        if level == "l2":
            call.threshold = tuning.semantic_threshold
        answer: Hit | Miss | None = None
        try:
            if budget is None:
                answer = await tier.get(query, tuning)
            else:
                async with Deadline(budget):
                    answer = await tier.get(query, tuning)
        except TimeoutError:
            _fill_error(call, BackendError("timeout", "TimeoutError"))
        except BackendError as error:
            _fill_error(call, error)
        except Exception as error:  # noqa: BLE001 - the agent must not fail because of us
            log.limited(
                "bug", "%s: unexpected %s: %s; please report it", level, type(error).__name__, error
            )
            _fill_error(call, BackendError("backend_error", type(error).__name__))
        else:
            _fill(call, answer, tuning, query.grace)
        if call.ttl_seconds is None:
            call.ttl_seconds = tuning.ttl(level)
        call.seconds = time.perf_counter() - started
        return Asked(call, answer, answer if isinstance(answer, Hit) else None)


async def _reap(tasks: list[asyncio.Task[list[Asked]]] | list[asyncio.Task[Asked]]) -> None:
    """Leave no task behind: what nobody needs any more is cancelled, and has ended."""
    unfinished = [task for task in tasks if not task.done()]
    for task in unfinished:
        task.cancel()
    if unfinished:
        await asyncio.gather(*unfinished, return_exceptions=True)


def _fill(call: CacheCall, answer: Hit | Miss, tuning: Tuning, grace: float) -> None:
    nearest = answer.entry if isinstance(answer, Hit) else answer.nearest
    if call.level == "l2" and nearest is not None:
        call.threshold = tuning.threshold(nearest.intent)
    if isinstance(answer, Hit):
        call.outcome = "hit"
        call.age_seconds = answer.age
        call.similarity = answer.similarity
        call.reason = "" if answer.confirmed else "unconfirmed"
        call.ttl_seconds = answer.ttl
        if grace > 0 and answer.age > answer.ttl:
            # It spares nothing: computing another one was tried before.
            call.stale = True
        elif call.level is not None:
            call.saved_usd = tuning.saves(call.level, answer.entry.cost_usd)
        return
    call.outcome = "miss"
    call.reason = answer.reason
    call.similarity = answer.similarity
    call.guard = answer.guard
    call.other_intent = answer.other_intent


def _fill_error(call: CacheCall, error: BackendError) -> None:
    call.outcome = "error"
    call.reason = error.reason
    call.error_type = error.error_type
    if error.reason == "isolation":
        log.limited(
            "isolation",
            "%s: an entry of another scope was found and not served; see docs/architecture.md",
            call.level,
        )
    else:
        tell(f"{call.level} cannot answer", error)


def fold(found: Found, lookup_id: str, sighting: Sighting | None = None) -> LookupResult:
    """Return what the tiers said as one result."""
    given = [item.call.reason for item in found.asked if item.call.reason]
    reasons = tuple(dict.fromkeys(given)) if given else ()
    answered = found.answered
    if answered is not None and answered.hit is not None:
        tier, answer = answered.call, answered.hit
        similarity = 1.0 if tier.level == "l1" else answer.similarity
        return LookupResult(
            answer.entry.response, answer.entry.intent, None, "hit", tier.level, similarity,
            answer.age, tier.stale, lookup_id, reasons, sighting, answer.entry.ttl,
        )  # fmt: skip
    label, documents = found.hit("l3"), found.hit("l4")
    outcome: Outcome = "miss"
    if label is not None or documents is not None:
        outcome = "partial"
    elif any(item.call.outcome == "error" for item in found.asked):
        outcome = "error"
    return LookupResult(
        response=None,
        intent=label.entry.intent if label is not None else None,
        rag_results=list(documents.entry.rag_results or ()) if documents is not None else None,
        outcome=outcome,
        lookup_id=lookup_id,
        reasons=reasons,
        sighting=sighting,
    )
