"""Bars as inline SVG: drawn by the browser without a script."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

_WIDTH, _HEIGHT = 720.0, 200.0
_LEFT, _BOTTOM, _TOP = 56.0, 24.0, 10.0
_LABELS = 6
_GAP = 0.15


class Bar(NamedTuple):
    """A bar with its parts, from the bottom.

    Attributes:
        label: Under the axis.
        values: Heights of its parts; empty for a gap.
        title: Text that the pointer shows.
    """

    label: str
    values: Sequence[float]
    title: str


def bars(name: str, every: Sequence[Bar], most: float, unit: str, line: float | None = None) -> str:
    """Return a chart.

    Args:
        name: What it shows, for those who cannot see it.
        every: The bars, from the left.
        most: Top of the axis.
        unit: Format of the axis' numbers, as for `str.format`.
        line: A target to draw.
    """
    most = most if most > 0 else 1.0
    inner = _HEIGHT - _BOTTOM - _TOP
    step = (_WIDTH - _LEFT) / max(len(every), 1)

    def height(value: float) -> float:
        return inner * min(max(value, 0.0), most) / most

    parts = [
        f'<svg viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" role="img" aria-label="{escape(name)}">'
    ]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = _TOP + inner * (1 - share)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        text = escape(unit.format(share * most))
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    every_nth = -(-len(every) // _LABELS) if every else 1
    for number, bar in enumerate(every):
        x, top = _LEFT + number * step, _TOP + inner
        parts.append(f"<g><title>{escape(bar.title)}</title>")
        for part, value in enumerate(bar.values):
            tall = height(value)
            top -= tall
            parts.append(
                f'<rect class="part{part}" x="{x + step * _GAP / 2:.1f}" y="{top:.1f}" '
                f'width="{step * (1 - _GAP):.1f}" height="{tall:.1f}"/>'
            )
        parts.append("</g>")
        if number % every_nth == 0:
            parts.append(
                f'<text x="{x + step / 2:.1f}" y="{_HEIGHT - 6}" text-anchor="middle">'
                f"{escape(bar.label)}</text>"
            )
    if line is not None:
        y = _TOP + inner - height(line)
        parts.append(f'<line class="target" x1="{_LEFT}" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
    return "".join([*parts, "</svg>"])
