"""Replay of recorded traffic through a real cache: hits, savings and errors."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cache_core.backends.clock import ManualClock
from cache_core.backends.embedder.pool import ThreadEmbedder
from cache_core.config.settings import Settings
from cache_core.model.values import Context, LookupResult
from cache_core.multilevel_cache import MultiLevelCache
from cache_core.observability.decisions import Decision
from cache_core.operations.arguments import MAX_ANSWER_ID_CHARS
from cache_core.operations.learning import Label

ScopeRule = Literal["private-flag", "all-private", "auto", "all-shared"]
ClockRule = Literal["rows", "none"]
PolicyRule = Literal["threshold", "guarded", "learned"]
"""Rule by which L2 serves: similarity alone, similarity and guards, or the learned policy."""

MAX_WRONG = 0.01
"""Share of hits that may be wrong, where `learned` is replayed without another one."""


@dataclass(frozen=True, slots=True)
class Serving:
    """Rule by which a replayed cache serves semantic hits.

    Attributes:
        policy: `threshold` serves by similarity alone, `guarded` also by the guards, `learned` by
            what the misses taught, within *max_wrong*.
        threshold: Replaces the threshold in force.
        max_wrong: Share of hits that may be wrong under `learned`, 0 to 0.2.
    """

    policy: PolicyRule = "guarded"
    threshold: float | None = None
    max_wrong: float = MAX_WRONG


GUARDED = Serving()

_START = 1_700_000_000.0
_REAL = 500_000_000.0
"""Times above this are seconds since the epoch, not since the first row."""

_PATIENCE = 60.0
_FLUSH_EVERY = 10
"""Rows between two flushes of the decision log, each of which asks the policy about ten lookups."""
_EMBEDDINGS_TIMED = 20


@dataclass(frozen=True, slots=True)
class TrafficRow:
    """One recorded request.

    Attributes:
        message, user_id: The message and its user; without a user only shared answers are used.
        answer_id: Ground truth: a cached reply with an equal id is right.
        private: Whether the answer belongs to this user alone; `None` if unknown.
        context, history, standalone, intent, rag_results: Arguments of `lookup` and `put`.
        t: Time in seconds, from any origin.
    """

    message: str
    user_id: str | None = None
    answer_id: str | None = None
    private: bool | None = None
    context: Context = None
    history: tuple[Any, ...] | None = None
    standalone: str | None = None
    intent: str | None = None
    rag_results: tuple[Any, ...] | None = None
    t: float | None = None


@dataclass(slots=True)
class Report:
    """Result of a replay; *wrong* and *private_leaks* count hits."""

    scope: ScopeRule
    clock: ClockRule
    policy: PolicyRule = "guarded"
    requests: int = 0
    bypassed: int = 0
    hits: int = 0
    partial: int = 0
    served_by: dict[str, int] = field(default_factory=lambda: {"l1": 0, "l2": 0})
    judged: int = 0
    wrong: int = 0
    private_leaks: int = 0
    seconds: float = 0.0
    metrics: dict[str, Any] = field(default_factory=dict)
    decisions: list[Decision] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)

    @property
    def hit_rate(self) -> float:
        """Share of hits among the requests that could be answered, 0 to 1."""
        answerable = self.requests - self.bypassed
        return self.hits / answerable if answerable else 0.0

    @property
    def wrong_share(self) -> float | None:
        """Share of wrong hits among those with ground truth, 0 to 1; `None` without any."""
        return self.wrong / self.judged if self.judged else None

    def count(self, row: TrafficRow, result: LookupResult) -> None:
        """Count one row's result."""
        self.requests += 1
        self.bypassed += result.outcome == "bypass"
        self.partial += result.outcome == "partial"
        if result.rag_results:
            self.private_leaks += _leaks(row, result.rag_results[0])
        if result.response is None or result.tier is None:
            return
        self.hits += 1
        self.served_by[result.tier] += 1
        stored = json.loads(result.response)
        self.private_leaks += _leaks(row, stored)
        if row.answer_id is not None and stored["answer_id"] is not None:
            self.judged += 1
            right = (row.answer_id, _context(row))
            self.wrong += (stored["answer_id"], stored["context"]) != right


def _context(row: TrafficRow) -> str:
    """Return a row's context in a comparable form."""
    return json.dumps(row.context or None, sort_keys=True)


def _leaks(row: TrafficRow, stored: dict[str, Any]) -> bool:
    return bool(stored["private"]) and stored["user_id"] != row.user_id


