"""Move a value, see what it would have done to recorded traffic, apply it to all replicas."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import streamlit as st

from dashboard.estimates import Estimates
from dashboard.panels import controls
from dashboard.panels.happened import what_happened
from dashboard.panels.proposal import proposal
from dashboard.panels.sharing import overrides, sharing
from dashboard.panels.similarity import similarity
from dashboard.panels.ttls import ttls
from dashboard.shell import Page, empty, open_page, telling


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
    """Say what the page goes by."""
    lookups = len(estimates.decisions)
    span = ""
    if lookups:
        first = datetime.fromtimestamp(estimates.decisions[0].at, UTC)
        span = f" since {first:%Y-%m-%d %H:%M} UTC"
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(
            f"Version **{estimates.tuning.version}** is in force. Below, the newest "
            f"**{lookups:,}** recorded lookups{span} are replayed, judged by "
            f"**{len(estimates.verdicts):,}** verdicts.",
            width="stretch",
        )
        if st.button("Use the newest", icon=":material/refresh:", help="Look at the log again."):
            page.source.estimates(fresh=True)
            st.rerun()
    if not lookups:
        empty(
            "There is nothing to replay yet.",
            "Values can be changed all the same. Once your agent has looked something up, this "
            "page shows what a change would have done.",
        )


def _controls(page: Page, estimates: Estimates) -> dict[str, Any]:
    """Draw all controls; return the proposed values that differ from those in force, flat."""
    now = estimates.tuning
    proposed: dict[str, Any] = {}
    names = ["Similarity", "TTLs", "Sharing", "Single intents", "Everything else"]
    similar, times, shared, single, others = st.tabs(names)
    with similar:
        proposed["semantic_threshold"] = similarity(page, estimates)
    with times:
        proposed |= ttls(page, estimates)
    with shared:
        proposed |= sharing(page, estimates)
    with single:
        own = overrides(estimates)
    with others:
        proposed |= controls.rest(now, {*proposed, "intents"})
    return controls.changed(now, proposed, own)


tuning(open_page("Tuning", "Move a value, see what it would have done, apply it."))
