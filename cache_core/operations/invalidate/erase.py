"""Erasure of a user from the store: entries, vectors, votes and log records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial

from cache_core.backends.base import KeyValueStore
from cache_core.model import envelope
from cache_core.model.batches import batched
from cache_core.model.generations import token
from cache_core.model.keys import PARTITIONS, Keys
from cache_core.observability.audit import AUDIT, OF_USER, AuditLog
from cache_core.observability.decisions import DecisionLog
from cache_core.observability.verdicts import LOG, verdict_log
from cache_core.operations.invalidate.entries import StoredEntries
from cache_core.operations.invalidate.semantic import Semantic
from cache_core.operations.promotion import Promotion, promotion_label
from cache_core.tiers.journal import Broad, Journal

_BATCH = 500
_VALUES = 20


@dataclass(slots=True)
class Forgotten:
    """Result of erasing a user.

    Attributes:
        counts: By kind: `private entries`, `shared entries`, `vectors`, `votes`, `decisions`,
            `verdicts`.
        listed: Rows that list the user's shared answers; they stay until those are removed from the
            vector indexes, too.
        indexed: Tags of the messages whose shared answer in a vector index may be the user's.
        served: Those of them that no other user's answer has replaced, in one context at least.
        fallen: Labels of answers of others that too few votes promote without the user's.
    """

    counts: Counter[str] = field(default_factory=Counter)
    listed: list[str] = field(default_factory=list)
    indexed: list[str] = field(default_factory=list)
    served: list[str] = field(default_factory=list)
    fallen: list[str] = field(default_factory=list)

    @property
    def entries(self) -> int:
        """Number of entries erased."""
        return self.counts["private entries"] + self.counts["shared entries"]


class Forgetter:
    """Erases a user's entries, and all that names their digest.

    Args:
        store: Store of the entries.
        keys: Names of the entries.
        decisions: Log of lookups.
        journal: Log of broad invalidations.
        entries: Entries of messages, and the lists of them.
        semantic: Parts of L2; `None` without L2.
        enough: Returns the number of users who promote an answer.
    """

    def __init__(
        self,
        store: KeyValueStore,
        keys: Keys,
        decisions: DecisionLog,
        journal: Journal,
        entries: StoredEntries,
        semantic: Semantic | None,
        enough: Callable[[], int],
    ) -> None:
        self._store = store
        self._keys = keys
        self._decisions = decisions
        self._journal = journal
        self._entries = entries
        self._semantic = semantic
        self._enough = enough
        self._promotion = Promotion(store, keys)

    async def erase(self, user: str, mark: str, *, traces: bool) -> Forgotten:
        """Erase all entries of a user, and with *traces* also the log records about them.

        Indexes are deleted last, so that after a failure the rest is found again.

        Args:
            user: The user's digest.
            mark: Token of the invalidation.
            traces: Whether to erase log records.

        Raises:
            BackendError: If the store failed; repeating this erases the rest.
        """
        found = Forgotten()
        if self._semantic is not None:
            self._semantic.waiting.forget(user)
        if traces:
            await self._traces(user, found)
        await self._private(user, found)
        await self._shared(user, mark, found)
        if traces:
            # Without the user's digest: processes drop all that they remember.
            await self._journal.note(Broad(token("f")))
        return found

    async def _traces(self, user: str, found: Forgotten) -> None:
        """Erase the log records about a user, while their messages are known."""
        private = await self._store.rows(self._keys.index("user", user))
        shared = await self._store.rows(self._keys.index("writer", user))
        theirs = {tag for tag in (*private.values(), *shared.values()) if tag}
        asked = theirs | await self._decisions.asked_by(user)
        await self._journal.forget(user, asked)
        if self._semantic is not None:
            await self._semantic.feed.forget_texts(asked)
        await AuditLog(self._store, self._keys.own(AUDIT)).forget(partial(self._shown, asked))
        verdicts = verdict_log(self._store, self._keys.own(LOG))
        found.counts["verdicts"] = await verdicts.remove_where(lambda item: item.user == user)
        # Last, because the decisions list the user's messages.
        found.counts["decisions"] = await self._decisions.forget_user(user, theirs)

    def _shown(self, asked: Collection[str], target: str) -> str:
        """Return the target of an invalidation without the text of one of the user's messages."""
        text, of, whose = target.rpartition(OF_USER)
        tag = self._keys.tag(text if of else target)
        return f"message {tag[:12]}{of}{whose if of else ''}" if tag in asked else target

    async def _private(self, user: str, found: Forgotten) -> None:
        index = self._keys.index("user", user)
        names = await self._store.rows(index)
        entries = [name for name, tag in names.items() if tag and self._keys.names_entry(name)]
        others = [name for name, tag in names.items() if not tag and self._keys.owns(name)]
        ballots = [name for name in others if Keys.is_votes(name)]
        found.counts["private entries"] = await self._delete(entries)
        for name in ballots:
            found.counts["votes"] += await self._store.delete_rows(name, [user])
            if await self._promotion.has_fallen(name, self._enough()):
                found.fallen.append(promotion_label(self._keys, name))
        for name in others:
            if Keys.is_vectors(name):
                found.counts["vectors"] += len(await self._store.row_names(name))
        markers = [name for name in others if Keys.is_marker(name)]
        await self._entries.delete_markers(markers, user)
        await self._delete([name for name in others if name not in {*ballots, *markers}])
        await self._store.delete_rows(self._keys.own(PARTITIONS + self._keys.model), list(names))
        for name in entries:
            await self._store.delete_rows(self._keys.index("message", names[name]), [name])
        # Not the whole index: entries put meanwhile must be found next time.
        await self._store.delete_rows(index, list(names))

    async def _shared(self, user: str, mark: str, found: Forgotten) -> None:
        """Erase the user's shared answers, except those that others have replaced."""
        listed = await self._entries.set_apart(self._keys.index("writer", user), mark)
        rows = {Keys.listed_by(row): tag for row, tag in listed.items()}
        names = {name: tag for name, tag in rows.items() if self._keys.names_entry(name)}
        replaced: set[str] = set()
        for batch in batched(list(names), _VALUES):
            values = await self._store.read(batch)
            theirs = {
                name: envelope.may_be_by(value, user)
                for name, value in zip(batch, values, strict=True)
                if value is not None
            }
            replaced |= {Keys.beside_in_l2(name) for name, own in theirs.items() if not own}
            found.counts["shared entries"] += await self._delete([n for n in theirs if theirs[n]])
        indexed = {name: tag for name, tag in names.items() if self._keys.is_entry(name, "l2")}
        found.indexed = sorted(set(indexed.values()))
        found.served = sorted({tag for name, tag in indexed.items() if name not in replaced})
        found.listed = list(listed)

    async def _delete(self, names: Sequence[str]) -> int:
        removed = 0
        for batch in batched(names, _BATCH):
            removed += await self._store.delete(batch)
        return removed
