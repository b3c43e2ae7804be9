"""Choice of the stored questions that L2 compares: their owner, context, life and history."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from cache_core import MultiLevelCache, Settings
from cache_core.backends.base import Write
from cache_core.backends.redis.line import Commands, Line
from cache_core.testing import HashEmbedder, ManualClock
from cache_core.tiers.semantic import candidates
from tests.support import servers
from tests.support.caches import CacheFactory
from tests.support.patience import PATIENT


async def test_a_follow_up_is_not_searched(
    make_cache: CacheFactory, embedder: HashEmbedder
) -> None:
    """A message with a history is not even embedded; rewritten to stand alone it is."""
    cache = await make_cache(settings=PATIENT)
    await cache.put("alpha beta", "ann", "answer")
    embedder.calls.clear()
    found = await cache.lookup("beta alpha", "ann", history=["earlier"])
    assert (found.response, found.reasons[1]) == (None, "has_history")
    assert embedder.calls == []
    found = await cache.lookup("and?", "ann", history=["earlier"], standalone="beta alpha")
    assert (found.response, found.tier) == ("answer", "l2")


async def test_a_follow_ups_answer_is_not_found_by_similarity(make_cache: CacheFactory) -> None:
    """An answer put with a history is not served without it."""
    cache = await make_cache(settings=PATIENT)
    await cache.put("alpha beta", "ann", "answer", history=["earlier"])
    assert (await cache.lookup("beta alpha", "ann")).response is None


def punctuated(words: str, count: int) -> list[str]:
    """Return texts of the same words with other marks between them: all have the same vector."""
    first, *others = words.split()
    marks = itertools.product((" ", ", ", "; "), repeat=len(others))
    return [
        first + "".join(mark + word for mark, word in zip(between, others, strict=True))
        for between in itertools.islice(marks, count)
    ]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("dead", ["expired", "invalidated"])
async def test_dead_neighbours_do_not_hide_a_live_one(
    make_cache: CacheFactory, clock: ManualClock, store_kind: str, shared: bool, dead: str
) -> None:
    """Behind forty nearer questions that are dead the live one is found."""
    if store_kind != "embedded" and dead == "expired":
        pytest.skip("a clock of its own; tests.contracts.test_tiers waits for it")
    cache = await make_cache(settings=PATIENT, clock=clock, semantic_threshold=0.8)
    nearer = punctuated("alpha beta gamma delta epsilon", 40)
    for text in nearer:
        await cache.put(text, "ann", "dead", shared=shared, ttl=100)
    await cache.put("alpha beta gamma delta epsilon zeta", "ann", "live", shared=shared)
    if dead == "expired":
        clock.advance(150)
    else:
        keys = cache._parts.keys
        writes = [Write(keys.generation(keys.tag(text)), "i0", 60.0) for text in nearer]
        await cache._parts.store.write(writes)
    found = await cache.lookup("alpha: beta gamma delta epsilon", "ann")
    assert (found.response, found.tier) == ("live", "l2"), found.reasons


async def test_others_private_questions_leave_no_trace(make_cache: CacheFactory) -> None:
    """For another user a private question is as if it had never been asked: no similarity either."""
    cache = await make_cache(settings=PATIENT)
    await cache.put("alpha beta", "ann", "private")
    found = await cache.lookup("beta alpha", "bob")
    assert (found.response, found.reasons) == (None, ("cold",))
    assert cache.recent(1)[0].similarity is None


async def test_too_many_contexts_are_reported(make_cache: CacheFactory) -> None:
    """In a context that got no index L2 says so, and private answers are found all the same."""
    cache = await make_cache(settings={**PATIENT, "max_contexts": 2})
    for context in ("one", "two", "three"):
        await cache.put("alpha beta", "ann", context, context=context, shared=True)
    assert (await cache.lookup("beta alpha", "ann", context="one")).response == "one"
    assert (await cache.lookup("beta alpha", "ann", context="three")).reasons == (
        "cold", "context_limit",
    )  # fmt: skip
    await cache.put("gamma delta", "ann", "private", context="three")
    assert (await cache.lookup("delta gamma", "ann", context="three")).response == "private"


@pytest.mark.server
async def test_shared_answers_while_redis_is_away(tmp_path: Path) -> None:
    """With Redis killed L2 goes on serving shared answers, and says that they are unconfirmed."""
    with servers.redis_server(tmp_path) as url:
        fixed = Settings(dir=tmp_path / "cache", redis_url=url)
        cache = MultiLevelCache(settings=fixed, embedding_model=HashEmbedder(), instruments=())
        await cache.initialize()
        await cache.put("alpha beta", "ann", "shared answer", shared=True)
        await cache.put("gamma delta", "ann", "private answer")
    for _ in range(10):
        found = await cache.lookup("beta alpha", "bob")
        assert (found.response, found.tier) == ("shared answer", "l2")
        assert "unconfirmed" in found.reasons
        assert (await cache.lookup("delta gamma", "ann")).outcome == "error"
    await cache.close()


async def test_guards_compare_what_may_be_served_alone(
    make_cache: CacheFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hit compares the nearest of five neighbours, a miss those that are near enough."""
    cache = await make_cache(settings=PATIENT | {"decisions": 0}, semantic_threshold=0.8)
    near, *others = punctuated("alpha beta gamma delta", 5)
    for text in (near, *others):
        await cache.put(text, None, "answer", shared=True)
    compared: list[str] = []

    def veto(_: str, stored: str, __: object) -> str:
        compared.append(stored)
        return vetoes

    monkeypatch.setattr(candidates, "veto", veto)
    vetoes = ""
    assert (await cache.lookup("alpha: beta gamma delta", "ann")).tier == "l2"
    assert len(compared) == 1
    vetoes = "numbers"
    found = await cache.lookup("alpha: beta: gamma delta", "ann")
    assert (found.response, found.reasons[1]) == (None, "guard_veto")
    assert len(set(compared)) == len(compared) - 1 == 5


async def test_l3_l4_and_a_users_questions_share_a_round_trip(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond L1 a lookup has one trip for all that is read beside the embedding."""
    trips: list[list[tuple[str, ...]]] = []
    run = Line.run

    async def counted(line: Line, commands: Commands) -> list[object]:
        trips.append([tuple(map(str, command)) for command in commands])
        return await run(line, commands)

    fixed = Settings(dir=tmp_path, redis_url=redis_url, tiers=("l1", "l2", "l3", "l4"))
    async with MultiLevelCache(
        settings=fixed, embedding_model=HashEmbedder(), instruments=(), namespace="trips"
    ) as cache:
        monkeypatch.setattr(Line, "run", counted)
        await cache.lookup("alpha beta", "ann")
    beyond = [trip for trip in trips if any(":l3:" in name for part in trip for name in part)]
    assert [[command for command, *_ in trip] for trip in beyond] == [["MGET", "HGETALL"]]
    assert any(":l4:" in name for name in beyond[0][0])
