"""L1, L3 and L4: answers to this very message, under a key of its own per scope."""

from __future__ import annotations

import contextlib
import json
import logging
from dataclasses import dataclass, replace
from typing import Literal

from cache_core import envelope
from cache_core.exceptions import BackendError
from cache_core.keys import Keys
from cache_core.models import Entry, Hit, Level, Miss, MissReason, NotStored, Query, Scope
from cache_core.stores.base import KeyValueStore, Write
from cache_core.tuning import INTENT_PATTERN, Tuning

log = logging.getLogger("glasscache")

Part = Literal["response", "intent", "rag_results"]

KEPT = 2.0
"""An entry is kept for this many TTLs: so `expired` can be told from `cold`, raising a TTL has an
effect on what is stored, and a stale answer is possible."""

_TELLING: tuple[MissReason, ...] = ("corrupt", "expired", "invalidated", "other_scope")
"""Which reason counts when the scopes of a query give different ones: the first."""


@dataclass(frozen=True, slots=True)
class KeyedTier:
    """A tier whose entries are found by the message's digest.

    Args:
        level: Which tier this is.
        part: The field that makes an entry an answer of this tier.
        also: Fields that travel with it.
        marks: Whether a put leaves word for other users that an answer exists.
        store: Where entries live.
        keys: Names of the entries.
    """

    level: Level
    part: Part
    also: tuple[Literal["intent", "cost_usd"], ...]
    marks: bool
    store: KeyValueStore
    keys: Keys

    async def get(self, query: Query, tuning: Tuning) -> Hit | Miss:
        """Read the generation and this tier's entries of every readable scope in one round trip."""
        scopes = query.readable
        names = [
            self.keys.entry(self.level, query.tag, scope, query.context, query.history)
            for scope in scopes
        ]
        asked = [self.keys.generation(query.tag), *names]
        if self.marks:
            asked.append(self.keys.marker(query))
        values = await self.store.read(asked)
        generation = values[0]
        now = self.store.now()
        ttl = tuning.ttl(self.level)
        reasons: list[MissReason] = []
        for scope, name, value in zip(scopes, names, values[1:], strict=False):
            if value is None:
                continue
            try:
                entry = envelope.decode(value, name, scopes)
            except envelope.CorruptError:
                reasons.append("corrupt")
                await self._discard(name)
                continue
            except envelope.ForeignError:
                await self._discard(name)
                raise BackendError("isolation") from None
            if getattr(entry, self.part) is None:
                reasons.append("corrupt")
                continue
            reason = envelope.judge(entry, generation, now, ttl)
            if reason is None:
                whose: Scope = "user" if scope == query.user else "shared"
                return Hit(entry, whose, envelope.age(entry, now), matched=query.tag)
            reasons.append(reason)
        intent = self._marked(query, values[-1], generation, now, ttl) if self.marks else None
        if intent is not None:
            reasons.append("other_scope")
        cold: MissReason = "cold"
        telling = next((reason for reason in _TELLING if reason in reasons), cold)
        if telling != "other_scope":
            intent = None
        return Miss(telling, other_intent=intent or "", generation=generation)

    async def put(self, query: Query, entry: Entry, scope: Scope, tuning: Tuning) -> NotStored:
        """Store this tier's part of *entry*."""
        kept = (self.part, *self.also)
        part = replace(
            entry,
            scope=query.scope(scope),
            response=entry.response if "response" in kept else None,
            intent=entry.intent if "intent" in kept else None,
            rag_results=entry.rag_results if "rag_results" in kept else None,
            cost_usd=entry.cost_usd if "cost_usd" in kept else None,
        )
        name = self.keys.entry(self.level, query.tag, part.scope, query.context, query.history)
        ttl = KEPT * (tuning.ttl(self.level) if entry.ttl is None else entry.ttl)
        writes = [Write(name, envelope.encode(part, name), ttl)]
        if self.marks and scope == "user":
            intent = entry.intent if entry.intent and INTENT_PATTERN.fullmatch(entry.intent) else ""
            mark = [query.user, entry.generation, entry.created, entry.ttl, intent]
            writes.append(Write(self.keys.marker(query), json.dumps(mark), ttl))
        await self.store.write(writes)
        return ""

    def _marked(
        self, query: Query, value: str | None, generation: str | None, now: float, ttl: float
    ) -> str | None:
        """Return the intent of the answer that another user has, or `None` without one."""
        if value is None:
            return None
        try:
            user, token, created, own_ttl, intent = json.loads(value)
            entry = Entry(created=float(created), ttl=own_ttl, generation=token)
            live = envelope.judge(entry, generation, now, ttl) is None
        except (TypeError, ValueError, RecursionError):
            return None
        return str(intent) if live and user != query.user else None

    async def _discard(self, name: str) -> None:
        log.warning("%s: an entry could not be read and was deleted", self.level)
        with contextlib.suppress(BackendError):
            await self.store.delete([name])
