"""Redis behind Sentinel, and a Redis Cluster: a master dies."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as blocking
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool

from tests import servers
from tests.faulty import USERS, Asker, answer, fill, opened, question, until


class BreakableSentinel(servers.Breakable):
    """A sentinel that watches one master alone, and is quick to give it up."""

    def __init__(self, directory: Path, master: int) -> None:
        port = servers.free_port()
        file = directory / "sentinel.conf"
        file.write_text(
            f"port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {master} 1\n"
            "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 2000\n",
            encoding="ascii",
        )
        super().__init__([servers.require("redis-server"), str(file), "--sentinel"], port)


async def test_a_failover_by_sentinel(tmp_path: Path) -> None:
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
        async with opened(tmp_path / "cache", redis_pool=pool) as cache:
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
            await cache.put(question(5), "ann", answer(5, "ann"))
            await asker.served_by_l1([0, 5])
            with contextlib.closing(blocking.Redis.from_url(replica.url)) as client:
                assert client.info("replication")["role"] == "master"
        await pool.aclose()
        for known in sentinel.sentinels:
            await known.aclose()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[list[servers.BreakableRedis]]:
    """Three masters with a third of the slots each; without one the others go on."""
    options = (
        "--cluster-enabled", "yes", "--cluster-node-timeout", "1000",
        "--cluster-require-full-coverage", "no",
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        made = []
        buses = [servers.free_port() for _ in range(3)]
        for number in range(3):
            place = tmp_path / f"node{number}"
            place.mkdir()
            bus = ("--cluster-port", str(buses[number]))
            made.append(stack.enter_context(servers.BreakableRedis(place, *options, *bus)))
        clients = [
            stack.enter_context(contextlib.closing(blocking.Redis.from_url(server.url)))
            for server in made
        ]
        for number, client in enumerate(clients):
            first, last = 16_384 * number // 3, 16_384 * (number + 1) // 3 - 1
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
            if number:
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", made[0].port, buses[0])
        deadline = time.monotonic() + 20
        while not all(
            client.cluster("info")["cluster_state"] == "ok" and len(client.cluster("nodes")) == 3
            for client in clients
        ):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield made


async def test_a_cluster_loses_a_master(
    cluster: list[servers.BreakableRedis], tmp_path: Path
) -> None:
    """What lives elsewhere is served as before, and all of it when the master is back."""
    count = 24
    async with opened(tmp_path / "cache", redis_url=cluster[0].url) as cache:
        asker = Asker(cache)
        await fill(cache, count)
        await asker.served_by_l1(range(count))
        # Not the one with a user's token: without it nothing of that user's can be confirmed.
        keys, client = cache.parts.keys, cache.redis_client
        tokens = [keys.user_generation(keys.user(user)) for user in USERS]
        needed = {client.get_node_from_key(name).port for name in tokens}
        dead = next(server for server in cluster if server.port not in needed)
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
