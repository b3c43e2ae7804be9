"""Background duties of a cache: flush, sweep, probe, retry, report.

Each duty has a loop of its own, so that a slow backend only delays the duties that need it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from cache_core.model.exceptions import BackendError
from cache_core.model.logs import RateLimited, place_of
from cache_core.model.remedies import log_failure
from cache_core.model.tasks import background, end_all
from cache_core.observability.hours import HOUR
from cache_core.operations.invalidate.run import Invalidator
from cache_core.operations.learning import Learning
from cache_core.operations.replica import Replica
from cache_core.operations.staging import Staging
from cache_core.runtime.assembly import Parts
from cache_core.runtime.state import State

log = RateLimited(logging.getLogger("glasscache"))

TICK = 0.25
"""Seconds between flushes of the decision log, and between probes of a backend that is down."""

_SECOND = 1.0

RENEWED_SECONDS = 60.0
"""Seconds between renewals of rows that wait for a vector index, well before they expire."""

_COUNT_SECONDS = 5.0

STAGE_SECONDS = 5.0
"""Seconds between two looks at a staged change."""
_HISTORY_SECONDS = 5.0
_MERGE_SECONDS = 60.0


class Adopter(Protocol):
    """Makes the invalidations that other processes left.

    It is one layer up, because all engines of a cache have to stop serving what is pending.
    """

    async def adopt(self) -> None:
        """Make them."""
        ...


class Housekeeper:
    """Background duties of a cache.

    Args:
        parts: What the cache is made of.
        invalidator: Retries invalidations, and searches for other processes.
        state: What is reported.
        replica: This cache.
        adopter: Makes the invalidations that other processes left.
        learning: Shares with other processes what was learned of answers.
        staging: Watches a staged change.
    """

    def __init__(
        self,
        parts: Parts,
        invalidator: Invalidator,
        state: State,
        replica: Replica,
        adopter: Adopter,
        learning: Learning,
        staging: Staging,
    ) -> None:
        self._parts = parts
        self._invalidator = invalidator
        self._state = state
        self._replica = replica
        self._adopter = adopter
        self._learning = learning
        self._staging = staging
        self._next_count = 0.0
        self._tasks: list[asyncio.Task[None]] = []
        self._warned_contexts = False

    def start(self) -> None:
        """Start; tasks are detached from the caller's context, so that no span lasts forever."""
        store = self._parts.store
        duties: list[tuple[str, Callable[[], Awaitable[Any]], Callable[[], float]]] = [
            ("decisions", self._parts.decisions.flush, lambda: TICK),
            ("store", store.tend, lambda: TICK if store.breaker.state != "closed" else _SECOND),
            ("retry", self._invalidator.steps.retry, lambda: TICK),
            ("invalidations", self._follow_invalidations, lambda: TICK),
            ("secret", self._keep_secret, lambda: _COUNT_SECONDS),
            ("history", self.write_history, self._until_history),
            ("report", self._report, lambda: _SECOND),
        ]
        if self._replica.settings.heartbeat:
            duties.append(("heartbeat", self._beat, lambda: _SECOND))
            duties.append(("adopt", self._adopt_unconfirmed, lambda: _COUNT_SECONDS))
            duties.append(("staging", self._staging.tend, lambda: STAGE_SECONDS))
            duties.append(("merge", self._parts.history.merge, lambda: _MERGE_SECONDS))
        if self._parts.semantic is not None:
            duties += [
                ("semantic", self._tend_semantic, lambda: _SECOND),
                ("learning", self._learning.tend, lambda: _SECOND),
                ("feed", self._apply_feed, lambda: _SECOND),
                ("arriving", self._parts.semantic.tier.rows.keep_findable, lambda: RENEWED_SECONDS),
            ]
            if self._replica.settings.heartbeat:
                duties.append(("models", self._tend_models, lambda: RENEWED_SECONDS))
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(
                self._go_round(work, pause),
                name=f"glasscache-{name}",
                context=background(),
            )
            for name, work, pause in duties
        ]

    async def close(self) -> None:
        """Stop, and delete this replica's heartbeat."""
        await end_all(self._tasks)
        if self._replica.settings.heartbeat:
            with contextlib.suppress(BackendError):
                await self._parts.fleet.leave()

    async def _go_round(
        self, work: Callable[[], Awaitable[Any]], pause: Callable[[], float]
    ) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            await self._quietly(work)
            due = clock() + pause()
            await asyncio.sleep(due - clock())
            self._state.loop_lag = max(self._state.loop_lag, clock() - due)

    async def _quietly(self, work: Callable[[], Awaitable[Any]]) -> None:
        try:
            await work()
        except BackendError as error:
            log_failure("a backend is unavailable", error)
        except Exception as error:  # noqa: BLE001 - the next tick tries again
            log.limited(
                "housekeeping", "housekeeping: unexpected %s; please report it", place_of(error)
            )

    async def write_history(self) -> None:
        """Write what was counted to the history; raises `BackendError`, and keeps it then."""
        price = self._replica.tuning.saves("l1", None)
        await self._parts.history.write(self._replica.stats.hours, price)

    def _until_history(self) -> float:
        # What was counted is of one hour, so the end of an hour is not slept through.
        left = HOUR - self._parts.store.now() % HOUR
        return max(TICK, min(left, _HISTORY_SECONDS))

    async def _report(self) -> None:
        self._replica.instruments.report(self._state.now())
        self._state.loop_lag = 0.0

    async def _adopt_unconfirmed(self) -> None:
        if self._parts.store.breaker.state == "closed":
            await self._adopter.adopt()

    async def _follow_invalidations(self) -> None:
        await self._parts.journal.catch_up()
        await self._invalidator.search_for_others(self._replica.tuning)

    async def _apply_feed(self) -> None:
        await self._invalidator.apply(self._replica.tuning)

    async def _tend_semantic(self) -> None:
        semantic = self._parts.semantic
        if semantic is None:
            return
        await semantic.index.tend(self._parts.store.now())
        await semantic.tier.tend()
        now = asyncio.get_running_loop().time()
        if now >= self._next_count:
            self._next_count = now + _COUNT_SECONDS
            self._state.entries["l2"] = await semantic.index.count()
        if semantic.tier.rows.refused_contexts and not self._warned_contexts:
            self._warned_contexts = True
            logging.getLogger("glasscache").warning(
                "more contexts than a namespace may have vector indexes: L2 is skipped for the "
                "others. Leave what changes with every request out of context=; the key with the "
                "most values is %r",
                self._replica.stats.churn.contexts.churning(),
            )

    async def _tend_models(self) -> None:
        """Report the model in use, and remove the vectors of those that no replica uses."""
        semantic = self._parts.semantic
        if semantic is None or semantic.embedder.failed:
            return
        await semantic.former.models.renew()
        swept = await semantic.former.sweep()
        if swept:
            logging.getLogger("glasscache").info(
                "l2: removed the vectors of %d embedding models that no replica uses any more",
                swept,
            )

    async def _keep_secret(self) -> None:
        if not await self._parts.secret.keep(self._parts.store):
            log.limited(
                "secret",
                "the store lost the secret of the keys and another replica made a new one: "
                "restart this one to share answers with it, or set CACHE_KEY for all",
            )

    async def _beat(self) -> None:
        await self._parts.fleet.beat(
            self._state.now(),
            self._replica.live.origins,
            self._replica.metrics(self._parts.keys.namespace),
        )
