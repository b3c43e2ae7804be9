"""Moves stored answers to the embedding model in use: `glasscache reembed`."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple, TypeAlias, TypeVar, get_args

from cache_core.backends.base import KeyValueStore, Row, RowWrite
from cache_core.config.lifetimes import kept_seconds
from cache_core.config.tuning import Tuning
from cache_core.model import envelope
from cache_core.model.batches import batched
from cache_core.model.exceptions import BackendError, InputTooLongError
from cache_core.model.keys import Keys
from cache_core.model.values import Entry, Generation, Query, Scope
from cache_core.tiers.denylist import Denylist
from cache_core.tiers.guards.language import readable
from cache_core.tiers.journal import Journal
from cache_core.tiers.semantic.former import Former, FormerAnswers
from cache_core.tiers.semantic.private_vectors import KEPT_VECTORS
from cache_core.tiers.semantic.tier import SemanticTier
from cache_core.tiers.semantic.vectors import Vectors

Fate: TypeAlias = Literal[
    "moved", "present", "expired", "invalidated", "erased", "locked", "damaged", "unsuited", "full",
    "uncertain", "failed",
]  # fmt: skip
"""Fate of a stored answer; all but `moved` and `failed` need no other attempt.

`present` has a vector of this model already. `locked` is encrypted with a key that this process
lacks, `damaged` has no readable question. `unsuited` is a question that this model does not read.
`full`: its user has enough newer ones. `uncertain` was put so long ago that the record of
invalidations no longer reaches back to it, or was shared by a user who has been erased since.
"""

Result = TypeVar("Result")

_TOGETHER = 16
_ATTEMPTS = 3
_PAUSE_SECONDS = 0.5


class _Judged(NamedTuple):
    """An answer that may be moved."""

    item: Former
    entry: Entry
    query: Query


class Reembedding:
    """Makes vectors of the model in use for answers that have those of other models.

    An answer keeps its text, owner, context, age and TTL, and all that invalidates it: its envelope
    is not changed. Vectors of the other models stay for the replicas that use them. It may be
    stopped anywhere and run again: what is moved already is recognised.

    Args:
        store: Holds generations and private answers.
        keys: Their names.
        journal: Record of invalidations that an answer may have missed.
        denylist: Denylist of entries not to move.
        former: The answers.
        tier: L2, which stores their vectors.
        vectors: The model in use.
    """

    def __init__(
        self,
        store: KeyValueStore,
        keys: Keys,
        journal: Journal,
        denylist: Denylist,
        former: FormerAnswers,
        tier: SemanticTier,
        vectors: Vectors,
    ) -> None:
        self._store = store
        self._keys = keys
        self._journal = journal
        self._denylist = denylist
        self._former = former
        self._tier = tier
        self._vectors = vectors

    async def run(
        self,
        tuning: Tuning,
        *,
        dry_run: bool = False,
        rate: float | None = None,
        progress: Callable[[int], None] = lambda _: None,
    ) -> dict[Fate, int]:
        """Move all answers; return how many had which fate.

        Args:
            tuning: For TTLs and guards.
            dry_run: Only count; `moved` is then what would be.
            rate: Most answers embedded per second; `None` for no limit.
            progress: Called with the number of answers done since the last call.

        Raises:
            BackendError: If the store or the index cannot be read.
        """
        fates: Counter[Fate] = Counter()
        pace = _Pace(rate)
        await self._former.models.renew()
        async for page in self._former.shared():
            for batch in batched(page, _TOGETHER):
                done = await self._shared(batch, tuning, dry_run=dry_run)
                fates.update(done)
                progress(len(done))
                await pace.after(done.count("moved"), dry_run=dry_run)
        async for page in self._former.private():
            for batch in await self._room(page, fates):
                done = await self._private(batch, tuning, dry_run=dry_run)
                fates.update(done)
                progress(len(done))
                await pace.after(done.count("moved"), dry_run=dry_run)
        if not dry_run:
            await self._tier.tend()
        return {fate: fates[fate] for fate in get_args(Fate)}

    async def _shared(
        self, batch: Sequence[Former], tuning: Tuning, *, dry_run: bool
    ) -> list[Fate]:
        index, present = self._vectors.index, set[tuple[str, str]]()
        for context in {item.context for item in batch}:
            tags = [item.tag for item in batch if item.context == context]
            texts = await _patiently(partial(index.texts, context, tags))
            # A damaged row has no text, and is replaced.
            present |= {(context, tag) for tag, text in texts.items() if text}

        async def fate(item: Former) -> Fate:
            if (item.context, item.tag) in present:
                return "present"
            judged = await self._judged(item, tuning)
            if not isinstance(judged, _Judged) or dry_run:
                return judged if isinstance(judged, str) else "moved"
            return await self._attempts(judged, tuning, self._move_shared)

        done = list(await asyncio.gather(*map(fate, batch)))
        if "moved" in done and not dry_run:
            # Written before more is read: an index buffers only so many rows.
            await _patiently(lambda: index.tend(self._store.now()))
        return done

    async def _room(self, page: Sequence[Former], fates: Counter[Fate]) -> list[Sequence[Former]]:
        """Return the answers of one user and context for which there is room, in batches."""
        if not page:
            return []
        key = self._keys.vectors(page[0].scope, page[0].context)
        there = set(await self._store.row_names(key))
        waiting = [item for item in page if item.tag not in there]
        fates["present"] += len(page) - len(waiting)
        room = max(0, KEPT_VECTORS - len(there))
        fates["full"] += max(0, len(waiting) - room)
        return list(batched(waiting[len(waiting) - room :] if room else [], _TOGETHER))

    async def _private(
        self, batch: Sequence[Former], tuning: Tuning, *, dry_run: bool
    ) -> list[Fate]:
        fates: list[Fate] = []
        # One after the other: the newest of a user are kept.
        for item in batch:
            judged = await self._judged(item, tuning)
            if not isinstance(judged, _Judged) or dry_run:
                fates.append(judged if isinstance(judged, str) else "moved")
            else:
                fates.append(await self._attempts(judged, tuning, self._move_private))
        return fates

    async def _judged(self, item: Former, tuning: Tuning) -> _Judged | Fate:
        """Return an answer that may be moved, or why it may not."""
        if item.text is None:
            return "erased"
        keys, private = self._keys, item.scope != self._keys.shared
        key = keys.similar_entry(item.tag, item.scope, item.context)
        try:
            entry = envelope.decode(item.text, key, (item.scope,), keys.sealer)
        except envelope.LockedError:
            return "locked"
        except (envelope.CorruptError, envelope.ForeignError):
            return "damaged"
        if not entry.message or entry.response is None:
            return "damaged"
        now = self._store.now()
        if envelope.age(entry, now) >= kept_seconds(entry, "l2", tuning):
            return "expired"
        stamp = await self._stamp(item, entry)
        if stamp == "uncertain" or self._denylist.outdated(entry):
            return "uncertain" if stamp == "uncertain" else "invalidated"
        why = envelope.judge(entry, stamp, now, tuning.ttl("l2", entry.intent))
        if why is not None:
            return "invalidated" if why == "invalidated" else "expired"
        embedder = self._vectors.embedder
        if not (
            readable(entry.message, tuning.guards)
            and embedder.fits(entry.message)
            and embedder.knows(entry.message)
        ):
            return "unsuited"
        # A shared answer is arriving as one of its writer, whose erasure finds it.
        user = item.scope if private else entry.writer or None
        query = Query(entry.message, item.tag, user, keys.shared, item.context, "", "")
        return _Judged(item, entry, query)

    async def _stamp(self, item: Former, entry: Entry) -> str | None:
        """Return the stamp that the answer needs; `uncertain` if its writer may be erased."""
        keys, private = self._keys, item.scope != self._keys.shared
        names = [keys.generation(item.tag)]
        if private:
            names += [keys.own_generation(item.tag, item.scope), keys.user_generation(item.scope)]
        elif entry.writer:
            names.append(keys.user_generation(entry.writer))
        tokens = list(await self._store.read(names))
        if private:
            return Generation(*tokens).stamp("user")
        # The row does not say under which token of its writer it was put.
        return "uncertain" if any(tokens[1:]) else tokens[0]

    async def _attempts(
        self, judged: _Judged, tuning: Tuning, move: Callable[[_Judged, Tuning], Awaitable[Fate]]
    ) -> Fate:
        try:
            return await _patiently(lambda: move(judged, tuning))
        except InputTooLongError:
            return "unsuited"
        except BackendError:
            return "failed"

    async def _move_shared(self, judged: _Judged, tuning: Tuning) -> Fate:
        item, entry, query = judged
        similar, life = self._tier.similar, kept_seconds(entry, "l2", tuning)
        arrival = await similar.arrival(query, "shared", tuning, life)
        if not arrival:
            return "full"
        # An invalidation from now on finds it; an earlier one is found here.
        await self._store.put_rows(arrival)
        if (fate := await self._missed(judged, tuning)) is not None:
            await similar.forget_arriving([item.tag], entry.writer)
            return fate
        vector = await self._vectors.embed(query.text, recorded=False)
        row = Row(item.tag, vector, item.text or "", item.dropped)
        return "full" if await self._tier.rows.add(item.context, row, None, entry) else "moved"

    async def _move_private(self, judged: _Judged, tuning: Tuning) -> Fate:
        item, entry, query = judged
        left = kept_seconds(entry, "l2", tuning) - envelope.age(entry, self._store.now())
        key = self._keys.vectors(item.scope, item.context)
        index = self._keys.index("user", item.scope)
        rows = await self._tier.similar.arrival(query, "user", tuning, left)
        # The user's list first, so that an erasure finds the vector.
        await self._store.put_rows([RowWrite(index, {key: ""}, left, longest=True), *rows])
        fate = await self._missed(judged, tuning)
        if fate is None and await self._stamp(item, entry) == entry.generation:
            return "moved"
        await self._store.delete_rows(key, [item.tag])
        return fate or "invalidated"

    async def _missed(self, judged: _Judged, tuning: Tuning) -> Fate | None:
        """Return a fate if an invalidation of a similar question may have missed the answer.

        It searched the vectors of the model in use, where this answer had none.
        """
        item, entry, query = judged
        recent, _ = await self._journal.since(entry.known)
        if recent is None:
            return "uncertain"
        scope: Scope = "shared" if item.scope == self._keys.shared else "user"
        if self._denylist.outdated(entry) or await self._tier.similar.overtaken(
            query, entry.intent, scope, recent, tuning
        ):
            return "invalidated"
        return None


async def _patiently(work: Callable[[], Awaitable[Result]]) -> Result:
    """Return the result of *work*, which is tried three times: no lookup waits for it."""
    for attempt in range(_ATTEMPTS - 1):
        try:
            return await work()
        except InputTooLongError:
            raise
        except BackendError:
            await asyncio.sleep(_PAUSE_SECONDS * 2**attempt)
    return await work()


class _Pace:
    """Limit on what is embedded per second.

    Args:
        rate: Texts per second; `None` for no limit.
    """

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._next = time.monotonic()

    async def after(self, texts: int, *, dry_run: bool) -> None:
        """Wait until more may be embedded."""
        if self._rate is None or not texts or dry_run:
            return
        self._next = max(self._next, time.monotonic() - 1) + texts / self._rate
        await asyncio.sleep(max(0.0, self._next - time.monotonic()))
