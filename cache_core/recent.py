"""The invalidations of late, against which every put is held.

A generation stops what was computed before its own message was invalidated. But a document, a tag
or a writer stands for the messages that are stored when it is invalidated, and so does a message
for those that are similar to it: what is still being computed then is not among them. So each such
invalidation is appended to one log of the namespace before it looks for what is stored. A put makes
itself known first (its rows in the indexes, its vector), then reads the log: either the
invalidation finds the put, or the put finds the invalidation.

An index can be lost: evicted, or overwritten by somebody else. So an entry also names its labels
itself, and up to where the log was known when it was put: whoever finds a later invalidation of one
of them there does not serve it.

No clock is asked. A lookup notes up to where its process has read the log, and its put is held
against all that came after that. A process learns of what others invalidate a
quarter of a second late: meanwhile a put may be refused for an invalidation that its lookup came
after. That costs one answer that is not stored, never an outdated one that is.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cache_core.keys import Keys
from cache_core.sealing import SealError
from cache_core.stored import are_numbers, are_plain, from_store
from cache_core.stores.base import KeyValueStore
from cache_core.vetoes import Place, Vetoes, place

KEPT = 1_000
"""Invalidations that a process remembers; a put from before all of them is refused."""

_BATCH = 500


@dataclass(frozen=True, slots=True)
class Broad:
    """An invalidation of more than one message.

    Attributes:
        token: Names it: whoever made it may still put what they computed before.
        labels: Digests of the document, tag or writer whose messages it takes out of service.
        text: What it takes similar messages of out of service; empty for none.
        threshold: What is at least so similar, 0..1.
        user: Digest of the one whose own answers are meant; empty for everybody's.
        searched: False while nobody has looked for similar messages: whoever told it cannot.
    """

    token: str
    labels: Sequence[str] = ()
    text: str = ""
    threshold: float = 1.0
    user: str = ""
    searched: bool = True

    @property
    def is_of_nothing(self) -> bool:
        """Whether it takes nothing out of service, and only tells that a user was forgotten."""
        return not self.labels and not self.text


class RecentInvalidations:
    """The log of a namespace's broad invalidations, and what this process has read of it.

    Args:
        store: Holds the log.
        keys: Names it.
        vetoes: Told which labels were invalidated.
    """

    def __init__(self, store: KeyValueStore, keys: Keys, vetoes: Vetoes) -> None:
        self._store = store
        self._vetoes = vetoes
        self._keys = keys
        self._known: deque[tuple[Place, Broad | None]] = deque()
        # After this place all that was told is known.
        self._from: Place = ()
        self._read_to = ""
        self._unsearched: dict[str, tuple[str, Broad]] = {}
        self.when_forgotten: list[Callable[[], None]] = []
        """Called when a user was forgotten, by whatever process: nobody says which."""

    @property
    def position(self) -> str:
        """Up to where this process knows the log; the same place for every process."""
        return self._read_to

    @property
    def _log(self) -> str:
        return self._keys.own("invalidations")

    async def open(self) -> None:
        """Read what is there: it holds against what was looked up before the store was reached.

        Raises:
            BackendError: If the store is away.
        """
        await self.catch_up()

    @property
    def unsearched(self) -> Sequence[Broad]:
        """Those for which nobody has looked for similar messages yet, as far as is known here."""
        return [item for _, item in self._unsearched.values()]

    async def searched(self, invalidation: Broad) -> None:
        """Take note, for everybody, that similar messages were looked for.

        Raises:
            BackendError: If the store is away.
        """
        at, _ = self._unsearched.get(invalidation.token, ("", None))
        await self.note(replace(invalidation, searched=True))
        if at:
            # Only now: whoever had not read it has its other record.
            await self._store.remove(self._log, [at])

    def _follow(self, at: str, told: Broad | None, item: Broad | None) -> None:
        if told is not None and told.searched:
            # Which it was can be read, even if the text cannot be.
            self._unsearched.pop(told.token, None)
        if item is None:
            return
        if item.is_of_nothing:
            for clear in self.when_forgotten:
                clear()
        for label in item.labels:
            labels = self._vetoes.labels
            labels.pop(label, None)
            labels[label] = place(at)
            if len(labels) > 2 * KEPT:
                del labels[next(iter(labels))]
        if not item.searched:
            self._unsearched[item.token] = (at, item)

    async def note(self, invalidation: Broad) -> None:
        """Append *invalidation*; this process knows of it, then.

        Raises:
            BackendError: If the store is away.
        """
        values = {name: getattr(invalidation, name) for name in Broad.__slots__}
        if self._keys.sealer is not None and invalidation.text:
            values["text"] = self._keys.sealer.seal(invalidation.text, self._log)
        # Twice what is remembered: whoever missed some for having been trimmed has forgotten more.
        await self._store.append(self._log, [json.dumps(values)], keep=2 * KEPT)
        await self.catch_up()

    async def catch_up(self) -> None:
        """Read what was appended since the last time.

        Raises:
            BackendError: If the store is away.
        """
        while True:
            start = self._read_to
            found = await self._store.after(self._log, start, _BATCH)
            if self._read_to != start:
                # Others read meanwhile, from the same place on; what they took may be gone by now.
                continue
            for at, text in found:
                told = _parse(text)
                item = self._opened(told)
                self._known.append((place(at), item))
                if len(self._known) > KEPT:
                    self._from, _ = self._known.popleft()
                self._follow(at, told, item)
                self._read_to = at
            if len(found) < _BATCH:
                return

    async def since(self, position: str) -> tuple[Sequence[Broad] | None, str]:
        """Return the invalidations after *position*, and up to where the log was read.

        `None` stands for invalidations that cannot all be known: they are too many, or unreadable.

        Args:
            position: Of this log, whoever read it up to there; empty for its beginning.

        Raises:
            BackendError: If the store is away.
        """
        await self.catch_up()
        after = place(position)
        if after < self._from:
            return None, self._read_to
        found = [item for at, item in self._known if at > after]
        readable = [item for item in found if item is not None]
        return readable if len(readable) == len(found) else None, self._read_to

    async def forget(self, user: str) -> None:
        """Remove what a user invalidated of their own, and what of theirs others did."""
        position = ""
        while found := await self._store.after(self._log, position, _BATCH):
            theirs = [
                at
                for at, text in found
                if (item := _parse(text)) and user in (item.user, *item.labels)
            ]
            await self._store.remove(self._log, theirs)
            position = found[-1][0]

    def _opened(self, found: Broad | None) -> Broad | None:
        if found is None or self._keys.sealer is None or not found.text:
            return found
        try:
            return replace(found, text=self._keys.sealer.open(found.text, self._log))
        except SealError:
            return None


def _parse(text: str) -> Broad | None:
    try:
        values: Any = from_store(text)
        found = Broad(**values)
    except (TypeError, ValueError):
        return None
    sound = (
        are_plain([found.token, found.user])
        and isinstance(found.text, str)
        and isinstance(found.labels, list)
        and are_plain(found.labels)
        and are_numbers([found.threshold])
        and 0 <= found.threshold <= 1
        and isinstance(found.searched, bool)
    )
    return found if sound else None
