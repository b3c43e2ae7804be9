"""A Redis that hangs, dies, refuses, is full, slow or replaced: what the agent sees of it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as blocking
import redis.asyncio as redis

from cache_core import MultiLevelCache
from cache_core.model.exceptions import BackendError
from cache_core.testing import ChaosProxy
from tests.support import servers
from tests.support.caches import opened
from tests.support.faults import GRACE, Asker, Lines, answer, fill, question
from tests.support.patience import PATIENT
from tests.support.waiting import until

pytestmark = pytest.mark.server

ENTRIES = 4
FAILURES = 5
CONNECTIONS = 8


@pytest.fixture(scope="module", params=["without vectors", "with vectors"])
def shared_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[servers.BreakableRedis]:
    program = servers.redis8() if request.param == "with vectors" else None
    with servers.BreakableRedis(tmp_path_factory.mktemp("redis"), program=program) as server:
        yield server


@pytest.fixture
def server(shared_server: servers.BreakableRedis) -> servers.BreakableRedis:
    with admin(shared_server) as client:
        client.flushall()
    return shared_server


@contextlib.contextmanager
def admin(server: servers.BreakableRedis, **more: Any) -> Iterator[blocking.Redis]:
    with contextlib.closing(blocking.Redis.from_url(server.url, **more)) as client:
        yield client


class World:
    """A cache that reaches its Redis through a proxy, and what can be done to both."""

    def __init__(self, cache: MultiLevelCache, server: servers.BreakableRedis, proxy: ChaosProxy):
        self.cache, self.server, self.proxy = cache, server, proxy
        # Opened before anything breaks: a server that takes no more clients still has this one.
        self.admin = blocking.Redis.from_url(server.url, single_connection_client=True)
        state = cache.state
        assert state is not None
        self.vectors = "vectors" in state.backends
        """True if this Redis has the index, too."""

    async def cut(self, mode: Any) -> None:
        await self.proxy.switch(mode)

    async def reconnect(self) -> None:
        await self.proxy.switch("pass")
        await self.proxy.cut()

    def kick(self) -> None:
        """Close every connection but the admin's."""
        self.admin.client_kill_filter(_type="normal", skipme=True)

    @property
    def breaker(self) -> str:
        state = self.cache.state
        assert state is not None
        return state.breakers["redis"]


Act = Callable[[World], Awaitable[None]]


def proxied(mode: str) -> tuple[Act, Act]:
    return (lambda world: world.cut(mode)), World.reconnect


def at_server(broken: Callable[[World], None], healed: Callable[[World], None]) -> tuple[Act, Act]:
    async def break_it(world: World) -> None:
        broken(world)

    async def heal(world: World) -> None:
        healed(world)

    return break_it, heal


def password(world: World) -> None:
    world.admin.config_set("requirepass", "secret")
    world.kick()


def crowd(world: World) -> None:
    world.admin.config_set("maxclients", 1)
    world.kick()


async def slow(world: World) -> None:
    world.proxy.latency, world.proxy.jitter = 0.6, 0.1


async def fast(world: World) -> None:
    world.proxy.latency = world.proxy.jitter = 0.0


OUTAGES: dict[str, tuple[Act, Act]] = {
    "stopped": at_server(lambda world: world.server.stop(), lambda world: world.server.go_on()),
    "killed": at_server(lambda world: world.server.kill(), lambda world: world.server.start()),
    "wrong password": at_server(
        password, lambda world: bool(world.admin.config_set("requirepass", ""))
    ),
    "too many clients": at_server(
        crowd, lambda world: bool(world.admin.config_set("maxclients", 10_000))
    ),
    "slow": (slow, fast),
    **{
        mode: proxied(mode)
        for mode in ("black_hole", "refuse", "reset", "truncate", "dribble", "garbage")
    },
}


REMEDIES = {
    "wrong password": "password",
    "too many clients": "maxclients",
    "refuse": "Check that Redis runs",
    "stopped": "Redis is stopped or slow",
    "full": "raise maxmemory",
    "a read-only replica": "is a replica",
    "writes denied by ACL": "compare its ACL",
}
"""Remedy in the log."""


