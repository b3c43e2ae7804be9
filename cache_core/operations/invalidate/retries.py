"""Retry of failed invalidations: a work list of steps, each tried until it has succeeded."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from cache_core.model.exceptions import BackendError
from cache_core.model.logs import RateLimited
from cache_core.model.remedies import remedy, said
from cache_core.model.values import Invalidation, Scope
from cache_core.operations.invalidate.outbox import Outbox
from cache_core.operations.invalidate.steps import (
    FindListed,
    FindSimilar,
    GiveTokens,
    Job,
    Part,
    RemoveRows,
    Step,
)
from cache_core.tiers.denylist import Denylist

log = RateLimited(logging.getLogger("glasscache"), 10.0)

MOST_PENDING = 10_000
"""Maximal number of pending steps; beyond it the oldest are dropped, and logged as lost."""


class Done(NamedTuple):
    """Result of a step.

    Attributes:
        removed: Number of entries removed.
        more: Steps that follow from it.
        counts: Numbers of erased items, by kind.
    """

    removed: int = 0
    more: Sequence[Step] = ()
    counts: Mapping[str, int] = {}


class Execute(Protocol):
    """Executes a step; raises `BackendError` if it has to be retried."""

    async def __call__(self, step: Step, *, again: bool) -> Done:
        """Execute *step*; *again* if it was tried before and may have succeeded in part."""


@dataclass(slots=True, eq=False)
class _Item:
    """One line of the work list.

    Attributes:
        step: The step.
        tried: Whether it was tried before.
        also: Jobs whose equal step this one replaced: it is pending for them, too.
    """

    step: Step
    tried: bool = False
    also: set[Job] = field(default_factory=set)


class Worklist:
    """Pending steps; this process serves nothing that they concern.

    Args:
        execute: Executes a step.
        denylist: Kept up to date with the pending steps.
        outbox: Cleared when nothing is pending any more.
        store_name: Backend name of the keyed store, for reports.
    """

    def __init__(
        self, execute: Execute, denylist: Denylist, outbox: Outbox, store_name: str
    ) -> None:
        self._execute = execute
        self._denylist = denylist
        self._outbox = outbox
        self._store_name = store_name
        self._active: set[Job] = set()
        self._items: dict[Step, _Item] = {}
        # Items that a call executes, or will when those are done that they wait for.
        self._carried: set[_Item] = set()
        self._moved = asyncio.Event()
        self._retrying = asyncio.Lock()

    @property
    def waiting(self) -> list[Step]:
        """Pending steps."""
        return [item.step for item in self._items.values()]

    @property
    def pending(self) -> int:
        """Number of unconfirmed invalidations that no caller is carrying out."""
        return len({step.job for step in self.waiting} - self._active)

    def has(self, job: Job, *kinds: type[Part]) -> bool:
        """Return whether steps of some kinds are pending for *job*."""
        return any(
            isinstance(item.step, kinds) and (item.step.job is job or job in item.also)
            for item in self._items.values()
        )

    async def do(self, job: Job, steps: Iterable[Step]) -> Invalidation:
        """Execute *steps* of a job and those that follow; failed ones are pending from then on.

        If the caller is cancelled, `retry` executes the rest.
        """
        self._active.add(job)
        try:
            # On the denylist before anything is awaited.
            removed, counts, failed = await self._run(self.plan(steps))
        finally:
            self._active.discard(job)
        return Invalidation(removed, not failed, tuple(failed), counts)

    def plan(self, steps: Iterable[Step]) -> list[_Item]:
        """Leave *steps* to `retry`; nothing that they concern is served from now on."""
        planned = [_Item(step) for step in steps]
        for item in planned:
            replaced = self._items.get(item.step)
            if replaced is not None:
                item.also |= {*replaced.also, replaced.step.job} - {item.step.job}
            self._items[item.step] = item
        while len(self._items) > MOST_PENDING:
            del self._items[next(iter(self._items))]
            log.limited(
                "lost", "too many invalidations are pending: some are lost; clear the cache"
            )
        self._deny()
        return planned

    async def retry(self) -> None:
        """Retry pending steps, tokens first: the others only clean up."""
        async with self._retrying:
            items = [item for item in self._items.values() if item.step.job not in self._active]
            await self._run(sorted(items, key=lambda item: not isinstance(item.step, GiveTokens)))
            if not self._items:
                self._outbox.clear()

    async def close(self) -> None:
        """Retry pending steps once; log the number left to other processes."""
        await self.retry()
        if self._items:
            log.limited(
                "unconfirmed",
                "%d invalidations are pending at the end: the next cache of this namespace in this "
                "data directory applies them",
                len({step.job for step in self.waiting}),
            )

    async def _run(self, items: Iterable[_Item]) -> tuple[int, dict[str, int], list[str]]:
        """Execute steps and those that follow.

        Returns:
            Number of entries removed, numbers of erased items by kind, and backends that failed.
        """
        todo = deque(items)
        carried = set(todo)
        self._carried |= carried
        try:
            return await self._carry_out(todo, carried)
        finally:
            self._put_down(carried)

    async def _carry_out(
        self, todo: deque[_Item], carried: set[_Item]
    ) -> tuple[int, dict[str, int], list[str]]:
        """Execute *todo*, adding what follows from it to both; see `_run`."""
        removed = 0
        counts: Counter[str] = Counter()
        failed: dict[str, None] = {}
        unavailable: set[str] = set()
        last: _Item | None = None
        while todo:
            if last is not None:
                carried.discard(last)
                self._put_down({last})
            item = last = self._next(todo)
            if item is None:
                await self._moved.wait()
                continue
            step = item.step
            # Each further step would wait for the unavailable backend's timeout again.
            if step.needs in unavailable or not self._is_due(item):
                continue
            again, item.tried = item.tried, True
            try:
                if self._earlier(item):
                    raise BackendError("backend_error", "EarlierStepsPending")
                done = await self._execute(step, again=again)
            except Exception as failure:  # noqa: BLE001 - an invalidation is never lost to a surprise
                error = failure if isinstance(failure, BackendError) else _unexpected(failure)
                failed[self._backend(step, error)] = None
                if error.reason in {"timeout", "breaker_open"}:
                    unavailable.add(step.needs)
                if self._items.get(step) is item:
                    # The others are tried before it next time.
                    self._items[step] = self._items.pop(step)
                log.limited(
                    "invalidation",
                    "an invalidation is pending: %s (%s); it is tried again. %s",
                    error.reason,
                    said(error),
                    remedy(error),
                )
                continue
            removed += done.removed
            counts.update(done.counts)
            if self._items.get(step) is item:
                del self._items[step]
            more = self.plan(done.more)
            todo.extend(more)
            carried.update(more)
            self._carried.update(more)
        return removed, dict(counts), list(failed)

    def _put_down(self, items: set[_Item]) -> None:
        """Carry *items* no longer: those that wait for them look again."""
        self._carried -= items
        self._moved.set()
        self._moved = asyncio.Event()

    def _next(self, todo: deque[_Item]) -> _Item | None:
        """Take the first of *todo* that waits for no other step, else one that waits in vain.

        `None` if all wait for steps that other calls are executing: equal steps of two
        invalidations are one.
        """
        for in_vain in (False, True):
            for _ in range(len(todo)):
                earlier = self._earlier(todo[0])
                if not self._carried.issuperset(earlier) if in_vain else not earlier:
                    return todo.popleft()
                todo.rotate(-1)
        return None

    def _earlier(self, item: _Item) -> list[_Item]:
        """Return the pending items that *item* waits for, for any of its jobs."""
        kinds = item.step.waits_for
        jobs = {item.step.job, *item.also}
        return [
            other
            for other in (self._items.values() if kinds else ())
            if isinstance(other.step, kinds) and not jobs.isdisjoint((other.step.job, *other.also))
        ]

    def _is_due(self, item: _Item) -> bool:
        """Return whether *item* is pending for its own job.

        An item that a later job has replaced is still executed for its own.
        """
        held = self._items.get(item.step)
        return held is item or (held is not None and held.step.job is not item.step.job)

    def _backend(self, step: Step, error: BackendError) -> str:
        if error.error_type in {"ModelLoading", "ModelUnavailable"}:
            return "embedder"
        if error.backend:
            return error.backend
        if error.error_type == "NobodySearched":
            return "chroma"
        match step:
            case RemoveRows(writer="") | FindSimilar(scope="shared"):
                return "chroma"
        return self._store_name

    def _deny(self) -> None:
        """Update the denylist to the pending steps."""
        messages: set[str] = set()
        own: set[tuple[str, str]] = set()
        users: set[str] = set()
        rows: set[str] = set()
        unsure: set[Scope] = set()
        labels: set[str] = set()
        unlisted = False
        for step in self._items:
            match step:
                case GiveTokens(tags=(), user=user):
                    users.add(user)
                case GiveTokens(tags=tags, user=""):
                    messages.update(tags)
                case GiveTokens(tags=tags, user=user):
                    own.update((tag, user) for tag in tags)
                case RemoveRows(tags=tags, writer=""):
                    rows.update(tags)
                case FindSimilar(scope=scope):
                    unsure.add(scope)
                case FindListed(label=label):
                    unlisted = True
                    labels.update({label} - {""})
        denylist = self._denylist
        denylist.is_pending = bool(self._items)
        denylist.messages, denylist.own = frozenset(messages), frozenset(own)
        denylist.users, denylist.rows = frozenset(users), frozenset(rows)
        denylist.unsure, denylist.unlisted = frozenset(unsure), unlisted
        denylist.pending_labels = frozenset(labels)


def _unexpected(error: Exception) -> BackendError:
    return BackendError("backend_error", type(error).__name__, str(error))
