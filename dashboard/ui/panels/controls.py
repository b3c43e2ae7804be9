"""Controls generated from the bounds of the tuning's fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from cache_core.config.intents import INTENT_PREFIX
from cache_core.config.tuning import Bounds, Tuning
from cache_core.model import durations
from cache_core.model.batches import batched
from dashboard.data.words import percentage, plain, short

GROUPS: Mapping[str, tuple[str, ...]] = {
    "Money": (
        "response_usd", "intent_usd", "retrieval_usd", "prices", "embedding_usd",
        "embedding_tokens_usd", "verification_usd", "approval_usd",
    ),
    "Safety": (
        "approve_margin", "verify_share", "personal", "promote_after", "guards",
    ),
    "Limits": (
        "puts_per_minute", "shared_puts_per_minute", "approvals_per_minute", "stale_seconds",
        "refresh_share", "recheck_share",
    ),
    "Objective": ("hit_rate_objective",),
}  # fmt: skip
"""Fields without a tab of their own, by what they are about."""

_PRESETS = (300.0, 1_800.0, 3_600.0, 7_200.0, 21_600.0, 43_200.0, 86_400.0, 172_800.0, 604_800.0)


def key(field: str, now: Tuning) -> str:
    """Return a widget's key.

    It includes the version: after a change, anybody's, the controls show the values in force.
    """
    return f"{field}@{now.version}"


def control(bounds: Bounds, now: Tuning) -> Any:
    """Draw the control of a field within its bounds; return its value as a JSON value."""
    current = now.flat()[bounds.field]
    name = key(bounds.field, now)
    if bounds.kind == "number":
        return number(bounds, bounds.title, current, name)
    if bounds.kind == "choice":
        return st.segmented_control(
            bounds.title, bounds.choices, default=current, required=True, key=name,
            help=bounds.description,
        )  # fmt: skip
    free = bounds.kind == "prices"
    return st.multiselect(
        bounds.title, current if free else bounds.choices, default=current, key=name,
        accept_new_options=free, help=bounds.description,
        placeholder=bounds.expected if free else None,
    )  # fmt: skip


def number(bounds: Bounds, label: str, current: float | None, name: str) -> float | None:
    """Draw the control of a number; return it, `None` if it is empty.

    Args:
        bounds: Bounds of the field.
        label: The label, without the unit.
        current: The value in force; without one the control is empty, and may stay so.
        name: The widget's key.
    """
    if bounds.unit == "s":
        return _time(bounds, label, current, name)
    scale = 100.0 if percentage(bounds) else 1.0
    unit = "%" if scale > 1 else bounds.unit
    limits = (bounds.minimum, bounds.maximum, bounds.step)
    # Streamlit rejects a mix of int and float
    low, high, step = (None if limit is None else scale * float(limit) for limit in limits)
    found: float | None = st.number_input(
        f"{label}, {unit}" if unit else label,
        min_value=low,
        max_value=high,
        value=None if current is None else round(scale * float(current), 9),
        step=step,
        format="%.10g",
        placeholder="inherited",
        key=name,
        help=bounds.description,
    )
    return None if found is None else found / scale


def _time(bounds: Bounds, label: str, current: float | None, name: str) -> float | None:
    """Draw the control of a duration: presets, and any other one like `90m`."""
    least = bounds.minimum or 0.0
    presets = {*_PRESETS, *(() if current is None else (current,)), *(() if bounds.above else (0,))}
    options = [short(seconds) for seconds in sorted(presets) if seconds >= least]
    chosen = st.selectbox(
        label,
        options,
        index=None if current is None else options.index(short(current)),
        accept_new_options=True,
        placeholder="inherited",
        key=name,
        help=f"{bounds.description} Choose one, or write another like 90m, 6h or 2d.",
    )
    if chosen is None:
        return None
    found = durations.seconds(chosen)
    if isinstance(found, float) and least <= found <= (bounds.maximum or found):
        return found
    st.error(
        f"“{plain(chosen)}” is no duration up to {short(bounds.maximum or 0)}: write it like 90m, "
        "6h or 2d.",
        icon=":material/block:",
    )
    return current


def rest(now: Tuning, done: set[str]) -> dict[str, Any]:
    """Draw the controls of all fields but *done*, in groups; return their values."""
    found: dict[str, Any] = {}
    grouped = {name for names in GROUPS.values() for name in names}
    others = tuple(name for name in Tuning.bounds() if name not in grouped | done)
    for group, names in {**GROUPS, "Others": others}.items():
        if not names:
            continue
        st.markdown(f"**{group}**")
        for pair in batched(names, 2):
            # row by row, so that related fields stay together on a narrow screen, too
            for name, column in zip(pair, st.columns(2), strict=False):
                with column:
                    found[name] = control(Tuning.bounds()[name], now)
    return found


def changed(
    now: Tuning, proposed: Mapping[str, Any], overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """Return those of *proposed* and of all *overrides* that differ from *now*, flat."""
    flat = now.flat()
    found = {
        name: chosen
        for name, chosen in proposed.items()
        if not _same(flat[name], sorted(chosen) if isinstance(chosen, (list, set)) else chosen)
    }
    names = {name for name in (*flat, *overrides) if name.startswith(INTENT_PREFIX)}
    for name in sorted(names):
        if not _same(flat.get(name), overrides.get(name)):
            found[name] = overrides.get(name)
    return found


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, (int, float)):
        return abs(one - other) < 1e-9
    return bool((sorted(one) if isinstance(one, list) else one) == other)
