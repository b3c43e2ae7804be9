"""Where the pages get their data: plain values, no Streamlit.

The app has caches of its own on the agent's store. They count nothing, and the one that most
pages use has no semantic tier: it opens in a moment and loads no model. The agent's process is
never asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from cache_core.audit import AUDIT, AuditLog, AuditRecord
from cache_core.exceptions import BackendError, ConfigurationError
from cache_core.housekeeping import replicas
from cache_core.live_tuning import TuningChange
from cache_core.models import Invalidation, TierExplanation
from cache_core.multilevel_cache import MultiLevelCache
from cache_core.settings import Settings, load_settings, without_secrets
from cache_core.tuning import Tuning, make_tuning, unflatten
from cache_core.verdicts import Verdict
from dashboard.background import Background
from dashboard.config import DashboardConfig
from dashboard.estimates import Estimates
from dashboard.tail import DecisionTail, Recorded

_SECONDS = 5.0
_FIRST_LOOK = 30.0
_MODEL = 120.0
_VALUES = 10
_ESTIMATES_SECONDS = 60.0
_REPLAYED = 25_000
"""Lookups that are replayed, the newest: 100,000 would keep the page waiting for ten seconds."""

Result = TypeVar("Result")
What = Literal["message", "document", "tag", "user"]


class SourceAwayError(Exception):
    """A source cannot be asked; the text says which, and what to do."""


@dataclass(frozen=True, slots=True)
class Replica:
    """A process with an open cache.

    Attributes:
        name: Of the replica.
        pid: Of its process.
        tuning_version: In force there.
        tuning: In force there; `None` if it does not say.
        backends: Whether each works.
        breakers: The state of each breaker.
        counters: As `get_metrics()` there.
        age_seconds: Since it last said so.
    """

    name: str
    pid: int
    tuning_version: int
    tuning: Tuning | None
    backends: Mapping[str, bool]
    breakers: Mapping[str, str]
    counters: Mapping[str, Any]
    age_seconds: float


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
        self._background = Background()
        self._light: MultiLevelCache | None = None
        self._full: MultiLevelCache | None = None
        self._tail: DecisionTail | None = None
        self._estimates: Estimates | None = None
        self._estimating = threading.Lock()
        self._opening = asyncio.Lock()
        self._following = asyncio.Lock()

    @property
    def where(self) -> str:
        """The store, as it may be shown."""
        if self.settings.redis_url:
            return without_secrets(self.settings.redis_url)
        return str(self.settings.dir)

    @property
    def kind(self) -> str:
        """What the store is."""
        return "Redis" if self.settings.redis_url else "embedded store"

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

    def judge(self, lookup_id: str, *, correct: bool, author: str) -> bool:
        """Record whether a hit was right; return whether the log still has it."""
        return self._run(self._judge(lookup_id, correct, author))

    def invalidate(
        self, what: What, value: str, *, user: str | None, author: str, note: str, dry_run: bool
    ) -> Invalidation:
        """Take answers out of service, or say how many would go."""
        return self._run(self._invalidate(what, value, user, author, note, dry_run), _MODEL)

    def close(self) -> None:
        """Close the caches and the thread; idempotent."""
        for cache in (self._full, self._light):
            if cache is not None:
                self._background.run(cache.close(), _SECONDS)
        self._light = self._full = None
        self._background.close()

    # ------------------------------------------------------------------------------ in the loop

    def _run(self, work: Coroutine[Any, Any, Result], timeout: float = _SECONDS) -> Result:
        try:
            return self._background.run(work, timeout)
        except (BackendError, TimeoutError) as error:
            raise SourceAwayError(
                f"The {self.kind} at {self.where} does not answer: {error}"
            ) from None

    async def _cache(self) -> MultiLevelCache:
        """Return the cache without a semantic tier."""
        async with self._opening:
            if self._light is None:
                tiers = self.settings.tiers - {"l2"}
                light = self.settings.model_copy(update={"tiers": tiers})
                self._light = self._made(light)
                await self._light.initialize()
            if not self._light.is_open:
                raise SourceAwayError(
                    f"The {self.kind} at {self.where} cannot be reached. It is tried again."
                )
            return self._light

    async def _semantic_cache(self) -> MultiLevelCache:
        """Return the cache with all tiers, its model loaded."""
        await self._cache()
        async with self._opening:
            if self._full is None:
                self._full = self._made(self.settings)
                await self._full.initialize()
            # Without the extra L2 is off, and `explain` says so.
            with contextlib.suppress(ConfigurationError):
                await self._full.ready()
            return self._full

    def _made(self, settings: Settings) -> MultiLevelCache:
        # It serves no lookups: no replica, to whoever counts them.
        silent = settings.model_copy(update={"heartbeat": False})
        return MultiLevelCache(settings=silent, namespace=self.config.namespace, instruments=())

    async def _tuning(self) -> Tuning:
        cache = await self._cache()
        alive = [item for item in await self._replicas() if item.tuning is not None]
        # A command serves no lookups, and was started with other values than the agent.
        serving = [item for item in alive if item.counters.get("operations")] or alive
        newest = max(serving, key=lambda item: item.tuning_version, default=None)
        mine = cache.tuning
        if newest is None or newest.tuning is None:
            return mine
        if newest.tuning_version >= mine.version:
            return newest.tuning
        # It has not reported since the last change.
        origins = cache.tuning_origins
        tuned = {
            name: value
            for name, value in mine.flat().items()
            if origins.get("intents" if name.startswith("intent.") else name) == "tuned"
        }
        layers = ("replica", unflatten({**newest.tuning.flat(), **tuned}))
        return make_tuning(layers, version=mine.version)[0]

    async def _recorded(self) -> Recorded:
        parts = (await self._cache()).parts
        async with self._following:
            if self._tail is None:
                self._tail = DecisionTail(parts.keys.own("decisions"))
            return await self._tail.follow(parts.store)

    async def _replicas(self) -> list[Replica]:
        parts = (await self._cache()).parts
        now = parts.store.now()
        return [_replica(beat, now) for beat in await replicas(parts)]

    async def _verdicts(self) -> list[Verdict]:
        return await (await self._cache()).verdicts()

    async def _changes(self, count: int) -> list[TuningChange]:
        return await (await self._cache()).tuning_history(count)

    async def _audit(self, count: int) -> list[AuditRecord]:
        return (await self._audit_log(await self._cache()).last(count))[::-1]

    async def _explain(self, message: str, user: str | None, context: Any) -> list[TierExplanation]:
        cache = await self._semantic_cache()
        return await cache.explain(message, user, context=context)

    async def _tune(
        self, changes: Mapping[str, Any], author: str, note: str, expected: int | None
    ) -> TuningChange:
        cache = await self._cache()
        return await cache.tune(changes, author=author, note=note, expected_version=expected)

    async def _revert(self, version: int, author: str, note: str) -> TuningChange:
        cache = await self._cache()
        return await cache.revert_tuning(version, author=author, note=note)

    async def _judge(self, lookup_id: str, correct: bool, author: str) -> bool:
        cache = await self._cache()
        record = await self._audit_log(cache).begin(
            author, "review", f"{lookup_id}: {'same' if correct else 'different'}"
        )
        known = await cache.feedback(lookup_id, correct=correct, source="review")
        await self._audit_log(cache).end(record, removed=0, complete=known)
        return known

    async def _invalidate(
        self, what: What, value: str, user: str | None, author: str, note: str, dry_run: bool
    ) -> Invalidation:
        cache = await self._semantic_cache()
        if dry_run:
            return await self._invalidation(cache, what, value, user, dry_run=True)
        log = self._audit_log(cache)
        target = self._shown(cache, what, value)
        record = await log.begin(author, f"invalidate {what}", target, note)
        done = await self._invalidation(cache, what, value, user, dry_run=False)
        await log.end(record, removed=done.removed, complete=done.complete)
        if what == "user":
            async with self._following:
                self._tail = None
        return done

    async def _invalidation(
        self, cache: MultiLevelCache, what: What, value: str, user: str | None, *, dry_run: bool
    ) -> Invalidation:
        match what:
            case "message":
                return await cache.invalidate(value, user, dry_run=dry_run)
            case "document":
                return await cache.invalidate_document(value, dry_run=dry_run)
            case "tag":
                return await cache.invalidate_tag(value, dry_run=dry_run)
            case "user":
                if dry_run:
                    keys, store = cache.parts.keys, cache.parts.store
                    index = await store.rows(keys.index("user", keys.user(value)))
                    names = [name for name, tag in index.items() if tag]
                    found = 0
                    for start in range(0, len(names), _VALUES):
                        values = await store.read(names[start : start + _VALUES])
                        found += sum(item is not None for item in values)
                    return Invalidation(found, complete=True)
                return await cache.forget_user(value)

    def _shown(self, cache: MultiLevelCache, what: What, value: str) -> str:
        """Return what was invalidated as the audit trail may keep it."""
        if self.captures or what in {"document", "tag"}:
            return value
        keys = cache.parts.keys
        digest = keys.query(value, None).tag if what == "message" else keys.user(value)
        return f"{what} {digest[:12]}"

    @staticmethod
    def _audit_log(cache: MultiLevelCache) -> AuditLog:
        return AuditLog(cache.parts.store, cache.parts.keys.own(AUDIT))


def _replica(beat: Mapping[str, Any], now: float) -> Replica:
    flat, values = beat.get("tuning"), None
    if isinstance(flat, Mapping):
        # A replica of another version may have other fields.
        with contextlib.suppress(ConfigurationError, ValueError, TypeError):
            version = int(beat.get("tuning_version", 0))
            values = make_tuning(("replica", unflatten(flat)), version=version)[0]
    return Replica(
        name=str(beat.get("replica", "")),
        pid=int(beat.get("pid", 0)),
        tuning_version=int(beat.get("tuning_version", 0)),
        tuning=values,
        backends=beat.get("backends", {}),
        breakers=beat.get("breakers", {}),
        counters=beat.get("counters", {}),
        age_seconds=max(0.0, now - float(beat.get("at", now))),
    )


# ---------------------------------------------------------------------------------- alerts


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert of Prometheus or Alertmanager.

    Attributes:
        name: Of the rule.
        state: `firing`, `pending` or `suppressed`.
        severity: As labelled.
        summary, description: In words.
        runbook: Where it says what to do.
        since: Seconds since the epoch; `None` if it does not say.
        labels: The others.
    """

    name: str
    state: str
    severity: str
    summary: str
    description: str
    runbook: str
    since: float | None
    labels: Mapping[str, str]


