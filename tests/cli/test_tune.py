"""Texts of `glasscache tune` on staged changes."""

from __future__ import annotations

from typing import Any

import pytest

from cache_core.cli.tune import _watched
from cache_core.config.stage import Stage
from cache_core.config.trail import TuningChange
from cache_core.config.tuning import Tuning


@pytest.mark.parametrize(
    ("field", "before", "after", "text"),
    [
        ("l1_ttl", 60.0, 7_200.0, "It is taken back if more than 1.00% of the hits are wrong"),
        ("l1_ttl", 7_200.0, 60.0, "It is not taken back by itself, as that would loosen l1_ttl;"),
    ],
)
def test_the_text_says_whether_it_can_be_taken_back(
    field: str, before: Any, after: Any, text: str
) -> None:
    """Nobody is promised that the watch ends a change that only tightens."""
    change = TuningChange(3, 0.0, "ana", "", {field: before}, {field: after}, None, Stage(600))
    shown = _watched(change, Tuning(**{field: after}))
    assert shown.startswith("Version 3 is staged until 1970-01-01 00:10 UTC. ")
    assert text in shown
