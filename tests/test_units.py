"""The small parts by themselves: keys, guards, tuning, breaker, flight, settings, get_cache."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache_core
from cache_core import ConfigurationError, MultiLevelCache, Settings, close_cache, get_cache
from cache_core.breaker import Breaker
from cache_core.contexts import ContextWatch
from cache_core.embedder import (
    PACKAGED_MODEL,
    SentenceTransformerEncoder,
    ThreadEmbedder,
    shared_embedder,
)
from cache_core.exceptions import BackendError
from cache_core.flight import SingleFlight
from cache_core.guards import negated, numbers, veto
from cache_core.keys import Keys, digest, normalise
from cache_core.models import LookupResult, Sighting
from cache_core.settings import load_settings
from cache_core.testing import HashEmbedder
from cache_core.tuning_layers import make_tuning

SECRET = b"s" * 32
BOTH = ("numbers", "negation")


# ---------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize(
    ("message", "same"),
    [
        ("Where is my order?", "where is my order"),
        ("  where\tis\nmy   order ", "where is my order"),
        ("WHERE IS MY ORDER!!!", "where is my order"),
        ("stra\u00dfe", "STRASSE"),
        ("caf\u00e9", "cafe\u0301"),
        ("\u00a0hello\u2003world\u3002", "hello world"),
        ("\u0645\u0631\u062d\u0628\u0627\u061f", "\u0645\u0631\u062d\u0628\u0627"),
        ("\u01c5", "\u01c6"),
    ],
)
def test_messages_that_are_the_same(message: str, same: str) -> None:
    """Case, Unicode form, white space and final punctuation make no difference."""
    assert normalise(message) == normalise(same)


@pytest.mark.parametrize(
    ("message", "other"),
    [
        ("refund order 12", "refund order 21"),
        ("what is c", "what is c++"),
        ("1.5", "15"),
        ("yes", "no"),
        ("re-cover", "recover"),
        ("?", "!"),
        ("who", "who not"),
    ],
)
def test_messages_that_are_not_the_same(message: str, other: str) -> None:
    """What may carry meaning makes a difference, and punctuation alone is kept."""
    assert normalise(message) != normalise(other)


def test_normalising_twice_is_normalising_once() -> None:
    """Normalisation is idempotent, for odd characters too."""
    for text in (
        "  A? ",
        "\u0130stanbul",
        "\ufb01ne.",
        "?!",
        "\ud800x",
        "\u1e9e\u0345",
        "a .. b ..",
    ):
        assert normalise(normalise(text)) == normalise(text)


def test_borders_between_parts_count() -> None:
    """Digests of the same characters cut differently differ."""
    cuts = [
        ("ab", "c"),
        ("a", "bc"),
        ("abc",),
        ("abc", ""),
        ("", "abc"),
        ("1:a", "b"),
        ("1", ":ab"),
    ]
    assert len({digest(SECRET, *parts) for parts in cuts}) == len(cuts)


def test_the_secret_counts() -> None:
    """Without the secret nobody can find the digest of a message."""
    assert digest(SECRET, "a") != digest(b"t" * 32, "a")
    assert Keys("n", SECRET).tag("hello") != Keys("m", SECRET).tag("hello")


@pytest.mark.parametrize("words", [1, 1_000])
def test_a_message_has_one_digest(words: int) -> None:
    """Short ones are kept, long ones are not: it makes no difference."""
    keys, text = Keys("n", SECRET), "hello " * words
    assert keys.tag(text) == keys.tag(text) == keys.tag(text.upper()) == Keys("n", SECRET).tag(text)
    assert keys.tag(text) != keys.tag(text + "you")


def test_scopes_contexts_and_histories_have_digests_of_their_own() -> None:
    """Everything that decides which entries answer gives another query."""
    keys = Keys("n", SECRET)
    turn = {"role": "user", "content": "a"}
    asked = [
        keys.query("m", None),
        keys.query("m", "u"),
        keys.query("m", "U"),
        keys.query("m", "u", "ctx"),
        keys.query("m", "u", {"ctx": 1}),
        keys.query("m", "u", {"ctx": "1"}),
        keys.query("m", "u", None, ["a"]),
        keys.query("m", "u", None, ["a", "b"]),
        keys.query("m", "u", None, ["ab"]),
        keys.query("m", "u", None, [turn]),
        keys.query("m", "u", None, ['{"content":"a","role":"user"}']),
        keys.query("m2", "u"),
    ]
    assert len({(q.tag, q.user, q.context, q.history) for q in asked}) == len(asked)


def test_order_in_a_mapping_does_not_count() -> None:
    """A context with the same keys in another order is the same context."""
    keys = Keys("n", SECRET)
    one, two = keys.query("m", "u", {"a": 1, "b": 2}), keys.query("m", "u", {"b": 2, "a": 1})
    assert one.context == two.context
    assert keys.query("m", "u", {}).context == keys.query("m", "u", "").context == keys.no_context


def test_standalone_replaces_message_and_history() -> None:
    """A standalone form is asked as if it were the message, without a history."""
    keys = Keys("n", SECRET)
    rewritten = keys.query("and in Berlin?", "u", None, ["weather"], "weather in Berlin")
    assert rewritten == keys.query("weather in Berlin", "u")


def test_all_keys_of_a_message_are_in_one_slot() -> None:
    """The keys that one lookup reads share a hash tag, whatever scope, context and history."""
    from redis.crc import key_slot

    keys = Keys("n", SECRET)
    query = keys.query("m", "u", "ctx", ["a"])
    names = [keys.generation(query.tag), keys.marker(query)]
    names += [keys.entry(level, query.tag, query.shared, query.context) for level in ("l1", "l4")]
    assert len({key_slot(name.encode()) for name in names}) == 1


# -------------------------------------------------------------------------------------- guards


@pytest.mark.parametrize(
    ("asked", "stored", "guard"),
    [
        ("status of order 12", "status of order 13", "numbers"),
        ("status of order 12", "what is the status of order 12", None),
        ("refund 1,000 euro", "refund 1000 euro", None),
        ("refund 1.5 euro", "refund 15 euro", "numbers"),
        ("two rooms", "2 rooms", None),
        ("two rooms", "three rooms", "numbers"),
        ("open on monday", "open on tuesday", "numbers"),
        ("from 1 to 2", "from 2 to 1 to 1", "numbers"),
        ("can I cancel", "can I not cancel", "negation"),
        ("I can't log in", "I can\u2019t log in", None),
        ("I can't log in", "I can log in", "negation"),
        ("without sugar", "with sugar", "negation"),
        ("another note", "a note", None),
    ],
)
def test_guards(asked: str, stored: str, guard: str | None) -> None:
    """Changed numbers, dates and negations are vetoed, other words for the same are not."""
    assert veto(asked, stored, BOTH) == guard  # type: ignore[arg-type]
    assert veto(stored, asked, BOTH) == guard  # type: ignore[arg-type]


def test_guards_that_are_off_veto_nothing() -> None:
    """Only the guards named are asked, in their order."""
    assert veto("order 1", "order 2", ()) is None
    assert veto("not order 1", "order 2", ("negation", "numbers")) == "negation"


def test_guards_read_anything() -> None:
    """Guards take odd texts without complaint."""
    for text in ("", "\ud800", "\x00", "1" * 10_000, "\u0661\u0662", "n't"):
        numbers(text)
        negated(text)


# -------------------------------------------------------------------------------------- tuning


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("semantic_threshold", 1.01), ("semantic_threshold", -0.1), ("semantic_threshold", "high"),
        ("semantic_threshold", float("nan")), ("l1_ttl", 0), ("l1_ttl", -1), ("l1_ttl", 3_000_000),
        ("l1_ttl", float("inf")), ("response_usd", -1), ("sharing", "everybody"),
        ("guards", ("colour",)), ("hit_rate_objective", 60),
    ],
)  # fmt: skip
def test_a_tuning_out_of_bounds_says_who_said_so(field: str, value: object) -> None:
    """A refused value is named with its field, its origin and the bounds."""
    with pytest.raises(ConfigurationError) as refused:
        make_tuning(("the environment", {field: value}))
    assert field in str(refused.value)
    assert "(from the environment)" in str(refused.value)


def test_the_strongest_layer_wins() -> None:
    """Later layers beat earlier ones field by field, and each value knows its origin."""
    tuning, origin = make_tuning(
        ("the environment", {"semantic_threshold": 0.8, "l1_ttl": 5}),
        ("the constructor", {"semantic_threshold": 0.9}),
    )
    assert (tuning.semantic_threshold, tuning.l1_ttl, tuning.l2_ttl) == (0.9, 5.0, 86_400.0)
    assert origin == {"semantic_threshold": "the constructor", "l1_ttl": "the environment"}


def test_an_unknown_field_is_refused() -> None:
    """A misspelt field is an error and not ignored."""
    with pytest.raises(ConfigurationError, match="l5_ttl"):
        make_tuning(("the constructor", {"l5_ttl": 1}))


# ------------------------------------------------------------------------------------- breaker


class Time:
    """Monotonic seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def fail(breaker: Breaker, error: BaseException) -> None:
    with pytest.raises(BackendError), breaker:
        raise error


