"""Behaviour of the Redis store alone: a server that dies or refuses, and a Cluster."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis.asyncio as redis
from redis.asyncio.client import PubSub
from redis.asyncio.cluster import RedisCluster

from cache_core import MultiLevelCache
from cache_core.backends.base import RowWrite, Write
from cache_core.backends.redis.client import connect
from cache_core.backends.redis.store import RedisStore
from cache_core.config.settings import Settings
from cache_core.model.exceptions import BackendError, TuningConflict
from cache_core.testing import HashEmbedder
from tests.support import servers
from tests.support.patience import PATIENT


@pytest.mark.server
async def test_a_dead_server_is_an_error_within_the_budget(tmp_path: Path) -> None:
    """After the server is killed reads fail fast, then the breaker opens, then all is well again."""
    port = servers.free_port()
    with servers.redis_server(tmp_path, port=port) as url:
        store = RedisStore(
            connect(servers.any_key(url), timeout=0.2), read_timeout=0.2, write_timeout=0.2
        )
        await store.open()
        await store.write([Write("a", "1", None)])
    for _ in range(5):
        started = time.monotonic()
        with pytest.raises(BackendError):
            await store.read(["a"])
        assert time.monotonic() - started < 5
    with pytest.raises(BackendError) as refused:
        await store.read(["a"])
    assert refused.value.reason == "breaker_open"
    with servers.redis_server(tmp_path, port=port):
        deadline = time.monotonic() + 1
        while store.breaker.state != "closed" and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
            with contextlib.suppress(BackendError):
                await store.tend()
        assert list(await store.read(["a"])) == [None]
    await store.close()


@pytest.mark.server
async def test_a_server_is_known_by_its_run_id_through_an_outage(tmp_path: Path) -> None:
    """The store has the server's run id, keeps it while it is down, and then has the next one."""
    port = servers.free_port()
    url = servers.redis_url(port)

    def run_id() -> str:
        with servers.admin(url) as client:
            return str(client.info("server")["run_id"])

    with servers.redis_server(tmp_path, port=port):
        store = RedisStore(
            connect(servers.any_key(url), timeout=5), read_timeout=5, write_timeout=5
        )
        await store.open()
        first = run_id()
        assert tuple(store.run_ids) == (first,)
    with pytest.raises(BackendError):
        await store.tend()
    assert tuple(store.run_ids) == (first,)
    with servers.redis_server(tmp_path, port=port):
        second = run_id()
        deadline = time.monotonic() + 10
        while tuple(store.run_ids) != (second,) and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
            with contextlib.suppress(BackendError):
                await store.tend()
        assert tuple(store.run_ids) == (second,)
    await store.close()


async def test_a_refused_command_is_no_outage(empty_redis: str) -> None:
    """An error that the server answers fails the call but does not open the breaker."""
    store = RedisStore(
        connect(servers.any_key(empty_redis), timeout=5), read_timeout=5, write_timeout=5
    )
    await store.open()
    for _ in range(10):
        with pytest.raises(BackendError):
            await store._writes.submit([("NO-SUCH-COMMAND",)])
    assert store.breaker.state == "closed"
    await store.close()


# ------------------------------------------------------------------------------------ Cluster


