"""Log of recent broad invalidations. Every put checks it before it becomes visible.

A generation rejects answers computed before their own message was invalidated. But a document, a
tag or a writer stands for the messages stored when it is invalidated, and so does a message for
similar ones: an answer still being computed then is not among them. So each such invalidation is
appended to one log of the namespace before it searches for stored messages. A put makes itself
findable first (its rows in the indexes, its vector), then reads the log: either the invalidation
finds the put, or the put finds the invalidation.

An index can be lost: evicted, or overwritten by another program. So an entry also lists its labels
and the log's position when it was put: it is not served after a later invalidation of one of them.

No clock is used. A lookup records how far its process has read the log, and its put is checked
against all later invalidations. A process reads others' invalidations a quarter of a second late:
meanwhile a put may be rejected for one that preceded its lookup. That costs one answer that is not
stored, never an outdated one that is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

from cache_core.backends.base import Logs
from cache_core.backends.log import Log
from cache_core.model.keys import Keys
from cache_core.model.stored import Flag, Format, Plain, Share
from cache_core.tiers.denylist import Denylist, Place, place

INVALIDATIONS_KEPT = 1_000
"""Invalidations that a process remembers; a put older than all of them is rejected."""

_BATCH = 500
_UNKNOWN = "{}"
"""Placeholder in the log for a removed invalidation."""


@dataclass(frozen=True, slots=True)
class Broad:
    """An invalidation of more than one message.

    Attributes:
        token: Identifies it: its caller may still put an answer computed before it.
        labels: Digests of the document, tag or writer whose messages it invalidates.
        text: Message whose similar ones it invalidates; empty for none.
        threshold: Least similarity of those, 0..1.
        user: Digest of the user whose own answers are meant; empty for everybody's.
        searched: False until a process with L2 has searched for similar messages.
    """

    token: Plain
    labels: Sequence[Plain] = ()
    text: str = field(default="", repr=False)
    threshold: Share = 1.0
    user: Plain = ""
    searched: Flag = True

    @property
    def is_of_nothing(self) -> bool:
        """True if it invalidates nothing, and only announces that a user was erased."""
        return not self.labels and not self.text


FORMAT = Format(Broad)


class Journal:
    """Log of a namespace's broad invalidations, as far as this process has read it.

    Args:
        store: Store of the log.
        keys: Name and encryption of the log.
        denylist: Gets the invalidated labels.
    """

    def __init__(self, store: Logs, keys: Keys, denylist: Denylist) -> None:
        self._store = store
        # Twice what is remembered, so that a process only misses what it would not remember.
        self._log = Log(
            store,
            keys.own("invalidations"),
            FORMAT,
            2 * INVALIDATIONS_KEPT,
            sealed=("text",),
            sealer=keys.sealer,
        )
        self._denylist = denylist
        self._keys = keys
        self._known: deque[tuple[Place, Broad | None]] = deque()
        # Everything after this place is in `_known`.
        self._from: Place = ()
        self._read_to = ""
        self._unsearched: dict[str, tuple[str, Broad]] = {}
        self._texts_dropped_for = 0
        self.when_forgotten: list[Callable[[], None]] = []
        """Called when any process has erased a user; it is not known which.

        Texts in memory are cleared from here because any reader of the log may be the first to
        learn of the erasure, and none may serve them afterwards.
        """
        self.users_forgotten = 0
        """Number of such erasures."""

    @property
    def position(self) -> str:
        """Position up to which this process has read the log; valid in every process."""
        return self._read_to

    async def open(self) -> None:
        """Read the log: it applies to lookups made before the store was reached.

        Raises:
            BackendError: If the store is unavailable.
        """
        await self.catch_up()

    @property
    def unsearched(self) -> Sequence[Broad]:
        """Known invalidations for which no process has searched similar messages yet."""
        return [item for _, item in self._unsearched.values()]

    async def searched(self, invalidation: Broad) -> None:
        """Record, for all processes, that similar messages were searched for.

        Raises:
            BackendError: If the store is unavailable.
        """
        at, _ = self._unsearched.get(invalidation.token, ("", None))
        await self.note(replace(invalidation, searched=True))
        if at:
            # Only now, because a process that had not read it needs the other record.
            await self._log.remove([at])

    def _follow(self, at: str, sealed: Broad | None, item: Broad | None) -> None:
        if sealed is not None and sealed.searched:
            # Its token is readable even if its text is not.
            self._unsearched.pop(sealed.token, None)
        if item is None:
            return
        if item.is_of_nothing:
            self.users_forgotten += 1
            for clear in self.when_forgotten:
                clear()
        for label in item.labels:
            labels = self._denylist.labels
            labels.pop(label, None)
            labels[label] = place(at)
            if len(labels) > 2 * INVALIDATIONS_KEPT:
                del labels[next(iter(labels))]
        if not item.searched:
            self._unsearched[item.token] = (at, item)

    async def note(self, invalidation: Broad) -> None:
        """Append *invalidation* and read the log up to it.

        Raises:
            BackendError: If the store is unavailable.
        """
        await self._log.append([invalidation])
        await self.catch_up()

    async def catch_up(self) -> None:
        """Read the invalidations appended since the last call.

        Raises:
            BackendError: If the store is unavailable.
        """
        while True:
            start = self._read_to
            found = await self._log.since(start, _BATCH)
            if self._read_to != start:
                # Another task has read from the same place meanwhile.
                continue
            for at, sealed in found:
                item = self._opened(sealed)
                self._known.append((place(at), item))
                if len(self._known) > INVALIDATIONS_KEPT:
                    self._from, _ = self._known.popleft()
                self._follow(at, sealed, item)
                self._read_to = at
            if len(found) < _BATCH:
                break
        erased = self.users_forgotten
        if self._texts_dropped_for < erased:
            await self._forget_texts()
            self._texts_dropped_for = max(self._texts_dropped_for, erased)

    async def since(self, position: str) -> tuple[Sequence[Broad] | None, str]:
        """Return the invalidations after *position*, and the position read to.

        `None` means that not all are known: they are too many, or unreadable.

        Args:
            position: Position in this log, of any process; empty for its beginning.

        Raises:
            BackendError: If the store is unavailable.
        """
        await self.catch_up()
        after = place(position)
        if after < self._from:
            return None, self._read_to
        found = [item for at, item in self._known if at > after]
        readable = [item for item in found if item is not None]
        return readable if len(readable) == len(found) else None, self._read_to

    async def forget(self, user: str, messages: Collection[str] = ()) -> None:
        """Remove invalidations of a user's own answers, and those that name the user as a writer.

        The text of a message is removed as well, once similar ones were searched for. Puts whose
        lookup preceded it are rejected from then on, since they cannot be checked against it.

        Args:
            user: The user's digest.
            messages: Digests of the user's messages.

        Raises:
            BackendError: If the store failed.
        """
        spoken = await self._log.remove_where(lambda item: self._is_of(item, messages))
        await self._log.remove_where(lambda item: user in (item.user, *item.labels))
        if spoken:
            await self._store.append(self._log.name, [_UNKNOWN], keep=2 * INVALIDATIONS_KEPT)

    def _is_of(self, sealed: Broad, messages: Collection[str]) -> bool:
        """Return whether this searched invalidation is of one of *messages*, for everybody."""
        item = self._opened(sealed)
        if item is None or not item.text or not item.searched or item.user:
            return False
        return self._keys.tag(item.text) in messages

    async def _forget_texts(self) -> None:
        """Drop remembered texts that are no longer in the log."""
        kept = {place(at) async for page in self._log.pages() for at, _ in page}
        for number, (at, item) in enumerate(self._known):
            if item is not None and item.text and at not in kept:
                # One of the erased user's own answers concerns no other put.
                self._known[number] = (at, replace(item, text="") if item.user else None)

    def _opened(self, sealed: Broad | None) -> Broad | None:
        """Return *sealed* with its text decrypted; `None` if that fails."""
        if sealed is None:
            return None
        item = self._log.opened(sealed)
        return item if item.text or not sealed.text else None