def test_a_breaker_opens_probes_and_closes() -> None:
    """After its failures in a row it lets one call through per interval, until one succeeds."""
    now = Time()
    breaker = Breaker("b", failures=3, probe_seconds=0.25, clock=now)
    for _ in range(2):
        fail(breaker, ConnectionError("away"))
    assert breaker.state == "closed"
    fail(breaker, ConnectionError("away"))
    assert (breaker.state, breaker.last_error) == ("open", "ConnectionError: away")
    with pytest.raises(BackendError) as refused, breaker:
        pytest.fail("an open breaker lets nothing through")
    assert refused.value.reason == "breaker_open"
    now.now += 0.3
    assert breaker.state == "half_open"
    fail(breaker, ConnectionError("still"))
    assert breaker.state == "open"
    now.now += 0.3
    with breaker, pytest.raises(BackendError), breaker:
        pytest.fail("one probe at a time")
    assert breaker.state == "closed"


def test_a_success_ends_the_row() -> None:
    """Failures with a success between them never open it."""
    breaker = Breaker("b", failures=2)
    for _ in range(5):
        fail(breaker, OSError())
        with breaker:
            pass
    assert breaker.state == "closed"


def test_failures_are_told_by_kind() -> None:
    """A timeout is told from another error, and the original's type is kept."""
    breaker = Breaker("b", failures=99)
    for error, reason in ((TimeoutError(), "timeout"), (OSError("x"), "backend_error")):
        with pytest.raises(BackendError) as told, breaker:
            raise error
        assert (told.value.reason, told.value.error_type) == (reason, type(error).__name__)


