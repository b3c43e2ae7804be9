"""Charts of past periods: money against what it would have cost, and the hit rate."""

from __future__ import annotations

import math

import altair as alt
import pandas as pd

from dashboard.charts.base import Chart, framed, layered, limit, percent, room_below
from dashboard.charts.theme import Palette
from dashboard.data.history import By

_KINDS = ("saved", "paid")
_TICKS = 8


def money(table: pd.DataFrame, by: By, look: Palette) -> Chart:
    """Return what was paid and what was saved, stacked: both are the cost without the cache.

    Args:
        table: Result of `history.table`.
        by: `hour` or `day`.
        look: The colours.
    """
    rows = table.melt(
        id_vars=["start", "without_cache_usd"], value_vars=["saved_usd", "paid_usd"],
        var_name="kind", value_name="usd",
    )  # fmt: skip
    rows["kind"] = rows["kind"].str.removesuffix("_usd")
    # what the cache spent may exceed what it saved
    rows["usd"] = rows["usd"].clip(lower=0)
    chart = (
        alt.Chart(rows)
        .mark_bar()
        .encode(
            _time(table, by),
            alt.Y("usd:Q", title=None, axis=alt.Axis(format="$,.2~f", tickCount=4, domain=False)),
            color=alt.Color(
                "kind:N",
                scale=alt.Scale(domain=list(_KINDS), range=[look.exact, look.miss]),
                legend=alt.Legend(title=None, orient="top", direction="horizontal"),
            ),
            order=alt.Order("kind:N", sort="ascending"),
            tooltip=[
                alt.Tooltip("utcyearmonthdatehours(start):T", title="UTC"),
                "kind:N",
                alt.Tooltip("usd:Q", format="$,.2f"),
                alt.Tooltip("without_cache_usd:Q", title="without the cache", format="$,.2f"),
            ],
        )
    )
    saved, full = table["saved_usd"].sum(), table["without_cache_usd"].sum()
    title = f"Money per {by}"
    return Chart(
        framed(
            layered(chart), title, look, 260, "the whole bar is what it would have cost without"
        ),
        f"{title}: {saved:,.2f} USD saved of {full:,.2f} USD.",
    )


def rates(table: pd.DataFrame, by: By, objective: float, look: Palette) -> Chart:
    """Return the hit rate by period, against the objective."""
    scale = alt.Scale(domain=[0, 1])
    base = alt.Chart(table.dropna(subset=["hit_rate"]))
    line = base.mark_line(
        color=look.exact, strokeWidth=2.5, point=alt.OverlayMarkDef(color=look.exact)
    ).encode(
        _time(table, by),
        alt.Y("hit_rate:Q", title=None, scale=scale, axis=percent()),
        tooltip=[
            alt.Tooltip("utcyearmonthdatehours(start):T", title="UTC"),
            alt.Tooltip("hit_rate:Q", title="hit rate", format=".1%"),
            alt.Tooltip("lookups:Q", format=","),
        ],
    )
    goal = limit(
        objective, f"objective {objective:.0%}", look.proposed, alt.Y("limit:Q", scale=scale), look,
        below=room_below(table["hit_rate"], objective),
    )  # fmt: skip
    title = f"Hit rate per {by}"
    return Chart(
        framed(layered(line, *goal), title, look, 260, "of lookups that could be answered"),
        f"{title}, {len(table)} values; objective {objective:.0%}.",
    )


def _time(table: pd.DataFrame, by: By) -> alt.X:
    unit, written = ("yearmonthdatehours", "%H:%M") if by == "hour" else ("yearmonthdate", "%d %b")
    # By their number alone, Vega labels each of two days twice.
    every = alt.TimeIntervalStep(interval=by, step=math.ceil(len(table) / _TICKS))
    return alt.X(
        f"utc{unit}(start):T", title="UTC",
        axis=alt.Axis(format=written, grid=False, tickCount=every, labelOverlap=True),
    )  # fmt: skip
