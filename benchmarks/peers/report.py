"""Recorded comparison of lookups, as a table for the documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.support.docs_table import MEASURED, markdown

RECORDED = MEASURED / "peers.json"
"""Results that the table and the chart in the documentation were made of."""

KINDS = {"exact": "exact hit", "semantic": "semantic hit", "miss": "miss", "put": "put"}
HEADER = ("cache", *(f"{title}, ms" for title in KINDS.values()), "semantic hit, x ours", "astray")


def body(found: Mapping[str, Any]) -> str:
    """Return the table, the versions and what could not be run."""
    ours = reference(found)
    rows = [_row(each, ours) for each in found["contenders"]]
    versions: dict[str, str] = {}
    for each in found["contenders"]:
        versions.update(each["versions"])
    lines = [
        markdown(HEADER, rows),
        f"Median (quartiles) over {found['contenders'][0]['exact']['calls']} calls of each kind; "
        f"{found['entries']} entries, threshold {found['similarity']}. "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + f"; {found['machine']}.",
    ]
    lines += [f"Not run: {each['title']} ({each['reason']})." for each in found["left_out"]]
    return "\n\n".join(lines)


def reference(found: Mapping[str, Any]) -> float:
    """Return the median of this cache's semantic hit on the embedded Chroma, in milliseconds."""
    ours: Sequence[Mapping[str, Any]] = [each for each in found["contenders"] if each["ours"]]
    return float(ours[0]["semantic"]["p50_ms"]) if ours else float("nan")


def _row(each: Mapping[str, Any], ours: float) -> list[str]:
    calls = [each[kind] for kind in KINDS]
    astray = sum(one["astray"] for one in calls)
    return [
        f"**{each['title']}**" if each["ours"] else each["title"],
        *(f"{one['p50_ms']:.2f} ({one['p25_ms']:.2f}-{one['p75_ms']:.2f})" for one in calls),
        f"{each['semantic']['p50_ms'] / ours:.2f}",
        f"{astray} of {sum(one['calls'] for one in calls)}",
    ]
