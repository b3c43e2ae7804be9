"""Page *Tuning*: change a value, see its effect on recorded traffic, apply it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import streamlit as st

from dashboard.data.estimates import Estimates
from dashboard.ui.panels import controls, sharing, threshold, ttls
from dashboard.ui.panels.happened import what_happened
from dashboard.ui.panels.in_force import in_force
from dashboard.ui.panels.proposal import proposal
from dashboard.ui.shell import Page, empty, open_page, telling

_TABS = ("Similarity", "TTLs", "Sharing", "Single intents", "Everything else")


def tuning(page: Page) -> None:
    """Draw the page."""
    with telling():
        with st.spinner("replaying the recorded lookups"):
            estimates = page.source.estimates()
        _data(page, estimates)
        left, right = st.columns([3, 2], gap="medium")
        with left:
            proposed, shown = _controls(estimates)
        with right:
            in_force(page)
            proposal(page, estimates, proposed)
        _effects(page, estimates, proposed, shown)
        what_happened(page)


def _data(page: Page, estimates: Estimates) -> None:
    """Show the data that the page is based on."""
    lookups = len(estimates.decisions)
    span = ""
    if lookups:
        first = datetime.fromtimestamp(estimates.decisions[0].at, UTC)
        span = f" since {first:%Y-%m-%d %H:%M} UTC"
    stand_for = round(sum(item.stands_for for item in estimates.decisions))
    sampled = f", a sample of **{stand_for:,}**," if stand_for > lookups else ""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(
            f"Version **{estimates.tuning.version}** is in force. Below, the newest "
            f"**{lookups:,}** recorded lookups{sampled}{span} are replayed, judged by "
            f"**{len(estimates.verdicts):,}** verdicts.",
            width="stretch",
        )
        if st.button("Refresh data", icon=":material/refresh:", help="Read the log again."):
            page.source.estimates(fresh=True)
            st.rerun()
    if not lookups:
        empty(
            "There is nothing to replay yet.",
            "Values can be changed anyway. Once your agent has looked something up, this page "
            "shows the effect of a change.",
        )


def _controls(estimates: Estimates) -> tuple[dict[str, Any], str]:
    """Draw all controls; return the proposed values, flat, and the name of the open tab.

    The values are those that differ from the ones in force.
    """
    now = estimates.tuning
    proposed: dict[str, Any] = {}
    tabs = st.tabs(_TABS, key="tab", on_change="rerun")
    similar, times, shared, single, others = tabs
    with similar:
        proposed |= threshold.controls(estimates)
    with times:
        proposed |= ttls.controls(estimates)
    with shared:
        proposed |= sharing.controls(estimates)
    with single:
        own = sharing.overrides(estimates)
    with others:
        proposed |= controls.rest(now, {*proposed, "intents"})
    shown = next((name for name, tab in zip(_TABS, tabs, strict=True) if tab.open), _TABS[0])
    return controls.changed(now, proposed, own), shown


def _effects(page: Page, estimates: Estimates, proposed: dict[str, Any], shown: str) -> None:
    """Draw the charts of the open tab."""
    flat = {**estimates.tuning.flat(), **proposed}
    if shown == "Similarity" and estimates.decisions:
        threshold.effects(page, estimates, flat)
    elif shown == "TTLs":
        ttls.effects(page, estimates, flat)
    elif shown == "Sharing":
        sharing.effects(page, estimates, flat["shared_intents"])


tuning(open_page("Tuning", "Change a value, see its effect on past traffic, apply it."))
