"""Page *Tuning*: change a value, see its effect on recorded traffic, apply it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import streamlit as st

from dashboard.data.estimates import Estimates
from dashboard.ui.panels import controls
from dashboard.ui.panels.happened import what_happened
from dashboard.ui.panels.proposal import proposal
from dashboard.ui.panels.sharing import overrides, sharing
from dashboard.ui.panels.threshold import threshold
from dashboard.ui.panels.ttls import ttls
from dashboard.ui.shell import Page, empty, open_page, telling


def tuning(page: Page) -> None:
    """Draw the page."""
    with telling():
        said = st.session_state.pop("tuning_done", None)
        if said:
            st.success(said, icon=":material/check_circle:")
        with st.spinner("replaying the recorded lookups"):
            estimates = page.source.estimates()
        _data(page, estimates)
        proposed = _controls(page, estimates)
        proposal(page, estimates, proposed)
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


def _controls(page: Page, estimates: Estimates) -> dict[str, Any]:
    """Draw all controls; return the proposed values that differ from those in force, flat."""
    now = estimates.tuning
    proposed: dict[str, Any] = {}
    names = ["Similarity", "TTLs", "Sharing", "Single intents", "Everything else"]
    similar, times, shared, single, others = st.tabs(names)
    with similar:
        proposed["semantic_threshold"] = threshold(page, estimates)
    with times:
        proposed |= ttls(page, estimates)
    with shared:
        proposed |= sharing(page, estimates)
    with single:
        own = overrides(estimates)
    with others:
        proposed |= controls.rest(now, {*proposed, "intents"})
    return controls.changed(now, proposed, own)


tuning(open_page("Tuning", "Change a value, see its effect on past traffic, apply it."))
