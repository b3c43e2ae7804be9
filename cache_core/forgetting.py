"""Erasing a user from the store: entries, vectors, votes, and what was recorded about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from cache_core import envelope, verdicts
from cache_core.keys import PARTITIONS, Keys
from cache_core.parts import Parts
from cache_core.recent import Broad
from cache_core.writing import token

_BATCH = 500
_VALUES = 20
_SLACK = 1_000
"""A log may hold this many more than it was told to keep: stores trim roughly."""


@dataclass(slots=True)
class Forgotten:
    """What was erased of a user.

    Attributes:
        counts: By kind: `private entries`, `shared entries`, `vectors`, `votes`, `decisions`,
            `verdicts`.
        indexed: Tags of the messages whose shared answer in the vector index was theirs.
    """

    counts: Counter[str] = field(default_factory=Counter)
    indexed: list[str] = field(default_factory=list)

    @property
    def entries(self) -> int:
        """How many entries went."""
        return self.counts["private entries"] + self.counts["shared entries"]


class Forgetter:
    """Erases what names a user's digest, and what they stored.

    Args:
        parts: Of the cache.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._store = parts.store
        self._keys: Keys = parts.keys

    async def erase(self, user: str, *, traces: bool) -> Forgotten:
        """Erase all entries of a user's digest; with *traces* also what was recorded about them.

        Indexes go last: what fails on the way is found again.

        Raises:
            BackendError: If the store failed; what is left is erased when this is repeated.
        """
        found = Forgotten()
        if self._parts.semantic is not None:
            self._parts.semantic.tier.forget_waiting(user)
        await self._private(user, found)
        await self._shared(user, found)
        if traces:
            found.counts["decisions"] = await self._parts.decisions.forget_user(user)
            found.counts["verdicts"] = await self._forget_verdicts(user)
            await self._parts.recent.forget(user)
            # Whose it was need not be known for forgetting what processes remember.
            await self._parts.recent.note(Broad(token("f")))
        return found

    async def _private(self, user: str, found: Forgotten) -> None:
        index = self._keys.index("user", user)
        names = await self._store.rows(index)
        entries = [name for name, tag in names.items() if tag and self._keys.names_entry(name)]
        others = [name for name, tag in names.items() if not tag and self._keys.owns(name)]
        ballots = [name for name in others if Keys.is_votes(name)]
        found.counts["private entries"] = await self._delete(entries)
        for name in ballots:
            found.counts["votes"] += await self._store.delete_rows(name, [user])
        for name in others:
            if Keys.is_vectors(name):
                found.counts["vectors"] += len(await self._store.row_names(name))
        await self._delete([name for name in others if name not in ballots])
        await self._store.delete_rows(self._keys.own(PARTITIONS + self._keys.model), list(names))
        for name in entries:
            await self._store.delete_rows(self._keys.index("message", names[name]), [name])
        # Not the whole: what is put again meanwhile must be found the next time.
        await self._store.delete_rows(index, list(names))

    async def _shared(self, user: str, found: Forgotten) -> None:
        """Erase what they stored for everybody, where nobody has replaced it since."""
        index = self._keys.index("writer", user)
        listed = await self._store.rows(index)
        rows = {Keys.listed_by(row): tag for row, tag in listed.items()}
        names = {name: tag for name, tag in rows.items() if self._keys.names_entry(name)}
        asked = list(names)
        for start in range(0, len(asked), _VALUES):
            batch = asked[start : start + _VALUES]
            values = await self._store.read(batch)
            theirs = [
                name
                for name, value in zip(batch, values, strict=True)
                if value is not None and envelope.writer(value) == user
            ]
            found.counts["shared entries"] += await self._delete(theirs)
        found.indexed = sorted(
            {tag for name, tag in names.items() if self._keys.is_entry(name, "l2")}
        )
        if self._parts.semantic is not None and found.indexed:
            await self._parts.semantic.feed.forget(found.indexed)
            await self._parts.semantic.similar.forget_arriving(found.indexed)
        await self._store.delete_rows(index, list(listed))

    async def _delete(self, names: Sequence[str]) -> int:
        removed = 0
        for start in range(0, len(names), _BATCH):
            removed += await self._store.delete(names[start : start + _BATCH])
        return removed

    async def _forget_verdicts(self, user: str) -> int:
        name = self._keys.own(verdicts.LOG)
        found = await self._store.last(name, verdicts.KEPT + _SLACK)
        positions = [
            position
            for position, text in found
            if (item := verdicts.parse(text)) is not None and item.user == user
        ]
        await self._store.remove(name, positions)
        return len(positions)
