"""Encryption at rest: nothing readable in any store, nothing forged, keys that rotate."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from cache_core import MultiLevelCache
from cache_core.config.settings import Settings
from cache_core.model import envelope
from cache_core.model.exceptions import ConfigurationError
from cache_core.model.logs import RateLimited
from cache_core.model.sealing import Sealer, SealError, UnknownKeyError
from cache_core.model.values import Entry
from cache_core.tiers import base
from tests.operations.invalidate.test_erase import CANARIES, everything
from tests.support import servers
from tests.support.caches import CacheFactory
from tests.support.patience import PATIENT
from tests.support.waiting import until

KEYS = [base64.b64encode(bytes([number]) * 32).decode() for number in range(3)]


def encrypted(*keys: str) -> dict[str, Any]:
    return {**PATIENT, "encryption_keys": ",".join(keys)}


# -------------------------------------------------------------------------------------- sealing


@pytest.mark.parametrize("text", ["", "a", "\ud800 lone", "x" * 100_000])
def test_what_is_sealed_opens(text: str) -> None:
    """A sealed text opens with its key among others, and is never sealed the same twice."""
    sealed = Sealer(KEYS[:1]).seal(text, "here")
    assert sealed.isascii()
    assert Sealer([KEYS[1], KEYS[0]]).open(sealed, "here") == text
    assert sealed != Sealer(KEYS[:1]).seal(text, "here")


def test_what_was_changed_or_moved_does_not_open() -> None:
    """A sealed text opens at its place only, and no changed character goes unnoticed."""
    sealer = Sealer(KEYS[:1])
    sealed = sealer.seal("text", "here")
    with pytest.raises(SealError):
        sealer.open(sealed, "there")
    for place in range(9, len(sealed)):
        # They differ in the bits that count also in the last character, of which two don't.
        other = "A" if sealed[place] != "A" else "Q"
        changed = sealed[:place] + other + sealed[place + 1 :]
        with pytest.raises(SealError):
            sealer.open(changed, "here")
    for broken in ("", ".", sealed[:9], sealed[:20], sealed + "=", "x" * 50):
        with pytest.raises(SealError):
            sealer.open(broken, "here")
    with pytest.raises(UnknownKeyError):
        Sealer(KEYS[1:2]).open(sealed, "here")


@pytest.mark.parametrize("field", ["k", "s", "g", "t", "x", "w", "p", "o", "r"])
def test_the_whole_envelope_is_bound(field: str) -> None:
    """A writer to the store cannot change an answer's user, age or message."""
    sealer = Sealer(KEYS[:1])
    entry = Entry(response="text", scope="s", generation="g", created=1.0, writer="w")
    changed = json.loads(envelope.encode(entry, "key", sealer))
    other = {"t": 2.0, "x": 5.0, "p": 1, "o": "warm"}.get(field, "other")
    changed[field] = other
    key = other if field == "k" else "key"
    with pytest.raises(envelope.CorruptError):
        envelope.decode(json.dumps(changed), str(key), ("s", "other"), sealer)


def test_a_readable_body_is_refused_where_bodies_are_sealed() -> None:
    """With encryption on an envelope with a plain body is corrupt."""
    text = envelope.encode(Entry(response="forged", scope="s", generation="g"), "key")
    with pytest.raises(envelope.CorruptError):
        envelope.decode(text, "key", ("s",), Sealer(KEYS[:1]))


