"""What people get wrong: messages, values, settings, machines. A clear word, never a crash."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import cache_core.multilevel_cache as published
from cache_core import ConfigurationError, MultiLevelCache, Settings
from cache_core.embedder import ThreadEmbedder
from cache_core.replay import read_rows
from cache_core.testing import HashEmbedder
from tests import servers
from tests.conftest import CacheFactory
from tests.patient import PATIENT

HUGE = pytest.param(10**400, id="huge")


@pytest.fixture
async def cache(make_cache: CacheFactory) -> MultiLevelCache:
    made: MultiLevelCache = await make_cache(settings=PATIENT)
    return made


# ------------------------------------------------------------------------------------- messages


@pytest.mark.parametrize("message", ["", " ", "\t\n", "\u2003\u00a0", "\u3000"])
async def test_empty_messages_bypass(cache: MultiLevelCache, message: str) -> None:
    """A message without content is neither looked up nor stored."""
    await cache.put(message, "ann", "answer")
    found = await cache.lookup(message, "ann")
    assert (found.outcome, found.reasons, found.response) == ("bypass", ("empty",), None)


async def test_huge_messages_bypass(cache: MultiLevelCache) -> None:
    """A message of a megabyte bypasses at once; one at the limit is cached."""
    huge = "x" * 1_048_576
    started = time.monotonic()
    assert (await cache.lookup(huge, "ann")).reasons == ("too_large",)
    assert (await cache.lookup("\u00fc" * 20_000, "ann")).reasons == ("too_large",)
    await cache.put(huge, "ann", "answer")
    assert await cache.get_or_compute(huge, "ann", lambda: "made") == "made"
    assert time.monotonic() - started < 1
    largest = "x" * 32_768
    await cache.put(largest, "ann", "answer")
    assert await cache.get_multilevel(largest, "ann") == "answer"


@pytest.mark.parametrize(
    "message",
    ["a\x00b", "\x00", "\ud800", "a\udfffb", "\u202eolleh", "\u0645\u0631\u062d\u0628\u0627",
     "e\u0301" * 500, "\U0001f468\u200d\U0001f469\u200d\U0001f467", "{}:*?[]\r\n$-1", "'; DROP TABLE entries; --",
     "?", "...", "\ufeff", "NaN"],
)  # fmt: skip
async def test_odd_messages_are_messages(cache: MultiLevelCache, message: str) -> None:
    """Whatever text a user types is stored, found again, and invalidated."""
    document = {"id": message, "source": message, "text": message}
    await cache.put(message, message, message, message[:256], [document], tags=[message],
                    context=message, history=[message])  # fmt: skip
    where: dict[str, Any] = {"context": message, "history": [message]}
    found = await cache.lookup(message, message, **where)
    assert found.response == message
    assert (await cache.lookup(message, "another", **where)).response is None
    assert (await cache.invalidate(message)).complete
    assert (await cache.lookup(message, message, **where)).response is None
    await cache.put(message, "ann", message, rag_results=[document])
    assert (await cache.invalidate_document(message)).complete
    assert (await cache.lookup(message, "ann")).rag_results is None
    assert await cache.explain(message, message)
    assert (await cache.forget_user(message)).complete


@pytest.mark.parametrize("message", [None, 5, b"bytes", ["list"], {"a": 1}, math.nan, object()])
async def test_what_is_no_text_is_a_type_error(cache: MultiLevelCache, message: Any) -> None:
    """A message of another type raises a TypeError that names it, everywhere, and counts nothing."""
    for use in (
        cache.lookup(message, "ann"), cache.put(message, "ann", "a"),
        cache.invalidate(message), cache.get_multilevel(message, "ann"),
        cache.get_or_compute(message, "ann", lambda: "a"), cache.explain(message, "ann"),
    ):  # fmt: skip
        with pytest.raises(TypeError, match="message"):
            await use
    assert cache.metrics.lookups == 0


@pytest.mark.parametrize("user", [5, b"ann", ["ann"], 1.5, True, object()])
async def test_users_are_texts(cache: MultiLevelCache, user: Any) -> None:
    """A user id of another type raises a TypeError that says what to do."""
    for use in (cache.lookup("alpha", user), cache.put("alpha", user, "a")):
        with pytest.raises(TypeError, match=r"user_id must be a str or None.*str\(user_id\)"):
            await use
    with pytest.raises(TypeError):
        await cache.forget_user(user)


async def test_nobody_cannot_be_forgotten(cache: MultiLevelCache) -> None:
    """Forgetting nobody, or invalidating no document or tag, is a mistake and says so."""
    for use in (cache.forget_user(""), cache.invalidate_document(""), cache.invalidate_tag("")):
        with pytest.raises(TypeError, match="non-empty"):
            await use


@pytest.mark.parametrize("context", [5, ["a"], b"bytes", {"a": object()}, {"a": {1, 2}}])
async def test_contexts_are_text_or_json(cache: MultiLevelCache, context: Any) -> None:
    """A context that is neither text nor JSON raises a TypeError that names it."""
    with pytest.raises(TypeError, match="context"):
        await cache.lookup("alpha", "ann", context=context)


@pytest.mark.parametrize("history", ["one text", {"role": "user"}, [5], [None], [{"a": object()}]])
async def test_histories_are_lists_of_turns(cache: MultiLevelCache, history: Any) -> None:
    """A history that is no list of turns raises a TypeError."""
    with pytest.raises(TypeError):
        await cache.lookup("alpha", "ann", history=history)


@pytest.mark.parametrize("history", [5, 1.5, True, object(), {"role": "user"}, "text", b"text"])
async def test_a_history_of_another_type_is_named(cache: MultiLevelCache, history: Any) -> None:
    """The error says what a history is, and what was given."""
    told = rf"history must be a list of str .*, not {type(history).__name__}"
    with pytest.raises(TypeError, match=told):
        await cache.lookup("alpha", "ann", history=history)


async def test_a_bottomless_context(cache: MultiLevelCache) -> None:
    """Values nested too deeply for JSON are a TypeError, in contexts and in documents."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(TypeError, match="context"):
        await cache.lookup("alpha", "ann", context={"deep": deep})
    with pytest.raises(TypeError, match="rag_results"):
        await cache.put("alpha", "ann", "a", rag_results=deep)
    while deep:
        deep = deep.pop()


