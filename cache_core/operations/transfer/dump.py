"""Reads all live entries of a cache, for a file."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Mapping,
    Sequence,
)
from typing import Literal, NamedTuple, TypeAlias, get_args

from cache_core.backends.base import KeyValueStore, Write
from cache_core.config.tuning import Tuning
from cache_core.model import envelope
from cache_core.model.batches import batched
from cache_core.model.document_ids import ids_of
from cache_core.model.documents import restored
from cache_core.model.generations import token
from cache_core.model.keys import Keys, Place
from cache_core.model.question.contexts import FixedContext, read_context
from cache_core.model.values import Context, Entry, Generation, Query, Where
from cache_core.operations.changes import answer_label
from cache_core.operations.promotion import promotion_label
from cache_core.operations.transfer.lines import VERSION, Header, Line, identity, names_of
from cache_core.tiers.denylist import Denylist
from cache_core.tiers.journal import Journal

Left: TypeAlias = Literal["dumped", "private", "expired", "invalidated", "locked", "damaged"]
"""Fate of an entry: all but `dumped` are left out.

`private` is a user's own. `locked` is encrypted with a key that this process lacks.
"""

SharedTexts: TypeAlias = Callable[[str, Sequence[str]], Awaitable[Mapping[str, str]]]
"""Returns the envelopes that the vector index has of messages in a context, by their tags."""

_TOGETHER = 50


class Known(NamedTuple):
    """Texts that the caller knows, of which the cache has only digests."""

    contexts: Sequence[FixedContext] = ()
    tags: Sequence[str] = ()

    @classmethod
    def of(cls, contexts: Iterable[Context] = (), tags: Iterable[str] = ()) -> Known:
        """Return contexts as they were passed to lookups, and tags."""
        texts = [text for context in contexts if (text := read_context(context)) is not None]
        return cls(texts, tuple(tags))


NOTHING_KNOWN = Known()


class _Found(NamedTuple):
    """A live entry with its key, and the tokens of its message and user."""

    place: Place
    entry: Entry
    tokens: Generation


class Dumping:
    """Reads entries, those of one message together.

    Args:
        store: Store of the entries.
        keys: Their names.
        journal: Gives the position up to which invalidations are known.
        denylist: Denylist of entries not to dump.
        shared_texts: Reads the vector index; `None` where the store has its envelopes.
    """

    def __init__(
        self,
        store: KeyValueStore,
        keys: Keys,
        journal: Journal,
        denylist: Denylist,
        shared_texts: SharedTexts | None,
    ) -> None:
        self._store = store
        self._keys = keys
        self._journal = journal
        self._denylist = denylist
        self._shared_texts = shared_texts
        self.counts: Counter[Left] = Counter()

    async def header(self, known: Known, *, private: bool) -> Header:
        """Return the first line; entries read later belong to it.

        Raises:
            BackendError: If the store is unavailable.
        """
        await self._journal.catch_up()
        keys = self._keys
        return Header(
            VERSION, keys.namespace, identity(keys), await store_id(self._store, keys),
            self._journal.position, self._store.now(), private,
            {context_digest(keys, context): context for context in known.contexts}, token("d"),
        )  # fmt: skip

    async def lines(
        self, tuning: Tuning, known: Known, *, private: bool
    ) -> AsyncIterator[Sequence[Line]]:
        """Yield the entries, those of some messages at a time.

        Args:
            tuning: For the TTLs.
            known: Texts for digests.
            private: Whether the users' own are among them.

        Raises:
            BackendError: If the store or the index cannot be read.
        """
        label = self._keys.label
        named = {label("tag", tag): tag for tag in known.tags}
        async for tags in self._tags():
            found = await self._found(tags, tuning, private=private)
            pages = [[item for item in found if item.place.tag == tag] for tag in tags]
            lines = [line for page in pages for line in self._lines(page, tuning, named)]
            self.counts["dumped"] += len(lines)
            yield lines

    async def _tags(self) -> AsyncIterator[Sequence[str]]:
        """Yield the tags of all messages, each once."""
        begin, end = self._keys.index_of_messages()
        seen: set[str] = set()
        cursor = ""
        while True:
            names, cursor = await self._store.hashes(begin, end, cursor)
            tags = [name[len(begin) : -len(end)] for name in names]
            fresh = [tag for tag in dict.fromkeys(tags) if tag not in seen]
            seen.update(fresh)
            for batch in batched(fresh, _TOGETHER):
                yield batch
            if not cursor:
                return

    async def _found(self, tags: Sequence[str], tuning: Tuning, *, private: bool) -> list[_Found]:
        store, keys = self._store, self._keys
        indexes = [keys.index("message", tag) for tag in tags]
        listed = await asyncio.gather(*(store.row_names(name) for name in indexes))
        names = [
            name
            for tag, rows in zip(tags, listed, strict=True)
            for name in rows
            if keys.names_entry(name) and keys.place(name).tag == tag
        ]
        texts = dict(zip(names, await store.read(names), strict=True))
        await self._add_shared(texts)
        found: list[_Found] = []
        for name, text in texts.items():
            place = keys.place(name)
            entry = None if text is None else self._decoded(name, text, place, private=private)
            if entry is not None:
                found.append(_Found(place, entry, Generation(None)))
        return await self._live(found, tuning)

    async def _add_shared(self, texts: dict[str, str | None]) -> None:
        """Add the envelopes that only the vector index has."""
        if self._shared_texts is None:
            return
        wanted: dict[str, dict[str, str]] = {}
        for name in texts:
            place = self._keys.place(name)
            if place.level == "l2" and place.scope == self._keys.shared:
                wanted.setdefault(place.context, {})[place.tag] = name
        for context, names in wanted.items():
            for tag, text in (await self._shared_texts(context, list(names))).items():
                texts[names[tag]] = text or None

    def _decoded(self, name: str, text: str, place: Place, *, private: bool) -> Entry | None:
        if place.scope != self._keys.shared and not private:
            self.counts["private"] += 1
            return None
        try:
            entry = envelope.decode(text, name, (place.scope,), self._keys.sealer)
        except envelope.LockedError:
            self.counts["locked"] += 1
            return None
        except (envelope.CorruptError, envelope.ForeignError):
            self.counts["damaged"] += 1
            return None
        # The put of what was left out may come again with it.
        return None if entry.left_out else entry

    async def _live(self, found: Sequence[_Found], tuning: Tuning) -> list[_Found]:
        """Return the entries that a lookup would serve now, with their tokens."""
        keys = self._keys
        names: dict[str, None] = {}
        for item in found:
            names.update(dict.fromkeys(self._tokens_of(item)))
        tokens = dict(zip(names, await self._store.read(list(names)), strict=True))
        await self._journal.catch_up()
        now, live = self._store.now(), list[_Found]()
        for item in found:
            entry = item.entry
            generation = Generation(*(tokens[name] for name in self._tokens_of(item)))
            shared = item.place.scope == keys.shared
            stamp = generation.stamp("shared" if shared else "user")
            why = envelope.judge(entry, stamp, now, tuning.ttl(item.place.level, entry.intent))
            if why == "invalidated" or self._denylist.outdated(entry):
                self.counts["invalidated"] += 1
            elif why is not None:
                self.counts["expired"] += 1
            else:
                live.append(item._replace(tokens=generation))
        return live

    def _tokens_of(self, item: _Found) -> list[str]:
        keys, place = self._keys, item.place
        user = item.entry.writer if place.scope == keys.shared else place.scope
        names = [keys.generation(place.tag)]
        if user:
            names += [keys.own_generation(place.tag, user), keys.user_generation(user)]
        return names

    def _lines(
        self, found: Sequence[_Found], tuning: Tuning, tags: Mapping[str, str]
    ) -> list[Line]:
        """Return the entries of one message; what one of them knows is said in all."""
        keys = self._keys
        documents: dict[str, str] = {}
        messages: dict[tuple[str, str], str] = {}
        for place, entry, _ in found:
            documents |= {keys.label("document", name): name for name in _document_ids(entry)}
            if entry.message and keys.tag(entry.message) == place.tag:
                messages[place.scope, keys.names(entry.message)[1]] = entry.message
        return [self._line(item, messages, documents, tags, tuning) for item in found]

    def _line(
        self,
        item: _Found,
        messages: Mapping[tuple[str, str], str],
        documents: Mapping[str, str],
        tags: Mapping[str, str],
        tuning: Tuning,
    ) -> Line:
        keys, (place, entry, tokens) = self._keys, item
        shared = place.scope == keys.shared
        exact = place.exact or (keys.names(entry.message)[1] if entry.message else "")
        # A user's own question does not go with what is for everybody.
        message = messages.get((keys.shared, exact))
        if message is None and not shared:
            message = messages.get((place.scope, exact))
        user = entry.writer if shared else place.scope
        asked = Query(message or "", place.tag, user or None, keys.shared, place.context, "", exact)
        promoted = promotion_label(keys, keys.votes(asked))
        derived = {user, answer_label(keys, asked, entry), promoted}
        labels = [label for label in entry.labels if label not in derived]
        ids, labels = names_of(labels, documents)
        names, labels = names_of(labels, tags)
        return Line(
            level=place.level, scope="shared" if shared else "user", message=message,
            response=entry.response, intent=entry.intent,
            documents=None if entry.rag_results is None else list(entry.rag_results),
            tags=names, document_ids=ids, created=entry.created,
            life=entry.life(tuning.ttl(place.level, entry.intent)), ttl=entry.ttl,
            until=entry.until, cost_usd=entry.cost_usd, by_policy=entry.by_policy,
            source=entry.source, context="" if place.context == keys.no_context else place.context,
            user=user, tag=place.tag, exact=exact, history=place.history, labels=labels,
            answer=entry.answer, tokens=(tokens.message, tokens.own, tokens.user),
            known=entry.known, tagged=entry.tagged, replica=entry.replica,
        )  # fmt: skip

    def result(self) -> dict[Left, int]:
        """Return the number of entries by what became of them."""
        return {left: self.counts[left] for left in get_args(Left)}


async def store_id(store: KeyValueStore, keys: Keys) -> str:
    """Return the random id of a namespace's store, by which its own dumps are recognised.

    Raises:
        BackendError: If the store is unavailable.
    """
    return await store.write_new(Write(keys.own("store"), token("s"), None))


def context_digest(keys: Keys, context: FixedContext) -> str:
    """Return the digest of a context."""
    return keys.query_in("-", None, Where(context=context)).context


def _document_ids(entry: Entry) -> Collection[str]:
    if not entry.rag_results:
        return ()
    try:
        return ids_of(restored(entry.rag_results) if entry.tagged else entry.rag_results)
    except ValueError:
        return ()
