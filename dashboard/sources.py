"""Where the pages get their data: plain values, no Streamlit.

The app has caches of its own on the agent's store. They count nothing, and the one that most
pages use has no semantic tier: it opens in a moment and loads no model. The agent's process is
never asked.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from typing import Any

from cache_core import audited
from cache_core.audit import AuditRecord
from cache_core.audited import What
from cache_core.decisions import Decision
from cache_core.housekeeping import replicas
from cache_core.live_tuning import TuningChange
from cache_core.models import Invalidation, TierExplanation
from cache_core.settings import Settings, load_settings
from cache_core.tuning import Tuning
from cache_core.verdicts import Verdict
from dashboard.caches import Caches
from dashboard.config import DashboardConfig
from dashboard.estimates import Estimates
from dashboard.outcomes import Outcome, expectation, outcome
from dashboard.replica import Replica, in_force, replica
from dashboard.stored import Stored, stored
from dashboard.tail import DecisionTail, Recorded

_FIRST_LOOK = 30.0
_MODEL = 120.0
_ESTIMATES_SECONDS = 60.0
_REPLAYED = 25_000
"""Lookups that are replayed, the newest: 100,000 would keep the page waiting for ten seconds."""


class Source:
    """Everything that the pages show and do.

    Every method raises `SourceAwayError` when what it needs cannot be reached.

    Args:
        config: Of the app.
        settings: Of the cache; default: from the environment.
    """

    def __init__(self, config: DashboardConfig, settings: Settings | None = None) -> None:
        self.config = config
        self.settings = settings or load_settings()
        self._caches = Caches(self.settings, config.namespace)
        self._run = self._caches.run
        self._tail: DecisionTail | None = None
        self._estimates: Estimates | None = None
        self._estimating = threading.Lock()
        self._expected: dict[int, float | None] = {}
        self._following = asyncio.Lock()

    @property
    def where(self) -> str:
        """The store, as it may be shown."""
        return self._caches.where

    @property
    def kind(self) -> str:
        """What the store is."""
        return self._caches.kind

    @property
    def captures(self) -> bool:
        """Whether message texts may be shown."""
        return self.settings.capture_message_content

    # ------------------------------------------------------------------------------ reading

    def tuning(self) -> Tuning:
        """Return the values in force on the replicas; without one, those of the store.

        What an agent was started with is known only from its replicas. What somebody tuned is in
        the store, and beats it.
        """
        return self._run(self._tuning())

    def recorded(self) -> Recorded:
        """Return the last lookups of all replicas."""
        return self._run(self._recorded(), _FIRST_LOOK)

    def replicas(self) -> list[Replica]:
        """Return the replicas that are alive; this process is none."""
        return self._run(self._replicas())

    def verdicts(self) -> list[Verdict]:
        """Return the last verdicts."""
        return self._run(self._verdicts(), _FIRST_LOOK)

    def changes(self, count: int = 200) -> list[TuningChange]:
        """Return the last changes of the tuning, newest first."""
        return self._run(self._changes(count))

    def audit(self, count: int = 500) -> list[AuditRecord]:
        """Return what else was done, newest first."""
        return self._run(self._audit(count))

    def estimates(self, *, fresh: bool = False) -> Estimates:
        """Return what-if over the log; looked at anew after a change, or when it is old.

        Args:
            fresh: Look at the log now.
        """
        tuning = self.tuning()
        with self._estimating:
            found = self._estimates
            old = found is not None and time.time() - found.taken > _ESTIMATES_SECONDS
            if found is None or fresh or old or found.tuning != tuning:
                newest = self.recorded().decisions[-_REPLAYED:]
                found = Estimates(newest, self.verdicts(), tuning)
                self._estimates = found
            return found

    def outcomes(self, count: int) -> list[Outcome]:
        """Return what came of the last changes, newest first."""
        changes = self.changes(count)
        decisions, verdicts, tuning = self.recorded().decisions, self.verdicts(), self.tuning()
        found = []
        for number, change in enumerate(changes):
            if change.version not in self._expected:
                # Replayed once: what was recorded before it stays as it was.
                newest = decisions[-_REPLAYED:]
                self._expected[change.version] = expectation(change, newest, tuning)
            until = changes[number - 1].version if number else None
            expected = self._expected[change.version]
            found.append(outcome(change, decisions, verdicts, until, expected))
        return found

    def stored(self, message: str) -> list[Stored]:
        """Return the entries for exactly this message, of all users and contexts."""
        return self._run(self._stored(message))

    def explain(self, message: str, user: str | None, context: Any) -> list[TierExplanation]:
        """Return what each tier would say; loads the model at the first call."""
        return self._run(self._explain(message, user, context), _MODEL)

    # ------------------------------------------------------------------------------ writing

    def tune(
        self, changes: Mapping[str, Any], *, author: str, note: str, expected_version: int | None
    ) -> TuningChange:
        """Change the tuning of all replicas.

        Raises:
            ConfigurationError: For a value out of its bounds.
            TuningConflict: If somebody else changed it meanwhile.
        """
        return self._run(self._tune(changes, author, note, expected_version))

    def revert(self, version: int, *, author: str, note: str) -> TuningChange:
        """Put what was tuned as of *version* into force again."""
        return self._run(self._revert(version, author, note))

    def judge(self, decision: Decision, *, correct: bool, author: str) -> None:
        """Record whether a hit was right, or would have been."""
        self._run(self._judge(decision, correct, author))

    def count(self, what: What, value: str, user: str | None = None) -> Invalidation:
        """Return how many answers `invalidate` would take out of service."""
        return self._run(self._count(what, value, user), _MODEL)

    def invalidate(
        self, what: What, value: str, *, user: str | None, author: str, note: str
    ) -> Invalidation:
        """Take answers out of service."""
        return self._run(self._invalidate(what, value, user, author, note), _MODEL)

    def close(self) -> None:
        """Close the caches and the thread; idempotent."""
        self._caches.close()

    # ------------------------------------------------------------------------------ in the loop

    async def _tuning(self) -> Tuning:
        cache = await self._caches.light()
        return in_force(await self._replicas(), cache.tuning, cache.tuning_origins)

    async def _recorded(self) -> Recorded:
        parts = (await self._caches.light()).parts
        async with self._following:
            if self._tail is None:
                self._tail = DecisionTail(parts.keys.own("decisions"), parts.keys.sealer)
            return await self._tail.follow(parts.store)

    async def _replicas(self) -> list[Replica]:
        parts = (await self._caches.light()).parts
        now = parts.store.now()
        return [replica(beat, now) for beat in await replicas(parts)]

    async def _verdicts(self) -> list[Verdict]:
        return await (await self._caches.light()).verdicts()

    async def _changes(self, count: int) -> list[TuningChange]:
        return await (await self._caches.light()).tuning_history(count)

    async def _audit(self, count: int) -> list[AuditRecord]:
        return (await audited.audit_log(await self._caches.light()).last(count))[::-1]

    async def _stored(self, message: str) -> list[Stored]:
        return await stored(await self._caches.light(), message, await self._tuning())

    async def _explain(self, message: str, user: str | None, context: Any) -> list[TierExplanation]:
        cache = await self._caches.full()
        return await cache.explain(message, user, context=context)

    async def _tune(
        self, changes: Mapping[str, Any], author: str, note: str, expected: int | None
    ) -> TuningChange:
        cache = await self._caches.light()
        return await cache.tune(changes, author=author, note=note, expected_version=expected)

    async def _revert(self, version: int, author: str, note: str) -> TuningChange:
        cache = await self._caches.light()
        return await cache.revert_tuning(version, author=author, note=note)

    async def _judge(self, decision: Decision, correct: bool, author: str) -> None:
        await audited.judge(await self._caches.light(), decision, correct=correct, author=author)

    async def _count(self, what: What, value: str, user: str | None) -> Invalidation:
        return await audited.count(await self._caches.full(), what, value, user)

    async def _invalidate(
        self, what: What, value: str, user: str | None, author: str, note: str
    ) -> Invalidation:
        cache = await self._caches.full()
        done = await audited.invalidate(cache, what, value, user, author=author, note=note)
        if what == "user":
            async with self._following:
                self._tail = None
        return done
