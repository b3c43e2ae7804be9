"""Outcomes of the last changes, compared with the expectations."""

from __future__ import annotations

import streamlit as st

from dashboard.data.outcomes import Outcome
from dashboard.data.words import ago, described, plain
from dashboard.ui.shell import Page, empty, quiet, telling

_SHOWN = 3


def what_happened(page: Page) -> None:
    """Draw the panel; it refreshes itself."""
    st.subheader("What happened after the last changes", anchor=False)
    if not page.source.changes(1):
        empty(
            "Nothing was changed yet.",
            "After a change this compares its expected and its actual effect.",
        )
        return

    @st.fragment(run_every=max(page.config.refresh, 2.0))
    def live() -> None:
        with telling(live=True):
            for found in page.source.outcomes(_SHOWN):
                _outcome(found)

    live()


def _outcome(found: Outcome) -> None:
    change = found.change
    with st.container(border=True):
        note = f" “{plain(change.note)}”" if change.note else ""
        st.markdown(
            f"**Version {change.version}** by {plain(change.author)}, {ago(change.at)}.{note}  \n"
            f"{plain(described(change))}"
        )
        before, expected, since = st.columns(3)
        before.metric("Hit rate before", _percent(found.before))
        expected.metric(
            "Expected",
            _percent(found.expected),
            None
            if found.expected is None or found.before is None
            else f"{100 * (found.expected - found.before):+.1f} points",
            help="From a replay of the lookups before. Combined effects of several values are not "
            "predicted.",
        )
        since.metric(
            "Hit rate since",
            _percent(found.since),
            f"{found.lookups:,} lookups: {found.low:.1%} to {found.high:.1%}"
            if found.lookups
            else "no lookups yet",
            delta_color="off",
            delta_arrow="off",
        )
        if found.verdicts:
            quiet(f"{found.wrong:,} of {found.verdicts:,} judged hits since were wrong.")


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"
