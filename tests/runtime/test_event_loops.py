"""One cache in many event loops: a loop per request, loops in threads, loops that end."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as redis
from redis.asyncio.sentinel import Sentinel

from cache_core import MultiLevelCache, Settings, close_cache, get_cache
from cache_core.backends.chroma import directory
from cache_core.backends.redis.client import pool_like
from cache_core.runtime import lifecycle
from cache_core.testing import ChaosStore, Faults, HashEmbedder
from tests.support import processes
from tests.support.patience import PATIENT

# A loop that ends without close leaves its connections to the garbage collector, which says so.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

KEYED = {**PATIENT, "tiers": "l1"}
REQUEST: ContextVar[str] = ContextVar("request", default="")

Make = Callable[..., MultiLevelCache]


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """Collect what the ended loops of a test left before the next one begins."""
    yield
    gc.collect()


@pytest.fixture
def make(store_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Make caches on both stores in turn, for no loop in particular; they are closed."""
    url = request.getfixturevalue("empty_redis") if store_kind == "redis" else None
    made: list[MultiLevelCache] = []

    def new(**settings: Any) -> MultiLevelCache:
        fixed = Settings(**{"dir": tmp_path / "cache", "redis_url": url, **KEYED, **settings})
        cache = MultiLevelCache(settings=fixed, embedding_model=HashEmbedder(), instruments=())
        made.append(cache)
        return cache

    yield new
    for cache in made:
        asyncio.run(cache.close())


@pytest.fixture
def cache(make: Make) -> MultiLevelCache:
    return make()


def in_threads(count: int, work: Callable[[int], Awaitable[Any]]) -> list[Any]:
    """Run *work* in as many threads, each with a loop of its own, concurrently."""
    together = threading.Barrier(count)

    def run(number: int) -> Any:
        together.wait(30)
        return asyncio.run(work(number))  # type: ignore[arg-type]

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def held() -> tuple[int, int]:
    """Return how many files and threads this process has.

    An index counts once for each cache that uses it: the connections in Chroma's own pool are as
    many as calls happened to coincide.
    """
    gc.collect()
    links = [found.readlink() for found in Path("/proc/self/fd").iterdir() if found.is_symlink()]
    files = [found for found in links if found.name != "chroma.sqlite3"]
    indexes = sum(slot._users for slot in directory._held.values())
    return len(files) + indexes, threading.active_count()


# ------------------------------------------------------------------------- loops that come and go


@pytest.mark.slow
@pytest.mark.parametrize("tiers", ["l1", "l1,l2,l3,l4"])
def test_a_loop_for_every_request(make: Make, tiers: str) -> None:
    """After the first two loops no file and no thread more is held, and every answer is there."""
    cache = make(tiers=tiers)

    async def view(number: int) -> str:
        found = await cache.lookup(f"question {number % 5}", "ann")
        if found.response is None:
            await cache.put(f"question {number % 5}", "ann", f"answer {number % 5}")
        return found.outcome

    outcomes = [asyncio.run(view(number)) for number in range(10)]
    before = held()
    outcomes += [asyncio.run(view(number)) for number in range(10, 60)]
    files, threads = held()
    assert files <= before[0] + 2
    assert threads <= before[1] + 1
    assert outcomes == ["miss"] * 5 + ["hit"] * 55
    assert cache.get_metrics()["outcomes"]["hit"] == 55


@pytest.mark.slow
def test_get_cache_in_a_loop_for_every_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """`get_cache` returns one cache to all loops; it counts all, and the last close closes it."""
    monkeypatch.setenv("CACHE_TIERS", "l1")

    async def view(number: int) -> MultiLevelCache:
        cache = await get_cache()
        assert await cache.get_or_compute(f"question {number % 5}", "ann", lambda: "a") == "a"
        return cache

    caches = {id(asyncio.run(view(number))) for number in range(10)}
    before = held()
    for number in range(50):
        caches.add(id(cache := asyncio.run(view(number))))
    assert (len(caches), cache.metrics.lookups) == (1, 60)
    files, threads = held()
    assert (files <= before[0] + 2, threads <= before[1] + 1) == (True, True)
    assert cache.is_open
    asyncio.run(close_cache())
    assert not cache.is_open


