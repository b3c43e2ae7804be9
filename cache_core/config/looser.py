"""Comparison of two tunings: fields by which one lets through what the other does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cache_core.config.intents import unflatten
from cache_core.config.layers import make_tuning
from cache_core.config.trail import TuningChange
from cache_core.config.tuning import Tuning
from cache_core.model.values import LEVELS

_LIMITS = ("stale_seconds", "puts_per_minute", "shared_puts_per_minute")


def loosened(now: Tuning, then: Tuning) -> list[str]:
    """Return the fields by which *then* is looser than *now*.

    Looser is what lets an answer reach more users or questions, or live longer. Fields of single
    intents appear under the field for all. The learned policy, at any `max_wrong`, compares as the
    lowest threshold that it may choose.
    """
    named = {*now.intents, *then.intents, *now.shared_intents, *then.shared_intents}
    labels = [None, *sorted(named)]
    votes_now, votes_then = (item.promote_after or float("inf") for item in (now, then))
    looser = {
        "semantic_threshold": any(then.threshold(label) < now.threshold(label) for label in labels),
        "max_wrong": any(then.allowed_wrong(label) > now.allowed_wrong(label) for label in labels),
        "approve_margin": any(
            then.approvable(label) < min(1.0, now.approvable(label)) for label in labels
        ),
        "guards": not set(now.guards) <= set(then.guards),
        "sharing": any(
            (then.shares(label) and not now.shares(label))
            or (then.promotes(label) and not (now.promotes(label) or now.shares(label)))
            for label in labels
        ),
        "personal": now.personal == "refuse" and then.personal != "refuse",
        "promote_after": votes_then < votes_now,
    }
    for level in LEVELS:
        looser[f"{level}_ttl"] = any(
            then.ttl(level, label) > now.ttl(level, label) for label in labels
        )
    for name in _LIMITS:
        looser[name] = getattr(then, name) > getattr(now, name)
    return [name for name, is_looser in looser.items() if is_looser]


def loosened_by_undoing(change: TuningChange, now: Tuning) -> list[str]:
    """Return the fields that taking *change* back would make looser than they are with it.

    *now* holds the other fields; a process may not have followed *change* yet.
    """
    with_it, without = (_changed(now, values) for values in (change.after, change.before))
    return loosened(with_it, without)


def _changed(tuning: Tuning, values: Mapping[str, Any]) -> Tuning:
    flat = {**tuning.flat(), **values}
    known = {name: value for name, value in flat.items() if value is not None}
    return make_tuning(("changed", unflatten(known)))[0]
