"""Recorded traffic through a cache: what it would have answered, saved and got wrong."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cache_core.clock import ManualClock
from cache_core.decisions import Decision
from cache_core.embedder import ThreadEmbedder
from cache_core.exceptions import ConfigurationError
from cache_core.models import LookupResult
from cache_core.multilevel_cache import MultiLevelCache
from cache_core.settings import Settings

ScopeRule = Literal["private-flag", "all-private"]
ClockRule = Literal["rows", "none"]

_START = 1_700_000_000.0
_PATIENCE = 60.0
_FLUSH_EVERY = 100
"""Rows after which the decision log is written, before it leaves any out."""
_EMBEDDINGS_TIMED = 20


@dataclass(frozen=True, slots=True)
class Row:
    """One recorded request.

    Attributes:
        message, user_id: Who said what.
        answer_id: Ground truth: a cached reply is right if its answer id is equal.
        private: Whether the answer belongs to this user alone; `None` if the file doesn't say.
        history, standalone, intent, rag_results: As for `lookup` and `put`.
        t: Seconds since the first row.
    """

    message: str
    user_id: str | None = None
    answer_id: str | None = None
    private: bool | None = None
    history: tuple[Any, ...] = ()
    standalone: str | None = None
    intent: str | None = None
    rag_results: tuple[Any, ...] | None = None
    t: float | None = None


_TYPES: dict[str, tuple[type, ...]] = {
    "message": (str,),
    "user_id": (str,),
    "answer_id": (str,),
    "private": (bool,),
    "history": (list,),
    "standalone": (str,),
    "intent": (str,),
    "rag_results": (list,),
    "t": (int, float),
}


def read_rows(path: Path, limit: int | None = None) -> list[Row]:
    """Return the rows of a JSON Lines file.

    Raises:
        ConfigurationError: Naming the line, what is wrong with it, and what is expected.
    """
    rows: list[Row] = []
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if limit is not None and len(rows) >= limit:
                    break
                if line.strip():
                    rows.append(_row(line, f"{path.name} line {number}"))
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        raise ConfigurationError(msg) from None
    except UnicodeDecodeError as error:
        msg = f"{path} is not UTF-8 text: {error}"
        raise ConfigurationError(msg) from None
    if not rows:
        msg = f"{path} has no rows; each line must be an object with 'message' and 'user_id'"
        raise ConfigurationError(msg)
    return rows


def _row(line: str, where: str) -> Row:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        msg = f"{where}: not JSON ({error}); each line must be one object"
        raise ConfigurationError(msg) from None
    if not isinstance(values, dict) or not isinstance(values.get("message"), str):
        msg = f"{where}: expected an object with at least a text 'message' and a 'user_id'"
        raise ConfigurationError(msg)
    known: dict[str, Any] = {}
    for name, kinds in _TYPES.items():
        value = values.get(name)
        if value is None:
            continue
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            expected = " or ".join(kind.__name__ for kind in kinds)
            msg = f"{where}: {name} must be {expected}, not {type(value).__name__}"
            raise ConfigurationError(msg)
        if isinstance(value, float) and not math.isfinite(value):
            msg = f"{where}: {name} must be a finite number, not {value}"
            raise ConfigurationError(msg)
        known[name] = tuple(value) if isinstance(value, list) else value
    for turn in known.get("history", ()):
        if not isinstance(turn, (str, dict)):
            msg = f"{where}: a turn of history must be str or object, not {type(turn).__name__}"
            raise ConfigurationError(msg)
    try:
        json.dumps([known.get("history"), known.get("rag_results")], allow_nan=False)
    except (ValueError, RecursionError) as error:
        msg = f"{where}: history and rag_results must be JSON ({error})"
        raise ConfigurationError(msg) from None
    return Row(**known)


@dataclass(slots=True)
class Report:
    """What a replay found; *wrong* and *private_leaks* count hits."""

    scope: ScopeRule
    clock: ClockRule
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

    @property
    def hit_rate(self) -> float:
        """Hits of the requests that could be answered, 0..1."""
        answerable = self.requests - self.bypassed
        return self.hits / answerable if answerable else 0.0

    @property
    def wrong_share(self) -> float | None:
        """Wrong hits of the hits with ground truth, 0..1; `None` without any."""
        return self.wrong / self.judged if self.judged else None

    def count(self, row: Row, result: LookupResult) -> None:
        """Take in one row's result."""
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
            self.wrong += stored["answer_id"] != row.answer_id