@pytest.mark.slow
def test_close_cache_in_one_thread_leaves_the_others_theirs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each thread closes the shared cache when it is done; all answers are right until the last."""
    monkeypatch.setenv("CACHE_TIERS", "l1")

    async def work(number: int) -> int:
        cache = await get_cache()
        for turn in range(10 * (number + 1)):
            await cache.put(f"{number} {turn}", "ann", f"{number} {turn}")
            assert await cache.get_multilevel(f"{number} {turn}", "ann") == f"{number} {turn}"
        await close_cache()
        return cache.metrics.lookups

    assert max(in_threads(4, work)) == 100


@pytest.mark.slow
def test_a_cache_that_was_closed_opens_in_the_next_loop(cache: MultiLevelCache) -> None:
    """Closed before its loop ended, it is open in the next loop itself, and not in a thread."""

    async def use() -> bool:
        async with cache:
            await cache.put("alpha", "ann", "a")
            return cache._engine.is_home() and cache._hosted is None

    assert [asyncio.run(use()) for _ in range(3)] == [True] * 3


# ------------------------------------------------------------------------- several loops at once


@pytest.mark.slow
def test_threads_with_loops(cache: MultiLevelCache) -> None:
    """Every thread reads what any of them wrote, and a put after its lookup."""

    async def work(number: int) -> list[str | None]:
        for turn in range(20):
            message = f"message {number} {turn}"
            assert (await cache.lookup(message, "ann")).response is None
            await cache.put(message, "ann", message)
        return [await cache.get_multilevel(f"message {number} {turn}", "ann") for turn in range(20)]

    found = in_threads(4, work)
    assert found == [[f"message {n} {turn}" for turn in range(20)] for n in range(4)]
    assert cache.metrics.lookups == 160


@pytest.mark.slow
def test_two_loops_in_turn(cache: MultiLevelCache) -> None:
    """Two loops that both go on, one after the other: the first one stays the cache's own."""
    one, two = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        for number in range(5):
            one.run_until_complete(cache.put(f"from one {number}", "ann", "1"))
            two.run_until_complete(cache.put(f"from two {number}", "ann", "2"))
            for loop in (one, two):
                found = loop.run_until_complete(cache.get_multilevel(f"from one {number}", "ann"))
                assert found == "1"
                found = loop.run_until_complete(cache.get_multilevel(f"from two {number}", "ann"))
                assert found == "2"
        one.run_until_complete(cache.close())
    finally:
        one.close()
        two.close()


@pytest.mark.slow
async def test_a_loop_that_waits_for_a_thread_that_asks(make: Make) -> None:
    """A synchronous tool in an asynchronous agent: its thread's loop does not need the agent's."""
    cache = make()
    await cache.put("alpha", "ann", "a")
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(asyncio.run, cache.get_multilevel("alpha", "ann")).result(30)
    assert found == "a"
    await cache.close()


@pytest.mark.slow
@pytest.mark.parametrize("where", ["own", "other"])
async def test_what_a_lookup_saw_reaches_the_put(make: Make, where: str) -> None:
    """An answer computed before an invalidation is not stored, in any two event loops."""
    cache = make()
    await cache.initialize()

    async def elsewhere(work: Callable[[], Any]) -> Any:
        return await asyncio.to_thread(lambda: asyncio.run(work()))

    async def both() -> None:
        await cache.lookup("alpha", "ann")
        await elsewhere(lambda: cache.invalidate("alpha"))
        await cache.put("alpha", "ann", "outdated")

    if where == "own":
        await both()
    else:
        await elsewhere(both)
    assert (await cache.lookup("alpha", "ann")).response is None
    await elsewhere(lambda: cache.lookup("beta", "ann"))
    await elsewhere(lambda: cache.invalidate("beta"))
    await cache.put("beta", "ann", "outdated")
    assert (await cache.lookup("beta", "ann")).response is None
    await cache.close()


