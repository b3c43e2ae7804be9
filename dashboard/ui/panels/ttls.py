"""TTLs: their controls, the ages of served entries, and the effect of others."""

from __future__ import annotations

import streamlit as st

from cache_core.config.tuning import Tuning
from cache_core.model.values import LEVELS, Level
from cache_core.operations.explain import duration
from dashboard import charts
from dashboard.data.estimates import Estimates
from dashboard.ui.panels.controls import control
from dashboard.ui.shell import Page, empty, quiet, show


def ttls(page: Page, estimates: Estimates) -> dict[str, float]:
    """Draw the panel; return the proposed TTLs by field."""
    found: dict[str, float] = {}
    for row in (LEVELS[:2], LEVELS[2:]):
        for level, column in zip(row, st.columns(2, gap="large"), strict=True):
            with column:
                found[f"{level}_ttl"] = _ttl(page, estimates, level)
    quiet(
        "An entry is kept for twice its TTL: for more than twice today's, the hits won are a lower "
        "bound. A replay cannot know whether an older answer would still be true."
    )
    return found


def _ttl(page: Page, estimates: Estimates, level: Level) -> float:
    chosen = float(control(Tuning.bounds()[f"{level}_ttl"], estimates.tuning))
    report = estimates.ttl(level)
    if not report.hits and not report.expired:
        empty(
            f"No hit of {level.upper()} is recorded.",
            f"Its TTL would be {duration(chosen)}. Once the tier answers, this shows how old "
            "its answers are.",
        )
        return chosen
    show(charts.ages(report, chosen, page.look), f"ages_{level}")
    then = estimates.ttl_at(level, chosen)
    if chosen < report.ttl_seconds:
        quiet(f"{duration(chosen)} would have lost {then.hits_lost:,} of {report.hits:,} hits.")
    elif chosen > report.ttl_seconds:
        quiet(
            f"{duration(chosen)} would have won {then.hits_won:,} of {report.expired:,} "
            "misses that found an expired entry."
        )
    else:
        quiet(f"{report.hits:,} hits; {report.expired:,} misses found an expired entry.")
    return chosen
