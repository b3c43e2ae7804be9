"""Base of `MultiLevelCache`: everything that is not about messages."""

from __future__ import annotations

import asyncio
import copy
import logging
import sys
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, get_args

from cache_core.config.settings import Settings
from cache_core.config.stage import Stage
from cache_core.config.trail import TuningChange
from cache_core.config.tuning import Tuning
from cache_core.model.exceptions import ConfigurationError
from cache_core.model.question.snapshot import at_once
from cache_core.model.remedies import OPENING
from cache_core.model.tasks import off_loop
from cache_core.observability.decisions import Decision
from cache_core.observability.instruments import CacheState
from cache_core.observability.stats import CacheStats
from cache_core.observability.verdicts import Source, Verdict
from cache_core.operations.arguments import check_flag, check_text, check_type, check_whole
from cache_core.operations.sightings import CARRIED
from cache_core.runtime.assembly import Parts
from cache_core.runtime.hosting import run_hosted
from cache_core.runtime.lifecycle import Engine
from cache_core.runtime.open import Open
from cache_core.runtime.operator import Operator
from cache_core.runtime.problems import Problem, problems
from cache_core.runtime.unavailable import Unavailable

log = logging.getLogger("glasscache")

Result = TypeVar("Result")

_CLOSE_SECONDS = 10.0
"""For another event loop to close what it has open."""


