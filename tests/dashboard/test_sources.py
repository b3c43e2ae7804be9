"""The dashboard's source keeps the last results for an outage, and only so many."""

from __future__ import annotations

from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from cache_core.config.settings import Settings
from cache_core.model.exceptions import BackendError
from dashboard.data import sources
from dashboard.data.config import DashboardConfig
from dashboard.data.sources import Source
from dashboard.data.words import SourceUnavailableError
from tests.support.dashboard import agent

HOUR = 3_600.0


def test_an_open_page_keeps_its_newest_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A month of hourly reads leaves a bounded number of results; an outage shows the last ones."""
    with agent(tmp_path / "cache", None):
        source = Source(DashboardConfig(), Settings(dir=tmp_path / "cache"))
        try:
            for hour in range(50):
                source.replicas()
                source.history(hour * HOUR, (hour + 1) * HOUR, "hour")
            assert len(source._known) == sources._KNOWN

            monkeypatch.setattr(source._caches._background, "run", _unavailable)
            assert source.history(49 * HOUR, 50 * HOUR, "hour") == []
            assert source.outage is not None
            assert source.replicas() is not None
            with pytest.raises(SourceUnavailableError):
                source.history(0.0, HOUR, "hour")
            monkeypatch.undo()
        finally:
            source.close()


def _unavailable(work: Coroutine[Any, Any, Any], _timeout: float) -> None:
    work.close()
    raise BackendError("timeout", "TimeoutError", "no answer")
