"""Report of a soak: violations, availability, recovery and growth."""

from __future__ import annotations

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.soak.faults import SETTLE, Window

BUDGET = 0.5
"""Budget of a whole lookup, in seconds, from the settings."""

VIOLATIONS = ("wrong", "cross_user", "after_invalidation", "exception", "counting")
"""Violations, each of which fails the run."""
UNCONFIRMED = "after_invalidation_unconfirmed"

GAUGES = {
    "rss": "resident memory, bytes",
    "heap": "bytes that malloc has given out",
    "blocks": "Python objects",
    "fds": "open files",
    "threads": "threads",
    "tasks": "asyncio tasks beside the agents'",
    "lag": "event loop late by at most, s",
}
SERVER_GAUGES = {
    "connections": "Redis connections",
    "redis_memory": "Redis memory, bytes",
    "keys": "Redis keys",
    "chroma_rss": "Chroma's resident memory, bytes",
    "disk": "files of Chroma and SQLite, bytes",
}
_LEAST_SAMPLES = 8
_LEAST_SHARE = 0.6
_EXAMPLES = 5

Event = Mapping[str, Any]


@dataclass(slots=True)
class Run:
    """Recordings of a soak.

    Attributes:
        vectors: Engine of the shared answers.
        start, end: Begin and end of the run, in seconds since the epoch, including the warm-up.
        warm_up: Seconds at its beginning that no figure includes.
        windows: The faults.
        servers: Samples of the servers.
        events: Events of the replicas.
        troubles: Problems of the replicas' processes.
        log_lines: Number of the replicas' log lines.
        tracebacks: Number of tracebacks among them.
    """

    seed: int
    minutes: float
    replicas: int
    embedded: bool
    embedder: str
    vectors: str = "chroma"
    start: float = 0.0
    end: float = 0.0
    warm_up: float = 0.0
    windows: list[Window] = field(default_factory=list)
    servers: list[dict[str, Any]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    log_lines: int = 0
    tracebacks: int = 0

    def read(self, directory: Path) -> None:
        """Read the replicas' files in *directory*."""
        for path in sorted(directory.glob("events-*.jsonl")):
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    self.events.append(json.loads(line))
                except ValueError:  # of one that was killed while it wrote
                    continue
        self.events.sort(key=lambda event: event["t"])
        for path in directory.glob("log-*.txt"):
            text = path.read_text(encoding="utf-8", errors="replace")
            self.log_lines += text.count("\n")
            self.tracebacks += text.count("Traceback (most recent call last)")

    def of(self, *kinds: str) -> list[Event]:
        """Return the events of some kinds."""
        return [event for event in self.events if event["k"] in kinds]

    def window(self, at: float) -> Window | None:
        """Return the fault during which *at* lies."""
        for window in self.windows:
            if window.start - 0.5 <= at <= window.end + SETTLE:
                return window
        return None

    def is_paused(self, event: Event) -> bool:
        """Return whether its replica was paused meanwhile, so that the wait is not the cache's."""
        return any(
            window.name == "replica paused"
            and window.replica == event["n"]
            and event["t"] <= window.end + 0.5
            and event["t"] + event["s"] >= window.start
            for window in self.windows
        )


def _stores(run: Run) -> str:
    if run.vectors == "redis":
        return "redis-server 8 with vector sets"
    return "SQLite and Chroma, embedded" if run.embedded else "redis-server, chroma run"


def report(run: Run) -> dict[str, Any]:
    """Return the figures of a run, as JSON values."""
    found = [{**event, "k": _violation(run, event)} for event in run.of(*VIOLATIONS, UNCONFIRMED)]
    counted = Counter(event["k"] for event in found)
    violations = {kind: counted[kind] for kind in (*VIOLATIONS, UNCONFIRMED)}
    begin = run.start + run.warm_up
    lookups = [
        event for event in run.of("lookup") if event["t"] >= begin and not run.is_paused(event)
    ]
    by_fault: dict[str, list[Event]] = defaultdict(list)
    calm: list[Event] = []
    for event in lookups:
        window = run.window(event["t"])
        (calm if window is None else by_fault[window.name]).append(event)
    faulty = list(itertools.chain.from_iterable(by_fault.values()))
    done = run.of("invalidated")
    return {
        "passed": not run.troubles and not any(violations[kind] for kind in VIOLATIONS),
        "seed": run.seed,
        "minutes": run.minutes,
        "replicas": run.replicas,
        "stores": _stores(run),
        "embedder": run.embedder,
        "violations": violations,
        "examples": [
            example
            for kind in violations
            for example in [event for event in found if event["k"] == kind][:_EXAMPLES]
        ],
        "troubles": run.troubles,
        "lookups": {"all": _lookups(lookups), "calm": _lookups(calm), "faulty": _lookups(faulty)},
        "faults": {
            name: {
                "times": sum(window.name == name for window in run.windows),
                **_lookups(by_fault[name]),
                **_recovery(run, lookups, name),
            }
            for name in sorted({window.name for window in run.windows})
        },
        "other": {
            "puts": _seconds(run.of("put")),
            "get_or_compute beside compute": _seconds([e for e in run.of("computed") if e["led"]]),
            "invalidations": len(done),
            "invalidations pending at first": sum(not event["complete"] for event in done),
            "changes of the tuning": len(run.of("tuned")),
            "shed by the harness": len(run.of("shed")),
            "log lines": run.log_lines,
            "tracebacks": run.tracebacks,
        },
        "growth": _growth(run),
        "after closing": {
            "tasks": sum(len(event["tasks"]) for event in run.of("closed")),
            "files": [event["fds"] for event in run.of("closed")],
        },
    }


def _violation(run: Run, event: Event) -> str:
    """Return the kind of a violation.

    `get_or_compute` does not report whether its result was confirmed: while Redis fails it was
    not.
    """
    window = run.window(event["t"])
    hurt = window is not None and "redis" in window.backends
    kind = str(event["k"])
    if kind == "after_invalidation" and event["where"] == "get_or_compute" and hurt:
        return UNCONFIRMED
    return kind


def _lookups(events: Sequence[Event]) -> dict[str, Any]:
    seconds = sorted(event["s"] for event in events)
    asked = len(events)
    return {
        "lookups": asked,
        "availability": _share(sum(s <= BUDGET for s in seconds), asked),
        "availability_but_for_the_machine": _share(
            sum(event["s"] - event["late"] <= BUDGET for event in events), asked
        ),
        "hit_rate": _share(sum(event["o"] == "hit" for event in events), asked),
        "with_errors": _share(sum(bool(event["r"]) for event in events), asked),
        **_quantiles(seconds),
    }


def _seconds(events: Sequence[Event]) -> dict[str, Any]:
    return {"times": len(events), **_quantiles(sorted(event["s"] for event in events))}


def _quantiles(seconds: Sequence[float]) -> dict[str, float | None]:
    def at(share: float) -> float | None:
        if not seconds:
            return None
        return round(1000 * seconds[min(len(seconds) - 1, int(share * len(seconds)))], 3)

    return {"p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1)}


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None


def _recovery(run: Run, lookups: Sequence[Event], name: str) -> dict[str, Any]:
    """Return the seconds until the slowest replica's first lookup without an error.

    The time runs from the backend's first answer. The resolution depends on the rate of lookups.
    """
    found: list[float] = []
    last: list[float] = []
    for number, window in enumerate(run.windows):
        if window.name != name or not window.backends:
            continue
        later = run.windows[number + 1 :]
        until = later[0].start if later else run.end
        after = [event for event in lookups if window.end <= event["t"] < until]
        if "chroma" in window.backends:
            # an exact answer does not involve Chroma
            after = [event for event in after if event["tier"] != "l1"]
        clean: dict[int, float] = {}
        for event in after:
            if not event["r"]:
                clean.setdefault(event["n"], event["t"] - window.end)
        found += [max(clean.values())] if clean else []
        last.append(max((event["t"] - window.end for event in after if event["r"]), default=0.0))
    if not found:
        return {}
    return {
        "recovery_s": round(median(found), 3),
        "recovery_max_s": round(max(found), 3),
        "last_error_s": round(max(last), 3),
    }


# ---------------------------------------------------------------------------------- growth


def _growth(run: Run) -> dict[str, Any]:
    middle = run.start + (run.end - run.start) / 2
    seconds = run.end - middle
    lives: dict[tuple[int, int], list[Event]] = defaultdict(list)
    for event in run.of("sample"):
        if event["t"] >= middle and run.window(event["t"]) is None:
            lives[event["n"], event["life"]].append(event)
    whole = {
        life: events
        for life, events in lives.items()
        if events[-1]["t"] - events[0]["t"] >= _LEAST_SHARE * seconds
    }
    found: dict[str, Any] = {"seconds": round(seconds), "replicas": len(whole)}
    for gauge, words in GAUGES.items():
        series = [_series(events, gauge) for events in whole.values()]
        found[gauge] = _worst(words, series, seconds)
    calm = [e for e in run.servers if middle <= e["t"] <= run.end and run.window(e["t"]) is None]
    for gauge, words in SERVER_GAUGES.items():
        found[gauge] = _worst(words, [_series(calm, gauge)], seconds)
    return found


def _series(events: Iterable[Event], gauge: str) -> list[tuple[float, float]]:
    return [(e["t"], float(e[gauge])) for e in events if e.get(gauge) is not None]


def _worst(
    words: str, series: Sequence[Sequence[tuple[float, float]]], seconds: float
) -> dict[str, Any] | None:
    """Return the steepest of some replicas' lines, by the median of the slopes between samples."""
    lines = [line for line in series if len(line) >= _LEAST_SAMPLES]
    if not lines:
        return None
    slopes = [_slope(line) for line in lines]
    steepest = max(range(len(lines)), key=lambda number: abs(slopes[number]))
    values = [value for _, value in lines[steepest]]
    middle = median(values)
    return {
        "what": words,
        "median": round(middle, 4),
        "least": round(min(values), 4),
        "most": round(max(values), 4),
        "per_hour": [round(3600 * slope, 4) for slope in slopes],
        "drift": round(slopes[steepest] * seconds / middle, 5) if middle else 0.0,
    }


def _slope(line: Sequence[tuple[float, float]]) -> float:
    """Return the median of the slopes between all pairs of samples (Theil and Sen), per second."""
    return median(
        (later - value) / (t - at)
        for (at, value), (t, later) in itertools.combinations(line[:: 1 + len(line) // 300], 2)
        if t > at
    )


# ---------------------------------------------------------------------------------- showing


def show(found: Mapping[str, Any], console: Console) -> None:
    """Print a report for people."""
    violations = found["violations"]
    words = ", ".join(f"{kind.replace('_', ' ')} {n}" for kind, n in violations.items())
    style = "green" if found["passed"] else "red"
    console.print(f"[{style}]{'passed' if found['passed'] else 'FAILED'}[/]: {words}")
    for trouble in found["troubles"]:
        console.print(f"[red]{trouble}[/]")
    for example in found["examples"]:
        console.print(json.dumps(example), soft_wrap=True)
    rows = {**found["lookups"], **found["faults"]}
    table = Table(
        title=f"{found['replicas']} replicas, {found['minutes']} minutes, {found['stores']}"
    )
    columns: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "times": lambda row: str(row.get("times", "")),
        "lookups": lambda row: str(row["lookups"]),
        "in time": lambda row: _percent(row["availability"]),
        "but for a busy machine": lambda row: _percent(row["availability_but_for_the_machine"]),
        "hits": lambda row: _percent(row["hit_rate"]),
        "with errors": lambda row: _percent(row["with_errors"]),
        "p50 ms": lambda row: _number(row["p50_ms"]),
        "p99 ms": lambda row: _number(row["p99_ms"]),
        "max ms": lambda row: _number(row["max_ms"]),
        "recovery s (worst)": lambda row: (
            f"{row['recovery_s']} ({row['recovery_max_s']})" if "recovery_s" in row else ""
        ),
        "last error s": lambda row: _number(row.get("last_error_s")),
    }
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    for name, row in rows.items():
        table.add_row(name, *(cell(row) for cell in columns.values()))
    console.print(table)
    growth = Table(title=f"growth over the calm of the last {found['growth']['seconds']} s")
    for column in ("", "median", "least", "most", "per hour, each replica", "drift"):
        growth.add_column(column, justify="right" if column else "left")
    for gauge in (*GAUGES, *SERVER_GAUGES):
        row = found["growth"][gauge]
        if row is not None:
            growth.add_row(
                row["what"], _number(row["median"]), _number(row["least"]), _number(row["most"]),
                "  ".join(_number(slope) for slope in row["per_hour"]), _percent(row["drift"]),
            )  # fmt: skip
    console.print(growth)
    console.print(json.dumps(found["other"]), soft_wrap=True)
    console.print(json.dumps({"after closing": found["after closing"]}), soft_wrap=True)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f} %"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
