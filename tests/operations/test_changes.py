"""Answers that changed: a fresh one invalidates every copy of the old one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cache_core import Answer, MultiLevelCache
from cache_core.backends.base import Vector
from cache_core.backends.embedder.encoder import PACKAGED_MODEL
from cache_core.backends.embedder.pool import ThreadEmbedder
from cache_core.operations.changes import SIDE_BY_SIDE
from cache_core.policy.freshness import ENOUGH, Freshness
from cache_core.testing import ChaosStore, Faults, HashEmbedder, ManualClock
from tests.support.caches import CacheFactory
from tests.support.patience import PATIENT
from tests.support.waiting import until

OLD = "A parcel to Norway costs 5 euros and takes a week."
NEW = OLD.replace("5", "7")
ASKED = ("what does a parcel to norway cost", "norway parcel price", "is delivery to oslo free")
"""Questions that L2 takes for different ones, with one answer."""

REWORDED = (
    "Sending something to Norway is €5.00; allow a week for the parcel.",
    "To have a parcel sent to Norway you pay €5.00, and wait for a week.",
    "Sending things to Norway is 5 EUR; allow a week for that parcel.",
)
TURNED = OLD.replace("takes", "does not take")

embedded = pytest.mark.parametrize("store_kind", ["embedded"])


async def stored(cache: MultiLevelCache, **how: Any) -> None:
    """Store the old answer for every question."""
    for message in ASKED:
        await cache.put(message, "ann", OLD, "shipping", shared=True, **how)


async def served(cache: MultiLevelCache, user: str = "bob") -> list[str | None]:
    return [(await cache.lookup(message, user)).response for message in ASKED]


def counted(cache: MultiLevelCache) -> dict[str, int]:
    return {
        name: count
        for name, count in cache.get_metrics()["freshness"].get("shipping", {}).items()
        if name != "recommended_ttl" and (name not in {"failed", "unknown"} or count)
    }


async def compared(cache: MultiLevelCache, count: int) -> None:
    """Put something else until so many are counted: each put takes one embedding at most."""

    async def reached() -> bool:
        await cache.put("hello", "ann", intent="greeting")
        return sum(counted(cache).values()) == count

    await until(reached)


@embedded
@pytest.mark.parametrize("again", ["expired", "regenerated", "put"])
async def test_every_copy_of_a_changed_answer_goes(
    make_cache: CacheFactory, clock: ManualClock, again: str
) -> None:
    """In both tiers and another replica, whatever brought the fresh answer; which stays."""
    cache: MultiLevelCache = await make_cache(settings=PATIENT, clock=clock)
    other: MultiLevelCache = await make_cache(settings=PATIENT, clock=clock)
    await cache.put(ASKED[0], "ann", OLD, "shipping", shared=True, ttl=60)
    await stored(cache, **({"ttl": 90} if again == "expired" else {}))
    await cache.put("may i smoke", "ann", "Yes.", shared=True)
    clock.advance(100 if again == "expired" else SIDE_BY_SIDE + 1)
    for message in ASKED[1:]:
        await cache.put(message, "ann", OLD, "shipping", shared=True)
    assert await served(other) == [None if again == "expired" else OLD, OLD, OLD]

    async def fresh() -> Answer:
        return Answer(NEW, intent="shipping", shared=True)

    if again == "put":
        await cache.put(ASKED[0], "ann", NEW, "shipping", shared=True)
    else:
        await cache.get_or_compute(ASKED[0], "ann", fresh, no_lookup=again == "regenerated")
    for replica in (cache, other):
        assert await served(replica) == [NEW, None, None]
    assert (await other.lookup("may i smoke", "bob")).response == "Yes."
    assert counted(cache)["changed"] == 1
    assert cache.get_metrics()["outcomes"]["error"] == 0


@embedded
async def test_the_same_answer_leaves_the_others(
    make_cache: CacheFactory, clock: ManualClock
) -> None:
    """One in other words, by its name, is unchanged; when it had expired that speaks for its TTL."""
    cache: MultiLevelCache = await make_cache(settings=PATIENT, clock=clock)
    await stored(cache, answer_id="norway", ttl=100)
    clock.advance(60)
    await cache.put(ASKED[0], "ann", NEW, "shipping", shared=True, answer_id="norway", ttl=100)
    assert await served(cache) == [NEW, OLD, OLD]
    clock.advance(60)
    await cache.put(ASKED[1], "ann", NEW, "shipping", shared=True, answer_id="norway", ttl=100)
    assert counted(cache) == {"changed": 0, "unchanged_at_expiry": 1, "unchanged_before": 1}
    await cache.put(ASKED[0], "ann", NEW, "shipping", shared=True, answer_id="norway-2")
    assert await served(cache) == [NEW, None, None]


@embedded
async def test_a_document_that_was_changed_takes_the_copies_with_it(
    make_cache: CacheFactory, clock: ManualClock
) -> None:
    """Answers from the same documents are the same only if their facts agree, too."""
    cache: MultiLevelCache = await make_cache(settings=PATIENT, clock=clock)
    await stored(cache, document_ids=["prices"])
    clock.advance(SIDE_BY_SIDE + 1)
    how: dict[str, Any] = {"shared": True, "document_ids": ["prices"]}
    await cache.put(ASKED[0], "ann", REWORDED[2], "shipping", **how)
    assert await served(cache) == [REWORDED[2], OLD, OLD]
    clock.advance(SIDE_BY_SIDE + 1)
    await cache.put(ASKED[1], "ann", TURNED, "shipping", **how)
    assert await served(cache) == [None, TURNED, None]


@embedded
@pytest.mark.slow
async def test_the_same_answer_in_other_words_leaves_the_others(
    make_cache: CacheFactory, clock: ManualClock, real_embedder: ThreadEmbedder
) -> None:
    """A model words it differently each time; once it has changed, the copies of all wordings go."""
    cache: MultiLevelCache = await make_cache(
        settings=PATIENT, clock=clock, embedding_model=real_embedder
    )
    await cache.ready()
    await stored(cache)
    expected = [OLD, OLD, OLD]
    for place, text in enumerate(REWORDED):
        clock.advance(SIDE_BY_SIDE + 1)
        await cache.put(ASKED[place], "ann", text, "shipping", shared=True)
        expected[place] = text
        await compared(cache, place + 1)
        assert await served(cache) == expected
    assert counted(cache) == {"changed": 0, "unchanged_at_expiry": 0, "unchanged_before": 3}
    clock.advance(SIDE_BY_SIDE + 1)
    await cache.put(ASKED[0], "ann", REWORDED[0].replace("5.00", "7.00"), "shipping", shared=True)
    assert await served(cache) == [REWORDED[0].replace("5.00", "7.00"), None, None]
    assert counted(cache)["changed"] == 1


@embedded
async def test_what_may_have_changed_takes_its_copies_with_it(
    make_cache: CacheFactory, clock: ManualClock
) -> None:
    """An answer that is negated now; nothing is learned of the TTL."""
    cache: MultiLevelCache = await make_cache(settings=PATIENT, clock=clock)
    await stored(cache)
    clock.advance(SIDE_BY_SIDE + 1)
    await cache.put(ASKED[0], "ann", TURNED, "shipping", shared=True)
    assert await served(cache) == [TURNED, None, None]
    unchanged = {"unchanged_at_expiry": 0, "unchanged_before": 0}
    assert counted(cache) == {"changed": 0, **unchanged, "unknown": 1}


class GatedEmbedder(HashEmbedder):
    """Stands for the packaged model: holds answers back, and finds those on parcels alike."""

    def __init__(self) -> None:
        super().__init__(PACKAGED_MODEL)
        self.gate = asyncio.Event()

    async def embed(self, text: str) -> Vector:
        if "week" in text:
            await self.gate.wait()
            return await super().embed("week")
        return await super().embed(text)


@embedded
@pytest.mark.parametrize(
    "fresh",
    [
        "Please ask the people in our shop about the forms for Norway.",
        "To Norway it will be a week until your parcel is there.",
    ],
)
async def test_vectors_are_compared_after_the_put(
    make_cache: CacheFactory, clock: ManualClock, fresh: str
) -> None:
    """The copies stay until then, and go unless they are alike."""
    model = GatedEmbedder()
    cache: MultiLevelCache = await make_cache(settings=PATIENT, clock=clock, embedding_model=model)
    old = OLD.replace(" costs 5 euros and", "")
    for message in ASKED:
        await cache.put(message, "ann", old, "shipping", shared=True)
    clock.advance(SIDE_BY_SIDE + 1)
    await cache.put(ASKED[0], "ann", fresh, "shipping", shared=True)
    assert await served(cache) == [fresh, old, old]
    model.gate.set()
    alike = "parcel" in fresh
    await compared(cache, 1)
    assert counted(cache)["unchanged_before" if alike else "changed"] == 1
    kept = old if alike else None
    await until(lambda: _is_served(cache, [fresh, kept, kept]))


async def _is_served(cache: MultiLevelCache, expected: list[str | None]) -> bool:
    return await served(cache) == expected


@embedded
async def test_closing_ends_a_comparison_that_waits_for_the_model(
    make_cache: CacheFactory, clock: ManualClock
) -> None:
    """It counts as failed: copies of an answer that changed may be left."""
    cache: MultiLevelCache = await make_cache(
        settings=PATIENT, clock=clock, embedding_model=GatedEmbedder()
    )
    await stored(cache)
    clock.advance(SIDE_BY_SIDE + 1)
    await cache.put(ASKED[0], "ann", REWORDED[2], "shipping", shared=True)
    assert sum(counted(cache).values()) == 0
    await asyncio.wait_for(cache.close(), 5.0)
    assert counted(cache)["failed"] == 1


@embedded
async def test_what_is_short_or_private_only_replaces_itself(
    make_cache: CacheFactory, clock: ManualClock
) -> None:
    """An answer such as "Yes." is one to many questions, and a private answer says nothing of other users'."""
    cache: MultiLevelCache = await make_cache(settings=PATIENT, clock=clock)
    for message in ASKED:
        await cache.put(message, "ann", "Yes.", "shipping", shared=True)
        await cache.put(message, "bob", OLD, "shipping")
    clock.advance(SIDE_BY_SIDE + 1)
    await cache.put(ASKED[0], "ann", "No.", "shipping", shared=True)
    await cache.put(ASKED[0], "bob", NEW, "shipping")
    assert await served(cache, "ann") == ["No.", "Yes.", "Yes."]
    assert await served(cache, "bob") == [NEW, OLD, OLD]
    assert (counted(cache)["changed"], counted(cache)["unknown"]) == (1, 1)


