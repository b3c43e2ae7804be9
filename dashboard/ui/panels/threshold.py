"""Similarity threshold and learned policy: controls, effect of others, a recommendation."""

from __future__ import annotations

from typing import Any

import streamlit as st

from cache_core.config.tuning import Tuning
from dashboard import charts
from dashboard.data.estimates import Estimates
from dashboard.ui.panels.controls import control, key
from dashboard.ui.shell import Page, empty, quiet, show

_LOW = 0.7
"""Start of the slider: below it nearly every hit would be wrong."""


def controls(estimates: Estimates) -> dict[str, Any]:
    """Draw the controls; return the proposed values."""
    now = estimates.tuning.semantic_threshold
    bounds = Tuning.bounds()["semantic_threshold"]
    name = key("semantic_threshold", estimates.tuning)
    typed = f"{name}/typed"
    low = min(_LOW, now)
    st.session_state.setdefault(name, now)
    st.session_state.setdefault(typed, now)
    slide, write = st.columns([3, 1], vertical_alignment="bottom")
    slide.slider(
        bounds.title, min_value=low, max_value=1.0, step=bounds.step, format="%.3f", key=name,
        on_change=lambda: st.session_state.update({typed: st.session_state[name]}),
        help=bounds.description,
    )  # fmt: skip
    chosen = write.number_input(
        "Exactly", min_value=0.0, max_value=1.0, step=bounds.step, format="%.3f", key=typed,
        on_change=lambda: st.session_state.update({name: max(low, st.session_state[typed])}),
    )  # fmt: skip
    accept, allow = st.columns(2, vertical_alignment="bottom")
    limit = accept.number_input(
        "Wrong hits you accept, % of hits",
        min_value=0.1, max_value=20.0, value=1.0, step=0.1, format="%.1f", key="limit",
    ) / 100  # fmt: skip
    with allow:
        share = control(Tuning.bounds()["max_wrong"], estimates.tuning)
    _recommendation(estimates, limit, (name, typed))
    return {"semantic_threshold": float(chosen), "max_wrong": share}


def effects(page: Page, estimates: Estimates, chosen: float) -> None:
    """Draw the effect of each threshold."""
    _curves(page, estimates, chosen, st.session_state.get("limit", 1.0) / 100)


def _curves(page: Page, estimates: Estimates, chosen: float, limit: float) -> None:
    what = st.segmented_control(
        "Show by threshold", list(charts.DRAWN), default="Hit rate", required=True, key="drawn"
    )
    now = estimates.tuning.semantic_threshold
    curve = estimates.curve
    show(charts.threshold_curve(what or "Hit rate", curve, now, chosen, page.look), "curve")
    if any(item.evidence for item in curve):
        show(charts.threshold_wrong(curve, now, chosen, limit, page.look), "threshold_wrong")
    else:
        empty(
            "No verdict on an answer that was served yet.",
            "The share of wrong hits is estimated from verdicts: by the agent's `verify` "
            "function, by users through `feedback`, or by you on the page *Review*.",
        )
    with st.expander("What a replay cannot know"):
        st.markdown(
            "- **What would have been stored.** Under another threshold other questions would have "
            "hit, so other answers would have been stored. The log has the nearest neighbour of "
            "each lookup, no more: what stands for one that would not have been stored is "
            "estimated.\n"
            "- **Nothing it has never seen.** Wrong hits are known as far as somebody judged, in "
            "steps of 0.01 of similarity, weighted by the traffic there; where nobody judged, "
            "all hits may be wrong.\n"
            "- **The future.** It shows what recorded traffic would have done, with today's TTLs, "
            "guards and sharing."
        )


def _recommendation(estimates: Estimates, limit: float, names: tuple[str, str]) -> None:
    found = estimates.recommend(limit)
    with st.container(border=True):
        if found.threshold is None:
            st.markdown("**No recommendation yet**")
            high = found.current.wrong_high
            if high is not None and found.current.hits:
                st.markdown(
                    f"At most {high:.1%} of today's hits are wrong, by the verdicts so far."
                )
        else:
            st.markdown(f"**Recommended: {found.threshold:g}**")
        for reason in found.reasons:
            quiet(reason)
        threshold = found.threshold
        if threshold is not None and threshold != estimates.tuning.semantic_threshold:
            st.button(
                f"Try {threshold:g}",
                on_click=lambda: st.session_state.update(dict.fromkeys(names, threshold)),
                help="Moves the control without applying it.",
            )