# ------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize("keys", ["short", KEYS[0][:-4], f"{KEYS[0]},nonsense!"])
def test_an_invalid_key_is_reported_immediately(
    keys: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to do, and without the key."""
    monkeypatch.setenv("CACHE_ENCRYPTION_KEYS", keys)
    with pytest.raises(ConfigurationError, match="openssl rand -base64 32") as told:
        MultiLevelCache()
    assert keys.rpartition(",")[2] not in str(told.value)
    assert keys not in repr(Settings(dir=tmp_path))


# ---------------------------------------------------------------------------------------- cache


@pytest.mark.slow
async def test_nothing_readable_is_stored(
    make_cache: CacheFactory, store_kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """In no tier, index, feed or log; and the cache works as it does without."""
    url = (
        request.getfixturevalue(servers.EMPTY[store_kind]) if store_kind in servers.EMPTY else None
    )
    settings = {**encrypted(KEYS[0]), "capture_message_content": True}
    one: MultiLevelCache = await make_cache(settings=settings)
    other: MultiLevelCache = await make_cache(settings=settings)
    documents = [{"id": "d", "text": "canarydocument"}]
    await one.put("where is the canaryquestion one", "ann", "canaryanswer", "faq", documents)
    await one.put(
        "where is the canaryquestion two", "ann", "canaryanswer", history=["canaryhistory"]
    )
    await one.put(
        "where is the canaryquestion four", "ann", "canaryanswer", "faq", documents, shared=True
    )

    async def arrived() -> bool:
        return (await other.lookup("where is the canaryquestion, four", "bob")).tier == "l2"

    await until(arrived)
    for cache in (one, other):
        assert (await cache.lookup("where is the canaryquestion one", "ann")).tier == "l1"
        assert (await cache.lookup("where is the canaryquestion, one", "ann")).tier == "l2"
        assert (await cache.lookup("where is the canaryquestion, four", "bob")).tier == "l2"
    await one.invalidate("where is the canaryquestion four")
    lines = await everything(one, url, tmp_path / "cache")
    for canary in CANARIES:
        assert [line for line in lines if canary in line] == []
    recorded = await one._parts.decisions.last(10)
    assert any(item.message_text == "where is the canaryquestion, four" for item in recorded)

    async def invalidated() -> bool:
        return (await other.lookup("where is the canaryquestion, four", "bob")).response is None

    await until(invalidated)


async def test_keys_rotate(make_cache: CacheFactory) -> None:
    """A new first key: what the old one sealed is still served, until that key is removed."""
    old: MultiLevelCache = await make_cache(settings=encrypted(KEYS[0]))
    await old.put("alpha beta", "ann", "before")
    both: MultiLevelCache = await make_cache(settings=encrypted(KEYS[1], KEYS[0]))
    assert await both.get_multilevel("alpha beta", "ann") == "before"
    await both.put("gamma delta", "ann", "after")
    new: MultiLevelCache = await make_cache(settings=encrypted(KEYS[1]))
    assert await new.get_multilevel("gamma delta", "ann") == "after"
    assert (await new.lookup("alpha beta", "ann")).response is None


@pytest.mark.slow
async def test_keys_rotate_under_load(make_cache: CacheFactory) -> None:
    """Replica after replica gets the new key, and loses the old one; users notice nothing but misses."""
    messages = [f"subject{number} matter{number}" for number in range(6)]
    serving: list[MultiLevelCache] = [
        await make_cache(settings=encrypted(KEYS[0])) for _ in range(2)
    ]
    busy: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    over = asyncio.Event()

    async def load(number: int) -> None:
        dice = random.Random(number)
        while not over.is_set():
            cache, message = serving[number % 2], dice.choice(messages)
            user = dice.choice(["ann", "bob"])
            right = f"{message} for {'all' if message < 'subject3' else user}"
            busy[cache.replica] += 1
            if dice.random() < 0.3:
                await cache.put(message, user, right, shared=message < "subject3")
            else:
                asked = " ".join(sorted(message.split(), reverse=dice.random() < 0.5))
                found = await cache.lookup(asked, user)
                assert found.response in {None, right}
                outcomes[found.outcome] += 1
            busy[cache.replica] -= 1
            await asyncio.sleep(0.005)

    async with asyncio.TaskGroup() as tasks:
        for number in range(6):
            tasks.create_task(load(number))
        for keys in ([KEYS[1], KEYS[0]], [KEYS[1]]):
            for place in range(2):
                await asyncio.sleep(0.4)
                before = serving[place]
                serving[place] = await make_cache(settings=encrypted(*keys))
                while busy[before.replica]:
                    await asyncio.sleep(0.005)
                await before.close()
        await asyncio.sleep(0.4)
        over.set()
    assert outcomes["hit"] > outcomes["error"] == 0
    for cache in serving:
        assert await cache.decisions(100)
        for message in messages:
            shared = message < "subject3"
            await cache.put(message, "ann", f"{message} last", shared=shared)
        for message in messages:
            assert await cache.get_multilevel(message, "ann") == f"{message} last"


@pytest.mark.slow
@pytest.mark.parametrize("keys", [(), (KEYS[1],)], ids=["no key", "another key"])
async def test_without_the_key_it_is_a_miss_that_deletes_nothing(
    make_cache: CacheFactory,
    keys: tuple[str, ...],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`corrupt`, with a line in the log; processes with the key are still served."""
    monkeypatch.setattr(base, "log", RateLimited(logging.getLogger("glasscache")))
    right: MultiLevelCache = await make_cache(settings=encrypted(KEYS[0]))
    await right.put("alpha beta", "ann", "private", "faq")
    await right.put("gamma delta", "ann", "for all", shared=True)
    wrong: MultiLevelCache = await make_cache(settings=encrypted(*keys) if keys else PATIENT)
    for message, user in (("alpha beta", "ann"), ("beta alpha", "ann"), ("delta gamma", "bob")):

        async def corrupt(message: str = message, user: str = user) -> bool:
            found = await wrong.lookup(message, user)
            assert found.response is None, message
            return "corrupt" in found.reasons

        # The shared question arrives by the feed.
        await until(corrupt)
    assert "CACHE_ENCRYPTION_KEYS" in caplog.text
    for message, user in (("alpha beta", "ann"), ("beta alpha", "ann"), ("delta gamma", "bob")):
        assert (await right.lookup(message, user)).response is not None, message
