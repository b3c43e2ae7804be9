"""The contract of `VectorIndex`, over vector sets of a real Redis 8 and of a Cluster of three."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis as blocking

from cache_core.backends.base import Limits, Row
from cache_core.backends.redis import vectors as module
from cache_core.backends.redis.client import connect
from cache_core.backends.redis.vectors import RedisVectors
from cache_core.model.exceptions import BackendError
from cache_core.testing.contracts import IndexContract
from cache_core.testing.contracts.vectors import row, unit
from tests.support import servers
from tests.support.waiting import until

pytestmark = pytest.mark.server

Make = Callable[..., Awaitable[RedisVectors]]

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def cluster_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with servers.redis8_cluster(tmp_path_factory.mktemp("cluster")) as url:
        yield url


@pytest.fixture(params=["one server", "cluster"])
def url(request: pytest.FixtureRequest) -> str:
    fixture = "redis8_url" if request.param == "one server" else "cluster_url"
    return str(request.getfixturevalue(fixture))


@pytest.fixture
async def make(url: str) -> AsyncIterator[Make]:
    """Make open indexes of one namespace; all are closed."""
    made: list[RedisVectors] = []
    own = f"test{next(_numbers)}"

    async def open_one(namespace: str = own, model: str = "m", **limits: Any) -> RedisVectors:
        index = RedisVectors(
            connect(url, timeout=10.0),
            name=lambda name: f"gc1:{namespace}:{{{name}}}",
            model=model,
            default_context="default",
            limits=Limits(**{"search_timeout": 20.0, "write_timeout": 30.0, **limits}),
        )
        made.append(index)
        await index.open()
        assert index.connected
        return index

    yield open_one
    for index in made:
        await index.close()


@pytest.fixture
async def index(make: Make) -> RedisVectors:
    return await make()


class TestRedisVectors(IndexContract):
    """The contract, on one server and on a Cluster, as the user that the ACL describes."""


@contextlib.contextmanager
def keys_of(url: str) -> Iterator[Callable[[str], list[tuple[blocking.Redis, bytes]]]]:
    """Yield a function that returns the keys with a name, each with its server."""
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(servers.admin(url))
        clients = [first]
        if first.info("cluster")["cluster_enabled"]:
            ports = {int(line.split("@")[0].rpartition(":")[2]) for line in first.cluster("nodes")}
            clients = [stack.enter_context(contextlib.closing(blocking.Redis(port=port)))
                       for port in ports]  # fmt: skip
        yield lambda pattern: [(one, key) for one in clients for key in one.keys(pattern)]


async def test_every_replica_sees_a_row_immediately(make: Make) -> None:
    """A row of another cache is found without waiting, and no more once anybody removed it."""
    first, second = await make(), await make()
    await first.add("english", row("a", unit(1)))
    assert [near.id for near in await second.search("english", unit(1), 5)] == ["a"]
    assert await second.contexts() == ["english"]
    assert await second.remove("english", ["a", "b"]) == 1
    assert await first.search("english", unit(1), 5) == []
    assert await first.count() == 0


async def test_models_namespaces_and_dimensions_are_kept_apart(make: Make) -> None:
    """Rows of another model, namespace or dimension are never found."""
    one = await make()
    await one.add("default", row("a", unit(1)))
    for other in (await make(model="other"), await make(namespace=f"elsewhere{next(_numbers)}")):
        assert await other.search("default", unit(1), 5) == []
        assert await other.count() == 0
    await one.add("default", row("short", unit(1)[:8]))
    assert [near.id for near in await one.search("default", unit(1), 5)] == ["a"]
    assert [near.id for near in await one.search("default", unit(1)[:8], 5)] == ["short"]
    assert await one.contexts() == ["default"]
    assert await one.remove("default", ["a", "short"]) == 2


async def test_similarities_agree_with_those_of_full_precision(index: RedisVectors) -> None:
    """The order and the figures are those of the vectors themselves, not of 8 bits a value."""
    random = np.random.default_rng(3)
    base = random.standard_normal(384).astype(np.float32)
    vectors = {}
    for number in range(200):
        moved = base + 0.3 * random.standard_normal(384).astype(np.float32)
        vectors[f"r{number}"] = moved / np.float32(np.linalg.norm(moved))
    for name, vector in vectors.items():
        await index.add("default", row(name, vector))
    asked = base / np.float32(np.linalg.norm(base))
    found = await index.search("default", asked, 5)
    exact = sorted(vectors, key=lambda name: -float(vectors[name] @ asked))
    assert [near.id for near in found] == exact[:5]
    for near in found:
        assert near.similarity == pytest.approx(float(vectors[near.id] @ asked), abs=1e-4)


async def test_a_row_without_direction_or_text_is_dropped(index: RedisVectors) -> None:
    """No number, zero, or text without an encoding: dropped and counted, the others are stored."""
    await index.add("default", row("nan", unit(1) * np.float32("nan")))
    await index.add("default", row("zero", unit(1) * np.float32(0)))
    await index.add("default", Row("text", unit(0, 1), "\ud800", 1e12))
    await index.add("default", row("sound", unit(1)))
    assert index.dropped == 3
    assert [near.id for near in await index.search("default", unit(1), 5)] == ["sound"]


async def test_too_many_contexts_are_refused(make: Make) -> None:
    """Beyond the limit a new context is refused, and those that exist go on; emptied ones give way."""
    index = await make(max_contexts=3)
    assert await index.add("one", row("a", unit(1), 50.0))
    assert await index.add("two", row("a", unit(1)))
    assert not await index.add("three", row("a", unit(1)))
    assert not index.accepts("three")
    assert index.accepts("default")
    assert await index.sweep(100.0) == 1
    assert await index.contexts() == ["two"]
    assert await index.add("three", row("c", unit(1)))
    assert await index.search("one", unit(1), 5) == []


async def test_sweeping_drops_what_is_past(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows whose time is over are deleted, of other models too, in turns; the others stay."""
    monkeypatch.setattr(module, "_SWEPT_TOGETHER", 10)
    monkeypatch.setattr(module, "_SWEPT_MOST", 20)
    index, other = await make(), await make(model="other")
    for number in range(65):
        await index.add("default", row(f"old{number}", unit(1, number / 100), 50.0))
    await index.add("default", row("new", unit(1), 150.0))
    await other.add("english", row("old", unit(1), 50.0))
    for _ in range(8):
        await index.tend(100.0)
    assert await index.count() == 1
    assert [near.id for near in await index.search("default", unit(1), 5)] == ["new"]
    await index.sweep(100.0)
    assert await other.contexts() == []


