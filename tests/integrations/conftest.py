"""Fixtures of the adapters' tests: a cache without a model of its own, and a provider.

What the tests of the contract do is recorded, and compared with the table of docs/integrations.md.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from glasscache import MultiLevelCache
from glasscache.testing import FakeModel
from tests.support.caches import opened
from tests.support.contract_table import RECORDED
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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: Any) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Record what a test of the contract did."""
    report = yield
    RECORDED.record(item, report)
    return report


@pytest.fixture(scope="class", autouse=True)
def _as_documented(request: pytest.FixtureRequest) -> Iterator[None]:
    """The row of an adapter is that of docs/integrations.md."""
    yield
    if request.cls is not None:
        RECORDED.check(request.cls)