@embedded
async def test_two_computations_at_the_same_time_change_nothing(make_cache: CacheFactory) -> None:
    """A model words one answer twice in different ways: what was just stored has not aged."""
    cache: MultiLevelCache = await make_cache(settings=PATIENT)
    await stored(cache)
    await cache.put(ASKED[0], "ann", NEW, "shipping", shared=True)
    assert await served(cache) == [NEW, OLD, OLD]
    assert counted(cache) == {}


@embedded
async def test_only_copies_go(make_cache: CacheFactory, clock: ManualClock) -> None:
    """Variants and histories have copies, too; another context has none, nor has what replaced one."""
    cache: MultiLevelCache = await make_cache(settings=PATIENT, clock=clock)
    turns = [{"role": "user", "content": "i live in norway"}]
    where: list[dict[str, Any]] = [{}, {"history": turns}, {"context": "another tenant"}]
    variant = ASKED[0].upper()
    for message, more in (
        (ASKED[0], {}),
        (ASKED[1], {}),
        (variant, {}),
        *((ASKED[2], item) for item in where),
    ):
        await cache.put(message, "ann", OLD, "shipping", shared=True, **more)
    clock.advance(SIDE_BY_SIDE / 2)
    await cache.put(ASKED[1], "ann", NEW, "shipping", shared=True)
    await cache.invalidate(ASKED[2])
    await cache.put(ASKED[2], "ann", OLD, shared=True, history=turns)
    await cache.put("norway", "ann", OLD, shared=True, context="another tenant")
    clock.advance(SIDE_BY_SIDE)
    await cache.put(ASKED[0], "ann", NEW.upper() + "!", "shipping", shared=True)
    assert (await cache.lookup(variant, "bob")).tier != "l1"
    assert (await cache.lookup(ASKED[1], "bob")).response == NEW
    assert (await cache.lookup(ASKED[2], "bob", history=turns)).response is None
    assert (await cache.lookup("norway", "bob", context="another tenant")).response == OLD


