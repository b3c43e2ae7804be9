"""Verdicts on hits: feedback, and checks of a random few."""

from __future__ import annotations

import asyncio

import pytest

from cache_core import MultiLevelCache
from cache_core.observability.instruments import Instruments
from cache_core.observability.verdicts import Verifier
from cache_core.testing import ChaosStore, Faults, RecordingInstrument
from tests.support.caches import CacheFactory
from tests.support.inside import inside


async def test_feedback_becomes_a_verdict(cache: MultiLevelCache) -> None:
    """A user's verdict on a hit is counted by source; one on a miss is not."""
    missed = await cache.lookup("alpha beta", "ann")
    await cache.put("alpha beta", "ann", "answer")
    served = await cache.lookup("alpha beta", "ann")
    assert await cache.feedback(served.lookup_id, correct=False)
    assert not await cache.feedback(missed.lookup_id, correct=False)
    assert not await cache.feedback("nobody-1", correct=True)
    assert cache.get_metrics()["verdicts"] == {"feedback": {"wrong": 1}}


async def test_a_review_of_a_near_miss_is_not_counted_as_a_hit(cache: MultiLevelCache) -> None:
    """It is kept for tuning; that a question nearby has another answer makes no wrong hit."""
    await cache.put("alpha beta gamma delta", "ann", "answer")
    served = await cache.lookup("alpha beta gamma delta", "ann")
    missed = await cache.lookup("alpha beta gamma epsilon", "ann")
    assert missed.response is None
    for decision in cache.recent(2):
        right = decision.lookup_id == served.lookup_id
        assert await cache.judge(decision, correct=right, source="review")
    assert sorted(item.verdict for item in await cache.verdicts()) == ["correct", "wrong"]
    assert cache.get_metrics()["verdicts"] == {"review": {"correct": 1}}
    sums = inside(cache)._replica.stats.sums()
    assert (sums.judged, sums.wrong) == (1, 0)


async def test_feedback_while_the_store_is_away_is_counted(make_cache: CacheFactory) -> None:
    """It is lost, says so, and the count of what was dropped knows it."""
    faults = Faults()
    cache = await make_cache(wrap_store=lambda store: ChaosStore(store, faults))
    await cache.put("alpha beta", "ann", "answer")
    served = await cache.lookup("alpha beta", "ann")
    with faults.during("throw"):
        for _ in range(3):
            assert not await cache.feedback(served.lookup_id, correct=True)
        assert cache.state is not None
        assert cache.state.dropped["feedback"] == 3
    assert cache.get_metrics()["verdicts"] == {}


async def test_feedback_finds_a_lookup_of_another_replica(make_cache: CacheFactory) -> None:
    """The decision log is shared, so feedback may arrive anywhere."""
    one, other = await make_cache(), await make_cache()
    await one.put("alpha beta", "ann", "answer")
    served = await one.lookup("alpha beta", "ann")
    await one._parts.decisions.flush()
    assert await other.feedback(served.lookup_id, correct=True)


async def test_semantic_hits_are_checked_after_they_were_served(make_cache: CacheFactory) -> None:
    """A share of L2's hits is verified, off the path; L1's are not, and an exception is no verdict."""
    asked: list[tuple[str, str]] = []
    watching = RecordingInstrument()

    async def verify(message: str, response: str) -> bool:
        asked.append((message, response))
        if message.startswith("gamma"):
            raise RuntimeError(message)
        return response == "answer"

    cache: MultiLevelCache = await make_cache(verify=verify, instruments=[watching])
    await cache.tune({"verify_share": 1.0, "verification_usd": 0.01}, author="test")
    await cache.put("alpha beta", "ann", "answer")
    await cache.put("delta epsilon", "ann", "wrong")
    await cache.put("gamma zeta", "ann", "answer")
    await cache.lookup("alpha beta", "ann")
    for message in ("beta alpha", "epsilon delta", "zeta gamma", "gamma zeta!"):
        assert (await cache.lookup(message, "ann")).response is not None
    for _ in range(200):
        await asyncio.sleep(0.01)
        if len(watching.of("verdict")) == 3:
            break
    assert ("beta alpha", "answer") in asked
    assert cache.get_metrics()["verdicts"] == {"verify": {"correct": 2, "wrong": 1}}
    assert cache.metrics.spent_usd == pytest.approx(0.03)


async def test_checks_are_bounded(make_cache: CacheFactory) -> None:
    """While a check hangs only a few wait; the others are dropped, and lookups don't notice."""
    release = asyncio.Event()

    async def verify(message: str, response: str) -> bool:
        await release.wait()
        return True

    cache: MultiLevelCache = await make_cache(verify=verify)
    await cache.tune({"verify_share": 1.0}, author="test")
    await cache.put("alpha beta", "ann", "answer")
    for number in range(30):
        result = await cache.lookup("beta alpha" + "!" * (number % 2), "ann")
        assert result.tier == "l2"
    verifier = inside(cache).verifier
    assert verifier is not None
    assert verifier.dropped == 30 - 9
    release.set()


async def test_a_check_that_hangs_does_not_end_all_later_ones(cache: MultiLevelCache) -> None:
    """It is given up and counted as dropped, and the next one is made."""
    await cache.put("alpha beta", "ann", "answer")
    served = await cache.lookup("beta alpha", "ann")
    await cache._parts.decisions.flush()
    decision = await cache._parts.decisions.find(served.lookup_id)
    assert decision is not None
    asked: list[str] = []

    async def verify(message: str, response: str) -> bool:
        asked.append(message)
        if message == "hangs":
            await asyncio.Event().wait()
        return True

    verdicts = inside(cache)._verdicts
    watching = RecordingInstrument()
    verifier = Verifier(verify, verdicts, Instruments([watching]), seconds=0.05)
    for message in ("hangs", "beta alpha"):
        verifier.check(message, "answer", decision, 0.0)
    for _ in range(200):
        await asyncio.sleep(0.01)
        if len(asked) == 2 and not verifier._tasks:
            break
    assert (asked, verifier.dropped) == (["hangs", "beta alpha"], 1)
    await verifier.close()
