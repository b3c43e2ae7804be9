"""Data source of the pages: plain values, no Streamlit.

The app has caches of its own on the agent's store. They count nothing, and the one that most
pages use has no semantic tier: it opens in a moment and loads no model. The agent's process is
never asked.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

from cache_core.config.live import TuningChange
from cache_core.config.settings import Settings, load_settings
from cache_core.config.stage import Stage
from cache_core.config.tuning import Tuning
from cache_core.model.values import Invalidation, TierExplanation
from cache_core.multilevel_cache import MultiLevelCache
from cache_core.observability.audit import AuditRecord
from cache_core.observability.decisions import Decision
from cache_core.observability.fleet import ReplicaReport
from cache_core.observability.history import By, Period
from cache_core.observability.staged import StageEvidence
from cache_core.observability.verdicts import Verdict
from cache_core.operations.inspect import StoredEntry
from cache_core.operations.invalidate.outbox import RequestKind
from cache_core.operations.learning import Label
from dashboard.data.caches import Caches
from dashboard.data.config import DashboardConfig
from dashboard.data.estimates import Estimates
from dashboard.data.outcomes import Outcome, expectation, outcome, since_change, without_it
from dashboard.data.tail import DecisionTail, Recorded
from dashboard.data.words import SourceUnavailableError

Result = TypeVar("Result")
Work: TypeAlias = Callable[[MultiLevelCache], Coroutine[Any, Any, Result]]

_SECONDS = 5.0
_FIRST_LOOK = 30.0
_MODEL = 120.0
_AGAIN_SECONDS = 1.0
"""Time for which an unavailable store is not asked again for what is known."""
_KNOWN = 32
"""Number of last results that are kept for an outage: the history has a new one every hour."""
_ESTIMATES_SECONDS = 60.0
_REPLAYED = 25_000
"""Number of newest lookups to replay: 100,000 would delay the page by ten seconds."""


class Outage(NamedTuple):
    """Outage of the store, during which the last state is shown.

    Attributes:
        why: The problem, in words.
        since: Time of the last successful read, seconds since the epoch.
        tried: Time of the last failed one.
    """

    why: str
    since: float
    tried: float


class Source:
    """Data and actions of all pages.

    While the store is unavailable, what was read before is returned again, and `outage` says so.
    Every method raises `SourceUnavailableError` when what it needs is unreachable and not known.

    Args:
        config: Settings of the app.
        settings: Settings of the cache; default: from the environment.
    """

    def __init__(self, config: DashboardConfig, settings: Settings | None = None) -> None:
        self.config = config
        self.settings = settings or load_settings()
        self._caches = Caches(self.settings, config.namespace)
        self._tail: DecisionTail | None = None
        self._estimates: Estimates | None = None
        self._estimating = threading.Lock()
        self._expected: dict[int, float | None] = {}
        self._without: dict[tuple[int, int | None], tuple[float, float | None]] = {}
        self._following = asyncio.Lock()
        self.outage: Outage | None = None
        self._known: OrderedDict[Hashable, Any] = OrderedDict()
        self._knowing = threading.Lock()
        self._read_at = time.time()
        self._users_forgotten = 0
        self._dropped = 0
        """Number of times that all data from the log was dropped."""

    @property
    def where(self) -> str:
        """The store's address, without secrets."""
        return self._caches.where

    @property
    def kind(self) -> str:
        """The kind of store, in words."""
        return self._caches.kind

    @property
    def captures(self) -> bool:
        """True if message texts may be shown."""
        return self.settings.capture_message_content

    # ------------------------------------------------------------------------------ reading

    def tuning(self) -> Tuning:
        """Return the values in force on the replicas; without one, those of the store.

        Only the replicas know what an agent was started with. Tuned values are in the store, and
        override that.
        """
        return self._read("tuning", lambda cache: cache.operator.in_force()).tuning

    def recorded(self) -> Recorded:
        """Return the last lookups of all replicas."""
        return self._read("recorded", self._follow, _FIRST_LOOK)

    def replicas(self) -> list[ReplicaReport]:
        """Return the running replicas, without this process."""
        return self._read("replicas", lambda cache: cache.operator.replicas())

    def verdicts(self) -> list[Verdict]:
        """Return the last verdicts."""
        return self._read("verdicts", lambda cache: cache.verdicts(), _FIRST_LOOK)

    def labels(self) -> list[Label]:
        """Return what the misses taught."""
        return self._read("labels", lambda cache: cache.operator.labels(), _FIRST_LOOK)

    def changes(self, count: int = 200) -> list[TuningChange]:
        """Return the last changes of the tuning, newest first."""
        return self._read(("changes", count), lambda cache: cache.tuning_history(count))

    def history(self, since: float, until: float, by: By) -> list[Period]:
        """Return what all replicas counted, oldest first; see `Operator.history`."""
        # of the last hour, so that what is shown during an outage is found
        what = ("history", since // 3_600, until // 3_600, by)
        return self._read(what, lambda cache: cache.operator.history(since, until, by=by))

    def audit(self, count: int = 500) -> list[AuditRecord]:
        """Return the other audited actions, newest first."""
        return self._read(("audit", count), lambda cache: cache.operator.audit_trail(count))

    def estimates(self, *, fresh: bool = False) -> Estimates:
        """Return estimates over the log, renewed after a change or when they are old.

        Args:
            fresh: Read the log now.
        """
        tuning = self.tuning()
        with self._estimating:
            found = self._estimates
            old = found is not None and time.time() - found.taken > _ESTIMATES_SECONDS
            if found is None or fresh or old or found.tuning != tuning:
                known = self._dropped
                newest = self.recorded().decisions[-_REPLAYED:]
                freshness = [item.counters.get("freshness", {}) for item in self.replicas()]
                found = Estimates(newest, self.verdicts(), tuning, freshness, self.labels())
                if known == self._dropped:
                    self._estimates = found
            return found

    def outcomes(self, count: int) -> list[Outcome]:
        """Return the outcomes of the last changes, newest first."""
        # a confirmation changes no value: what follows it is still the confirmed change's
        changes = [item for item in self.changes(2 * count + 1) if item.after][: count + 1]
        decisions, verdicts, tuning = self.recorded().decisions, self.verdicts(), self.tuning()
        found = []
        for number, change in enumerate(changes[:count]):
            if change.version not in self._expected:
                # replayed once: the lookups before it no longer change
                newest = decisions[-_REPLAYED:]
                self._expected[change.version] = expectation(change, newest, tuning)
            until = changes[number - 1].version if number else None
            expected = self._expected[change.version]
            without = self._without_it(change, decisions, until, tuning)
            found.append(outcome(change, decisions, verdicts, until, expected, without))
        return found

    def _without_it(
        self,
        change: TuningChange,
        decisions: Sequence[Decision],
        until: int | None,
        tuning: Tuning,
    ) -> float | None:
        """Return the result of `without_it`, which is renewed once a minute."""
        taken, found = self._without.get((change.version, until), (0.0, None))
        if time.time() - taken > _ESTIMATES_SECONDS:
            since = since_change(change, decisions, until)[-_REPLAYED:]
            found = without_it(change, since, tuning)
            self._without[change.version, until] = time.time(), found
        return found

    def stage_evidence(self, version: int) -> StageEvidence:
        """Return what the lookups and verdicts of a staged version say."""
        found = StageEvidence(version, self.settings.decisions)
        found.add(self.recorded().decisions, self.verdicts())
        return found

    def entries(self, message: str) -> list[StoredEntry]:
        """Return the entries for this message and its variants, of all users and contexts."""
        return self._ask(lambda cache: cache.operator.entries(message))

    def explain(self, message: str, user: str | None, context: Any) -> list[TierExplanation]:
        """Return each tier's answer; the first call loads the model."""
        return self._ask_all_tiers(lambda cache: cache.explain(message, user, context=context))

    # ------------------------------------------------------------------------------ writing

    def tune(
        self,
        changes: Mapping[str, Any],
        *,
        author: str,
        note: str,
        expected_version: int | None,
        stage: Stage | None = None,
    ) -> TuningChange:
        """Change the tuning of all replicas.

        Raises:
            ConfigurationError: For a value out of its bounds.
            TuningConflict: If somebody else changed it meanwhile.
        """
        return self._ask(
            lambda cache: cache.tune(
                changes, author=author, note=note, expected_version=expected_version, stage=stage
            )
        )

    def confirm(self, *, author: str, note: str, expected_version: int) -> TuningChange:
        """End the stage of a version, and keep it; raises `TuningConflict` for another one."""
        return self._ask(
            lambda cache: cache.confirm_tuning(
                author=author, note=note, expected_version=expected_version
            )
        )

    def revert(self, version: int, *, author: str, note: str) -> TuningChange:
        """Restore the tuning as of *version*."""
        return self._ask(lambda cache: cache.revert_tuning(version, author=author, note=note))

    def judge(self, decision: Decision, *, correct: bool, author: str) -> None:
        """Record whether a hit was right, or would have been."""
        self._ask(lambda cache: cache.operator.judge(decision, correct=correct, author=author))

    def withdraw(self, decision: Decision, *, author: str) -> None:
        """Take back the reviews of a lookup."""
        self._ask(lambda cache: cache.operator.withdraw(decision, author=author))

    def count(self, what: RequestKind, value: str, user: str | None = None) -> Invalidation:
        """Return the number of entries that `invalidate` would remove."""
        return self._ask_all_tiers(lambda cache: cache.operator.count(what, value, user))

    def invalidate(
        self, what: RequestKind, value: str, *, user: str | None, author: str, note: str
    ) -> Invalidation:
        """Invalidate answers."""
        done = self._ask_all_tiers(
            lambda cache: cache.operator.invalidate(what, value, user, author=author, note=note)
        )
        if what == "user":
            self._forget()
        return done

    def close(self) -> None:
        """Close the caches and the thread; idempotent."""
        self._caches.close()

    # ------------------------------------------------------------------------------ in the loop

    def _read(self, what: Hashable, work: Work[Result], seconds: float = _SECONDS) -> Result:
        """Return the result of *work*; while the store is unavailable, the last one."""
        known, outage, dropped = self._last(what), self.outage, self._dropped
        if known and outage and time.time() < outage.tried + _AGAIN_SECONDS:
            return known[0]  # type: ignore[no-any-return]
        try:
            found = self._ask(work, seconds)
        except SourceUnavailableError as error:
            self.outage = Outage(str(error), self._read_at, time.time())
            # a user may have been erased meanwhile
            if not (known := self._last(what)):
                raise
            return known[0]  # type: ignore[no-any-return]
        self.outage, self._read_at = None, time.time()
        with self._knowing:
            # what was read while a user was erased may have something of them
            if dropped == self._dropped:
                self._known[what] = found
                self._known.move_to_end(what)
                if len(self._known) > _KNOWN:
                    self._known.popitem(last=False)
        return found

    def _last(self, what: Hashable) -> tuple[Any] | None:
        """Return the last result of a read; `None` without one."""
        with self._knowing:
            return (self._known[what],) if what in self._known else None

    def _ask(self, work: Work[Result], seconds: float = _SECONDS) -> Result:
        """Return the result of *work* on the cache without a semantic tier."""

        async def ask() -> Result:
            return await work(await self._light())

        return self._caches.run(ask(), seconds)

    def _ask_all_tiers(self, work: Work[Result]) -> Result:
        """Return the result of *work* on the cache with all tiers, its model loaded."""

        async def ask() -> Result:
            return await work(await self._caches.full())

        return self._caches.run(ask(), _MODEL)

    async def _light(self) -> MultiLevelCache:
        cache = await self._caches.light()
        forgotten = await cache.operator.users_forgotten()
        if forgotten != self._users_forgotten:
            self._users_forgotten = forgotten
            self._forget()
        return cache

    async def _follow(self, cache: MultiLevelCache) -> Recorded:
        async with self._following:
            if self._tail is None:
                self._tail = DecisionTail(self.settings.decisions)
            return await self._tail.follow(cache.operator)

    def _forget(self) -> None:
        """Drop all data from the log: a user in it was erased."""
        self._tail = self._estimates = None
        with self._knowing:
            self._dropped += 1
            self._known.clear()
