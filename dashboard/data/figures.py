"""Figures of the overview, computed from recorded lookups: no Streamlit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cache_core.config.intents import INTENT_PATTERN
from cache_core.model.values import LEVELS, Level
from cache_core.observability.fleet import ReplicaReport
from cache_core.operations.explain import duration
from dashboard.data.tail import Recorded

WAYS = ("L1 exact", "L2 semantic", "partial", "miss", "error", "bypass")
"""Endings of a lookup, as the charts name them."""

TIER_NAMES: Mapping[Level, str] = {
    "l1": "L1 exact",
    "l2": "L2 semantic",
    "l3": "L3 intent",
    "l4": "L4 documents",
}

BACKEND_NAMES: Mapping[str, str] = {
    "redis": "Redis",
    "embedded": "SQLite",
    "chroma": "Chroma",
    "vectors": "vectors in Redis",
    "embedder": "embedding model",
}
"""Backends, as the pages name them."""

FREE_TEXT = "no label"
"""Name for all intents that are not labels."""

_BINS = 40
_CLOCKS_DIFFER = 60.0
"""Most seconds by which the store's clock may be ahead of this one."""
_FEWEST_BINS = 8
LEAST_IN_BIN = 15
"""Fewest lookups whose hit rate means something."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures of a period of recorded lookups.

    Attributes:
        lookups: Number of lookups.
        answerable: Number without those that bypassed the cache.
        hits: Number of hits.
        seconds: Time from the first to the last.
        saved_usd: Gross saving by hits.
        p50_ms, p95_ms: Latency of a lookup.
        ways: Number of lookups by ending, all of `WAYS`.
        reasons: Number of lookups without a response, by the last asked tier's reason.
        kept: Number of rows that these are counted or, for a sample, estimated from.
    """

    lookups: int
    answerable: int
    hits: int
    seconds: float
    saved_usd: float
    p50_ms: float
    p95_ms: float
    ways: Mapping[str, int]
    reasons: Mapping[str, int]
    kept: int = 0

    @property
    def hit_rate(self) -> float | None:
        """The hit rate, 0 to 1; `None` without lookups."""
        return self.hits / self.answerable if self.answerable else None

    @property
    def per_second(self) -> float:
        """Lookups per second."""
        return self.lookups / self.seconds if self.seconds > 0 else 0.0


def window(frame: pd.DataFrame, seconds: float | None, now: float) -> pd.DataFrame:
    """Return the lookups of the last *seconds*, `None` for all, without future ones."""
    if frame.empty:
        return frame
    first = float("-inf") if seconds is None else now - seconds
    return frame[frame["at"].between(first, now + _CLOCKS_DIFFER)]


def ways(frame: pd.DataFrame) -> pd.Series[Any]:
    """Return the ending of each lookup, one of `WAYS`."""
    found = frame["outcome"].astype("object")
    served = found == "hit"
    return found.mask(served & (frame["level"] == "l1"), WAYS[0]).mask(
        served & (frame["level"] != "l1"), WAYS[1]
    )


def summarise(frame: pd.DataFrame) -> Summary:
    """Return the figures of *frame*; a sampled row counts for all lookups it stands for."""
    weight = frame["stands_for"]
    outcomes = weight.groupby(frame["outcome"]).sum()
    lookups = round(weight.sum())
    ended = weight.groupby(ways(frame)).sum() if lookups else {}
    without = frame[frame["outcome"].isin(["partial", "miss", "error"]) & (frame["reason"] != "")]
    reasons = without["stands_for"].groupby(without["reason"]).sum().sort_values(ascending=False)
    milliseconds = frame["seconds"] * 1000
    return Summary(
        lookups=lookups,
        answerable=lookups - round(outcomes.get("bypass", 0)),
        hits=round(outcomes.get("hit", 0)),
        seconds=float(frame["at"].max() - frame["at"].min()) if len(frame) > 1 else 0.0,
        saved_usd=float((frame["saved_usd"] * weight).sum()),
        p50_ms=float(milliseconds.quantile(0.5)) if lookups else 0.0,
        p95_ms=float(milliseconds.quantile(0.95)) if lookups else 0.0,
        ways={name: round(ended.get(name, 0)) for name in WAYS},
        reasons={str(k): round(v) for k, v in reasons.items()},
        kept=len(frame),
    )


def sample(summary: Summary, recorded: Recorded, seconds: float | None, now: float) -> str:
    """Return a note if the figures do not cover all lookups; else empty.

    Args:
        summary: Figures of the period.
        recorded: All recorded lookups.
        seconds: Length of the period; `None` for all.
        now: Current time.
    """
    parts = []
    if summary.kept and summary.lookups > summary.kept:
        parts.append(
            f"Estimated from a sample: 1 in {summary.lookups / summary.kept:,.3g} lookups was kept."
        )
    log = recorded.decisions
    if log and seconds is not None and recorded.full and log[0].at > now - seconds:
        parts.append(
            f"The log keeps the last {len(log):,} lookups: these are of the last "
            f"{duration(now - log[0].at)}, not of the whole time range."
        )
    return " ".join(parts)