def test_cancellation_is_no_failure() -> None:
    """A cancelled call passes, counts nothing, and a cancelled probe lets the next one probe."""
    now = Time()
    breaker = Breaker("b", failures=1, probe_seconds=10, clock=now)
    with pytest.raises(asyncio.CancelledError), breaker:
        raise asyncio.CancelledError
    assert breaker.state == "closed"
    fail(breaker, OSError())
    now.now += 11
    with pytest.raises(asyncio.CancelledError), breaker:
        raise asyncio.CancelledError
    assert breaker.state == "half_open"


def test_an_answer_that_is_an_error_is_a_sign_of_life() -> None:
    """Exceptions that the backend itself answered fail the call, not the backend."""
    breaker = Breaker("b", failures=1, answered=(KeyError,))
    fail(breaker, KeyError("refused"))
    assert breaker.state == "closed"


# -------------------------------------------------------------------------------------- flight


async def test_one_flight_per_key() -> None:
    """Calls for one key share a run, calls for another key have their own."""
    runs: list[str] = []
    flight: SingleFlight[str] = SingleFlight()

    async def work(name: str) -> str:
        runs.append(name)
        await asyncio.sleep(0.01)
        return name

    found = await asyncio.gather(
        *(flight.run(name, lambda name=name: work(name)) for name in ("a", "b", "a", "a"))  # type: ignore[misc]
    )
    assert found == [("a", False), ("b", False), ("a", True), ("a", True)]
    assert runs == ["a", "b"]
    assert await flight.run("a", lambda: work("a")) == ("a", False)


