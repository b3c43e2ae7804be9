"""Basis of all charts: the frame, the axes, labelled bars and lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import altair as alt
import pandas as pd

from dashboard.charts.theme import Palette

TITLE_SIZE = 15
LABEL_SIZE = 12
LEFT = 44
"""Pixels left of plots with a vertical number axis, so that charts align."""


Spec: TypeAlias = dict[str, Any]
"""Chart in Vega-Lite; `datasets` has its tables by name."""


class Chart(NamedTuple):
    """Chart with its alternative text."""

    spec: Spec
    alt: str


class Mark(NamedTuple):
    """Value drawn as a line: its place, label and colour."""

    at: float
    label: str
    colour: str


def layered(*parts: alt.Chart | Spec, independent: str = "") -> Spec:
    """Return *parts* on top of one another.

    Altair's own layers copy and validate all their parts: ten times slower, in every refresh.

    Args:
        parts: Charts of one view, or layers.
        independent: Channel whose scales the parts do not share.
    """
    tables: list[Any] = []
    layers = [_view(part, tables) for part in parts]
    # the same names in every refresh, so that the browser redraws the data alone
    found: Spec = {"layer": layers, "datasets": {str(n): table for n, table in enumerate(tables)}}
    if independent:
        found["resolve"] = {"scale": {independent: "independent"}}
    return found


def _view(part: alt.Chart | Spec, tables: list[Any]) -> Spec:
    """Return a part that names its tables; those are appended to *tables*."""
    if isinstance(part, dict):
        own = part.pop("datasets")
        for view in part["layer"]:
            view["data"] = {"name": _named(own[view["data"]["name"]], tables)}
        return part
    name = _named(part.data, tables)
    part = part.copy(deep=False)
    part.data = alt.Undefined
    view = part.to_dict(validate=False)
    return {**{key: view[key] for key in ("mark", "encoding")}, "data": {"name": name}}


def _named(table: Any, tables: list[Any]) -> str:
    for number, known in enumerate(tables):
        if known is table:
            return str(number)
    tables.append(table)
    return str(len(tables) - 1)


def framed(
    spec: Spec, title: str, look: Palette, height: int, subtitle: str | Sequence[str] = ""
) -> Spec:
    """Return a chart with title, subtitle by line, height in pixels, and the common look."""
    axis = {
        "labelColor": look.quiet, "titleColor": look.quiet, "gridColor": look.line,
        "gridOpacity": 0.7, "domainColor": look.line, "tickColor": look.line,
        "labelFontSize": LABEL_SIZE, "titleFontSize": LABEL_SIZE, "titleFontWeight": "normal",
        "titlePadding": 8,
    }  # fmt: skip
    heading = {
        "text": title, "anchor": "start", "frame": "bounds", "fontSize": TITLE_SIZE,
        "color": look.text, "subtitleColor": look.quiet, "subtitleFontSize": LABEL_SIZE,
        "subtitlePadding": 4, "offset": 10, **({"subtitle": subtitle} if subtitle else {}),
    }  # fmt: skip
    return {
        **spec,
        "height": height,
        "title": heading,
        "padding": {"left": 0, "right": 6, "top": 4, "bottom": 4},
        "config": {
            "view": {"strokeWidth": 0},
            "axis": axis,
            "legend": {"labelColor": look.quiet, "labelFontSize": LABEL_SIZE},
        },
    }


def bars(table: pd.DataFrame, name: str, value: str, colour: Any, look: Palette, sort: Any) -> Spec:
    """Return a bar for each row of *table*, its `label` at the end."""
    # leave room on the right for the labels
    longest = int(table["label"].str.len().max()) if len(table) else 0
    most = float(table[value].max()) * (1.15 + longest / 40) if len(table) else 1.0
    y = alt.Y(f"{name}:N", title=None, sort=sort, axis=names())
    x = alt.X(f"{value}:Q", axis=None, scale=alt.Scale(domain=[0, max(most, 1.0)]))
    base = alt.Chart(table)
    return layered(
        base.mark_bar(cornerRadiusEnd=3, height={"band": 0.6}).encode(x, y, color=colour),
        base.mark_text(align="left", dx=6, color=look.text, fontSize=LABEL_SIZE).encode(
            x, y, text="label:N"
        ),
    )


def marked(
    marks: Sequence[Mark],
    field: str,
    x: alt.X,
    span: tuple[float, float],
    *,
    low_down: bool = False,
) -> list[Any]:
    """Return a dashed line with a label for each of *marks*.

    Args:
        marks: The values.
        field: Field of the horizontal axis.
        x: The axis.
        span: Range of the axis.
        low_down: Whether the labels are at the bottom; else at the top.
    """
    layers: list[Any] = []
    low, high = span
    places = [min(high, max(low, mark.at)) for mark in marks]
    lefts = [_on_the_left(at, places, low, high) for at in places]
    for number, mark in enumerate(marks):
        at, left = places[number], lefts[number]
        row = alt.Chart(pd.DataFrame({field: [at]}))
        # if two are close together, a label must not cross the other's line
        beside = min(
            (place for place, is_left in zip(places, lefts, strict=True)
             if is_left and left and at - place < 0.25 * (high - low)),
            default=at,
        )  # fmt: skip
        label = alt.Chart(pd.DataFrame({field: [min(at, beside)], "label": [mark.label]}))
        place: Any = 2 + 16 * number
        if low_down:
            place = alt.ExprRef(f"height - {18 + 16 * (len(marks) - 1 - number)}")
        layers += [
            row.mark_rule(color=mark.colour, strokeWidth=1.5, strokeDash=[4, 3]).encode(x),
            label.mark_text(
                align="right" if left else "left",
                dx=-6 if left else 6,
                baseline="top",
                color=mark.colour,
                fontSize=LABEL_SIZE,
                fontWeight=600,
            ).encode(x, y=alt.value(place), text="label:N"),
        ]
    return layers


def _on_the_left(at: float, places: Sequence[float], low: float, high: float) -> bool:
    """Return whether a label is on the left of its line, where there is more room."""
    share = (at - low) / (high - low)
    if len(places) > 1 and 0.2 < share < 0.75:
        return at == min(places)
    return share > 0.45


def limit(
    value: float, label: str, colour: str, y: alt.Y, look: Palette, *, below: bool = False
) -> list[Any]:
    """Return a horizontal dashed line with a label on or below it, over everything else."""
    row = alt.Chart(pd.DataFrame({"limit": [value], "label": [label]}))
    text: dict[str, Any] = {
        "align": "left",
        "dx": 4,
        "dy": 11 if below else -8,
        "fontSize": LABEL_SIZE,
        "fontWeight": 600,
    }
    around: dict[str, Any] = {"stroke": look.ground, "strokeWidth": 4, "strokeJoin": "round"}
    return [
        row.mark_rule(color=colour, strokeDash=[5, 4], strokeWidth=1.5).encode(y),
        *(
            row.mark_text(color=colour, **text, **halo).encode(y, x=alt.value(0), text="label:N")
            for halo in (around, {})
        ),
    ]


def room_below(values: pd.Series, limit: float) -> bool:
    """Return whether a limit's label, at the left, has more room below it than above."""
    first = values.dropna().head(max(1, len(values) // 4))
    return not len(first) or bool(first.mean() >= limit)


def names() -> alt.Axis:
    """Return an axis for named bars."""
    return alt.Axis(labelLimit=170, ticks=False, domain=False, labelPadding=8)


def percent(decimals: int = 0, count: int = 5) -> alt.Axis:
    """Return a vertical axis of shares."""
    return alt.Axis(
        format=f".{decimals}%",
        tickCount=count,
        minExtent=LEFT,
        domain=False,
        ticks=False,
        grid=True,
    )


def whole(field: str, most: float) -> alt.Y:
    """Return a vertical axis of counts, up to *most* and with room above for labels."""
    axis = alt.Axis(
        tickCount=4, tickMinStep=1, format=",d", minExtent=LEFT, domain=False, ticks=False
    )
    scale = alt.Scale(domain=[0, max(1.0, 1.25 * most)], nice=False)
    return alt.Y(f"{field}:Q", title=None, axis=axis, scale=scale, stack="zero")


def unit(seconds: float) -> tuple[str, float]:
    """Return the unit that suits an axis of time, and its seconds."""
    for name, size in (("days", 86_400.0), ("hours", 3_600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return name, size
    return "seconds", 1.0