# ---------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("ttl", [-1, 0, 0.0, math.nan, math.inf, -math.inf, HUGE, 2_592_001])
async def test_ttls_out_of_range(cache: MultiLevelCache, ttl: Any) -> None:
    """A TTL that is not more than 0 and at most 30 days is a ValueError that names it."""
    with pytest.raises(ValueError, match="ttl"):
        await cache.put("alpha", "ann", "answer", ttl=ttl)
    assert (await cache.lookup("alpha", "ann")).response is None


@pytest.mark.parametrize("cost", [-0.01, math.nan, math.inf, HUGE])
async def test_costs_out_of_range(cache: MultiLevelCache, cost: Any) -> None:
    """A cost that is negative or no finite number is a ValueError that names it."""
    with pytest.raises(ValueError, match="cost_usd"):
        await cache.put("alpha", "ann", "answer", cost_usd=cost)


@pytest.mark.parametrize(
    "values",
    [
        {"response": 5}, {"response": b"a"}, {"intent": ["faq"]}, {"ttl": "60"}, {"ttl": True},
        {"cost_usd": "free"}, {"tags": "tag"}, {"tags": [5]}, {"tags": b"tag"}, {"tags": None},
        {"rag_results": "text"}, {"rag_results": {"id": 1}}, {"rag_results": [object()]},
        {"rag_results": [math.nan]}, {"rag_results": [{"a": {1}}]}, {"rag_results": 5},
        {"rag_results": [b"bytes"]},
    ],
)  # fmt: skip
async def test_values_of_the_wrong_type(cache: MultiLevelCache, values: Any) -> None:
    """A put of a wrong type raises a TypeError that names the argument, and stores nothing."""
    with pytest.raises(TypeError, match=next(iter(values))):
        await cache.put("alpha", "ann", **{"response": "answer", **values})
    assert (await cache.lookup("alpha", "ann")).outcome == "miss"


async def test_documents_that_contain_themselves(cache: MultiLevelCache) -> None:
    """A cycle in the documents is a TypeError."""
    cycle: list[Any] = []
    cycle.append(cycle)
    with pytest.raises(TypeError, match="rag_results"):
        await cache.put("alpha", "ann", "a", rag_results=cycle)


async def test_tags_may_come_from_a_set(cache: MultiLevelCache) -> None:
    """Tags in any collection invalidate."""
    await cache.put("alpha", "ann", "answer", tags={"one", "two"})
    assert (await cache.invalidate_tag("two")).complete
    assert (await cache.lookup("alpha", "ann")).response is None


