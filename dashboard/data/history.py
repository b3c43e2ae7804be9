"""Money and hit rates of past periods, from the sums in the store. No Streamlit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import pandas as pd

from cache_core.observability.history import DAY, By, Period, total
from cache_core.observability.hours import HOUR
from cache_core.observability.sums import REST, IntentSums, Sums
from cache_core.operations.explain import duration
from dashboard.data.figures import milliseconds

__all__ = [
    "By",
    "Projection",
    "Span",
    "began",
    "between",
    "by_intent",
    "compared",
    "last",
    "projected",
    "table",
]

MONTH_DAYS = 30
_NONE = "–"

_PROJECTED_FROM = 7 * DAY
_LEAST_SECONDS = HOUR
"""Shortest time that is projected, or counted as so much per day."""


@dataclass(frozen=True, slots=True)
class Span:
    """Period of time.

    Attributes:
        since, until: Its ends, seconds since the epoch.
    """

    since: float
    until: float

    @property
    def days(self) -> float:
        """Its length in days."""
        return max(0.0, self.until - self.since) / DAY

    def within(self, first: float, now: float) -> Span:
        """Return the part of it between the first recorded lookup and now."""
        return Span(max(self.since, first), min(self.until, now))


def last(days: int, now: float) -> tuple[Span, Span]:
    """Return the last days, and as many before them.

    One day is 24 hours from a full hour on; several are days of UTC, the last one up to now.
    """
    unit, count = (HOUR, 24) if days == 1 else (DAY, days)
    start = now // unit * unit - (count - 1) * unit
    return Span(start, now), Span(start - count * unit, start)


def between(first: date, final: date) -> Span:
    """Return the days of UTC from *first* to *final*, both included."""
    start = datetime(first.year, first.month, first.day, tzinfo=UTC)
    end = datetime(final.year, final.month, final.day, tzinfo=UTC) + timedelta(days=1)
    return Span(start.timestamp(), end.timestamp())


def began(days: Sequence[Period], hours: Sequence[Period]) -> float:
    """Return the start of the first day with a lookup, or of its first hour if that is known."""
    first = min((item.start for item in (*days[:1], *hours[:1])), default=0)
    return next((item.start for item in hours[:1] if item.start - first < DAY), first)


def table(periods: Sequence[Period]) -> pd.DataFrame:
    """Return one row per period, oldest first: lookups, hit rate, and money in USD.

    Money that the cache saved, net of what it spent on embeddings and checks, and what was paid
    nevertheless; both together are what the same lookups would have cost without it.
    """
    rows = [
        {
            "start": pd.to_datetime(item.start, unit="s", utc=True),
            "lookups": item.sums.lookups,
            "hits": item.sums.answered,
            "hit_rate": item.sums.hit_rate,
            "without_cache_usd": item.sums.full_usd,
            "saved_usd": item.sums.net_usd,
            "paid_usd": item.sums.full_usd - item.sums.net_usd,
        }
        for item in periods
    ]
    columns = ["start", "lookups", "hits", "hit_rate", "without_cache_usd", "saved_usd", "paid_usd"]
    return pd.DataFrame(rows, columns=columns)


@dataclass(frozen=True, slots=True)
class Projection:
    """A month, if it goes on as lately.

    Attributes:
        saved_usd: Net saving in 30 days.
        without_usd: What the lookups would cost without the cache.
        basis: The time that it is based on, in words.
    """

    saved_usd: float
    without_usd: float
    basis: str


def projected(periods: Sequence[Period], now: float) -> Projection | None:
    """Return the projection from the last week; `None` from less than an hour.

    Args:
        periods: Hours or days, oldest first.
        now: Current time, seconds since the epoch.
    """
    recent = [item for item in periods if item.end > now - _PROJECTED_FROM]
    if not recent:
        return None
    covered = now - recent[0].start
    if covered < _LEAST_SECONDS:
        return None
    sums, scale = total(recent), MONTH_DAYS * DAY / covered
    return Projection(sums.net_usd * scale, sums.full_usd * scale, duration(covered))


def compared(now: Sums, now_days: float, then: Sums, then_days: float) -> pd.DataFrame:
    """Return a row for each figure: its name, both values and the change, in words.

    Args:
        now, then: Sums of the later and the earlier period.
        now_days, then_days: Their lengths in days.
    """
    rows = [
        _row("lookups per day", _per_day(now.lookups, now_days), _per_day(then.lookups, then_days)),
        _row("hit rate", now.hit_rate, then.hit_rate, share=True),
        _row("from L1", now.served("l1"), then.served("l1"), share=True),
        _row("from L2", now.served("l2"), then.served("l2"), share=True),
        _row(
            "saved per day, USD",
            _per_day(now.net_usd, now_days),
            _per_day(then.net_usd, then_days),
            decimals=2,
        ),
        _row("share of the cost saved", now.saved_share, then.saved_share, share=True),
        _row("wrong, of judged hits", _wrong(now), _wrong(then), share=True),
        _row("hits within 100 ms", now.within(0.1), then.within(0.1), share=True),
        _latency(now.quantile(0.5), then.quantile(0.5)),
    ]
    return pd.DataFrame(rows)


def _per_day(value: float, days: float) -> float | None:
    return value / days if days * DAY >= _LEAST_SECONDS else None


def _wrong(sums: Sums) -> float | None:
    return sums.wrong / sums.judged if sums.judged else None


def _row(
    name: str, now: float | None, then: float | None, *, share: bool = False, decimals: int = 0
) -> dict[str, str]:
    def shown(value: float | None) -> str:
        if value is None:
            return _NONE
        return f"{value:.1%}" if share else f"{value:,.{decimals}f}"

    change = _NONE
    if now is not None and then is not None:
        if share:
            change = f"{100 * (now - then):+.1f} points"
        elif then:
            change = f"{(now - then) / then:+.0%}"
    return {"": name, "now": shown(now), "before": shown(then), "change": change}


def _latency(now: float | None, then: float | None) -> dict[str, str]:
    found = _row("median latency", now, then)
    for name, value in (("now", now), ("before", then)):
        found[name] = _NONE if value is None else f"{milliseconds(1000 * value)} ms"
    return found


def by_intent(sums: Sums) -> pd.DataFrame:
    """Return one row per intent, most lookups first; numbers, for tables and files."""
    rows = [
        {
            "intent": "all others" if name == REST else name,
            # an answer computed after a partial lookup is one lookup
            "lookups": max(found.asked, found.hits + found.partial),
            "hit_rate": found.hit_rate,
            "wrong": found.wrong / judged if (judged := found.correct + found.wrong) else None,
            "judged": judged,
            "saved_usd": found.saved_usd,
            "had_by_others": found.other_scope,
            "hit_rate_if_shared": _if_shared(found),
        }
        for name, found in sums.intents.items()
    ]
    columns = [
        "intent", "lookups", "hit_rate", "wrong", "judged", "saved_usd", "had_by_others",
        "hit_rate_if_shared",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns).sort_values(
        "lookups", ascending=False, ignore_index=True
    )


def _if_shared(found: IntentSums) -> float | None:
    """Return the hit rate had the answers of other users been served; a lower bound."""
    if not found.asked:
        return None
    return min(1.0, (found.hits + found.other_scope) / max(found.asked, found.hits + 1e-9))
