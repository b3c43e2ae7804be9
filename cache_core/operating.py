"""What whoever runs a cache calls: its life, its tuning, and a look inside."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self, get_args

from cache_core.advice import sharing_advice
from cache_core.decisions import Decision
from cache_core.engine import Engine
from cache_core.exceptions import BackendError
from cache_core.instrumentation import CacheState
from cache_core.parts import Parts
from cache_core.remedies import tell
from cache_core.settings import Settings
from cache_core.stats import CacheStats
from cache_core.tuning import Tuning
from cache_core.tuning_trail import TuningChange
from cache_core.verdicts import Source, Verdict

log = logging.getLogger("glasscache")


class OperatedCache:
    """The part of `MultiLevelCache` that is not about messages.

    Attributes:
        namespace: Caches with different namespaces share nothing.
        settings: What was fixed at the start.
    """

    namespace: str
    settings: Settings
    _engine: Engine

    # ------------------------------------------------------------------------------ life

    async def initialize(self) -> None:
        """Open the parts; idempotent. The embedding model goes on loading in the background.

        Never raises for a backend that is away: it is tried again.

        Raises:
            ConfigurationError: For a changed module constant that is out of bounds.
            RuntimeError: If the cache is already open in another running event loop.
        """
        await self._engine.open()

    async def ready(self) -> None:
        """Wait until the store is reached, ten seconds at most, and the model is loaded.

        Raises:
            BackendError: If the store was not reached.
            ConfigurationError: If the model cannot be loaded, or the extra is missing.
        """
        await self._engine.ready()

    async def close(self) -> None:
        """Write out what waits and close; idempotent. Use opens it again."""
        await self._engine.close()

    async def __aenter__(self) -> Self:
        await self.initialize()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def replica(self) -> str:
        """Name of this cache among those of its namespace."""
        return self._engine.replica

    @property
    def metrics(self) -> CacheStats:
        """What was counted."""
        return self._engine.stats

    @property
    def tuning(self) -> Tuning:
        """The values in force; another object after every change."""
        return self._engine.tuning

    @property
    def tuning_origins(self) -> dict[str, str]:
        """Where each value of the tuning comes from.

        `tuned` beats `the constructor`, that `a module constant` that was changed, that
        `the environment`, and that `default`.
        """
        origins = self._engine.live.origins
        return {field: origins.get(field, "default") for field in Tuning.bounds()}

    @property
    def is_open(self) -> bool:
        """Whether the store was reached; until then every lookup ends as an error."""
        return self._engine.running is not None

    @property
    def away(self) -> str:
        """Why the store was not reached when the cache was opened; empty when it was."""
        return "" if self.is_open else self._engine.away

    @property
    def unkept_invalidations(self) -> int:
        """Invalidations that could not be kept in the data directory until they are made."""
        return self._engine.unconfirmed.lost

    @property
    def state(self) -> CacheState | None:
        """How the cache is now: its backends and what waits; `None` while it is not open."""
        running = self._engine.running
        return running.housekeeper.state() if running is not None else None

    @property
    def parts(self) -> Parts:
        """The open parts, for tools that operate a cache.

        Raises:
            RuntimeError: If the cache is not open.
        """
        if self._engine.running is None:
            msg = "the cache is not open: await cache.initialize() first"
            raise RuntimeError(msg)
        return self._engine.running.parts

    @property
    def redis_client(self) -> Any:
        """The redis-py client; `None` when the embedded store is used."""
        return getattr(self.parts.store, "client", None) if self.is_open else None

    @property
    def chroma_collection(self) -> Any:
        """The Chroma collection of shared answers without a context; `None` when L2 is off."""
        semantic = self.parts.semantic if self.is_open else None
        return semantic.chroma.collection if semantic is not None else None

    # ------------------------------------------------------------------------------ tune

    async def tune(
        self,
        changes: Mapping[str, Any],
        *,
        author: str,
        note: str = "",
        expected_version: int | None = None,
        dry_run: bool = False,
    ) -> TuningChange:
        """Change the tuning of every replica of this namespace, within a second.

        Args:
            changes: Field to value; `None` returns a field to what each replica was started with.
                `intent.LABEL.FIELD` is one override of an intent, `intent.LABEL` all of them,
                `intents` those of all intents.
            author: Who changes it, for the audit trail; 1 to 200 characters.
            note: Why; up to 2,000 characters.
            expected_version: Refuse if somebody changed it since this version.
            dry_run: Only check, and say what would change.

        Returns:
            What changed; with an empty `after` nothing did, and no version was made.

        Raises:
            ConfigurationError: For a field that is none, or a value that is out of bounds.
            TuningConflict: If the version in force is not *expected_version*.
            BackendError: If the store is away. Whether a change that timed out was made, the
                history says.
        """
        await self._engine.started()
        return await self._engine.live.tune(
            changes,
            author=author,
            note=note,
            expected_version=expected_version,
            dry_run=dry_run,
        )

    async def revert_tuning(self, version: int, *, author: str, note: str = "") -> TuningChange:
        """Tune again exactly what was tuned as of *version*, as a new version; 0: nothing.

        Raises:
            ConfigurationError: If the audit trail does not have that version.
            BackendError: If the store is away.
        """
        await self._engine.started()
        return await self._engine.live.revert(version, author=author, note=note)

    async def stand_in(self) -> None:
        """Go by the values that the running replicas report, as far as they agree.

        For a tool: it was started with other values than the agents, whose answers it explains or
        invalidates. What somebody tuned beats them, as ever. Without a replica nothing changes.

        Raises:
            ConfigurationError: For a value that this version of the library refuses.
        """
        await self._engine.started()
        await self._engine.live.stand_in()

    async def tuning_history(self, limit: int = 100) -> list[TuningChange]:
        """Return the newest changes of the tuning, newest first; the last 1,000 are kept.

        Raises:
            BackendError: If the store is away.
        """
        await self._engine.started()
        return await self._engine.live.history(limit)

    # ------------------------------------------------------------------------------ see

    async def feedback(self, lookup_id: str, *, correct: bool, source: Source = "feedback") -> bool:
        """Record what a user said of a hit: a verdict, counted and kept for tuning.

        Args:
            lookup_id: Of the `LookupResult`.
            correct: Whether the answer was right.
            source: `review` for somebody who was shown the pair: then a lookup without an answer
                can be judged, too, and *correct* says whether the nearest question's answer would
                have been right.

        Returns:
            Whether it was recorded: the lookup was a hit, and the log still has it.

        Raises:
            ValueError: For another source.
        """
        if source not in get_args(Source):
            msg = f"source={source!r} is refused: one of {', '.join(get_args(Source))}"
            raise ValueError(msg)
        running = await self._engine.started()
        if running is None:
            self._engine.lost_feedback += 1
            return False
        try:
            return await running.verdicts.judge(lookup_id, correct=correct, source=source)
        except BackendError as error:
            self._engine.lost_feedback += 1
            tell("feedback was lost", error)
            return False

    async def judge(self, decision: Decision, *, correct: bool, source: Source = "review") -> bool:
        """Record a verdict on a decision that is at hand; as `feedback`, without finding it first.

        Returns:
            Whether it was recorded: it can be judged.

        Raises:
            BackendError: If the store is away.
        """
        running = await self._engine.started()
        if running is None:
            raise BackendError("backend_error")
        return await running.verdicts.judge_decision(decision, correct=correct, source=source)

    async def decisions(self, count: int = 10_000) -> list[Decision]:
        """Return the last *count* lookups of all replicas, oldest first.

        What was looked up within the last half second may be missing.

        Raises:
            BackendError: If the store is away.
        """
        running = await self._engine.started()
        if running is None:
            raise BackendError("backend_error")
        return await running.parts.decisions.last(count)

    async def verdicts(self, count: int = 10_000) -> list[Verdict]:
        """Return the last *count* verdicts of all replicas, oldest first.

        Raises:
            BackendError: If the store is away.
        """
        running = await self._engine.started()
        if running is None:
            raise BackendError("backend_error")
        return await running.verdicts.last(count)

    def get_metrics(self) -> dict[str, Any]:
        """Return what this cache counted, as JSON values.

        Keys: `hit_rates` (`overall`, `l1`..`l4`, in percent), `average_latency_ms`, `operations`
        (lookups), `cost_savings_usd`, `sharing` (what private answers cost, and how to share), and
        what else `CacheStats.snapshot` has.
        """
        return {
            **self.metrics.snapshot(),
            "sharing": sharing_advice(self.metrics, self.tuning),
            "namespace": self.namespace,
            "replica": self.replica,
        }

    def reset_metrics(self) -> None:
        """Count from zero again. Prometheus counters go on: they must never fall."""
        self.metrics.reset()

    def recent(self, count: int = 20) -> list[Decision]:
        """Return this replica's last decisions, newest last, up to 200."""
        running = self._engine.running
        return list(running.parts.decisions.recent)[-count:] if running is not None else []
