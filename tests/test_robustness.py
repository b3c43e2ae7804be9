"""Load, odd embedders, odd contents of the store and clocks that jump: nothing wrong is served."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis.asyncio as redis

from cache_core import MultiLevelCache, envelope
from cache_core.breaker import Breaker, Queueing
from cache_core.clock import WallClock
from cache_core.deadline import Deadline
from cache_core.embedder import ThreadEmbedder
from cache_core.exceptions import BackendError
from cache_core.guards import veto
from cache_core.models import OUTCOMES, Entry
from cache_core.settings import Settings
from cache_core.stores.base import Write
from cache_core.stores.embedded import EmbeddedStore
from cache_core.testing import HashEmbedder, ManualClock
from tests import servers
from tests.conftest import CacheFactory
from tests.patient import PATIENT

GUARDS = ("numbers", "negation", "direction")


# ---------------------------------------------------------------------------------------- load


async def test_many_searches_at_once_are_no_fault(make_cache: CacheFactory) -> None:
    """300 lookups that all reach the index: each ends in one outcome, and no breaker opens."""
    cache: MultiLevelCache = await make_cache()
    await cache.put("something else entirely", None, "answer", shared=True)
    await cache.ready()
    for _ in range(2):
        results = await asyncio.gather(
            *(cache.lookup(f"question {n} about topic {n}", "ann") for n in range(300))
        )
        assert all(result.outcome in OUTCOMES for result in results)
        assert not any(result.response for result in results)
        assert set(_breakers(cache).values()) == {"closed"}
    assert cache.metrics.lookups == 600
    assert cache.metrics.error_reasons.get(("l2", "breaker_open"), 0) == 0


class SlowEncoder:
    """Takes a while for each text."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def encode(self, texts: Any) -> Any:
        import time

        time.sleep(self._seconds * len(texts))
        return np.ones((len(texts), 8), dtype=np.float32) / np.sqrt(8, dtype=np.float32)

    def fits(self, text: str) -> bool:
        return True

    def knows(self, text: str) -> bool:
        return True


async def test_a_queue_before_the_model_is_no_fault(make_cache: CacheFactory) -> None:
    """Texts whose turn does not come in time are `overloaded`; the model is as well as before."""
    embedder = ThreadEmbedder("slow", lambda _: SlowEncoder(0.01))
    cache: MultiLevelCache = await make_cache(
        embedding_model=embedder,
        # Only the embedding's own may run out.
        settings={"exact_budget": 10.0, "lookup_budget": 10.0, "embedding_budget": 0.25},
    )
    try:
        await cache.ready()
        await asyncio.gather(*(cache.lookup(f"question {n}", "ann") for n in range(200)))
        assert _breakers(cache)["embedder"] == "closed"
        assert cache.metrics.error_reasons[("l2", "overloaded")] > 0
        assert cache.metrics.error_reasons.get(("l2", "breaker_open"), 0) == 0
    finally:
        embedder.close()


async def test_a_backend_that_answers_nobody_is_a_fault() -> None:
    """Those who wait at the same time for a hung backend are one failure, not many."""
    breaker = Breaker("chroma", failures=2)

    async def call(seconds: float) -> str:
        try:
            with breaker, Queueing(breaker):
                async with Deadline(0.05):
                    await asyncio.sleep(seconds)
        except BackendError as error:
            return error.reason
        return "answered"

    assert set(await asyncio.gather(*(call(9) for _ in range(50)))) == {"timeout"}
    assert breaker.state == "closed"
    assert await call(9) == "timeout"
    assert breaker.state != "closed"
    breaker = Breaker("chroma", failures=2)
    found = await asyncio.gather(call(0.01), *(call(9) for _ in range(50)))
    assert found == ["answered", *["overloaded"] * 50]
    assert breaker.state == "closed"


def _breakers(cache: MultiLevelCache) -> dict[str, str]:
    return {name: breaker.state for name, breaker in cache.parts.breakers.items()}


# ------------------------------------------------------------------------------------- vectors


class OddEmbedder(HashEmbedder):
    """Returns whatever it is told to."""

    given: Any = None

    async def embed(self, text: str) -> Any:
        return await super().embed(text) if self.given is None else self.given


