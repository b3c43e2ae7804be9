"""Invalidation: from a request to the steps that carry it out."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from cache_core.config.tuning import Tuning
from cache_core.model.document_ids import same_id
from cache_core.model.exceptions import BackendError
from cache_core.model.keys import Keys
from cache_core.model.values import Invalidation, Query
from cache_core.operations.invalidate.entries import StoredEntries
from cache_core.operations.invalidate.execute import Executor
from cache_core.operations.invalidate.outbox import Request
from cache_core.operations.invalidate.retries import Worklist
from cache_core.operations.invalidate.semantic import Semantic
from cache_core.operations.invalidate.steps import (
    AnnounceRows,
    AwaitSearch,
    ConfirmSearch,
    Erase,
    FindListed,
    FindSimilar,
    GiveTokens,
    Job,
    RemoveRows,
    Sought,
    Step,
    of_messages,
    of_own,
)
from cache_core.operations.sightings import know
from cache_core.tiers.journal import Broad, Journal

if TYPE_CHECKING:  # it needs the `semantic` extra
    from cache_core.tiers.semantic.replication import FeedRecord

_ON_ITS_WAY = 5.0
"""Seconds by which other processes' indexes may lag behind a put."""


class Invalidator:
    """Invalidates by message, document, tag and user.

    An entry is only served under the random tokens that the lookup reads with it. Each kind of
    invalidation replaces one token, in one write, whatever the number of contexts and replicas:

    - of a message: its token, for everybody;
    - of one user's answers to a message: a token beside the message's own, in the same slot of a
      Cluster;
    - of a user: the user's token. It is read with the others, in the same MGET, and on a Cluster
      in the same pipeline, from another slot. The alternatives cost the lookup nothing, but a
      replica would only learn of it by replication, up to a second late, and until then let its
      callers join earlier computations.

    Answers stored, or still being computed anywhere, under another token are never served. Deleting
    the entries afterwards only frees space and erases private data. Processes with an index of
    their own read the deletions from a log in the store, within a second.

    Failed steps are retried until they succeed; meanwhile this process serves nothing that they
    concern.

    Args:
        steps: Work list.
        executor: Executes single steps, for `apply`.
        keys: Names of entries and indexes.
        journal: Log of broad invalidations.
        entries: Entries of messages, to count.
        semantic: Parts of L2; `None` without L2.
    """

    def __init__(
        self,
        steps: Worklist,
        executor: Executor,
        keys: Keys,
        journal: Journal,
        entries: StoredEntries,
        semantic: Semantic | None,
    ) -> None:
        self.steps = steps
        self._execute = executor
        self._keys = keys
        self._journal = journal
        self._entries = entries
        self._semantic = semantic
        self._searching: set[str] = set()

    # ------------------------------------------------------------------------- requests

    async def make(
        self, request: Request, tuning: Tuning, *, dry_run: bool = False
    ) -> Invalidation:
        """Carry out *request*; failed steps are pending from then on.

        Args:
            request: The request.
            tuning: Gives threshold and guards.
            dry_run: Only count.
        """
        if dry_run:
            return await _counted(self._count(request, tuning))
        job = Job()
        # Later puts of this task are not rejected for this invalidation.
        know(job.token)
        return await self.steps.do(job, self._steps(job, request, tuning))

    def plan(self, request: Request, tuning: Tuning) -> None:
        """Leave *request* to the next retry; nothing that it concerns is served from now on."""
        self.steps.plan(self._steps(Job(), request, tuning))

    def _steps(self, job: Job, request: Request, tuning: Tuning) -> list[Step]:
        """Return the first steps of *request*; add to *job* the records to log before them."""
        match request.kind:
            case "message":
                return self._of_message(job, *self._asked(request), tuning)
            case "document" | "tag" | "answer":
                labels = self._labels(request.kind, request.value)
                job.unlogged.append(Broad(job.token, labels))
                return [
                    FindListed(job, self._keys.index(request.kind, label), label)
                    for label in labels
                ]
            case "writer":
                user = self._keys.user(request.value)
                job.unlogged += [Broad(job.token, [user]), Broad(job.token)]
                listed = FindListed(job, self._keys.index("writer", user))
                return [listed, GiveTokens(job, user=user), Erase(job, user, traces=False)]
            case "user":
                user = self._keys.user(request.value)
                job.unlogged.append(Broad(job.token))
                return [GiveTokens(job, user=user), Erase(job, user, traces=True)]

    def _asked(self, request: Request) -> tuple[Query, str]:
        """Return the message of a request, and the digest of its user; empty for everybody."""
        user = self._keys.user(request.user) if request.user else ""
        return self._keys.query(request.value, None), user

    def _labels(self, kind: str, value: str) -> list[str]:
        if kind == "answer":
            return [value]
        # Earlier versions compared ids unchanged.
        names = dict.fromkeys((same_id(value), value) if kind == "document" else (value,))
        return [self._keys.label(kind, name) for name in names]

    def _of_message(self, job: Job, query: Query, user: str, tuning: Tuning) -> list[Step]:
        like = Sought.of(query, tuning)
        job.unlogged.append(self._broad(job, like, user))
        # The message itself first, because finding similar ones needs more backends.
        if user:
            return [*of_own(job, [query.tag], user), *self._alike(job, like, user)]
        return [*of_messages(job, [query.tag], like), *self._alike(job, like, user)]

    def _broad(self, job: Job, like: Sought, user: str) -> Broad:
        searched = self._semantic is not None
        return Broad(job.token, (), like.text, like.threshold, user, searched)

    def _alike(self, job: Job, like: Sought, user: str) -> list[Step]:
        """Return the steps that invalidate answers that L2 would have served for a message."""
        if self._semantic is None:
            return [AwaitSearch(job, like.tag, like.threshold, user)]
        own = FindSimilar(job, like, "user", user)
        return [own] if user else [FindSimilar(job, like, "shared"), own]

    async def _count(self, request: Request, tuning: Tuning) -> int:
        match request.kind:
            case "message":
                query, user = self._asked(request)
                return await self._entries.count_message(query, tuning, user or None)
            case "document" | "tag" | "answer":
                labels = self._labels(request.kind, request.value)
                indexes = [self._keys.index(request.kind, label) for label in labels]
                return await self._entries.count_label(indexes)
            case "user":
                return await self._entries.count_user(self._keys.user(request.value))
            case "writer":
                user = self._keys.user(request.value)
                return await self._entries.count_writer(user, self._keys.index("writer", user))

    # ------------------------------------------------------------------------- other processes

    async def search_for_others(self, tuning: Tuning) -> None:
        """Search for messages similar to those that processes without L2 invalidated."""
        if self._semantic is None or self._semantic.questions.unable:
            return
        unsearched = self._journal.unsearched
        self._searching &= {asked.token for asked in unsearched}
        for asked in unsearched:
            if asked.token in self._searching:
                continue
            self._searching.add(asked.token)
            job = Job()
            at = tuning.model_copy(update={"semantic_threshold": asked.threshold})
            like = Sought.of(self._keys.query(asked.text, None), at)
            job.unlogged.append(self._broad(job, like, asked.user))
            rows: list[Step] = [RemoveRows(job, (like.tag,)), AnnounceRows(job, (like.tag,), like)]
            steps = [*self._alike(job, like, asked.user), ConfirmSearch(job, asked.token, asked)]
            await self.steps.do(job, steps if asked.user else [*rows, *steps])

    async def apply(self, tuning: Tuning) -> None:
        """Apply the changes of other processes to this process's own index."""
        if self._semantic is None:
            return
        questions = self._semantic.questions

        async def follow(record: FeedRecord) -> None:
            if record.kind == "gone":
                await questions.forget_gone(record.tags)
                return
            await questions.forget_messages(record.tags)
            if record.text:
                at = tuning.model_copy(update={"semantic_threshold": record.threshold})
                # Skip newer rows: the announcing process found them in `arriving`, or they were
                # put after the invalidation.
                before = record.at - _ON_ITS_WAY
                found = await questions.similar_shared(record.text, at, before=before)
                job = Job()
                job.unlogged.append(Broad(job.token))
                for step in of_messages(job, sorted({item.tag for item in found})):
                    # The announcing process notified all others, too.
                    if not isinstance(step, AnnounceRows):
                        await self._execute(step, again=False)

        await self._semantic.feed.apply(follow)


async def _counted(count: Awaitable[int]) -> Invalidation:
    try:
        return Invalidation(await count, complete=True)
    except BackendError as error:
        return Invalidation(0, complete=False, pending=(error.error_type,))
