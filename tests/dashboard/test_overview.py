"""Figures of the page *Overview*, as the plain values that it shows."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from cache_core.observability.decisions import Decision, Page
from cache_core.observability.fleet import ReplicaReport, parse
from cache_core.operations.explain import duration
from dashboard import charts
from dashboard.charts.theme import LIGHT
from dashboard.data import figures
from dashboard.data.tail import DecisionTail, frame_of


def decision(at: float, outcome: str = "hit") -> Decision:
    """Return a lookup."""
    return Decision(
        at=at, lookup_id=f"{at}", outcome=outcome, level="l1" if outcome == "hit" else "",
        reason="", reasons=(), similarity=None, unvetoed=None, threshold=0.95, age_seconds=None,
        seconds=0.01, saved_usd=0.03, message="m", matched="m", user="u", intent="",
        tuning_version=0,
    )  # fmt: skip


class Logged:
    """A log that returns what was appended, and drops the oldest in blocks, as Redis does."""

    def __init__(self) -> None:
        self.rows: list[Decision] = []

    async def decisions_after(self, position: str, count: int) -> Page:
        """Return the rows after a position."""
        start = int(position or 0)
        found = self.rows[start : start + count]
        return Page(found, str(start + len(found)), start + len(found) < len(self.rows))


async def test_two_dashboards_show_the_same() -> None:
    """An app has what the log keeps, whether it was started before the log was full or after."""
    log, early = Logged(), DecisionTail(100)
    for number in range(250):
        log.rows.append(decision(float(number)))
        if number % 40 == 0:
            await early.follow(log)  # type: ignore[arg-type]
    first = await early.follow(log)  # type: ignore[arg-type]
    second = await DecisionTail(100).follow(log)  # type: ignore[arg-type]
    assert first.decisions == second.decisions
    assert [item.at for item in first.decisions] == [float(n) for n in range(150, 250)]
    pd.testing.assert_frame_equal(first.frame, second.frame)
    assert first.full
    assert second.full


def test_a_rate_of_few_lookups_is_marked() -> None:
    """A hit rate of fewer than 15 lookups is a grey circle of its own, not part of the line."""
    rows = [decision(float(n)) for n in range(30)]
    rows += [decision(500.0), decision(999.0, "miss")]
    table = figures.over_time(frame_of(rows), 0.0, 1_000.0)
    known = table.dropna(subset=["hit_rate"])
    assert known["enough"].tolist() == [True, False, False]
    drawn = charts.hit_rate(table, 0.6, [], LIGHT)
    assert "last 100%" in drawn.alt
    written = json.dumps(drawn.spec, default=str)
    assert "circles: fewer than 15" in written
    assert '"type": "utc"' in written
    full = charts.hit_rate(table[table["enough"]], 0.6, [], LIGHT)
    assert "circles" not in json.dumps(full.spec, default=str)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 s"), (59.6, "1 min"), (90, "1 min 30 s"), (3_600, "1 h"), (6_552, "1 h 49 min"),
        (7_199, "2 h"), (86_400, "24 h"), (172_800, "2 days"), (183_600, "2 days 3 h"),
    ],
)  # fmt: skip
def test_durations_have_two_units(seconds: float, words: str) -> None:
    """1.82 h is 1 h 49 min."""
    assert duration(seconds) == words


def replica(**given: object) -> ReplicaReport:
    """Return the report of a heartbeat."""
    beat = {"replica": "r1", "pid": 7, "at": 1.0, "backends": {"embedded": True}, **given}
    found = parse(json.dumps(beat), 1.0)
    assert found is not None
    return found


def test_replicas_are_described_in_words() -> None:
    """One decimal everywhere, names that people know, and what could not be recorded."""
    counters = {
        "operations": 2_209, "hit_rates": {"overall": 63.74}, "cost_savings_usd": 13.119,
        "latency_ms": {"p50": 1.68, "p95": 111.9}, "judged_misses": {"right": 3, "wrong": 9, "unknown": 5},
    }  # fmt: skip
    works = {"embedded": True, "embedder": False}
    found = [replica(counters=counters, backends=works, dropped={"decisions": 283}), replica()]
    row, idle = figures.replica_rows(found).to_dict("records")
    assert row["hit rate"] == "63.7%"
    assert (row["median"], row["95th percentile"]) == ("1.7 ms", "112 ms")
    assert row["backends"] == "down: embedding model"
    assert idle["backends"] == "all up"
    assert figures.unrecorded(found) == 283
    assert figures.missed_hits(found) == (3, 12)
    assert figures.missed_hits([replica()]) == (0, 0)
    tiers = figures.tiers([replica(counters={"tiers": {"l1": {"hits": 1, "misses": 2}}})])
    assert tiers["hit rate"].tolist() == ["33.3%", "–", "–", "–"]
