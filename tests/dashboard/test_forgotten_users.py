"""The dashboard shows nothing of an erased user, in whichever process the erasure was made."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cache_core.config.settings import Settings
from dashboard.data import queue
from dashboard.data.config import DashboardConfig
from dashboard.data.sources import Source
from tests.support.dashboard import agent

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("who", ["the agent", "the dashboard"])
def test_a_forgotten_user_is_shown_no_more(tmp_path: Path, who: str) -> None:
    """Neither in what was recorded, the pairs to review, nor the replayed lookups."""
    settings = {"capture_message_content": True}
    with agent(tmp_path / "cache", None, settings=settings) as busy:

        async def work() -> None:
            await busy.cache.put("kumquat alpha beta", "ann", "zebra")
            await busy.cache.lookup("kumquat, alpha beta", "ann")
            await busy.cache.lookup("something else", "bob")

        busy.run(work())
        busy.flush()
        source = Source(DashboardConfig(), Settings(dir=tmp_path / "cache", **settings))
        try:
            assert "zebra" in {item.response_text for item in source.recorded().decisions}
            assert "zebra" in {item.response_text for item in source.estimates().decisions}
            if who == "the agent":
                assert busy.run(busy.cache.forget_user("ann")).complete
            else:
                source.invalidate("user", "ann", user=None, author="ops", note="")
            until = time.monotonic() + 20
            while len(source.recorded().decisions) != 1 and time.monotonic() < until:
                time.sleep(0.05)
            assert [item.message_text for item in source.recorded().decisions] == ["something else"]
            assert [item.message_text for item in source.estimates().decisions] == [
                "something else"
            ]
            left = queue.unjudged(
                source.recorded().decisions, source.verdicts(), threshold=0.95,
                order="near the threshold",
            )  # fmt: skip
            assert queue.readable(left) == []
        finally:
            source.close()
