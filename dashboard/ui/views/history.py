"""Page *History*: what the cache saved, period by period and intent by intent."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta

import pandas as pd
import streamlit as st

from cache_core.config.intents import INTENT_PREFIX
from cache_core.observability.history import Period, total
from cache_core.observability.sums import Sums
from dashboard import charts
from dashboard.data import history
from dashboard.data.history import Projection, Span
from dashboard.data.questions import csv
from dashboard.data.words import plain
from dashboard.ui.panels.controls import key
from dashboard.ui.shell import Page, empty, open_page, quiet, show, telling

_SPANS = {"24 hours": 1, "7 days": 7, "30 days": 30, "90 days": 90, "Two ranges": 0}
_STEP = 0.02


def view(page: Page) -> None:
    """Draw the page."""
    chosen = st.segmented_control(
        "Time range", list(_SPANS), default="7 days", required=True, key="span",
        bind="query-params",
    )  # fmt: skip
    days = _SPANS[chosen or "7 days"]
    now = time.time()
    if days:
        later, earlier = history.last(days, now)
    else:
        ranges = _ranges(now)
        if ranges is None:
            return
        later, earlier = ranges
    with telling():
        _draw(page, later, earlier, "hour" if later.days <= 2 else "day")


def _ranges(now: float) -> tuple[Span, Span] | None:
    """Let the visitor choose two ranges of days; return the later and the earlier one."""
    today = datetime.fromtimestamp(now, UTC).date()
    spans = []
    for column, label, ago in zip(st.columns(2), ("Compare", "with"), (7, 14), strict=True):
        default = (today - timedelta(days=ago - 1), today - timedelta(days=ago - 7))
        given: tuple[date, ...] = column.date_input(
            f"{label} (days of UTC)", default, max_value=today, key=f"range_{ago}"
        )
        if len(given) != 2:
            quiet("Choose the first and the last day.")
            return None
        spans.append(history.between(*given))
    return spans[0], spans[1]


def _draw(page: Page, later: Span, earlier: Span, by: history.By) -> None:
    now = time.time()
    current = page.source.history(later.since, later.until, by)
    before = page.source.history(earlier.since, earlier.until, by)
    if not current and not before:
        empty(
            "Nothing was looked up in this time.",
            "Every replica adds what it counts to the history in the store, which keeps 90 days. "
            "Choose another time range, or see the page *Overview* for the last minutes.",
        )
        return
    sums = total(current)
    week = page.source.history(now - 7 * 86_400, now, "hour")
    began = history.began(page.source.history(0, now, "day"), week)
    _numbers(sums, history.projected(week, now))
    if current:
        _over_time(page, current, by)
    _compared(sums, later.within(began, now), total(before), earlier.within(began, now))
    _intents(page, sums)


def _numbers(sums: Sums, month: Projection | None) -> None:
    share = sums.saved_share
    cards = (
        (
            "Saved, net",
            f"{sums.net_usd:,.2f} USD",
            f"of {sums.full_usd:,.2f} USD without the cache",
        ),
        ("Share of the cost", "–" if share is None else f"{share:.1%}", "saved"),
        (
            "A month at this rate",
            "–" if month is None else f"{month.saved_usd:,.0f} USD",
            "needs an hour of data"
            if month is None
            else f"of {month.without_usd:,.0f} USD; from the last {month.basis}",
        ),
        (
            "Hit rate",
            "–" if sums.hit_rate is None else f"{sums.hit_rate:.1%}",
            f"{sums.answered:,} of {sums.answerable:,} lookups",
        ),
    )
    for column, (label, value, below) in zip(st.columns(4), cards, strict=True):
        column.metric(
            label, value, below, delta_color="off", delta_arrow="off", border=True,
            height="stretch",
        )  # fmt: skip
    if sums.prices:
        prices = ", ".join(
            f"{price} USD ({count:,})"
            for price, count in sorted(sums.prices.items(), key=lambda item: -item[1])
        )
        quiet(
            f"Price of an answer, and answers saved at it: {prices}. Set it on the page *Tuning*. "
            "Net: less what embeddings and checks cost."
        )


def _over_time(page: Page, periods: list[Period], by: history.By) -> None:
    table = history.table(periods)
    left, right = st.columns([3, 2])
    with left:
        show(charts.money(table, by, page.look), "money")
    with right:
        objective = page.source.tuning().hit_rate_objective
        show(charts.rates(table, by, objective, page.look), "rates")
    _export(table, "history")


def _compared(now: Sums, later: Span, then: Sums, earlier: Span) -> None:
    st.header("Compared with the time before", anchor=False)
    st.table(history.compared(now, later.days, then, earlier.days), hide_index=True)
    before = _named(earlier) if earlier.days else "nothing is recorded"
    quiet(f"Now: {_named(later)}. Before: {before}.")


def _named(span: Span) -> str:
    first, end = (datetime.fromtimestamp(at, UTC) for at in (span.since, span.until))
    return f"{first:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC"


def _intents(page: Page, sums: Sums) -> None:
    st.header("By intent", anchor=False)
    table = history.by_intent(sums)
    if table.empty:
        empty(
            "No answer had an intent.",
            "Give `put` an intent: the label by which your agent chose what to do.",
        )
        return
    quiet("Choose a row to see what sharing, or another threshold, would bring for that intent.")
    shares = ["hit_rate", "wrong", "hit_rate_if_shared"]
    chosen = st.dataframe(
        table.assign(**{name: 100 * table[name].astype("float64") for name in shares}),
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row",
        key="intents",
        placeholder="–",
        alt="Intents: lookups, hit rate, wrong hits, money saved, and the hit rate if shared",
        column_config={
            "lookups": st.column_config.NumberColumn(format="localized"),
            **{
                name: st.column_config.NumberColumn(label, format="%.1f%%", help=about)
                for name, label, about in (
                    ("hit_rate", "hit rate", "Of answers served or computed."),
                    ("wrong", "wrong", "Of the judged ones."),
                    ("hit_rate_if_shared", "if shared", "At least, by what others had."),
                )
            },
            "saved_usd": st.column_config.NumberColumn("saved", format="%.2f USD"),
            "had_by_others": st.column_config.NumberColumn("another user had it"),
        },
    )
    if rows := chosen["selection"]["rows"]:
        _one(page, table.iloc[rows[0]])
    _export(table, "intents")


def _one(page: Page, row: pd.Series) -> None:
    """Show what changes of one intent would bring, and the way to make them."""
    label = str(row["intent"])
    with st.container(border=True), st.spinner("replaying the recorded lookups"):
        st.markdown(f"**{plain(label)}**")
        estimates = page.source.estimates()
        now = estimates.tuning.threshold(label)
        lines = []
        for threshold in (round(now - _STEP, 4), round(now + _STEP, 4)):
            field = f"{INTENT_PREFIX}{label}.semantic_threshold"
            found = estimates.proposed({field: threshold}) if 0 <= threshold <= 1 else None
            today = estimates.proposed({field: now}) if found else None
            if found and today:
                lines.append(
                    f"- threshold {threshold:g} instead of {now:g}: {found.hits - today.hits:+,} "
                    f"hits of {found.lookups:,} recorded lookups"
                )
        shared = next((item for item in estimates.sharing if item.intent == label), None)
        if shared:
            lines.append(
                f"- shared by all users: {shared.misses_other_scope:+,} hits or more; right only "
                "if the answers are the same for everybody"
            )
        st.markdown("\n".join(lines) or "The log has no lookups of this intent to replay.")
        if st.button("Override this intent", icon=":material/tune:"):
            st.session_state[key("intent", estimates.tuning)] = label
            st.session_state["tab"] = "Single intents"
            st.switch_page("ui/views/tuning.py")


def _export(table: pd.DataFrame, name: str) -> None:
    st.download_button(
        "Export as CSV", csv(table), f"{name}.csv", "text/csv", icon=":material/download:",
        key=f"csv_{name}",
    )  # fmt: skip


view(open_page("History", "What the cache saved, against what it would have cost without."))