@pytest.mark.slow
async def test_every_method_in_another_loop(make: Make) -> None:
    """A second loop changes, reads and is rejected as the first one."""
    cache = make()
    await cache.initialize()

    async def use() -> None:
        assert await cache.warm_cache([("warm", None, "w")]) == 1
        assert await cache.get_multilevel("warm", "bob") == "w"
        await cache.put("alpha", "ann", "a", tags=["t"])
        await cache.put("beta", "ann", "b", rag_results=[{"id": "d"}])
        found = await cache.lookup("alpha", "ann")
        assert (found.response, found.tier) == ("a", "l1")
        assert (await cache.explain("alpha", "ann"))[0].level == "l1"
        assert not await cache.feedback("unknown", correct=True)
        assert (await cache.tune({"l1_ttl": 60}, author="ann")).after == {"l1_ttl": 60}
        assert cache.tuning.l1_ttl == 60
        assert [change.author for change in await cache.tuning_history()] == ["ann"]
        await cache.revert_tuning(0, author="ann")
        assert isinstance(await cache.decisions(), list)
        assert await cache.verdicts() == []
        assert (await cache.invalidate_tag("t")).complete
        assert (await cache.invalidate_document("d")).complete
        assert (await cache.forget_user("ann")).complete
        assert await cache.get_multilevel("alpha", "ann") is None
        with pytest.raises(TypeError):
            await cache.put("alpha", 7, "a")  # type: ignore[arg-type]
        assert cache.is_open
        assert cache.state is not None

    await asyncio.to_thread(lambda: asyncio.run(use()))
    assert await cache.get_multilevel("warm", "bob") == "w"
    await cache.close()


# ------------------------------------------------------------------------- computing


@pytest.mark.slow
async def test_compute_runs_in_the_callers_loop(make: Make) -> None:
    """With the caller's loop, thread and context variables; so does what a plain one returns."""
    cache = make()
    await cache.initialize()

    async def use() -> None:
        loop, thread = asyncio.get_running_loop(), threading.current_thread()
        REQUEST.set("r1")

        async def compute() -> str:
            assert asyncio.get_running_loop() is loop
            assert threading.current_thread() is thread
            return REQUEST.get()

        assert await cache.get_or_compute("alpha", "ann", compute) == "r1"
        assert await cache.get_or_compute("beta", "ann", lambda: compute()) == "r1"  # noqa: PLW0108 - a plain one
        assert await cache.get_or_compute("gamma", "ann", REQUEST.get) == "r1"
        with pytest.raises(ValueError, match="no"):
            await cache.get_or_compute("delta", "ann", lambda: int("no"))

    await asyncio.to_thread(lambda: asyncio.run(use()))
    await cache.close()


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["cancelled", "stopped", "exit"])
def test_a_loop_that_ends_while_it_computes(cache: MultiLevelCache, ending: str) -> None:
    """Callers in other loops who waited for its computation compute anew, once."""
    asyncio.run(cache.initialize())
    begun, waiting, computed = threading.Event(), threading.Event(), []

    async def never() -> str:
        begun.set()
        await asyncio.to_thread(waiting.wait, 30)
        if ending == "exit":
            raise SystemExit(3)
        if ending == "stopped":
            asyncio.get_running_loop().stop()
        await asyncio.sleep(3600)
        return "never"

    async def first() -> str:
        asked = asyncio.create_task(cache.get_or_compute("alpha", "ann", never))
        if ending == "cancelled":
            await asyncio.to_thread(waiting.wait, 30)
            return "gone"
        return await asked

    async def other(_: int) -> str:
        async def compute() -> str:
            computed.append(1)
            await asyncio.sleep(0.01)
            return "anew"

        return await cache.get_or_compute("alpha", "ann", compute)

    def run_first() -> None:
        loop = asyncio.new_event_loop()
        try:
            if ending == "stopped":
                asked = loop.create_task(first())
                loop.run_forever()
                assert not asked.done()
            else:
                asyncio.run(first())
        except SystemExit:
            pass

    thread = threading.Thread(target=run_first)
    thread.start()
    assert begun.wait(30)
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(in_threads, 3, other)
        while _waiting(cache) < 4:
            assert not found.done()
        waiting.set()
        assert found.result(60) == ["anew"] * 3
    thread.join(30)
    assert computed == [1]


