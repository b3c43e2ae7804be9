"""Live tuning where the store has garbage, was unavailable, or lost its data."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cache_core import MultiLevelCache
from cache_core.config.settings import Settings
from cache_core.config.tuning import Tuning
from cache_core.model.exceptions import BackendError, ConfigurationError
from cache_core.testing import RecordingInstrument
from tests.support import servers
from tests.support.caches import CacheFactory
from tests.support.tuning import SOON, TRAIL, Scribble, record
from tests.support.waiting import until

# ------------------------------------------------------------------------------------ garbage


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not JSON",
        "[]",
        "null",
        "{}",
        "[" * 100_000,
        record(2, l1_ttl=60.0),
        record(1, semantic_threshold=1.7),
        record(1, semantic_threshold="NaN"),
        record(1, l1_ttl=-1),
        record(1, l1_ttl=None),
        record(1, l1_ttl=[1]),
        record(1, nothing=1),
        record(1, version=9),
        record(1, **{"intent.faq.l1_ttl": -1}),
        record(1, **{"intent..": 1}),
        record(1).replace('"ana"', "5").replace('"somebody"', "5"),
        record(1).replace('"at": 1.0', '"at": NaN'),
    ],
)
async def test_garbage_changes_nothing_and_is_counted(
    make_cache: CacheFactory, scribble: Scribble, text: str
) -> None:
    """An invalid version is rejected once by each replica, and the next valid one is applied."""
    watching = RecordingInstrument()
    one = await make_cache(settings={"tiers": "l1"}, instruments=[watching])
    other = await make_cache(settings={"tiers": "l1"})
    scribble("1", text)
    await until(lambda: one.get_metrics()["tuning"]["rejected"] == 1, SOON)
    await until(lambda: other.get_metrics()["tuning"]["rejected"] == 1, SOON)
    assert one.tuning == other.tuning == Tuning()
    assert (await other.tune({"l1_ttl": 60}, author="ana")).version == 2
    await until(lambda: one.tuning.version == 2, SOON)
    assert one.tuning.l1_ttl == 60
    assert one.get_metrics()["tuning"] == {"applied": 1, "rejected": 1}
    assert [call.outcome for call in watching.of("tune")] == ["rejected", "applied"]
    late = await make_cache(settings={"tiers": "l1"})
    assert late.tuning == one.tuning


async def test_strange_rows_are_no_versions(make_cache: CacheFactory, scribble: Scribble) -> None:
    """A row whose name is no version is refused once, and never becomes one."""
    cache = await make_cache(settings={"tiers": "l1"})
    for name in ("head", "-1", "01", "1e3", "9" * 30):
        scribble(name, record(1, l1_ttl=60.0))
    await until(lambda: cache.get_metrics()["tuning"]["rejected"] == 5, SOON)
    assert cache.tuning.version == 0
    assert (await cache.tune({"l1_ttl": 60}, author="ana")).version == 1


async def test_the_last_good_version_stays_in_force(
    make_cache: CacheFactory, scribble: Scribble
) -> None:
    """Garbage above a good version hides it from no replica, however late it comes."""
    cache = await make_cache(settings={"tiers": "l1"})
    await cache.tune({"l1_ttl": 60}, author="ana")
    for version in range(2, 30):
        scribble(str(version), "garbage")
    late = await make_cache(settings={"tiers": "l1"})
    assert (late.tuning.version, late.tuning.l1_ttl) == (1, 60.0)
    await until(lambda: cache.get_metrics()["tuning"]["rejected"] == 28, SOON)
    assert cache.tuning.version == 1
    with pytest.raises(ConfigurationError, match="cannot be read"):
        await cache.revert_tuning(29, author="ana")


# ------------------------------------------------------------------------------------ outages


@pytest.mark.slow
async def test_a_store_that_lost_a_tuning_gets_it_again(
    make_cache: CacheFactory, tmp_path: Path
) -> None:
    """A store that lost everything gets the tuning back from a replica that has it in force."""
    cache = await make_cache(settings={"tiers": "l1"})
    await cache.tune({"l1_ttl": 60}, author="ana")
    await cache._parts.store.delete([TRAIL])
    await until(cache.tuning_history, SOON)
    assert cache.tuning.l1_ttl == 60
    assert (await make_cache(settings={"tiers": "l1"})).tuning == cache.tuning
    assert (await cache.tune({"l1_ttl": 90}, author="ana")).version == 2


@pytest.mark.server
async def test_without_the_store_the_last_tuning_stays(tmp_path: Path) -> None:
    """While Redis is unavailable the tuning stays in force, changes raise; afterwards it is followed again."""
    port = servers.free_port()
    settings = Settings(redis_url=servers.redis_url(port), dir=tmp_path, tiers=frozenset({"l1"}))
    one = MultiLevelCache(settings=settings, instruments=(), semantic_threshold=0.9)
    other = MultiLevelCache(settings=settings, instruments=())
    with servers.redis_server(tmp_path, port=port):
        await one.initialize()
        await other.initialize()
        await one.tune({"l1_ttl": 60}, author="ana")
        await until(lambda: other.tuning.version == 1, SOON)
    with pytest.raises(BackendError):
        await one.tune({"l1_ttl": 90}, author="ana")
    with pytest.raises(BackendError):
        await one.tuning_history()
    assert one.tuning.l1_ttl == other.tuning.l1_ttl == 60
    never = MultiLevelCache(settings=settings, instruments=())
    with pytest.raises(BackendError):
        await never.tune({"l1_ttl": 90}, author="ana")
    with servers.redis_server(tmp_path, port=port):
        await until(lambda: never.is_open, SOON)
        for cache in (one, never):
            await until(lambda cache=cache: cache._parts.store.breaker.state == "closed")  # type: ignore[misc]
        # The server kept nothing: the replicas gave it back.
        await until(lambda: never.tuning.version == 1, SOON)
        assert (await one.tune({"l1_ttl": 90}, author="ana")).version == 2
        await until(lambda: other.tuning.l1_ttl == never.tuning.l1_ttl == 90, SOON)
        for cache in (one, other, never):
            await cache.close()


async def test_without_the_right_to_subscribe_asking_is_enough(
    empty_redis: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An ACL that allows no channel costs half a second, one line in the log, and nothing else."""
    with servers.admin(empty_redis) as client:
        client.execute_command(
            *"ACL SETUSER least on >secret ~gc1:* resetchannels +@all -@admin".split()
        )
    url = servers.redis_url(servers.port_of(empty_redis), "least", "secret")
    settings = Settings(redis_url=url, dir=tmp_path, tiers=frozenset({"l1"}))
    with caplog.at_level("INFO", "glasscache"):
        async with (
            MultiLevelCache(settings=settings, instruments=()) as one,
            MultiLevelCache(settings=settings, instruments=()) as other,
        ):
            for version in (1, 2, 3):
                await one.tune({"l1_ttl": 60 + version}, author="ana")
                await until(lambda version=version: other.tuning.version == version)  # type: ignore[misc]
            await asyncio.sleep(0.5)
            assert one._parts.store.breaker.state == "closed"
    assert caplog.text.count("are not announced here") == 2, "once for each"