@pytest.mark.parametrize(
    "given",
    [
        np.full(64, np.nan, dtype=np.float32),
        np.array([np.inf] + [0.0] * 63),
        np.zeros(64, dtype=np.float32),
        np.ones((1, 64), dtype=np.float32),
        np.ones(63, dtype=np.float32),
        np.float32(1),
        np.array([], dtype=np.float32),
        np.array(["a"] * 64),
        np.ones(64, dtype=np.complex64),
        np.ones(64, dtype=bool),
        "no vector",
        {"a": 1},
        [[1.0], [1.0, 2.0]],
    ],
    ids="nan inf zeros matrix shorter scalar empty texts complex bool text mapping ragged".split(),
)
async def test_what_is_no_vector_is_neither_stored_nor_served(
    make_cache: CacheFactory, caplog: pytest.LogCaptureFixture, given: Any
) -> None:
    """L2 ends as an error and says why; the exact tiers go on."""
    embedder = OddEmbedder()
    cache: MultiLevelCache = await make_cache(embedding_model=embedder, settings=PATIENT)
    await cache.put("alpha beta", "ann", "right")
    embedder.given = given
    caplog.set_level(logging.WARNING, "glasscache")
    for question in ("beta alpha", "alpha beta gamma"):
        result = await cache.lookup(question, "ann")
        assert (result.outcome, result.response) == ("error", None)
    await cache.put("gamma delta", "ann", "poison")
    assert (await cache.lookup("gamma delta", "ann")).tier == "l1"
    embedder.given = None
    await asyncio.sleep(0.3)
    assert (await cache.lookup("delta gamma", "ann")).response is None
    assert (await cache.lookup("beta alpha", "ann")).response == "right"
    assert "the embedder 'hash' returned" in caplog.text


async def test_vectors_of_another_length_or_type_are_made_unit(make_cache: CacheFactory) -> None:
    """Cosines rely on unit vectors: one that is ten times as long would match anything."""
    embedder = OddEmbedder()
    cache: MultiLevelCache = await make_cache(embedding_model=embedder, settings=PATIENT)
    await cache.put("alpha beta", "ann", "right")
    other = await HashEmbedder().embed("quite another thing")
    embedder.given = other.astype(np.float64) * 10
    assert (await cache.lookup("quite another thing", "ann")).response is None
    embedder.given = (await HashEmbedder().embed("alpha beta")).astype(np.float16) * 10
    assert (await cache.lookup("beta alpha", "ann")).response == "right"


# ----------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    "context",
    [{1: "a"}, {"a": {1: "b"}}, {"a": [{None: 1}]}, {True: 1}, {"a": float("nan")},
     {"a": [float("inf")]}],
    ids=repr,
)  # fmt: skip
async def test_contexts_that_json_would_confuse(cache: MultiLevelCache, context: Any) -> None:
    """{1: ...} and {"1": ...} would be one context; NaN is no JSON: a TypeError that says so."""
    for call in (
        cache.lookup("m", "u", context=context),
        cache.put("m", "u", "r", context=context),
    ):
        with pytest.raises(TypeError, match="context must be JSON"):
            await call
    with pytest.raises(TypeError, match="history must be JSON"):
        await cache.lookup("m", "u", history=[{"role": "user", "content": context}])


