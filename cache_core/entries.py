"""The stored entries of messages: found by their indexes, counted and deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cache_core.keys import APART, Keys
from cache_core.models import Query
from cache_core.stored import from_store
from cache_core.stores.base import KeyValueStore, RowWrite
from cache_core.tuning import Tuning
from cache_core.writing import LIFE

if TYPE_CHECKING:  # it needs the `semantic` extra
    from cache_core.tiers.similar import Similar, SimilarQuestions

BATCH = 500
"""Messages, or entries, that are dealt with together."""

_VALUES = 10


class StoredEntries:
    """Entries of messages, in every tier, scope, context and history.

    Every coroutine raises `BackendError` if the store, or the index, failed.

    Args:
        store: Holds them, and the indexes that list them.
        keys: Their names.
        questions: For those of the vector index; `None` without L2.
    """

    def __init__(
        self, store: KeyValueStore, keys: Keys, questions: SimilarQuestions | None
    ) -> None:
        self._store = store
        self._keys = keys
        self._questions = questions

    async def _of(self, tags: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return the keys of messages' entries, and those that are counted in the index."""
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

    async def own_names(self, tags: Sequence[str], user: str) -> list[str]:
        """Return the keys of a user's own entries of messages."""
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
        """Delete all entries of messages; return how many, those of the index left out."""
        here, shared = await self._of(tags)
        removed = await self.delete(here)
        await self.delete(shared)
        return removed

    async def delete(self, names: Sequence[str]) -> int:
        """Delete entries by their keys; return how many there were."""
        removed = 0
        for start in range(0, len(names), BATCH):
            removed += await self._store.delete(names[start : start + BATCH])
        return removed

    async def set_apart(self, index: str, mark: str) -> tuple[list[str], list[str]]:
        """Return the messages that an index lists, and the rows to delete when they are gone.

        Those rows get names of their own before any message is given a new token: what is put under
        it, while the invalidation goes on, has rows that are not deleted with these.

        Args:
            index: Of a document, tag or writer.
            mark: Of the invalidation.
        """
        listed = await self._store.rows(index)
        names = [name for name in listed if APART in name]
        fresh = [name for name in listed if APART not in name]
        for start in range(0, len(fresh), BATCH):
            batch = fresh[start : start + BATCH]
            rows = {f"{name}{APART}{mark}": listed[name] for name in batch}
            await self._store.put_rows([RowWrite(index, rows, LIFE)])
            await self._store.delete_rows(index, batch)
            names += rows
        return tags_of(listed), names

    async def delete_markers(self, entries: Sequence[str], user: str) -> None:
        """Delete what tells others of this user's answers."""
        names = sorted({self._keys.marker_beside(name) for name in entries})
        for start in range(0, len(names), BATCH):
            batch = names[start : start + BATCH]
            values = await self._store.read(batch)
            theirs = [
                name for name, value in zip(batch, values, strict=True) if _marks(value, user)
            ]
            await self._store.delete(theirs)

    async def count_message(self, query: Query, tuning: Tuning, user: str | None) -> int:
        """Return how many entries invalidating a message would take, for *user* or everybody."""
        similar: list[Similar] = []
        if self._questions is not None:
            similar = await self._questions.similar(query.text, tuning, user=user)
        tags = sorted({query.tag, *(item.tag for item in similar)})
        if user is not None:
            return await self._live(await self.own_names(tags, user))
        return await self._count(tags)

    async def count_label(self, index: str) -> int:
        """Return how many entries the messages of an index have."""
        return await self._count(tags_of(await self._store.rows(index)))

    async def count_writer(self, user: str, index: str) -> int:
        """Return how many entries invalidating a writer would take; *index* lists theirs."""
        listed = await self._store.rows(self._keys.index("user", user))
        names = [name for name, tag in listed.items() if tag and self._keys.names_entry(name)]
        return await self._live(names) + (await self.count_label(index))

    async def _count(self, tags: Sequence[str]) -> int:
        here, _ = await self._of(tags)
        found = await self._live(here)
        if self._questions is not None:
            for start in range(0, len(tags), BATCH):
                found += await self._questions.count_messages(tags[start : start + BATCH])
        return found

    async def _live(self, names: Sequence[str]) -> int:
        found = 0
        for start in range(0, len(names), _VALUES):
            values = await self._store.read(names[start : start + _VALUES])
            found += sum(value is not None for value in values)
        return found


def tags_of(listed: Mapping[str, str]) -> list[str]:
    """Return the messages of an index: that of a writer names entries, the others messages."""
    return sorted({tag or Keys.listed_by(name) for name, tag in listed.items()})


def _marks(value: str | None, user: str) -> bool:
    try:
        found = from_store(value or "")
    except ValueError:
        return False
    return isinstance(found, list) and found[:1] == [user]
