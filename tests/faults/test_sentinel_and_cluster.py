"""Redis behind Sentinel, and a Redis Cluster: a master dies."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis as blocking
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool

from cache_core import MultiLevelCache
from tests.support import servers
from tests.support.caches import opened
from tests.support.faults import USERS, Asker, answer, fill, question
from tests.support.waiting import until

pytestmark = pytest.mark.server


class BreakableSentinel(servers.Breakable):
    """A sentinel that watches one master alone, and is quick to give it up."""

    def __init__(self, directory: Path, master: int, *lines: str) -> None:
        port = servers.free_port()
        file = directory / "sentinel.conf"
        file.write_text(
            f"port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {master} 1\n"
            "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 2000\n"
            + "\n".join(lines),
            encoding="ascii",
        )
        super().__init__([servers.require("redis-server"), str(file), "--sentinel"], port)


@pytest.mark.parametrize("given", ["pool", "url"])
async def test_a_failover_by_sentinel(tmp_path: Path, given: str) -> None:
    """Lookups are errors until the replica is promoted, then as before; writes go to it."""
    with contextlib.ExitStack() as stack:
        made = []
        for number in range(2):
            place = tmp_path / str(number)
            place.mkdir()
            made.append(stack.enter_context(servers.BreakableRedis(place)))
        master, replica = made
        with contextlib.closing(blocking.Redis.from_url(replica.url)) as client:
            client.replicaof("127.0.0.1", master.port)
            await until(lambda: client.info("replication")["master_link_status"] == "up")
        watch = stack.enter_context(BreakableSentinel(tmp_path, master.port))
        with contextlib.closing(blocking.Redis(port=watch.port)) as client:
            await until(lambda: client.sentinel_master("main")["num-slaves"] == 1, 30)
        sentinel = Sentinel([("127.0.0.1", watch.port)])
        pool = SentinelConnectionPool("main", sentinel, protocol=2)
        nobody = servers.free_port()
        url = f"redis+sentinel://127.0.0.1:{nobody},127.0.0.1:{watch.port}/main/0"
        how: dict[str, Any] = {"redis_pool": pool} if given == "pool" else {"redis_url": url}
        async with opened(tmp_path / "cache", **how) as cache:
            asker = Asker(cache)
            await fill(cache, 2)
            await asker.served_by_l1([0, 1])
            # What is not replicated yet would be lost with the master.
            with contextlib.closing(blocking.Redis.from_url(master.url)) as client:
                client.wait(1, 5_000)
            master.kill()
            assert (await asker.ask(0)).tier is None
            done = await cache.invalidate(question(1))
            assert not done.complete
            while not cache.state or not cache.state.backends["redis"]:
                await asker.ask(0)
                await asyncio.sleep(0.05)
            assert asker.in_time()
            await asker.served_by_l1([0])
            await until(lambda: cache.state is not None and not cache.state.pending_invalidations)
            assert (await asker.ask(1)).response is None

            async def stored() -> bool:
                # On a busy machine the first put may run out of time.
                await cache.put(question(5), "ann", answer(5, "ann"))
                return (await asker.ask(5)).tier == "l1"

            await until(stored)
            await asker.served_by_l1([0, 5])
            with contextlib.closing(blocking.Redis.from_url(replica.url)) as client:
                assert client.info("replication")["role"] == "master"
        await pool.aclose()
        for known in sentinel.sentinels:
            await known.aclose()


def said(cache: MultiLevelCache, words: str) -> bool:
    """Return whether *words* are part of why the cache is unavailable."""
    return words in cache.why_unavailable


async def test_sentinels_that_give_no_master_are_named(tmp_path: Path) -> None:
    """The log has the address and the words of a Sentinel, and a remedy that fits."""
    with (
        servers.BreakableRedis(tmp_path) as master,
        BreakableSentinel(tmp_path, master.port, "requirepass of-the-sentinel") as watch,
    ):
        nobody, there = f"127.0.0.1:{servers.free_port()}", f"127.0.0.1:{watch.port}"
        no_sentinel = f"127.0.0.1:{master.port}"
        login = "sentinel_password=of-the-sentinel"
        for url, told in {
            f"{there}/main": f"Sentinel {there}: Authentication required (sentinel_password=",
            f"{there}/other?{login}": "'other' is unknown to its Sentinels",
            f"{nobody}/main": f"Sentinel {nobody}: Error 111",
            f"{no_sentinel}/main": "No Sentinel answers there",
        }.items():
            async with opened(tmp_path / "cache", redis_url=f"redis+sentinel://{url}") as cache:
                # On a busy machine the first attempt may run out of time.
                await until(partial(said, cache, told))
        # Without a database, and after others that are of no use.
        url = f"redis+sentinel://{nobody},{no_sentinel},{there}/main?{login}"
        async with opened(tmp_path / "cache", redis_url=url) as cache:
            await fill(cache, 1)
            await Asker(cache).served_by_l1([0])


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[list[servers.BreakableRedis]]:
    """Three masters with a third of the slots each; without one the others go on."""
    with servers.redis_cluster(tmp_path) as made:
        yield made


async def test_a_cluster_loses_a_master(
    cluster: list[servers.BreakableRedis], tmp_path: Path
) -> None:
    """Entries of other masters are served as before, and all of them when the master is back."""
    count = 24
    async with opened(tmp_path / "cache", redis_url=cluster[0].url) as cache:
        asker = Asker(cache)
        await fill(cache, count)
        await asker.served_by_l1(range(count))
        dead = _without_tokens(cache, cluster)
        dead.kill()
        began = time.monotonic()
        while time.monotonic() - began < 3:
            found = await asker.ask_all(count)
        served = sum(item.tier == "l1" for item in found)
        # About a third of the messages lives there.
        assert served >= len(found) // 3, [item.reasons for item in found]
        assert cache.state is not None
        assert cache.state.backends["redis"]
        assert asker.in_time()
        dead.start()
        with contextlib.closing(blocking.Redis.from_url(dead.url)) as back:
            await until(lambda: back.cluster("info")["cluster_state"] == "ok")
        await asyncio.sleep(2 * cache.settings.breaker_probe)
        await fill(cache, count)
        await asker.served_by_l1(range(count))


def _without_tokens(
    cache: MultiLevelCache, cluster: list[servers.BreakableRedis]
) -> servers.BreakableRedis:
    """Return a master without a user's token: without it nothing of that user's is confirmed."""
    keys, client = cache._parts.keys, cache.redis_client
    tokens = [keys.user_generation(keys.user(user)) for user in USERS]
    needed = {client.get_node_from_key(name).port for name in tokens}
    return next(server for server in cluster if server.port not in needed)


async def test_a_cluster_whose_master_is_stopped(
    cluster: list[servers.BreakableRedis], tmp_path: Path
) -> None:
    """One that is silent is waited for no longer than the budget; the others go on."""
    count = 24
    async with opened(tmp_path / "cache", redis_url=cluster[0].url) as cache:
        asker = Asker(cache)
        await fill(cache, count)
        await asker.served_by_l1(range(count))
        stopped = _without_tokens(cache, cluster)
        stopped.stop()
        try:
            began = time.monotonic()
            while time.monotonic() - began < 3:
                found = await asker.ask_all(count)
            served = sum(item.tier == "l1" for item in found)
            assert served >= len(found) // 3, [item.reasons for item in found]
            assert cache.state is not None
            assert cache.state.backends["redis"]
            assert asker.in_time()
            for number in range(count):
                await cache.put(question(number), "ann", answer(number, "ann"))
            assert not (await cache.invalidate_tag("t")).complete
        finally:
            stopped.go_on()
        with contextlib.closing(blocking.Redis.from_url(stopped.url)) as back:
            await until(lambda: back.cluster("info")["cluster_state"] == "ok", 30)
        await until(lambda: cache.state is not None and not cache.state.pending_invalidations, 30)
        await asyncio.sleep(2 * cache.settings.breaker_probe)
        assert {item.response for item in await asker.ask_all(count)} == {None}
        # Each put follows a lookup of its own, as an agent's does: without one it is held against
        # the oldest of those that found nothing while the master was away, and refused.
        for number, user in itertools.product(range(count), USERS):
            await asker.ask(number, user)
            await cache.put(
                question(number), user, answer(number, user), shared=bool(number % 2), tags=["t"]
            )
        assert {item.tier for item in await asker.ask_all(count)} == {"l1"}
        await asker.served_by_l1(range(count))


async def test_a_replica_takes_over_in_a_cluster(
    cluster: list[servers.BreakableRedis], tmp_path: Path
) -> None:
    """Entries of a stopped master are served by its replica, and written to it."""
    count = 24
    bus, place = servers.free_port(), tmp_path / "replica"
    place.mkdir()
    replica = servers.BreakableRedis(place, *servers.OF_A_CLUSTER, "--cluster-port", str(bus))
    with replica, contextlib.closing(blocking.Redis.from_url(replica.url)) as client:
        async with opened(tmp_path / "cache", redis_url=cluster[0].url) as cache:
            dead = _without_tokens(cache, cluster)
            with contextlib.closing(blocking.Redis.from_url(dead.url)) as master:
                name = master.execute_command("CLUSTER MYID").decode()
                master.execute_command("CLUSTER", "MEET", "127.0.0.1", replica.port, bus)
            await until(lambda: len(client.cluster("nodes")) == 4, 30)
            await until(lambda: _replicates(client, name), 30)
            asker = Asker(cache)
            await fill(cache, count)
            await asker.served_by_l1(range(count))
            with contextlib.closing(blocking.Redis.from_url(dead.url)) as master:
                assert master.wait(1, 5_000) == 1
            dead.kill()
            await asker.ask_all(count)
            while client.info("replication")["role"] != "master":
                await asker.ask_all(count)
            await _served_again(asker, count)
            assert asker.in_time()
            for number in range(count, 2 * count):
                await cache.put(question(number), "ann", answer(number, "ann"))
            await asker.served_by_l1(range(2 * count))
            assert (await cache.invalidate_tag("t")).complete
            found = [await asker.ask(number) for number in range(count)]
            assert {item.response for item in found} == {None}


async def _served_again(asker: Asker, count: int) -> None:
    """Wait until the cache has learnt who has the slots now."""
    for _ in range(150):
        if {(await asker.ask(number)).tier for number in range(count)} == {"l1"}:
            return
        await asyncio.sleep(0.1)
    raise AssertionError("it does not serve again")


def _replicates(client: blocking.Redis, master: str) -> bool:
    """Make a node a replica, as soon as it knows the master; return whether it follows it."""
    if client.info("replication")["role"] == "master":
        with contextlib.suppress(blocking.ResponseError):
            client.execute_command("CLUSTER", "REPLICATE", master)
    return bool(client.info("replication").get("master_link_status") == "up")
