"""Page *Overview*: the cache's performance now."""

from __future__ import annotations

import time

import streamlit as st

from cache_core.observability.fleet import ReplicaReport
from dashboard import charts
from dashboard.data import figures
from dashboard.data.tail import Recorded
from dashboard.data.words import plain
from dashboard.ui.shell import Page, empty, open_page, quiet, read_first, show, telling

_WINDOWS = {"5 min": 300.0, "30 min": 1_800.0, "3 h": 10_800.0, "All recorded": None}


def overview(page: Page) -> None:
    """Draw the page once, and its live part repeatedly."""
    chosen = st.segmented_control(
        "Time range", list(_WINDOWS), default="30 min", required=True, key="window"
    )
    seconds = _WINDOWS[chosen or "30 min"]
    read_first(page)

    @st.fragment(run_every=page.config.refresh)
    def live() -> None:
        with telling(live=True):
            _live(page, seconds)

    live()


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
            "the page at work: `glasscache demo`, and here `--namespace demo`.",
        )
    elif not summary.lookups:
        empty("No lookups in this period.", "Choose a longer one above.")
    else:
        _charts(page, recorded, summary, seconds, objective)
    _replicas(replicas)


def _numbers(summary: figures.Summary, objective: float) -> None:
    rate = summary.hit_rate
    columns = st.columns(4)
    columns[0].metric(
        "Hit rate",
        "–" if rate is None else f"{rate:.1%}",
        None
        if rate is None
        else f"{100 * (rate - objective):+.1f} points vs. objective {objective:.0%}",
        help="Lookups with a response, of those that could have one.",
        border=True,
    )
    columns[1].metric(
        "Saved",
        f"{summary.saved_usd:,.2f} USD",
        f"{summary.hits:,} LLM calls avoided",
        delta_color="off",
        delta_arrow="off",
        border=True,
    )
    columns[2].metric(
        "Latency, median",
        f"{summary.p50_ms:.2f} ms",
        f"95th percentile {summary.p95_ms:.1f} ms",
        delta_color="off",
        delta_arrow="off",
        border=True,
    )
    columns[3].metric(
        "Lookups",
        f"{summary.lookups:,}",
        _pace(summary.per_second),
        delta_color="off",
        delta_arrow="off",
        border=True,
    )


def _pace(per_second: float) -> str:
    for unit, seconds in (("second", 1), ("minute", 60), ("hour", 3_600)):
        if per_second * seconds >= 1:
            return f"{per_second * seconds:,.3g} per {unit}"
    return f"{per_second * 86_400:.3g} per day"


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
    st.subheader("Replicas and backends", anchor=False)
    if not replicas:
        empty(
            "No replica is running on this store.",
            "A replica is a process with an open cache of this namespace; it reports every second. "
            "What is above was recorded earlier.",
        )
        return
    badges = []
    for name, (up, of) in figures.backends(replicas).items():
        colour = "green" if up == of else "red"
        works = "works" if up == of else f"down on {of - up} of {of}"
        badges.append(f":{colour}-badge[{name} {works}]")
    versions = {item.tuning_version for item in replicas}
    agreed = len(versions) == 1
    badges.append(
        f":{'green' if agreed else 'orange'}-badge[tuning "
        + (f"version {versions.pop()} everywhere]" if agreed else "versions differ]")
    )
    st.markdown(" ".join(badges))
    st.dataframe(
        [_row(item) for item in replicas],
        hide_index=True,
        alt="Replicas with their tuning version, lookups, hit rate, latency and money saved",
        column_config={
            "lookups": st.column_config.NumberColumn(format="localized"),
            "hit rate": st.column_config.ProgressColumn(min_value=0, max_value=1, format="percent"),
            "p50 ms": st.column_config.NumberColumn(format="%.2f"),
            "p95 ms": st.column_config.NumberColumn(format="%.1f"),
            "saved": st.column_config.NumberColumn(format="%.2f USD"),
        },
    )
    st.dataframe(
        figures.tiers(replicas),
        hide_index=True,
        alt="Hits, misses, errors, hit rate and money saved of each tier since the start",
        column_config={
            **{
                name: st.column_config.NumberColumn(format="localized")
                for name in ("hits", "misses", "errors")
            },
            "hit_rate": st.column_config.ProgressColumn(
                "hit rate", min_value=0, max_value=1, format="percent"
            ),
            "saved_usd": st.column_config.NumberColumn("saved", format="%.2f USD"),
        },
    )


def _row(item: ReplicaReport) -> dict[str, object]:
    counters = item.counters
    down = [name for name, works in item.works.items() if not works]
    return {
        "replica": item.name,
        "pid": str(item.pid),
        "tuning": item.tuning_version,
        "lookups": counters.get("operations", 0),
        "hit rate": counters.get("hit_rates", {}).get("overall", 0.0) / 100,
        "p50 ms": counters.get("latency_ms", {}).get("p50", 0.0),
        "p95 ms": counters.get("latency_ms", {}).get("p95", 0.0),
        "saved": counters.get("cost_savings_usd", 0.0),
        "down": ", ".join(down) or "nothing",
    }


overview(open_page("Overview", "Performance of the cache, from the recordings of all replicas."))
