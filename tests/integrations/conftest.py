"""Fixtures of the adapters' tests: a cache without a model of its own, and a provider."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from glasscache import MultiLevelCache
from glasscache.testing import FakeModel
from tests.support.caches import opened
from tests.support.patience import PATIENT


@pytest.fixture
async def plain_cache(tmp_path: Path) -> AsyncIterator[MultiLevelCache]:
    """A cache with L1 alone: adapters have nothing to do with the other tiers."""
    async with opened(tmp_path / "cache", tiers={"l1"}, **PATIENT) as cache:
        yield cache


@pytest.fixture
def fake_model() -> Iterator[FakeModel]:
    """A provider on loopback."""
    with FakeModel() as model:
        yield model
