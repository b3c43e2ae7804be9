"""Clocks that jump: nothing expired is served, and nothing lives longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from cache_core import MultiLevelCache
from cache_core.backends import clock as clock_module
from cache_core.backends.base import Write
from cache_core.backends.clock import WallClock
from cache_core.backends.sqlite.store import EmbeddedStore
from cache_core.config.settings import Settings
from cache_core.model import envelope
from cache_core.testing import ManualClock
from tests.support.patience import PATIENT


async def test_a_clock_set_back_across_a_restart(tmp_path: Path) -> None:
    """An expired entry stays expired, and entries stored from then on live no longer."""
    clock = ManualClock()

    async def lookup(message: str) -> str | None:
        settings = Settings(dir=tmp_path / "cache", tiers="l1", **PATIENT)
        async with MultiLevelCache(settings=settings, instruments=(), clock=clock) as cache:
            return (await cache.lookup(message, "ann")).response

    settings = Settings(dir=tmp_path / "cache", tiers="l1", **PATIENT)
    async with MultiLevelCache(settings=settings, instruments=(), clock=clock) as cache:
        await cache.put("old", "ann", "old")
        clock.advance(3_000)
        await cache.put("live", "ann", "live")
        clock.advance(700)
        await cache._parts.store.tend()
    assert await lookup("old") is None
    clock.advance(-3_600)
    assert await lookup("old") is None
    assert await lookup("live") == "live"
    async with MultiLevelCache(settings=settings, instruments=(), clock=clock) as cache:
        await cache.put("new", "ann", "new")
    clock.advance(2_950)
    assert await lookup("live") is None
    assert await lookup("new") == "new"
    clock.advance(700)
    assert await lookup("new") is None


async def test_a_clock_set_back_while_running(tmp_path: Path, clock: ManualClock) -> None:
    """The next tend notices; time goes on from where it was."""
    store = EmbeddedStore(tmp_path, clock=clock)
    await store.open()
    try:
        clock.advance(100)
        await store.tend()
        before = store.now()
        clock.advance(-3_600)
        await store.tend()
        assert before - 1 <= store.now() <= before + 1
        clock.advance(10)
        assert store.now() >= before + 9
    finally:
        await store.close()


async def test_an_entry_from_the_future(cache: MultiLevelCache) -> None:
    """It was stamped by a clock that was wrong: never served."""
    await cache.put("alpha", "ann", "answer")
    keys, store = cache._parts.keys, cache._parts.store
    query = keys.query("alpha", "ann")
    name = keys.entry("l1", query, query.scope("user"))
    [text] = await store.read([name])
    assert text is not None
    for ahead, served in ((4, "answer"), (10, None)):
        created = text.partition('"t":')[2].partition(",")[0]
        moved = text.replace(f'"t":{created}', f'"t":{store.now() + ahead:.3f}')
        # As the clock that was wrong would have written it: with a checksum that is right.
        moved = envelope.summed(moved.rpartition(',"c":')[0] + "}")
        await store.write([Write(name, moved, 60)])
        result = await cache.get_multilevel("alpha", "ann")
        if served is None:
            explained = await cache.explain("alpha", "ann")
            assert explained[0].reason == "expired"
        else:
            assert result == served


def test_a_server_clock_does_not_go_back() -> None:
    """The first reading is taken as it is; after that only a small correction is made."""
    clock = WallClock()
    clock.set(1_000_000.0)
    assert abs(clock.time() - 1_000_000) < 1
    clock.set(996_400.0)
    assert clock.time() >= 1_000_000
    clock.set(1_003_600.0)
    assert clock.time() >= 1_003_600


async def test_a_late_reply_is_no_clock_that_was_set_back(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A time that was five seconds on its way may be that old: it is not used, and not reported."""
    ticks = [0.0]
    monkeypatch.setattr(clock_module, "_ticks", lambda: ticks[0])
    monkeypatch.setattr(clock_module.log, "_next", {})
    clock = WallClock()
    clock.set(1_000_000.0)

    async def server(time: float) -> float:
        ticks[0] += 5
        return time

    await clock.follow(lambda: server(1_000_000.0))
    assert clock.time() == 1_000_005
    assert caplog.messages == []
    await clock.follow(lambda: server(999_990.0))
    assert clock.time() == 1_000_010
    assert "set back by 20 s" in caplog.text
