"""Execution of one step: the only place where an invalidation changes a backend."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Protocol

from cache_core.backends.base import Keyed, Write
from cache_core.config.lifetimes import TOKEN_SECONDS
from cache_core.model.batches import batched
from cache_core.model.exceptions import BackendError
from cache_core.model.generations import origin, token_again
from cache_core.model.keys import Keys
from cache_core.operations.invalidate.entries import BATCH, StoredEntries, tags_of
from cache_core.operations.invalidate.erase import Forgetter
from cache_core.operations.invalidate.retries import Done
from cache_core.operations.invalidate.semantic import Semantic
from cache_core.operations.invalidate.steps import (
    AnnounceRows,
    AwaitSearch,
    ConfirmSearch,
    DeleteEntries,
    DropListed,
    Erase,
    FindListed,
    FindSimilar,
    GiveTokens,
    Job,
    RemoveRows,
    RemoveVectors,
    Sought,
    Step,
    of_messages,
    of_own,
    of_similar,
)
from cache_core.tiers.journal import Broad, Journal

_SEARCHED_SECONDS = 2.0
"""Seconds that a process without L2 waits for another one's search for similar questions."""


class Searching(Protocol):
    """The live processes of a namespace, any of which may search for similar questions."""

    async def somebody_has_l2(self) -> bool:
        """Return whether another live process searches for similar questions."""
        ...


class Executor:
    """Executes steps.

    Args:
        store: Store of entries, indexes and tokens.
        keys: Names of all three.
        journal: Log of broad invalidations.
        entries: Entries of messages.
        forgetter: Erases users.
        semantic: Parts of L2; `None` without L2, whose steps then do nothing.
        fleet: The live processes.
    """

    def __init__(
        self,
        store: Keyed,
        keys: Keys,
        journal: Journal,
        entries: StoredEntries,
        forgetter: Forgetter,
        semantic: Semantic | None,
        fleet: Searching,
    ) -> None:
        self._store = store
        self._keys = keys
        self._journal = journal
        self._entries = entries
        self._forgetter = forgetter
        self._semantic = semantic
        self._fleet = fleet

    async def __call__(self, step: Step, *, again: bool) -> Done:
        """Execute *step*; *again* if it was tried before and may have succeeded in part.

        Raises:
            BackendError: If it has to be retried.
        """
        job = step.job
        while job.unlogged and isinstance(
            step, GiveTokens | FindListed | FindSimilar | AwaitSearch
        ):
            await self._journal.note(job.unlogged[0])
            del job.unlogged[0]
        match step:
            case GiveTokens():
                await self._give(self._token_names(step), job.token, again=again)
            case DeleteEntries(tags=tags, user=""):
                return Done(await self._entries.delete_of(tags))
            case DeleteEntries(tags=tags, user=user):
                return Done(await self._entries.delete_own(tags, user))
            case RemoveRows() | RemoveVectors() | AnnounceRows() | FindSimilar():
                if self._semantic is not None:
                    return await self._in_l2(step, self._semantic)
            case AwaitSearch():
                await self._await_search(job.token, 0.0 if again else _SEARCHED_SECONDS)
            case ConfirmSearch(asked=asked):
                await self._journal.searched(asked)
            case FindListed(index=index):
                return await self._listed(job, index)
            case DropListed(index=index, rows=rows):
                await self._store.delete_rows(index, rows)
            case Erase(user=user, traces=traces):
                return await self._erase(job, user, traces=traces)
        return Done()

    def _token_names(self, step: GiveTokens) -> list[str]:
        match step:
            case GiveTokens(tags=(), user=user):
                return [self._keys.user_generation(user)]
            case GiveTokens(tags=tags, user=""):
                return [self._keys.generation(tag) for tag in tags]
        return [self._keys.own_generation(tag, step.user) for tag in step.tags]

    async def _give(self, names: Sequence[str], token: str, *, again: bool) -> None:
        if again:
            # It may have arrived anyway, and others may have replaced it since: repeating the same
            # token would bring back answers that they invalidated.
            held = await self._store.read(names)
            names = [
                name
                for name, value in zip(names, held, strict=True)
                if value is None or origin(value) != token
            ]
            token = token_again(token)
        await self._store.write([Write(name, token, TOKEN_SECONDS) for name in names])

    async def _in_l2(
        self, step: RemoveRows | RemoveVectors | AnnounceRows | FindSimilar, l2: Semantic
    ) -> Done:
        match step:
            case RemoveRows(tags=tags, writer=""):
                return Done(await l2.questions.forget_messages(tags))
            case RemoveRows(tags=tags, writer=user):
                removed = await l2.questions.forget_written(tags, user)
                await l2.feed.forget(tags)
                return Done(removed)
            case RemoveVectors(vectors=vectors):
                await l2.questions.forget_own(vectors)
                return Done()
            case AnnounceRows(tags=tags, erased=True):
                await l2.feed.gone(tags)
                return Done()
            case AnnounceRows(tags=tags, like=Sought(text=text, threshold=threshold)):
                await l2.feed.invalidated(tags, text, threshold)
                return Done()
            case AnnounceRows(tags=tags):
                await l2.feed.invalidated(tags)
                return Done()
            case FindSimilar():
                return await self._similar(step, l2)

    async def _similar(self, step: FindSimilar, l2: Semantic) -> Done:
        like, user = step.like, step.user
        if step.scope == "shared":
            found = await l2.questions.similar_shared(like.text, like.tuning)
        else:
            found = await l2.questions.similar_private(like.text, like.tuning, user=user or None)
        tags = sorted({item.tag for item in found} - {like.tag})
        steps = of_own(step.job, tags, user) if user else of_similar(step.job, tags)
        if vectors := tuple(item.own for item in found if item.own is not None):
            steps.append(RemoveVectors(step.job, vectors))
        return Done(more=steps)

    async def _await_search(self, asked: str, patience: float) -> None:
        deadline = time.monotonic() + patience
        # Without such a process L2 serves nothing; a new one searches first.
        while await self._is_unsearched(asked) and await self._fleet.somebody_has_l2():
            if time.monotonic() > deadline:
                raise BackendError("backend_error", "NobodySearched")
            await asyncio.sleep(_SEARCHED_SECONDS / 20)

    async def _is_unsearched(self, asked: str) -> bool:
        await self._journal.catch_up()
        return any(item.token == asked for item in self._journal.unsearched)

    async def _listed(self, job: Job, index: str) -> Done:
        rows = await self._entries.set_apart(index, job.token)
        tags = tags_of(rows)
        steps = [step for batch in batched(tags, BATCH) for step in of_messages(job, batch)]
        return Done(more=[*steps, DropListed(job, index, tuple(tags), list(rows))])

    async def _erase(self, job: Job, user: str, *, traces: bool) -> Done:
        done = await self._forgetter.erase(user, job.token, traces=traces)
        tags, more = tuple(done.indexed), list[Step]()
        if self._semantic is not None and tags:
            more = [RemoveRows(job, tags, writer=user), AnnounceRows(job, tags, erased=True)]
        elif others := tuple(done.served):
            # Without an index here, new tokens keep other processes from serving erased answers.
            more = [GiveTokens(job, others)]
        for label in done.fallen:
            fallen = Job()
            fallen.unlogged.append(Broad(fallen.token, [label]))
            more.append(FindListed(fallen, self._keys.index("answer", label)))
        if done.listed:
            more.append(DropListed(job, self._keys.index("writer", user), tags, done.listed))
        return Done(done.entries, more, done.counts)
