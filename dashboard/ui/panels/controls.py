"""Controls generated from the bounds of the tuning's fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from cache_core.config.intents import INTENT_PREFIX
from cache_core.config.tuning import Bounds, Tuning
from cache_core.model.batches import batched


def key(field: str, now: Tuning) -> str:
    """Return a widget's key.

    It includes the version: after a change, anybody's, the controls show the values in force.
    """
    return f"{field}@{now.version}"


def control(bounds: Bounds, now: Tuning) -> Any:
    """Draw the control of a field within its bounds; return its value as a JSON value."""
    current = now.flat()[bounds.field]
    name = key(bounds.field, now)
    label = f"{bounds.title}, {bounds.unit}" if bounds.unit else bounds.title
    if bounds.kind == "number":
        return number(bounds, label, current, name)
    if bounds.kind == "choice":
        return st.segmented_control(
            label, bounds.choices, default=current, required=True, key=name, help=bounds.description
        )
    return st.multiselect(label, bounds.choices, default=current, key=name, help=bounds.description)


def number(bounds: Bounds, label: str, current: float | None, name: str) -> float | None:
    """Draw the control of a number; return it, `None` if it is empty.

    Args:
        bounds: Bounds of the field.
        label: The label.
        current: The value in force; without one the control is empty, and may stay so.
        name: The widget's key.
    """
    limits = (bounds.minimum, bounds.maximum, bounds.step)
    # Streamlit rejects a mix of int and float
    low, high, step = (None if limit is None else float(limit) for limit in limits)
    found: float | None = st.number_input(
        label,
        min_value=low,
        max_value=high,
        value=None if current is None else float(current),
        step=step,
        format="%.10g",
        placeholder="inherited",
        key=name,
        help=f"{bounds.description} {bounds.expected}.",
    )
    return found


def rest(now: Tuning, done: set[str]) -> dict[str, Any]:
    """Draw the controls of all fields but *done*; return their values."""
    found: dict[str, Any] = {}
    fields = [item for item in Tuning.bounds().values() if item.field not in done]
    for pair in batched(fields, 2):
        # row by row, so that related fields stay together on a narrow screen, too
        for bounds, column in zip(pair, st.columns(2), strict=False):
            with column:
                found[bounds.field] = control(bounds, now)
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
