"""The page *History*: money against what it would have cost, periods compared, intents."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from cache_core.observability.history import DAY, Period, total
from cache_core.observability.sums import IntentSums, Sums
from dashboard import charts
from dashboard.charts.theme import LIGHT
from dashboard.data import history

NOON = datetime(2026, 3, 10, 12, 30, tzinfo=UTC).timestamp()
MIDNIGHT = int(NOON // DAY * DAY)


def sums(hits: int, misses: int, saved: float = 0.0, spent: float = 0.0) -> Sums:
    """Return what was counted in a period; every miss cost 0.04."""
    return Sums(
        outcomes={"hit": hits, "miss": misses}, hits={"l1": hits}, saved={"l1": saved},
        spent_usd=spent, unanswered_usd=0.04 * misses,
    )  # fmt: skip


def test_the_last_days_and_those_before_them() -> None:
    """A day is 24 hours; several are days of UTC, the last one up to now."""
    later, earlier = history.last(1, NOON)
    assert later.until - later.since == 23.5 * 3_600
    assert earlier.until == later.since
    assert earlier.days == 1
    later, earlier = history.last(7, NOON)
    assert (later.since, later.until) == (MIDNIGHT - 6 * DAY, NOON)
    assert (earlier.since, earlier.until) == (MIDNIGHT - 13 * DAY, MIDNIGHT - 6 * DAY)
    span = history.between(date(2026, 3, 1), date(2026, 3, 1))
    assert (span.since % DAY, span.days) == (0, 1)


def test_money_is_what_it_would_have_cost() -> None:
    """Money saved, net, and money paid add up to the cost without the cache."""
    periods = [
        Period(MIDNIGHT - DAY, DAY, sums(100, 50, saved=4.0, spent=0.5)),
        Period(MIDNIGHT, DAY, sums(10, 0, saved=0.4)),
    ]
    table = history.table(periods)
    assert table["without_cache_usd"].tolist() == [6.0, 0.4]
    assert table["saved_usd"].tolist() == [3.5, 0.4]
    assert table["paid_usd"].tolist() == [2.5, 0.0]
    assert table["hit_rate"].tolist() == [100 / 150, 1.0]
    drawn = charts.money(table, "day", LIGHT)
    assert drawn.alt == "Money per day: 3.90 USD saved of 6.40 USD."
    assert total(periods).saved_share == pytest.approx(3.9 / 6.4)


@pytest.mark.parametrize(("count", "step"), [(1, 1), (2, 1), (8, 1), (30, 4)])
def test_no_day_is_labelled_twice(count: int, step: int) -> None:
    """The axis has its marks at whole days, eight at most."""
    periods = [Period(MIDNIGHT + day * DAY, DAY, sums(2, 1)) for day in range(count)]
    drawn = charts.rates(history.table(periods), "day", 0.6, LIGHT)
    axes = [layer["encoding"]["x"]["axis"] for layer in drawn.spec["layer"]
            if "axis" in layer["encoding"].get("x", {})]  # fmt: skip
    assert [axis["tickCount"] for axis in axes] == [{"interval": "day", "step": step}]


def test_a_month_is_projected_from_the_last_week() -> None:
    """Thirty days at the rate of the time that there is; nothing from less than an hour."""
    hour = 3_600
    start = int(NOON) - 36 * hour
    periods = [Period(start + n * hour, hour, sums(10, 5, saved=1.0)) for n in range(36)]
    old = Period(MIDNIGHT - 40 * DAY, DAY, sums(9_999, 0, saved=9_999.0))
    found = history.projected([old, *periods], NOON)
    assert found is not None
    assert found.saved_usd == pytest.approx(36 / 1.5 * 30)
    assert found.without_usd == pytest.approx((36 + 36 * 5 * 0.04) / 1.5 * 30)
    assert found.basis == "36 h"
    assert history.projected([Period(int(NOON) - 1_800, hour, sums(1, 1))], NOON) is None
    assert history.projected([old], NOON) is None


def test_two_periods_are_compared_by_the_day() -> None:
    """A period that is not over yet is compared by what it has per day."""
    found = history.compared(sums(60, 40, saved=6.0), 0.5, sums(100, 100, saved=4.0), 1.0)
    rows = {row[""]: row for row in found.to_dict("records")}
    assert rows["lookups per day"]["change"] == "+0%"
    assert (rows["hit rate"]["now"], rows["hit rate"]["before"]) == ("60.0%", "50.0%")
    assert rows["hit rate"]["change"] == "+10.0 points"
    assert rows["saved per day, USD"]["now"] == "12.00"
    assert rows["saved per day, USD"]["change"] == "+200%"
    assert rows["wrong, of judged hits"]["change"] == "–"
    young = history.compared(sums(60, 40), 0.03, Sums(), 0.0)
    assert {"now": "–", "before": "–"}.items() <= young.to_dict("records")[0].items()
    nothing = history.compared(Sums(), 1.0, Sums(), 1.0)
    assert set(nothing["now"]) == {"0", "–", "0.00"}


def test_a_period_is_compared_from_the_first_lookup_on() -> None:
    """Days before the cache was there do not count: the rest would look like less per day."""
    hours = [Period(int(NOON) - hour * 3_600, 3_600, sums(1, 1)) for hour in (30, 1)]
    day = int(NOON) // 86_400 * 86_400
    today, yesterday, before = (Period(day - at * 86_400, 86_400, sums(1, 1)) for at in (0, 1, 40))
    assert history.began([yesterday, today], hours) == hours[0].start
    assert history.began([before, yesterday, today], hours) == before.start
    assert history.began([before], []) == before.start
    later, earlier = history.last(7, NOON)
    first = hours[0].start
    assert later.within(first, NOON) == history.Span(first, NOON)
    assert earlier.within(first, NOON).days == 0
    assert later.within(before.start, NOON) == later


def test_intents_show_what_sharing_would_bring() -> None:
    """Most lookups first; a hit rate if shared counts the misses that another user's answer met."""
    intents = {
        "*": IntentSums(l1=1, computed=1),
        "faq": IntentSums(l1=20, l2=20, partial=5, computed=60, other_scope=30, correct=9, wrong=1),
        "chat": IntentSums(partial=3),
    }
    found = history.by_intent(Sums(intents=intents))
    assert found["intent"].tolist() == ["faq", "chat", "all others"]
    faq = found.iloc[0]
    assert (faq["lookups"], faq["hit_rate"], faq["wrong"], faq["judged"]) == (100, 0.4, 0.1, 10)
    assert faq["hit_rate_if_shared"] == pytest.approx(0.7)
    assert found.iloc[1]["hit_rate"] != found.iloc[1]["hit_rate"]
