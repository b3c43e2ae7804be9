"""The charts: each has a title, units, labels on its marks, and words for who cannot see it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import altair as alt
import pandas as pd

from cache_core.whatif import SharingEstimate, ThresholdEstimate, TtlReport
from dashboard.figures import REASONS, WAYS
from dashboard.theme import Palette

_TITLE = 15


class Chart(NamedTuple):
    """A chart, and the same in words."""

    chart: Any
    alt: str


def hit_rate(
    table: pd.DataFrame, objective: float, changes: Sequence[tuple[float, str]], look: Palette
) -> Chart:
    """Return the hit rate over time against the objective, with the changes of the tuning.

    Args:
        table: As `figures.over_time` returns it.
        objective: 0..1.
        changes: When, in seconds since the epoch, and a short label.
        look: The colours.
    """
    x = alt.X("time:T", title=None, axis=alt.Axis(format=_clock(table), tickCount=5, grid=False))
    y = alt.Y(
        "hit_rate:Q",
        title=None,
        scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(format=".0%", values=[0, 0.25, 0.5, 0.75, 1]),
    )
    base = alt.Chart(table)
    tooltip = [
        alt.Tooltip("time:T", title="time", format="%H:%M:%S"),
        alt.Tooltip("hit_rate:Q", title="hit rate", format=".1%"),
        alt.Tooltip("lookups:Q", title="lookups", format=",.0f"),
    ]
    area = base.mark_area(color=look.exact, opacity=0.14, interpolate="monotone").encode(x, y)
    line = base.mark_line(
        color=look.exact,
        strokeWidth=2.5,
        interpolate="monotone",
        point=alt.OverlayMarkDef(size=22, color=look.exact),
    ).encode(x, y, tooltip=tooltip)
    goal = pd.DataFrame({"objective": [objective], "label": [f"objective {objective:.0%}"]})
    rule = (
        alt.Chart(goal)
        .mark_rule(color=look.proposed, strokeDash=[5, 4], strokeWidth=1.5)
        .encode(y="objective:Q")
    )
    label = (
        alt.Chart(goal)
        .mark_text(align="left", dx=4, dy=-7, color=look.proposed, fontSize=12, fontWeight=600)
        .encode(y="objective:Q", x=alt.value(0), text="label:N")
    )
    layers = [area, line, rule, label]
    if changes:
        marks = pd.DataFrame(
            {"time": pd.to_datetime([at for at, _ in changes], unit="s", utc=True),
             "label": [text for _, text in changes]}
        )  # fmt: skip
        layers += [
            alt.Chart(marks).mark_rule(color=look.quiet, strokeDash=[2, 3]).encode(x="time:T"),
            alt.Chart(marks)
            .mark_text(align="left", dx=4, baseline="top", color=look.quiet, fontSize=11)
            .encode(x="time:T", y=alt.value(2), text="label:N"),
        ]
    known = table.dropna(subset=["hit_rate"])
    last = f"{known['hit_rate'].iloc[-1]:.0%}" if len(known) else "unknown"
    words = f"Hit rate over time: last {last}, objective {objective:.0%}"
    if changes:
        words += f", {len(changes)} changes of the tuning marked"
    return Chart(_framed(alt.layer(*layers), "Hit rate", look, 260), words + ".")


def _clock(table: pd.DataFrame) -> str:
    span = (table["time"].max() - table["time"].min()).total_seconds() if len(table) else 0
    return "%H:%M:%S" if span < 600 else "%H:%M" if span < 86_400 else "%d %b %H:%M"


def endings(counts: Mapping[str, int], look: Palette) -> Chart:
    """Return how lookups ended, one bar each, with count and share."""
    total = sum(counts.values()) or 1
    rows = [
        {"way": name, "lookups": counts[name], "label": _counted(counts[name], total)}
        for name in WAYS
        if counts[name] or name != "bypass"
    ]  # fmt: skip
    chart = _bars(
        pd.DataFrame(rows),
        "way",
        "lookups",
        alt.Color("way:N", scale=alt.Scale(domain=list(WAYS), range=list(look.ways)), legend=None),
        look,
        sort=list(WAYS),
    )
    words = ", ".join(f"{row['way']} {row['label']}" for row in rows)
    return Chart(_framed(chart, "How lookups ended", look, 260), f"Lookups: {words}.")


def _counted(count: int, total: int) -> str:
    return f"{count:,} · {count / total:.0%}"


def reasons(counts: Mapping[str, int], look: Palette, most: int = 7) -> Chart:
    """Return why there was no response, one bar for a reason."""
    top = sorted(counts.items(), key=lambda pair: -pair[1])[:most]
    total = sum(counts.values()) or 1
    table = pd.DataFrame(
        [
            {"reason": REASONS.get(name, name), "lookups": count, "label": _counted(count, total)}
            for name, count in top
        ]
    )  # fmt: skip
    chart = _bars(table, "reason", "lookups", alt.value(look.miss), look, sort=None)
    words = ", ".join(f"{row.reason} {row.label}" for row in table.itertuples())
    return Chart(
        _framed(chart, "Why there was no response", look, 240), f"Lookups by reason: {words}."
    )


def latency(table: pd.DataFrame, look: Palette) -> Chart:
    """Return the latency of lookups by how they ended: median and 95th percentile."""
    table = table.assign(
        label=[f"{low:.3g} / {high:.3g} ms" for low, high in zip(table.p50, table.p95, strict=True)]
    )
    y = alt.Y("way:N", title=None, sort=list(WAYS), axis=_names())
    colour = alt.Color(
        "way:N", scale=alt.Scale(domain=list(WAYS), range=list(look.ways)), legend=None
    )
    scale = alt.Scale(type="log", nice=True)
    axis = alt.Axis(format="~g", values=[0.1, 1, 10, 100, 1000], title="milliseconds, log scale")
    low = alt.X("p50:Q", scale=scale, axis=axis)
    tooltip = [
        alt.Tooltip("way:N", title="ended as"),
        alt.Tooltip("p50:Q", title="median, ms", format=".3g"),
        alt.Tooltip("p95:Q", title="95th percentile, ms", format=".3g"),
        alt.Tooltip("lookups:Q", title="lookups", format=","),
    ]
    base = alt.Chart(table)
    span = base.mark_rule(strokeWidth=5, opacity=0.45).encode(low, x2="p95:Q", y=y, color=colour)
    point = base.mark_point(filled=True, size=90, opacity=1).encode(
        low, y=y, color=colour, tooltip=tooltip
    )
    text = base.mark_text(align="left", dx=8, dy=-11, color=look.text, fontSize=12).encode(
        low, y=y, text="label:N"
    )
    words = "; ".join(f"{row.way} {row.label}" for row in table.itertuples())
    return Chart(
        _framed(alt.layer(span, point, text), "Latency: median / 95th percentile", look, 240),
        f"Latency by how a lookup ended, median / 95th percentile: {words}.",
    )


def threshold_hits(
    curve: Sequence[ThresholdEstimate], now: float, proposed: float, look: Palette
) -> Chart:
    """Return the hit rate that each threshold would have had."""
    table = pd.DataFrame([{"threshold": i.threshold, "value": i.hit_rate} for i in curve])
    line = (
        alt.Chart(table)
        .mark_line(color=look.exact, strokeWidth=2.5)
        .encode(
            _threshold_axis(),
            alt.Y(
                "value:Q", title=None, scale=alt.Scale(domain=[0, 1]),
                axis=alt.Axis(format=".0%", tickCount=5),
            ),
            tooltip=[
                alt.Tooltip("threshold:Q", format=".2f"),
                alt.Tooltip("value:Q", title="hit rate", format=".1%"),
            ],
        )
    )  # fmt: skip
    layers, words = _marked(line, curve, now, proposed, lambda item: item.hit_rate, 1.0, look, 105)
    return Chart(
        _framed(layers, "Hit rate that each threshold would have had", look, 230),
        f"Recorded lookups at other thresholds. Hit rate: {words}.",
    )


def threshold_wrong(
    curve: Sequence[ThresholdEstimate], now: float, proposed: float, limit: float, look: Palette
) -> Chart:
    """Return the share of wrong hits that each threshold would have had, and how sure that is."""
    rows = [
        {
            "threshold": item.threshold,
            "value": item.wrong_share,
            "low": item.wrong_low,
            "high": item.wrong_high,
            "kind": "enough verdicts" if item.enough else "not enough verdicts",
            "evidence": item.evidence,
        }
        for item in curve
        if item.wrong_share is not None
    ]
    table = pd.DataFrame(rows, columns=["threshold", "value", "low", "high", "kind", "evidence"])
    near = [
        item.wrong_high
        for item in curve
        if item.wrong_high is not None and item.threshold >= min(now, proposed) - 0.005
    ]
    top = min(1.0, max([3 * limit, *(1.25 * value for value in near)], default=3 * limit))
    y = alt.Y(
        "value:Q", title=None, scale=alt.Scale(domain=[0, top], clamp=True),
        axis=alt.Axis(format=".1%", tickCount=5),
    )  # fmt: skip
    base = alt.Chart(table)
    band = base.mark_area(color=look.band, opacity=0.2).encode(
        _threshold_axis(), alt.Y("low:Q", scale=alt.Scale(domain=[0, top], clamp=True)), y2="high:Q"
    )
    line = base.mark_line(color=look.band, strokeWidth=2).encode(
        _threshold_axis(),
        y,
        strokeDash=alt.StrokeDash(
            "kind:N",
            scale=alt.Scale(
                domain=["enough verdicts", "not enough verdicts"], range=[[1, 0], [3, 4]]
            ),
            legend=alt.Legend(title=None, orient="bottom", symbolStrokeColor=look.band),
        ),
        tooltip=[
            alt.Tooltip("threshold:Q", format=".2f"),
            alt.Tooltip("value:Q", title="wrong hits", format=".2%"),
            alt.Tooltip("low:Q", title="at least", format=".2%"),
            alt.Tooltip("high:Q", title="at most", format=".2%"),
            alt.Tooltip("evidence:Q", title="verdicts behind it", format=","),
        ],
    )
    goal = pd.DataFrame({"limit": [limit], "label": [f"limit {limit:.1%}"]})
    rule = alt.Chart(goal).mark_rule(color=look.error, strokeDash=[5, 4]).encode(y=alt.Y("limit:Q"))
    label = (
        alt.Chart(goal)
        .mark_text(align="left", dx=4, dy=-7, color=look.error, fontSize=12, fontWeight=600)
        .encode(y="limit:Q", x=alt.value(0), text="label:N")
    )
    layers, words = _marked(
        alt.layer(band, line, rule, label), curve, now, proposed,
        lambda item: item.wrong_share, top, look,
    )  # fmt: skip
    return Chart(
        _framed(layers, "Wrong hits of all hits, with the 95 % interval", look, 250),
        f"Share of wrong hits: {words}. Limit {limit:.1%}.",
    )


def _threshold_axis() -> alt.X:
    return alt.X(
        "threshold:Q",
        title="similarity threshold",
        scale=alt.Scale(domain=[0.5, 1.0]),
        axis=alt.Axis(format=".2f", tickCount=6, grid=False),
    )


def _marked(
    chart: Any,
    curve: Sequence[ThresholdEstimate],
    now: float,
    proposed: float,
    value: Callable[[ThresholdEstimate], float | None],
    top: float,
    look: Palette,
    first: int = 2,
) -> tuple[Any, str]:
    """Draw today's and the proposed threshold in; return that and what it says."""
    layers, words = [chart], []
    marks = [("now", now, look.now)]
    if abs(proposed - now) > 1e-9:
        marks.append(("proposed", proposed, look.proposed))
    for number, (name, at, colour) in enumerate(marks):
        item = min(curve, key=lambda item, at=at: abs(item.threshold - at))  # type: ignore[misc]
        there = value(item)
        shown = "not known" if there is None else f"{there:.1%}"
        words.append(f"{name} {at:.3g}: {shown}")
        # The lower of the two has its label on its left: they are often close together.
        left = at == min(at for _, at, _ in marks) and (len(marks) > 1 or at > 0.75)
        row = pd.DataFrame(
            {"threshold": [min(1.0, max(0.5, at))], "value": [there],
             "label": [f"{name} {at:.3g} · {shown}"]}
        )  # fmt: skip
        base = alt.Chart(row)
        layers += [
            base.mark_rule(color=colour, strokeWidth=1.5, strokeDash=[4, 3]).encode(
                _threshold_axis()
            ),
            base.mark_text(
                align="right" if left else "left", dx=-5 if left else 5, baseline="top",
                color=colour, fontSize=12, fontWeight=600,
            ).encode(_threshold_axis(), y=alt.value(first + 16 * number), text="label:N"),
        ]  # fmt: skip
        if there is not None:
            layers.append(
                base.mark_point(filled=True, size=70, color=colour, opacity=1).encode(
                    _threshold_axis(),
                    alt.Y("value:Q", scale=alt.Scale(domain=[0, top], clamp=True)),
                )
            )
    return alt.layer(*layers), "; ".join(words)


