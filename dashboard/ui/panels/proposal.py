"""Proposed change: old → new with the expected effect, and its application."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from cache_core.model.exceptions import GlasscacheError, TuningConflict
from dashboard.data.estimates import Estimates
from dashboard.data.words import plain, title, value
from dashboard.ui.shell import Page, empty, quiet


def proposal(page: Page, estimates: Estimates, proposed: dict[str, Any]) -> None:
    """Draw the panel, and apply the change on request."""
    st.subheader("Proposed change", anchor=False)
    if not proposed:
        empty("Nothing is changed.", "Move a value above to see here what it would do.")
        return
    flat = estimates.tuning.flat()
    may = page.visitor.may_write
    with st.container(border=True):
        for name, chosen in proposed.items():
            before, after = _shown(name, flat.get(name)), _shown(name, chosen)
            st.markdown(f"{plain(title(name))}: {before} → **{after}**")
        _expectation(estimates, proposed)
        with (
            st.form("apply", border=False),
            st.container(horizontal=True, vertical_alignment="bottom"),
        ):
            note = st.text_input(
                "Why", max_chars=200, placeholder="For the audit trail", disabled=not may
            )
            sent = st.form_submit_button(
                "Apply to all replicas",
                type="primary",
                disabled=not may,
                help=page.visitor.why_not or None,
            )
        if page.visitor.why_not:
            quiet(page.visitor.why_not)
    if sent and may:
        _apply(page, estimates.tuning.version, proposed, note)


def _shown(name: str, found: Any) -> str:
    text = value(name, found)
    return text if isinstance(found, (int, float)) else plain(text)


def _apply(page: Page, version: int, proposed: Mapping[str, Any], note: str) -> None:
    try:
        change = page.source.tune(
            proposed, author=page.visitor.name, note=note, expected_version=version
        )
    except TuningConflict as error:
        st.error(f"{error}. Reload the page.", icon=":material/sync_problem:")
        return
    except GlasscacheError as error:
        st.error(plain(str(error)), icon=":material/block:")
        return
    st.session_state["tuning_done"] = (
        f"Version {change.version} is in force on every replica within a second."
    )
    st.rerun()


def _expectation(estimates: Estimates, proposed: Mapping[str, Any]) -> None:
    if not estimates.decisions:
        return
    recorded = estimates.hit_rate
    predicted = estimates.expected(proposed)
    then = estimates.proposed(proposed)
    now = estimates.at(estimates.tuning.semantic_threshold)
    columns = st.columns(max(4, len(predicted)) if then else max(1, min(4, len(predicted))))
    for column, (name, rate) in zip(columns, predicted, strict=False):
        column.metric(
            f"Hit rate, by “{plain(title(name).partition(',')[0])}” alone"
            if len(predicted) > 1
            else "Hit rate",
            f"{rate:.1%}",
            f"{100 * (rate - recorded):+.1f} points vs. {recorded:.1%} recorded",
        )
    if unknown := estimates.unknown(proposed):
        quiet(
            "The effect of these cannot be estimated from past traffic:  "
            + ", ".join(plain(title(name)) for name in unknown)
            + "."
        )
    if len(predicted) > 1:
        quiet("Each value alone: a replay of this log cannot estimate combined effects.")
    if then is None or now is None or len(predicted) > 1:
        return
    share, high = then.wrong_share, then.wrong_high
    if share is None or high is None:
        columns[1].metric("Wrong hits", "not known", "no verdicts", delta_color="off")
    else:
        columns[1].metric(
            "Wrong hits",
            f"{share:.2%}",
            f"at most {high:.2%}" if then.enough else f"≤ {high:.1%}: not enough evidence",
            delta_color="off",
            delta_arrow="off",
        )
    lookups = max(1, then.lookups)
    columns[2].metric(
        "Saved per 1,000 lookups",
        f"{1000 * then.saved_usd / lookups:,.2f} USD",
        f"{1000 * (then.saved_usd - now.saved_usd) / lookups:+,.2f} USD",
    )
    columns[3].metric(
        "Mean lookup",
        f"{then.latency_ms:.1f} ms",
        f"{then.latency_ms - now.latency_ms:+.1f} ms",
        delta_color="inverse",
        help="Time of the cache alone, without the agent's work after a miss.",
    )