@embedded
async def test_copies_made_anew_at_once_are_all_stored(
    make_cache: CacheFactory, clock: ManualClock
) -> None:
    """Each fresh answer is out of reach of the withdrawals that the others bring."""
    cache: MultiLevelCache = await make_cache(settings=PATIENT, clock=clock)
    await stored(cache)
    clock.advance(SIDE_BY_SIDE + 1)
    seen = [await cache.lookup(message, "bob") for message in ASKED]
    fresh = [f"{NEW} As asked: {message}." for message in ASKED]
    asked = zip(ASKED, fresh, seen, strict=True)
    await asyncio.gather(
        *(cache.put(one, "bob", text, shared=True, lookup=was) for one, text, was in asked)
    )
    assert await served(cache) == fresh


@embedded
@pytest.mark.parametrize("fault", [{"throw": 1.0}, {"delay": (10.0, 10.0)}], ids=["fails", "late"])
async def test_a_comparison_that_fails_is_logged(
    make_cache: CacheFactory, clock: ManualClock, fault: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """The fresh answer is stored nevertheless; it is counted, and the log says what was left out."""
    faults = Faults(only=frozenset({"delete_rows"}), **fault)
    cache: MultiLevelCache = await make_cache(
        settings={**PATIENT, "put_budget": 2.0},
        clock=clock,
        wrap_store=lambda store: ChaosStore(store, faults),
    )
    await stored(cache)
    clock.advance(SIDE_BY_SIDE + 1)
    await cache.put(ASKED[0], "ann", NEW, "shipping", shared=True)
    assert "copies of an answer that may have changed" in caplog.text
    assert {name: count for name, count in counted(cache).items() if count} == {"failed": 1}
    faults.never()


@embedded
async def test_an_answer_from_before_an_invalidation_takes_nothing_with_it(
    make_cache: CacheFactory, clock: ManualClock
) -> None:
    """It is not stored either, though what replaced it since has copies."""
    cache: MultiLevelCache = await make_cache(settings=PATIENT, clock=clock)
    turns = [{"role": "user", "content": "i live in norway"}]
    slow = await cache.lookup(ASKED[0], "ann", history=turns)

    async def meanwhile() -> None:
        await cache.invalidate(ASKED[0])
        await cache.put(ASKED[0], "ann", NEW, shared=True, history=turns)
        await cache.put(ASKED[1], "ann", NEW, shared=True)

    await asyncio.create_task(meanwhile())
    clock.advance(SIDE_BY_SIDE + 1)
    await cache.put(ASKED[0], "ann", OLD, shared=True, history=turns, lookup=slow)
    assert (await cache.lookup(ASKED[0], "bob", history=turns)).response == NEW
    assert (await cache.lookup(ASKED[1], "bob")).response == NEW


@embedded
async def test_a_share_of_the_hits_on_popular_answers_looks_for_changes(
    make_cache: CacheFactory, clock: ManualClock
) -> None:
    """At a share of 0.1 an answer's tenth hit recomputes it, whichever question was asked."""
    cache: MultiLevelCache = await make_cache(settings=PATIENT, clock=clock)
    await stored(cache)
    clock.advance(SIDE_BY_SIDE + 1)
    made: list[str] = []

    def compute() -> Answer:
        made.append(NEW)
        return Answer(NEW, intent="shipping", shared=True)

    await cache.tune({"recheck_share": 0.1}, author="ann")
    for number in range(10):
        assert not made
        assert await cache.get_or_compute(ASKED[number % 3], "bob", compute) == OLD
    await until(lambda: cache.metrics.refreshes["stored"] == 1)
    assert await served(cache) == [NEW, None, None]
    assert len(made) == 1


def test_a_ttl_is_recommended_from_what_was_seen() -> None:
    """The more answers had changed at the same age, the shorter; after a few nothing is known."""
    found: list[float] = []
    for changed in (0, 1, 10):
        freshness = Freshness()
        for number in range(ENOUGH):
            assert freshness.ttl is None
            freshness.note(86_400.0, changed=number < changed, expired=True)
        assert freshness.ttl is not None
        found.append(freshness.ttl)
    assert found == sorted(found, reverse=True)
    # Half had changed within a day: a rate of ln 2, so 0.02 / ln 2 of a day, and a little more.
    assert found[-1] == pytest.approx(0.02 / 0.693 * 86_400.0, rel=0.1)
