"""Taking answers out of service, everywhere, and trying again what a backend did not confirm."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from cache_core.exceptions import BackendError
from cache_core.forgetting import Forgetter
from cache_core.keys import Keys
from cache_core.logs import RateLimited
from cache_core.models import Invalidation, Query, Scope
from cache_core.parts import Parts
from cache_core.recent import Broad
from cache_core.remedies import remedy
from cache_core.seen import know
from cache_core.stores.base import KeyValueStore, Write
from cache_core.tuning import Tuning
from cache_core.unconfirmed import Unconfirmed
from cache_core.writing import LIFE, token

if TYPE_CHECKING:  # these need the `semantic` extra
    from cache_core.feed import IndexFeed, Record
    from cache_core.tiers.semantic import SemanticTier
    from cache_core.tiers.similar import Similar, SimilarQuestions

log = RateLimited(logging.getLogger("glasscache"), 10.0)

_BATCH = 500
_VALUES = 10

_SEARCHED_SECONDS = 2.0
"""How long somebody who cannot look for similar questions waits for another process to."""

MOST_PENDING = 10_000
"""Steps that may wait for a backend; beyond it the oldest are given up, and said to be lost."""

Kind = Literal[
    "tokens", "own tokens", "user token", "entries", "own entries", "rows", "similar shared",
    "similar private", "similar own", "similar elsewhere", "searched", "label", "label rows",
    "announce", "erase", "erase entries",
]  # fmt: skip
Name: TypeAlias = tuple[Kind, tuple[str, ...], str]
"""What a step does, to which messages, and whose or which value; the same name is the same step."""

_TOKENS: frozenset[Kind] = frozenset({"tokens", "own tokens", "user token"})
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
    """

    name: Name
    work: Callable[[], Awaitable[tuple[int, Sequence[Step]]]]
    job: Job

    @property
    def needs(self) -> Literal["store", "index", "search"]:
        """What it fails with: a search also needs the embedder."""
        if self.name[0] in _SEARCHED:
            return "search"
        return "index" if self.name[0] == "rows" else "store"


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
        self._unconfirmed = unconfirmed
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
        self._vetoes = parts.vetoes
        self._jobs = itertools.count(1)
        self._active: set[Job] = set()
        self._steps: dict[Name, Step] = {}
        self._counts: dict[int, Counter[str]] = {}

    @property
    def pending(self) -> int:
        """Invalidations that are still to be confirmed."""
        return len({step.job for step in self._steps.values()} - self._active)

    def _begin(self) -> Job:
        """Return a new job; what its task puts from now on, it puts knowing of it."""
        job = Job(next(self._jobs), token("i"))
        know(job.token)
        return job

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
            return await self._count(lambda: self._count_message(query, tuning, user))
        job = self._begin()
        if user is not None:
            if self._semantic is not None:
                self._semantic.forget_waiting_messages({query.tag}, user)
            return await self._do(
                job,
                [*self._own(job, [query.tag], user), *self._own_similar(job, query, tuning, user)],
            )
        return await self._do(
            job,
            [
                # The message itself first: finding the similar ones needs more backends.
                *self._messages(job, [query.tag], query.text, tuning.semantic_threshold),
                *self._similar(job, query, tuning),
            ],
        )

    async def label(self, kind: str, value: str, *, dry_run: bool) -> Invalidation:
        """Invalidate every message with an answer that came from a document, or has a tag."""
        index = self._keys.index(kind, self._keys.label(kind, value))
        if dry_run:
            return await self._count(lambda: self._count_label(index))
        job = self._begin()
        return await self._do(job, [self._listed(job, index)])

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

    def _listed(self, job: Job, index: str) -> Step:
        """Return the step that invalidates every message of an index."""
        note = self._noting(Broad(job.token, labels=[index]))

        async def find() -> tuple[int, Sequence[Step]]:
            await note()
            listed = await self._store.rows(index)
            tags = _tags(listed)
            steps = [
                step
                for start in range(0, len(tags), _BATCH)
                for step in self._messages(job, tags[start : start + _BATCH])
            ]

            async def drop() -> tuple[int, Sequence[Step]]:
                # Until then it is all that tells which messages they are.
                if any(step.job == job and step.name[0] in _TOKENS for step in self._in_order()):
                    raise BackendError("backend_error", "TokensPending")
                await self._store.delete_rows(index, list(listed))
                return 0, ()

            return 0, [*steps, Step(("label rows", tuple(tags), index), drop, job)]

        return Step(("label", (), index), find, job)

    async def user(self, user: str) -> Invalidation:
        """Erase everything of a user, what was recorded about them included."""
        job = self._begin()
        return await self._do(job, self._erasing(job, user, traces=True))

    async def writer(self, user: str, *, dry_run: bool) -> Invalidation:
        """Invalidate every message for which a user stored something, and erase what is theirs."""
        index = self._keys.index("writer", user)
        if dry_run:
            return await self._count(lambda: self._count_writer(user, index))
        job = self._begin()
        return await self._do(
            job, [self._listed(job, index), *self._erasing(job, user, traces=False)]
        )

    def _erasing(self, job: Job, user: str, *, traces: bool) -> list[Step]:
        """Return the steps that erase a user; without *traces* not what was recorded about them."""
        names = [self._keys.user_generation(user)]

        async def erase() -> tuple[int, Sequence[Step]]:
            if any(step.job == job and step.name[0] == "label" for step in self._in_order()):
                # Erasing takes the list of their messages with it.
                raise BackendError("backend_error", "MessagesPending")
            done = await self._forgetter.erase(user, traces=traces)
            if job in self._active:
                self._counts.setdefault(job.number, Counter()).update(done.counts)
            return done.entries, self._of_the_index(job, done.indexed) if done.indexed else ()

        return [
            Step(("user token", (), user), self._replacing(names, job), job),
            Step(("erase" if traces else "erase entries", (), user), erase, job),
        ]

    # ------------------------------------------------------------------------- trying and retrying

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
        return sorted(self._steps.values(), key=lambda step: step.name[0] not in _TOKENS)

    async def _do(self, job: Job, steps: Sequence[Step]) -> Invalidation:
        self._active.add(job)
        try:
            # Vetoed before anything is awaited; whoever is cancelled leaves the rest to `retry`.
            self._plan(steps)
            removed, failed = await self._run(steps)
        finally:
            self._active.discard(job)
            counts = self._counts.pop(job.number, Counter())
        return Invalidation(removed, not failed, tuple(failed), dict(counts))

    def _plan(self, steps: Iterable[Step]) -> None:
        for step in steps:
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
        return "chroma" if of_the_index else self._store.breaker.backend

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

    # ------------------------------------------------------------------------- steps

    def _messages(
        self, job: Job, tags: Sequence[str], text: str = "", threshold: float = 0.0
    ) -> list[Step]:
        """Return the steps that invalidate messages by their tags."""
        names = tuple(tags)
        tokens = [self._keys.generation(tag) for tag in tags]

        async def entries() -> tuple[int, Sequence[Step]]:
            return await self._delete_entries(tags), ()

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
            Step(("announce", names, text), announce, job),
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
            Step(("similar shared", (query.tag,), query.text), shared, job),
            Step(("similar private", (query.tag,), query.text), private, job),
        ]

    def _own(self, job: Job, tags: Sequence[str], user: str) -> list[Step]:
        """Return the steps that invalidate one user's answers to messages."""
        tokens = [self._keys.own_generation(tag, user) for tag in tags]

        async def entries() -> tuple[int, Sequence[Step]]:
            names = await self._own_names(tags, user)
            removed = await self._delete(names)
            await self._delete_markers(names, user)
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

        return [Step(("similar own", (query.tag,), user), private, job)]

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
            # Without such a process nothing similar is served; one that comes looks first.
            while await self._waits_for_search(asked):
                if time.monotonic() > deadline:
                    raise BackendError("backend_error", "NobodySearched")
                await asyncio.sleep(_SEARCHED_SECONDS / 20)
            return 0, ()

        return Step(("similar elsewhere", (query.tag,), user), work, job)

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
            job = Job(next(self._jobs), token("i"))
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
            await self._do(job, steps)
            # After all that the search found: what is pending of it has its turn before.
            await self._do(job, [self._searched(job, asked)])

    def _searched(self, job: Job, asked: Broad) -> Step:
        async def work() -> tuple[int, Sequence[Step]]:
            if any(step.job == job and step.name[0] != "searched" for step in self._in_order()):
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

    # ------------------------------------------------------------------------- entries

    async def _entries_of(self, tags: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return the keys of messages' entries, and those that are counted in the index."""
        here: list[str] = []
        shared: list[str] = []
        for tag in tags:
            known = await self._store.rows(self._keys.index("message", tag))
            for name, scope in known.items():
                of_the_index = scope != "user" and self._keys.is_entry(name, "l2")
                (shared if of_the_index else here).append(name)
        return here, shared

    async def _own_names(self, tags: Sequence[str], user: str) -> list[str]:
        names: list[str] = []
        for tag in tags:
            known = await self._store.rows(self._keys.index("message", tag))
            names += [name for name, scope in known.items() if scope == "user" and user in name]
        return names

    async def _delete_entries(self, tags: Sequence[str]) -> int:
        here, shared = await self._entries_of(tags)
        removed = await self._delete(here)
        await self._delete(shared)
        return removed

    async def _delete(self, names: Sequence[str]) -> int:
        removed = 0
        for start in range(0, len(names), _BATCH):
            removed += await self._store.delete(names[start : start + _BATCH])
        return removed

    async def _delete_markers(self, entries: Sequence[str], user: str) -> None:
        """Delete what tells others of this user's answers."""
        names = sorted({self._keys.marker_beside(name) for name in entries})
        for start in range(0, len(names), _BATCH):
            batch = names[start : start + _BATCH]
            values = await self._store.read(batch)
            theirs = [
                name for name, value in zip(batch, values, strict=True) if _marks(value, user)
            ]
            await self._store.delete(theirs)

    # ------------------------------------------------------------------------- only counting

    async def _count(self, count: Callable[[], Awaitable[int]]) -> Invalidation:
        try:
            return Invalidation(await count(), complete=True)
        except BackendError as error:
            return Invalidation(0, complete=False, pending=(error.error_type,))

    async def _count_message(self, query: Query, tuning: Tuning, user: str | None) -> int:
        similar: list[Similar] = []
        if self._questions is not None:
            similar = await self._questions.similar(query.text, tuning, user=user)
        tags = sorted({query.tag, *(item.tag for item in similar)})
        if user is not None:
            return await self._live(await self._own_names(tags, user))
        return await self._count_messages(tags)

    async def _count_label(self, index: str) -> int:
        return await self._count_messages(_tags(await self._store.rows(index)))

    async def _count_writer(self, user: str, index: str) -> int:
        listed = await self._store.rows(self._keys.index("user", user))
        return await self._live([name for name, tag in listed.items() if tag]) + (
            await self._count_label(index)
        )

    async def _count_messages(self, tags: Sequence[str]) -> int:
        here, _ = await self._entries_of(tags)
        found = await self._live(here)
        if self._questions is not None:
            for start in range(0, len(tags), _BATCH):
                found += await self._questions.count_messages(tags[start : start + _BATCH])
        return found

    async def _live(self, names: Sequence[str]) -> int:
        found = 0
        for start in range(0, len(names), _VALUES):
            values = await self._store.read(names[start : start + _VALUES])
            found += sum(value is not None for value in values)
        return found

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
                found = await questions.similar_shared(record.text, at)
                tags = sorted({item.tag for item in found})
                for step in self._messages(Job(0, token("i")), tags) if tags else ():
                    # Whoever announced it told everybody else, too.
                    if step.name[0] != "announce":
                        await step.work()

        await feed.apply(invalidate)


def _tags(listed: Mapping[str, str]) -> list[str]:
    """Return the messages of an index: that of a writer names entries, the others messages."""
    return sorted({tag or name for name, tag in listed.items()})


def _marks(value: str | None, user: str) -> bool:
    try:
        found = json.loads(value or "")
    except (ValueError, RecursionError):
        return False
    return isinstance(found, list) and found[:1] == [user]


def _unexpected(error: Exception) -> BackendError:
    return BackendError("backend_error", type(error).__name__, str(error))