def ages(report: TtlReport, proposed: float, look: Palette) -> Chart:
    """Return the hits of a tier by the age of what they served."""
    unit, size = _unit(max(report.ttl_seconds, proposed))
    table = pd.DataFrame(
        [
            {"low": item.low / size, "high": item.high / size, "hits": item.hits}
            for item in report.ages
        ],
        columns=["low", "high", "hits"],
    )
    widest = max(report.ttl_seconds, proposed) / size * 1.04
    x = alt.X(
        "low:Q", title=f"age of the entry, {unit}", scale=alt.Scale(domain=[0, widest]),
        axis=alt.Axis(grid=False, tickCount=6),
    )  # fmt: skip
    bars = (
        alt.Chart(table)
        .mark_bar(color=look.semantic, binSpacing=1)
        .encode(
            x,
            alt.X2("high:Q"),
            alt.Y("hits:Q", title="hits", axis=_whole()),
            tooltip=[
                alt.Tooltip("low:Q", title=f"from, {unit}", format=".3g"),
                alt.Tooltip("high:Q", title=f"to, {unit}", format=".3g"),
                alt.Tooltip("hits:Q", format=","),
            ],
        )
    )
    layers = [bars]
    marks = [("now", report.ttl_seconds, look.now)]
    if proposed != report.ttl_seconds:
        marks.append(("proposed", proposed, look.proposed))
    for number, (name, seconds, colour) in enumerate(marks):
        row = pd.DataFrame({"low": [seconds / size], "label": [f"{name} {duration(seconds)}"]})
        right = seconds / size > widest / 2
        layers += [
            alt.Chart(row).mark_rule(color=colour, strokeDash=[4, 3], strokeWidth=1.5).encode(x),
            alt.Chart(row)
            .mark_text(
                align="right" if right else "left", dx=-5 if right else 5, baseline="top",
                color=colour, fontSize=12, fontWeight=600,
            )
            .encode(x, y=alt.value(2 + 16 * number), text="label:N"),
        ]  # fmt: skip
    words = f"{report.hits:,} hits; {report.expired:,} misses found an expired entry"
    title = f"{report.level.upper()}: hits by the age of what they served"
    return Chart(_framed(alt.layer(*layers), title, look, 210), f"{title}: {words}.")


