"""Whether hits were right: what users say, and what a fresh answer says of a random few."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Literal, TypeAlias

from cache_core.decisions import Decision, DecisionLog
from cache_core.exceptions import BackendError
from cache_core.instrumentation import CacheCall, Instruments
from cache_core.logs import RateLimited
from cache_core.stores.base import KeyValueStore
from cache_core.tuning import Tuning

log = RateLimited(logging.getLogger("glasscache"))

Source = Literal["feedback", "review", "verify"]
"""Who judged. Only `verify` is unbiased: feedback comes from those who noticed, review from those
who looked at hits near the threshold."""

Verify: TypeAlias = Callable[[str, str], Awaitable[bool]]
"""Called with a message and the response that was served; returns whether a fresh answer agrees."""

KEPT = 10_000
_AT_ONCE = 1
_WAITING = 8


class Verdicts:
    """Records verdicts: counts them, and keeps them for whoever tunes the threshold.

    Args:
        store: Keeps the log of verdicts.
        name: The log's key.
        decisions: Where the judged lookups are found.
        instruments: Told of each verdict.
    """

    def __init__(
        self, store: KeyValueStore, name: str, decisions: DecisionLog, instruments: Instruments
    ) -> None:
        self._store = store
        self._name = name
        self._decisions = decisions
        self._instruments = instruments

    async def judge(self, lookup_id: str, *, correct: bool, source: Source) -> bool:
        """Record a verdict on a hit; return whether that lookup is known and was a hit.

        Raises:
            BackendError: If the store is away; nothing is counted then.
        """
        decision = await self._decisions.find(lookup_id)
        if decision is None or decision.outcome != "hit":
            return False
        await self.record(decision, correct=correct, source=source)
        return True

    async def record(self, decision: Decision, *, correct: bool, source: Source) -> None:
        """Record a verdict on a decision."""
        verdict = "correct" if correct else "wrong"
        value = {
            "at": self._store.now(),
            "lookup_id": decision.lookup_id,
            "verdict": verdict,
            "source": source,
            "level": decision.level,
            "similarity": decision.similarity,
            "message": decision.message,
            "matched": decision.matched,
            "user": decision.user,
            "intent": decision.intent,
        }
        await self._store.append(self._name, [json.dumps(value)], keep=KEPT)
        self._instruments.record(CacheCall("verdict", outcome=verdict, reason=source))


class Verifier:
    """Checks a random share of semantic hits after they were served, never on their way.

    Bounded: one at a time, a few waiting, the others dropped and counted.

    Args:
        verify: The check; an exception is no verdict.
        verdicts: Where the result goes.
        instruments: Told what a check cost.
        chance: Returns a random number, 0..1.
    """

    def __init__(
        self,
        verify: Verify,
        verdicts: Verdicts,
        instruments: Instruments,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._verify = verify
        self._verdicts = verdicts
        self._instruments = instruments
        self._chance = chance
        self._tasks: set[asyncio.Task[None]] = set()
        self._running = asyncio.Semaphore(_AT_ONCE)
        self.dropped = 0
        """Checks not made because too many were waiting."""

    def offer(self, message: str, response: str, decision: Decision, tuning: Tuning) -> None:
        """Check this semantic hit, if chance has it."""
        if decision.level != "l2" or self._chance() >= tuning.verify_share:
            return
        if len(self._tasks) >= _AT_ONCE + _WAITING:
            self.dropped += 1
            return
        task = asyncio.get_running_loop().create_task(
            self._check(message, response, decision, tuning.verification_usd)
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _check(
        self, message: str, response: str, decision: Decision, price_usd: float
    ) -> None:
        async with self._running:
            try:
                correct = bool(await self._verify(message, response))
            except Exception as error:  # noqa: BLE001 - the agent's own code
                log.limited("verify", "verify raised %s: no verdict", type(error).__name__)
                return
            if price_usd:
                self._instruments.record(
                    CacheCall("verdict", outcome="checked", spent_usd=price_usd)
                )
            try:
                await self._verdicts.record(decision, correct=correct, source="verify")
            except BackendError as error:
                log.limited("verify", "a verdict was lost: %s", error.reason)

    async def close(self) -> None:
        """Cancel what waits."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