def _leaks(row: Row, stored: dict[str, Any]) -> bool:
    return bool(stored["private"]) and stored["user_id"] != row.user_id


async def replay(
    rows: Sequence[Row],
    *,
    scope: ScopeRule,
    clock: ClockRule,
    embedder: ThreadEmbedder,
    threshold: float | None = None,
    decisions: int = 0,
    watch: Callable[[Row, LookupResult], None] = lambda _, __: None,
    progress: Callable[[int], None] = lambda _: None,
) -> Report:
    """Ask for each row in order, and store its answer when the cache has none.

    Nothing outside a temporary directory is read or written.

    Args:
        rows: The traffic.
        scope: `private-flag` shares the answers whose row says `private: false`; `all-private`
            shares nothing.
        clock: `rows` lets TTLs pass by the rows' `t`; `none` lets nothing expire.
        embedder: Ready; best with the rows' messages embedded ahead.
        threshold: Instead of the one in force.
        decisions: Lookups that the report's decision log keeps, the newest; 0 for none.
        watch: Called with each row and what it was answered.
        progress: Called with the number of rows done since the last call.
    """
    report = Report(scope, clock)
    started = time.perf_counter()
    time_of_row = ManualClock(_START)
    with tempfile.TemporaryDirectory(prefix="glasscache-replay-") as directory:
        async with MultiLevelCache(
            semantic_threshold=threshold,
            embedding_model=embedder,
            settings=_settings(Path(directory), decisions),
            instruments=(),
            clock=time_of_row,
        ) as cache:
            await cache.ready()
            for row in rows:
                if clock == "rows" and row.t is not None:
                    time_of_row.now = max(time_of_row.now, _START + row.t)
                watch(row, await _ask(cache, row, report))
                progress(1)
                if report.requests % _FLUSH_EVERY == 0:
                    await cache.parts.decisions.flush()
            report.metrics = cache.get_metrics()
            if decisions:
                await cache.parts.decisions.flush()
                report.decisions = await cache.decisions(decisions)
    report.seconds = time.perf_counter() - started
    return report


async def _ask(cache: MultiLevelCache, row: Row, report: Report) -> LookupResult:
    where: dict[str, Any] = {"history": list(row.history), "standalone": row.standalone}
    result = await cache.lookup(row.message, row.user_id, **where)
    report.count(row, result)
    if result.response is not None or result.outcome == "bypass":
        return result
    shared = not row.private if report.scope == "private-flag" and row.private is not None else None
    owner = {"answer_id": row.answer_id, "user_id": row.user_id, "private": row.private is True}
    documents = None if row.rag_results is None else [{**owner, "documents": row.rag_results}]
    await cache.put(
        row.message,
        row.user_id,
        json.dumps(owner),
        row.intent,
        documents,
        shared=shared,
        **where,
    )
    return result


def _settings(directory: Path, decisions: int) -> Settings:
    """Return settings that depend on nothing around: no server, no hurry."""
    return Settings().model_copy(
        update={
            "redis_url": None,
            "chroma_url": None,
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


async def time_embedding(embedder: ThreadEmbedder, rows: Sequence[Row]) -> float:
    """Return the median time of one embedding here, in milliseconds.

    A replay embeds its messages ahead in batches, so its lookups don't show what an embedding
    would have added to those that reach L2.
    """
    seconds: list[float] = []
    for number, row in enumerate(rows[:_EMBEDDINGS_TIMED]):
        started = time.perf_counter()
        await embedder.embed(f"{row.message} {number}")
        seconds.append(time.perf_counter() - started)
    return round(sorted(seconds)[len(seconds) // 2] * 1000, 3)


def as_json(report: Report, embedding_ms: float, other: Report | None) -> dict[str, Any]:
    """Return a report as JSON values; *other* is the same traffic under the other scope."""
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