async def test_a_row_put_again_is_swept_by_its_new_time(index: RedisVectors) -> None:
    """A later put of the same message gives its row a later end."""
    await index.add("default", row("a", unit(1), 50.0))
    await index.add("default", row("a", unit(1), 150.0))
    assert await index.sweep(100.0) == 0
    assert await index.sweep(200.0) == 1


async def test_sets_end_with_their_rows(index: RedisVectors, url: str) -> None:
    """Every key of the index has an end: nothing of an abandoned namespace stays for good."""
    now = time.time()
    await index.add("default", row("short", unit(1), now + 7_200))
    await index.add("default", row("long", unit(0, 1), now + 90_000))
    with keys_of(url) as find:
        lives = {key: client.ttl(key) for client, key in find(index._record.replace("{", "*"))
                 + find(index._record.partition("{")[0] + "*")}  # fmt: skip
    assert len(lives) >= 3
    assert all(life > 0 for life in lives.values())
    assert max(life for key, life in lives.items() if b"-" in key) > 86_400


async def test_a_lost_record_makes_its_rows_unreachable(make: Make, url: str) -> None:
    """An invalidation cannot have looked where no record led: such rows are never found again."""
    first, second = await make(), await make()
    await first.add("english", row("old", unit(1)))
    assert await second.search("english", unit(1), 5)
    with keys_of(url) as find:
        for client, key in find(first._record):
            client.delete(key)
    assert await second.search("english", unit(1), 5) == []
    assert await second.contexts() == []
    await first.add("english", row("new", unit(1)))
    for index in (first, second):
        assert [near.id for near in await index.search("english", unit(1), 5)] == ["new"]


@pytest.mark.parametrize("what", ["set", "record", "times"])
async def test_a_key_of_another_type_is_replaced(index: RedisVectors, url: str, what: str) -> None:
    """A foreign value in the place of a set or the record is deleted, and the index works."""
    await index.add("default", row("a", unit(1)))
    place = index._values[next(iter(index._values))].partition(".")[0]
    with keys_of(url) as find:
        head = index._record.partition("{")[0]
        for client, key in find(head + "*"):
            wanted = {"set": f"{place}-", "record": "{vectors}", "times": ":dropped"}[what]
            if wanted.encode() in key and (what != "set" or not key.endswith(b":dropped")):
                client.set(key, "garbage")
    assert await index.search("default", unit(1), 5) == [] or what == "times"
    await index.add("default", row("b", unit(1)))
    assert "b" in [near.id for near in await index.search("default", unit(1), 5)]
    await index.sweep(10.0)
    assert index.breaker.state == "closed"