def sharing(found: Sequence[SharingEstimate], chosen: Collection[str], look: Palette) -> Chart:
    """Return by intent the misses that had an answer for another user."""
    table = pd.DataFrame(
        [
            {
                "intent": item.intent or "(no intent)",
                "lookups": item.misses_other_scope,
                "label": f"{item.misses_other_scope:,} · hit rate {item.hit_rate_if_shared:.1%}",
                "kind": "proposed" if item.intent in chosen else "private",
            }
            for item in found[:12]
        ]
    )
    colour = alt.Color(
        "kind:N",
        scale=alt.Scale(domain=["proposed", "private"], range=[look.proposed, look.miss]),
        legend=None,
    )
    chart = _bars(table, "intent", "lookups", colour, look, sort=None)
    words = "; ".join(f"{row.intent} {row.label}" for row in table.itertuples())
    title = "Misses that had an answer for another user, and the hit rate if shared"
    height = 50 + 26 * len(table)
    return Chart(_framed(chart, title, look, height), f"{title}: {words}.")


def evidence(table: pd.DataFrame, now: float, look: Palette) -> Chart:
    """Return how many verdicts there are by similarity.

    Args:
        table: `similarity` (of the bin), `verdict` and `verdicts`.
        now: The threshold in force.
        look: The colours.
    """
    bars = (
        alt.Chart(table)
        .mark_bar()
        .encode(
            alt.X(
                "similarity:Q", title="similarity", scale=alt.Scale(domain=[0.5, 1.01]),
                axis=alt.Axis(format=".2f", grid=False, tickCount=6),
            ),
            alt.X2("end:Q"),
            alt.Y("verdicts:Q", title="verdicts", axis=_whole()),
            color=alt.Color(
                "verdict:N",
                scale=alt.Scale(domain=["correct", "wrong"], range=[look.exact, look.error]),
                legend=alt.Legend(title=None, orient="top-left"),
            ),
            tooltip=["similarity:Q", "verdict:N", "verdicts:Q"],
        )
    )  # fmt: skip
    row = pd.DataFrame({"similarity": [now], "label": [f"threshold {now:.3g}"]})
    rule = alt.Chart(row).mark_rule(color=look.now, strokeDash=[4, 3]).encode(x="similarity:Q")
    text = (
        alt.Chart(row)
        .mark_text(
            align="right", dx=-5, baseline="top", color=look.now, fontSize=12, fontWeight=600
        )
        .encode(x="similarity:Q", y=alt.value(2), text="label:N")
    )
    total = int(table["verdicts"].sum()) if len(table) else 0
    return Chart(
        _framed(alt.layer(bars, rule, text), "Verdicts by similarity", look, 220),
        f"{total:,} verdicts by similarity; the threshold is {now:.3g}.",
    )