async def test_the_last_caller_turns_out_the_light() -> None:
    """Work is cancelled when its last caller is, and the key is free at once."""
    cancelled = asyncio.Event()
    flight: SingleFlight[None] = SingleFlight()

    async def work() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            cancelled.set()

    callers = [asyncio.ensure_future(flight.run("a", work)) for _ in range(3)]
    await asyncio.sleep(0.01)
    for caller in callers[:2]:
        caller.cancel()
    await asyncio.sleep(0.01)
    assert not cancelled.is_set()
    callers[2].cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    await asyncio.wait_for(cancelled.wait(), 1)


# ------------------------------------------------------------------------------------ contexts


def test_the_churning_key_is_found() -> None:
    """Of many contexts the key that changes with every request is named."""
    watch = ContextWatch()
    for number in range(200):
        watch.note({"locale": "de", "request_id": number, "model": f"m{number % 3}"})
    assert watch.churning() == "request_id"
    assert ContextWatch().churning() == ""


def test_a_churning_list_is_found() -> None:
    """Lists and mappings are told apart by what is in them."""
    watch = ContextWatch()
    for number in range(50):
        watch.note({"locale": "de", "tools": ["search", f"t{number}"], "model": {"name": "m"}})
    assert watch.churning() == "tools"
    watch = ContextWatch()
    for number in range(50):
        watch.note({"tools": ["search"], "model": {"name": f"m{number}"}, "deep": {"a": [{}]}})
    assert watch.churning() == "model"


def test_keys_that_churn_take_no_more_memory() -> None:
    """A key made anew for every request is named as what it is, and not kept for ever."""
    watch = ContextWatch()
    for number in range(10_000):
        watch.note({f"request-{number}": number, "locale": "de"})
    assert watch.churning() == "(the keys themselves)"
    assert len(watch._values) <= 64
    watch = ContextWatch()
    for number in range(1_000):
        watch.note({f"key-{number % 70}": 1, "request_id": number})
    assert watch.churning() == "request_id"


# ------------------------------------------------------------------------------------ embedder


def test_event_loops_in_many_threads_load_one_model() -> None:
    """`start` from several threads at once makes one worker, which loads once."""
    loads: list[str] = []
    together = threading.Barrier(9)

    class Ones:
        def encode(self, texts: Sequence[str]) -> Any:
            return np.ones((len(texts), 1), dtype=np.float32)

        def knows(self, text: str) -> bool:
            return True

        def fits(self, text: str) -> bool:
            return True

    def load(model: str) -> Ones:
        loads.append(model)
        return Ones()

    embedder = ThreadEmbedder("one", load=load)

    def starts() -> None:
        together.wait()
        asyncio.run(embedder.wait_ready())

    threads = [threading.Thread(target=starts) for _ in range(8)]
    # A thread that is slow to be made would let the others in.
    made = threading.Thread.__init__
    with pytest.MonkeyPatch.context() as patch:
        for thread in threads:
            thread.start()

        def slow(self: threading.Thread, *args: Any, **named: Any) -> None:
            time.sleep(0.05)
            made(self, *args, **named)

        patch.setattr(threading.Thread, "__init__", slow)
        together.wait()
        for thread in threads:
            thread.join()
    embedder.close()
    assert loads == ["one"]


