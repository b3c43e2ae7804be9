"""One lookup from its arguments to its result: checked, asked, counted and remembered."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from cache_core.arguments import check_message
from cache_core.engine import Engine
from cache_core.instrumentation import CacheCall
from cache_core.models import Context, LookupResult, Query, Sighting, Turn
from cache_core.reading import Found, fold
from cache_core.recording import capture, decide, finish
from cache_core.seen import Sightings


class Lookups:
    """Looks up messages.

    Args:
        engine: Of the cache.
        sightings: Told what each lookup saw, for the put that may follow.
    """

    def __init__(self, engine: Engine, sightings: Sightings) -> None:
        self._engine = engine
        self.sightings = sightings
        self._settings = engine.settings
        self._numbers = itertools.count(1)

    async def run(
        self,
        message: str,
        user_id: str | None,
        context: Context,
        history: Sequence[Turn] | None,
        standalone: str | None,
        *,
        handed_out: bool,
        allow_stale: bool = False,
    ) -> LookupResult:
        """Do what `MultiLevelCache.lookup` says.

        Args:
            message, user_id, context, history, standalone, allow_stale: As there.
            handed_out: Whether the caller gets intent and documents; else they save nothing.
        """
        bypass = check_message(message, user_id, standalone, self._settings, context)
        running = self._engine.here or await self._engine.started()
        query = (
            running.parts.keys.query(message, user_id, context, history, standalone)
            if running is not None and bypass != "too_large"
            else None
        )
        tuning = self._engine.live.current
        if allow_stale and query is not None:
            query = query._replace(grace=tuning.stale_seconds)
        number = f"{self._engine.replica}-{next(self._numbers):x}"
        with self._engine.instruments.operation("lookup") as call:
            call.lookup_id = number
            call.tuning_version = tuning.version
            if bypass is not None:
                call.outcome, call.reason = "bypass", bypass
                return LookupResult(None, None, None, "bypass", None, None, None, False, number,
                                    (bypass,))  # fmt: skip
            if running is None or query is None:
                call.outcome, call.reason = "error", "backend_error"
                call.calls = [CacheCall("get", "l1", "error", "backend_error")]
                return LookupResult(None, None, None, "error", None, None, None, False, number,
                                    ("backend_error",))  # fmt: skip
            position = running.parts.recent.position
            found = await running.reader.find(query, tuning, call)
            sighting = _sighting(query, found, position)
            result = fold(found, number, sighting)
            finish(call, result, found, handed_out=handed_out)
            if self._settings.capture_message_content:
                capture(call, query, found)
        self.sightings.note(sighting, answered=result.response is not None)
        if context and "context_limit" in result.reasons:
            self._engine.contexts.note(context)
        decisions = running.parts.decisions
        place = decisions.place()
        if place is not None or running.verifier is not None:
            decision = decide(query, result, found, call, tuning, running.parts.store.now())
            if place is not None:
                decisions.add(decision, place)
            if running.verifier is not None and result.response is not None:
                running.verifier.offer(query.text, result.response, decision, tuning)
        return result


def _sighting(query: Query, found: Found, position: str) -> Sighting:
    """Return what a lookup saw; the generation is of the first tier that read it."""
    for item in found.asked:
        if item.answer is not None and item.answer.generation is not None:
            return Sighting(query.tag, query.user, item.answer.generation, position)
    return Sighting(query.tag, query.user, None)
