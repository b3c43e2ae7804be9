"""Page *Alerts*: from Prometheus and Alertmanager, and from the store alone."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

import streamlit as st

from cache_core.model.urls import without_secrets
from dashboard.data import figures
from dashboard.data.alerting import Alert, alerts_of_alertmanager, alerts_of_prometheus
from dashboard.data.words import SourceAwayError, ago, plain
from dashboard.ui.shell import Page, empty, open_page, quiet, telling

_COLOURS = {"critical": "red", "page": "red", "warning": "orange"}


def alerts(page: Page) -> None:
    """Draw the page."""

    @st.fragment(run_every=max(page.config.refresh, 5.0))
    def live() -> None:
        _from_servers(page)
        st.subheader("What the store itself shows", anchor=False)
        with telling(live=True):
            _from_store(page)

    live()


def _from_servers(page: Page) -> None:
    config = page.config
    if config.alertmanager_url:
        _server("Alertmanager", config.alertmanager_url, alerts_of_alertmanager)
    if config.prometheus_url:
        _server("Prometheus", config.prometheus_url, alerts_of_prometheus)
    if not config.alertmanager_url and not config.prometheus_url:
        empty(
            "Neither Prometheus nor Alertmanager is configured.",
            "Prometheus creates alerts from the agent's metrics. To see them here: let "
            "Prometheus load `alerts/recording.yml` and `alerts/rules.yml`, and start this app "
            "with `PROMETHEUS_URL` and `ALERTMANAGER_URL`, for example `http://127.0.0.1:9090` and "
            "`http://127.0.0.1:9093`.",
        )


def _server(name: str, url: str, ask: Callable[[str], list[Alert]]) -> None:
    st.subheader(name, anchor=False)
    try:
        found = ask(url)
    except SourceAwayError as error:
        st.error(str(error), icon=":material/cloud_off:")
        return
    if not found:
        st.success(f"No active alerts ({without_secrets(url)}).", icon=":material/check_circle:")
    for alert in found:
        _alert(alert)


def _alert(alert: Alert) -> None:
    with st.container(border=True):
        colour = _COLOURS.get(alert.severity, "gray")
        since = f", began {ago(alert.since)}" if alert.since is not None else ""
        name, state = plain(alert.name), plain(alert.state)
        st.markdown(f":{colour}-badge[{plain(alert.severity)}] **{name}** {state}{since}")
        for text in (alert.summary, alert.description):
            if text:
                st.text(text)
        labels = ", ".join(f"{key}={value}" for key, value in sorted(alert.labels.items()))
        if labels:
            quiet(plain(labels))
        if urlsplit(alert.runbook).scheme in {"http", "https"}:
            st.link_button("Runbook", alert.runbook, icon=":material/menu_book:")


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


alerts(open_page("Alerts", "Problems that need attention now."))
