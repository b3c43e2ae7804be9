"""The steps of invalidations: done at once, or again and again until each has succeeded."""

from __future__ import annotations

import itertools
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

from cache_core.exceptions import BackendError
from cache_core.logs import RateLimited
from cache_core.models import Invalidation, Scope
from cache_core.remedies import remedy
from cache_core.seen import know
from cache_core.unconfirmed import Unconfirmed
from cache_core.vetoes import Vetoes
from cache_core.writing import token

log = RateLimited(logging.getLogger("glasscache"), 10.0)

MOST_PENDING = 10_000
"""Steps that may wait for a backend; beyond it the oldest are given up, and said to be lost."""

Kind = Literal[
    "tokens", "own tokens", "user token", "entries", "own entries", "rows", "similar shared",
    "similar private", "similar own", "similar elsewhere", "searched", "label", "label rows",
    "announce", "erase", "erase entries",
]  # fmt: skip
Name: TypeAlias = tuple[Kind, tuple[str, ...], str]
"""What a step does, to which messages, and whose or which value; the same name is the same step."""

TOKENS: frozenset[Kind] = frozenset({"tokens", "own tokens", "user token"})
"""The steps after which nothing that they concern is served anywhere."""

_SEARCHED: Mapping[Kind, Scope] = {
    "similar shared": "shared",
    "similar private": "user",
    "similar own": "user",
}


