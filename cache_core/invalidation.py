"""Taking answers out of service, everywhere: what an invalidation consists of."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, get_args

from cache_core.entries import BATCH, StoredEntries
from cache_core.exceptions import BackendError
from cache_core.forgetting import Forgetter
from cache_core.keys import Keys
from cache_core.models import Invalidation, Query
from cache_core.parts import Parts
from cache_core.recent import Broad
from cache_core.steps import TOKENS, Job, Kind, Step, Steps
from cache_core.stores.base import KeyValueStore, Write
from cache_core.tuning import Tuning
from cache_core.unconfirmed import Unconfirmed
from cache_core.writing import LIFE, token

if TYPE_CHECKING:  # these need the `semantic` extra
    from cache_core.feed import IndexFeed, Record
    from cache_core.tiers.semantic import SemanticTier
    from cache_core.tiers.similar import Similar, SimilarQuestions

_SEARCHED_SECONDS = 2.0
"""How long somebody who cannot look for similar questions waits for another process to."""

_ON_ITS_WAY = 5.0
"""Seconds by which others' indexes may lag behind a put."""


class Invalidator:
    """Invalidates by message, document, tag and user.

    What is served depends on random tokens that the lookup reads with the entries. Each kind of
    invalidation replaces one of them, in one write, whatever the number of contexts and replicas:

    - of a message: its token, for everybody;
    - of one user's answers to a message: a token beside the message's own, in the same slot of a
      Cluster;
    - of a user: a token of theirs. It is read with the others, in the same MGET, and on a Cluster
      in the same pipeline, from another slot. The alternatives cost the lookup nothing, but a
      replica would learn of it from the feed only, up to a second late, and until then let its
      callers join computations from before.

    What was stored, or is still being computed anywhere, under another token is never served.
    Deleting the entries after that only gives the space back, and erases what was private.
    Processes that keep an index of their own learn what to delete from a log in the store, within
    a second.

    An invalidation is made of steps. What fails is repeated until it succeeds, and this process
    serves nothing of what it was told to invalidate meanwhile (`Vetoes`).

    Args:
        parts: Of the cache.
        unconfirmed: Is cleared when nothing is pending any more.
        somebody_has_l2: Tells whether a process that is alive looks for similar questions.
    """

    def __init__(
        self,
        parts: Parts,
        unconfirmed: Unconfirmed,
        somebody_has_l2: Callable[[], Awaitable[bool]],
    ) -> None:
        self.steps = Steps(parts.vetoes, unconfirmed, parts.store.breaker.backend)
        self._somebody_has_l2 = somebody_has_l2
        self._searching: set[str] = set()
        self._store: KeyValueStore = parts.store
        self._keys: Keys = parts.keys
        semantic = parts.semantic
        self._semantic: SemanticTier | None = semantic.tier if semantic is not None else None
        self._questions: SimilarQuestions | None = (
            semantic.similar if semantic is not None else None
        )
        self._feed: IndexFeed | None = semantic.feed if semantic is not None else None
        self._recent = parts.recent
        self._forgetter = Forgetter(parts)
        self._entries = StoredEntries(parts.store, parts.keys, self._questions)

    # ------------------------------------------------------------------------- what is asked for

    async def message(
        self, query: Query, tuning: Tuning, user: str | None, *, dry_run: bool
    ) -> Invalidation:
        """Invalidate a message, and every stored one that L2 would have served for it.

        Args:
            query: The message; context and history don't matter.
            tuning: For threshold and guards.
            user: Only this user's own entries; `None` for everybody's.
            dry_run: Only count.
        """
        if dry_run:
            return await _counted(self._entries.count_message(query, tuning, user))
        job = self.steps.begin()
        if user is not None:
            if self._semantic is not None:
                self._semantic.forget_waiting_messages({query.tag}, user)
            return await self.steps.do(
                job,
                [*self._own(job, [query.tag], user), *self._own_similar(job, query, tuning, user)],
            )
        return await self.steps.do(
            job,
            [
                # The message itself first: finding the similar ones needs more backends.
                *self._messages(job, [query.tag], query.text, tuning.semantic_threshold),
                *self._similar(job, query, tuning),
            ],
        )

    async def label(self, kind: str, value: str, *, dry_run: bool) -> Invalidation:
        """Invalidate every message with an answer that came from a document, or has a tag."""
        label = self._keys.label(kind, value)
        index = self._keys.index(kind, label)
        if dry_run:
            return await _counted(self._entries.count_label(index))
        job = self.steps.begin()
        return await self.steps.do(job, [self._listed(job, index, label)])

    def _noting(self, invalidation: Broad) -> Callable[[], Awaitable[None]]:
        """Return what makes *invalidation* known to the puts to come, when first called.

        That has to be before looking for what is stored.
        """
        noted = False

        async def note() -> None:
            nonlocal noted
            if not noted:
                await self._recent.note(invalidation)
                noted = True

        return note

    def _listed(self, job: Job, index: str, label: str) -> Step:
        """Return the step that invalidates every message of an index, and of its label."""
        note = self._noting(Broad(job.token, labels=[label]))

        async def find() -> tuple[int, Sequence[Step]]:
            await note()
            tags, names = await self._entries.set_apart(index, job.token)
            steps = [
                step
                for start in range(0, len(tags), BATCH)
                for step in self._messages(job, tags[start : start + BATCH])
            ]

            async def drop() -> tuple[int, Sequence[Step]]:
                # Until then it is all that tells which messages they are.
                if self.steps.has(job, *TOKENS):
                    raise BackendError("backend_error", "TokensPending")
                await self._store.delete_rows(index, names)
                return 0, ()

            return 0, [*steps, Step(("label rows", tuple(tags), index), drop, job)]

        return Step(("label", (), index), find, job)

    async def user(self, user: str) -> Invalidation:
        """Erase everything of a user, what was recorded about them included."""
        job = self.steps.begin()
        return await self.steps.do(job, self._erasing(job, user, traces=True))

    async def writer(self, user: str, *, dry_run: bool) -> Invalidation:
        """Invalidate every message for which a user stored something, and erase what is theirs."""
        index = self._keys.index("writer", user)
        if dry_run:
            return await _counted(self._entries.count_writer(user, index))
        job = self.steps.begin()
        return await self.steps.do(
            job, [self._listed(job, index, user), *self._erasing(job, user, traces=False)]
        )

    def _erasing(self, job: Job, user: str, *, traces: bool) -> list[Step]:
        """Return the steps that erase a user; without *traces* not what was recorded about them."""
        names = [self._keys.user_generation(user)]

        async def erase() -> tuple[int, Sequence[Step]]:
            if self.steps.has(job, "label"):
                # Erasing takes the list of their messages with it.
                raise BackendError("backend_error", "MessagesPending")
            done = await self._forgetter.erase(user, traces=traces)
            self.steps.report(job, done.counts)
            return done.entries, self._of_the_index(job, done.indexed) if done.indexed else ()

        return [
            Step(("user token", (), user), self._replacing(names, job), job),
            Step(("erase" if traces else "erase entries", (), user), erase, job),
        ]

    # ------------------------------------------------------------------------- steps

    def _messages(
        self, job: Job, tags: Sequence[str], text: str = "", threshold: float = 0.0
    ) -> list[Step]:
        """Return the steps that invalidate messages by their tags."""
        names = tuple(tags)
        tokens = [self._keys.generation(tag) for tag in tags]

        async def entries() -> tuple[int, Sequence[Step]]:
            return await self._entries.delete_of(tags), ()

        steps = [
            Step(("tokens", names, ""), self._replacing(tokens, job), job),
            Step(("entries", names, ""), entries, job),
        ]
        return [*steps, *self._of_the_index(job, tags, text, threshold)]

    def _of_the_index(
        self, job: Job, tags: Sequence[str], text: str = "", threshold: float = 0.0
    ) -> list[Step]:
        """Return the steps that remove messages from every process's vector index."""
        names = tuple(tags)
        semantic, questions, feed = self._semantic, self._questions, self._feed
        if semantic is None or questions is None or feed is None:
            return []
        semantic.forget_waiting_messages(set(tags))

        async def rows() -> tuple[int, Sequence[Step]]:
            return await questions.forget_messages(tags), ()

        async def announce() -> tuple[int, Sequence[Step]]:
            await feed.invalidated(tags, text, threshold)
            return 0, ()

        return [
            Step(("rows", names, ""), rows, job),
            Step(("announce", names, f"{threshold} {text}"), announce, job),
        ]

    def _similar(self, job: Job, query: Query, tuning: Tuning) -> list[Step]:
        """Return the steps that find similar questions, and invalidate them."""
        questions = self._questions
        if questions is None:
            return [self._elsewhere(job, query, tuning, "")]

        def others(found: Sequence[Similar]) -> list[Step]:
            tags = sorted({item.tag for item in found} - {query.tag})
            return self._messages(job, tags) if tags else []

        threshold = tuning.semantic_threshold
        note = self._noting(Broad(job.token, text=query.text, threshold=threshold))

        async def shared() -> tuple[int, Sequence[Step]]:
            await note()
            return 0, others(await questions.similar_shared(query.text, tuning))

        async def private() -> tuple[int, Sequence[Step]]:
            await note()
            found = await questions.similar_private(query.text, tuning)
            await questions.forget(found)
            return 0, others(found)

        return [
            Step(("similar shared", (query.tag,), f"{threshold} {query.text}"), shared, job),
            Step(("similar private", (query.tag,), f"{threshold} {query.text}"), private, job),
        ]

    def _own(self, job: Job, tags: Sequence[str], user: str) -> list[Step]:
        """Return the steps that invalidate one user's answers to messages."""
        tokens = [self._keys.own_generation(tag, user) for tag in tags]

        async def entries() -> tuple[int, Sequence[Step]]:
            names = await self._entries.own_names(tags, user)
            removed = await self._entries.delete(names)
            await self._entries.delete_markers(names, user)
            return removed, ()

        return [
            Step(("own tokens", tuple(tags), user), self._replacing(tokens, job), job),
            Step(("own entries", tuple(tags), user), entries, job),
        ]

    def _own_similar(self, job: Job, query: Query, tuning: Tuning, user: str) -> list[Step]:
        questions = self._questions
        if questions is None:
            return [self._elsewhere(job, query, tuning, user)]

        threshold = tuning.semantic_threshold
        note = self._noting(Broad(job.token, text=query.text, threshold=threshold, user=user))

        async def private() -> tuple[int, Sequence[Step]]:
            await note()
            found = await questions.similar_private(query.text, tuning, user=user)
            await questions.forget(found)
            tags = sorted({item.tag for item in found} - {query.tag})
            return 0, self._own(job, tags, user) if tags else ()

        return [Step(("similar own", (query.tag,), f"{threshold} {user}"), private, job)]

    def _elsewhere(self, job: Job, query: Query, tuning: Tuning, user: str) -> Step:
        """Return the step that has similar questions looked for by a process with L2."""
        threshold = tuning.semantic_threshold
        asked = Broad(job.token, (), query.text, threshold, user, searched=False)
        note = self._noting(asked)
        patience = _SEARCHED_SECONDS

        async def work() -> tuple[int, Sequence[Step]]:
            nonlocal patience
            await note()
            deadline, patience = time.monotonic() + patience, 0.0
            # Without such a process nothing is served for it; one that comes looks first.
            while await self._waits_for_search(asked):
                if time.monotonic() > deadline:
                    raise BackendError("backend_error", "NobodySearched")
                await asyncio.sleep(_SEARCHED_SECONDS / 20)
            return 0, ()

        return Step(("similar elsewhere", (query.tag,), f"{threshold} {user}"), work, job)

    async def _waits_for_search(self, asked: Broad) -> bool:
        await self._recent.catch_up()
        if all(item.token != asked.token for item in self._recent.unsearched):
            return False
        return await self._somebody_has_l2()

    async def search_for_others(self, tuning: Tuning) -> None:
        """Look for what is similar to what processes without L2 invalidated."""
        if self._questions is None or self._questions.unable:
            return
        for asked in self._recent.unsearched:
            if asked.token in self._searching:
                continue
            self._searching.add(asked.token)
            job = self.steps.begin_for_others()
            query = self._keys.query(asked.text, None)
            at = tuning.model_copy(update={"semantic_threshold": asked.threshold})
            steps = (
                self._own_similar(job, query, at, asked.user)
                if asked.user
                else [
                    *self._of_the_index(job, [query.tag], asked.text, asked.threshold),
                    *self._similar(job, query, at),
                ]
            )
            await self.steps.do(job, steps)
            # After all that the search found: what is pending of it has its turn before.
            await self.steps.do(job, [self._searched(job, asked)])

    def _searched(self, job: Job, asked: Broad) -> Step:
        async def work() -> tuple[int, Sequence[Step]]:
            if self.steps.has(job, *(kind for kind in get_args(Kind) if kind != "searched")):
                raise BackendError("backend_error", "SearchPending")
            await self._recent.searched(asked)
            self._searching.discard(asked.token)
            return 0, ()

        return Step(("searched", (), asked.token), work, job)

    def _replacing(
        self, names: Sequence[str], job: Job
    ) -> Callable[[], Awaitable[tuple[int, Sequence[Step]]]]:
        """Return what replaces the tokens *names*, and what has not arrived when repeated."""
        given: list[str] = []

        async def work() -> tuple[int, Sequence[Step]]:
            value, todo = job.token, names
            if given:
                # It may have arrived all the same, and others may have replaced it since: the same
                # token again would bring back what they invalidated.
                held = await self._store.read(names)
                todo = [name for name, at in zip(names, held, strict=True) if at not in given]
                value = token("i")
            given.append(value)
            await self._store.write([Write(name, value, LIFE) for name in todo])
            return 0, ()

        return work

    # ------------------------------------------------------------------------- other processes

    async def apply(self, tuning: Tuning) -> None:
        """Do to this process's own index what others did to theirs."""
        feed, questions = self._feed, self._questions
        if feed is None or questions is None:
            return

        async def invalidate(record: Record) -> None:
            await questions.forget_messages(record.tags)
            if record.text:
                at = tuning.model_copy(update={"semantic_threshold": record.threshold})
                # What is younger, whoever announced it found on its way; or it came after.
                before = record.at - _ON_ITS_WAY
                found = await questions.similar_shared(record.text, at, before=before)
                tags = sorted({item.tag for item in found})
                for step in self._messages(self.steps.begin_for_others(), tags) if tags else ():
                    # Whoever announced it told everybody else, too.
                    if step.name[0] != "announce":
                        await step.work()

        await feed.apply(invalidate)


async def _counted(count: Awaitable[int]) -> Invalidation:
    try:
        return Invalidation(await count, complete=True)
    except BackendError as error:
        return Invalidation(0, complete=False, pending=(error.error_type,))
