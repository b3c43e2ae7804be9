"""The path of one put: a generation, the indexes, then every tier's part."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from cache_core.arguments import MAX_INTENT_CHARS
from cache_core.deadline import Deadline
from cache_core.exceptions import BackendError
from cache_core.instrumentation import CacheCall
from cache_core.intent_tuning import INTENT_PATTERN, MAX_TTL
from cache_core.keys import Keys
from cache_core.logs import RateLimited
from cache_core.models import Entry, Generation, Level, Query, Scope, Sighting
from cache_core.parts import Parts
from cache_core.promotion import Promotion
from cache_core.remedies import tell
from cache_core.settings import Settings
from cache_core.sharing import NewAnswer
from cache_core.stores.base import RowWrite, Write
from cache_core.tiers.keyed import KEPT
from cache_core.tuning import Tuning

log = RateLimited(logging.getLogger("glasscache"))

LIFE = KEPT * MAX_TTL + 86_400.0
"""Seconds that generation tokens and index records live: longer than any entry they speak of."""

_INDEXED = 100_000
"""Entries that an index of a document, tag or user remembers; the newest."""


def token(kind: str) -> str:
    """Return a new generation token: `p` when a put began it, `i` when an invalidation did."""
    return kind + secrets.token_hex(8)


class Writer:
    """Stores answers.

    Args:
        parts: Of the cache.
        settings: For the budgets and limits.
    """

    def __init__(self, parts: Parts, settings: Settings) -> None:
        self._parts = parts
        self._settings = settings
        self._promotion = Promotion(parts.store, parts.keys)

    async def put(
        self, query: Query, answer: NewAnswer, tuning: Tuning, seen: Sighting | None
    ) -> list[CacheCall]:
        """Store *answer* in every tier; return one finished call per tier.

        Args:
            query: The message it answers.
            answer: What to store.
            tuning: For the TTLs.
            seen: What the lookup before it saw; `None` if it is no result of a lookup, and so of
                the generation in force now.
        """
        levels = [level for level in answer.scopes if level in self._parts.tiers]
        known = _known(seen)
        try:
            async with Deadline(self._settings.put_budget):
                if seen is None:
                    await self._parts.recent.catch_up()
                position = self._parts.recent.position if seen is None else seen.position
                generation = await self._generation(query, seen)
                if generation is None:
                    return [_finished(level, "bypass", "invalidated") for level in levels]
                if answer.candidate:
                    answer = await self._promoted(query, answer, generation, tuning)
                entry = _stamped(answer.entry, self._parts.store.now(), query)
                records = self._index_records(query, answer, levels)
                waits = "l2" in levels and not query.history and not self._model_ready
                arrival, lost = await self._arrival(query, answer, levels)
                # Whoever invalidates it from now on finds it, or was before and is found here.
                await self._parts.store.put_rows([*records, *arrival])
                read_to = await self._held(query, answer, levels, position, known, tuning)
                if read_to is None:
                    await self._leave_nothing_forgotten(query, answer, levels, generation)
                    return [_finished(level, "bypass", "invalidated") for level in levels]
                labels = tuple(label for _, label in self._labels(query, answer))
                entry = entry._replace(known=read_to, labels=labels)
                later = position if waits else None
                stored = await asyncio.gather(
                    *(self._put(level, query, entry, generation, answer, tuning, later)
                      for level in levels if level not in lost)
                )  # fmt: skip
                stored += lost.values()
                await self._leave_nothing_forgotten(query, answer, levels, generation)
                return list(stored)
        except (TimeoutError, BackendError) as error:
            reason = error.reason if isinstance(error, BackendError) else "timeout"
            if isinstance(error, BackendError):
                tell("an answer could not be stored and was dropped", error)
            else:
                log.limited("put", "an answer could not be stored in time and was dropped")
            return [_finished(level, "dropped", reason) for level in levels]

    async def _promoted(
        self, query: Query, answer: NewAnswer, generation: Generation, tuning: Tuning
    ) -> NewAnswer:
        """Return *answer* for everybody, if this is the user by whom enough got it; else as it is.

        The vote can be found by its user before it is there.
        """
        keys, store = self._parts.keys, self._parts.store
        index = keys.index("user", query.user or "")
        await store.put_rows([RowWrite(index, self._promotion.index_rows(query), LIFE, _INDEXED)])
        response = answer.entry.response or ""
        if not await self._promotion.vote(query, response, generation.message or "", tuning):
            return answer
        # Their own older answer would be found before it.
        levels: tuple[Level, ...] = ("l1",) if query.history else ("l1", "l2")
        own = entry_names(keys, query, {"l1": "user", "l2": "user"}, levels)
        await store.delete(list(own))
        scopes: dict[Level, Scope] = {**answer.scopes, "l1": "shared", "l2": "shared"}
        return replace(
            answer,
            entry=answer.entry._replace(source="promotion"),
            scopes=scopes,
            by_policy=("l1", "l2"),
        )

    async def _generation(self, query: Query, seen: Sighting | None) -> Generation | None:
        """Return the generation in force, or `None` if *seen* was invalidated since."""
        store = self._parts.store
        message, *others = self._parts.keys.generations(query)
        tokens: list[str | None] = [await store.write_new(Write(message, token("p"), LIFE))]
        if others:
            tokens += await store.read(others)
            # A token must outlive the entries that carry it.
            for place, name in enumerate(others, 1):
                if (held := tokens[place]) is not None:
                    tokens[place] = await store.write_new(Write(name, held, LIFE))
        current = Generation(*tokens)
        return current if seen is None or _goes_on(seen, current, query.user) else None

    @property
    def _model_ready(self) -> bool:
        return self._parts.semantic is None or self._parts.semantic.embedder.ready

    async def _arrival(
        self, query: Query, answer: NewAnswer, levels: Sequence[Level]
    ) -> tuple[list[RowWrite], dict[Level, CacheCall]]:
        """Return the rows that make the question known to L2's invalidations.

        Without them nothing is stored in L2: the second result is its finished call then.
        """
        if "l2" not in levels or self._parts.semantic is None:
            return [], {}
        try:
            # The other tiers' parts are stored even if the embedder does not answer.
            async with Deadline(self._settings.put_budget / 2):
                return await self._parts.semantic.similar.arrival(query, answer.scopes["l2"]), {}
        except (TimeoutError, BackendError) as error:
            failure = error if isinstance(error, BackendError) else BackendError("timeout")
        tell("l2: an answer could not be stored and was dropped", failure)
        return [], {"l2": _finished("l2", "dropped", failure.reason)}

    async def _held(
        self,
        query: Query,
        answer: NewAnswer,
        levels: Sequence[Level],
        position: str,
        known: Collection[str | None],
        tuning: Tuning,
    ) -> str | None:
        """Return up to where invalidations were read; `None` if one since *position* concerns it.

        That is one of a label of the answer, or of a message for which L2 would serve it.

        Args:
            query: The message.
            answer: To it.
            levels: That store it.
            position: Up to where invalidations were known before it was computed.
            known: Tokens of those that do not hold against it.
            tuning: For thresholds and guards.
        """
        found, read_to = await self._parts.recent.since(position)
        if found is None:
            return None
        others = [item for item in found if item.token not in known]
        labels = {label for _, label in self._labels(query, answer)}
        if any(not labels.isdisjoint(item.labels) for item in others):
            return None
        semantic = self._parts.semantic
        if semantic is None or "l2" not in levels or query.history:
            return read_to
        overtaken = await semantic.similar.overtaken(
            query, answer.entry.intent, answer.scopes["l2"], others, tuning
        )
        return None if overtaken else read_to

    async def _leave_nothing_forgotten(
        self, query: Query, answer: NewAnswer, levels: Sequence[Level], generation: Generation
    ) -> None:
        """Erase what was stored while its user was being forgotten.

        It would not be served. But whoever forgot them has read already what there is to erase.
        """
        if query.user is None:
            return
        store, keys = self._parts.store, self._parts.keys
        if (await store.read([keys.user_generation(query.user)]))[0] == generation.user:
            return
        names = list(entry_names(keys, query, answer.scopes, levels))
        await store.delete([*names, keys.marker(query)])
        await store.delete_rows(keys.vectors(query.user, query.context), [query.tag])
        if answer.scopes.get("l2") == "shared" and self._parts.semantic is not None:
            await self._parts.semantic.index.remove(query.context, [query.tag])

    def _index_records(
        self, query: Query, answer: NewAnswer, levels: Sequence[Level]
    ) -> list[RowWrite]:
        """Return the records by which the entries are found to be invalidated or forgotten.

        They are written before the entries: a crash between the two can leave a record of nothing,
        never an entry without a record.
        """
        keys = self._parts.keys
        names = entry_names(keys, query, answer.scopes, levels)
        records = [RowWrite(keys.index("message", query.tag), names, LIFE, _INDEXED)]
        private = {name: query.tag for name, scope in names.items() if scope == "user"}
        if private and query.user is not None:
            # Not entries, but of the user all the same.
            private[keys.vectors(query.user, query.context)] = ""
            private[keys.marker(query)] = ""
            records.append(RowWrite(keys.index("user", query.user), private, LIFE, _INDEXED))
        shared = {name: query.tag for name, scope in names.items() if scope == "shared"}
        for kind, label in self._labels(query, answer):
            rows = shared if kind == "writer" else {query.tag: ""}
            records.append(RowWrite(keys.index(kind, label), rows, LIFE, _INDEXED))
        return records

    def _labels(self, query: Query, answer: NewAnswer) -> list[tuple[str, str]]:
        """Return kind and digest of all that takes the answer with it when it is invalidated."""
        digest = self._parts.keys.label
        found = [("document", digest("document", item)) for item in answer.documents]
        found += [("tag", digest("tag", item)) for item in answer.tags]
        if query.user is not None and "shared" in answer.scopes.values():
            found.append(("writer", query.user))
        return found

    async def _put(
        self,
        level: Level,
        query: Query,
        entry: Entry,
        generation: Generation,
        answer: NewAnswer,
        tuning: Tuning,
        later: str | None,
    ) -> CacheCall:
        """Store one tier's part; with *later* L2 waits for its model, and is held from there on."""
        scope = answer.scopes[level]
        by_policy = level in answer.by_policy
        intent = entry.intent or ""
        if scope == "shared" and answer.scopes.get("l3") == "user":
            # A label that is private does not travel with an answer that is not.
            intent = intent if INTENT_PATTERN.fullmatch(intent) else ""
        entry = entry._replace(
            intent=intent or None,
            generation=generation.stamp(scope) or "",
            writer_token=generation.user,
            by_policy=by_policy,
            source=entry.source if by_policy or entry.source != "promotion" else "put",
        )
        semantic = self._parts.semantic
        try:
            if level == "l2" and later is not None and semantic is not None:
                # It has not made itself known, even if the model is there by now.
                why_not = semantic.tier.put_later(query, entry, scope, tuning, later)
            else:
                why_not = await self._parts.tiers[level].put(query, entry, scope, tuning)
        except BackendError as error:
            tell(f"{level}: an answer could not be stored and was dropped", error)
            return _finished(level, "dropped", error.reason)
        except Exception as error:  # noqa: BLE001 - the agent must not fail because of us
            log.limited("bug", "%s: unexpected %s: %s", level, type(error).__name__, error)
            return _finished(level, "dropped", "backend_error")
        if not why_not:
            said = "personal" if level in answer.withheld else ""
            return _finished(level, "stored", "promoted" if entry.source == "promotion" else said)
        outcomes = {"queued": "queued", "overloaded": "dropped"}
        return _finished(level, outcomes.get(why_not, "bypass"), why_not)

    def refused(self, answer: NewAnswer, reason: str) -> list[CacheCall]:
        """Return one finished call per tier, for an answer that is not stored."""
        levels = [level for level in answer.scopes if level in self._parts.tiers]
        return [_finished(level, "bypass", reason) for level in levels]

    def too_large(self, answer: NewAnswer) -> bool:
        """Whether an entry, or its intent, would exceed the largest value that is stored."""
        entry = answer.entry
        if len(entry.intent or "") > MAX_INTENT_CHARS:
            return True
        size = len((entry.response or "").encode("utf-8", "surrogatepass"))
        if entry.rag_results is not None:
            size = max(size, len(json.dumps(entry.rag_results)))
        return size > self._settings.max_value_bytes


