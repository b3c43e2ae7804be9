"""Chart of the comparison of lookups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.peers.lookup_worker import BASELINE
from benchmarks.peers.report import KINDS
from benchmarks.support.themes import THEMES, figure, shown

NAME = "peers"
_SHOWN = ("exact", "semantic", "miss")


def draw(found: Mapping[str, Any]) -> None:
    """Draw medians and quartiles, once for each theme."""
    caches = [each for each in found["contenders"] if each["name"] != BASELINE]
    base = next(each for each in found["contenders"] if each["name"] == BASELINE)
    names = [each["title"] for each in caches]
    for theme in THEMES:
        with figure(NAME, theme, 1, len(_SHOWN), (11, 0.8 + 0.42 * len(caches))) as (_, (axes,)):
            for axis, kind in zip(axes, _SHOWN, strict=True):
                times = [each[kind] for each in caches]
                middle = [one["p50_ms"] for one in times]
                axis.barh(
                    names, middle, height=0.62,
                    color=[theme.ours if each["ours"] else theme.others for each in caches],
                )  # fmt: skip
                low = [one["p50_ms"] - one["p25_ms"] for one in times]
                high = [one["p75_ms"] - one["p50_ms"] for one in times]
                axis.errorbar(
                    middle, names, xerr=(low, high), fmt="none", ecolor=theme.text,
                    elinewidth=1, capsize=2,
                )  # fmt: skip
                reach = max(one["p75_ms"] for one in times)
                for name, one in zip(names, times, strict=True):
                    axis.text(
                        one["p75_ms"] + 0.03 * reach, name, _short(one["p50_ms"]), va="center"
                    )
                if kind != "exact":
                    axis.axvline(
                        base[kind]["p50_ms"], color=theme.baseline, linestyle="--", linewidth=1
                    )
                axis.set(title=f"{KINDS[kind]}, ms", xlim=(0, 1.25 * reach))
                axis.grid(axis="x", linewidth=0.6)
                axis.set_axisbelow(True)
                axis.tick_params(length=0)
                axis.invert_yaxis()
            for axis in axes[1:]:
                axis.set_yticklabels([])


def _short(milliseconds: float) -> str:
    return f"{milliseconds:.2f}" if milliseconds < 10 else f"{milliseconds:.1f}"


def html(found: Mapping[str, Any]) -> str:
    """Return the HTML that shows the chart, with the medians as its text."""
    each = "; ".join(
        f"{one['title']} " + ", ".join(_short(one[kind]["p50_ms"]) for kind in _SHOWN)
        for one in found["contenders"]
        if one["name"] != BASELINE
    )
    kinds = ", ".join(KINDS[kind] for kind in _SHOWN)
    return shown(NAME, f"Median milliseconds of {kinds}: {each}")
