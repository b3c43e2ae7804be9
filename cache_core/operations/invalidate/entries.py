"""Stored entries of messages: found by their indexes, counted and deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cache_core.backends.base import Keyed, RowWrite
from cache_core.config.lifetimes import TOKEN_SECONDS
from cache_core.config.tuning import Tuning
from cache_core.model.batches import batched
from cache_core.model.keys import APART, Keys
from cache_core.model.values import Query
from cache_core.tiers.keyed import may_mark

if TYPE_CHECKING:  # it needs the `semantic` extra
    from cache_core.tiers.semantic.similar import Similar, SimilarQuestions

BATCH = 500
"""Messages or entries processed together."""

_VALUES = 10
_OF_USERS = ("user", "writer")


class StoredEntries:
    """Entries of messages, in every tier, scope, context and history.

    Every coroutine raises `BackendError` if the store, or the index, failed.

    Args:
        store: Store of the entries, and of the indexes that list them.
        keys: Names of the entries.
        questions: Finds those of the vector index; `None` without L2.
    """

    def __init__(self, store: Keyed, keys: Keys, questions: SimilarQuestions | None) -> None:
        self._store = store
        self._keys = keys
        self._questions = questions

    async def _of(self, tags: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return the keys of messages' entries, apart from those counted in the vector index."""
        here: list[str] = []
        shared: list[str] = []
        for tag in tags:
            known = await self._store.rows(self._keys.index("message", tag))
            for name, scope in known.items():
                if not self._keys.names_entry(name):
                    continue
                of_the_index = scope != "user" and self._keys.is_entry(name, "l2")
                (shared if of_the_index else here).append(name)
        return here, shared

    async def _own_names(self, tags: Sequence[str], user: str) -> list[str]:
        names: list[str] = []
        for tag in tags:
            known = await self._store.rows(self._keys.index("message", tag))
            names += [
                name
                for name, scope in known.items()
                if scope == "user" and user in name and self._keys.names_entry(name)
            ]
        return names

    async def delete_of(self, tags: Sequence[str]) -> int:
        """Delete all entries of messages; return how many, without those in the vector index."""
        here, shared = await self._of(tags)
        removed = await self._delete(here)
        await self._delete(shared)
        return removed

    async def delete_own(self, tags: Sequence[str], user: str) -> int:
        """Delete a user's own entries of messages; return how many there were."""
        names = await self._own_names(tags, user)
        removed = await self._delete(names)
        await self.delete_markers([self._keys.marker_beside(name) for name in names], user)
        return removed

    async def _delete(self, names: Sequence[str]) -> int:
        removed = 0
        for batch in batched(names, BATCH):
            removed += await self._store.delete(batch)
        return removed

    async def set_apart(self, index: str, mark: str) -> dict[str, str]:
        """Return the rows of an index, to be deleted after the entries that they list.

        They are renamed before any message gets a new token, so that rows put under it during the
        invalidation are not deleted with them.

        Args:
            index: Key of the index of a document, tag or writer.
            mark: Token of the invalidation.
        """
        listed = await self._store.rows(index)
        apart = {name: value for name, value in listed.items() if APART in name}
        fresh = [name for name in listed if APART not in name]
        for batch in batched(fresh, BATCH):
            rows = {f"{name}{APART}{mark}": listed[name] for name in batch}
            await self._store.put_rows([RowWrite(index, rows, TOKEN_SECONDS)])
            await self._store.delete_rows(index, batch)
            apart |= rows
        return apart

    async def delete_markers(self, names: Sequence[str], user: str) -> None:
        """Delete those of some marks that announce this user's answers to others."""
        for batch in batched(sorted(set(names)), BATCH):
            values = await self._store.read(batch)
            theirs = [
                name for name, value in zip(batch, values, strict=True) if may_mark(value, user)
            ]
            await self._store.delete(theirs)

    async def count_message(self, query: Query, tuning: Tuning, user: str | None) -> int:
        """Return how many entries invalidating a message would remove, for *user* or everybody."""
        similar: list[Similar] = []
        if self._questions is not None:
            similar = await self._questions.similar(query.text, tuning, user=user)
        tags = sorted({query.tag, *(item.tag for item in similar)})
        if user is not None:
            return await self._live(await self._own_names(tags, user))
        return await self._count(tags)

    async def count_label(self, indexes: Sequence[str]) -> int:
        """Return the number of entries of the messages in some indexes."""
        listed = [await self._store.rows(index) for index in indexes]
        return await self._count(sorted({tag for rows in listed for tag in tags_of(rows)}))

    async def count_writer(self, user: str, index: str) -> int:
        """Return how many entries invalidating a writer would remove; *index* lists theirs."""
        listed = await self._store.rows(self._keys.index("user", user))
        names = [name for name, tag in listed.items() if tag and self._keys.names_entry(name)]
        return await self._live(names) + (await self.count_label([index]))

    async def count_user(self, user: str) -> int:
        """Return the number of entries that are a user's, or that they stored for others."""
        listed = [await self._store.rows(self._keys.index(kind, user)) for kind in _OF_USERS]
        names = {self._keys.listed_by(name) for rows in listed for name, tag in rows.items() if tag}
        return await self._live([name for name in names if self._keys.names_entry(name)])

    async def _count(self, tags: Sequence[str]) -> int:
        here, _ = await self._of(tags)
        found = await self._live(here)
        if self._questions is not None:
            for batch in batched(tags, BATCH):
                found += await self._questions.count_messages(batch)
        return found

    async def _live(self, names: Sequence[str]) -> int:
        found = 0
        for batch in batched(names, _VALUES):
            values = await self._store.read(batch)
            found += sum(value is not None for value in values)
        return found


def tags_of(listed: Mapping[str, str]) -> list[str]:
    """Return the messages of an index: a writer's lists entries, the others messages."""
    return sorted({tag or Keys.listed_by(name) for name, tag in listed.items()})
