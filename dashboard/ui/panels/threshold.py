"""Similarity threshold and learned policy: controls, effect of others, a recommendation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from cache_core.config.tuning import Tuning
from cache_core.policy.limits import MAX_WRONG
from dashboard import charts
from dashboard.data.estimates import Estimates
from dashboard.ui.panels.controls import key
from dashboard.ui.shell import Page, empty, quiet, show

_LOW = 0.7
"""Start of the slider: below it nearly every hit would be wrong."""

_LIMIT = 0.01
"""Wrong hits that are accepted where nobody said how many."""

_THRESHOLD, _POLICY = "a threshold", "the learned policy"


def controls(estimates: Estimates) -> dict[str, Any]:
    """Draw the controls; return the proposed values.

    One limit on wrong hits serves both ways of deciding: a threshold is recommended by it, and the
    learned policy keeps to it.
    """
    tuning = estimates.tuning
    how, accept = st.columns([3, 2], vertical_alignment="bottom")
    decides = how.segmented_control(
        "Similar questions are served by", (_THRESHOLD, _POLICY), required=True,
        default=_POLICY if tuning.max_wrong else _THRESHOLD, key=key("max_wrong", tuning),
        help="The learned policy serves the most hits within the limit of wrong ones, by what the "
        "misses taught it, in place of the threshold.",
    )  # fmt: skip
    if "limit" not in st.session_state or (
        tuning.max_wrong and st.session_state.get("limit_of") != tuning.version
    ):
        st.session_state["limit"] = 100 * (tuning.max_wrong or _LIMIT)
        st.session_state["limit_of"] = tuning.version
    limit = round(accept.number_input(
        "Wrong hits you accept, %",
        min_value=0.01, max_value=100 * MAX_WRONG, step=0.1, format="%.10g", key="limit",
        help="Of all hits. It also takes a staged change back.",
    ) / 100, 6)  # fmt: skip
    if decides == _POLICY:
        _policy(estimates, limit)
        return {"semantic_threshold": tuning.semantic_threshold, "max_wrong": limit}
    names = _threshold(tuning)
    _recommendation(estimates, limit, names)
    return {"semantic_threshold": float(st.session_state[names[1]]), "max_wrong": 0.0}


def _threshold(tuning: Tuning) -> tuple[str, str]:
    """Draw the controls of the threshold; return their keys."""
    now = tuning.semantic_threshold
    bounds = Tuning.bounds()["semantic_threshold"]
    name = key("semantic_threshold", tuning)
    typed = f"{name}/typed"
    low = min(_LOW, now)
    st.session_state.setdefault(name, now)
    st.session_state.setdefault(typed, now)
    slide, write = st.columns([3, 2], vertical_alignment="bottom")
    slide.slider(
        bounds.title, min_value=low, max_value=1.0, step=bounds.step, format="%.3f", key=name,
        on_change=lambda: st.session_state.update({typed: st.session_state[name]}),
        help=bounds.description,
    )  # fmt: skip
    write.number_input(
        "Exactly", min_value=0.0, max_value=1.0, step=bounds.step, format="%.3f", key=typed,
        on_change=lambda: st.session_state.update({name: max(low, st.session_state[typed])}),
    )  # fmt: skip
    return name, typed


def _policy(estimates: Estimates, limit: float) -> None:
    """Say what the learned policy would serve of each intent."""
    found = estimates.shadow_by_intent(limit)
    if not any(item.searched for item in found.values()):
        return
    st.markdown("**Under the policy, by intent**")
    st.dataframe(
        [
            {
                "intent": name or "not known",
                "hit rate now": 100 * item.hit_rate_now,
                "then": 100 * item.hit_rate,
                "newly served": item.newly.lookups,
                "wrong": f"{item.newly.wrong:,} of {item.newly.judged:,} judged"
                if item.newly.judged
                else "no verdicts"
                if item.newly.lookups
                else "–",
                "no longer": item.lost,
            }
            for name, item in found.items()
        ],
        hide_index=True,
        height=250,
        alt="Intents: hit rate now and under the policy, served newly, wrong of those, no longer",
        column_config={
            name: st.column_config.NumberColumn(format="%.1f%%")
            for name in ("hit rate now", "then")
        },
    )
    quiet("An intent may have a limit of its own: choose it under *Single intents*.")


def effects(page: Page, estimates: Estimates, flat: Mapping[str, Any]) -> None:
    """Draw the effect of each threshold, unless the policy decides."""
    if not flat["max_wrong"]:
        chosen = float(flat["semantic_threshold"])
        _curves(page, estimates, chosen, st.session_state["limit"] / 100)


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