def _waiting(cache: MultiLevelCache) -> int:
    flights = cache._hosted.flight._flights if cache._hosted is not None else {}
    return sum(flight.waiting for flight in tuple(flights.values()))


@pytest.mark.slow
def test_cancelling_in_another_loop(cache: MultiLevelCache) -> None:
    """A cancelled caller is cancelled immediately, and its computation with it."""
    asyncio.run(cache.initialize())
    begun, cancelled = threading.Event(), threading.Event()

    async def use() -> None:
        async def compute() -> str:
            begun.set()
            try:
                await asyncio.sleep(3600)
            finally:
                cancelled.set()
            return "never"

        asking = asyncio.create_task(cache.get_or_compute("alpha", "ann", compute))
        assert await asyncio.to_thread(begun.wait, 30)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await asyncio.to_thread(cancelled.wait, 30)

    asyncio.run(use())
    assert asyncio.run(cache.get_multilevel("alpha", "ann")) is None


# ------------------------------------------------------------------------- pools


@pytest.mark.slow
def test_a_pool_like_another() -> None:
    """Same place, kind and limits; nothing that belongs to an event loop is shared."""
    plain = redis.ConnectionPool(host="h", port=7, db=3, max_connections=9, password="p")
    blocking = redis.BlockingConnectionPool(host="h", max_connections=5, timeout=2)
    sentinel = Sentinel([("s", 1), ("t", 2)], socket_timeout=1).master_for("m").connection_pool
    for pool in (plain, blocking, sentinel):
        other = pool_like(pool)
        assert type(other) is type(pool)
        assert other is not pool
        for name in ("host", "port", "db", "password", "socket_timeout"):
            assert other.connection_kwargs.get(name) == pool.connection_kwargs.get(name)
        assert (other.max_connections, other.connection_class) == (
            pool.max_connections, pool.connection_class,
        )  # fmt: skip
    assert pool_like(blocking).timeout == 2
    copied = pool_like(sentinel)
    assert (copied.service_name, copied.is_master) == ("m", True)
    theirs, ours = sentinel.sentinel_manager.sentinels, copied.sentinel_manager.sentinels
    assert [client.connection_pool.connection_kwargs["host"] for client in ours] == ["s", "t"]
    assert not {id(client.connection_pool) for client in theirs} & {
        id(client.connection_pool) for client in ours
    }
    assert pool_like(None) is None


async def test_a_given_pool_in_two_loops(empty_redis: str, tmp_path: Path) -> None:
    """A second loop has connections of its own to where the given pool has them."""
    pool = redis.ConnectionPool.from_url(empty_redis)
    cache = MultiLevelCache(
        redis_pool=pool, settings=Settings(dir=tmp_path, **KEYED), instruments=()
    )
    await cache.put("alpha", "ann", "a")
    for _ in range(3):
        found = await asyncio.to_thread(lambda: asyncio.run(cache.get_multilevel("alpha", "ann")))
        assert found == "a"
    assert await cache.get_multilevel("alpha", "ann") == "a"
    await cache.close()
    await pool.disconnect()