class Job(NamedTuple):
    """One invalidation that somebody asked for.

    Attributes:
        number: Its own in this process.
        token: What it gives to everything that it invalidates.
    """

    number: int
    token: str


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One part of an invalidation that succeeds or fails, and is repeated, by itself.

    Attributes:
        name: By which a later one replaces it: that covers what this one would have.
        work: Does it; returns how many entries it removed, and what else has to be done now.
        job: The invalidation that asked for it.
        also: Numbers of those that asked for it before, and whose it replaced: for them it is still
            to be done, too.
    """

    name: Name
    work: Callable[[], Awaitable[tuple[int, Sequence[Step]]]]
    job: Job
    also: set[int] = field(default_factory=set)

    @property
    def needs(self) -> Literal["store", "index", "search"]:
        """What it fails with: a search also needs the embedder."""
        if self.name[0] in _SEARCHED:
            return "search"
        return "index" if self.name[0] == "rows" else "store"


class Steps:
    """What is to be done, and what of it is pending: this process serves nothing of that.

    Args:
        vetoes: Told what is pending.
        unconfirmed: Is cleared when nothing is pending any more.
        store_name: Of the keyed store's backend, to say what is waited for.
    """

    def __init__(self, vetoes: Vetoes, unconfirmed: Unconfirmed, store_name: str) -> None:
        self._vetoes = vetoes
        self._unconfirmed = unconfirmed
        self._store_name = store_name
        self._jobs = itertools.count(1)
        self._active: set[Job] = set()
        self._steps: dict[Name, Step] = {}
        self._counts: dict[int, Counter[str]] = {}

    @property
    def waiting(self) -> Collection[Step]:
        """Steps that are to be done."""
        return self._steps.values()

    @property
    def pending(self) -> int:
        """Invalidations that are still to be confirmed."""
        return len({step.job for step in self._steps.values()} - self._active)

    def begin(self) -> Job:
        """Return a new job; what its task puts from now on, it puts knowing of it."""
        job = self.begin_for_others()
        know(job.token)
        return job

    def begin_for_others(self) -> Job:
        """Return a new job that holds against whatever this task puts."""
        return Job(next(self._jobs), token("i"))

    def has(self, job: Job, *kinds: Kind) -> bool:
        """Whether steps of these kinds are still to be done for *job*."""
        return any(
            step.name[0] in kinds and (step.job == job or job.number in step.also)
            for step in self._steps.values()
        )

    def report(self, job: Job, counts: Mapping[str, int]) -> None:
        """Add to what *job* says to have removed, while somebody waits for it."""
        if job in self._active:
            self._counts.setdefault(job.number, Counter()).update(counts)

    async def close(self) -> None:
        """Try once more what is pending; say what has to be made by others."""
        await self.retry()
        if self._steps:
            log.limited(
                "unconfirmed",
                "%d invalidations could not be made before closing: the next cache of this "
                "namespace in this data directory makes them",
                self.pending,
            )

    async def retry(self) -> None:
        """Try again what is pending."""
        waiting = [step for step in self._in_order() if step.job not in self._active]
        if waiting:
            await self._run(waiting)
        if not self._steps:
            self._unconfirmed.clear()

    def _in_order(self) -> list[Step]:
        """Return what is to be done, tokens first: what depends on them only cleans up."""
        return sorted(self._steps.values(), key=lambda step: step.name[0] not in TOKENS)

    async def do(self, job: Job, steps: Sequence[Step]) -> Invalidation:
        """Do *steps* of a job, and what follows from them; what fails is pending from then on.

        Whoever is cancelled leaves the rest to `retry`.
        """
        self._active.add(job)
        try:
            # Vetoed before anything is awaited.
            self._plan(steps)
            removed, failed = await self._run(steps)
        finally:
            self._active.discard(job)
            counts = self._counts.pop(job.number, Counter())
        return Invalidation(removed, not failed, tuple(failed), dict(counts))

    def _plan(self, steps: Iterable[Step]) -> None:
        for step in steps:
            replaced = self._steps.get(step.name)
            if replaced is not None and replaced is not step:
                step.also.update(replaced.also, {replaced.job.number})
            self._steps[step.name] = step
        while len(self._steps) > MOST_PENDING:
            del self._steps[next(iter(self._steps))]
            log.limited(
                "lost", "too many invalidations are pending: some are lost; clear the cache"
            )
        self._veto()

    async def _run(self, steps: Sequence[Step]) -> tuple[int, list[str]]:
        """Try *steps* and what follows from them; return what was removed, and who failed."""
        removed = 0
        failed: dict[str, None] = {}
        away: set[str] = set()
        todo = deque(steps)
        while todo:
            step = todo.popleft()
            # A backend that is away is not waited for again and again.
            if step.needs in away:
                continue
            held = self._steps.get(step.name)
            # What another invalidation still has to do is not done yet for whoever asked for this.
            if held is not step and (held is None or held.job == step.job):
                continue
            try:
                count, more = await step.work()
            except Exception as failure:  # noqa: BLE001 - an invalidation is never lost to a surprise
                error = failure if isinstance(failure, BackendError) else _unexpected(failure)
                failed[self._backend(step, error)] = None
                if error.reason in {"timeout", "breaker_open"}:
                    away.add(step.needs)
                if self._steps.get(step.name) is step:
                    # The next time others have their turn before it.
                    self._steps[step.name] = self._steps.pop(step.name)
                log.limited(
                    "invalidation",
                    "an invalidation is pending: %s (%s); it is tried again. %s",
                    error.reason,
                    error.error_type,
                    remedy(error),
                )
                continue
            removed += count
            if self._steps.get(step.name) is step:
                del self._steps[step.name]
            self._plan(more)
            todo.extend(more)
        return removed, list(failed)

    def _backend(self, step: Step, error: BackendError) -> str:
        if error.error_type in {"ModelLoading", "ModelUnavailable"}:
            return "embedder"
        if error.backend:
            return error.backend
        if error.error_type == "NobodySearched":
            return "chroma"
        of_the_index = step.name[0] in {"rows", "similar shared"}
        return "chroma" if of_the_index else self._store_name

    def _veto(self) -> None:
        """Serve nothing of what is pending."""
        names = list(self._steps)
        self._vetoes.messages = frozenset(
            tag for kind, tags, _ in names if kind == "tokens" for tag in tags
        )
        self._vetoes.rows = frozenset(
            tag for kind, tags, _ in names if kind == "rows" for tag in tags
        )
        self._vetoes.own = frozenset(
            (tag, user) for kind, tags, user in names if kind == "own tokens" for tag in tags
        )
        self._vetoes.users = frozenset(user for kind, _, user in names if kind == "user token")
        self._vetoes.unsure = frozenset(
            _SEARCHED[kind] for kind, _, _ in names if kind in _SEARCHED
        )
        self._vetoes.unlisted = any(kind == "label" for kind, _, _ in names)


def _unexpected(error: Exception) -> BackendError:
    return BackendError("backend_error", type(error).__name__, str(error))