@pytest.fixture
async def world(server: servers.BreakableRedis, tmp_path: Path) -> AsyncIterator[World]:
    async with ChaosProxy("127.0.0.1", server.port) as proxy:
        proxy.dribble_seconds = 0.2
        async with opened(tmp_path, redis_url=proxy.url(server.url)) as cache:
            made = World(cache, server, proxy)
            await fill(cache, ENTRIES)
            yield made
            made.admin.close()


@pytest.mark.parametrize("kind", OUTAGES)
async def test_an_outage(kind: str, world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Errors within the budget, then nearly nothing, then as before; nothing is lost but puts."""
    break_it, heal = OUTAGES[kind]
    cache, asker, lines = world.cache, Asker(world.cache), Lines(caplog)
    await asker.served_by_l1([0, 1, 2, 3])
    await break_it(world)
    try:
        # Before the breaker opens: within the budget, and only so many failures.
        began, asked = time.monotonic(), 0
        while world.breaker != "open":
            await asker.ask(asked % ENTRIES)
            asked += 1
            assert asked <= 4 * FAILURES
            await asyncio.sleep(0)
        assert asker.in_time()
        assert time.monotonic() - began < GRACE * FAILURES * cache.settings.lookup_budget
        # Open: cheap, because hardly anybody asks.
        breaker = cache._parts.store.breaker
        faults, requests, since = breaker.faults, world.proxy.requests, time.monotonic()
        found = [item for _ in range(10) for item in await asker.ask_all(ENTRIES)]
        probes = 3 + 2 * (time.monotonic() - since) / cache.settings.breaker_probe
        assert breaker.faults - faults <= probes
        assert world.proxy.requests - requests <= (8 if world.vectors else 4) * probes
        assert sum("breaker_open" in item.reasons for item in found) >= len(found) - 3 * probes
        # Shared answers are still served, from an index elsewhere.
        served = [item for item in found if item.response]
        assert bool(served) is not world.vectors
        assert all(item.tier == "l2" and "unconfirmed" in item.reasons for item in served)
        assert asker.in_time()
        # What writes: a put is dropped, an invalidation waits, feedback and tuning are refused.
        began = time.monotonic()
        await cache.put(question(9), "ann", answer(9, "ann"))
        assert cache.metrics.snapshot()["puts"]["l1"]["dropped"] >= 1
        assert (await cache.get_or_compute(question(8), "ann", _computed)) == "computed"
        done = await cache.invalidate(question(1))
        assert not done.complete
        assert "redis" in done.pending
        assert cache.state is not None
        assert cache.state.pending_invalidations == 1
        assert not cache.state.backends["redis"]
        assert not await cache.feedback(found[0].lookup_id, correct=True)
        with pytest.raises(BackendError):
            await cache.tune({"semantic_threshold": 0.9}, author="me")
        with pytest.raises(BackendError):
            await cache.warm_cache([(question(7), None, "warm")])
        assert time.monotonic() - began < GRACE * 4 * cache.settings.put_budget
        assert (await asker.ask(1)).response is None
    finally:
        await heal(world)
    await until(lambda: world.breaker == "closed")
    await until(lambda: cache.state is not None and cache.state.pending_invalidations == 0)
    assert (await asker.ask(1, "bob")).response is None
    if kind == "killed":
        # It came back empty.
        await fill(cache, ENTRIES)
    await cache.put(question(9), "ann", answer(9, "ann"))
    await asker.served_by_l1([0, 2, 3, 9])
    assert lines.are_few()
    assert REMEDIES.get(kind, "") in lines.text()
    assert "secret" not in lines.text()
    assert question(0) not in lines.text()
    assert world.proxy.connections <= (2 if world.vectors else 1) * CONNECTIONS


async def _computed() -> str:
    return "computed"


# ------------------------------------------------------------------------- refused writes


def acl(world: World, *rules: str) -> None:
    world.admin.execute_command("ACL", "SETUSER", "default", *rules)


def fill_up(world: World) -> None:
    world.admin.config_set("maxmemory-policy", "noeviction")
    world.admin.config_set("maxmemory", 1)


def replica(world: World) -> None:
    # Of nobody: it serves what it has, and takes no writes.
    world.admin.execute_command("REPLICAOF", "127.0.0.1", "1")


REFUSALS: dict[str, tuple[Act, Act]] = {
    "full": at_server(fill_up, lambda world: bool(world.admin.config_set("maxmemory", 0))),
    "a read-only replica": at_server(
        replica, lambda world: bool(world.admin.execute_command("REPLICAOF", "NO", "ONE"))
    ),
    "writes denied by ACL": at_server(
        lambda world: acl(world, "-set", "-hset"), lambda world: acl(world, "+@all")
    ),
}


@pytest.mark.parametrize("kind", REFUSALS)
async def test_refused_writes(kind: str, world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Every read is served, the breaker stays closed, puts are dropped, invalidations wait."""
    break_it, heal = REFUSALS[kind]
    cache, asker, lines = world.cache, Asker(world.cache), Lines(caplog)
    await asker.served_by_l1([0, 1, 2, 3])
    await cache.put(question(8), "ann", answer(8, "ann"), tags=["list"])
    await break_it(world)
    try:
        for _ in range(2 * FAILURES):
            await cache.put(question(9), "ann", answer(9, "ann"))
        assert cache.metrics.snapshot()["puts"]["l1"]["dropped"] == 2 * FAILURES
        assert (await asker.ask(9)).response is None
        assert not (await cache.invalidate(question(1))).complete
        assert not (await cache.invalidate_tag("list")).complete
        for _ in range(5):
            assert (await asker.ask(1)).response is None
            assert (await asker.ask(8)).response is None
        await asker.served_by_l1([0, 2, 3])
        assert world.breaker == "closed"
        assert asker.in_time()
    finally:
        await heal(world)
    await until(lambda: cache.state is not None and cache.state.pending_invalidations == 0)
    assert (await asker.ask(1, "bob")).response is None
    assert (await asker.ask(8)).response is None
    await cache.put(question(9), "ann", answer(9, "ann"))
    await asker.served_by_l1([0, 2, 3, 9])
    assert lines.are_few()
    assert REMEDIES[kind] in lines.text()


async def test_a_cache_opens_on_a_full_server(world: World, tmp_path: Path) -> None:
    """A cache that starts while Redis takes no writes serves the answers that are there."""
    fill_up(world)
    try:
        async with opened(tmp_path, redis_url=world.server.url, **PATIENT) as cache:
            assert (await cache.lookup(question(0), "ann")).response == answer(0, "ann")
    finally:
        world.admin.config_set("maxmemory", 0)


async def test_reads_denied_by_acl(world: World) -> None:
    """A forbidden read is immediately an error of its tier, and a hit again once permitted."""
    asker = Asker(world.cache)
    await asker.served_by_l1([0, 2])
    acl(world, "-mget")
    try:
        found = [await asker.ask(0) for _ in range(3 * FAILURES)]
        assert {item.tier for item in found} == {None}
        assert {item.outcome for item in found} == {"error"}
    finally:
        acl(world, "+@all")
    await asker.served_by_l1([0, 2])


async def test_a_server_that_cannot_save(tmp_path: Path) -> None:
    """MISCONF refuses writes: reads are served, puts are dropped."""
    place = tmp_path / "gone"
    place.mkdir()
    with servers.BreakableRedis(place, "--save", "3600 1") as server, admin(server) as client:
        async with opened(tmp_path / "cache", redis_url=server.url) as cache:
            asker = Asker(cache)
            await fill(cache, 2)
            await asker.served_by_l1([0, 1])
            # Where it runs is gone: it cannot write a snapshot.
            place.rmdir()
            client.bgsave()
            await until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")
            await cache.put(question(5), "ann", answer(5, "ann"))
            assert cache.metrics.snapshot()["puts"]["l1"]["dropped"] == 1
            await asker.served_by_l1([0, 1])


async def test_a_server_that_is_loading(tmp_path: Path) -> None:
    """While a restarted server loads its data, lookups are errors; then it serves what it had."""
    slowly = ("--key-load-delay", "2000", "--loading-process-events-interval-bytes", "1024")
    with servers.BreakableRedis(tmp_path, *slowly) as server:
        async with opened(tmp_path / "cache", redis_url=server.url) as cache:
            asker = Asker(cache)
            await fill(cache, 4)
            with admin(server) as client:
                client.mset({f"padding{number}": "x" * 100 for number in range(30_000)})
                client.save()
            server.kill()
            server.start()
            with admin(server) as client:
                found = await asker.ask_all(4)
                assert client.info("persistence")["loading"] == 1
                assert {item.tier for item in found} <= {None, "l2"}
                assert asker.in_time()
                client.config_set("key-load-delay", 0)
            await until(lambda: cache.state is not None and cache.state.backends["redis"])
            await asker.served_by_l1([0, 1, 2, 3])


async def test_closed_idle_connections_are_not_noticed(world: World) -> None:
    """Connections that the server closed cost no lookup and no put."""
    asker = Asker(world.cache)
    await asker.served_by_l1([0, 1, 2, 3])
    for number in range(10):
        world.kick()
        await world.cache.put(question(number), "ann", answer(number, "ann"), shared=number % 2 > 0)
        world.kick()
        found = await asker.ask(number)
        # A busy machine may be late; a connection that was closed must not be an error.
        assert "backend_error" not in found.reasons
    assert world.breaker == "closed"


# ------------------------------------------------------------------------- an application's pool


class Rotating(blocking.CredentialProvider):
    """Credentials that change while the application runs."""

    def __init__(self) -> None:
        self.password = "first"

    def get_credentials(self) -> tuple[str, str]:
        return "agent", self.password


async def test_a_rotated_password(server: servers.BreakableRedis, tmp_path: Path) -> None:
    """With a credential provider the cache goes on after a rotation, without a restart."""
    provider = Rotating()
    with admin(server) as client:
        client.execute_command("ACL", "SETUSER", "agent", "on", ">first", "~*", "&*", "+@all")
        pool = redis.ConnectionPool(
            host="127.0.0.1", port=server.port, credential_provider=provider, protocol=2
        )
        async with opened(tmp_path, redis_pool=pool) as cache:
            asker = Asker(cache)
            await fill(cache, 2)
            await asker.served_by_l1([0, 1])
            client.execute_command("ACL", "SETUSER", "agent", "resetpass", ">second")
            client.client_kill_filter(_type="normal", skipme=True)
            await until(lambda: cache.state is not None and not cache.state.backends["redis"])
            assert (await asker.ask(0)).tier is None
            provider.password = "second"
            await until(lambda: cache.state is not None and cache.state.backends["redis"])
            await asker.served_by_l1([0, 1])
        await pool.aclose()


@pytest.mark.parametrize("kind", ["stopped", "killed"])
async def test_a_pool_with_the_defaults_of_redis_py(
    kind: str, server: servers.BreakableRedis, tmp_path: Path
) -> None:
    """A pool that would wait for a minute costs a lookup its budget, and no more."""
    pool = redis.ConnectionPool.from_url(server.url, decode_responses=True)
    async with opened(tmp_path, redis_pool=pool) as cache:
        asker = Asker(cache)
        await fill(cache, 2)
        await asker.served_by_l1([0, 1])
        if kind == "stopped":
            server.stop()
        else:
            server.kill()
        try:
            began = time.monotonic()
            found = [await asker.ask(0) for _ in range(3 * FAILURES)]
            assert {item.outcome for item in found} == {"error"}
            assert asker.in_time()
            assert time.monotonic() - began < GRACE * 6 * cache.settings.lookup_budget
        finally:
            if kind == "stopped":
                server.go_on()
            else:
                server.start()
        await until(lambda: cache.state is not None and cache.state.backends["redis"])

        async def served() -> bool:
            # A put over a connection that the dead server had is dropped.
            if kind == "killed":
                await fill(cache, 2)
            return {(await asker.ask(number)).tier for number in range(2)} == {"l1"}

        await until(served)
    await pool.aclose()


async def test_closing_a_cache_whose_redis_hangs(
    server: servers.BreakableRedis, tmp_path: Path
) -> None:
    """With lookups and puts in flight, close comes back, and so do they."""
    async with opened(tmp_path, redis_url=server.url) as cache:
        await fill(cache, 2)
        server.stop()
        try:
            lookups = [asyncio.ensure_future(Asker(cache).ask(n % 4)) for n in range(100)]
            puts = [
                asyncio.ensure_future(cache.put(question(n), "ann", answer(n, "ann")))
                for n in range(100)
            ]
            await asyncio.sleep(0.01)
            began = time.monotonic()
            await cache.close()
            done = await asyncio.gather(*lookups, *puts, return_exceptions=True)
            assert not [item for item in done if isinstance(item, BaseException)]
            assert time.monotonic() - began < 15
        finally:
            server.go_on()
