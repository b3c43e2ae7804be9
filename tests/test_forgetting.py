"""What is left of a user after they were forgotten: the whole store is searched for them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import secrets
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cache_core import MultiLevelCache
from cache_core.embedder import ThreadEmbedder
from tests import servers
from tests.conftest import CacheFactory
from tests.patient import PATIENT

CANARIES = ("canaryquestion", "canaryanswer", "canarydocument", "canaryhistory")


def _redis_lines(url: str) -> Iterator[str]:
    """Yield every key and value of a Redis."""
    with servers.admin(url) as client:
        for key in client.scan_iter():
            kind = client.type(key)
            value: Any = {
                b"string": client.get, b"hash": client.hgetall,
                b"stream": client.xrange,
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
    semantic = cache.parts.semantic
    assert semantic is not None
    await semantic.index.tend(cache.parts.store.now())
    await cache.parts.decisions.flush()
    lines = list(_redis_lines(url) if url else _sqlite_lines(directory))
    query = cache.parts.keys.query("", None, "ctx")
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
    url = request.getfixturevalue("empty_redis") if store_kind == "redis" else None
    cache: MultiLevelCache = await make_cache(settings={**PATIENT, "capture_message_content": True})
    await cache.ready()
    await cache.tune({"promote_after": 3}, author="ana")
    documents = [{"id": "d", "text": "canarydocument"}]
    await cache.put("canaryquestion one", "ann", "canaryanswer", "faq", documents)
    await cache.put("canaryquestion two", "ann", "canaryanswer", context="ctx")
    await cache.put("canaryquestion three", "ann", "canaryanswer", history=["canaryhistory"])
    await cache.put("canaryquestion four", "ann", "canaryanswer", "faq", documents, shared=True)
    await cache.put("something else", "bob", "bobs answer", "faq", shared=True)
    await cache.put("something mine", "bob", "bobs own answer")
    for message in ("canaryquestion one", "one canaryquestion", "canaryquestion nine"):
        found = await cache.lookup(message, "ann")
        await cache.parts.decisions.flush()
        await cache.feedback(found.lookup_id, correct=False)
    await cache.lookup("something mine", "bob")
    digest = cache.parts.keys.user("ann")
    directory = tmp_path / "cache"
    before = await everything(cache, url, directory)
    for sought in (digest, *CANARIES[:3]):
        assert any(sought in line for line in before), f"{sought} is not found where it should be"

    done = await cache.forget_user("ann")

    assert done.complete
    assert done.counts["private entries"] == 6
    assert done.counts["shared entries"] >= 3
    assert done.counts["votes"] == 3
    assert done.counts["decisions"] == 3
    assert done.counts["verdicts"] == 2
    assert done.counts["vectors"] == 2
    await asyncio.sleep(0.1)
    after = await everything(cache, url, directory)
    for canary in CANARIES:
        assert [line for line in after if canary in line] == []
    token = cache.parts.keys.user_generation(digest)
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
            await cache.parts.decisions.flush()

    await asyncio.create_task(live())
    assert in_memory(canary)

    assert (await pair[0].forget_user(user())).complete

    for _ in range(10):
        await asyncio.sleep(0.5)
        if not in_memory(canary):
            break
    assert in_memory(canary) == []