@pytest.mark.parametrize(
    ("user", "context"),
    [
        ("u" * 1_025, None),
        ("u", "c" * 65_537),
        ("u", {"prompt": "c" * 65_537}),
        ("u", {"c" * 65_537: 1}),
        ("u", {"many": list(range(65_537))}),
        ("u", {f"k{n}": {} for n in range(65_537)}),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_large_users_and_contexts_bypass(
    cache: MultiLevelCache, user: str, context: Any
) -> None:
    """As a message that is too large does: the agent goes on without the cache."""
    await cache.put("m", user, "r", context=context)
    result = await cache.lookup("m", user, context=context)
    assert (result.outcome, result.reasons) == ("bypass", ("too_large",))
    assert await cache.get_or_compute("m", user, lambda: "made", context=context) == "made"


async def test_what_is_just_small_enough(cache: MultiLevelCache) -> None:
    """At the bounds everything works."""
    user, context = "u" * 1_024, {"prompt": "c" * 65_000}
    await cache.put("m", user, "r", context=context, intent="i" * 256)
    assert (await cache.lookup("m", user, context=context)).response == "r"
    await cache.put("long label", user, "r", intent="i" * 257)
    assert (await cache.lookup("long label", user)).response is None


# ------------------------------------------------------------------------ contents of the store


async def test_a_huge_value_in_redis_is_corrupt_once(
    make_cache: CacheFactory, empty_redis: str, store_kind: str
) -> None:
    """What is too large to be read in time is found out, deleted, and counted as corrupt."""
    if store_kind != "redis":
        pytest.skip("reads from the embedded store do not travel")
    cache: MultiLevelCache = await make_cache(settings={"tiers": "l1", "exact_budget": 0.05})
    await cache.put("alpha", "ann", "answer")
    keys = cache.parts.keys
    query = keys.query("alpha", "ann")
    name = keys.entry("l1", query.tag, query.scope("user"), query.context)
    async with redis.Redis(port=servers.port_of(empty_redis)) as client:  # an administrator
        await client.set(name, b"x" * 300_000_000)
        for _ in range(200):
            assert (await cache.lookup("alpha", "ann")).response is None
            if not await client.exists(name):
                break
            await asyncio.sleep(0.05)
        assert not await client.exists(name)
    await asyncio.sleep(0.3)
    await cache.lookup("alpha", "ann")
    await cache.lookup("alpha", "ann")
    assert cache.metrics.miss_reasons[("l1", "corrupt")] == 1
    await cache.put("alpha", "ann", "again")
    assert (await cache.lookup("alpha", "ann")).response == "again"


async def test_keys_of_another_type_are_replaced(
    make_cache: CacheFactory, empty_redis: str, store_kind: str
) -> None:
    """A list under each of our names: nothing fails for longer than once."""
    if store_kind != "redis":
        pytest.skip("the embedded store has no types")
    cache: MultiLevelCache = await make_cache(settings=PATIENT)
    await cache.put("alpha beta", "ann", "answer", intent="greet", rag_results=[{"id": "d"}])
    async with redis.Redis(port=servers.port_of(empty_redis)) as client:  # an administrator
        names = [name async for name in client.scan_iter("gc1:*}*:*")]
        mine = [name for name in names if b"replica" not in name]
        assert len(mine) >= 6
        for name in mine:
            await client.delete(name)
            await client.rpush(name, "no value")
        first = await cache.lookup("beta alpha", "ann")
        assert (first.response, "corrupt" in first.reasons) == (None, True)
        await cache.put("alpha beta", "ann", "again", intent="greet", rag_results=[{"id": "d"}])
        assert (await cache.lookup("alpha beta", "ann")).tier == "l1"
        assert (await cache.lookup("beta alpha", "ann")).tier == "l2"
        assert cache.metrics.miss_reasons[("l2", "corrupt")] == 1
        done = await cache.forget_user("ann")
        assert done.complete


# -------------------------------------------------------------------------------------- guards


@pytest.mark.parametrize(
    ("asked", "stored", "guard"),
    [
        ("change it from 3 to 5", "change it from 5 to 3", "numbers"),
        ("change it from 3 to 5", "change it to 5 from 3", None),
        ("change it from 3 to 5", "change it to 3 from 5", "numbers"),
        ("add 3 apples and 5 pears", "add 5 apples and 3 pears", "numbers"),
        ("deliver within 5 days", "deliver within 5 weeks", "numbers"),
        ("deliver within 5 days", "deliver within 5 business days", None),
        ("call me at 5pm", "call me at 5 am", "numbers"),
        ("it costs $5", "it costs 5 dollars", None),
        ("it costs $5", "it costs 5 euros", "numbers"),
        ("a group of at least 5", "a group of at most 5", "numbers"),
        ("open from monday to friday", "open from friday to monday", "numbers"),
        ("3 nights for 200 euros", "200 euros for 3 nights", None),
        ("transfer 100 from A to B", "transfer 100 from B to A", "direction"),
        ("convert euros to dollars", "convert dollars to euros", "direction"),
        ("move it from my savings account to my checking account",
         "move it from my checking account to my savings account", "direction"),
        ("how to travel to Rome", "how do I travel to Rome", None),
        ("from A to B please", "please, from A to B", None),
    ],
)  # fmt: skip
def test_order_units_and_direction(asked: str, stored: str, guard: str | None) -> None:
    """The same words in other places ask something else."""
    assert veto(asked, stored, GUARDS) == guard  # type: ignore[arg-type]
    assert veto(stored, asked, GUARDS) == guard  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------- clocks


async def test_a_clock_set_back_across_a_restart(tmp_path: Path) -> None:
    """What had expired stays expired, and what is stored from then on lives no longer."""
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
        await cache.parts.store.tend()
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


def test_a_changed_character_is_corrupt() -> None:
    """Wherever one character of a stored entry differs, it is not served, though it decodes."""
    entry = Entry(response="at nine", message="when", scope="s", generation="g", created=1.0)
    text = envelope.encode(entry, "key")
    assert envelope.decode(text, "key", ("s",)) == entry
    for place, at in enumerate(text):
        for other in {"a", "0", " ", "z"} - {at}:
            changed = text[:place] + other + text[place + 1 :]
            with pytest.raises((envelope.CorruptError, envelope.ForeignError)):
                envelope.decode(changed, "key", ("s",))


async def test_an_entry_from_the_future(cache: MultiLevelCache) -> None:
    """It was stamped by a clock that was wrong: never served."""
    await cache.put("alpha", "ann", "answer")
    keys, store = cache.parts.keys, cache.parts.store
    query = keys.query("alpha", "ann")
    name = keys.entry("l1", query.tag, query.scope("user"), query.context)
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


# ------------------------------------------------------------------------------- files and forks


async def test_the_file_is_deleted_while_it_is_open(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The next tend makes a new one: what nobody else can see is not written for ever."""
    caplog.set_level(logging.WARNING, "glasscache")
    store = EmbeddedStore(tmp_path / "cache")
    await store.open()
    try:
        await store.write([Write("key", "value", 60)])
        for name in ("glasscache.db", "glasscache.db-wal", "glasscache.db-shm"):
            (tmp_path / "cache" / name).unlink(missing_ok=True)
        await store.tend()
        await store.tend()
        assert await store.read(["key"]) == [None]
        await store.write([Write("key", "second", 60)])
        other = EmbeddedStore(tmp_path / "cache")
        await other.open()
        assert await other.read(["key"]) == ["second"]
        await other.close()
        assert caplog.text.count("was deleted while it was open") == 1
        assert store.breaker.state == "closed"
    finally:
        await store.close()


FORKING = """
import asyncio, os, sys
from pathlib import Path
from cache_core import MultiLevelCache
from cache_core.settings import Settings
from cache_core.testing import HashEmbedder

settings = Settings(dir=Path(sys.argv[1]), exact_budget=10, embedding_budget=10, search_budget=10,
                    lookup_budget=20, put_budget=20)

def make():
    return MultiLevelCache(settings=settings, embedding_model=HashEmbedder(), instruments=())

async def use(cache, name):
    await cache.ready()
    await cache.put(f"{name} question", None, name, shared=True)
    assert (await cache.lookup(f"question {name}", "u")).tier == "l2", name
    return cache.parts.semantic.chroma.place

kept = make()
loop = asyncio.new_event_loop()
place = loop.run_until_complete(use(kept, "parent"))
child = os.fork()
if child == 0:
    status = 1
    try:
        async def own():
            async with make() as cache:
                return await use(cache, "child")
        mine = asyncio.new_event_loop().run_until_complete(own())
        status = 0 if mine != place else 2
    except BaseException as error:
        print("child:", repr(error), file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(status)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0, os.waitstatus_to_exitcode(status)
assert loop.run_until_complete(use(kept, "after")) == place
assert loop.run_until_complete(kept.lookup("question parent", "u")).response == "parent"
loop.run_until_complete(kept.close())
print("done")
"""


def test_a_forked_child_has_an_index_of_its_own(tmp_path: Path) -> None:
    """Chroma's directory is one process's: a child that kept its parent's would lose entries."""
    done = subprocess.run(
        [sys.executable, "-c", FORKING, str(tmp_path / "cache")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.strip() == "done", done.stderr


# --------------------------------------------------------------------------------- withdrawal


@pytest.mark.parametrize("sharing", ["all", "intents"])
@pytest.mark.parametrize("asked", ["alpha beta", "beta alpha"], ids=["l1", "l2"])
async def test_sharing_by_policy_can_be_undone(
    make_cache: CacheFactory, sharing: Any, asked: str
) -> None:
    """What the policy shared, others get only while it does; what was shared on purpose stays."""
    cache: MultiLevelCache = await make_cache(
        sharing=sharing, shared_intents=("greet",) if sharing == "intents" else (), settings=PATIENT
    )
    await cache.put("alpha beta", "ann", "by policy", intent="greet", rag_results=["document"])
    await cache.put("gamma delta", "ann", "on purpose", intent="greet", shared=True)
    await cache.warm_cache([("epsilon zeta", "ann", "warm")], intent="greet")
    assert (await cache.lookup(asked, "ben")).response == "by policy"
    await cache.tune({"sharing": "private"}, author="test")
    withdrawn = await cache.lookup(asked, "ben")
    assert (withdrawn.response, withdrawn.rag_results) == (None, None)
    assert "other_scope" in withdrawn.reasons
    assert (await cache.lookup(asked)).response is None
    assert (await cache.lookup(asked, "ann")).response == "by policy"
    assert (await cache.lookup("gamma delta", "ben")).response == "on purpose"
    assert (await cache.lookup("delta gamma", "ben")).response == "on purpose"
    assert (await cache.lookup("zeta epsilon", "ben")).response == "warm"
    await cache.tune({"intent.greet.shared": True}, author="test")
    assert (await cache.lookup(asked, "ben")).response == "by policy"
