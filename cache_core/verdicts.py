"""Whether hits were right: what users say, and what a fresh answer says of a random few."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias, get_args

from cache_core.decisions import Decision, DecisionLog
from cache_core.exceptions import BackendError
from cache_core.instrumentation import CacheCall, Instruments
from cache_core.logs import RateLimited
from cache_core.remedies import tell
from cache_core.stored import are_numbers, are_texts, from_store
from cache_core.stores.base import KeyValueStore
from cache_core.tuning import Tuning

log = RateLimited(logging.getLogger("glasscache"))

Source = Literal["feedback", "review", "verify"]
"""Who judged. Only `verify` is unbiased: feedback comes from those who noticed, review from those
who looked at hits near the threshold."""

Verify: TypeAlias = Callable[[str, str], Awaitable[bool]]
"""Called with a message and the response that was served; returns whether a fresh answer agrees."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether one lookup's answer was right, or the nearest question's answer would have been.

    Attributes:
        at: The store's time when it was given, seconds since the epoch.
        lookup_id: Of the lookup that was judged.
        verdict: `correct` or `wrong`.
        source: Who judged.
        level: The tier that answered, `l1` or `l2`; empty for a lookup that nothing answered.
        similarity: Of *matched* to *message*, 0..1; `None` for an exact answer.
        message, matched, user, intent: As in the decision.
        threshold, tuning_version: In force at the lookup; 0 in verdicts of older versions.
    """

    at: float
    lookup_id: str
    verdict: Literal["correct", "wrong"]
    source: Source
    level: str
    similarity: float | None
    message: str
    matched: str
    user: str
    intent: str
    threshold: float = 0.0
    tuning_version: int = 0

    @property
    def correct(self) -> bool:
        """Whether the answer was right."""
        return self.verdict == "correct"


def parse(text: str) -> Verdict | None:
    """Return the verdict in *text*; `None` for what is none."""
    try:
        found = Verdict(**from_store(text))
    except (TypeError, ValueError):
        return None
    similarity = () if found.similarity is None else (found.similarity,)
    words = (found.lookup_id, found.level, found.message, found.matched, found.user, found.intent)
    sound = (
        found.source in get_args(Source)
        and found.verdict in ("correct", "wrong")
        and are_texts(words)
        and are_numbers([found.at, found.threshold, found.tuning_version, *similarity])
    )
    return found if sound else None


LOG = "verdicts"
KEPT = 10_000
_AT_ONCE = 1
_WAITING = 8
_CHECK_SECONDS = 60.0
"""As long as a fresh answer may take: one that hangs must not end all later checks."""


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
        """Record a verdict on a lookup; return whether it is known and can be judged.

        A hit can be judged by everybody. A review may also judge a lookup that was not answered:
        whether the nearest question's answer would have been right.

        Raises:
            BackendError: If the store is away; nothing is counted then.
        """
        decision = await self._decisions.find(lookup_id)
        if decision is None:
            return False
        return await self.judge_decision(decision, correct=correct, source=source)

    async def judge_decision(self, decision: Decision, *, correct: bool, source: Source) -> bool:
        """Record a verdict on a decision; return whether it can be judged; see `judge`."""
        near = source == "review" and decision.matched and decision.unvetoed is not None
        if decision.outcome != "hit" and not near:
            return False
        await self.record(decision, correct=correct, source=source)
        return True

    async def record(self, decision: Decision, *, correct: bool, source: Source) -> None:
        """Record a verdict on a decision."""
        verdict = Verdict(
            at=self._store.now(),
            lookup_id=decision.lookup_id,
            verdict="correct" if correct else "wrong",
            source=source,
            level=decision.level,
            similarity=decision.unvetoed,
            message=decision.message,
            matched=decision.matched,
            user=decision.user,
            intent=decision.intent,
            threshold=decision.threshold,
            tuning_version=decision.tuning_version,
        )
        await self._store.append(self._name, [json.dumps(asdict(verdict))], keep=KEPT)
        self._instruments.record(CacheCall("verdict", outcome=verdict.verdict, reason=source))

    async def last(self, count: int) -> list[Verdict]:
        """Return the newest verdicts of all replicas, oldest first; raises `BackendError`."""
        found = await self._store.last(self._name, count)
        return [item for _, text in found if (item := parse(text)) is not None]


class Verifier:
    """Checks a random share of semantic hits after they were served, never on their way.

    Bounded: one at a time, a few waiting, the others dropped and counted; likewise one that takes
    too long.

    Args:
        verify: The check; an exception is no verdict.
        verdicts: Where the result goes.
        instruments: Told what a check cost.
        chance: Returns a random number, 0..1.
        seconds: That a check may take.
    """

    def __init__(
        self,
        verify: Verify,
        verdicts: Verdicts,
        instruments: Instruments,
        chance: Callable[[], float] = random.random,
        seconds: float = _CHECK_SECONDS,
    ) -> None:
        self._verify = verify
        self._seconds = seconds
        self._verdicts = verdicts
        self._instruments = instruments
        self._chance = chance
        self._tasks: set[asyncio.Task[None]] = set()
        self._running = asyncio.Semaphore(_AT_ONCE)
        self.dropped = 0
        """Checks without a verdict: too many waited, it took too long, or the store was away."""

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
                async with asyncio.timeout(self._seconds) as deadline:
                    correct = bool(await self._verify(message, response))
            except Exception as error:  # noqa: BLE001 - the agent's own code
                self.dropped += deadline.expired()
                log.limited("verify", "verify raised %s: no verdict", type(error).__name__)
                return
            if price_usd:
                self._instruments.record(
                    CacheCall("verdict", outcome="checked", spent_usd=price_usd)
                )
            try:
                await self._verdicts.record(decision, correct=correct, source="verify")
            except BackendError as error:
                self.dropped += 1
                tell("a verdict was lost", error)

    async def close(self) -> None:
        """Cancel what waits."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
