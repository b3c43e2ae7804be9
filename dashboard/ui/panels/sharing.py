"""Sharing, and overrides for single intents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from cache_core.config.intents import INTENT_PATTERN, INTENT_PREFIX
from cache_core.config.tuning import Tuning
from dashboard import charts
from dashboard.data.estimates import Estimates
from dashboard.data.words import plain, title, value
from dashboard.ui.panels.controls import control, key, number
from dashboard.ui.shell import Page, empty, quiet, show

_OVERRIDES = ("semantic_threshold", "max_wrong", "shared", "l1_ttl", "l2_ttl", "l4_ttl")


def controls(estimates: Estimates) -> dict[str, Any]:
    """Draw the controls of sharing; return the proposed values by field."""
    now = estimates.tuning
    rule = control(Tuning.bounds()["sharing"], now)
    bounds = Tuning.bounds()["shared_intents"]
    missed = [item.intent for item in estimates.sharing if item.intent]
    chosen = st.multiselect(
        bounds.title,
        sorted({*now.shared_intents, *missed}),
        default=sorted(now.shared_intents),
        accept_new_options=True,
        key=key("shared_intents", now),
        help=bounds.description,
    )
    quiet("Only you can know whether these answers are the same for everybody.")
    return {"sharing": rule, "shared_intents": sorted(chosen)}


def effects(page: Page, estimates: Estimates, chosen: Sequence[str]) -> None:
    """Draw what sharing each intent would have won."""
    if estimates.sharing:
        show(charts.sharing(estimates.sharing, chosen, page.look), "sharing")
        quiet(
            "A replay cannot count hits on *similar* questions, so the real gain may be "
            "higher. Answers stored before stay private."
        )
    elif estimates.decisions:
        empty(
            "No lookup missed an answer that another user had.",
            "Sharing more would not add hits.",
        )


def overrides(estimates: Estimates) -> dict[str, Any]:
    """Draw the controls of one intent; return all overrides after the change, flat."""
    now = estimates.tuning
    kept = {name: own for name, own in now.flat().items() if name.startswith(INTENT_PREFIX)}
    quiet(Tuning.bounds()["intents"].description)
    if kept:
        st.markdown(
            "\n".join(
                f"- {plain(f'{title(name)}: {value(name, own)}')}" for name, own in kept.items()
            )
        )
    seen = {item.intent for item in estimates.decisions if item.intent}
    intent = st.selectbox(
        "Intent", sorted({*seen, *now.intents}), index=None, key=key("intent", now),
        accept_new_options=True, placeholder="Choose one, or write its label",
    )  # fmt: skip
    if not intent:
        if not kept:
            empty(
                "No per-intent overrides yet.",
                "Choose one above to give its answers a threshold, TTLs or sharing of their own: "
                "stricter where a wrong answer costs more, shorter where it changes often.",
            )
        return kept
    if INTENT_PATTERN.fullmatch(intent) is None:
        st.error(
            "An intent label has 1 to 64 letters, digits, and _ . : -",
            icon=":material/block:",
        )
        return kept
    for row in (_OVERRIDES[:3], _OVERRIDES[3:]):
        for name, column in zip(row, st.columns(3), strict=False):
            field = f"{INTENT_PREFIX}{intent}.{name}"
            with column:
                own = _override(name, kept.get(field), key(field, now))
            kept.pop(field, None)
            if own is not None:
                kept[field] = own
    return kept


def _override(name: str, current: Any, widget: str) -> Any:
    """Draw the control of an override; `None` inherits the value for all intents."""
    if name == "shared":
        words = {True: "by all users", False: "by nobody"}
        return st.selectbox(
            "Shared", [True, False], format_func=words.__getitem__, key=widget,
            index=None if current is None else int(not current), placeholder="inherited",
        )  # fmt: skip
    bounds = Tuning.bounds()[name]
    return number(bounds, bounds.title.partition(",")[0], current, widget)
