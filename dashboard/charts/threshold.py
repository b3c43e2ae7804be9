"""Charts of the effects of other similarity thresholds, with today's and the proposed one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import pandas as pd

from cache_core.whatif import ThresholdEstimate
from dashboard.charts.base import LEFT, Chart, Mark, framed, layered, limit, marked, percent
from dashboard.charts.theme import Palette

_LOW, _HIGH = 0.5, 1.0


@dataclass(frozen=True, slots=True)
class Drawn:
    """Quantity of the estimates for a chart.

    Attributes:
        title: Title of the chart.
        value: Returns an estimate's value.
        written: Returns a value in words.
        format: Format of the axis, for d3.
        full: Whether it is a share, whose axis ranges from its lowest to its highest value.
    """

    title: str
    value: Callable[[ThresholdEstimate], float]
    written: Callable[[float], str]
    format: str
    full: bool = False


DRAWN: Mapping[str, Drawn] = {
    "Hit rate": Drawn(
        "Hit rate that each threshold would have had", lambda item: item.hit_rate,
        lambda value: f"{value:.1%}", ".0%", full=True,
    ),
    "Money": Drawn(
        "USD that each threshold would have saved, of 1,000 lookups",
        lambda item: 1000 * item.saved_usd / max(1, item.lookups),
        lambda value: f"{value:.2f} USD", ",.0f",
    ),
    "Latency": Drawn(
        "Mean milliseconds of a lookup that each threshold would have had",
        lambda item: item.latency_ms, lambda value: f"{value:.1f} ms", ",.3~r",
    ),
}  # fmt: skip
"""Quantities over the threshold, by name."""


def threshold_curve(
    what: str, curve: Sequence[ThresholdEstimate], now: float, proposed: float, look: Palette
) -> Chart:
    """Return one of `DRAWN` over the threshold."""
    drawn = DRAWN[what]
    table = pd.DataFrame(
        [{"threshold": item.threshold, "value": drawn.value(item)} for item in curve]
    )
    top = max(float(table["value"].max()) * 1.15, 1e-9)
    low = 0.0
    if drawn.full:
        # from 0 to 100 %, a gain of five points would hardly be seen
        values = table["value"]
        margin = max(0.02, 0.15 * float(values.max() - values.min()))
        low, top = (
            max(0.0, float(values.min()) - margin), min(1.0, float(values.max()) + margin)
        )  # fmt: skip
    scale = alt.Scale(domain=[low, top])
    axis = alt.Axis(format=drawn.format, tickCount=5, minExtent=LEFT, domain=False, ticks=False)
    tooltip = [
        alt.Tooltip("threshold:Q", format=".2f"),
        alt.Tooltip("value:Q", title=what.lower(), format=".1%" if drawn.full else ",.2f"),
    ]
    base = alt.Chart(table)
    y = alt.Y("value:Q", title=None, scale=scale, axis=axis)
    area = base.mark_area(color=look.exact, opacity=0.1, clip=True).encode(_axis(), y)
    line = base.mark_line(color=look.exact, strokeWidth=2.5).encode(_axis(), y, tooltip=tooltip)
    marks, points, words = _marks(
        curve, now, proposed, drawn.value, drawn.written, alt.Y("value:Q", scale=scale), look
    )
    # the labels go below the line, unless it is low
    low_down = min(drawn.value(item) for item in curve) > low + 0.2 * (top - low)
    lines = marked(marks, "threshold", _axis(), (_LOW, _HIGH), low_down=low_down)
    layers = [area, line, *lines, *points]
    return Chart(
        framed(layered(*layers), drawn.title, look, 270),
        f"Recorded lookups at other thresholds. {what}: {words}.",
    )


def threshold_wrong(
    curve: Sequence[ThresholdEstimate], now: float, proposed: float, accepted: float, look: Palette
) -> Chart:
    """Return the share of wrong hits at each threshold, with its uncertainty."""
    rows = [
        {
            "threshold": item.threshold,
            "value": item.wrong_share,
            "low": item.wrong_low,
            "high": item.wrong_high,
            "kind": "enough verdicts" if item.enough else "not enough evidence",
            "evidence": item.evidence,
        }
        for item in curve
        if item.wrong_share is not None
    ]
    table = pd.DataFrame(rows, columns=["threshold", "value", "low", "high", "kind", "evidence"])
    scale = alt.Scale(domain=[0, _top(curve, now, proposed, accepted)])
    base = alt.Chart(table)
    band = base.mark_area(color=look.band, opacity=0.2, clip=True).encode(
        _axis(), alt.Y("low:Q", scale=scale), y2="high:Q"
    )
    line = base.mark_line(color=look.band, strokeWidth=2, clip=True).encode(
        _axis(),
        alt.Y("value:Q", title=None, scale=scale, axis=percent(1)),
        strokeDash=alt.StrokeDash(
            "kind:N",
            scale=alt.Scale(
                domain=["enough verdicts", "not enough evidence"], range=[[1, 0], [3, 4]]
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
    goal = limit(
        accepted, f"your limit {accepted:.1%}", look.error, alt.Y("limit:Q", scale=scale), look
    )
    marks, points, words = _marks(
        curve, now, proposed, lambda item: item.wrong_share, lambda value: f"{value:.2%}",
        alt.Y("value:Q", scale=scale), look,
    )  # fmt: skip
    layers = [band, line, *goal, *marked(marks, "threshold", _axis(), (_LOW, _HIGH)), *points]
    return Chart(
        framed(
            layered(*layers), "Wrong hits, of all hits", look, 310,
            "estimate and 95% interval, from verdicts weighted by traffic",
        ),
        f"Share of wrong hits: {words}. Limit {accepted:.1%}.",
    )  # fmt: skip


def _top(curve: Sequence[ThresholdEstimate], now: float, proposed: float, accepted: float) -> float:
    """Return the end of the axis, so that the area around both thresholds is visible."""
    near = [
        item.wrong_high
        for item in curve
        if item.wrong_high is not None and item.threshold >= min(now, proposed) - 0.005
    ]
    return min(1.0, max([4 * accepted, *(1.25 * value for value in near)], default=4 * accepted))


def _axis() -> alt.X:
    return alt.X(
        "threshold:Q",
        title="similarity threshold",
        scale=alt.Scale(domain=[_LOW, _HIGH]),
        axis=alt.Axis(format=".2f", tickCount=6, grid=False, labelFlush=False),
    )


def _marks(
    curve: Sequence[ThresholdEstimate],
    now: float,
    proposed: float,
    value: Callable[[ThresholdEstimate], float | None],
    written: Callable[[float], str],
    y: alt.Y,
    look: Palette,
) -> tuple[list[Mark], list[Any], str]:
    """Return today's and the proposed threshold as lines, as points, and in words."""
    marks = [("now", now, look.now)]
    if abs(proposed - now) > 1e-9:
        marks.append(("proposed", proposed, look.proposed))
    lines: list[Mark] = []
    points: list[Any] = []
    for name, at, colour in marks:
        item = min(curve, key=lambda item, at=at: abs(item.threshold - at))  # type: ignore[misc]
        there = value(item)
        label = f"{name} {at:.3g}: {'not known' if there is None else written(there)}"
        lines.append(Mark(at, label, colour))
        if there is not None and at >= _LOW:
            row = pd.DataFrame({"threshold": [at], "value": [there]})
            points.append(
                alt.Chart(row)
                .mark_point(filled=True, size=80, color=colour, opacity=1)
                .encode(_axis(), y)
            )
    return lines, points, "; ".join(mark.label for mark in lines)
