"""Page *Overview*: the cache's performance now."""

from __future__ import annotations

import time

import streamlit as st

from cache_core.observability.fleet import ReplicaReport
from dashboard import charts
from dashboard.data import figures
from dashboard.data.tail import Recorded
from dashboard.data.words import plain
from dashboard.ui.shell import Page, empty, open_page, quiet, read_first, refreshed, show

_WINDOWS = {"5 min": 300.0, "30 min": 1_800.0, "3 h": 10_800.0, "All recorded": None}
_NONE = "–"
_HELP = {
    "Hit rate": "Lookups with a response, of those that could have one.",
    "Saved": "Gross: what the answers served would have cost, at the prices on the page Tuning.",
}


def overview(page: Page) -> None:
    """Draw the page once, and its live part repeatedly."""
    chosen = st.segmented_control(
        "Time range", list(_WINDOWS), default="30 min", required=True, key="window",
        bind="query-params",
    )  # fmt: skip
    seconds = _WINDOWS[chosen or "30 min"]
    read_first(page)
    refreshed("overview", lambda: _live(page, seconds), page.config.refresh)


def _live(page: Page, seconds: float | None) -> None:
    recorded = page.source.recorded()
    replicas = page.source.replicas()
    objective = page.source.tuning().hit_rate_objective
    now = time.time()
    frame = figures.window(recorded.frame, seconds, now)
    summary = figures.summarise(frame)
    _numbers(summary, objective)
    if note := figures.sample(summary, recorded, seconds, now):
        quiet(note)
    if not recorded.decisions:
        empty(
            "Nothing was looked up yet.",
            f"Start your agent on this store, with namespace `{page.config.namespace}`. To see "
            "the page at work: `glasscache demo --dir demo`, and here `--namespace demo --dir "
            "demo`.",
        )
    elif not summary.lookups:
        empty("No lookups in this period.", "Choose a longer one above.")
    else:
        _charts(page, recorded, summary, seconds, objective)
    _replicas(replicas)


def _numbers(summary: figures.Summary, objective: float) -> None:
    rate, some = summary.hit_rate, summary.lookups > 0
    points = None if rate is None else round(100 * (rate - objective), 1)
    cards = (
        ("Hit rate", _NONE if rate is None else f"{rate:.1%}", _against(points, objective)),
        (
            "Saved",
            f"{summary.saved_usd:,.2f} USD" if some else _NONE,
            f"{summary.hits:,} LLM calls avoided" if some else _NONE,
        ),
        (
            "Latency, median",
            f"{figures.milliseconds(summary.p50_ms)} ms" if some else _NONE,
            f"95th percentile {figures.milliseconds(summary.p95_ms)} ms" if some else _NONE,
        ),
        ("Lookups", f"{summary.lookups:,}", _pace(summary.per_second) if some else _NONE),
    )
    for column, (label, value, below) in zip(st.columns(4), cards, strict=True):
        judged = label == "Hit rate" and bool(points)
        column.metric(
            label,
            value,
            below,
            delta_color="normal" if judged else "off",
            delta_arrow="auto" if judged else "off",
            help=_HELP.get(label),
            border=True,
            height="stretch",
        )


def _against(points: float | None, objective: float) -> str:
    """Return the distance from the objective, in words."""
    if points is None:
        return f"objective {objective:.0%}"
    return f"{points:+.1f} points vs. objective {objective:.0%}" if points else (
        f"at the objective of {objective:.0%}"
    )  # fmt: skip


def _pace(per_second: float) -> str:
    for unit, seconds in (("second", 1), ("minute", 60), ("hour", 3_600)):
        if per_second * seconds >= 1:
            return f"{per_second * seconds:,.3g} per {unit}"
    return f"{per_second * 86_400:.3g} per day" if per_second else _NONE


def _charts(
    page: Page,
    recorded: Recorded,
    summary: figures.Summary,
    seconds: float | None,
    objective: float,
) -> None:
    frame = figures.window(recorded.frame, seconds, time.time())
    end = time.time()
    first = float(frame["at"].min())
    start = first if seconds is None else max(end - seconds, first)
    made = page.source.changes(50)
    changes = [(item.at, item.version) for item in made if start <= item.at <= end]
    left, right = st.columns([3, 2])
    with left:
        show(
            charts.hit_rate(figures.over_time(frame, start, end), objective, changes, page.look),
            "hit_rate",
        )
    with right:
        show(charts.endings(summary.ways, page.look), "endings")
    left, right = st.columns([3, 2])
    with left:
        show(charts.latency(figures.latencies(frame), page.look), "latency")
    with right:
        if summary.reasons:
            show(charts.reasons(summary.reasons, page.look), "reasons")
        else:
            empty("Every lookup had a response.", "There is nothing to explain.")
    withheld = figures.withheld(frame)
    if len(withheld):
        named = ", ".join(
            f"**{plain(str(name))}** ({count:,})" for name, count in withheld.head(4).items()
        )
        st.info(
            f"{int(withheld.sum()):,} lookups missed although another user had the answer: {named}."
            " If those answers are the same for everybody, share them on the page *Tuning*.",
            icon=":material/group:",
        )


def _replicas(replicas: list[ReplicaReport]) -> None:
    st.header("Replicas and backends", anchor=False)
    if not replicas:
        empty(
            "No replica is running on this store.",
            "A replica is a process with an open cache of this namespace; it reports every second.",
        )
        return
    badges = []
    for name, (up, of) in figures.backends(replicas).items():
        colour = "green" if up == of else "red"
        works = "works" if up == of else f"down on {of - up} of {of}"
        badges.append(f":{colour}-badge[{figures.BACKEND_NAMES.get(name, name)} {works}]")
    versions = {item.tuning_version for item in replicas}
    agreed = len(versions) == 1
    badges.append(
        f":{'green' if agreed else 'orange'}-badge[tuning "
        + (f"version {versions.pop()} everywhere]" if agreed else "versions differ]")
    )
    st.markdown(" ".join(badges))
    lost = figures.unrecorded(replicas)
    quiet(
        "Since each replica started, whatever the time range above."
        + (f" {lost:,} lookups could not be recorded: they are only here." if lost else "")
    )
    missed, compared = figures.missed_hits(replicas)
    if compared:
        quiet(
            f"Missed hits: **{missed / compared:.1%}** of {compared:,} misses near a stored "
            "question got the same answer as it. A lower threshold, or a limit on wrong hits "
            "(max_wrong), would serve some of them; the pairs are on the page *Review*."
        )
    with st.container(key="narrow_replicas"):
        st.table(figures.replica_rows(replicas), hide_index=True)
    with st.container(key="narrow_tiers"):
        st.table(figures.tiers(replicas), hide_index=True)


overview(open_page("Overview", "Performance of the cache, from the recordings of all replicas."))
