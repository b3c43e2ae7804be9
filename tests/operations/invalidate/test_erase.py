"""Remains of an erased user: the whole store is searched for them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import secrets
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cache_core import MultiLevelCache
from cache_core.backends.embedder.pool import ThreadEmbedder
from cache_core.model.values import Query
from cache_core.operations.put.write import Writer
from tests.support import servers
from tests.support.caches import CacheFactory
from tests.support.inside import inside
from tests.support.patience import PATIENT

CANARIES = ("canaryquestion", "canaryanswer", "canarydocument", "canaryhistory")


def _redis_lines(url: str) -> Iterator[str]:
    """Yield every key and value of a Redis."""
    with servers.admin(url) as client:
        for key in client.scan_iter():
            kind = client.type(key)
            value: Any = {
                b"string": client.get, b"hash": client.hgetall,
                b"stream": client.xrange, b"vectorset": client.dump,
                b"zset": lambda key: client.zrange(key, 0, -1),
            }[kind](key)  # fmt: skip
            yield f"{key!r} {value!r}"


def _sqlite_lines(directory: Path) -> Iterator[str]:
    """Yield every row of every table of the embedded store's file."""
    (path,) = directory.rglob("glasscache.db")
    with contextlib.closing(sqlite3.connect(path)) as file:
        tables = file.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            for row in file.execute(f'SELECT * FROM "{table}"').fetchall():
                yield f"{table} {row!r}"


async def everything(cache: MultiLevelCache, url: str | None, directory: Path) -> list[str]:
    """Return all that is in the keyed store and in the vector index, as text."""
    semantic = cache._parts.semantic
    assert semantic is not None
    await semantic.index.tend(cache._parts.store.now())
    await cache._parts.decisions.flush()
    lines = list(_redis_lines(url) if url else _sqlite_lines(directory))
    query = cache._parts.keys.query("", None, "ctx")
    for context in {*await semantic.index.contexts(), query.context}:
        vector = await semantic.embedder.embed("a")
        lines += [f"chroma {one!r}" for one in await semantic.index.search(context, vector, 100)]
    return lines