@pytest.mark.parametrize(("threads", "after"), [(1, 1), (2, 2), (0, 3)])
def test_torch_threads_are_a_setting(threads: int, after: int) -> None:
    """CACHE_TORCH_THREADS is what torch gets; 0 leaves the application's own number."""
    pytest.importorskip("sentence_transformers")
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        SentenceTransformerEncoder(PACKAGED_MODEL, threads=threads)
        assert torch.get_num_threads() == after
    finally:
        torch.set_num_threads(before)


def test_the_setting_reaches_the_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shared embedder hands the number of threads on; one is the default."""
    asked: list[tuple[str, int]] = []

    def encoder(name: str, threads: int) -> Any:
        asked.append((name, threads))
        raise ConfigurationError("enough seen")

    monkeypatch.setattr("cache_core.embedder.SentenceTransformerEncoder", encoder)
    for made in (shared_embedder("threads-of-torch", 4), ThreadEmbedder("default")):
        with pytest.raises(ConfigurationError, match="enough"):
            asyncio.run(made.wait_ready())
    assert asked == [("threads-of-torch", 4), ("default", 1)]
    assert Settings().torch_threads == 1


def test_the_doubles_work_without_the_extra() -> None:
    """`cache_core.testing` imports without numpy, and so do its instrument and its clock."""
    program = (
        "import sys; sys.modules['numpy'] = None\n"
        "from cache_core.testing import HashEmbedder, ManualClock, RecordingInstrument\n"
        "RecordingInstrument(); ManualClock(); HashEmbedder()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


# ------------------------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("REDIS_URL", "redis://h:1/2", "redis_url", "redis://h:1/2"),
        ("CACHE_REDIS_URL", "unix:///run/redis", "redis_url", "unix:///run/redis"),
        ("REDIS_URL", "", "redis_url", None),
        ("CHROMA_URL", "http://h:8000", "chroma_url", "http://h:8000"),
        ("EMBEDDING_MODEL", "/models/x", "embedding_model", "/models/x"),
        ("CACHE_DIR", "/var/x", "dir", Path("/var/x")),
        ("CACHE_KEY", "long enough", "key", "long enough"),
        ("CACHE_TIERS", " L1, l3 ", "tiers", frozenset({"l1", "l3"})),
        ("CACHE_EXACT_BUDGET", "0.1", "exact_budget", 0.1),
        ("CACHE_MAX_ENTRIES", "10", "max_entries", 10),
    ],
)
def test_settings_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, field: str, expected: Any
) -> None:
    """Each setting has its environment variable, the short names included."""
    monkeypatch.setenv(name, value)
    assert getattr(load_settings(), field) == expected


def test_an_argument_beats_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the constructor is given wins over the environment."""
    monkeypatch.setenv("REDIS_URL", "redis://environment")
    monkeypatch.setenv("SEMANTIC_THRESHOLD", "0.8")
    cache = MultiLevelCache("redis://argument", semantic_threshold=0.9)
    assert cache.settings.redis_url == "redis://argument"
    assert cache.tuning.semantic_threshold == 0.9
    assert MultiLevelCache().tuning.semantic_threshold == 0.8


def test_shared_intents_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Naming intents to share switches sharing by intent on."""
    assert MultiLevelCache().tuning.sharing == "private"
    monkeypatch.setenv("CACHE_SHARED_INTENTS", "faq, hours ,")
    tuning = MultiLevelCache().tuning
    assert (tuning.sharing, tuning.shared_intents) == ("intents", {"faq", "hours"})


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the key nor a URL's password is printed, not even in a refusal."""
    assert "hidden-key" not in repr(load_settings(key="hidden-key"))
    with pytest.raises(ConfigurationError) as refused:
        load_settings(redis_url="redis//user:hunter2@host")
    assert "hunter2" not in str(refused.value)