_HIDDEN = {"alertname", "severity"}


def alerts_of_prometheus(url: str, timeout: float = 3.0) -> list[Alert]:
    """Return what a Prometheus server says is firing or pending, worst first.

    Raises:
        SourceAwayError: If it cannot be asked.
    """
    found = _fetch(url, "/api/v1/alerts", timeout)
    items = found.get("data", {}).get("alerts", []) if isinstance(found, dict) else []
    return _by_severity(
        [_alert(item, str(item.get("state", "firing")), item.get("activeAt")) for item in items]
    )


def alerts_of_alertmanager(url: str, timeout: float = 3.0) -> list[Alert]:
    """Return the alerts that an Alertmanager has, worst first.

    Raises:
        SourceAwayError: If it cannot be asked.
    """
    found = _fetch(url, "/api/v2/alerts", timeout)
    items = found if isinstance(found, list) else []
    return _by_severity(
        [
            _alert(
                item,
                "suppressed" if item.get("status", {}).get("state") == "suppressed" else "firing",
                item.get("startsAt"),
            )
            for item in items
        ]
    )


def _fetch(url: str, path: str, timeout: float) -> Any:
    address = url.rstrip("/") + path
    if urllib.parse.urlsplit(address).scheme not in {"http", "https"}:
        raise SourceAwayError(f"{without_secrets(url)} is no http:// or https:// address.")
    try:
        with urllib.request.urlopen(address, timeout=timeout) as answer:  # noqa: S310 - checked
            return json.load(answer)
    except (OSError, ValueError) as error:
        raise SourceAwayError(f"{without_secrets(url)} cannot be asked: {error}") from None


def _alert(item: Mapping[str, Any], state: str, since: str | None) -> Alert:
    labels = {str(name): str(value) for name, value in item.get("labels", {}).items()}
    notes = item.get("annotations", {})
    return Alert(
        name=labels.get("alertname", "(no name)"),
        state=state,
        severity=labels.get("severity", "none"),
        summary=str(notes.get("summary", "")),
        description=str(notes.get("description", "")),
        runbook=str(notes.get("runbook_url", "")),
        since=_seconds(since),
        labels={name: value for name, value in labels.items() if name not in _HIDDEN},
    )


def _seconds(moment: str | None) -> float | None:
    if not moment:
        return None
    from datetime import datetime

    try:
        return datetime.fromisoformat(moment).timestamp()
    except ValueError:
        return None


def _by_severity(alerts: Sequence[Alert]) -> list[Alert]:
    order = {"critical": 0, "page": 0, "warning": 1, "info": 2}
    return sorted(
        alerts,
        key=lambda item: (item.state != "firing", order.get(item.severity, 3), item.name),
    )


def ago(at: float, now: float | None = None) -> str:
    """Return how long ago a moment was, in words."""
    seconds = max(0.0, (time.time() if now is None else now) - at)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
