"""Colours of charts on a light and a dark page, and how a page shows the right one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.support.docs_table import PICTURES


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours of a chart.

    Attributes:
        name: Ending of the file's name.
        page: Background.
        text: Labels and axes.
        grid: Lines behind the data.
        ours: This cache.
        others: Other caches.
        baseline: What they are compared with.
    """

    name: str
    page: str
    text: str
    grid: str
    ours: str
    others: str
    baseline: str


THEMES = (
    Theme("light", "#ffffff", "#24292f", "#d0d7de", "#0a66c2", "#8c959f", "#57606a"),
    Theme("dark", "#0d1117", "#e6edf3", "#30363d", "#58a6ff", "#6e7681", "#9ea7b3"),
)


@contextmanager
def figure(
    name: str, theme: Theme, rows: int, columns: int, size: tuple[float, float]
) -> Iterator[Any]:
    """Yield (figure, axes) in the colours of *theme*; write them to docs/pictures afterwards.

    Args:
        name: Beginning of the file's name.
        theme: Colours.
        rows: Rows of axes.
        columns: Columns of axes.
        size: Width and height, in inches.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    look: dict[str, Any] = {
        "figure.facecolor": theme.page, "axes.facecolor": theme.page,
        "savefig.facecolor": theme.page,
        "text.color": theme.text, "axes.labelcolor": theme.text, "axes.titlecolor": theme.text,
        "xtick.color": theme.text, "ytick.color": theme.text, "axes.edgecolor": theme.grid,
        "grid.color": theme.grid, "font.size": 10, "svg.fonttype": "none", "svg.hashsalt": name,
        "font.family": "sans-serif", "axes.spines.top": False, "axes.spines.right": False,
    }  # fmt: skip
    with plt.rc_context(look):
        drawing, axes = plt.subplots(
            rows, columns, figsize=size, layout="constrained", squeeze=False
        )
        yield drawing, axes
        path = PICTURES / f"{name}-{theme.name}.svg"
        drawing.savefig(path, metadata={"Date": None})
        # matplotlib ends lines with spaces
        text = "\n".join(line.rstrip() for line in path.read_text(encoding="utf-8").splitlines())
        path.write_text(text + "\n", encoding="utf-8")
        plt.close(drawing)


def shown(name: str, alt: str) -> str:
    """Return the HTML that shows the picture in the colours of the page.

    Args:
        name: Beginning of the files' names.
        alt: What the picture shows, for those who cannot see it.
    """
    dark, light = (f"pictures/{name}-{theme}.svg" for theme in ("dark", "light"))
    return (
        f'<picture>\n  <source media="(prefers-color-scheme: dark)" srcset="{dark}">\n'
        f'  <img alt="{alt}" src="{light}">\n</picture>'
    )