def over_time(frame: pd.DataFrame, start: float, end: float) -> pd.DataFrame:
    """Return the hit rate over time: `time`, `lookups`, `hit_rate` (0..1), `enough`, oldest first.

    Every bin of the period has a row; one without lookups has no hit rate, and that of fewer than
    `LEAST_IN_BIN` means little.
    """
    asked = frame[frame["outcome"] != "bypass"]
    # a rate of few lookups means little: use fewer and wider bins
    bins = min(_BINS, max(_FEWEST_BINS, len(asked) // LEAST_IN_BIN))
    width = max((end - start) / bins, 1.0)
    number = ((asked["at"] - start) // width).clip(0, bins - 1).astype(int)
    weight = asked["stands_for"]
    table = pd.DataFrame(
        {
            "lookups": weight.groupby(number).sum(),
            "hits": weight.where(asked["outcome"] == "hit", 0).groupby(number).sum(),
        }
    ).reindex(range(bins))
    table["lookups"] = table["lookups"].fillna(0)
    table["hit_rate"] = table["hits"] / table["lookups"].where(table["lookups"] > 0)
    table["enough"] = table["lookups"] >= LEAST_IN_BIN
    table["time"] = pd.to_datetime(start + (table.index + 0.5) * width, unit="s", utc=True)
    return table.reset_index(drop=True)[["time", "lookups", "hit_rate", "enough"]]


def latencies(frame: pd.DataFrame) -> pd.DataFrame:
    """Return `way`, `p50` and `p95` in ms and `lookups`, in the order of `WAYS`."""
    if frame.empty:
        return pd.DataFrame(columns=["way", "p50", "p95", "lookups"])
    groups = (frame["seconds"] * 1000).groupby(ways(frame))
    counts = frame["stands_for"].groupby(ways(frame)).sum().round().astype(int)
    table = pd.DataFrame(
        {"p50": groups.quantile(0.5), "p95": groups.quantile(0.95), "lookups": counts}
    )
    present = [name for name in WAYS if name in table.index]
    return table.loc[present].rename_axis("way").reset_index()


def milliseconds(value: float) -> str:
    """Return milliseconds with two digits below 1, one below 100, and none above."""
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def replica_rows(replicas: Sequence[ReplicaReport]) -> pd.DataFrame:
    """Return the replicas' figures since they started, in words, one row per replica."""
    return pd.DataFrame([_replica(item) for item in replicas])


def _replica(item: ReplicaReport) -> dict[str, str]:
    counters = item.counters
    latency = counters.get("latency_ms", {})
    down = [BACKEND_NAMES.get(name, name) for name, works in item.works.items() if not works]
    return {
        "replica": item.name,
        "lookups": f"{counters.get('operations', 0):,}",
        "hit rate": f"{counters.get('hit_rates', {}).get('overall', 0.0):.1f}%",
        "median": f"{milliseconds(latency.get('p50', 0.0))} ms",
        "95th percentile": f"{milliseconds(latency.get('p95', 0.0))} ms",
        "saved": f"{counters.get('cost_savings_usd', 0.0):,.2f} USD",
        "tuning": f"version {item.tuning_version}",
        "backends": f"down: {', '.join(down)}" if down else "all up",
        "process": str(item.pid),
    }


def unrecorded(replicas: Sequence[ReplicaReport]) -> int:
    """Return the number of lookups that the running replicas could not write into the log."""
    return sum(int(item.dropped.get("decisions", 0)) for item in replicas)


def missed_hits(replicas: Sequence[ReplicaReport]) -> tuple[int, int]:
    """Return the misses whose fresh answer was the nearest question's, and all with a verdict.

    Both since the replicas started.
    """
    counts = [item.counters.get("judged_misses", {}) for item in replicas]
    right, wrong = (sum(item.get(name, 0) for item in counts) for name in ("right", "wrong"))
    return right, right + wrong


def tiers(replicas: Sequence[ReplicaReport]) -> pd.DataFrame:
    """Return the tiers' figures on the replicas since they started, in words, one row per tier."""
    rows = []
    for level in LEVELS:
        counts = [item.counters.get("tiers", {}).get(level, {}) for item in replicas]
        hits = sum(item.get("hits", 0) for item in counts)
        misses = sum(item.get("misses", 0) for item in counts)
        rows.append(
            {
                "tier": TIER_NAMES[level],
                "hit rate": f"{hits / (hits + misses):.1%}" if hits + misses else "–",
                "hits": f"{hits:,}",
                "misses": f"{misses:,}",
                "errors": f"{sum(item.get('errors', 0) for item in counts):,}",
                "saved": f"{sum(item.get('saved_usd', 0.0) for item in counts):,.2f} USD",
            }
        )
    return pd.DataFrame(rows)


def backends(replicas: Sequence[ReplicaReport]) -> dict[str, tuple[int, int]]:
    """Return, by backend, the number of replicas where it works, and of all that have it."""
    found: dict[str, tuple[int, int]] = {}
    for item in replicas:
        for name, works in item.works.items():
            up, of = found.get(name, (0, 0))
            found[name] = (up + bool(works), of + 1)
    return dict(sorted(found.items()))


def withheld(frame: pd.DataFrame) -> pd.Series[Any]:
    """Return, by intent, the number of misses with another user's answer, most first.

    Text that is no label may name a person: it counts as `FREE_TEXT`.
    """
    if frame.empty:
        return pd.Series(dtype="int64")
    met = frame[frame["reasons"].map(lambda reasons: "other_scope" in reasons)]
    met = met[met["intent"] != ""]
    counts = met["stands_for"].groupby(met["intent"].map(_label)).sum().round().astype(int)
    return counts.sort_values(ascending=False)


def _label(intent: str) -> str:
    return intent if INTENT_PATTERN.fullmatch(intent) else FREE_TEXT
