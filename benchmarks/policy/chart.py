"""Picture and tables of the measured policies, beside what others publish."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from benchmarks.support.docs_table import markdown
from benchmarks.support.themes import THEMES, figure, shown

NAME = "policy"


class Published(NamedTuple):
    """Figures that others publish of their own cache, on their own traffic.

    Attributes:
        name: Theirs.
        source: Address, and when it was read.
        points: Share of hits and share of right ones among them, by threshold.
    """

    name: str
    source: str
    points: Mapping[str, tuple[float, float]]


PUBLISHED = (
    Published(
        "AWS ElastiCache, Titan V2, 63,796 chatbot questions",
        "docs.aws.amazon.com, ElastiCache, semantic caching, Impact and benchmarks; November 2026",
        {
            "0.99": (0.235, 0.921), "0.95": (0.560, 0.926), "0.90": (0.745, 0.923),
            "0.80": (0.876, 0.918), "0.75": (0.903, 0.912), "0.50": (0.943, 0.875),
        },
    ),
    Published(
        "sulci 0.10.1rc1, MiniLM, 6,588 questions",
        "its page on the Python Package Index; November 2026",
        {"0.85": (4_014 / 6_588, 0.938)},
    ),
)  # fmt: skip

TITLES = {
    "threshold": "threshold alone",
    "guarded": "threshold and guards",
    "learned": "learned policy",
}
_OTHERS = (
    "What others publish, each on traffic of its own: its place in the picture says what was "
    "reached there, not how it would do here"
)
_ALT = (
    "Share of right answers among the hits against the hit rate: the learned policy is above the "
    "guarded threshold, that is above the plain one; the tables below have the figures"
)


def draw(found: Mapping[str, Any]) -> None:
    """Draw the share of right hits against hits, once for each theme."""
    for theme in THEMES:
        with figure(NAME, theme, 1, 2, (11, 4.2)) as (drawing, (axes,)):
            everything, near = axes
            colors = {"threshold": theme.baseline, "guarded": "#d29922", "learned": theme.ours}
            for axis in axes:
                for name, title in TITLES.items():
                    points = [(100 * one["hit_rate"], 100 * (1 - one["wrong_share"]))
                              for one in found[name]]  # fmt: skip
                    axis.plot(
                        *zip(*points, strict=True), marker="o", markersize=3.5, label=title,
                        color=colors[name],
                    )  # fmt: skip
                axis.grid(linewidth=0.6)
                axis.set_axisbelow(True)
                axis.set_xlabel("hits, % of requests")
            for each, marker in zip(PUBLISHED, "s^", strict=True):
                points = [(100 * hits, 100 * right) for hits, right in each.points.values()]
                everything.plot(
                    *zip(*points, strict=True), marker=marker, markersize=4.5, linestyle=":",
                    color=theme.others, label=f"{each.name} *",
                )  # fmt: skip
                for threshold, (hits, right) in each.points.items():
                    everything.annotate(
                        threshold, (100 * hits, 100 * right), textcoords="offset points",
                        xytext=(0, -12), ha="center", fontsize=8, color=theme.text,
                    )  # fmt: skip
            everything.set(title="all", xlim=(15, 100), ylim=(86, 100.5))
            everything.set_ylabel("right, % of hits")
            near.set(title="the corner that matters", xlim=(40, 66), ylim=(97, 100.05))
            lines, names = everything.get_legend_handles_labels()
            drawing.legend(
                lines, names, loc="outside lower center", ncols=2, frameon=False,
                labelcolor=theme.text,
            )  # fmt: skip


def body(found: Mapping[str, Any]) -> str:
    """Return the picture and the tables of the recorded results."""
    thresholds = [
        [f"{plain['setting']:g}", *_figures(plain), *_figures(guarded)]
        for plain, guarded in zip(found["threshold"], found["guarded"], strict=True)
    ]
    learned = [[f"risk {one['setting']:g}", *_figures(one)] for one in found["learned"]]
    learned += [
        [f"at most {one['setting']:.1%} wrong, the risk chosen on the other parts", *_figures(one)]
        for one in found["within"]
    ]
    others = [
        [f"{each.name}, {threshold}", f"{hits:.1%}", f"{1 - right:.1%}"]
        for each in PUBLISHED
        for threshold, (hits, right) in each.points.items()
    ]
    sources = "; ".join(f"{each.name.split(',')[0]}: {each.source}" for each in PUBLISHED)
    return "\n\n".join(
        (
            shown(NAME, _ALT),
            f"On {found['requests']:,} requests, from an empty cache, without expiry:",
            markdown(("threshold", "hits", "wrong", "with guards", "wrong"), thresholds),
            markdown(("learned policy", "hits", "wrong"), learned),
            f"\\* {_OTHERS}:",
            markdown(("threshold", "hits", "wrong"), others),
            f"{sources}.",
        )
    )


def _figures(point: Mapping[str, Any]) -> tuple[str, str]:
    return f"{point['hit_rate']:.1%}", f"{point['wrong_share']:.2%}"
