"""One put from its arguments to its outcome: checked, admitted, written; and many at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import get_args

from cache_core.backends.base import Values
from cache_core.config.intents import label_of
from cache_core.config.settings import Settings
from cache_core.config.tuning import Tuning
from cache_core.model.batches import batched
from cache_core.model.exceptions import BackendError
from cache_core.model.keys import Keys
from cache_core.model.logs import RateLimited
from cache_core.model.question.days import Days, ages, names_a_day
from cache_core.model.question.histories import last_texts
from cache_core.model.question.users import warn_of_nobody
from cache_core.model.values import (
    Generation,
    Level,
    LookupResult,
    Query,
    Sighting,
    Where,
    WithheldReason,
)
from cache_core.observability.records import PartRecord, PutRecord
from cache_core.operations.answers import How, What
from cache_core.operations.arguments import MAX_INTENT_CHARS, Asked, ask
from cache_core.operations.changes import Comparing
from cache_core.operations.put.admission import Admission
from cache_core.operations.put.rules import Rules
from cache_core.operations.put.scopes import NewAnswer, admit
from cache_core.operations.put.write import Writer
from cache_core.operations.replica import Replica
from cache_core.policy.answers import named
from cache_core.tiers.journal import Journal

log = RateLimited(logging.getLogger("glasscache"))

_WARM_TOGETHER = 16
_READ_TOGETHER = 500
_WARM_PAUSE = 0.1
"""Seconds before a store that failed is asked again for what `warm` must know."""

_TO_COMPARE = 0.25
"""Share of a put's time in which a fresh answer is compared; L2 may take half of it."""

_TURNS = 4
"""Turns before a follow-up that say of which day it asks."""

_LOST = frozenset({"too_large", "unsupported", *get_args(WithheldReason)})
"""Reasons why a part of an answer is not stored that make the put a partial one."""