# ------------------------------------------------------------------------- caches that are dropped


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the cache:ResourceWarning")
@pytest.mark.parametrize("tiers", ["l1", "l1,l2,l3,l4"])
async def test_a_cache_that_is_dropped_is_closed(make: Make, tiers: str, tmp_path: Path) -> None:
    """Six caches that were not closed: no task, file or thread of them is left, nothing is lost."""

    async def use(number: int) -> None:
        cache = MultiLevelCache(
            settings=make(tiers=tiers).settings,
            embedding_model=HashEmbedder(),
            instruments=(),
            namespace=f"n{number}",
        )
        await cache.put("alpha", "ann", f"answer {number}")

    await use(0)
    await settled(1)
    before = held()
    for number in range(1, 6):
        await use(number)
    await settled(1)
    files, threads = held()
    assert (files <= before[0] + 2, threads <= before[1] + 2) == (True, True)
    again = MultiLevelCache(
        settings=make(tiers=tiers).settings, instruments=(), namespace="n3",
        embedding_model=HashEmbedder(),
    )  # fmt: skip
    async with again:
        assert await again.get_multilevel("alpha", "ann") == "answer 3"


@pytest.mark.slow
def test_a_dropped_cache_says_so(tmp_path: Path) -> None:
    """The warning names the cache and what to do; a closed one, or one never used, gives none."""

    async def use(name: str) -> None:
        fixed = Settings(dir=tmp_path, **KEYED)
        MultiLevelCache(settings=fixed, instruments=(), namespace="unused")
        async with MultiLevelCache(settings=fixed, instruments=(), namespace="closed"):
            pass
        cache = MultiLevelCache(settings=fixed, instruments=(), namespace=name)
        await cache.lookup("alpha", "ann")

    with pytest.warns(ResourceWarning) as said:
        asyncio.run(_then_collect(use("mine")))
    texts = [str(warning.message) for warning in said if "the cache" in str(warning.message)]
    assert len(texts) == 1
    assert texts[0].startswith("the cache 'mine' was dropped without being closed: await cache.clo")


async def _then_collect(work: Awaitable[None]) -> None:
    await work
    await settled(1)


async def settled(tasks: int) -> None:
    """Wait until there are no more tasks than *tasks*."""
    async with asyncio.timeout(30):
        while len(asyncio.all_tasks()) > tasks:
            gc.collect()
            await asyncio.sleep(0.05)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("when", ["as it ends", "and half closed", "after it"])