async def test_a_put_of_nothing(cache: MultiLevelCache) -> None:
    """A put without a response, intent or documents stores nothing and is no error."""
    await cache.put("alpha", "ann")
    await cache.put("alpha", "ann", "")
    assert (await cache.lookup("alpha", "ann")).reasons == ("cold",)


async def test_answers_that_are_too_large(make_cache: CacheFactory) -> None:
    """An answer above the limit is not stored; the next lookup misses as if nothing happened."""
    cache = await make_cache(settings={**PATIENT, "max_value_bytes": 1_000})
    await cache.put("alpha", "ann", "x" * 1_001)
    await cache.put("beta", "ann", "x", rag_results=["x" * 1_001])
    await cache.put("gamma", "ann", "x" * 1_000)
    assert [(await cache.lookup(text, "ann")).outcome for text in ("alpha", "beta", "gamma")] == [
        "miss", "miss", "hit",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "item",
    [("only two", "ann"), "text", 5, None, ("q", "ann", 5), (5, "ann", "a"), ("q", 5, "a"), {}],
)
async def test_warming_with_a_bad_item_stores_nothing(cache: MultiLevelCache, item: Any) -> None:
    """A bad item among good ones is refused by its number before anything is stored."""
    with pytest.raises((TypeError, ValueError), match="item 1"):
        await cache.warm_cache([("alpha", "ann", "answer"), item])
    assert (await cache.lookup("alpha", "ann")).response is None


# -------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize("value", [-0.01, 1.01, math.nan, 95])
def test_a_threshold_out_of_range(value: float) -> None:
    """A threshold outside 0..1 is refused with its origin: the constructor."""
    with pytest.raises(ConfigurationError, match=r"semantic_threshold=.*the constructor"):
        MultiLevelCache(semantic_threshold=value)