def duration(seconds: float) -> str:
    """Return a stretch of time as people say it."""
    unit, size = _unit(seconds)
    return f"{seconds / size:.4g} {unit}"


def _unit(seconds: float) -> tuple[str, float]:
    for unit, size in (("days", 86_400.0), ("hours", 3_600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return unit, size
    return "seconds", 1.0


def _whole() -> alt.Axis:
    return alt.Axis(tickCount=4, tickMinStep=1, format="d")


def _names() -> alt.Axis:
    return alt.Axis(labelLimit=150, ticks=False, domain=False, labelPadding=6)


def _bars(table: pd.DataFrame, name: str, value: str, colour: Any, look: Palette, sort: Any) -> Any:
    # Room on the right for the labels.
    most = float(table[value].max()) * 1.45 if len(table) else 1.0
    y = alt.Y(f"{name}:N", title=None, sort=sort, axis=_names())
    x = alt.X(f"{value}:Q", axis=None, scale=alt.Scale(domain=[0, max(most, 1.0)]))
    base = alt.Chart(table)
    return alt.layer(
        base.mark_bar(cornerRadiusEnd=3, height={"band": 0.62}).encode(x, y, color=colour),
        base.mark_text(align="left", dx=6, color=look.text, fontSize=12).encode(
            x, y, text="label:N"
        ),
    )


def _framed(chart: Any, title: str, look: Palette, height: int) -> Any:
    return (
        chart.properties(
            height=height,
            title=alt.TitleParams(
                title, anchor="start", fontSize=_TITLE, color=look.text, offset=8
            ),
            padding={"left": 4, "right": 4, "top": 4, "bottom": 4},
        )
        .configure_view(strokeWidth=0)
        .configure_axis(
            labelColor=look.quiet,
            titleColor=look.quiet,
            gridColor=look.line,
            domainColor=look.line,
            tickColor=look.line,
            labelFontSize=12,
            titleFontSize=12,
            titleFontWeight="normal",
        )
    )
