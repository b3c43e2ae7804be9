"""Taking answers out of service, everywhere, and trying again what a backend did not confirm."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from cache_core.decisions import DecisionLog
from cache_core.exceptions import BackendError
from cache_core.keys import PARTITIONS, Keys
from cache_core.logs import RateLimited
from cache_core.models import Invalidation, Query
from cache_core.parts import Parts
from cache_core.stores.base import KeyValueStore, Write
from cache_core.tuning import Tuning
from cache_core.writing import LIFE, token

if TYPE_CHECKING:  # these need the `semantic` extra
    from cache_core.feed import IndexFeed, Record
    from cache_core.tiers.semantic import SemanticTier, Similar

log = RateLimited(logging.getLogger("glasscache"))

_BATCH = 500
_VALUES = 10

Job = Callable[[], Awaitable[int]]


class Invalidator:
    """Invalidates by message, document, tag and user.

    A message is invalidated by replacing its generation token: one write, whatever the number of
    users, contexts and replicas. Processes that keep an index of their own learn of it from a log
    in the store, within a second.

    Args:
        parts: Of the cache.
    """

    def __init__(self, parts: Parts) -> None:
        self._store: KeyValueStore = parts.store
        self._keys: Keys = parts.keys
        semantic = parts.semantic
        self._semantic: SemanticTier | None = semantic.tier if semantic is not None else None
        self._feed: IndexFeed | None = semantic.feed if semantic is not None else None
        self._decisions: DecisionLog = parts.decisions
        self._pending: deque[Job] = deque()

    @property
    def pending(self) -> int:
        """Invalidations that are still to be confirmed."""
        return len(self._pending)

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
        if user is None:
            return await self._do(lambda: self._message(query, tuning, dry_run), dry_run=dry_run)
        return await self._do(
            lambda: self._own_message(query, tuning, user, dry_run), dry_run=dry_run
        )

    async def label(self, kind: str, value: str, *, dry_run: bool) -> Invalidation:
        """Invalidate every message with an answer that came from a document, or has a tag."""
        name = self._keys.index(kind, self._keys.label(kind, value))

        async def job() -> int:
            tags = list(await self._store.rows(name))
            removed = await self._tags(tags, dry_run=dry_run)
            if not dry_run:
                await self._announce(tags, "", 0.0)
                await self._store.delete([name])
            return removed

        return await self._do(job, dry_run=dry_run)

    async def user(self, user: str) -> Invalidation:
        """Erase everything that is private to a user, the decisions about them included."""
        return await self._do(lambda: self._forget(user), dry_run=False)

    async def close(self) -> None:
        """Try once more what is pending; say what is lost."""
        await self._retry()
        if self._pending:
            log.limited(
                "lost",
                "%d invalidations could not be made before closing; make them again",
                len(self._pending),
            )

    async def tend(self, tuning: Tuning) -> None:
        """Retry what is pending; apply what other processes invalidated."""
        await self._retry()
        await self.apply(tuning)

    async def _retry(self) -> None:
        for _ in range(len(self._pending)):
            job = self._pending.popleft()
            try:
                await job()
            except Exception:  # noqa: BLE001 - the others have their turn all the same
                self._pending.append(job)

    async def _do(self, job: Job, *, dry_run: bool) -> Invalidation:
        try:
            return Invalidation(await job(), complete=True)
        except Exception as failure:  # noqa: BLE001 - an invalidation is never lost to a surprise
            error = failure if isinstance(failure, BackendError) else _unexpected(failure)
            if not dry_run:
                self._pending.append(job)
            log.limited(
                "invalidation",
                "an invalidation is pending: %s (%s); it is tried again every second",
                error.reason,
                error.error_type,
            )
            return Invalidation(0, complete=False, pending=(error.error_type,))

    async def _message(self, query: Query, tuning: Tuning, dry_run: bool) -> int:
        # The message itself at once: finding the similar ones needs more backends.
        removed = await self._tags([query.tag], dry_run=dry_run)
        similar: list[Similar] = []
        if self._semantic is not None:
            similar = await self._semantic.similar(query.text, tuning)
        others = sorted({item.tag for item in similar} - {query.tag})
        removed += await self._tags(others, dry_run=dry_run)
        if not dry_run:
            if self._semantic is not None:
                await self._semantic.forget(similar)
            await self._announce([query.tag, *others], query.text, tuning.semantic_threshold)
        return removed

    async def _own_message(self, query: Query, tuning: Tuning, user: str, dry_run: bool) -> int:
        similar: list[Similar] = []
        if self._semantic is not None:
            similar = await self._semantic.similar(query.text, tuning, user=user)
        names: list[str] = []
        for tag in sorted({query.tag, *(item.tag for item in similar)}):
            known = await self._store.rows(self._keys.index("message", tag))
            names += [name for name, scope in known.items() if scope == "user" and user in name]
        if dry_run:
            return await self._live(names)
        removed = await self._delete(names)
        if self._semantic is not None:
            await self._semantic.forget(similar)
        return removed

    async def _tags(self, tags: Sequence[str], *, dry_run: bool) -> int:
        """Invalidate messages by their tags; return how many entries they had."""
        removed = 0
        for start in range(0, len(tags), _BATCH):
            batch = tags[start : start + _BATCH]
            if not dry_run:
                await self._store.write(
                    [Write(self._keys.generation(tag), token("i"), LIFE) for tag in batch]
                )
            for tag in batch:
                known = await self._store.rows(self._keys.index("message", tag))
                # Shared answers of L2 count where they are searched: below.
                counted = [
                    name
                    for name, scope in known.items()
                    if scope == "user" or not self._keys.is_entry(name, "l2")
                ]
                if dry_run:
                    removed += await self._live(counted)
                    continue
                removed += await self._delete(counted)
                await self._delete([name for name in known if name not in set(counted)])
            if self._semantic is not None:
                count = self._semantic.count_messages if dry_run else self._semantic.forget_messages
                removed += await count(batch)
        return removed

    async def _live(self, names: Sequence[str]) -> int:
        found = 0
        for start in range(0, len(names), _VALUES):
            values = await self._store.read(names[start : start + _VALUES])
            found += sum(value is not None for value in values)
        return found

    async def _delete(self, names: Sequence[str]) -> int:
        removed = 0
        for start in range(0, len(names), _BATCH):
            removed += await self._store.delete(names[start : start + _BATCH])
        return removed

    async def _forget(self, user: str) -> int:
        if self._semantic is not None:
            self._semantic.forget_waiting(user)
        index = self._keys.index("user", user)
        names = await self._store.rows(index)
        removed = await self._delete([name for name, tag in names.items() if tag])
        await self._delete([name for name, tag in names.items() if not tag])
        await self._store.delete_rows(self._keys.own(PARTITIONS + self._keys.model), list(names))
        for name, tag in names.items():
            if tag:
                await self._store.delete_rows(self._keys.index("message", tag), [name])
        await self._store.delete([index])
        await self._decisions.forget_user(user)
        return removed

    async def _announce(self, tags: Sequence[str], text: str, threshold: float) -> None:
        if self._feed is not None:
            await self._feed.invalidated(tags, text, threshold)

    async def apply(self, tuning: Tuning) -> None:
        """Do to this process's own index what others did to theirs."""
        feed, semantic = self._feed, self._semantic
        if feed is None or semantic is None:
            return

        async def invalidate(record: Record) -> None:
            await semantic.forget_messages(record.tags)
            if record.text:
                at = tuning.model_copy(update={"semantic_threshold": record.threshold})
                found = await semantic.similar_shared(record.text, at)
                await self._tags(sorted({item.tag for item in found}), dry_run=False)

        await feed.apply(invalidate)


def _unexpected(error: Exception) -> BackendError:
    return BackendError("backend_error", type(error).__name__, str(error))