async def replay(
    rows: Sequence[TrafficRow],
    *,
    scope: ScopeRule,
    clock: ClockRule,
    embedder: ThreadEmbedder,
    serving: Serving = GUARDED,
    decisions: int = 0,
    watch: Callable[[TrafficRow, LookupResult], None] = lambda _, __: None,
) -> Report:
    """Look up each row in order, and store its answer if the cache has none.

    It reads and writes only a temporary directory.

    Args:
        rows: The traffic.
        scope: `private-flag` shares the answers whose row says `private: false`; `all-private`
            shares nothing, `auto` what enough users got, `all-shared` everything. Under `auto` rows
            with one `answer_id` have one text, and those of `private: true` one for each user.
        clock: `rows` advances time by the rows' `t`; with `none` nothing expires.
        embedder: A loaded embedder; best with the rows' messages embedded in advance.
        serving: Rule for semantic hits.
        decisions: Number of newest lookups in the report's decision log; 0 for none, and no labels.
        watch: Called with each row and its result.
    """
    report = Report(scope, clock, serving.policy)
    started = time.perf_counter()
    first = next((row.t for row in rows if row.t is not None), 0.0)
    # answers that depend on a day end with it, so real times are kept
    begin = first if first > _REAL else _START
    time_of_row = ManualClock(begin)
    with tempfile.TemporaryDirectory(prefix="glasscache-replay-") as directory:
        async with MultiLevelCache(
            semantic_threshold=serving.threshold,
            embedding_model=embedder,
            settings=_settings(Path(directory), decisions),
            instruments=(),
            clock=time_of_row,
        ) as cache:
            await cache.ready()
            changes = {**_changes(serving), **({"sharing": "auto"} if scope == "auto" else {})}
            if changes:
                await cache.tune(changes, author="replay")
            for row in rows:
                if clock == "rows" and row.t is not None:
                    time_of_row.now = max(time_of_row.now, begin + row.t - first)
                watch(row, await _ask(cache, row, report))
                if report.requests % _FLUSH_EVERY == 0:
                    await cache.operator.flush_decisions()
            report.metrics = cache.get_metrics()
            if decisions:
                await cache.operator.flush_decisions()
                report.decisions = await cache.decisions(decisions)
                report.labels = await cache.operator.labels()
    report.seconds = time.perf_counter() - started
    return report


def _changes(serving: Serving) -> dict[str, Any]:
    """Return the tuning that makes a cache serve as *serving* says."""
    match serving.policy:
        case "threshold":
            return {"guards": []}
        case "guarded":
            return {}
        case "learned":
            return {"max_wrong": serving.max_wrong}


async def _ask(cache: MultiLevelCache, row: TrafficRow, report: Report) -> LookupResult:
    where: dict[str, Any] = {
        "context": row.context,
        "history": list(row.history or ()),
        "standalone": row.standalone,
    }
    result = await cache.lookup(row.message, row.user_id, **where)
    report.count(row, result)
    if result.response is not None or result.outcome == "bypass":
        return result
    private = row.private is True
    # What every user gets is the same text: under `auto` that decides.
    whose = row.user_id if private or row.answer_id is None else ""
    owner = {"answer_id": row.answer_id, "user_id": whose, "private": private,
             "context": _context(row)}  # fmt: skip
    documents = None if row.rag_results is None else [{**owner, "documents": row.rag_results}]
    await cache.put(
        row.message,
        row.user_id,
        json.dumps(owner),
        row.intent,
        documents,
        shared=_shared(row, report.scope),
        answer_id=_answer_id(row),
        **where,
    )
    return result


def _answer_id(row: TrafficRow) -> str | None:
    """Return the name of a row's answer, if it is known and has a length that a cache takes."""
    known = row.answer_id or ""
    return known if 0 < len(known) <= MAX_ANSWER_ID_CHARS else None


def _shared(row: TrafficRow, scope: ScopeRule) -> bool | None:
    if scope == "all-shared":
        return True
    return not row.private if scope == "private-flag" and row.private is not None else None


def _settings(directory: Path, decisions: int) -> Settings:
    """Return settings that depend on no server and no time."""
    return Settings().model_copy(
        update={
            "redis_url": None,
            "chroma_url": None,
            "vectors": "chroma",
            "dir": directory,
            "decisions": decisions,
            "exact_budget": _PATIENCE,
            "embedding_budget": _PATIENCE,
            "search_budget": _PATIENCE,
            "lookup_budget": _PATIENCE,
            "put_budget": _PATIENCE,
            "hedge_delay": _PATIENCE,
        }
    )


async def time_embedding(embedder: ThreadEmbedder, rows: Sequence[TrafficRow]) -> float:
    """Return the median time of one embedding on this machine, in milliseconds.

    A replay embeds its messages in advance in batches, so its lookups lack this time of those that
    reach L2.
    """
    seconds: list[float] = []
    for number, row in enumerate(rows[:_EMBEDDINGS_TIMED]):
        started = time.perf_counter()
        await embedder.embed(f"{row.message} {number}")
        seconds.append(time.perf_counter() - started)
    return round(sorted(seconds)[len(seconds) // 2] * 1000, 3)


def as_json(report: Report, embedding_ms: float, other: Report | None) -> dict[str, Any]:
    """Return a report as JSON values; *other* is of the same traffic under the other scope."""
    metrics = report.metrics
    share = report.wrong_share
    found = {
        "requests": report.requests,
        "hits": report.hits,
        "hit_rate": round(report.hit_rate, 4),
        "partial": report.partial,
        "served_by": report.served_by,
        "judged": report.judged,
        "wrong": report.wrong if report.judged else None,
        "wrong_share": None if share is None else round(share, 5),
        "private_leaks": report.private_leaks,
        "miss_reasons": metrics["miss_reasons"],
        "outcomes": metrics["outcomes"],
        "latency_ms": {**metrics["latency_ms"], "embedding_p50": embedding_ms,
                       "embedding_included": False},
        "saved_usd": round(metrics["cost_savings_usd"], 2),
        "scope": report.scope,
        "clock": report.clock,
        "policy": report.policy,
        "missed_hit_rate": metrics["missed_hit_rate"],
        "sharing": metrics["sharing"],
        "seconds": round(report.seconds, 1),
    }  # fmt: skip
    if other is not None:
        found["other_scope"] = {
            "scope": other.scope,
            "hits": other.hits,
            "hit_rate": round(other.hit_rate, 4),
            "wrong": other.wrong if other.judged else None,
            "wrong_share": None if other.wrong_share is None else round(other.wrong_share, 5),
            "private_leaks": other.private_leaks,
            "saved_usd": round(other.metrics["cost_savings_usd"], 2),
        }
    return found
