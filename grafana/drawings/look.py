"""Appearance of values and lines in a panel: colours and names."""

from __future__ import annotations

import itertools
import math
import re
from typing import Any, NamedTuple

from matplotlib.axes import Axes

from grafana.drawings.figures import short, shown

Json = dict[str, Any]

COLORS = {
    "green": "#73bf69", "orange": "#ff9830", "red": "#f2495c", "blue": "#5794f2",
    "purple": "#b877d9", "yellow": "#fade2a",
    "light-green": "#96d98d", "super-light-green": "#c8f2c2", "light-red": "#ff7383",
    "super-light-red": "#ffa6b0", "dark-red": "#c4162a",
}  # fmt: skip
PALETTE = (
    "#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#56a64b",
    "#e0b400", "#ca95e5", "#ffa6b0", "#96d98d", "#37872d", "#fa6400", "#3274d9", "#8f3bb8",
)  # fmt: skip

_LABEL = re.compile(r"\{\{(\w+)\}\}")


class Series(NamedTuple):
    """Line of a graph: legend, times and numbers."""

    name: str
    times: list[float]
    values: list[float]


def named(legend: str, metric: Json) -> str:
    """Return the name of a line in the legend."""
    if legend == "__auto":
        return " ".join(value for name, value in metric.items() if name != "__name__") or "value"
    return _LABEL.sub(lambda label: str(metric.get(label[1], "")), legend).strip()


def defaults_of(panel: Json) -> Json:
    """Return a panel's default field options."""
    found: Json = panel["fieldConfig"]["defaults"]
    return found


def unit_of(panel: Json) -> tuple[str, int | None]:
    """Return a panel's unit, and how many digits are after the point."""
    return defaults_of(panel)["unit"], defaults_of(panel).get("decimals")


def by_value(panel: Json, value: float) -> str:
    """Return the colour of a value's step."""
    steps = defaults_of(panel)["thresholds"]["steps"]
    passed = [step for step in steps if step.get("value") is None or step["value"] <= value]
    return COLORS[passed[-1]["color"]]


def worded(panel: Json, value: float) -> tuple[str, str]:
    """Return the text for a value, and its colour."""
    for mapping in defaults_of(panel).get("mappings", ()):
        if short(value) in mapping["options"]:
            word = mapping["options"][short(value)]
            return word["text"], COLORS[word["color"]]
    return shown(value, *unit_of(panel)), by_value(panel, value)


def colors_of(panel: Json, lines: list[Series]) -> list[tuple[str, bool]]:
    """Return a colour for each line, and whether it is a limit."""
    overrides = panel["fieldConfig"].get("overrides", ())
    fixed = {
        of["matcher"]["options"]: COLORS.get(
            of["properties"][0]["value"]["fixedColor"], of["properties"][0]["value"]["fixedColor"]
        )
        for of in overrides
        if of["matcher"]["id"] == "byName"
    }
    limits = [
        re.compile(of["matcher"]["options"].strip("/"))
        for of in overrides
        if of["matcher"]["id"] == "byRegexp"
    ]
    found: list[tuple[str, bool]] = []
    for line in lines:
        limit = any(pattern.search(line.name) for pattern in limits)
        free = PALETTE[sum(not of for _, of in found) % len(PALETTE)]
        found.append((COLORS["red"], True) if limit else (fixed.get(line.name, free), False))
    return found


def with_gaps(line: Series, step: float) -> tuple[list[float], list[float]]:
    """Return the line, interrupted where points are missing."""
    times, values = [line.times[0]], [line.values[0]]
    for at, value in zip(line.times[1:], line.values[1:], strict=True):
        if at - times[-1] > 2.5 * step:
            times.append(at - step)
            values.append(math.nan)
        times.append(at)
        values.append(value)
    return times, values


def stack(axes: Axes, lines: list[Series], colors: list[str], step: float) -> None:
    """Draw stacked lines."""
    told = sorted({at for line in lines for at in line.times})
    gaps = {at + step for at, then in itertools.pairwise(told) if then - at > 2.5 * step}
    moments = sorted({*told, *gaps})
    below = [0.0] * len(moments)
    for line, color in zip(lines, colors, strict=True):
        known = dict(zip(line.times, line.values, strict=True))
        above = [
            math.nan if at in gaps else low + known.get(at, 0.0)
            for at, low in zip(moments, below, strict=True)
        ]
        axes.fill_between(moments, below, above, color=color, alpha=0.4, lw=0)
        axes.plot(moments, above, color=color, lw=1)
        below = above
