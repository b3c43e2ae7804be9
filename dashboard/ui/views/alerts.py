"""Page *Alerts*: from Prometheus and Alertmanager, and from the store alone."""

from __future__ import annotations

from urllib.parse import urlsplit

import streamlit as st

from dashboard.data import figures
from dashboard.data.alerting import Alert
from dashboard.data.watched import watch
from dashboard.data.words import ago, plain
from dashboard.ui.shell import Page, open_page, quiet, refreshed

_COLOURS = {"critical": "red", "page": "red", "warning": "orange"}
_STATES = {"suppressed": "silenced"}


def alerts(page: Page) -> None:
    """Draw the page."""

    def draw() -> None:
        _from_servers(page)
        st.header("What the store itself shows", anchor=False)
        _from_store(page)

    refreshed("alerts", draw, max(page.config.refresh, 5.0))


def _from_servers(page: Page) -> None:
    found = watch(page.config)
    for text in found.errors:
        st.error(text, icon=":material/cloud_off:")
    for alert in found.alerts:
        _alert(alert)
    for gap in found.gaps:
        with st.container(border=True, key=f"gap_{found.gaps.index(gap)}"):
            st.warning(plain(gap.what), icon=":material/warning:")
            st.markdown(gap.remedy)
            if gap.example:
                st.code(gap.example, language="yaml")
    if found.covered and not found.alerts:
        st.success(f"No alert is active. {plain(found.covered)}", icon=":material/check_circle:")
    elif found.covered:
        quiet(plain(found.covered))


def _alert(alert: Alert) -> None:
    with st.container(border=True):
        colour = _COLOURS.get(alert.severity, "gray")
        since = f", began {ago(alert.since)}" if alert.since is not None else ""
        name, state = plain(alert.name), _STATES.get(alert.state, plain(alert.state))
        st.markdown(f":{colour}-badge[{plain(alert.severity)}] **{name}** {state}{since}")
        for text in (alert.summary, alert.description):
            if text:
                st.text(text)
        labels = ", ".join(f"{name}={value}" for name, value in alert.about.items())
        quiet(plain(f"{labels}; from {' and '.join(alert.sources)}"))
        with st.container(horizontal=True):
            for label, url, icon in (
                ("Runbook", alert.runbook, ":material/menu_book:"),
                ("Dashboard", alert.dashboard, ":material/monitoring:"),
            ):
                if urlsplit(url).scheme in {"http", "https"}:
                    st.link_button(label, url, icon=icon)


def _from_store(page: Page) -> None:
    replicas = page.source.replicas()
    if not replicas:
        st.warning("No replica is running on this store.", icon=":material/warning:")
        return
    problems = [
        f"**{name}** is down on {of - up} of {of} replicas."
        for name, (up, of) in figures.backends(replicas).items()
        if up < of
    ]
    if len({item.tuning_version for item in replicas}) > 1:
        problems.append("Replicas have different versions of the tuning.")
    for text in problems:
        st.error(text, icon=":material/error:")
    if not problems:
        st.success(
            f"{_counted(len(replicas))}; every backend works; all have the same tuning.",
            icon=":material/check_circle:",
        )


def _counted(replicas: int) -> str:
    return "1 replica reports" if replicas == 1 else f"{replicas} replicas report"


alerts(open_page("Alerts", "This cache's problems that need attention now."))