def test_caches_dropped_after_their_loop(make: Make, when: str) -> None:
    """With loops that ended, the next cache that opens gives their files and threads back."""
    settings = make(tiers="l1,l2,l3,l4").settings

    async def use(number: int) -> MultiLevelCache | None:
        cache = MultiLevelCache(
            settings=settings,
            embedding_model=HashEmbedder(),
            instruments=(),
            namespace=f"n{number}",
        )
        await cache.ready()
        await cache.put("alpha", "ann", "a")
        if when == "after it":
            return cache
        del cache
        gc.collect()
        while when == "and half closed" and not any(one._ending for one in lifecycle._dropped):
            await asyncio.sleep(0)
        return None

    for number in range(3):
        asyncio.run(use(number))
        gc.collect()
    before = held()
    for number in range(3, 7):
        asyncio.run(use(number))
        gc.collect()

    files, threads = held()
    assert (files <= before[0] + 3, threads <= before[1] + 3) == (True, True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the cache:ResourceWarning")
async def test_a_cache_in_use_is_not_dropped(make: Make) -> None:
    """A call that is under way keeps its cache; what it computes is stored."""
    settings, go = make().settings, asyncio.Event()

    async def compute() -> str:
        await go.wait()
        return "late"

    def begin() -> asyncio.Task[str]:
        cache = MultiLevelCache(settings=settings, embedding_model=HashEmbedder(), instruments=())
        return asyncio.create_task(cache.get_or_compute("alpha", "ann", compute))

    asked = begin()
    for _ in range(2):
        await asyncio.sleep(0.1)
        gc.collect()
    go.set()
    assert await asked == "late"
    del asked
    await settled(1)
    cache = MultiLevelCache(settings=settings, embedding_model=HashEmbedder(), instruments=())
    async with cache:
        assert await cache.get_multilevel("alpha", "ann") == "late"


# ------------------------------------------------------------------------- the end of a process

ENDS_IN_THE_MODEL = """
import asyncio, time
from cache_core.backends.embedder.pool import ThreadEmbedder

class Slow:
    def encode(self, texts):
        import numpy
        time.sleep(0.3)
        print("encoded", len(texts), flush=True)
        return numpy.ones((len(texts), 1), dtype="float32")
    def fits(self, text): return True
    def knows(self, text): return True

embedder = ThreadEmbedder("slow", lambda name: Slow())

async def main():
    await embedder.wait_ready()
    asyncio.ensure_future(embedder.embed("alpha"))
    await asyncio.sleep(0.1)

asyncio.run(main())
print("ends", flush=True)
"""


@pytest.mark.slow
def test_a_process_ends_after_its_model_returned(tmp_path: Path) -> None:
    """No thread is in native code when the interpreter goes, which would abort the process."""
    out = processes.run(ENDS_IN_THE_MODEL, tmp_path)
    assert out.splitlines() == ["encoded 1", "ends", "encoded 1"]


ENDS_WITHOUT_CLOSE = """
import asyncio
from cache_core import get_cache

async def view():
    cache = await get_cache()
    await cache.lookup("alpha", "ann")

for _ in range(5):
    asyncio.run(view())
"""

COUNTS = """
import asyncio
from cache_core import MultiLevelCache

async def main():
    async with MultiLevelCache() as cache:
        print(len(await cache.decisions()))

asyncio.run(main())
"""


@pytest.mark.slow
def test_what_the_thread_has_to_write_is_written_at_the_end(tmp_path: Path) -> None:
    """A process with a loop per request that ends without close loses the first loop's at most."""
    processes.run(ENDS_WITHOUT_CLOSE, tmp_path, CACHE_TIERS="l1")
    assert int(processes.run(COUNTS, tmp_path, CACHE_TIERS="l1")) >= 4


@pytest.mark.slow
@pytest.mark.parametrize(
    "invalidate",
    [lambda cache: cache.invalidate_tag("menu"), lambda cache: cache.forget_user("ann")],
    ids=["tag", "user"],
)
async def test_what_is_pending_in_one_loop_is_served_in_none(
    tmp_path: Path, invalidate: Callable[[MultiLevelCache], Awaitable[Any]]
) -> None:
    """While the store is unavailable L2 goes on, but with nothing that may be invalidated or forgotten."""
    faults = Faults()
    settings = Settings(**{**PATIENT, "dir": tmp_path, "tiers": "l1,l2", "breaker_probe": 0.01})
    cache = MultiLevelCache(
        settings=settings,
        embedding_model=HashEmbedder(),
        instruments=(),
        sharing="all",
        wrap_store=lambda store: ChaosStore(store, faults),
    )

    async def here() -> str | None:
        return (await cache.lookup("beta alpha", "bob")).response

    async def elsewhere() -> str | None:
        return await asyncio.to_thread(asyncio.run, cache.get_multilevel("beta alpha", "bob"))

    async with cache:
        await cache.put("alpha beta", "ann", "old", tags=["menu"])
        while await elsewhere() != "old":
            await asyncio.sleep(0.05)
        faults.throw = 1.0
        assert (await here(), await elsewhere()) == ("old", "old")
        assert not (await invalidate(cache)).complete
        for _ in range(3):
            assert (await here(), await elsewhere()) == (None, None)
        faults.throw = 0.0
        while cache.state is None or cache.state.pending_invalidations:
            await asyncio.sleep(0.05)
        assert (await here(), await elsewhere()) == (None, None)