async def test_a_set_copied_to_another_context_serves_nothing(make: Make, url: str) -> None:
    """Rows know their set: where a store mixes up keys, texts come back as garbage."""
    index = await make()
    await index.add("german", row("a", unit(1)))
    await index.add("english", row("b", unit(1)))
    fields = {field.rpartition(".")[2]: value for field, value in index._values.items()}
    with keys_of(url) as find:
        for shard in range(module.CLUSTER_SHARDS):
            names = [index._name(f"vectors-{fields[context].partition('.')[0]}-{shard}")
                     for context in ("german", "english")]  # fmt: skip
            found = {key.decode(): client for client, key in find("*vectors-*")}
            if names[0] in found:
                taken = found[names[0]].dump(names[0])
                for client in set(found.values()):
                    with contextlib.suppress(blocking.ResponseError):
                        client.restore(names[1], 0, taken, replace=True)
    texts = {near.id: near.text for near in await index.search("english", unit(1), 5)}
    assert texts.get("a", "") == ""


async def test_a_row_of_a_foreign_attribute_is_garbage(index: RedisVectors, url: str) -> None:
    """Attributes that were changed, exchanged or removed have no text; nothing raises."""
    for number, name in enumerate("abcd"):
        await index.add("default", row(name, unit(1, number / 10)))
    with keys_of(url) as find:
        for client, key in find(index._record.partition("{")[0] + "*vectors-*"):
            if key.endswith(b":dropped"):
                continue
            have = [name for name in "abcd" if client.execute_command("VGETATTR", key, name)]
            for name in have:
                old = client.execute_command("VGETATTR", key, name)
                for value in {"a": [b"\x00"], "b": [old[:-1] + b"x"], "c": [b""], "d": []}[name]:
                    client.execute_command("VSETATTR", key, name, value)
    texts = {near.id: near.text for near in await index.search("default", unit(1), 5)}
    assert texts == {"a": "", "b": "", "c": "", "d": "envelope of d"}


@pytest.mark.parametrize("how", ["stopped", "killed"])
async def test_a_redis_that_is_unavailable(tmp_path: Path, how: str) -> None:
    """Searches and puts raise within their time, the breaker opens, and all is back afterwards."""
    with servers.BreakableRedis(tmp_path, program=servers.redis8()) as server:
        index = RedisVectors(
            connect(server.url, timeout=0.5),
            name=lambda name: f"gc1:n:{{{name}}}",
            model="m",
            default_context="default",
            limits=Limits(search_timeout=0.3, write_timeout=0.5),
        )
        await index.open()
        await until(lambda: index.connected)
        await index.add("default", row("a", unit(1)))
        server.stop() if how == "stopped" else server.kill()
        began = time.monotonic()
        for _ in range(5):
            with pytest.raises(BackendError):
                await index.search("default", unit(1), 5)
        with pytest.raises(BackendError):
            await index.add("default", row("b", unit(1)))
        assert time.monotonic() - began < 20
        assert index.breaker.state != "closed"
        server.go_on() if how == "stopped" else server.start()

        async def works() -> bool:
            with contextlib.suppress(BackendError):
                await index.tend(time.time())
                await index.add("default", row("c", unit(1)))
                return "c" in [near.id for near in await index.search("default", unit(1), 5)]
            return False

        await until(works)
        await index.close()


async def test_a_cancelled_search_harms_no_other(index: RedisVectors) -> None:
    """Cancelled at any moment, it leaves its reply to no other caller."""
    for number in range(4):
        await index.add("default", row(f"r{number}", unit(*[0] * number, 1)))
    for turn in range(30):
        tasks = [
            asyncio.ensure_future(index.search("default", unit(*[0] * (n % 4), 1), 1))
            for n in range(8)
        ]
        await asyncio.sleep(turn / 10_000)
        tasks[turn % 8].cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        for number, near in enumerate(found):
            if not isinstance(near, BaseException):
                assert [one.id for one in near] == [f"r{number % 4}"]
