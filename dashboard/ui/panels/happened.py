"""Outcomes of the last changes, compared with the same traffic under the old values."""

from __future__ import annotations

import streamlit as st

from dashboard.data.outcomes import LEAST, Outcome
from dashboard.data.words import ago, described, plain
from dashboard.ui.shell import Page, empty, quiet, refreshed

_SHOWN = 3


def what_happened(page: Page) -> None:
    """Draw the panel; it refreshes itself."""
    st.header("What happened after the last changes", anchor=False)
    if not page.source.changes(1):
        empty(
            "Nothing was changed yet.",
            "After a change this compares what happened with the same lookups under the old value.",
        )
        return

    def draw() -> None:
        for found in page.source.outcomes(_SHOWN):
            _outcome(found)

    refreshed("happened", draw, max(page.config.refresh, 2.0))


def _outcome(found: Outcome) -> None:
    change = found.change
    with st.container(border=True):
        note = f" “{plain(change.note)}”" if change.note else ""
        st.markdown(
            f"**Version {change.version}** by {plain(change.author)}, {ago(change.at)}.{note}  \n"
            f"{plain(described(change))}"
        )
        if found.since is None or found.lookups < LEAST:
            quiet(
                f"{found.lookups:,} lookups since: from {LEAST} on this says what the change did."
            )
            return
        since, without, before = st.columns(3)
        since.metric(
            "Hit rate since", f"{found.since:.1%}", f"{found.low:.1%} to {found.high:.1%}",
            delta_color="off", delta_arrow="off",
        )  # fmt: skip
        if found.without is None:
            without.metric("Without the change", "–", "no replay", delta_arrow="off",
                           delta_color="off")  # fmt: skip
        else:
            points = 100 * (found.since - found.without)
            without.metric(
                "Without the change", f"{found.without:.1%}",
                f"the change: {points:+.1f} points", delta_color="off", delta_arrow="off",
                help="A replay of the same lookups with the old value: warm-up and other traffic "
                "are in both.",
            )  # fmt: skip
        before.metric(
            "Before, other lookups", _percent(found.before),
            f"expected {_percent(found.expected)}", delta_color="off", delta_arrow="off",
        )  # fmt: skip
        if found.verdicts:
            quiet(f"{found.wrong:,} of {found.verdicts:,} judged hits since were wrong.")


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"