class Puts:
    """Stores answers.

    Args:
        writer: Writes them.
        keys: Names what is stored.
        store: Its clock is that of all replicas.
        journal: Log of broad invalidations.
        rules: What of an answer is stored.
        replica: This cache.
        comparing: Compares a fresh answer with stored ones.
    """

    def __init__(
        self,
        writer: Writer,
        keys: Keys,
        store: Values,
        journal: Journal,
        rules: Rules,
        replica: Replica,
        comparing: Comparing,
    ) -> None:
        self._writer = writer
        self._keys = keys
        self._store = store
        self._journal = journal
        self._rules = rules
        self._replica = replica
        self._comparing = comparing
        self._settings = replica.settings
        self._admission = Admission(replica.settings.put_budget)
        self._logged_no_ids = False
        self._days = Days(replica.settings.timezone)

    async def run(
        self,
        asked: Asked,
        what: What,
        how: How,
        lookup: LookupResult | None,
        seen: Sighting | None = None,
    ) -> str:
        """Store an answer; return the outcome.

        Args:
            asked: The message.
            what, how: The answer.
            lookup: As for `MultiLevelCache.put`.
            seen: What is known of invalidations, where no lookup was made.
        """
        if asked.bypass is not None:
            return not_stored(asked, what, self._replica)
        asked = await asked.settled()
        tuning = self._replica.tuning
        offered = _offered(what, self._settings)
        computed = how.source != "warm" and what.response is not None
        made = PutRecord(tuning.version, intent=label_of(what.intent) if computed else "")
        with self._replica.instruments.operation(made) as record:
            if offered:
                query = self._keys.query_in(asked.message, asked.user_id, asked.where)
                if asked.user_id is not None and query.user is None:
                    warn_of_nobody()
                    asked = asked._replace(user_id=None)
                what, withheld = self._cacheable(query, what, how, offered)
                answer = await self._admitted(query, asked.user_id, what, how, tuning)
                everybodys = answer.scopes.get("l2") == "shared"
                self._comparing.recognition.allow()
                self._comparing.learning.fresh(query, answer.entry, shared=everybodys)
                record.calls = self._refused(query, answer, how, tuning)
                if not record.calls and answer.scopes:
                    sighting = self._sighting(query, lookup, seen)
                    now = self._store.now()
                    until = self._until(query, what, asked.where, sighting, now)
                    answer = replace(answer, entry=answer.entry._replace(until=until))
                    record.calls = (
                        self._writer.refused(answer, "day_over")
                        if until is not None and until <= now
                        else await self._write(query, answer, tuning, sighting)
                    )
                # Without a user there is nobody to keep a private part for.
                rest = {*answer.scopes, *(part.level for part in withheld)}
                nobodys = [level for level in offered if level not in rest]
                nobodys_parts = _each(nobodys, "bypass", "no_user")
                record.calls = [*withheld, *record.calls, *nobodys_parts]
            return _finish(record, "empty")

    def _cacheable(
        self, query: Query, what: What, how: How, offered: Sequence[Level]
    ) -> tuple[What, list[PartRecord]]:
        """Return what is worth storing, and a finished call for each tier that gets nothing.

        Intent and documents are stored without the response: they were right.
        """
        # What an operator provides is stored as it is.
        why_not = None if how.source == "warm" else self._rules.withholds(query.text, what)
        if why_not is None:
            return what, []
        parts = [level for level in offered if level in {"l1", "l2"}]
        return what._replace(response=None), _each(parts, "bypass", why_not)

    def _until(
        self, query: Query, what: What, where: Where, seen: Sighting | None, now: float
    ) -> float | None:
        """Return when the day ends of which an answer speaks; `None` if it speaks of none.

        That is the day of its lookup: what was computed over midnight is of the day before.
        """
        turns = [] if where.history is None else last_texts(where.history, _TURNS)
        asked = [query.text, *turns]
        if any(ages(text) for text in asked) or names_a_day(what.response or ""):
            known = None if seen is None else seen.until
            return self._days.end(now) if known is None else known
        return None

    async def _admitted(
        self, query: Query, user_id: str | None, what: What, how: How, tuning: Tuning
    ) -> NewAnswer:
        """Return the answer with who may read each part of it, and without what is left out."""
        left_out = what.left_out(self._settings.max_value_bytes)
        self._log_losses(what, left_out)
        entry = what.entry(left_out)._replace(
            cost_usd=how.cost_usd, ttl=how.ttl, source=how.source, replica=self._replica.name,
            answer=self._keys.answer(*named(what.answer_id, what.documents.ids)),
        )  # fmt: skip
        return await admit(
            query, entry, tuning, how, user_id=user_id, documents=what.documents.ids,
            left_out=left_out,
        )  # fmt: skip

    async def _write(
        self, query: Query, answer: NewAnswer, tuning: Tuning, seen: Sighting | None
    ) -> Sequence[PartRecord]:
        async with self._admission.turn() as seconds:
            if seconds is not None:
                clock = self._admission.clock
                end = clock() + seconds
                scope = answer.scopes.get("l1", answer.scopes.get("l2"))
                if scope is not None:
                    seen = await self._comparing.changes.compare(
                        query, answer.entry, scope, tuning, seen, seconds * _TO_COMPARE
                    )
                left = max(end - clock(), 0.0)
                return await self._writer.put(query, answer, tuning, seen, left)
        log.limited(
            "crowded",
            "more concurrent puts than can be stored within CACHE_PUT_BUDGET: some answers were "
            "dropped. Put them one after the other, or use warm_cache",
        )
        return self._writer.refused(answer, "overloaded", "dropped")

    def _refused(
        self, query: Query, answer: NewAnswer, how: How, tuning: Tuning
    ) -> Sequence[PartRecord]:
        """Return the parts of a put that its user may not make; else nothing."""
        if how.source == "warm" or not answer.scopes:
            return []
        if self._rules.limits.take(query.user, tuning, shared=answer.for_everybody):
            return []
        return self._writer.refused(answer, "rate_limited")

    def _sighting(
        self, query: Query, lookup: LookupResult | None, seen: Sighting | None
    ) -> Sighting | None:
        """Return what the lookup saw that the put follows; `None` if it follows none."""
        if lookup is None:
            return seen or self._replica.sightings.take(query)
        seen = lookup.sighting
        if seen is None or seen.tag != query.tag:
            position, until = ("", None) if seen is None else (seen.position, seen.until)
            seen = Sighting(query.tag, query.user, None, position, exact=query.exact, until=until)
        self._replica.sightings.settle(seen)
        return seen

    def _log_losses(self, what: What, left_out: Mapping[Level, str]) -> None:
        """Log what is left out, and that documents have no id."""
        most = self._settings.max_value_bytes
        documents = what.documents
        if "too_large" in {left_out.get("l1"), left_out.get("l3")}:
            log.limited(
                "large answer",
                "a response of more than %d bytes, or an intent of more than %d characters, was "
                "not stored. CACHE_MAX_VALUE_BYTES sets the first",
                most, MAX_INTENT_CHARS,
            )  # fmt: skip
        if what.no_text:
            log.limited(
                "no text",
                "compute returned a value of type %s: it was returned to the caller and not "
                "stored. Return a str, or an Answer",
                what.no_text,
            )
        if documents.left_out == "too_large":
            log.limited(
                "large documents",
                "documents of more than %d bytes as ASCII JSON were not stored; the answer is "
                "stored without them. Raise CACHE_MAX_VALUE_BYTES, or put fewer documents",
                most,
            )
        if documents.left_out == "unsupported":
            log.limited(
                "unsupported documents",
                "documents were not stored, because %s could not be read back as it was put; the "
                "answer is stored without them. Put dicts, lists, tuples, sets, str, bytes, "
                "numbers, dates, UUIDs, paths or numpy values, for example document.model_dump()",
                documents.kind,
            )
        if documents.given and not documents.ids and not self._logged_no_ids:
            self._logged_no_ids = True
            log.limited(
                "no ids",
                "documents without an id were put: invalidate_document cannot find the answers "
                "made from them. Give each an id or a source, or pass document_ids=",
            )

    async def warm(
        self,
        items: Sequence[tuple[str, str | None, str]],
        where: Where,
        intent: str | None,
        how: How,
        progress: Callable[[int], None],
    ) -> int:
        """Store answers; return how many were.

        Raises:
            BackendError: If the store is unavailable.
        """
        # What is invalidated while this goes on is not stored.
        known = await self._known_generations([query for query, _, _ in items])
        stored = 0
        for chunk in batched([*zip(items, known, strict=True)], _WARM_TOGETHER):
            outcomes = await asyncio.gather(
                *(
                    self.run(
                        ask(query, user_id, where, self._settings),
                        What(response, intent),
                        how,
                        None,
                        seen,
                    )
                    for (query, user_id, response), seen in chunk
                )
            )
            stored += sum(outcome in {"stored", "queued", "partial"} for outcome in outcomes)
            progress(len(chunk))
        return stored

    async def _known_generations(self, messages: Sequence[str]) -> list[Sighting]:
        """Return the generations in force, asking again for as long as a put may take.

        One late reply, by the short budget of lookups, would leave everything unstored.

        Raises:
            BackendError: If the store is unavailable.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._settings.put_budget
        while True:
            try:
                return await self._generations_of(messages)
            except BackendError:
                if clock() >= deadline:
                    raise
            await asyncio.sleep(_WARM_PAUSE)

    async def _generations_of(self, messages: Sequence[str]) -> list[Sighting]:
        """Return the generations in force of *messages*, for everybody.

        Raises:
            BackendError: If the store is unavailable.
        """
        await self._journal.catch_up()
        position = self._journal.position
        tags = [self._keys.tag(message) for message in messages]
        found: list[Sighting] = []
        for chunk in batched(tags, _READ_TOGETHER):
            tokens = await self._store.read([self._keys.generation(tag) for tag in chunk])
            for tag, token in zip(chunk, tokens, strict=True):
                found.append(Sighting(tag, None, Generation(token), position))
        return found


def not_stored(asked: Asked, what: What, replica: Replica) -> str:
    """Record a put that nothing was written of; return its outcome.

    A bypass if the message says so; else everything was dropped, as the store was not reached.
    """
    offered = _offered(what, replica.settings)
    with replica.instruments.operation(PutRecord(replica.tuning.version)) as record:
        if asked.bypass is None:
            record.calls = _each(offered, "dropped", "backend_error")
        else:
            record.calls = _each(offered, "bypass", asked.bypass)
        return _finish(record, asked.bypass or "empty")


def _finish(record: PutRecord, otherwise: str) -> str:
    """Write the outcome of a put into its record, and return it; *otherwise*: why it is empty."""
    # A put of nothing is counted where an answer would have been.
    record.calls = record.calls or _each(["l1"], "bypass", otherwise)
    record.outcome, record.reason = _ended(record.calls)
    return record.outcome


def _offered(what: What, settings: Settings) -> list[Level]:
    return [level for level in what.offered if level in settings.tiers]


def _each(levels: Iterable[Level], outcome: str, reason: str) -> list[PartRecord]:
    return [PartRecord(level, outcome, reason) for level in levels]


def _ended(calls: Sequence[PartRecord]) -> tuple[str, str]:
    """Return the one outcome of a put, and the reason unless it is stored whole.

    `partial` when something was stored, and something that was paid for was not; what a tier does
    not store by its nature, as L2 a message with a history, does not count as that.
    """
    outcomes = {part.outcome for part in calls}
    lost = [part for part in calls if part.outcome == "dropped" or part.reason in _LOST]
    if outcomes & {"stored", "queued"}:
        if lost:
            return "partial", lost[0].reason
        return ("queued" if "queued" in outcomes else "stored"), ""
    if "dropped" in outcomes:
        return "dropped", lost[0].reason
    return "bypass", calls[0].reason
