"""TTLs: their controls, the ages of served entries, and the effect of others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from cache_core.config.tuning import Tuning
from cache_core.model.values import LEVELS, Level
from cache_core.operations.explain import duration
from dashboard import charts
from dashboard.data.estimates import Estimates
from dashboard.data.words import short
from dashboard.ui.panels.controls import control, key
from dashboard.ui.shell import Page, empty, quiet, show


def controls(estimates: Estimates) -> dict[str, float]:
    """Draw the controls; return the proposed TTLs by field."""
    found: dict[str, float] = {}
    for row in (LEVELS[:2], LEVELS[2:]):
        for level, column in zip(row, st.columns(2), strict=True):
            name = f"{level}_ttl"
            with column:
                chosen = control(Tuning.bounds()[name], estimates.tuning)
                found[name] = estimates.tuning.ttl(level) if chosen is None else float(chosen)
    _recommendations(estimates)
    return found


def _recommendations(estimates: Estimates) -> None:
    """Offer the TTLs that the recorded lookups and the comparisons of answers speak for."""
    for level in LEVELS[:2]:
        found = estimates.recommend_ttl(level)
        with st.container(border=True):
            if found.seconds is None:
                st.markdown(f"**{level.upper()}: no recommendation.** {found.reason}")
                continue
            st.markdown(f"**{level.upper()}: {short(found.seconds)} recommended.** {found.reason}")
            name, chosen = key(f"{level}_ttl", estimates.tuning), short(found.seconds)
            st.button(
                f"Try {chosen} for {level.upper()}",
                on_click=lambda name=name, chosen=chosen: st.session_state.update({name: chosen}),
                help="Moves the control without applying it.",
            )


def effects(page: Page, estimates: Estimates, chosen: Mapping[str, Any]) -> None:
    """Draw the ages of served entries, and the effect of the chosen TTLs."""
    for row in (LEVELS[:2], LEVELS[2:]):
        for level, column in zip(row, st.columns(2, gap="large"), strict=True):
            with column:
                _ages(page, estimates, level, float(chosen[f"{level}_ttl"]))
    quiet(
        "An entry is kept for twice its TTL: for more than twice today's, the hits won are a lower "
        "bound. A replay cannot know whether an older answer would still be true."
    )


def _ages(page: Page, estimates: Estimates, level: Level, chosen: float) -> None:
    report = estimates.ttl(level)
    if not report.hits and not report.expired:
        empty(
            f"No hit of {level.upper()} is recorded.",
            f"Its TTL would be {duration(chosen)}. Once the tier answers, this shows how old "
            "its answers are.",
        )
        return
    show(charts.ages(report, chosen, page.look), f"ages_{level}")
    then = estimates.ttl_at(level, chosen)
    if chosen < report.ttl_seconds:
        quiet(f"{duration(chosen)} would have lost {then.hits_lost:,} of {report.hits:,} hits.")
    elif chosen > report.ttl_seconds and report.expired:
        quiet(
            f"{duration(chosen)} would have won {then.hits_won:,} of {report.expired:,} "
            "misses that found an expired entry."
        )
    elif chosen > report.ttl_seconds:
        quiet("No miss found an expired entry: a longer TTL would have won nothing yet.")
    else:
        quiet(f"{report.hits:,} hits; {report.expired:,} misses found an expired entry.")
