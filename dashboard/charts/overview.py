"""Charts of the cache's performance: hit rate, endings, reasons, latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd

from cache_core.model.reasons import short
from dashboard.charts.base import (
    LABEL_SIZE,
    Chart,
    bars,
    framed,
    layered,
    limit,
    names,
    percent,
    room_below,
)
from dashboard.charts.theme import Palette
from dashboard.data.figures import LEAST_IN_BIN, WAYS, milliseconds

_LABEL_SHARE = 0.08
"""Share of a chart's width that a change's label takes."""


def hit_rate(
    table: pd.DataFrame, objective: float, changes: Sequence[tuple[float, int]], look: Palette
) -> Chart:
    """Return the hit rate over time against the objective, with the changes of the tuning.

    Args:
        table: Result of `figures.over_time`.
        objective: The objective, 0 to 1.
        changes: Time in seconds since the epoch, and version, of each change.
        look: The colours.
    """
    axis = alt.Axis(format=_clock(table), tickCount=5, grid=False)
    x = alt.X("time:T", title="UTC", axis=axis, scale=alt.Scale(type="utc"))
    scale = alt.Scale(domain=[0, 1])
    y = alt.Y("hit_rate:Q", title=None, scale=scale, axis=percent())
    sure = alt.Chart(table.assign(hit_rate=table["hit_rate"].where(table["enough"])))
    few = table[~table["enough"]].dropna(subset=["hit_rate"])
    tooltip = [
        alt.Tooltip("utcyearmonthdatehoursminutesseconds(time):T", title="UTC"),
        alt.Tooltip("hit_rate:Q", title="hit rate", format=".1%"),
        alt.Tooltip("lookups:Q", title="lookups", format=",.0f"),
    ]
    # the lowest part of the plot has the number of lookups, on a scale of its own
    most = max(1.0, float(table["lookups"].max()) if len(table) else 1.0)
    volume = (
        alt.Chart(table)
        .mark_bar(color=look.bypass, opacity=0.6)
        .encode(x, alt.Y("lookups:Q", axis=None, scale=alt.Scale(domain=[0, 6 * most])))
    )
    line = sure.mark_line(
        color=look.exact,
        strokeWidth=2.5,
        invalid="break-paths-show-domains",
        point=alt.OverlayMarkDef(size=18, color=look.exact),
    ).encode(x, y, tooltip=tooltip)
    goal = limit(
        objective,
        f"objective {objective:.0%}",
        look.proposed,
        alt.Y("limit:Q", scale=scale),
        look,
        below=room_below(table["hit_rate"], objective),
    )
    layers = [line, *goal]
    # a layer without marks is an image without a name to a screen reader
    if len(few):
        layers.insert(
            0,
            alt.Chart(few).mark_point(size=24, color=look.miss).encode(x, y, tooltip=tooltip),
        )
    if changes:
        marks = pd.DataFrame(labelled(changes, _span(table)))
        written: dict[str, Any] = {
            "align": "left",
            "dx": 4,
            "baseline": "bottom",
            "fontSize": LABEL_SIZE,
        }
        layers += [
            alt.Chart(marks).mark_rule(color=look.quiet, strokeDash=[2, 3]).encode(x),
            alt.Chart(marks)
            .mark_text(color=look.quiet, **written)
            .encode(x, y=alt.value("height"), text="label:N"),
        ]
    known = table[table["enough"]]
    last = f"{known['hit_rate'].iloc[-1]:.0%}" if len(known) else "unknown"
    words = f"Hit rate over time: last {last}, objective {objective:.0%}"
    if changes:
        words += f", {len(changes)} changes of the tuning marked"
    subtitle = ["of lookups that could be answered; bars: lookups"]
    legend = [f"circles: fewer than {LEAST_IN_BIN}"] if len(few) else []
    legend += ["dotted: new tuning"] if changes else []
    if legend:
        # Separate, because one line of both is cut on a phone.
        subtitle.append("; ".join(legend))
    chart = layered(volume, layered(*layers), independent="y")
    return Chart(framed(chart, "Hit rate", look, 290, subtitle), words + ".")


def labelled(changes: Sequence[tuple[float, int]], span: float) -> list[dict[str, Any]]:
    """Return a row for each of *changes*; the first of several close together names them all.

    Args:
        changes: Time in seconds since the epoch, and version, of each change.
        span: Width of the chart in seconds.
    """
    groups: list[list[tuple[float, int]]] = []
    for change in sorted(changes):
        if groups and change[0] - groups[-1][0][0] < _LABEL_SHARE * span:
            groups[-1].append(change)
        else:
            groups.append([change])
    rows = []
    for group in groups:
        first, last = group[0][1], group[-1][1]
        label = f"v{first}" if first == last else f"v{first}–{last}"
        for number, (at, _) in enumerate(group):
            moment = pd.to_datetime(at, unit="s", utc=True)
            rows.append({"time": moment, "label": "" if number else label})
    return rows


def _span(table: pd.DataFrame) -> float:
    """Return the width of the chart in seconds."""
    return (table["time"].max() - table["time"].min()).total_seconds() if len(table) else 0.0


def _clock(table: pd.DataFrame) -> str:
    span = _span(table)
    return "%H:%M:%S" if span < 600 else "%H:%M" if span < 90_000 else "%d %b %H:%M"


def endings(counts: Mapping[str, int], look: Palette) -> Chart:
    """Return lookups by ending, one bar each, with count and share."""
    total = sum(counts.values()) or 1
    rows = [
        {"way": name, "lookups": counts[name], "label": _counted(counts[name], total)}
        for name in WAYS
        if counts[name] or name != "bypass"
    ]  # fmt: skip
    chart = bars(
        pd.DataFrame(rows),
        "way",
        "lookups",
        alt.Color("way:N", scale=alt.Scale(domain=list(WAYS), range=list(look.ways)), legend=None),
        look,
        sort=list(WAYS),
    )
    words = ", ".join(f"{row['way']} {row['label']}" for row in rows)
    return Chart(
        framed(chart, "How lookups ended", look, 290, "lookups, and their share"),
        f"Lookups: {words}.",
    )


def _counted(count: int, total: int) -> str:
    share = count / total
    return f"{count:,} · " + ("<1%" if 0 < share < 0.005 else f"{share:.0%}")


def reasons(counts: Mapping[str, int], look: Palette, most: int = 7) -> Chart:
    """Return lookups without a response by reason, one bar each."""
    top = sorted(counts.items(), key=lambda pair: -pair[1])[:most]
    total = sum(counts.values()) or 1
    table = pd.DataFrame(
        [
            {"reason": short(name), "lookups": count, "label": _counted(count, total)}
            for name, count in top
        ]
    )  # fmt: skip
    chart = bars(table, "reason", "lookups", alt.value(look.miss), look, sort=None)
    words = ", ".join(f"{row.reason} {row.label}" for row in table.itertuples())
    return Chart(
        framed(chart, "Why there was no response", look, 260, "lookups, by the last tier's reason"),
        f"Lookups by reason: {words}.",
    )


def latency(table: pd.DataFrame, look: Palette) -> Chart:
    """Return the latency of lookups by ending: median and 95th percentile."""
    table = table.assign(label=[f"{milliseconds(low)} / {milliseconds(high)} ms" for low, high in
                                zip(table.p50, table.p95, strict=True)])  # fmt: skip
    y = alt.Y("way:N", title=None, sort=list(WAYS), axis=names())
    colour = alt.Color(
        "way:N", scale=alt.Scale(domain=list(WAYS), range=list(look.ways)), legend=None
    )
    scale = alt.Scale(type="log", nice=True)
    axis = alt.Axis(
        format="~g", values=[0.1, 1, 10, 100, 1000], title="milliseconds, log scale", domain=False
    )
    low = alt.X("p50:Q", scale=scale, axis=axis)
    tooltip = [
        alt.Tooltip("way:N", title="ended as"),
        alt.Tooltip("p50:Q", title="median, ms", format=".3g"),
        alt.Tooltip("p95:Q", title="95th percentile, ms", format=".3g"),
        alt.Tooltip("lookups:Q", title="lookups", format=","),
    ]
    base = alt.Chart(table)
    span = base.mark_rule(strokeWidth=5, opacity=0.45, strokeCap="round").encode(
        low, x2="p95:Q", y=y, color=colour
    )
    point = base.mark_point(filled=True, size=100, opacity=1).encode(
        low, y=y, color=colour, tooltip=tooltip
    )
    text = base.mark_text(align="left", dx=-2, dy=-13, color=look.text, fontSize=LABEL_SIZE).encode(
        low, y=y, text="label:N"
    )
    words = "; ".join(f"{row.way} {row.label}" for row in table.itertuples())
    return Chart(
        framed(
            layered(span, point, text), "Latency of a lookup", look, 260,
            "median (point) / 95th percentile (end of the bar)",
        ),
        f"Latency by how a lookup ended, median / 95th percentile: {words}.",
    )  # fmt: skip
