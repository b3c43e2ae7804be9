"""One put from its arguments to its outcome: checked, admitted, written; and many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from cache_core.arguments import check_documents, check_message
from cache_core.engine import Engine
from cache_core.instrumentation import CacheCall
from cache_core.limits import WriteLimits
from cache_core.models import (
    Context,
    Documents,
    Entry,
    Generation,
    LookupResult,
    Sighting,
    Source,
    Where,
)
from cache_core.seen import Sightings
from cache_core.sharing import admit, document_ids

_WARM_TOGETHER = 16
_READ_TOGETHER = 500


class How(NamedTuple):
    """How an answer is to be stored; each as for `MultiLevelCache.put`."""

    shared: bool | None = None
    share_documents: bool | None = None
    ttl: float | None = None
    tags: tuple[str, ...] = ()
    cost_usd: float | None = None
    personal: tuple[str, ...] = ()
    source: Source = "put"


class Puts:
    """Stores answers.

    Args:
        engine: Of the cache.
        sightings: What the lookups before saw.
    """

    def __init__(self, engine: Engine, sightings: Sightings) -> None:
        self._engine = engine
        self._sightings = sightings
        self._settings = engine.settings
        self._limits = WriteLimits()

    async def run(
        self,
        message: str,
        user_id: str | None,
        response: str | None,
        intent: str | None,
        rag_results: Documents | None,
        where: Where,
        how: How,
        lookup: LookupResult | None,
        seen: Sighting | None = None,
    ) -> str:
        """Do what `MultiLevelCache.put` says; return the outcome.

        Args:
            message, user_id, response, intent, rag_results, lookup: As there.
            where, how: The others.
            seen: What is known of invalidations, where no lookup was made.
        """
        bypass = check_message(message, user_id, where.standalone, self._settings, where.context)
        documents = check_documents(rag_results)
        entry = Entry(
            response=response or None,
            intent=intent or None,
            rag_results=documents,
            cost_usd=how.cost_usd,
            ttl=how.ttl,
            source=how.source,
            replica=self._engine.replica,
        )
        running = await self._engine.started()
        tuning = self._engine.tuning
        with self._engine.instruments.operation("put") as call:
            call.tuning_version = tuning.version
            if bypass is not None or running is None:
                call.outcome = "dropped" if running is None else "bypass"
                call.reason = bypass or "backend_error"
                return call.outcome
            query = running.parts.keys.query(message, user_id, *where)
            answer = admit(
                query, entry, tuning, shared=how.shared, share_documents=how.share_documents,
                user_id=user_id, names=how.personal, documents=document_ids(documents),
                tags=how.tags,
            )  # fmt: skip
            if not answer.scopes or running.writer.too_large(answer):
                nothing = entry.response is entry.intent is entry.rag_results is None
                call.outcome = "bypass"
                call.reason = "too_large" if answer.scopes else "empty" if nothing else "no_user"
                return call.outcome
            public = answer.for_everybody
            if how.source != "warm" and not self._limits.take(query.user, tuning, shared=public):
                call.calls = running.writer.refused(answer, "rate_limited")
                call.outcome, call.reason = "bypass", "rate_limited"
                return call.outcome
            if lookup is not None:
                seen = lookup.sighting
                if seen is None or seen.tag != query.tag:
                    position = "" if seen is None else seen.position
                    seen = Sighting(query.tag, query.user, None, position)
                self._sightings.settle(seen)
            elif seen is None:
                seen = self._sightings.take(query)
            calls = await running.writer.put(query, answer, tuning, seen)
            call.calls = calls
            call.outcome = _outcome(calls)
            return call.outcome

    async def warm(
        self,
        items: Sequence[tuple[str, str | None, str]],
        context: Context,
        intent: str | None,
        how: How,
        progress: Callable[[int], None],
    ) -> int:
        """Store answers; return how many were.

        Raises:
            BackendError: If the store is away.
        """
        # What is invalidated while this goes on is not stored.
        known = await self._generations_of([query for query, _, _ in items], context)
        stored = 0
        for start in range(0, len(items), _WARM_TOGETHER):
            chunk = items[start : start + _WARM_TOGETHER]
            outcomes = await asyncio.gather(
                *(
                    self.run(
                        query, user_id, response, intent, None, Where(context), how, None, seen
                    )
                    for (query, user_id, response), seen in zip(
                        chunk, known[start : start + _WARM_TOGETHER], strict=True
                    )
                )
            )
            stored += sum(outcome in {"stored", "queued"} for outcome in outcomes)
            progress(len(chunk))
        return stored

    async def _generations_of(
        self, messages: Sequence[str], context: Context
    ) -> list[Sighting | None]:
        """Return the generations in force of *messages*, for everybody.

        Raises:
            BackendError: If the store is away.
        """
        running = await self._engine.started()
        if running is None:
            return [None] * len(messages)
        keys, store, recent = running.parts.keys, running.parts.store, running.parts.recent
        await recent.catch_up()
        position = recent.position
        tags = [keys.query(message, None, context).tag for message in messages]
        found: list[Sighting | None] = []
        for start in range(0, len(tags), _READ_TOGETHER):
            chunk = tags[start : start + _READ_TOGETHER]
            tokens = await store.read([keys.generation(tag) for tag in chunk])
            for tag, token in zip(chunk, tokens, strict=True):
                found.append(Sighting(tag, None, Generation(token), position))
        return found


def _outcome(calls: Sequence[CacheCall]) -> str:
    """Return the worst that happened to any part of an answer that was wanted."""
    outcomes = {item.outcome for item in calls}
    for outcome in ("dropped", "queued", "stored"):
        if outcome in outcomes:
            return outcome
    return "bypass"