async def test_nothing_is_left_of_a_forgotten_user(
    make_cache: CacheFactory, store_kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Neither a text of theirs nor their digest, but in the name of the one token that says so.

    In entries of every tier, private and shared, vectors, indexes, votes, decisions with captured
    texts, verdicts, and the feed. Other users' things stay.
    """
    url = (
        request.getfixturevalue(servers.EMPTY[store_kind]) if store_kind in servers.EMPTY else None
    )
    cache: MultiLevelCache = await make_cache(settings={**PATIENT, "capture_message_content": True})
    await cache.ready()
    await cache.tune({"sharing": "auto", "promote_after": 3}, author="ana")
    documents = [{"id": "d", "text": "canarydocument"}]
    await cache.put("what is canaryquestion one", "ann", "canaryanswer", "faq", documents)
    await cache.put("what is canaryquestion two", "ann", "canaryanswer", context="ctx")
    await cache.put(
        "what is canaryquestion three", "ann", "canaryanswer", history=["canaryhistory"]
    )
    await cache.put(
        "what is canaryquestion four", "ann", "canaryanswer", "faq", documents, shared=True
    )
    await cache.put("something else", "bob", "bobs answer", "faq", shared=True)
    await cache.put("something mine", "bob", "bobs own answer")
    for message in (
        "what is canaryquestion one",
        "what is, canaryquestion one",
        "what is canaryquestion nine",
    ):
        found = await cache.lookup(message, "ann")
        await cache._parts.decisions.flush()
        await cache.feedback(found.lookup_id, correct=False)
    await cache.lookup("something mine", "bob")
    digest = cache._parts.keys.user("ann")
    directory = tmp_path / "cache"
    before = await everything(cache, url, directory)
    for sought in (digest, *CANARIES[:3]):
        assert any(sought in line for line in before), f"{sought} is not found where it should be"

    done = await cache.forget_user("ann")

    assert done.complete
    assert done.counts["private entries"] == 6
    assert done.counts["shared entries"] >= 3
    assert done.counts["votes"] == 2, "an answer in a conversation has none"
    assert done.counts["decisions"] == 3
    assert done.counts["verdicts"] == 2
    assert done.counts["vectors"] == 2
    await asyncio.sleep(0.1)
    after = await everything(cache, url, directory)
    for canary in CANARIES:
        assert [line for line in after if canary in line] == []
    token = cache._parts.keys.user_generation(digest)
    assert [line for line in after if digest in line.replace(token, "")] == []
    assert (await cache.lookup("something else", "eve")).response == "bobs answer"
    assert (await cache.lookup("something mine", "bob")).response == "bobs own answer"
    assert (await cache.forget_user("ann")).removed == 0


def in_memory(canary: bytes) -> list[str]:
    """Return what in this process holds a text with *canary* in it, by type.

    Bytes, so that whoever asks does not hold it itself.
    """
    text, found = canary.decode(), set[str]()
    for holder in gc.get_objects():
        todo = gc.get_referents(holder)
        while todo:
            held = todo.pop()
            # Of `type`: objects of some libraries warn when they are asked for their class.
            if issubclass(type(held), tuple) and not gc.is_tracked(held):
                todo += gc.get_referents(held)
            elif issubclass(type(held), str) and text in held:
                found.add(type(holder).__qualname__)
    return sorted(found)


async def test_no_process_remembers_a_forgotten_user(
    make_cache: CacheFactory, real_embedder: ThreadEmbedder
) -> None:
    """Neither their id nor a text: answers, questions, decisions, and what was made of them."""
    settings = {**PATIENT, "capture_message_content": True}
    pair = [await make_cache(settings=settings, embedding_model=real_embedder) for _ in range(2)]
    canary = secrets.token_hex(8).encode()

    def user() -> str:
        return f"ann {canary.decode()}"

    async def live() -> None:
        question, answer = f"what about {canary.decode()}?", f"it is {canary.decode()}"
        await pair[0].put(question, user(), answer, "faq", [{"id": "d", "text": answer}])
        for cache in pair:
            assert (await cache.lookup(question, user())).response == answer
            await cache.lookup(f"and how about {canary.decode()}?", user())
            await cache._parts.decisions.flush()

    await asyncio.create_task(live())
    assert in_memory(canary)

    assert (await pair[0].forget_user(user())).complete

    for _ in range(10):
        await asyncio.sleep(0.5)
        if not in_memory(canary):
            break
    assert in_memory(canary) == []


async def _feed(cache: MultiLevelCache) -> list[str]:
    semantic = cache._parts.semantic
    assert semantic is not None
    return [text for _, text in await cache._parts.store.last(semantic.feed._log.name, 1_000)]


async def test_others_decisions_lose_the_texts_of_a_forgotten_user(
    make_cache: CacheFactory,
) -> None:
    """A lookup that met the user's shared question stays counted, without question and answer."""
    cache: MultiLevelCache = await make_cache(settings={**PATIENT, "capture_message_content": True})
    await cache.ready()
    await cache.put("kumquat alpha beta", "ann", "zebra lives here", "faq", shared=True)
    await cache.put("own alpha words", "bob", "bobs answer", shared=True)
    await cache.lookup("kumquat, alpha beta", "bob")
    await cache.lookup("kumquat alpha, beta gamma", "eve")
    await cache.lookup("kumquat alpha beta", "eve")
    await cache.lookup("own, alpha words", "eve")
    await cache._parts.decisions.flush()
    before = await cache.decisions()
    assert [item.matched_text for item in before].count("kumquat alpha beta") >= 2

    assert (await cache.forget_user("ann")).complete

    after = await cache.decisions()
    assert [item.lookup_id for item in after] == [item.lookup_id for item in before]
    assert [item.outcome for item in after] == [item.outcome for item in before]
    assert [item.response_text for item in after] == ["", "", "", "bobs answer"]
    assert [item.matched_text for item in after] == ["", "", "", "own alpha words"]
    assert [item.response_text for item in cache.recent(9) if "zebra" in item.response_text] == []


@pytest.mark.parametrize("sealed", [False, True])
async def test_no_log_has_the_text_of_a_message_that_was_invalidated(
    make_cache: CacheFactory, sealed: bool
) -> None:
    """Neither invalidations, feed nor audit trail name what a forgotten user had asked."""
    secret = {"encryption_keys": base64.b64encode(b"k" * 32).decode()} if sealed else {}
    settings = {**PATIENT, "capture_message_content": True, **secret}
    pair = [await make_cache(settings=settings) for _ in range(2)]
    cache = pair[0]
    for one in pair:
        await one.ready()
    await cache.put("kumquat alpha", "ann", "yes")
    await cache.lookup("kumquat beta gamma", "ann")
    await cache.put("zebra delta", "bob", "bobs", shared=True)
    for message, user in (
        ("kumquat alpha", None), ("kumquat beta gamma", None), ("kumquat alpha", "ann"),
        ("other words", None),
    ):  # fmt: skip
        await cache.operator.invalidate("message", message, user, author="ops")
    for one in pair:
        await one._parts.journal.catch_up()

    assert (await cache.forget_user("ann")).complete

    keys, store = cache._parts.keys, cache._parts.store
    for name in ("invalidations", "audit", "decisions"):
        rows = [text for _, text in await store.last(keys.own(name), 1_000)]
        assert [text for text in rows if "kumquat" in text] == [], name
    assert [text for text in await _feed(cache) if "kumquat" in text] == []
    told = await cache.operator.audit_trail(10)
    assert len(told) == 4
    assert sealed or any("other words" in item.target for item in told)
    for one in pair:
        await one._parts.journal.catch_up()
        known = [item.text for _, item in one._parts.journal._known if item is not None]
        assert [text for text in known if text] == ["other words"]
    assert (await pair[1].lookup("zebra delta", "eve")).response == "bobs"


async def test_a_put_from_before_is_refused_where_the_invalidated_text_is_gone(
    make_cache: CacheFactory,
) -> None:
    """An answer computed while its message was invalidated and its user erased is not stored."""
    cache: MultiLevelCache = await make_cache(settings=PATIENT)
    await cache.ready()
    await cache.lookup("kumquat alpha", "ann")
    late = await cache.lookup("kumquat, alpha", "bob")
    await cache.invalidate("kumquat alpha")
    assert (await cache.forget_user("ann")).complete
    await cache.put("kumquat, alpha", "bob", "outdated", lookup=late)
    assert (await cache.lookup("kumquat, alpha", "bob")).response is None
    await cache.put("kumquat, alpha", "bob", "new")
    assert (await cache.lookup("kumquat, alpha", "bob")).response == "new"


async def _settle(*caches: MultiLevelCache) -> None:
    """Write buffered rows, replicate them, and check the written ones, as happens every second."""
    for cache in caches:
        semantic = cache._parts.semantic
        assert semantic is not None
        await semantic.index.tend(cache._parts.store.now())
    for cache in caches:
        await inside(cache).housekeeper._apply_feed()
        semantic = cache._parts.semantic
        assert semantic is not None
        await semantic.tier.tend()


@pytest.mark.parametrize("store_kind", ["embedded", "redis", "redis8", "server of Chroma"])
async def test_nothing_of_others_is_taken(
    make_cache: CacheFactory, store_kind: str, request: pytest.FixtureRequest
) -> None:
    """Another user's later answer to the same message, in any context, is still served."""
    server = store_kind.startswith("server")
    url = request.getfixturevalue("chroma_url") if server else None
    settings, namespace = {**PATIENT, "chroma_url": url}, f"erase-{secrets.token_hex(4)}"
    pair = [await make_cache(settings=settings, namespace=namespace) for _ in range(2)]
    for one in pair:
        await one.ready()
    for context in (None, "one", "two"):
        await pair[0].put("kumquat alpha beta", "ann", "anns", context=context, shared=True)
    semantic = pair[0]._parts.semantic
    assert semantic is not None
    await semantic.index.tend(pair[0]._parts.store.now())
    for one, context in zip(pair, (None, "two"), strict=True):
        await one.put("kumquat alpha beta", "bob", "bobs", context=context, shared=True)
    for one in reversed(pair):
        await _settle(one)
    fed = len(await _feed(pair[0]))

    done = await pair[0].forget_user("ann")

    # In the store an own index has a copy of each answer; a shared one has not.
    assert done.counts["shared entries"] == (2 if semantic.feed.own_index else 1)
    assert done.removed == done.counts["shared entries"] + 1
    await _settle(*pair)
    for one in pair:
        for context, served in ((None, "bobs"), ("one", None), ("two", "bobs")):
            for message in ("kumquat alpha beta", "kumquat alpha, beta"):
                found = await one.lookup(message, "eve", context=context)
                assert found.response == served, (context, message, found)
    if fed:
        assert sum('"put"' in text for text in await _feed(pair[0])) >= 2


async def test_a_put_that_its_forgotten_user_left_behind_takes_nothing(
    make_cache: CacheFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A put that ends after its user was erased cleans up its own answers, not later ones."""
    pair = [await make_cache(settings=PATIENT) for _ in range(2)]
    for one in pair:
        await one.ready()
    cleaned = Writer._leave_nothing_forgotten

    async def late(self: Writer, query: Query, *rest: Any) -> None:
        if query.user == pair[0]._parts.keys.user("ann"):
            assert (await pair[1].forget_user("ann")).complete
            await pair[1].put("kumquat alpha", "bob", "bobs", shared=True)
            await pair[1].put("zebra delta", "bob", "bobs own")
        await cleaned(self, query, *rest)

    monkeypatch.setattr(Writer, "_leave_nothing_forgotten", late)
    await pair[0].put("kumquat alpha", "ann", "anns", shared=True)
    await pair[0].put("zebra delta", "ann", "anns own")
    await pair[0].put("zebra gamma", "ann", "anns", shared=True)
    await _settle(*pair)

    for one in pair:
        for message in ("kumquat alpha", "kumquat, alpha"):
            assert (await one.lookup(message, "eve")).response == "bobs", message
        assert (await one.lookup("zebra delta", "eve")).reasons[0] == "other_scope"
        assert (await one.lookup("zebra, gamma", "eve")).response is None


async def test_the_marks_of_others_stay(make_cache: CacheFactory) -> None:
    """A miss still has another user's answer as its reason, if that user has one."""
    cache: MultiLevelCache = await make_cache(settings=PATIENT)
    for user in ("ann", "bob"):
        await cache.put("kumquat alpha", user, "own")
    await cache.put("zebra delta", "ann", "own")
    assert (await cache.forget_user("ann")).complete
    assert (await cache.lookup("kumquat alpha", "eve")).reasons[0] == "other_scope"
    assert (await cache.lookup("zebra delta", "eve")).reasons[0] == "cold"


async def test_a_process_without_l2_ends_what_others_serve(make_cache: CacheFactory) -> None:
    """Forgotten by a process that has no vector index, a shared answer is served by none."""
    cache: MultiLevelCache = await make_cache(settings=PATIENT)
    await cache.ready()
    other = await make_cache(settings={**PATIENT, "tiers": frozenset({"l1", "l3", "l4"})})
    await cache.put("what is the kumquat price", "ann", "anns", shared=True)
    await cache.put("what is the zebra price", "ann", "anns", shared=True)
    await cache.put("what is the zebra price", "bob", "bobs", shared=True)
    await cache.put("what is the alpha price", "ann", "anns", "faq", shared=True)
    await cache.put("what is the alpha price", "bob", "bobs own", "faq")
    for context in (None, "one"):
        await cache.put("what is the beta price", "ann", "anns", shared=True, context=context)
    await cache.put("what is the beta price", "bob", "bobs", shared=True)
    theirs = (("kumquat", None), ("alpha", None), ("beta", "one"))
    for word, context in theirs:
        found = await cache.lookup(f"what is, the {word} price", "eve", context=context)
        assert found.response == "anns", word
    assert (await other.forget_user("ann")).complete
    for word, context in theirs:
        found = await cache.lookup(f"what is, the {word} price", "eve", context=context)
        assert found.response is None, word
    assert (await cache.lookup("what is, the zebra price", "eve")).response == "bobs"


async def test_chromas_own_log_has_nothing_of_them(
    make_cache: CacheFactory, tmp_path: Path, store_kind: str
) -> None:
    """Chroma's buffered writes are written out with the removal."""
    if store_kind == "redis8":
        pytest.skip("vector sets have no log of their own")
    cache: MultiLevelCache = await make_cache(settings=PATIENT)
    await cache.ready()
    semantic = cache._parts.semantic
    assert semantic is not None
    for context in (None, "one"):
        await cache.put("kumquat alpha", "ann", "zebra", context=context, shared=True)
        await cache.put("other words", "bob", "bobs", context=context, shared=True)
    await semantic.index.tend(cache._parts.store.now())
    assert _chroma_rows(tmp_path, "zebra")
    assert (await cache.forget_user("ann")).complete
    assert _chroma_rows(tmp_path, "zebra") == []
    assert (await cache.lookup("other, words", "eve", context="one")).response == "bobs"


def _chroma_rows(directory: Path, text: str) -> list[str]:
    """Return the tables of every Chroma below *directory* that have a row with *text*."""
    found = []
    for path in directory.rglob("chroma.sqlite3"):
        with contextlib.closing(sqlite3.connect(path)) as file:
            tables = file.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (table,) in tables:
                rows = file.execute(f'SELECT * FROM "{table}"').fetchall()
                found += [table for row in rows if text in repr(row)]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("store_kind", ["embedded"])
async def test_forgetting_and_feedback_leave_the_loop_to_others(
    make_cache: CacheFactory, store_kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the logs are, no more than a page of them is read together."""
    cache: MultiLevelCache = await make_cache()
    store, keys = cache._parts.store, cache._parts.keys
    await cache.lookup("alpha", "ann")
    await cache._parts.decisions.flush()
    ((_, row),) = await store.last(keys.own("decisions"), 1)
    await store.append(keys.own("decisions"), [row] * 2_000, keep=10_000)
    await store.append(keys.own("verdicts"), ["{}"] * 2_000, keep=10_000)
    asked: list[int] = []
    for name in ("last", "after"):
        inner = getattr(type(store), name)

        async def counted(self: Any, *args: Any, inner: Any = inner) -> Any:
            found = await inner(self, *args)
            asked.append(len(found))
            return found

        monkeypatch.setattr(type(store), name, counted)
    turns = 0

    async def watch() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    watching = asyncio.create_task(watch())
    assert not await cache.feedback("nobody-1", correct=True)
    assert (await cache.forget_user("ann")).counts["decisions"] == 2_001
    watching.cancel()
    assert max(asked) <= 500
    assert turns > 30
