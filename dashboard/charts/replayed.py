"""Charts of the effects of other TTLs and more sharing, and of the evidence."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import altair as alt
import pandas as pd

from cache_core.operations.explain import duration
from cache_core.whatif import SharingEstimate, TtlReport
from dashboard.charts.base import Chart, Mark, bars, framed, layered, marked, unit, whole
from dashboard.charts.theme import Palette


def ages(report: TtlReport, proposed: float, look: Palette) -> Chart:
    """Return the hits of a tier by the age of their entries."""
    name, size = unit(max(report.ttl_seconds, proposed))
    table = pd.DataFrame(
        [
            {"low": item.low / size, "high": item.high / size, "hits": item.hits,
             "kind": "kept" if item.low < proposed else "lost"}
            for item in report.ages
        ],
        columns=["low", "high", "hits", "kind"],
    )  # fmt: skip
    widest = max(report.ttl_seconds, proposed) / size * 1.02
    x = alt.X(
        "low:Q", bin="binned", title=f"age of the entry, {name}",
        scale=alt.Scale(domain=[0, widest]),
        axis=alt.Axis(grid=False, tickCount=6, format="~r"),
    )  # fmt: skip
    chart = (
        alt.Chart(table)
        .mark_bar(binSpacing=1)
        .encode(
            x,
            alt.X2("high:Q"),
            whole("hits", max([item.hits for item in report.ages], default=0)),
            color=alt.Color(
                "kind:N",
                scale=alt.Scale(domain=["kept", "lost"], range=[look.semantic, look.miss]),
                legend=None,
            ),
            tooltip=[
                alt.Tooltip("low:Q", title=f"from, {name}", format=".3g"),
                alt.Tooltip("high:Q", title=f"to, {name}", format=".3g"),
                alt.Tooltip("hits:Q", format=","),
            ],
        )
    )
    marks = [Mark(report.ttl_seconds / size, f"now {duration(report.ttl_seconds)}", look.now)]
    if proposed != report.ttl_seconds:
        marks.append(Mark(proposed / size, f"proposed {duration(proposed)}", look.proposed))
    layers = [chart, *marked(marks, "low", x, (0.0, widest))]
    title = f"Hits of {report.level.upper()} by the age of what they served"
    words = f"{report.hits:,} hits; {report.expired:,} misses found an expired entry"
    return Chart(framed(layered(*layers), title, look, 240), f"{title}: {words}.")


def sharing(found: Sequence[SharingEstimate], chosen: Collection[str], look: Palette) -> Chart:
    """Return, by intent, the misses that had an answer for another user."""
    table = pd.DataFrame(
        [
            {
                "intent": item.intent or "(no intent)",
                "lookups": item.misses_other_scope,
                "label": f"{item.misses_other_scope:,} → {item.hit_rate_if_shared:.1%}",
                "kind": "proposed" if item.intent in chosen else "private",
            }
            for item in found[:12]
        ]
    )
    colour = alt.Color(
        "kind:N",
        scale=alt.Scale(domain=["proposed", "private"], range=[look.proposed, look.miss]),
        legend=None,
    )
    chart = bars(table, "intent", "lookups", colour, look, sort=None)
    words = "; ".join(f"{row.intent} {row.label}" for row in table.itertuples())
    title = "Misses that had an answer for another user"
    subtitle = "lookups → hit rate, were that intent shared"
    return Chart(
        framed(chart, title, look, 64 + 30 * len(table), subtitle), f"{title}, {subtitle}: {words}."
    )


def evidence(table: pd.DataFrame, now: float, look: Palette) -> Chart:
    """Return the number of verdicts by similarity.

    Args:
        table: `similarity` (of the bin), `end`, `verdict` and `verdicts`.
        now: The threshold in force.
        look: The colours.
    """
    most = float(table.groupby("similarity")["verdicts"].sum().max()) if len(table) else 0.0
    x = alt.X(
        "similarity:Q", bin="binned", title="similarity of the two questions",
        scale=alt.Scale(domain=[0.5, 1.0], clamp=True),
        axis=alt.Axis(format=".2f", grid=False, tickCount=6),
    )  # fmt: skip
    chart = (
        alt.Chart(table)
        .mark_bar(binSpacing=1)
        .encode(
            x,
            alt.X2("end:Q"),
            whole("verdicts", most),
            color=alt.Color(
                "verdict:N",
                scale=alt.Scale(domain=["correct", "wrong"], range=[look.exact, look.error]),
                legend=alt.Legend(title=None, orient="top-left", direction="horizontal"),
            ),
            order=alt.Order("verdict:N"),
            tooltip=["similarity:Q", "verdict:N", "verdicts:Q"],
        )
    )  # fmt: skip
    marks = [Mark(now, f"threshold {now:.3g}", look.now)]
    total = int(table["verdicts"].sum()) if len(table) else 0
    return Chart(
        framed(
            layered(chart, *marked(marks, "similarity", x, (0.5, 1.0))),
            "Verdicts by similarity", look, 280,
        ),
        f"{total:,} verdicts by similarity; the threshold is {now:.3g}.",
    )  # fmt: skip
