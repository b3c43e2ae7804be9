"""L1, L3 and L4: answers to this very message, under a key of its own per scope."""

from __future__ import annotations

import contextlib
import json
import logging
from dataclasses import dataclass, field
from typing import Literal

from cache_core import envelope
from cache_core.deadline import Deadline
from cache_core.exceptions import BackendError
from cache_core.intent_tuning import INTENT_PATTERN
from cache_core.keys import Keys
from cache_core.logs import RateLimited
from cache_core.models import (
    Entry,
    Generation,
    Hit,
    Level,
    Miss,
    MissReason,
    NotStored,
    Query,
    Scope,
)
from cache_core.stores.base import KeyValueStore, Write
from cache_core.tiers.base import tell_locked
from cache_core.tiers.decoding import Decoder
from cache_core.tuning import Tuning
from cache_core.vetoes import Vetoes

log = RateLimited(logging.getLogger("glasscache"))

DISCARD_SECONDS = 0.05
"""For deleting what cannot be read; what was not deleted in time is found again, never served."""

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
        vetoes: What must not be served, whatever its generation.
        decoder: Of the stored texts.
    """

    level: Level
    part: Part
    also: tuple[Literal["intent", "cost_usd"], ...]
    marks: bool
    store: KeyValueStore
    keys: Keys
    vetoes: Vetoes = field(default_factory=Vetoes)
    decoder: Decoder = field(default_factory=Decoder, repr=False, compare=False)

    async def get(self, query: Query, tuning: Tuning) -> Hit | Miss:
        """Read the generation and this tier's entries of every readable scope in one round trip."""
        asked = self.keys.generations(query)
        tokens = len(asked)
        asked += self.keys.entries(self.level, query)
        if self.marks:
            asked.append(self.keys.marker(query))
        values = await self.store.read(asked)
        generation = Generation(*values[:tokens])
        now = self.store.now()
        reasons: list[MissReason] = []
        expired_age: float | None = None
        withheld: str | None = None
        scopes = query.readable
        for scope, name, value in zip(scopes, asked[tokens:], values[tokens:], strict=False):
            if value is None:
                continue
            try:
                entry = self.decoder.decode(value, name, scopes, self.keys.sealer, now)
            except envelope.CorruptError as error:
                reasons.append("corrupt")
                await self._discard(name, error)
                continue
            except envelope.ForeignError:
                await self._discard(name)
                raise BackendError("isolation") from None
            if getattr(entry, self.part) is None:
                reasons.append("corrupt")
                continue
            whose: Scope = "user" if scope == query.user else "shared"
            vetoed = self.vetoes.forbid(query.tag, whose, query.user)
            vetoed = vetoed or self.vetoes.outdated(entry)
            ttl = tuning.ttl(self.level, entry.intent)
            grace = query.grace if self.part == "response" else 0.0
            stamp = None if vetoed else generation.stamp(whose)
            reason = envelope.judge(entry, stamp, now, ttl, grace)
            if reason is None and entry.by_policy and tuning.withholds(entry, query.user):
                reason, withheld = "other_scope", entry.intent or ""
            if reason is None:
                age = envelope.age(entry, now)
                ttl = ttl if entry.ttl is None else entry.ttl
                return Hit(entry, whose, age, ttl, None, query.tag, True, generation)
            reasons.append(reason)
            if reason == "expired":
                expired_age = envelope.age(entry, now)
        intent = None
        if self.marks:
            intent = self._marked(query, values[-1], generation.message, now, tuning)
        if intent is not None:
            reasons.append("other_scope")
        elif withheld is not None and INTENT_PATTERN.fullmatch(withheld):
            intent = withheld
        cold: MissReason = "cold"
        telling = next((reason for reason in _TELLING if reason in reasons), cold)
        if telling != "other_scope":
            intent = None
        return Miss(
            telling, other_intent=intent or "", generation=generation, expired_age=expired_age
        )

    async def put(self, query: Query, entry: Entry, scope: Scope, tuning: Tuning) -> NotStored:
        """Store this tier's part of *entry*."""
        kept = (self.part, *self.also)
        part = entry._replace(
            scope=query.scope(scope),
            response=entry.response if "response" in kept else None,
            intent=entry.intent if "intent" in kept else None,
            rag_results=entry.rag_results if "rag_results" in kept else None,
            cost_usd=entry.cost_usd if "cost_usd" in kept else None,
        )
        name = self.keys.entry(self.level, query.tag, part.scope, query.context, query.history)
        ttl = KEPT * (tuning.ttl(self.level, entry.intent) if entry.ttl is None else entry.ttl)
        writes = [Write(name, envelope.encode(part, name, self.keys.sealer), ttl)]
        if self.marks and scope == "user":
            intent = entry.intent if entry.intent and INTENT_PATTERN.fullmatch(entry.intent) else ""
            # Others don't know the tokens of its user: invalidating those deletes the mark.
            message = entry.generation.partition("/")[0]
            mark = [query.user, message, entry.created, entry.ttl, intent]
            writes.append(Write(self.keys.marker(query), json.dumps(mark), ttl))
        await self.store.write(writes)
        return ""

    def _marked(
        self,
        query: Query,
        value: str | None,
        generation: str | None,
        now: float,
        tuning: Tuning,
    ) -> str | None:
        """Return the intent of the answer that another user has, or `None` without one."""
        if value is None:
            return None
        try:
            user, token, created, own_ttl, intent = json.loads(value)
            entry = Entry(created=float(created), ttl=own_ttl, generation=token)
            ttl = tuning.ttl(self.level, intent)
            live = envelope.judge(entry, generation, now, ttl) is None
        except (TypeError, ValueError, OverflowError, RecursionError):
            return None
        if not isinstance(intent, str):
            return None
        return intent if live and user != query.user else None

    async def _discard(self, name: str, why: envelope.CorruptError | None = None) -> None:
        if isinstance(why, envelope.LockedError):
            # Whoever has the key still serves it.
            tell_locked()
            return
        log.limited("unreadable", "%s: an entry could not be read and was deleted", self.level)
        # A lookup waits for it, and its budget is for reading.
        with contextlib.suppress(BackendError, TimeoutError):
            async with Deadline(DISCARD_SECONDS):
                await self.store.delete([name])
