"""The simulation of hit rates agrees with what is known exactly."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.zipf import hit_rate, ranks


def test_the_least_recently_used_entry_is_evicted() -> None:
    """With two entries kept, a hit protects an entry from eviction; by age it would be 3 of 6."""
    warm_up = [0, 1, 0, 2, 0, 2]
    assert hit_rate([*warm_up, 1, 2, 1, 2, 0, 2], 2, None) == 4 / 6


def test_an_entry_expires_a_fixed_time_after_its_put() -> None:
    """Hits do not prolong its life."""
    assert hit_rate([0] * 12, 1, 2) == 4 / 6


@pytest.mark.parametrize("exponent", [0.7, 1.1])
def test_without_eviction_expiry_alone_decides(exponent: float) -> None:
    """A question of probability p, kept T lookups, is a hit with probability pT / (1 + pT)."""
    questions, lifetime = 500, 400
    asked = ranks(exponent, 60_000, questions)
    weights = [1 / rank**exponent for rank in range(1, questions + 1)]
    shares = [weight / sum(weights) for weight in weights]
    expected = sum(p * p * lifetime / (1 + p * lifetime) for p in shares)
    assert hit_rate(asked, questions, lifetime) == pytest.approx(expected, abs=0.01)


def test_ranks_are_asked_by_their_weights() -> None:
    """The first rank is asked r ** s times as often as rank r."""
    counts = Counter(ranks(1.0, 200_000, 1_000))
    assert counts[0] / counts[9] == pytest.approx(10, rel=0.1)
