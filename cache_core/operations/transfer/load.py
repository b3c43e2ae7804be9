"""Stores the entries of a dump."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Literal, NamedTuple, TypeAlias, get_args

from cache_core.backends.base import KeyValueStore
from cache_core.config.settings import Settings
from cache_core.config.tuning import Tuning
from cache_core.model import envelope
from cache_core.model.documents import Taken, restored
from cache_core.model.exceptions import BackendError
from cache_core.model.keys import Keys
from cache_core.model.values import Entry, Generation, Query, Sighting
from cache_core.operations.answers import What
from cache_core.operations.put.scopes import NewAnswer, looks_personal
from cache_core.operations.put.write import Writer
from cache_core.operations.transfer.dump import context_digest, store_id
from cache_core.operations.transfer.lines import (
    DamagedError,
    Header,
    Line,
    LockedLineError,
    UnsealedError,
    header,
    identity,
    line,
)
from cache_core.policy.cacheable import worthless
from cache_core.tiers.denylist import Denylist, place

Fate: TypeAlias = Literal[
    "loaded", "present", "expired", "invalidated", "unnamed", "rejected", "locked", "damaged",
    "failed",
]  # fmt: skip
"""Fate of a line; all but `loaded` and `failed` need no other attempt.

`present`: the cache has it already, or a newer one. `invalidated` was so since the dump. `unnamed`
has an owner, a question, a context, a history or a tag of which the file has only a digest, made
with another key. `rejected` is not stored by this version or these settings, or is not encrypted
and has to be. `locked` is sealed with a key that this process lacks.
"""

SharedText: TypeAlias = Callable[[Query], Awaitable[str | None]]
"""Returns the envelope that only the vector index has of a message."""

_TOGETHER = 16
_ATTEMPTS = 3
_PAUSE_SECONDS = 0.5


class Loaded(NamedTuple):
    """Result of loading a dump.

    Attributes:
        fates: Number of lines by what became of them.
        rejected: Number of rejected ones by reason.
        whole: Whether the file has its last line.
    """

    fates: Mapping[Fate, int]
    rejected: Mapping[str, int]
    whole: bool


class _Here(NamedTuple):
    """Common ground of this cache and that of the dump: their key, their names, or all."""

    key: bool
    names: bool
    store: bool


class Loading:
    """Stores entries with the time they have left, by the tuning of both caches.

    In the cache that they come from they count as computed when they were: what was invalidated
    since stays so. In another one they count as put now.

    Args:
        store: Store of the entries.
        keys: Their names.
        writer: Stores them.
        denylist: Denylist of entries not to serve.
        shared_text: Reads the vector index; `None` where the store has its envelopes.
        settings: For the tiers, limits and budgets.
    """

    def __init__(
        self,
        store: KeyValueStore,
        keys: Keys,
        writer: Writer,
        denylist: Denylist,
        shared_text: SharedText | None,
        settings: Settings,
    ) -> None:
        self._store = store
        self._keys = keys
        self._writer = writer
        self._denylist = denylist
        self._shared_text = shared_text
        self._settings = settings
        self._fates: Counter[Fate] = Counter()
        self._rejected: Counter[str] = Counter()

    async def run(
        self,
        lines: Iterable[str],
        tuning: Tuning,
        *,
        plain: bool = False,
        dry_run: bool = False,
        progress: Callable[[int], None] = lambda _: None,
    ) -> Loaded:
        """Load the lines of a dump.

        Args:
            lines: Of the file, the first one included.
            tuning: For the TTLs, guards and sharing.
            plain: Whether lines need not be encrypted although this cache has keys.
            dry_run: Only count; `loaded` is then what would be.
            progress: Called with the number of lines done since the last call.

        Raises:
            ValueError: If the first line is none of a dump, or not encrypted as it has to be.
            BackendError: If the store is unavailable.
        """
        rest = iter(lines)
        first = self._first(next(rest, ""), plain=plain)
        key = first.key == identity(self._keys)
        names = key and first.namespace == self._keys.namespace
        same = names and first.store == await store_id(self._store, self._keys)
        here, done, end = _Here(key, names, same), 0, -1
        while batch := list(islice(rest, _TOGETHER)):
            read = [self._parsed(text, first, plain=plain) for text in batch]
            parsed = [item for item in read if item is not None]
            ends = [item for item in parsed if isinstance(item, int)]
            entries = [item for item in parsed if isinstance(item, Line)]
            end = ends[-1] if ends else end
            done += len(batch) - len(ends)
            fates = await asyncio.gather(
                *(self._load(item, first, here, tuning, dry_run=dry_run) for item in entries)
            )
            self._fates.update(fates)
            progress(len(batch))
        counts = {fate: self._fates[fate] for fate in get_args(Fate)}
        return Loaded(counts, dict(self._rejected), whole=done == end)

    def _first(self, text: str, *, plain: bool) -> Header:
        try:
            return header(text, self._keys.sealer, plain=plain)
        except UnsealedError:
            raise ValueError(
                "it is not encrypted although CACHE_ENCRYPTION_KEYS is set, so anybody who may "
                "write the file can have changed it: if you trust it, load it with --plain "
                "(plain=True)"
            ) from None
        except LockedLineError:
            raise ValueError(
                "it is encrypted with a key that is not in CACHE_ENCRYPTION_KEYS here: add that key"
            ) from None
        except DamagedError:
            raise ValueError("the first line is none that this version's dump writes") from None

    def _parsed(self, text: str, first: Header, *, plain: bool) -> Line | int | None:
        try:
            return line(text, first, self._keys.sealer, plain=plain)
        except UnsealedError:
            self._fates["rejected"] += 1
            self._rejected["not_encrypted"] += 1
        except LockedLineError:
            self._fates["locked"] += 1
        except DamagedError:
            self._fates["damaged"] += 1
        return None

    async def _load(
        self, item: Line, first: Header, here: _Here, tuning: Tuning, *, dry_run: bool
    ) -> Fate:
        query = self._query(item, first, here)
        if query is None:
            return "unnamed"
        answer = self._answer(item, query, here, tuning)
        if answer is None:
            return "damaged"
        now = self._store.now()
        if now - item.created >= item.life or (item.until is not None and now >= item.until):
            return "expired"
        why = await self._why_not(item, query, answer.entry, tuning)
        if why:
            self._rejected[why] += 1
            return "rejected"
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                fate = await self._checked(item, query, here)
                if fate is not None or dry_run:
                    return fate or "loaded"
                seen = _sighting(item, query, first) if here.store else None
                fate = await self._stored(query, answer, tuning, seen)
            except BackendError:
                fate = "failed"
            if fate != "failed" or attempt == _ATTEMPTS:
                return fate
            await asyncio.sleep(_PAUSE_SECONDS * attempt)
        return "failed"

    def _query(self, item: Line, first: Header, here: _Here) -> Query | None:
        """Return the question; `None` if something of it is known by a foreign digest only."""
        keys, context = self._keys, item.context
        if not here.key:
            if item.history or item.labels or item.scope == "user":
                return None
            if context and context not in first.contexts:
                return None
            context = context and context_digest(keys, first.contexts[context])
        tag, exact = item.tag, item.exact
        if not here.names:
            if item.message is None:
                return None
            tag, exact = keys.names(item.message)
        user = item.user if here.key else ""
        if item.scope == "user" and not user:
            return None
        return Query(item.message or "", tag, user or None, keys.shared,
                     context or keys.no_context, item.history, exact)  # fmt: skip

    def _answer(self, item: Line, query: Query, here: _Here, tuning: Tuning) -> NewAnswer | None:
        """Return what to store; `None` for a line without its tier's part."""
        part = {"l1": item.response, "l2": item.response and item.message, "l3": item.intent,
                "l4": item.documents}[item.level]  # fmt: skip
        if part is None:
            return None
        if item.tagged:
            try:
                restored(item.documents or ())
            except ValueError:
                return None
        ttl = item.ttl
        if ttl is None and tuning.ttl(item.level, item.intent) > item.life and item.until is None:
            # The TTL here is longer, but no answer gets older by being moved.
            ttl = item.life
        entry = Entry(
            item.response, item.intent, item.documents, cost_usd=item.cost_usd,
            created=min(item.created, self._store.now()), ttl=ttl, source=item.source,
            replica=item.replica, tagged=item.tagged, until=item.until,
            answer=item.answer if here.key else "",
        )  # fmt: skip
        # Of which kind a digest is, is unknown; no other label has it.
        labels = [(kind, label) for label in item.labels for kind in ("document", "tag")]
        return NewAnswer(
            entry, {item.level: item.scope}, item.document_ids, item.tags, labels=labels,
            by_policy=(item.level,) if item.by_policy else (), restored=True,
        )  # fmt: skip

    async def _why_not(self, item: Line, query: Query, entry: Entry, tuning: Tuning) -> str:
        """Return why such an answer is not stored here; empty if it is."""
        if item.level not in self._settings.tiers:
            return "disabled"
        what = What(item.response, item.intent, Taken(item.documents, item.tagged))
        left_out = what.left_out(self._settings.max_value_bytes).get(item.level)
        if left_out is None and item.documents is not None:
            left_out = self._large(item.documents)
        if left_out or item.source == "warm":
            return left_out or ""
        if item.response is not None and (why := worthless(item.response)):
            return why
        checked = item.by_policy and item.scope == "shared" and tuning.personal == "refuse"
        return "personal" if checked and await looks_personal(query.text, entry) else ""

    def _large(self, documents: Sequence[object]) -> str:
        return "too_large" if len(str(documents)) > self._settings.max_value_bytes else ""

    async def _checked(self, item: Line, query: Query, here: _Here) -> Fate | None:
        """Return why it need not be stored, or must not; `None` if it is to be.

        Raises:
            BackendError: If the store is unavailable.
        """
        keys = self._keys
        names = keys.generations(query)
        key = keys.entry(item.level, query, query.scope(item.scope))
        *tokens, text = await self._store.read([*names, key])
        if text is None and item.level == "l2" and item.scope == "shared" and self._shared_text:
            text = await self._shared_text(query)
        generation = Generation(*tokens)
        if text is not None and self._is_newer(text, key, item, query, generation):
            return "present"
        if not here.store:
            return None
        known = Entry(known=item.known, labels=(*item.labels, *self._labels(item)))
        if self._denylist.outdated(known) or item.generation.invalidated != generation.invalidated:
            return "invalidated"
        return None

    def _is_newer(
        self, text: str, key: str, item: Line, query: Query, generation: Generation
    ) -> bool:
        """Return whether the entry that is there is live, and no older than *item*."""
        scope = query.scope(item.scope)
        try:
            entry = envelope.decode(text, key, (scope,), self._keys.sealer)
        except (envelope.CorruptError, envelope.ForeignError):
            return False
        live = entry.generation == generation.stamp(item.scope)
        return live and not self._denylist.outdated(entry) and entry.created >= item.created

    def _labels(self, item: Line) -> Iterable[str]:
        label = self._keys.label
        return [
            *(label("document", name) for name in item.document_ids),
            *(label("tag", name) for name in item.tags),
            *([item.user] if item.scope == "shared" else []),
        ]

    async def _stored(
        self, query: Query, answer: NewAnswer, tuning: Tuning, seen: Sighting | None
    ) -> Fate:
        seconds = self._settings.put_budget
        (record,) = await self._writer.put(query, answer, tuning, seen, seconds)
        if record.outcome in {"stored", "queued"}:
            return "loaded"
        if record.outcome == "dropped":
            return "failed"
        if record.reason == "invalidated":
            return "invalidated"
        self._rejected[record.reason] += 1
        return "rejected"


def _sighting(item: Line, query: Query, first: Header) -> Sighting:
    """Return what is known of invalidations up to when the entry was found live."""
    position = max(first.position, item.known, key=place)
    return Sighting(query.tag, query.user, item.generation, position, exact=query.exact)
