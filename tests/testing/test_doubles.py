"""The doubles do what they say, and the examples of docs/testing.md run."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis.asyncio as redis
from redis.exceptions import ConnectionError as RedisConnectionError

from cache_core import MultiLevelCache, Settings
from cache_core.backends.base import KeyValueStore, Write
from cache_core.backends.sqlite.store import EmbeddedStore
from cache_core.model.exceptions import BackendError
from cache_core.testing import ChaosProxy, ChaosStore, ChaosVectors, Fault, Faults, HashEmbedder
from tests.support import processes
from tests.support.paths import ROOT

DOCUMENT = ROOT / "docs" / "testing.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[KeyValueStore]:
    inner = EmbeddedStore(tmp_path, breaker_failures=3)
    await inner.open()
    yield inner
    await inner.close()


async def test_a_throw_does_nothing_and_counts(store: KeyValueStore) -> None:
    """A call that raises was not made; the breaker opens after the failures and then stops calls."""
    faults = Faults()
    chaos = ChaosStore(store, faults)
    faults.always("throw")
    for _ in range(5):
        with pytest.raises(BackendError):
            await chaos.write([Write("a", "1", None)])
    assert faults.injected == {"throw": 3}
    assert store.breaker.state == "open"
    faults.never()
    await asyncio.sleep(0.3)
    assert list(await chaos.read(["a"])) == [None]
    assert store.breaker.state == "closed"


async def test_a_hang_ends_with_the_time_limit(store: KeyValueStore) -> None:
    """A hanging call fails as a timeout, and so does one later than the limit."""
    faults = Faults()
    chaos = ChaosStore(store, faults, read_timeout=0.01, write_timeout=0.02)
    with faults.during("hang"), pytest.raises(BackendError) as caught:
        await chaos.read(["a"])
    assert caught.value.reason == "timeout"
    faults.delay = (1.0, 2.0)
    with pytest.raises(BackendError) as caught:
        await chaos.write([Write("a", "1", None)])
    assert caught.value.reason == "timeout"


async def test_a_lost_reply_was_done(store: KeyValueStore) -> None:
    """A write whose reply is lost fails and is there; a read has no reply to lose."""
    faults = Faults()
    chaos = ChaosStore(store, faults)
    with faults.during("lose_reply"):
        with pytest.raises(BackendError):
            await chaos.write([Write("a", "1", None)])
        assert list(await chaos.read(["a"])) == ["1"]


async def test_only_some_methods(store: KeyValueStore) -> None:
    """A fault may be confined to methods; the others are as ever."""
    faults = Faults()
    chaos = ChaosStore(store, faults)
    faults.always("throw", only=frozenset({"append"}))
    await chaos.write([Write("a", "1", None)])
    with pytest.raises(BackendError):
        await chaos.append("log", ["x"], keep=5)
    assert faults.calls == {"write": 1, "append": 1}


async def test_a_seed_repeats(store: KeyValueStore) -> None:
    """The same seed and calls give the same faults; corrupt values are never the written ones."""
    await store.write([Write(f"k{n}", f"value {n}", None) for n in range(20)])
    runs = []
    for _ in range(2):
        chaos = ChaosStore(store, Faults(corrupt=0.5, seed=3))
        runs.append([list(await chaos.read([f"k{n}"])) for n in range(20)])
    assert runs[0] == runs[1]
    corrupt = sum(found != [f"value {n}"] for n, found in enumerate(runs[0]))
    assert 3 < corrupt < 17


@pytest.mark.parametrize("fault", ["throw", "hang", "corrupt", "lose_reply"])
async def test_an_agent_among_faults(fault: Fault, tmp_path: Path) -> None:
    """With half of all calls failing, every answer is right or none, and every lookup is counted."""
    store_faults, index_faults = Faults(seed=1), Faults(seed=2)
    cache = MultiLevelCache(
        settings=Settings(dir=tmp_path, put_budget=0.1),
        embedding_model=HashEmbedder(),
        sharing="all",
        instruments=(),
        wrap_store=lambda store: ChaosStore(store, store_faults, read_timeout=0.01),
        wrap_index=lambda index: ChaosVectors(index, index_faults, search_timeout=0.01),
    )
    async with cache:
        for faults in (store_faults, index_faults):
            setattr(faults, fault, 0.5)
        for number in range(60):
            message = f"what is the weight of crate {number % 7}"
            found = await cache.get_multilevel(message, "ann")
            assert found in {None, f"answer to {message}"}
            await cache.put(message, "ann", f"answer to {message}")
        assert store_faults.injected[fault] > 0
        assert cache.get_metrics()["operations"] == 60
        store_faults.never()
        index_faults.never()


# ------------------------------------------------------------------------------------ proxy


@pytest.fixture
async def proxy(redis_url: str) -> AsyncIterator[ChaosProxy]:
    port = int(redis_url.rpartition(":")[2].partition("/")[0])
    async with ChaosProxy("127.0.0.1", port) as made:
        yield made


@pytest.fixture
async def client(proxy: ChaosProxy) -> AsyncIterator[redis.Redis]:
    made = redis.Redis.from_url(
        proxy.url("redis://127.0.0.1:1/0"), socket_timeout=0.2, retry=None, protocol=2,
        single_connection_client=False,
    )  # fmt: skip
    yield made
    await made.aclose()


async def test_a_calm_proxy_passes_everything(proxy: ChaosProxy, client: redis.Redis) -> None:
    """Values of a megabyte pass both ways; connections and requests are counted."""
    await client.set("big", "x" * 1_000_000)
    assert await client.get("big") == b"x" * 1_000_000
    assert proxy.accepted == proxy.connections == 1
    assert proxy.requests >= 2


async def test_latency_is_added(proxy: ChaosProxy, client: redis.Redis) -> None:
    """Replies are late by the latency, from the next one on."""
    await client.ping()
    proxy.latency = 0.05
    started = asyncio.get_running_loop().time()
    await client.ping()
    assert asyncio.get_running_loop().time() - started >= 0.05


@pytest.mark.parametrize("mode", ["black_hole", "refuse", "reset", "truncate", "garbage"])
async def test_a_mode_breaks_and_heals(mode: str, proxy: ChaosProxy, client: redis.Redis) -> None:
    """Each mode fails the next command, and is over when the proxy is switched back."""
    await client.set("key", "value")
    await proxy.switch(mode)  # type: ignore[arg-type]
    with pytest.raises(Exception) as caught:
        await client.get("key")
    assert not isinstance(caught.value, AssertionError)
    await proxy.switch("pass")
    await proxy.cut()
    await client.connection_pool.disconnect()
    assert await client.get("key") == b"value"


async def test_dribbled_replies_are_whole(proxy: ChaosProxy, client: redis.Redis) -> None:
    """A reply that arrives byte by byte is the same reply, later."""
    await client.set("key", "value")
    proxy.dribble_seconds = 0.002
    await proxy.switch("dribble")
    assert await client.get("key") == b"value"


async def test_a_lost_reply_leaves_the_write(proxy: ChaosProxy, client: redis.Redis) -> None:
    """With `lose_reply` the server did what the client believes to have failed."""
    await client.set("key", "old")
    await proxy.switch("lose_reply")
    with pytest.raises(RedisConnectionError):
        await client.set("key", "new")
    await proxy.switch("pass")
    assert await client.get("key") == b"new"


async def test_a_closed_proxy_leaves_nothing(redis_url: str) -> None:
    """After `close` there is no connection and no listener."""
    port = int(redis_url.rpartition(":")[2].partition("/")[0])
    async with ChaosProxy("127.0.0.1", port) as proxy:
        _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        await asyncio.sleep(0.05)
        assert proxy.connections == 1
    writer.close()
    assert proxy.connections == 0
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", proxy.port)


# ------------------------------------------------------------------------------------ examples


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_examples_run(number: int, tmp_path: Path, redis_url: str) -> None:
    """Every Python example of docs/testing.md passes under pytest, as it is written."""
    (tmp_path / "test_example.py").write_text(EXAMPLES[number], encoding="utf-8")
    program = (
        "import sys, pytest\n"
        "sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', '-o', 'asyncio_mode=auto', '-o', 'asyncio_default_fixture_loop_scope=function', "
        "'test_example.py']))\n"
    )
    hurried = {f"CACHE_{name}_BUDGET": "1" for name in ("EXACT", "SEARCH", "LOOKUP", "PUT")}
    shown = processes.run(program, tmp_path, TEST_REDIS_URL=redis_url, **hurried)
    assert re.search(r"\d passed", shown), shown


@pytest.mark.slow
def test_the_doubles_work_without_the_extra() -> None:
    """`cache_core.testing` imports without numpy and pytest, its instrument and its clock, too."""
    program = (
        "import sys; sys.modules['numpy'] = sys.modules['pytest'] = None\n"
        "from cache_core.testing import HashEmbedder, ManualClock, RecordingInstrument\n"
        "RecordingInstrument(); ManualClock(); HashEmbedder()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