@pytest.mark.parametrize("value", ["1.5", "-1", "high", "nan"])
def test_a_threshold_from_the_environment(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """The same from the environment, which is named."""
    monkeypatch.setenv("SEMANTIC_THRESHOLD", value)
    with pytest.raises(ConfigurationError, match=r"semantic_threshold=.*the environment") as told:
        MultiLevelCache()
    assert "Correct it there, or leave it out for the default, 0.95" in str(told.value)


async def test_a_changed_module_constant(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A constant changed after the constructor is read by initialize, and refused by its name."""
    cache = MultiLevelCache(
        settings=Settings(dir=tmp_path, tiers="l1"),
        embedding_model=HashEmbedder(),
        instruments=(),  # type: ignore[arg-type]
    )
    monkeypatch.setattr(published, "SEMANTIC_THRESHOLD", 95)
    with pytest.raises(ConfigurationError, match=r"semantic_threshold=95.*a module constant"):
        await cache.initialize()
    monkeypatch.setattr(published, "SEMANTIC_THRESHOLD", 0.9)
    monkeypatch.setattr(published, "L1_TTL", 60)
    await cache.initialize()
    assert (cache.tuning.semantic_threshold, cache.tuning.l1_ttl) == (0.9, 60)
    await cache.close()


@pytest.mark.parametrize("url", ["localhost:6379", "http://h", "redis//h", "rediss:/h"])
def test_a_bad_redis_url(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """A URL of another scheme is refused, saying which are understood."""
    with pytest.raises(ConfigurationError, match="redis://"):
        MultiLevelCache(url)
    monkeypatch.setenv("REDIS_URL", url)
    with pytest.raises(ConfigurationError, match="redis://"):
        MultiLevelCache()


async def test_a_redis_url_that_only_looks_right(tmp_path: Path) -> None:
    """A URL with an impossible port is refused, or the cache goes on without its store."""
    try:
        cache = MultiLevelCache("redis://127.0.0.1:notaport", instruments=())
        found = await cache.lookup("alpha", "ann")
    except ConfigurationError as error:
        assert "redis_url" in str(error)  # noqa: PT017
    else:
        assert found.outcome == "error"
        await cache.close()


def test_shared_intents_as_one_text() -> None:
    """shared_intents="faq" would share every letter: it is a TypeError."""
    with pytest.raises(TypeError, match="list of intents"):
        MultiLevelCache(shared_intents="faq")


@pytest.mark.parametrize(
    ("name", "value"),
    [("CACHE_EXACT_BUDGET", "0"), ("CACHE_TIERS", "l1,l9"), ("CACHE_KEY", "short"),
     ("CACHE_MAX_ENTRIES", "-1"), ("CHROMA_URL", "h:8000"), ("CACHE_SHARING", "some"),
     ("CACHE_L1_TTL", "never")],
)  # fmt: skip
def test_bad_environment_values(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """A setting that cannot work is refused at once, by its name."""
    monkeypatch.setenv(name, value)
    field = name.removeprefix("CACHE_").lower()
    with pytest.raises(ConfigurationError, match=f"(?i){field}"):
        MultiLevelCache()


# --------------------------------------------------------------------------------------- machines


@pytest.mark.parametrize("key", [None, "a secret of the operator"])
async def test_redis_away_at_the_start(tmp_path: Path, key: str | None) -> None:
    """Lookups end as errors within their budget, and soon after Redis comes up all is well."""
    port = servers.free_port()
    url = servers.redis_url(port)
    fixed = Settings(dir=tmp_path, redis_url=url, key=key)
    cache = MultiLevelCache(settings=fixed, embedding_model=HashEmbedder(), instruments=())
    await cache.initialize()
    for _ in range(20):
        started = time.monotonic()
        found = await cache.lookup("alpha", "ann")
        assert time.monotonic() - started < 0.6
        assert (found.outcome, found.response) == ("error", None)
    await cache.put("alpha", "ann", "dropped")
    assert await cache.get_or_compute("beta", "ann", lambda: "made") == "made"
    assert not (await cache.invalidate("alpha")).complete
    with servers.redis_server(tmp_path, port=port):
        answered = time.monotonic()
        while time.monotonic() - answered < 3:
            await cache.put("alpha", "ann", "answer")
            if await cache.get_multilevel("alpha", "ann") == "answer":
                break
            await asyncio.sleep(0.02)
        assert time.monotonic() - answered < 1.5
        await cache.close()
    assert sum(cache.metrics.outcomes.values()) == cache.metrics.lookups


async def test_closing_while_redis_is_away(tmp_path: Path) -> None:
    """A cache whose store was never reached closes at once and leaves nothing."""
    fixed = Settings(dir=tmp_path, redis_url=servers.redis_url(servers.free_port()))
    async with MultiLevelCache(
        settings=fixed, embedding_model=HashEmbedder(), instruments=()
    ) as cache:
        assert (await cache.lookup("alpha", "ann")).outcome == "error"
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize("where", ["a file", "/proc/nowhere", "read-only"])
async def test_a_directory_that_cannot_be_used(
    tmp_path: Path, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With an unusable data directory the cache works for this process, and says what to do."""
    wanted = Path(where)
    if where == "a file":
        wanted = tmp_path / "file"
        wanted.write_text("in the way")
    elif where == "read-only":
        wanted = tmp_path / "read-only"
        wanted.mkdir(mode=0o500)
        if os.access(wanted, os.W_OK):
            pytest.skip("this user may write everywhere")
    with caplog.at_level(logging.ERROR):
        async with MultiLevelCache(
            settings=Settings(dir=wanted, **PATIENT),  # type: ignore[arg-type]
            embedding_model=HashEmbedder(), instruments=(),
        ) as cache:  # fmt: skip
            await cache.put("alpha beta", "ann", "answer", shared=True)
            assert (await cache.lookup("alpha beta", "ann")).tier == "l1"
            assert (await cache.lookup("beta alpha", "ann")).tier == "l2"
    assert "CACHE_DIR" in caplog.text


_WITHOUT = """
import asyncio, json, logging, sys

# None means: importing it fails, and there is no spec of it, as if it were not installed.
sys.modules.update(dict.fromkeys(sys.argv[2].split(",")))

class Lines(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lines = []
    def emit(self, record):
        self.lines.append(record.getMessage())

handler = Lines()
logging.getLogger("glasscache").addHandler(handler)

import cache_core

async def main():
    async with cache_core.MultiLevelCache(settings=cache_core.Settings(dir=sys.argv[1])) as cache:
        await cache.put("alpha", "ann", "answer", "faq", [{"id": 1}])
        hit = await cache.lookup("alpha", "ann")
        partial = await cache.lookup("alpha", "bob")
        await cache.invalidate("alpha")
        await cache.forget_user("ann")
        try:
            await cache.ready()
        except cache_core.ConfigurationError as error:
            told = str(error)
        else:
            told = ""
        print(json.dumps([hit.outcome, partial.outcome, told, handler.lines,
                          {e.level: e.outcome for e in await cache.explain("alpha", "ann")}]))

asyncio.run(main())
"""


@pytest.mark.parametrize(
    "missing",
    ["chromadb", "sentence_transformers",
     "numpy,chromadb,sentence_transformers,torch,tokenizers,filelock,transformers"],
)  # fmt: skip
def test_a_missing_extra(tmp_path: Path, missing: str) -> None:
    """Without the semantic extra L2 is off, says once how to get it, and the rest works."""
    child = subprocess.run(
        [sys.executable, "-c", _WITHOUT, str(tmp_path), missing],
        capture_output=True, text=True, timeout=60, cwd=Path(__file__).parent.parent, check=False,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr
    hit, partial, told, lines, explained = json.loads(child.stdout)
    assert (hit, partial, explained["l2"]) == ("hit", "partial", "off")
    assert "glasscache[semantic]" in told
    assert len([line for line in lines if "glasscache[semantic]" in line]) == 1


async def test_an_unknown_embedding_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ready() says what is wrong with the model and what to do; lookups go on without L2."""
    pytest.importorskip("sentence_transformers")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = str(tmp_path / "no-such-model")
    settings = Settings(dir=tmp_path / "cache", embedding_model=model)
    async with MultiLevelCache(settings=settings, instruments=()) as cache:
        with pytest.raises(ConfigurationError) as refused:
            await cache.ready()
        told = str(refused.value)
        assert "no-such-model" in told
        assert "EMBEDDING_MODEL" in told
        await cache.put("alpha", "ann", "answer")
        assert (await cache.lookup("alpha", "ann")).response == "answer"
        assert (await cache.lookup("beta", "ann")).response is None


async def test_an_unknown_model_without_a_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network the loader does not retry for minutes: the hub is asked once."""
    pytest.importorskip("sentence_transformers")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{servers.free_port()}")
    embedder = ThreadEmbedder("no-such-owner/no-such-model")
    started = time.monotonic()
    with pytest.raises(ConfigurationError, match=r"'no-such-owner/no-such-model'.*EMBEDDING_MODEL"):
        await embedder.wait_ready()
    assert time.monotonic() - started < 15, "most of it is importing torch"


# ----------------------------------------------------------------------------------------- replay


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"not json", "line 2: not JSON"),
        (b"[1]", "line 2"),
        (b'"text"', "line 2"),
        (b"{}", "'message'"),
        (b'{"message": 5}', "'message'"),
        (b'{"message": "a", "user_id": 5}', "user_id must be str, not int"),
        (b'{"message": "a", "private": "yes"}', "private must be bool"),
        (b'{"message": "a", "t": true}', "t must be"),
        (b'{"message": "a", "t": Infinity}', "line 2"),
        (b'{"message": "a", "history": "b"}', "history must be list"),
        (b'{"message": "a", "history": [3]}', "line 2: a turn of history must be str or object"),
        (b'{"message": "a", "history": [{"content": NaN}]}', "line 2: history and rag_results"),
        (b'{"message": "a", "rag_results": [1e999]}', "line 2: history and rag_results"),
        (b"[" * 100_000, "line 2"),
        (b"\xff\xfe", "not UTF-8"),
    ],
)  # fmt: skip
def test_a_malformed_replay_file(tmp_path: Path, line: bytes, told: str) -> None:
    """A bad line is refused with its number, what is wrong and what is expected."""
    path = tmp_path / "traffic.jsonl"
    path.write_bytes(b'{"message": "fine", "user_id": "ann"}\n' + line + b"\n")
    with pytest.raises(ConfigurationError) as refused:
        read_rows(path)
    assert told in str(refused.value)


def test_replay_files_that_are_not_there(tmp_path: Path) -> None:
    """A missing file, a directory and an empty file are told apart."""
    (tmp_path / "empty").write_text("\n\n")
    for name, told in (("missing", "No such file"), ("", "directory"), ("empty", "no rows")):
        with pytest.raises(ConfigurationError, match=told):
            read_rows(tmp_path / name)


def test_blank_lines_and_unknown_fields_are_skipped(tmp_path: Path) -> None:
    """Blank lines and fields that nobody knows are no error."""
    path = tmp_path / "traffic.jsonl"
    path.write_text('\n{"message": "a", "user_id": "ann", "colour": "red"}\n\n')
    (row,) = read_rows(path)
    assert (row.message, row.user_id) == ("a", "ann")


def test_a_byte_order_mark_is_no_part_of_a_replay_file(tmp_path: Path) -> None:
    """What an editor on Windows saved is read like any other file, as `warm` reads it."""
    path = tmp_path / "traffic.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"message": "a", "user_id": "ann"}\n')
    (row,) = read_rows(path)
    assert row.message == "a"