def entry_names(
    keys: Keys, query: Query, scopes: Mapping[Level, Scope], levels: Sequence[Level]
) -> dict[str, str]:
    """Return the key of each tier's entry, with its scope."""
    return {
        keys.entry(
            level,
            query.tag,
            query.scope(scopes[level]),
            query.context,
            "" if level == "l2" else query.history,
        ): scopes[level]
        for level in levels
    }


def _goes_on(seen: Sighting, current: Generation, user: str | None) -> bool:
    """Whether what was computed under *seen* may be stored under *current*, for *user*."""
    before = seen.generation or Generation(None)

    def same(then: str | None, now: str | None) -> bool:
        return then == now or now in seen.known

    # What somebody else's lookup saw says nothing of this user's tokens.
    if seen.user == user and not (
        same(before.own, current.own) and same(before.user, current.user)
    ):
        return False
    if same(before.message, current.message):
        return True
    # Another put may have begun the generation meanwhile; an invalidation may not.
    return before.message is None and (current.message or "").startswith("p")


def _known(seen: Sighting | None) -> set[str | None]:
    """Return the tokens of the invalidations that what was seen came after."""
    return set() if seen is None else {*seen.known, *(seen.generation or ())}


def _stamped(entry: Entry, now: float, query: Query) -> Entry:
    return entry._replace(created=now, writer=query.user or "")


def _finished(level: Level, outcome: str, reason: str) -> CacheCall:
    return CacheCall("put", level, outcome, reason)
