"""Totals are totals, or say that they are estimated from a sample."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from cache_core import MultiLevelCache
from cache_core.cli.stats import _print_stats, _stats
from cache_core.config.layers import make_tuning
from cache_core.config.tuning import Tuning
from cache_core.observability import decisions
from cache_core.operations.learning import Label
from dashboard.data import figures
from dashboard.data.estimates import Estimates
from dashboard.data.tail import DecisionTail, Recorded, frame_of
from tests.support.caches import CacheFactory
from tests.support.dashboard import Open, agent, open_app, texts
from tests.support.inside import inside
from tests.whatif.test_whatif import Log

__all__ = ["open_app"]


async def _burst(cache: MultiLevelCache, lookups: int) -> None:
    """Make more lookups between two flushes than the log takes."""
    for number in range(10):
        await cache.put(f"question number {number}", "ann", "answer")
    for start in range(0, lookups, 100):
        await asyncio.gather(
            *(cache.lookup(f"question number {n % 20}", "ann") for n in range(start, start + 100))
        )
    await cache._parts.decisions.flush()


@pytest.mark.slow
@pytest.mark.parametrize("store_kind", ["embedded"])
async def test_a_sample_is_weighed_and_said(
    make_cache: CacheFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    """Overview and `glasscache stats` show what the counters have, within the error of a sample."""
    cache = await make_cache(settings={"tiers": frozenset({"l1", "l3", "l4"})})
    await _burst(cache, 4_000)
    counted = cache.get_metrics()
    recorded = await DecisionTail().follow(cache.operator)
    assert len(recorded.decisions) < 4_000

    shown = figures.summarise(recorded.frame)

    assert shown.lookups == pytest.approx(counted["operations"], rel=0.01)
    assert shown.hits == pytest.approx(counted["outcomes"]["hit"], rel=0.15)
    assert shown.saved_usd == pytest.approx(counted["cost_savings_usd"], rel=0.15)
    assert sum(shown.ways.values()) == pytest.approx(4_000, rel=0.01)
    assert sum(shown.reasons.values()) == pytest.approx(2_000, rel=0.15)
    over = figures.over_time(recorded.frame, recorded.decisions[0].at, recorded.decisions[-1].at)
    assert over["lookups"].sum() == pytest.approx(4_000, rel=0.01)
    said = figures.sample(shown, recorded, 1_800.0, recorded.decisions[-1].at)
    assert "sample" in said
    assert f"1 in {4_000 / len(recorded.decisions):,.3g} lookups" in said

    await inside(cache).housekeeper.write_history()
    found = await _stats(cache)
    log = found["decisions"]
    assert log["lookups"] == pytest.approx(4_000, rel=0.01)
    assert log["kept"] == len(recorded.decisions)
    assert log["saved_usd"] == pytest.approx(counted["cost_savings_usd"], rel=0.15)
    assert found["history"]["all"]["lookups"] == 4_000
    _print_stats(found)
    assert "4,000" in capsys.readouterr().out


@pytest.mark.parametrize("store_kind", ["embedded"])
async def test_all_that_is_kept_is_no_sample(make_cache: CacheFactory) -> None:
    """While every lookup is recorded the sums are exact, and nothing is said of a sample."""
    cache = await make_cache(settings={"tiers": frozenset({"l1", "l3", "l4"})})
    await _burst(cache, 200)
    found = await _stats(cache)
    assert (found["decisions"]["lookups"], found["decisions"]["kept"]) == (200, 200)
    assert found["decisions"]["saved_usd"] == pytest.approx(cache.get_metrics()["cost_savings_usd"])
    recorded = await DecisionTail().follow(cache.operator)
    assert figures.sample(figures.summarise(recorded.frame), recorded, 60.0, 9e9) == ""


@pytest.mark.parametrize("store_kind", ["embedded"])
async def test_a_log_that_is_full_says_how_far_back_it_goes(make_cache: CacheFactory) -> None:
    """The page names the time that its figures cover if the log keeps less than was chosen."""
    cache = await make_cache(settings={"tiers": frozenset({"l1"}), "decisions": 100})
    await _burst(cache, 200)
    recorded = await DecisionTail(100).follow(cache.operator)
    now = recorded.decisions[-1].at
    said = figures.sample(figures.summarise(recorded.frame), recorded, 1_800.0, now)
    assert f"keeps the last {len(recorded.decisions)} lookups" in said
    assert "not of the whole time range" in said


@pytest.mark.parametrize(
    ("changes", "warns"),
    [
        ({"sharing": "all"}, True),
        ({"shared_intents": ["orders"]}, True),
        ({"intent.orders.shared": True}, True),
        ({"intent.faq.max_wrong": 0.01}, True),
        ({"max_wrong": 0.01}, True),
        ({"personal": "share"}, True),
        ({"promote_after": 3}, True),
        ({"guards": []}, True),
        ({"sharing": "private"}, False),
        ({"intent.faq.shared": False}, False),
        ({"response_usd": 1.0}, False),
    ],
)
def test_what_no_evidence_speaks_for_is_unjudged(changes: dict[str, Any], warns: bool) -> None:
    """Whatever serves answers more widely without evidence warns, and proposes a stage."""
    values = {"sharing": "intents", "shared_intents": ["faq"]}
    tuning = make_tuning(("the test", values))[0]
    assert Estimates([], [], tuning).unjudged(changes) is warns


def test_fresh_answers_speak_for_the_policy() -> None:
    """With enough of what it would serve newly judged, turning it on does not warn."""
    log = Log()
    for number in range(200):
        log.near(f"q{number}", "z", 0.8, least_max_wrong=0.004, chance=0.9)
    labels = [Label(item.at, "one", "a", 0.8, True, item.lookup_id) for item in log.decisions]
    share = {"max_wrong": 0.005}
    assert Estimates(log.decisions, [], Tuning(), labels=labels[:99]).unjudged(share)
    judged = Estimates(log.decisions, [], Tuning(), labels=labels[:100])
    assert not judged.unjudged(share)
    assert judged.unjudged({**share, "intent.faq.max_wrong": 0.1})
    assert judged.expected(share) == [("max_wrong", 1.0)]
    assert judged.unknown({"max_wrong": 0.0}) == ["max_wrong"]


def test_rows_of_older_versions_stand_for_themselves() -> None:
    """A decision without the number of lookups that it stands for is one."""
    values = [1, "id", "hit", "l1", "", [], None, None, 0.95, None, 0.1, 0.5, *"mmu", "", 1]
    row = decisions.FORMAT.parse(json.dumps([2, *values, "", "", "", {}, {}, "", "", ""]))
    assert row is not None
    assert row.stands_for == 1
    shown = figures.summarise(frame_of([row]))
    assert (shown.lookups, shown.hits, shown.saved_usd) == (1, 1, 0.5)
    weighed = figures.summarise(frame_of([row._replace(stands_for=8.0)]))
    assert (weighed.lookups, weighed.hits, weighed.saved_usd) == (8, 8, 4.0)
    assert figures.sample(weighed, Recorded((row,), frame_of([row])), None, 2.0)
    for wrong in (0, -1, float("nan"), 1e300, "2"):
        text = json.dumps([3, *values, "", "", "", {}, {}, "", "", "", wrong])
        assert decisions.FORMAT.parse(text) is None, wrong


@pytest.mark.slow
@pytest.mark.parametrize("store_kind", ["embedded"])
def test_the_page_says_it(open_app: Open, tmp_path: Path, store_kind: str) -> None:
    """The overview shows the estimated total, and that it is one."""
    settings = {"tiers": frozenset({"l1"})}
    with agent(tmp_path / "cache", None, settings=settings) as busy:
        busy.run(_burst(busy.cache, 3_000))
        app = open_app("overview")
        shown = {item.label: item.value for item in app.metric}
        assert int(shown["Lookups"].replace(",", "")) == pytest.approx(3_000, rel=0.01)
        assert "Estimated from a sample" in texts(app)
