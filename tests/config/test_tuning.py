"""Layers of tuning: bounds, precedence, unknown fields."""

from __future__ import annotations

import pytest

from cache_core import ConfigurationError
from cache_core.config.layers import make_tuning
from cache_core.config.tuning import Tuning


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("semantic_threshold", 1.01), ("semantic_threshold", -0.1), ("semantic_threshold", "high"),
        ("semantic_threshold", float("nan")), ("l1_ttl", 0), ("l1_ttl", -1), ("l1_ttl", 3_000_000),
        ("l1_ttl", float("inf")), ("response_usd", -1), ("sharing", "everybody"),
        ("guards", ("colour",)), ("hit_rate_objective", 60),
    ],
)  # fmt: skip
def test_a_tuning_out_of_bounds_says_who_said_so(field: str, value: object) -> None:
    """A refused value is named with its field, its origin and the bounds."""
    with pytest.raises(ConfigurationError) as refused:
        make_tuning(("the environment", {field: value}))
    assert field in str(refused.value)
    assert "(from the environment)" in str(refused.value)


def test_the_strongest_layer_wins() -> None:
    """Later layers beat earlier ones field by field, and each value knows its origin."""
    tuning, origin = make_tuning(
        ("the environment", {"semantic_threshold": 0.8, "l1_ttl": 5}),
        ("the constructor", {"semantic_threshold": 0.9}),
    )
    assert (tuning.semantic_threshold, tuning.l1_ttl, tuning.l2_ttl) == (0.9, 5.0, 86_400.0)
    assert origin == {"semantic_threshold": "the constructor", "l1_ttl": "the environment"}


def test_an_unknown_field_is_refused() -> None:
    """A misspelt field is an error and not ignored."""
    with pytest.raises(ConfigurationError, match="l5_ttl"):
        make_tuning(("the constructor", {"l5_ttl": 1}))


def test_an_answer_costs_its_tokens() -> None:
    """The cost is by the model's own price; a model without one has none."""
    tuning = Tuning(prices=["small=0.15/0.6", "vendor/large:v2=2.5/10"])
    assert tuning.cost_usd("small", 1_200, 300) == pytest.approx(0.000_36)
    assert tuning.cost_usd("vendor/large:v2", 1_000_000, 0) == 2.5
    assert tuning.cost_usd("other", 1_200, 300) is None
    assert tuning.flat()["prices"] == ["small=0.15/0.6", "vendor/large:v2=2.5/10"]


@pytest.mark.parametrize(
    ("prices", "said"),
    [
        (["small"], "MODEL=IN/OUT"),
        (["small=1"], "MODEL=IN/OUT"),
        (["small=-1/2"], "MODEL=IN/OUT"),
        (["small=nan/2"], "MODEL=IN/OUT"),
        (["=1/2"], "MODEL=IN/OUT"),
        (["small=1/2", "small=2/3"], "small has two prices"),
        ([f"m{number}=1/2" for number in range(201)], "200"),
    ],
)
def test_a_price_is_one_and_readable(prices: list[str], said: str) -> None:
    """A price that cannot be read, or a second one of a model, is rejected with the reason."""
    with pytest.raises(ConfigurationError, match=said):
        make_tuning(("the change", {"prices": prices}))
