"""L1, L3 and L4: answers to exactly this message, with one key per scope."""

from __future__ import annotations

import contextlib
import json
import logging
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from cache_core.backends.base import Values, Write
from cache_core.backends.deadline import Deadline
from cache_core.config.intents import label_of
from cache_core.config.lifetimes import kept_seconds
from cache_core.config.tuning import Tuning
from cache_core.model import envelope
from cache_core.model.documents import restored
from cache_core.model.exceptions import BackendError
from cache_core.model.keys import Keys
from cache_core.model.logs import RateLimited
from cache_core.model.stored import Format, Number
from cache_core.model.values import (
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
from cache_core.tiers.base import tell_locked
from cache_core.tiers.decoding import Decoder
from cache_core.tiers.denylist import Denylist

log = RateLimited(logging.getLogger("glasscache"))

DISCARD_SECONDS = 0.05
"""Time limit for deleting an unreadable entry; if it fails, the entry is still never served."""

Part = Literal["response", "intent", "rag_results"]

_TELLING: tuple[MissReason, ...] = (
    "corrupt", "left_out", "too_old", "day_over", "expired", "invalidated", "other_scope",
)  # fmt: skip
"""Order of precedence of the reasons when the scopes of a query give different ones."""


class Mark(NamedTuple):
    """Notice to other users that one user has an answer of their own.

    Attributes:
        user: The user's digest.
        generation: The message's generation at the put.
        created: The store's time of the put, in seconds since the epoch.
        ttl: The answer's own TTL, in seconds.
        intent: An intent label; empty unless every user may read it.
    """

    user: str | None
    generation: str
    created: Number
    ttl: Number | None
    intent: str


_MARK = Format(Mark)


def may_mark(value: str | None, user: str) -> bool:
    """Return whether a stored mark may be of *user*: not if it is readable and another's."""
    if value is None:
        return False
    mark = _MARK.parse(value)
    return mark is None or mark.user == user


@dataclass(frozen=True, slots=True)
class KeyedTier:
    """Tier whose entries are found by the message's digest.

    Args:
        level: Level of the tier.
        part: The field that makes an entry an answer of this tier.
        also: Fields stored with it.
        marks: Whether a put leaves a `Mark` for other users.
        beside: Whether a lookup asks other tiers in the same turn of the event loop.
        store: Store of the entries.
        keys: Names of the entries.
        denylist: Denylist of entries not to serve, whatever their generation.
        decoder: Decodes stored texts.
    """

    level: Level
    part: Part
    also: tuple[Literal["intent", "cost_usd"], ...]
    marks: bool = field(kw_only=True)
    beside: bool = field(default=False, kw_only=True)
    store: Values
    keys: Keys
    denylist: Denylist = field(default_factory=Denylist)
    decoder: Decoder = field(default_factory=Decoder, repr=False, compare=False)

    async def get(self, query: Query, tuning: Tuning) -> Hit | Miss:
        """Read the generation and this tier's entries of every readable scope in one round trip."""
        asked = self.keys.generations(query)
        tokens = len(asked)
        asked += self.keys.entries(self.level, query)
        if self.marks:
            asked.append(self.keys.marker(query))
        held = self.denylist.held()
        values = await self.store.read(asked, beside=self.beside)
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
                if entry.tagged:
                    entry = _untagged(entry)
            except envelope.CorruptError as error:
                reasons.append("corrupt")
                await self._discard(name, error)
                continue
            except envelope.ForeignError:
                await self._discard(name)
                raise BackendError("isolation") from None
            if getattr(entry, self.part) is None and not entry.left_out:
                reasons.append("corrupt")
                continue
            whose: Scope = "user" if scope == query.user else "shared"
            denied = self.denylist.denies(entry, query.tag, whose, query.user)
            if held is not None and not denied:
                denied = held.denies(entry, query.tag, whose, query.user)
            ttl = tuning.ttl(self.level, entry.intent)
            grace = query.grace if self.part == "response" else 0.0
            stamp = None if denied else generation.stamp(whose)
            # What a message asks for is the same at any age.
            max_age = None if self.part == "intent" else query.max_age
            reason = envelope.judge(entry, stamp, now, ttl, grace, max_age)
            if reason is None and entry.by_policy and tuning.withholds(entry, query.user):
                reason, withheld = "other_scope", entry.intent or ""
            if reason is None and entry.left_out:
                reason = "left_out"
            if reason is None:
                age = envelope.age(entry, now)
                ttl = ttl if entry.ttl is None and entry.until is None else entry.life(ttl)
                return Hit(entry, whose, age, ttl, None, query.tag, True, generation)
            reasons.append(reason)
            if reason == "expired":
                expired_age = envelope.age(entry, now)
        intent = None
        if self.marks:
            intent = self._marked(query, values[-1], generation.message, now, tuning)
        if intent is not None:
            reasons.append("other_scope")
        elif label_of(withheld):
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
        kept = self.also if entry.left_out else (self.part, *self.also)
        part = entry._replace(
            scope=query.scope(scope),
            response=entry.response if "response" in kept else None,
            intent=entry.intent if "intent" in kept else None,
            rag_results=entry.rag_results if "rag_results" in kept else None,
            cost_usd=entry.cost_usd if "cost_usd" in kept else None,
            tagged=entry.tagged and "rag_results" in kept,
            answer=entry.answer if "response" in kept else "",
        )
        name = self.keys.entry(self.level, query, part.scope)
        ttl = kept_seconds(entry, self.level, tuning)
        writes = [Write(name, envelope.encode(part, name, self.keys.sealer), ttl)]
        if self.marks and scope == "user" and not entry.left_out:
            intent = label_of(entry.intent)
            # Other users don't know this user's tokens: invalidating those deletes the mark.
            message = entry.generation.partition("/")[0]
            own = (
                entry.ttl
                if entry.until is None
                else entry.life(tuning.ttl(self.level, entry.intent))
            )
            mark = Mark(query.user, message, entry.created, own, intent)
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
        """Return the intent of another user's answer; `None` if there is none."""
        if value is None:
            return None
        mark = _MARK.parse(value)
        if mark is None:
            return None
        entry = Entry(created=mark.created, ttl=mark.ttl, generation=mark.generation)
        live = envelope.judge(entry, generation, now, tuning.ttl(self.level, mark.intent)) is None
        return mark.intent if live and mark.user != query.user else None

    async def _discard(self, name: str, why: envelope.CorruptError | None = None) -> None:
        if isinstance(why, envelope.LockedError):
            # A process that has the key still serves it.
            tell_locked()
            return
        log.limited("unreadable", "%s: an entry could not be read and was deleted", self.level)
        # A lookup waits for it, with a time limit meant for reading.
        with contextlib.suppress(BackendError, TimeoutError):
            async with Deadline(DISCARD_SECONDS):
                await self.store.delete([name])


def _untagged(entry: Entry) -> Entry:
    """Return *entry* with new copies of its documents, as they were put.

    Raises:
        CorruptError: If they cannot be restored.
    """
    try:
        return entry._replace(rag_results=restored(entry.rag_results or ()), tagged=False)
    except ValueError:
        raise envelope.CorruptError from None
