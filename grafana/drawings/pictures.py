"""Draws the dashboards' panels as pictures: `python -m grafana.drawings.pictures http://localhost:9090`.

This is not Grafana: the queries, the grid, titles, units, colours, limits and marks are those of
the JSON files, the data is a Prometheus' answers, and matplotlib draws it.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import time
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator
from PIL import Image

from grafana.drawings.figures import clock, shown, ticks
from grafana.drawings.look import (
    COLORS,
    Json,
    Series,
    by_value,
    colors_of,
    defaults_of,
    named,
    stack,
    unit_of,
    with_gaps,
    worded,
)
from grafana.live import DIRECTORY, Prometheus

mpl.use("agg")
mpl.rcParams.update(
    {"font.family": ["Liberation Sans", "DejaVu Sans"], "axes.unicode_minus": False}
)

WIDTH, UNIT, GAP, DPI = 1440, 38, 8, 100
PAGE, PANEL, EDGE, TEXT, FAINT, GRID = (
    "#111217", "#181b1f", "#2c2f36", "#d5d6dc", "#8e8f98", "#26292f",
)  # fmt: skip


class Picture:
    """Drawing of a dashboard.

    Args:
        board: The dashboard in Grafana's format.
        prometheus: The Prometheus to query.
        start, end: Time range, in seconds since 1970.
        step: Seconds between two points.
    """

    def __init__(
        self, board: Json, prometheus: Prometheus, start: float, end: float, step: float
    ) -> None:
        self._board = board
        self._prometheus = prometheus
        self._start, self._end, self._step = start, end, step
        rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"])
        self._height = rows * UNIT + 58
        self._figure = Figure(figsize=(WIDTH / DPI, self._height / DPI), dpi=DPI, facecolor=PAGE)
        self._marks = [mark for note in board["annotations"]["list"] for mark in self._marked(note)]

    def draw(self) -> bytes:
        """Return the picture as a PNG of 256 colours."""
        self._text(16, 31, self._board["title"], size=15, weight="bold")
        span = f"{clock(self._start)} to {clock(self._end)} UTC"
        self._text(WIDTH - 16, 31, span, color=FAINT, ha="right")
        for panel in self._board["panels"]:
            self._panel(panel)
        raw, small = BytesIO(), BytesIO()
        self._figure.savefig(raw, format="png", facecolor=PAGE)
        picture = Image.open(raw).convert("RGB").quantize(256, dither=Image.Dither.NONE)
        picture.save(small, format="png", optimize=True)
        return small.getvalue()

    # ------------------------------------------------------------------ data

    def _lines(self, panel: Json) -> list[Series]:
        found = []
        for target in panel.get("targets", ()):
            expr = self._prometheus.filled(target["expr"], {})
            if target.get("instant"):
                asked = self._prometheus.get("query", query=expr, time=self._end)
                raw = [(one["metric"], [one["value"]]) for one in asked["result"]]
            else:
                asked = self._prometheus.get(
                    "query_range", query=expr, start=self._start, end=self._end, step=self._step
                )
                raw = [(one["metric"], one["values"]) for one in asked["result"]]
            for metric, points in raw:
                finite = [(float(at), float(to)) for at, to in points if math.isfinite(float(to))]
                if finite:
                    name = named(target["legendFormat"], metric)
                    found.append(Series(name, [at for at, _ in finite], [to for _, to in finite]))
        return found

    def _marked(self, note: Json) -> list[tuple[float, str]]:
        """Return the times of a graph's annotations."""
        asked = self._prometheus.get(
            "query_range",
            query=self._prometheus.filled(note["expr"], {}),
            start=self._start,
            end=self._end,
            step=self._step,
        )
        color = COLORS[note["iconColor"]]
        begun = (float(one["values"][0][0]) for one in asked["result"])
        return [(at, color) for at in begun if at > self._start + self._step]

    def _exemplars(self, panel: Json) -> list[tuple[float, float]]:
        found: set[tuple[float, float]] = set()
        for target in panel["targets"]:
            if target.get("exemplar"):
                expr = self._prometheus.filled(target["expr"], {})
                asked = self._prometheus.get(
                    "query_exemplars", query=expr, start=self._start, end=self._end
                )
                found |= {
                    (float(one["timestamp"]), float(one["value"]))
                    for series in asked
                    for one in series["exemplars"]
                }
        ordered = sorted(found)
        return ordered[:: max(1, len(ordered) // 80)]

    # ------------------------------------------------------------------ panels

    def _panel(self, panel: Json) -> None:
        at = panel["gridPos"]
        column = (WIDTH - 16) / 24
        x, y = 8 + at["x"] * column, 50 + at["y"] * UNIT
        width, height = at["w"] * column - GAP, at["h"] * UNIT - GAP
        if panel["type"] == "row":
            self._text(x + 4, y + 20, f"⌄  {panel['title']}", size=11.5, weight="bold")
            return
        box = FancyBboxPatch(
            (x / WIDTH, 1 - (y + height) / self._height),
            width / WIDTH, height / self._height,
            boxstyle="round,pad=0,rounding_size=0.002", mutation_aspect=WIDTH / self._height,
            transform=self._figure.transFigure, facecolor=PANEL, edgecolor=EDGE, linewidth=0.8,
            zorder=-1,
        )  # fmt: skip
        self._figure.add_artist(box)
        self._text(x + 10, y + 20, panel["title"], size=10, weight="bold", width=width - 16)
        lines = self._lines(panel)
        inside = (x, y + 28, width, height - 28)
        if not lines and panel["type"] != "timeseries":
            self._nothing(panel, inside)
        elif panel["type"] == "stat":
            self._stat(panel, lines, inside)
        elif panel["type"] == "bargauge":
            self._bars(panel, lines, inside)
        elif panel["type"] == "table":
            self._table(panel, lines, inside)
        else:
            self._graph(panel, lines, inside)

    def _table(
        self, panel: Json, lines: list[Series], inside: tuple[float, float, float, float]
    ) -> None:
        """Write each column's name and its values, as many rows as there is room for."""
        x, y, width, height = inside
        names = [target["legendFormat"] for target in panel["targets"]]
        units = {
            override["matcher"]["options"]: override["properties"][0]["value"]
            for override in panel["fieldConfig"]["overrides"]
        }
        each = (width - 20) / len(names)
        for column, name in enumerate(names):
            values = [line.values[-1] for line in lines if line.name == name]
            left = x + 10 + column * each
            self._text(left, y + 18, name, size=10, color=FAINT)
            for row, value in enumerate(values[: int((height - 30) // 22)]):
                self._text(left, y + 42 + 22 * row, shown(value, units[name]), size=10)

    def _nothing(self, panel: Json, inside: tuple[float, float, float, float]) -> None:
        x, y, width, height = inside
        text = defaults_of(panel).get("noValue", "No data")
        number = bool(re.fullmatch(r"[\d.$%]+", text))
        color = by_value(panel, 0.0) if number else FAINT
        self._text(
            x + width / 2, y + height / 2 + (8 if number else 2), text,
            color=color, size=26 if number else 12, ha="center",
        )  # fmt: skip

    def _stat(
        self, panel: Json, lines: list[Series], inside: tuple[float, float, float, float]
    ) -> None:
        x, y, width, height = inside
        each = width / len(lines)
        mode = panel["options"].get("textMode")
        by_name, both = mode == "name", mode == "value_and_name"
        for number, line in enumerate(lines):
            left, value = x + number * each, line.values[-1]
            text, color = worded(panel, value)
            if len(line.values) > 1:
                low = y + height * 0.68
                axes = self._axes(left + 1, low, each - 2, y + height - low - 1)
                floor = min(line.values) - 0.1 * (max(line.values) - min(line.values)) - 1e-9
                axes.fill_between(line.times, line.values, floor, color=color, alpha=0.16, lw=0)
                axes.plot(line.times, line.values, color=color, lw=1)
                axes.set(xlim=(self._start, self._end))
                axes.margins(y=0.05)
                axes.axis("off")
            middle = left + each / 2
            half = y + height * (0.4 if len(line.values) > 1 else 0.5)
            if by_name or (len(lines) == 1 and not both):
                label = line.name if by_name else text
                size = min(30.0, 1.55 * each / max(3, len(label)))
                self._text(middle, half + size / 3, label, color, size, ha="center")
            else:
                size = min(26.0, 1.4 * each / max(3, len(text)))
                self._text(middle, half - 12, line.name, TEXT, 10, ha="center")
                self._text(middle, half + size * 0.8, text, color, size, ha="center")

    def _bars(
        self, panel: Json, lines: list[Series], inside: tuple[float, float, float, float]
    ) -> None:
        x, y, width, height = inside
        lines = lines[:14]
        unit, decimals = unit_of(panel)
        each = min(34.0, (height - 10) / len(lines))
        names = min(width * 0.45, 14 + 6.4 * max(len(line.name) for line in lines))
        full = width - names - 84
        most = max([*(line.values[-1] for line in lines), 1e-9])
        for number, line in enumerate(lines):
            value = line.values[-1]
            top = y + 4 + number * each
            axes = self._axes(x + names + 8, top + 2, full, each - 5)
            axes.axis("off")
            axes.set(xlim=(0, most), ylim=(0, 1))
            axes.barh(0.5, most, height=1, color="#22252b")
            axes.barh(0.5, value, height=1, color=by_value(panel, value), alpha=0.9)
            middle = top + each / 2 + 3
            self._text(x + names, middle, line.name, TEXT, 9, ha="right")
            text = shown(value, unit, decimals)
            self._text(x + names + full + 16, middle, text, by_value(panel, value), 10)

    def _graph(
        self, panel: Json, lines: list[Series], inside: tuple[float, float, float, float]
    ) -> None:
        x, y, width, height = inside
        custom, (unit, decimals) = defaults_of(panel)["custom"], unit_of(panel)
        colors = colors_of(panel, lines)
        legend = self._legend(lines, colors, x + 12, y + height - 8, width - 24)
        axes = self._axes(x + 66, y + 4, width - 82, height - 30 - legend)
        axes.set_facecolor(PANEL)
        stacked = custom.get("stacking", {}).get("mode") == "normal"
        if custom.get("scaleDistribution", {}).get("type") == "log":
            axes.set_yscale("log")
        plain = [one for one in zip(lines, colors, strict=True) if not one[1][1]]
        if stacked and plain:
            stack(axes, [line for line, _ in plain], [tone for _, (tone, _) in plain], self._step)
        for line, (color, limit) in zip(lines, colors, strict=True):
            if limit or not stacked:
                moments, values = with_gaps(line, self._step)
                axes.plot(
                    moments, values, color=color, lw=1.3, ls=(0, (6, 4)) if limit else "-",
                    drawstyle="steps-post" if limit else "default",
                    marker="o" if len(values) < 3 else None, ms=3, zorder=3,
                )  # fmt: skip
        if not lines:
            axes.text(0.5, 0.5, "No data", color=FAINT, transform=axes.transAxes, ha="center")
        dots = self._exemplars(panel) if lines else []
        self._dress(axes, panel, unit, decimals, dots)

    def _dress(
        self, axes: Axes, panel: Json, unit: str, decimals: int | None,
        dots: list[tuple[float, float]],
    ) -> None:  # fmt: skip
        defaults = defaults_of(panel)
        low, high = axes.get_ylim()
        if axes.get_yscale() != "log":
            low = min(0.0, low) if low < high / 2 else low
            low, high = defaults.get("min", low), defaults.get("max", high * 1.05)
            even = MultipleLocator(2 ** math.ceil(math.log2(max(high - low, 5) / 5)))
            plain = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], integer=decimals == 0)
            axes.yaxis.set_major_locator(even if unit == "bytes" else plain)
        axes.set(xlim=(self._start, self._end), ylim=(low, high))
        if defaults["custom"].get("thresholdsStyle", {}).get("mode") == "dashed":
            for step in defaults["thresholds"]["steps"][1:]:
                if low <= step["value"] <= high:
                    axes.axhline(step["value"], color=COLORS[step["color"]], lw=1, ls=(0, (6, 4)))
        for at, color in self._marks:
            axes.axvline(at, color=color, lw=1, ls=(0, (3, 3)), alpha=0.8, zorder=2)
            axes.plot([at], [0], marker="^", ms=5, color=color, clip_on=False,
                      transform=axes.get_xaxis_transform(), zorder=4)  # fmt: skip
        inside = [(at, value) for at, value in dots if low <= value <= high]
        if inside:
            moments, values = zip(*inside, strict=True)
            axes.plot(moments, values, "D", ms=2.6, color="#6e9fff", alpha=0.55, mew=0, zorder=2)
        axes.grid(color=GRID, lw=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(colors=FAINT, labelsize=8, length=0)
        axes.minorticks_off()
        for side in axes.spines.values():
            side.set_visible(False)
        words = {
            float(value): result["text"]
            for mapping in defaults.get("mappings", ())
            for value, result in mapping["options"].items()
        }
        if words:
            axes.set_yticks(sorted(words))
        axes.yaxis.set_major_formatter(
            FuncFormatter(lambda value, _: words.get(value, shown(value, unit, decimals)))
        )
        axes.set_xticks(ticks(self._start, self._end))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: clock(at)))

    def _legend(
        self, lines: list[Series], colors: list[tuple[str, bool]], x: float, y: float, width: float
    ) -> float:
        """Draw the legend from the bottom; return its height."""
        rows: list[list[tuple[str, tuple[str, bool], float]]] = [[]]
        used = 0.0
        for line, color in zip(lines, colors, strict=True):
            wide = 34 + 6.1 * len(line.name)
            if rows[-1] and used + wide > width:
                rows.append([])
                used = 0.0
            rows[-1].append((line.name, color, wide))
            used += wide
        rows = rows[:4]
        for number, row in enumerate(reversed(rows)):
            left, down = x, y - 17 * number
            for name, (tone, limit), wide in row:
                axes = self._axes(left, down - 7, 14, 6)
                axes.axis("off")
                axes.plot([0, 1], [0, 0], color=tone, lw=2.4, ls=(0, (1.6, 1)) if limit else "-")
                self._text(left + 19, down, name, TEXT, 9)
                left += wide
        return 17.0 * len(rows)

    # ------------------------------------------------------------------ paper

    def _axes(self, x: float, y: float, width: float, height: float) -> Axes:
        return self._figure.add_axes(
            (
                x / WIDTH,
                1 - (y + height) / self._height,
                width / WIDTH,
                max(height, 1) / self._height,
            )
        )

    def _text(
        self, x: float, y: float, text: str, color: str = TEXT, size: float = 10,
        *, width: float | None = None, **more: Any,
    ) -> None:  # fmt: skip
        if width is not None and len(text) * 6.6 > width:
            size *= max(0.75, width / (len(text) * 6.6))
        self._figure.text(
            x / WIDTH, 1 - y / self._height, text, color=color, fontsize=size * 0.93,
            parse_math=False, **more,
        )  # fmt: skip


def draw_all(prometheus: Prometheus, start: float, end: float, step: float, to: Path) -> list[Path]:
    """Draw each dashboard into a file; return the files."""
    to.mkdir(parents=True, exist_ok=True)
    made = []
    for path in sorted(DIRECTORY.glob("*.json")):
        board = json.loads(path.read_text(encoding="utf-8"))
        made.append(to / f"{path.stem}.png")
        made[-1].write_bytes(Picture(board, prometheus, start, end, step).draw())
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m grafana.drawings.pictures", description=__doc__
    )
    parser.add_argument("url", help="of the Prometheus")
    parser.add_argument("--scrape", type=float, default=15.0, help="its scrape interval, seconds")
    parser.add_argument("--minutes", type=float, default=60.0, help="how far to look back")
    parser.add_argument("--end", type=float, help="of the time shown, seconds since 1970; now")
    parser.add_argument("--to", type=Path, default=Path("docs/images/dashboards"), help="directory")
    options = parser.parse_args(arguments)
    end = options.end or time.time()
    start = end - 60 * options.minutes
    prometheus = Prometheus(options.url, options.scrape, start)
    step = max(options.scrape, (end - start) / 600)
    for path in draw_all(prometheus, start, end, step, options.to):
        sys.stdout.write(f"{path} {path.stat().st_size // 1024} kB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