class OperatedCache:
    """The part of `MultiLevelCache` that is not about messages.

    Attributes:
        namespace: Caches with different namespaces share nothing.
        settings: What was fixed at the start.
    """

    namespace: str
    settings: Settings
    _engine: Engine
    _hosted: Engine | None

    # ------------------------------------------------------------------------------ life

    async def _on_current(
        self, work: Callable[[Open | Unavailable], Coroutine[Any, Any, Result]]
    ) -> Result:
        """Return *work* on the cache as of now: in this event loop, or in that of the host."""
        engine = self._engine
        if engine.is_home():
            cache = engine.cache
            return await work(cache if cache.reached else await engine.current())

        async def on(engine: Engine) -> Result:
            return await work(await engine.current())

        return await self._on_engine(on)

    async def _on_engine(self, work: Callable[[Engine], Coroutine[Any, Any, Result]]) -> Result:
        """Return *work* on the engine of this event loop, or on that in the host's thread."""
        own, hosted = self._engine, self._hosted
        # While the interpreter ends no other thread runs, and nothing can be opened.
        if sys.is_finalizing() or own.settle():
            return await work(own)
        if hosted is None or (own.holds_something and own.home is None):
            hosted = await off_loop(self._host)
        return await run_hosted(partial(work, hosted), CARRIED)

    def _host(self) -> Engine:
        raise NotImplementedError

    @property
    def _serving(self) -> Engine:
        """The engine that serves the caller."""
        return self._engine if self._engine.is_here() else self._hosted or self._engine

    async def initialize(self) -> None:
        """Open the parts; idempotent. The embedding model goes on loading in the background.

        Never raises for a backend that is unavailable: it is tried again.

        Raises:
            ConfigurationError: For a changed module constant that is out of bounds.
        """
        await self._on_engine(Engine.open)

    async def ready(self) -> None:
        """Wait until the store is reached, ten seconds at most, and the model is loaded.

        Raises:
            BackendError: If the store was not reached.
            ConfigurationError: If the model cannot be loaded, or the extra is missing.
        """
        await self._on_engine(Engine.ready)

    async def close(self) -> None:
        """Write out what waits and close, in all event loops; idempotent. Use opens it again."""
        if self._hosted is not None:
            await run_hosted(self._hosted.close)
        home = self._engine.home
        if home is None or self._engine.is_home():
            await self._engine.close()
        elif home.is_running():
            # That loop may stand still, and even wait for this.
            closing = asyncio.run_coroutine_threadsafe(self._engine.close(), home)
            await asyncio.wait({asyncio.wrap_future(closing)}, timeout=_CLOSE_SECONDS)

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
        return self._serving.replica

    @property
    def metrics(self) -> CacheStats:
        """The counts of this cache."""
        return self._engine.family.stats

    @property
    def tuning(self) -> Tuning:
        """The values in force; another object after every change."""
        return self._serving.tuning

    @property
    def tuning_origins(self) -> dict[str, str]:
        """Origin of each value of the tuning.

        `tuned` beats `the constructor`, that `a module constant` that was changed, that
        `the environment`, and that `default`.
        """
        origins = self._serving.live.origins
        return {field: origins.get(field, "default") for field in Tuning.bounds()}

    @property
    def is_open(self) -> bool:
        """True once the store was reached; until then every lookup ends as an error."""
        return self._serving.cache.reached

    @property
    def store_backend(self) -> Literal["redis", "embedded"]:
        """Kind of the keyed store of this cache."""
        return self._engine.store_backend

    @property
    def why_unavailable(self) -> str:
        """Reason why the store was not reached when the cache was opened; empty if it was."""
        cache = self._serving.cache
        return "" if isinstance(cache, Open) else cache.why

    @property
    def unkept_invalidations(self) -> int:
        """Invalidations that could not be kept in the data directory until they are made."""
        return self._serving.outbox.lost

    @property
    def state(self) -> CacheState | None:
        """State of the cache: its backends and queues; `None` while it is not open."""
        cache = self._serving.cache
        return cache.state() if cache.reached else None

    @property
    def problems(self) -> list[Problem]:
        """The backends that do not work, what each said, and what to do; empty for none."""
        state = self.state
        if state is None:
            return [Problem(self.store_backend, self.why_unavailable or OPENING)]
        return problems(self._parts, state)

    @property
    def operator(self) -> Operator:
        """Interface for dashboards and commands: queries of the cache and changes to it."""
        return Operator(self._on_engine, self.settings)

    @property
    def _parts(self) -> Parts:
        """The open parts.

        Raises:
            RuntimeError: If the cache is not open.
        """
        cache = self._serving.cache
        if isinstance(cache, Open):
            return cache.parts
        msg = "the cache is not open: await cache.initialize() first"
        raise RuntimeError(msg)

    @property
    def redis_client(self) -> Any:
        """The redis-py client; `None` when the embedded store is used."""
        return getattr(self._parts.store, "client", None) if self.is_open else None

    @property
    def chroma_collection(self) -> Any:
        """The Chroma collection of shared answers without a context; `None` when L2 is off."""
        semantic = self._parts.semantic if self.is_open else None
        return semantic.engine.collection if semantic is not None else None

    # ------------------------------------------------------------------------------ tune

    @at_once
    def tune(
        self,
        changes: Mapping[str, Any],
        *,
        author: str,
        note: str = "",
        expected_version: int | None = None,
        dry_run: bool = False,
        stage: Stage | None = None,
    ) -> Coroutine[Any, Any, TuningChange]:
        """Change the tuning of every replica of this namespace, within a second.

        Args:
            changes: Field to value; `None` returns a field to what each replica was started with.
                `intent.LABEL.FIELD` is one override of an intent, `intent.LABEL` all of them,
                `intents` those of all intents.
            author: Who changes it, for the audit trail; 1 to 200 characters.
            note: Why; up to 2,000 characters.
            expected_version: Refuse if somebody changed it since this version.
            dry_run: Only check, and say what would change.
            stage: Watch the change for a bounded time. A replica takes it back if its hits are
                wrong or its lookups fail more often than the stage permits, or if it has seen fewer
                than 10 lookups at the end, unless that would loosen a field; else it confirms it
                at the end. Until then only `revert_tuning` and `confirm_tuning` may follow.

        Returns:
            What changed; with an empty `after` nothing did, and no version was made.

        Raises:
            ConfigurationError: For a field that is none, a value that is out of bounds, a stage
                without a decision log, or while a change is staged.
            TuningConflict: If the version in force is not *expected_version*.
            BackendError: If the store is unavailable. Whether a change that timed out was made, the
                history says.
        """
        check_type("changes", changes, Mapping)
        check_flag("dry_run", dry_run)
        if expected_version is not None:
            check_whole("expected_version", expected_version)
        if stage is not None:
            check_type("stage", stage, Stage)
            if not self.settings.decisions:
                raise ConfigurationError(
                    "a stage is rejected while the decision log is off, because it would see no "
                    "lookup: switch the log on (CACHE_DECISIONS=10000), or change it without one"
                )
            stage = Stage.of(stage.seconds, stage.max_wrong, stage.max_errors)
        fixed = copy.deepcopy(dict(changes))

        return self._on_engine(
            lambda engine: engine.tune(
                fixed, author=author, note=note, expected_version=expected_version,
                dry_run=dry_run, stage=stage,
            )
        )  # fmt: skip

    async def confirm_tuning(
        self, *, author: str, note: str = "", expected_version: int | None = None
    ) -> TuningChange:
        """End the stage of the change in force, and keep the change, as a new version.

        Args:
            author: Who confirms it, for the audit trail; 1 to 200 characters.
            note: Why; up to 2,000 characters.
            expected_version: Refuse if another version is staged.

        Raises:
            ConfigurationError: If no change is staged.
            TuningConflict: If the stage ended meanwhile, or another version is staged.
            BackendError: If the store is unavailable.
        """
        if expected_version is not None:
            check_whole("expected_version", expected_version)

        return await self._on_engine(
            lambda engine: engine.confirm_tuning(
                author=author, note=note, expected=expected_version
            )
        )

    async def revert_tuning(self, version: int, *, author: str, note: str = "") -> TuningChange:
        """Tune again exactly what was tuned as of *version*, as a new version; 0: nothing.

        Raises:
            ConfigurationError: If the audit trail does not have that version, or a change is staged
                that has the same values.
            BackendError: If the store is unavailable.
        """
        check_whole("version", version)

        return await self._on_engine(
            lambda engine: engine.revert_tuning(version, author=author, note=note)
        )

    async def stand_in(self) -> None:
        """Go by the values that the running replicas report, as far as they agree.

        For a tool: it was started with other values than the agents, whose answers it explains or
        invalidates. What somebody tuned beats them, as ever. Without a replica nothing changes.

        Raises:
            ConfigurationError: For a value that this version of the library refuses.
        """
        await self._on_engine(Engine.stand_in)

    async def tuning_history(self, limit: int = 100) -> list[TuningChange]:
        """Return the newest changes of the tuning, newest first; the last 1,000 are kept.

        Raises:
            BackendError: If the store is unavailable.
        """
        check_whole("limit", limit)

        return await self._on_engine(lambda engine: engine.tuning_history(limit))

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
            TypeError: For an argument of another type.
            ValueError: For another source.
        """
        check_text("lookup_id", lookup_id)
        check_flag("correct", correct)
        _check_source(source)

        return await self._on_current(
            lambda cache: cache.feedback(lookup_id, correct=correct, source=source)
        )

    async def judge(self, decision: Decision, *, correct: bool, source: Source = "review") -> bool:
        """Record a verdict on a decision that is at hand; as `feedback`, without finding it first.

        Returns:
            Whether it was recorded: it can be judged.

        Raises:
            BackendError: If the store is unavailable.
            TypeError, ValueError: As `feedback`.
        """
        check_type("decision", decision, Decision)
        check_flag("correct", correct)
        _check_source(source)

        return await self._on_current(
            lambda cache: cache.judge(decision, correct=correct, source=source)
        )

    async def decisions(self, count: int = 10_000) -> list[Decision]:
        """Return the last *count* lookups of all replicas, oldest first.

        What was looked up within the last half second may be missing.

        Raises:
            BackendError: If the store is unavailable.
        """
        check_whole("count", count)

        return await self._on_current(lambda cache: cache.decisions(count))

    async def verdicts(self, count: int = 10_000) -> list[Verdict]:
        """Return the last *count* verdicts of all replicas, oldest first.

        Raises:
            BackendError: If the store is unavailable.
        """
        check_whole("count", count)

        return await self._on_current(lambda cache: cache.verdicts(count))

    def get_metrics(self) -> dict[str, Any]:
        """Return what this cache counted, as JSON values.

        Keys: `hit_rates` (`overall`, `l1`..`l4`, in percent), `average_latency_ms`, `operations`
        (lookups), `cost_savings_usd`, `sharing` (what private answers cost, and how to share),
        `churn` (the field of contexts, or histories, that changes with every request), and what
        else `CacheStats.snapshot` has.
        """
        return self._serving.metrics()

    def reset_metrics(self) -> None:
        """Count from zero again. Prometheus counters go on: they must never fall."""
        self.metrics.reset()

    def recent(self, count: int = 20) -> list[Decision]:
        """Return this replica's last decisions, newest last, up to 200."""
        check_whole("count", count)
        return self._serving.cache.recent(count)


def _check_source(source: object) -> None:
    if not isinstance(source, str) or source not in get_args(Source):
        msg = f"source={source!r} is refused: one of {', '.join(get_args(Source))}"
        raise ValueError(msg)
