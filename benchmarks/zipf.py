"""Hit rate against cache size, on simulated Zipf traffic.

The question of rank r is asked in proportion to 1 / r ** s, each lookup independently of the
others. The cache keeps the most recently used answers; an answer expires a fixed time after its
put. Lifetimes are counted in lookups, so that one figure serves every rate: 86,400 lookups are a
day at one lookup a second, and 8.64 s at 10,000. The first half of the lookups fills the cache and
is not counted. For L1 a question is a text, for L2 a meaning.

    python -m benchmarks.zipf                 under a minute
    python -m benchmarks.zipf --write-docs    and the table and the plot in docs/scaling.md
"""

from __future__ import annotations

import argparse
import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from benchmarks.support.docs_table import MEASURED, SCALING, markdown, write
from benchmarks.support.themes import THEMES, figure, shown

RECORDED = MEASURED / "zipf.json"
QUESTIONS = 100_000
LOOKUPS = 600_000
EXPONENTS = (0.7, 0.9, 1.0, 1.1, 1.3)
SHARES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Sizes of the cache, each as a share of the distinct questions."""

LIFETIMES: tuple[int | None, ...] = (None, 86_400, 36_000)
HEADER = ("cache size", *(f"s = {exponent:g}" for exponent in EXPONENTS))

_ALT = (
    "Hit rate against cache size, one line for each Zipf exponent, one panel for each lifetime: "
    "the table below has the figures"
)

console = Console(stderr=True)


def ranks(exponent: float, lookups: int, questions: int = QUESTIONS) -> list[int]:
    """Return the ranks of the questions of each lookup, always the same ones."""
    weights = 1.0 / np.arange(1, questions + 1) ** exponent
    edges = np.cumsum(weights) / weights.sum()
    found: list[int] = np.searchsorted(edges, np.random.default_rng(0).random(lookups)).tolist()
    return found


def hit_rate(asked: Sequence[int], size: int, lifetime: int | None) -> float:
    """Return the share of hits in the second half of *asked*.

    Args:
        asked: Question of each lookup.
        size: Most entries kept; the least recently used one is evicted.
        lifetime: Lookups from a put until the entry expires; `None` for no expiry.
    """
    kept: OrderedDict[int, int] = OrderedDict()
    counted_from, hits = len(asked) // 2, 0
    forever = len(asked) if lifetime is None else lifetime
    for now, question in enumerate(asked):
        put = kept.get(question)
        if put is not None and now - put <= forever:
            kept.move_to_end(question)
            hits += now >= counted_from
            continue
        kept[question] = now
        kept.move_to_end(question)
        if len(kept) > size:
            kept.popitem(last=False)
    return hits / (len(asked) - counted_from)


def simulate(exponents: Iterable[float] = EXPONENTS) -> dict[str, Any]:
    """Return the hit rates of every size, exponent and lifetime."""
    rows = []
    for exponent in track(list(exponents), "exponents", console=console, transient=True):
        asked = ranks(exponent, LOOKUPS)
        rows += [
            {
                "exponent": exponent,
                "lifetime": lifetime,
                "share": share,
                "hit_rate": round(hit_rate(asked, max(1, round(share * QUESTIONS)), lifetime), 4),
            }
            for lifetime in LIFETIMES
            for share in SHARES
        ]
    return {"questions": QUESTIONS, "lookups": LOOKUPS, "rows": rows}


def title(lifetime: int | None) -> str:
    """Return the name of a lifetime."""
    return "no expiry" if lifetime is None else f"expiry after {lifetime:,} lookups"


def body(found: Mapping[str, Any]) -> str:
    """Return the plot and a table for each lifetime."""
    rates = {
        (row["lifetime"], row["share"], row["exponent"]): row["hit_rate"] for row in found["rows"]
    }
    parts = [shown("zipf", _ALT)]
    for lifetime in LIFETIMES:
        rows = [
            [f"{share:.1%}", *(f"{rates[lifetime, share, one]:.0%}" for one in EXPONENTS)]
            for share in SHARES
        ]
        parts += [f"{title(lifetime).capitalize()}:", markdown(HEADER, rows)]
    parts.append(
        f"Cache size as a share of {found['questions']:,} distinct questions; "
        f"{found['lookups'] // 2:,} lookups counted after as many to fill the cache."
    )
    return "\n\n".join(parts)


def draw(found: Mapping[str, Any]) -> None:
    """Draw the hit rates, once for each theme."""
    for theme in THEMES:
        with figure("zipf", theme, 1, len(LIFETIMES), (11, 3.6)) as (drawing, (axes,)):
            from matplotlib import colormaps

            shades = colormaps["viridis" if theme.name == "light" else "plasma"]
            for axis, lifetime in zip(axes, LIFETIMES, strict=True):
                for number, exponent in enumerate(EXPONENTS):
                    line = [
                        row["hit_rate"] for row in found["rows"]
                        if row["exponent"] == exponent and row["lifetime"] == lifetime
                    ]  # fmt: skip
                    place = number / len(EXPONENTS) * 0.75 + (0 if theme.name == "light" else 0.35)
                    axis.plot(
                        [100 * share for share in SHARES], [100 * rate for rate in line],
                        marker="o", markersize=3, color=shades(place), label=f"s = {exponent:g}",
                    )  # fmt: skip
                axis.set(xscale="log", ylim=(0, 102), title=title(lifetime))
                axis.set_xlabel("cache size, % of distinct questions")
                axis.grid(linewidth=0.6)
                axis.set_xticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
            axes[0].set_ylabel("hits, %")
            lines, names = axes[0].get_legend_handles_labels()
            drawing.legend(
                lines[::-1], names[::-1], loc="outside right upper", frameon=False,
                labelcolor=theme.text,
            )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate, print, and write the documentation if wanted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    parser.add_argument(
        "--write-docs", action="store_true", help="write the results into the documentation"
    )
    options = parser.parse_args(arguments)
    found = simulate()
    if options.write_docs:
        MEASURED.mkdir(exist_ok=True)
        RECORDED.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        draw(found)
        write(SCALING, "zipf", body(found))
    print(json.dumps(found, indent=1) if options.json else body(found))


if __name__ == "__main__":
    main()