def test_the_namespace_is_checked() -> None:
    """A namespace that would not be safe in a key is refused with what is allowed."""
    for name in ("", "a b", "a:b", "{a}", "x" * 65, "\u00fc"):
        with pytest.raises(ConfigurationError, match="namespace"):
            MultiLevelCache(namespace=name)


# ----------------------------------------------------------------------------------- get_cache


async def test_get_cache_is_one_per_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """get_cache returns the same open cache until close_cache, which may be called twice."""
    monkeypatch.setenv("CACHE_TIERS", "l1,l3,l4")
    first, again = await asyncio.gather(get_cache(), get_cache())
    assert first is again
    assert first.is_open
    await close_cache()
    assert not first.is_open
    await close_cache()
    second = await get_cache()
    assert second is not first
    await close_cache()


def test_each_loop_has_a_cache_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two event loops, one after the other, get different caches on the same data."""
    monkeypatch.setenv("CACHE_TIERS", "l1,l3,l4")

    async def put() -> MultiLevelCache:
        cache = await get_cache()
        await cache.put("alpha", "ann", "answer")
        await close_cache()
        return cache

    async def get() -> tuple[MultiLevelCache, str | None]:
        cache = await get_cache()
        found = await cache.get_multilevel("alpha", "ann")
        await close_cache()
        return cache, found

    first = asyncio.run(put())
    second, found = asyncio.run(get())
    assert first is not second
    assert found == "answer"


def test_one_cache_in_two_runs_of_asyncio(
    store_kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """A cache that was closed in one asyncio.run works in the next one."""
    url = request.getfixturevalue("empty_redis") if store_kind == "redis" else None
    fixed = Settings(dir=tmp_path, redis_url=url)
    cache = MultiLevelCache(settings=fixed, embedding_model=HashEmbedder(), instruments=())

    async def put() -> None:
        await cache.put("alpha", "ann", "answer")
        await cache.close()

    async def get() -> str | None:
        found = await cache.get_multilevel("alpha", "ann")
        await cache.close()
        return found

    asyncio.run(put())
    assert asyncio.run(get()) == "answer"


def test_a_cache_left_open_by_an_ended_loop(tmp_path: Path) -> None:
    """A cache that nobody closed before its loop ended still works in the next loop."""
    cache = MultiLevelCache(
        settings=Settings(dir=tmp_path), embedding_model=HashEmbedder(), instruments=()
    )

    async def put() -> None:
        await cache.put("alpha beta", "ann", "answer", shared=True)

    async def get() -> tuple[str | None, str | None]:
        await cache.ready()
        exact = await cache.get_multilevel("alpha beta", "bob")
        similar = await cache.get_multilevel("beta alpha", "bob")
        await cache.close()
        return exact, similar

    asyncio.run(put())
    assert asyncio.run(get()) == ("answer", "answer")


async def test_use_reopens_a_closed_cache(make_cache: Any) -> None:
    """Closing is idempotent, and the next use opens the cache again with what it had."""
    cache = await make_cache()
    await cache.put("alpha", "ann", "answer")
    await cache.close()
    await cache.close()
    assert not cache.is_open
    assert (cache.redis_client, cache.chroma_collection) == (None, None)
    assert await cache.get_multilevel("alpha", "ann") == "answer"


def test_a_result_shows_what_is_of_use() -> None:
    """The sighting is for put alone: kept, compared and pickled, but not shown."""
    sighting = Sighting("a-tag", "ann", None, "12")
    result = LookupResult(None, "faq", None, "partial", lookup_id="r-1", sighting=sighting)
    assert repr(result).startswith("LookupResult(response=None, intent='faq', rag_results=None, ")
    assert "lookup_id='r-1'" in repr(result)
    assert "sighting" not in repr(result)
    assert "a-tag" not in str(result)
    assert result != result._replace(sighting=None)
    assert pickle.loads(pickle.dumps(result)) == result


def test_the_public_names_exist() -> None:
    """Everything in __all__ can be imported."""
    assert all(hasattr(cache_core, name) for name in cache_core.__all__)
