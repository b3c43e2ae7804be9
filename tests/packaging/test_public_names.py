"""The public names, under the documented name `glasscache`."""

from __future__ import annotations

from types import ModuleType

import pytest

import cache_core
import cache_core.testing
import cache_core.testing.contracts
import glasscache
import glasscache.telemetry
import glasscache.testing
import glasscache.testing.contracts
import telemetry


@pytest.mark.parametrize(
    ("named", "ours"),
    [
        (glasscache, cache_core),
        (glasscache.telemetry, telemetry),
        (glasscache.testing, cache_core.testing),
        (glasscache.testing.contracts, cache_core.testing.contracts),
    ],
    ids=["glasscache", "telemetry", "testing", "contracts"],
)
def test_the_documented_name_has_the_same_objects(named: ModuleType, ours: ModuleType) -> None:
    """`glasscache` exports everything that the packages behind it export, the very same objects."""
    assert set(ours.__all__) <= set(named.__all__)
    assert all(getattr(named, name) is getattr(ours, name) for name in ours.__all__)
    assert all(hasattr(named, name) for name in named.__all__)
