"""What the overview shows, computed from recorded lookups: plain functions, no Streamlit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cache_core.models import LEVELS, Level
from dashboard.replica import Replica

WAYS = ("L1 exact", "L2 semantic", "partial", "miss", "error", "bypass")
"""How a lookup can end, as the charts name it."""

TIER_NAMES: Mapping[Level, str] = {
    "l1": "L1 exact",
    "l2": "L2 semantic",
    "l3": "L3 intent",
    "l4": "L4 documents",
}

REASONS: Mapping[str, str] = {
    "cold": "nothing stored",
    "expired": "expired",
    "invalidated": "invalidated",
    "other_scope": "another user has it",
    "below_threshold": "not similar enough",
    "guard_veto": "vetoed by a guard",
    "has_history": "a follow-up",
    "truncated": "too long for the model",
    "unreadable": "unknown characters",
    "context_limit": "too many contexts",
    "warming": "model still loading",
    "corrupt": "unreadable entry",
    "timeout": "timeout",
    "backend_error": "backend failed",
    "breaker_open": "backend is down",
    "overloaded": "overloaded",
    "isolation": "isolation stopped it",
}

_BINS = 40
_FEWEST_BINS = 8
_LOOKUPS_IN_BIN = 15


@dataclass(frozen=True, slots=True)
class Summary:
    """A stretch of recorded lookups.

    Attributes:
        lookups: In it.
        answerable: Without those that bypassed the cache.
        hits: Of those.
        seconds: From the first to the last.
        saved_usd: By hits, gross.
        p50_ms, p95_ms: Latency of a lookup.
        ways: Lookups by how they ended, all of `WAYS`.
        reasons: Lookups without a response, by the reason of the last tier that was asked.
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

    @property
    def hit_rate(self) -> float | None:
        """0..1; `None` without lookups."""
        return self.hits / self.answerable if self.answerable else None

    @property
    def per_second(self) -> float:
        """Lookups per second."""
        return self.lookups / self.seconds if self.seconds > 0 else 0.0


def window(frame: pd.DataFrame, seconds: float | None, now: float) -> pd.DataFrame:
    """Return the lookups of the last *seconds*; `None` for all."""
    if seconds is None or frame.empty:
        return frame
    # The log is in the order of time, but for what several replicas wrote at once.
    return frame[frame["at"] >= now - seconds]


def ways(frame: pd.DataFrame) -> pd.Series[Any]:
    """Return how each lookup ended, as one of `WAYS`."""
    found = frame["outcome"].astype("object")
    served = found == "hit"
    return found.mask(served & (frame["level"] == "l1"), WAYS[0]).mask(
        served & (frame["level"] != "l1"), WAYS[1]
    )


def summarise(frame: pd.DataFrame) -> Summary:
    """Return what *frame* amounts to."""
    outcomes = frame["outcome"].value_counts()
    lookups = len(frame)
    ended = ways(frame).value_counts() if lookups else {}
    without = frame.loc[frame["outcome"].isin(["partial", "miss", "error"]), "reason"]
    milliseconds = frame["seconds"] * 1000
    return Summary(
        lookups=lookups,
        answerable=lookups - int(outcomes.get("bypass", 0)),
        hits=int(outcomes.get("hit", 0)),
        seconds=float(frame["at"].max() - frame["at"].min()) if lookups > 1 else 0.0,
        saved_usd=float(frame["saved_usd"].sum()),
        p50_ms=float(milliseconds.quantile(0.5)) if lookups else 0.0,
        p95_ms=float(milliseconds.quantile(0.95)) if lookups else 0.0,
        ways={name: int(ended.get(name, 0)) for name in WAYS},
        reasons={str(k): int(v) for k, v in without[without != ""].value_counts().items()},
    )


def over_time(frame: pd.DataFrame, start: float, end: float) -> pd.DataFrame:
    """Return the hit rate over time: `time`, `lookups`, `hit_rate` (0..1), oldest first.

    Every part of the stretch has a row; one without lookups has no hit rate.
    """
    asked = frame[frame["outcome"] != "bypass"]
    # Of few lookups a rate says little: fewer and wider parts then.
    bins = min(_BINS, max(_FEWEST_BINS, len(asked) // _LOOKUPS_IN_BIN))
    width = max((end - start) / bins, 1.0)
    number = ((asked["at"] - start) // width).clip(0, bins - 1).astype(int)
    groups = asked.groupby(number)["outcome"]
    table = pd.DataFrame(
        {"lookups": groups.size(), "hits": groups.apply(lambda of: int((of == "hit").sum()))}
    ).reindex(range(bins))
    table["lookups"] = table["lookups"].fillna(0)
    table["hit_rate"] = table["hits"] / table["lookups"].where(table["lookups"] > 0)
    table["time"] = pd.to_datetime(start + (table.index + 0.5) * width, unit="s", utc=True)
    return table.reset_index(drop=True)[["time", "lookups", "hit_rate"]]


def latencies(frame: pd.DataFrame) -> pd.DataFrame:
    """Return `way`, `p50` and `p95` in ms and `lookups`, in the order of `WAYS`."""
    if frame.empty:
        return pd.DataFrame(columns=["way", "p50", "p95", "lookups"])
    groups = (frame["seconds"] * 1000).groupby(ways(frame))
    table = pd.DataFrame(
        {"p50": groups.quantile(0.5), "p95": groups.quantile(0.95), "lookups": groups.size()}
    )
    present = [name for name in WAYS if name in table.index]
    return table.loc[present].rename_axis("way").reset_index()


def tiers(replicas: Sequence[Replica]) -> pd.DataFrame:
    """Return what each tier did on the replicas since they started, one row for a tier."""
    rows = []
    for level in LEVELS:
        counts = [item.counters.get("tiers", {}).get(level, {}) for item in replicas]
        hits = sum(item.get("hits", 0) for item in counts)
        misses = sum(item.get("misses", 0) for item in counts)
        rows.append(
            {
                "tier": TIER_NAMES[level],
                "hits": hits,
                "misses": misses,
                "errors": sum(item.get("errors", 0) for item in counts),
                "hit_rate": hits / (hits + misses) if hits + misses else None,
                "saved_usd": sum(item.get("saved_usd", 0.0) for item in counts),
            }
        )
    return pd.DataFrame(rows)


def backends(replicas: Sequence[Replica]) -> dict[str, tuple[int, int]]:
    """Return for each backend on how many replicas it works, and how many have it."""
    found: dict[str, tuple[int, int]] = {}
    for item in replicas:
        for name, works in item.backends.items():
            up, of = found.get(name, (0, 0))
            found[name] = (up + bool(works), of + 1)
    return dict(sorted(found.items()))


def withheld(frame: pd.DataFrame) -> pd.Series[Any]:
    """Return by intent how many lookups missed an answer that another user had, most first."""
    if frame.empty:
        return pd.Series(dtype="int64")
    found = frame.loc[frame["reasons"].map(lambda reasons: "other_scope" in reasons), "intent"]
    return found[found != ""].value_counts()
