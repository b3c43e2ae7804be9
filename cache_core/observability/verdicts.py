"""Verdicts on hits: from users, operators, and fresh answers to a random sample."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import random
from typing import Literal, TypeAlias

from cache_core.backends.base import Logs
from cache_core.backends.log import Log
from cache_core.config.intents import label_of
from cache_core.model.exceptions import BackendError
from cache_core.model.logs import RateLimited
from cache_core.model.remedies import log_failure
from cache_core.model.stored import Format, Moment, Number, Whole
from cache_core.observability.decisions import Decision, DecisionLog, decided
from cache_core.observability.evidence import Evidence
from cache_core.observability.instruments import Instruments
from cache_core.observability.records import VerdictRecord, VerificationRecord

log = RateLimited(logging.getLogger("glasscache"))

Source = Literal["feedback", "review", "verify"]
"""Source of a verdict. Only `verify` is unbiased: feedback comes from users who noticed an error,
review from operators who looked at hits near the threshold."""

Verify: TypeAlias = Callable[[str, str], Awaitable[bool]]
"""Called with a message and the response served; returns whether a fresh answer agrees."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Verdict on the answer of one lookup, or on the nearest question's answer.

    Attributes:
        at: The store's time of the verdict, seconds since the epoch.
        lookup_id: Id of the lookup judged.
        verdict: `correct` or `wrong`.
        source: Source of the verdict.
        level: The tier that answered, `l1` or `l2`; empty for a lookup without an answer.
        similarity: Similarity of *matched* to *message*, 0..1; `None` for an exact answer.
        message, matched, user, intent: As in the decision.
        threshold, tuning_version: In force at the lookup; 0 in verdicts of older versions.
    """

    at: Moment
    lookup_id: str
    verdict: Literal["correct", "wrong"]
    source: Source
    level: str
    similarity: Number | None
    message: str
    matched: str
    user: str
    intent: str
    threshold: Number = 0.0
    tuning_version: Whole = 0

    @property
    def correct(self) -> bool:
        """True if the answer was right."""
        return self.verdict == "correct"


FORMAT = Format(Verdict)
LOG = "verdicts"
VERDICTS_KEPT = 10_000
_AT_ONCE = 1
_WAITING = 8
_CHECK_SECONDS = 60.0
"""Time limit of a fresh answer: one that hangs must not block all later checks."""


def verdict_log(store: Logs, name: str) -> Log[Verdict]:
    """Return the log of verdicts in the store."""
    return Log(store, name, FORMAT, VERDICTS_KEPT)


class Verdicts:
    """Records verdicts: counts them, and logs them for tuning the threshold.

    Args:
        store: Store of the log.
        name: The log's key.
        decisions: Log of the lookups to judge.
        instruments: Count the verdicts.
    """

    def __init__(
        self, store: Logs, name: str, decisions: DecisionLog, instruments: Instruments
    ) -> None:
        self._store = store
        self._log = verdict_log(store, name)
        self._decisions = decisions
        self._instruments = instruments

    def now(self) -> float:
        """Return the store's time, seconds since the epoch."""
        return self._store.now()

    async def judge(self, lookup_id: str, *, correct: bool, source: Source) -> bool:
        """Record a verdict on a lookup; return whether it is known and can be judged.

        Any source can judge a hit. A review may also judge a lookup without an answer: whether the
        nearest question's answer would have been right.

        Raises:
            BackendError: If the store is unavailable; nothing is counted then.
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
        """Record a verdict on a decision; it is counted if that was a hit."""
        verdict = Verdict(
            at=self.now(),
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
        await self._log.append([verdict])
        if decision.outcome == "hit":
            # An answer that nobody got is not a wrong hit, whatever a review says about it.
            label = label_of(decision.intent)
            self._instruments.record(VerdictRecord(verdict.verdict, source, label))

    async def withdraw(self, lookup_id: str) -> int:
        """Remove the reviews of a lookup; return how many. What was counted stays counted.

        Raises:
            BackendError: If the store is unavailable.
        """
        return await self._log.remove_where(
            lambda item: item.lookup_id == lookup_id and item.source == "review", lookup_id
        )

    async def last(self, count: int) -> list[Verdict]:
        """Return the newest verdicts of all replicas, oldest first; raises `BackendError`."""
        return await self._log.last(count)


class Verifier:
    """Checks a random share of semantic hits after they were served, without delaying them.

    Bounded: one at a time and a few waiting; further ones, and those that take too long, are
    dropped and counted.

    Args:
        verify: The check; an exception is no verdict.
        verdicts: Records the result.
        instruments: Record the cost of a check.
        seconds: Time limit of a check.
    """

    def __init__(
        self,
        verify: Verify,
        verdicts: Verdicts,
        instruments: Instruments,
        seconds: float = _CHECK_SECONDS,
    ) -> None:
        self._verify = verify
        self._seconds = seconds
        self._verdicts = verdicts
        self._instruments = instruments
        self._tasks: set[asyncio.Task[None]] = set()
        self._running = asyncio.Semaphore(_AT_ONCE)
        self.dropped = 0
        """Checks dropped: too many waited, one took too long, or the store was unavailable."""

    def note(self, evidence: Evidence) -> None:
        """Check a random share of the semantic hits."""
        tuning, result = evidence.tuning, evidence.result
        if result.tier != "l2" or random() >= tuning.verify_share:
            return
        decision = decided(evidence, self._verdicts.now())
        self.check(evidence.query.text, result.response or "", decision, tuning.verification_usd)

    def check(self, message: str, response: str, decision: Decision, price_usd: float) -> None:
        """Check a hit in the background; drop it if too many wait."""
        if len(self._tasks) >= _AT_ONCE + _WAITING:
            self.dropped += 1
            return
        task = asyncio.get_running_loop().create_task(
            self._check(message, response, decision, price_usd)
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _check(
        self, message: str, response: str, decision: Decision, price_usd: float
    ) -> None:
        async with self._running:
            started = time.perf_counter()
            try:
                async with asyncio.timeout(self._seconds) as deadline:
                    correct = bool(await self._verify(message, response))
            except Exception as error:  # noqa: BLE001 - the agent's own code
                late = deadline.expired() or isinstance(error, TimeoutError)
                self.dropped += deadline.expired()
                self._instruments.record(
                    VerificationRecord(
                        0.0, "timeout" if late else "error", time.perf_counter() - started
                    )
                )
                log.limited("verify", "verify raised %s: no verdict", type(error).__name__)
                return
            took = time.perf_counter() - started
            self._instruments.record(VerificationRecord(price_usd, "ok", took))
            try:
                await self._verdicts.record(decision, correct=correct, source="verify")
            except BackendError as error:
                self.dropped += 1
                log_failure("a verdict was lost", error)

    async def close(self) -> None:
        """Cancel all checks."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