@pytest.fixture(scope="module")
def cluster_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Redis Cluster of three masters."""
    servers.require("redis-cli")
    with contextlib.ExitStack() as stack:
        ports = []
        for number in range(3):
            directory = tmp_path_factory.mktemp(f"cluster{number}")
            port = _cluster_port()
            options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
            stack.enter_context(servers.redis_server(directory, *options, port=port))
            ports.append(port)
        if not _form_cluster(ports):
            reason = "the Redis Cluster did not form within 20 s"
            if os.environ.get("CI"):
                pytest.fail(reason)
            pytest.skip(reason)
        yield servers.redis_url(ports[0])


def _cluster_port() -> int:
    # The cluster bus listens on the port plus 10,000.
    while (port := servers.free_port()) > 55_000:
        pass
    return port


def _form_cluster(ports: list[int]) -> bool:
    nodes = [f"127.0.0.1:{port}" for port in ports]
    command = [str(shutil.which("redis-cli")), "--cluster", "create", *nodes, "--cluster-yes"]
    deadline = time.monotonic() + 20
    try:
        subprocess.run(command, capture_output=True, timeout=20, check=True)
    except subprocess.SubprocessError:
        return False
    while time.monotonic() < deadline:
        states = []
        for port in ports:
            with servers.admin(servers.redis_url(port)) as client:
                states.append(client.execute_command("CLUSTER INFO")["cluster_state"])
        if states == ["ok"] * 3:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.server
async def test_a_cluster_is_read_across_slots(cluster_url: str) -> None:
    """On a Cluster one call reads and writes keys of many slots."""
    store = RedisStore(
        connect(servers.any_key(cluster_url), timeout=5), read_timeout=5, write_timeout=5
    )
    await store.open()
    await store.write([Write(f"k{n}", str(n), 60.0) for n in range(50)])
    assert list(await store.read([f"k{n}" for n in range(51)])) == [*map(str, range(50)), None]
    assert await store.write_new(Write("k1", "new", 60.0)) == "1"
    await store.put_rows([RowWrite(f"h{n}", {"a": str(n)}, 60.0) for n in range(9)])
    assert [await store.rows(f"h{n}") for n in range(9)] == [{"a": str(n)} for n in range(9)]
    await store.append("log", ["a", "b"], keep=9)
    assert [value for _, value in await store.last("log", 9)] == ["a", "b"]
    assert await store.delete([f"k{n}" for n in range(50)]) == 50
    assert await store.take_lease("lease", "one", 60.0) == "one"
    assert await store.take_lease("lease", "two", 60.0) == "one"
    assert [await store.renew_lease("lease", name, 60.0) for name in ("one", "two")] == [
        True,
        False,
    ]
    assert [await store.release_lease("lease", name) for name in ("two", "one")] == [False, True]
    assert list(await store.read(["lease"])) == [None]
    assert abs(store.now() - time.time()) < 1
    await store.close()


@pytest.mark.server
async def test_a_cache_works_on_a_cluster(cluster_url: str, tmp_path: Path) -> None:
    """Put, lookup and invalidate work on a Cluster, concurrently too."""
    settings = Settings(dir=tmp_path, redis_url=cluster_url, **PATIENT)  # type: ignore[arg-type]
    cache = MultiLevelCache(settings=settings, embedding_model=HashEmbedder(), instruments=())
    async with cache:
        await asyncio.gather(
            *(
                cache.put(f"question {n}", "ann", f"answer {n}", "faq", [{"id": n}])
                for n in range(20)
            )
        )
        found = await asyncio.gather(*(cache.lookup(f"question {n}", "ann") for n in range(20)))
        assert [item.response for item in found] == [f"answer {n}" for n in range(20)]
        assert (await cache.invalidate("question 3")).complete
        assert (await cache.lookup("question 3", "ann")).response is None
        assert (await cache.lookup("question 4", "ann")).response == "answer 4"
        assert (await cache.forget_user("ann")).complete
        assert (await cache.lookup("question 4", "ann")).response is None


@pytest.mark.server
async def test_a_client_of_a_cluster_in_two_loops(cluster_url: str, tmp_path: Path) -> None:
    """A second loop has connections of its own to the Cluster of the given client."""
    client = RedisCluster.from_url(cluster_url)
    settings = Settings(dir=tmp_path, tiers=frozenset({"l1"}), **PATIENT)  # type: ignore[arg-type]
    cache = MultiLevelCache(redis_pool=client, settings=settings, instruments=())
    await cache.put("alpha", "ann", "a")
    for _ in range(2):
        found = await asyncio.to_thread(lambda: asyncio.run(cache.get_multilevel("alpha", "ann")))
        assert found == "a"
    assert await cache.get_multilevel("alpha", "ann") == "a"
    await cache.close()
    assert await client.ping()
    await client.aclose()


@pytest.mark.server
async def test_a_change_of_the_tuning_crosses_a_cluster(cluster_url: str, tmp_path: Path) -> None:
    """On a Cluster a version is claimed once, and announced to replicas whatever node they listen to."""
    settings = Settings(dir=tmp_path, redis_url=cluster_url, tiers=frozenset({"l1"}), **PATIENT)  # type: ignore[arg-type]
    async with (
        MultiLevelCache(settings=settings, instruments=()) as one,
        MultiLevelCache(settings=settings, instruments=()) as other,
    ):
        listening = other._parts.store.listen("gc1:news")
        await anext(listening)
        await one._parts.store.publish("gc1:news")
        await asyncio.wait_for(anext(listening), 5)
        await listening.aclose()  # type: ignore[attr-defined]
        results = await asyncio.gather(
            *(cache.tune({"l1_ttl": 60}, author="a", expected_version=0) for cache in (one, other)),
            return_exceptions=True,
        )
        assert sum(isinstance(result, TuningConflict) for result in results) == 1
        for _ in range(500):
            if one.tuning.l1_ttl == other.tuning.l1_ttl == 60:
                break
            await asyncio.sleep(0.01)
        assert one.tuning == other.tuning
        assert one.tuning.version == 1


@pytest.mark.parametrize("url", ["redis://h", "rediss://h", "unix:///s"])
def test_commands_are_packed_as_redis_py_packs_them(url: str) -> None:
    """In C, to the same bytes: numbers, text beyond ASCII, names of several words."""
    ours = connect(url, timeout=1).connection_pool.connection_class()
    theirs = redis.Connection()
    for command in [
        ("GET", "k"),
        ("CLIENT LIST", "ID", 7),
        ("SET", "\u0444\x00", b"\xff\r\n", "PX", 5),
    ]:
        assert b"".join(ours.pack_command(*command)) == b"".join(theirs.pack_command(*command))


async def test_reads_share_one_connection_that_comes_back(empty_redis: str) -> None:
    """However many reads there are; and when the server closes it, the next read opens another."""
    url = servers.any_key(empty_redis)
    store = RedisStore(connect(url, timeout=1), read_timeout=2)
    await store.open()
    with servers.admin(empty_redis) as admin:
        own = len(admin.client_list())
        for _ in range(3):
            await asyncio.gather(*(store.read([f"k{number}"]) for number in range(20)))
        assert len(admin.client_list()) <= own + 1
        await store.write([Write("k", "v", None)])
        admin.client_kill_filter(_type="normal", skipme=True)
        assert list(await store.read(["k"])) == ["v"]
    await store.close()


async def test_writes_share_one_connection_that_comes_back(empty_redis: str) -> None:
    """Writes share a connection, as reads do; the next write replaces one that the server closed."""
    store = RedisStore(connect(servers.any_key(empty_redis), timeout=1), write_timeout=5)
    await store.open()
    with servers.admin(empty_redis) as admin:
        own = len(admin.client_list())
        for _ in range(3):
            await asyncio.gather(*(store.write([Write(f"k{n}", "v", None)]) for n in range(20)))
        assert len(admin.client_list()) <= own + 1
        admin.client_kill_filter(_type="normal", skipme=True)
        await store.write([Write("k", "new", None)])
        assert admin.get("k") == b"new"
    await store.close()


async def test_a_late_reply_reaches_no_other_caller(empty_redis: str) -> None:
    """A read that ran out of time leaves no reply behind that the next one would take."""
    store = RedisStore(connect(servers.any_key(empty_redis), timeout=5), read_timeout=0.1)
    await store.open()
    await store.write([Write("a", "1", None), Write("b", "2", None)])
    assert list(await store.read(["a"])) == ["1"]
    with servers.admin(empty_redis) as admin:
        admin.client_pause(600, all=True)
        with pytest.raises(BackendError):
            await store.read(["a"])
        admin.ping()  # answered after the pause
    found = await until_answered(store, "b")
    assert found == ["2"]
    await store.close()


async def until_answered(store: RedisStore, key: str) -> list[str | None]:
    """Return the value of a key, however long a busy machine takes for it."""
    for _ in range(100):
        with contextlib.suppress(BackendError):
            return list(await store.read([key]))
        await asyncio.sleep(0.05)
    raise AssertionError("no answer in five seconds")


async def test_a_lost_cancellation_ends_a_subscription(
    empty_redis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled once, as by `asyncio.run` at its end, while the client connects."""
    connecting = asyncio.Event()
    subscribe = PubSub.subscribe

    async def losing(self: PubSub, *channels: str) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            connecting.set()
            await asyncio.sleep(30)
        await subscribe(self, *channels)

    monkeypatch.setattr(PubSub, "subscribe", losing)
    store = RedisStore(connect(empty_redis, timeout=5), write_timeout=60)

    async def listen() -> None:
        async with contextlib.aclosing(store.listen("gc1:default:{tuning}")) as news:  # type: ignore[type-var]
            async for _ in news:
                pass

    listening = asyncio.create_task(listen())
    await connecting.wait()
    listening.cancel()
    done, _ = await asyncio.wait({listening}, timeout=4)
    assert done
    assert listening.cancelled()
    await store.close()
