"""Looser tunings: fields by which one tuning lets through what another does not."""

from __future__ import annotations

from typing import Any

import pytest

from cache_core.config.intents import unflatten
from cache_core.config.layers import make_tuning
from cache_core.config.looser import loosened, loosened_by_undoing
from cache_core.config.trail import TuningChange
from cache_core.config.tuning import Tuning


def tuned(values: dict[str, Any]) -> Tuning:
    """The defaults but for *values*, flat."""
    return make_tuning(("the test", unflatten(values)))[0]


@pytest.mark.parametrize(
    ("strict", "loose", "fields"),
    [
        ({}, {"sharing": "all"}, ["sharing"]),
        ({}, {"sharing": "intents", "shared_intents": ["faq"]}, ["sharing"]),
        ({"sharing": "intents", "shared_intents": ["faq"]}, {"sharing": "all"}, ["sharing"]),
        ({}, {"intent.faq.shared": True}, ["sharing"]),
        ({"sharing": "all", "intent.orders.shared": False}, {"sharing": "all"}, ["sharing"]),
        ({}, {"personal": "share"}, ["personal"]),
        ({}, {"sharing": "auto"}, ["sharing"]),
        ({"sharing": "auto"}, {"sharing": "all"}, ["sharing"]),
        (
            {"sharing": "intents", "shared_intents": ["faq"]},
            {"sharing": "auto", "shared_intents": ["faq"]},
            ["sharing"],
        ),
        ({"sharing": "auto", "intent.orders.shared": False}, {"sharing": "auto"}, ["sharing"]),
        (
            {"sharing": "auto", "promote_after": 0},
            {"sharing": "auto"},
            ["sharing", "promote_after"],
        ),
        ({"promote_after": 0}, {}, ["promote_after"]),
        ({"promote_after": 5}, {"promote_after": 2}, ["promote_after"]),
        ({}, {"semantic_threshold": 0.9}, ["semantic_threshold"]),
        ({"intent.faq.semantic_threshold": 0.99}, {}, ["semantic_threshold"]),
        ({}, {"max_wrong": 0.01}, ["semantic_threshold", "max_wrong"]),
        ({"max_wrong": 0.01}, {"max_wrong": 0.02}, ["max_wrong"]),
        ({}, {"intent.faq.max_wrong": 0.01}, ["semantic_threshold", "max_wrong"]),
        ({}, {"guards": ["numbers"]}, ["guards"]),
        ({}, {"l1_ttl": 7_200}, ["l1_ttl"]),
        ({}, {"l3_ttl": 86_400}, ["l3_ttl"]),
        ({"intent.faq.l2_ttl": 60}, {}, ["l2_ttl"]),
        ({}, {"stale_seconds": 60}, ["stale_seconds"]),
        ({"shared_puts_per_minute": 60}, {}, ["shared_puts_per_minute"]),
    ],
)
def test_looser_is_one_direction(
    strict: dict[str, Any], loose: dict[str, Any], fields: list[str]
) -> None:
    """Each field is named in the direction that lets more through, and only in that one."""
    assert loosened(tuned(strict), tuned(loose)) == fields
    assert loosened(tuned(loose), tuned(strict)) == []


@pytest.mark.parametrize(
    "values", [{"response_usd": 1.0}, {"shared_intents": ["faq"], "sharing": "private"}]
)
def test_neither_is_looser(values: dict[str, Any]) -> None:
    """Prices let nothing through, nor do intents while nothing is shared."""
    assert loosened(tuned({}), tuned(values)) == []
    assert loosened(tuned(values), tuned({})) == []


def test_undoing_a_change_goes_back_to_its_values() -> None:
    """Undoing a change restores the values it replaced, an override that was none included."""
    change = TuningChange(
        2, 1.0, "ana", "", {"sharing": "all", "intent.faq.l1_ttl": None},
        {"sharing": "private", "intent.faq.l1_ttl": 60.0},
    )  # fmt: skip
    now = tuned({"sharing": "private", "intent.faq.l1_ttl": 60.0})
    assert loosened_by_undoing(change, now) == ["sharing", "l1_ttl"]
    not_followed = tuned({"sharing": "all"})
    assert loosened_by_undoing(change, not_followed) == ["sharing", "l1_ttl"]
