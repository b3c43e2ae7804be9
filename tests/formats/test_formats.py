"""Stored formats: caches of today read what was written when a format was first released."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from cache_core import MultiLevelCache
from cache_core.observability.history import total
from cache_core.observability.sums import NONE
from tests.formats.parsed import parsed
from tests.formats.worlds import KEY, OTHER_KEY, Embedded, OnServers, World
from tests.formats.write import CONTEXT, DOCUMENTS, HISTORY, THRESHOLD, TYPED, write
from tests.support.inside import inside

pytestmark = pytest.mark.slow

SNAPSHOTS = Path(__file__).parent
VERSIONS = sorted(found.name for found in SNAPSHOTS.glob("v*"))
LATEST = SNAPSHOTS / VERSIONS[-1]
KINDS = ["embedded", "embedded sealed", "servers", "servers sealed"]

TIMELESS = {"v1"}
"""Versions whose votes have no time."""

FIRST = "when does the shop open"
SHARED = "what does the blue tent weigh"
SHARED_OTHERWISE = "the blue tent what does it weigh"
PRIVATE = "how long is the river"
PRIVATE_OTHERWISE = "how long is that river"
TODAY = "is it open today"
LOST = "who sells the lost map"


def make_world(kind: str, directory: Path, request: pytest.FixtureRequest) -> World:
    store, _, sealed = kind.partition(" ")
    if store == "embedded":
        return Embedded(directory, sealed=bool(sealed))
    urls = (request.getfixturevalue("redis_url"), request.getfixturevalue("chroma_url"))
    return OnServers(directory, *urls, sealed=bool(sealed))


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    """Runs a test on the snapshots of each version."""
    return str(request.param)


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, version: str, tmp_path: Path) -> World:
    """A snapshot, restored, a minute after it was written."""
    made = make_world(request.param, tmp_path / "world", request)
    made.restore(SNAPSHOTS / version)
    made.later(60)
    return made


def reading(world: World, **arguments: Any) -> Any:
    """Open a cache that leaves what is pending to others."""
    return world.cache(**{"heartbeat": False, "semantic_threshold": THRESHOLD, **arguments})


async def answer(cache: MultiLevelCache, *where: Any, **more: Any) -> tuple[Any, Any]:
    found = await cache.lookup(*where, **more)
    return found.response, found.tier


async def until(done: Any) -> None:
    async with asyncio.timeout(20):
        while not await done():
            await asyncio.sleep(0.05)


async def test_answers_are_read(world: World) -> None:
    """Each tier serves what it kept, to whom it was kept for."""
    async with reading(world) as cache:
        assert await answer(cache, FIRST, "ann") == ("At nine.", "l1")
        assert await answer(cache, FIRST, "bob") == (None, None)
        assert await answer(cache, SHARED, "bob") == ("Two kilos.", "l1")
        assert await answer(cache, SHARED_OTHERWISE, "bob") == ("Two kilos.", "l2")
        assert await answer(cache, "is parking free", "bob") == ("Parking is free.", "l1")
        assert await answer(cache, "what is the old price", "bob") == (None, None)
        found = await cache.lookup("which label has this ticket", "ann")
        assert (found.outcome, found.intent, found.rag_results) == ("partial", "billing", DOCUMENTS)
        found = await cache.lookup("which label has this ticket", "bob")
        assert (found.outcome, found.intent, found.rag_results) == ("partial", "billing", None)
        found = await cache.lookup("where is the typed form", "ann")
        assert (found.outcome, found.rag_results) == ("partial", TYPED)
        found = await cache.lookup("where is the long form", "ann")
        assert (found.outcome, found.intent, found.rag_results) == ("partial", "forms", None)
        assert found.reasons[-1] == "left_out"
        found = await cache.lookup(SHARED, "bob")
        assert found.own_ttl == 50_000


async def test_contexts_and_histories_are_read(world: World) -> None:
    """An answer in a context, or after other turns, is found there and nowhere else."""
    async with reading(world) as cache:
        asked = "is it open in this context"
        assert await answer(cache, asked, "bob", context=CONTEXT) == ("Yes.", "l1")
        otherwise = "in this context is it open"
        assert await answer(cache, otherwise, "bob", context=CONTEXT) == ("Yes.", "l2")
        assert await answer(cache, asked, "bob") == (None, None)
        asked = "and how heavy is it"
        assert await answer(cache, asked, "ann", history=HISTORY) == ("Nine kilos.", "l1")
        assert await answer(cache, asked, "ann") == (None, None)


async def test_private_vectors_are_their_users(world: World) -> None:
    """A private answer is found by meaning, by its user alone."""
    async with reading(world, semantic_threshold=0.7) as cache:
        assert await answer(cache, PRIVATE_OTHERWISE, "ann") == ("Forty miles.", "l2")
        assert await answer(cache, PRIVATE_OTHERWISE, "bob") == (None, None)
        assert await answer(cache, PRIVATE_OTHERWISE) == (None, None)


async def test_ends_of_life_are_read(world: World) -> None:
    """A TTL of an intent, one of an answer, and the end of a day end the lives of answers."""
    async with reading(world) as cache:
        assert (await answer(cache, TODAY, "bob"))[0] == "Yes, today."
    world.later(7_000)
    async with reading(world, tiers="l1") as cache:
        found = await cache.lookup(TODAY, "bob")
        # Of an hour: the day ended later.
        assert (found.response, found.reasons) == (None, ("expired",))
        assert await answer(cache, FIRST, "ann") == ("At nine.", "l1")
        assert await answer(cache, SHARED, "bob") == ("Two kilos.", "l1")
    async with reading(world) as cache:
        found = await cache.lookup(TODAY, "bob")
        assert (found.response, "day_over" in found.reasons) == (None, True)


async def test_records_are_read(world: World, version: str) -> None:
    """Decisions with their texts, verdicts, and the audit trail."""
    async with reading(world) as cache:
        first, near, last = await cache.decisions()
        assert [item.outcome for item in (first, near, last)] == ["hit", "hit", "miss"]
        assert [item.level for item in (first, near)] == ["l1", "l2"]
        assert (first.intent, first.saved_usd, first.tuning_version) == ("hours", 0.02, 4)
        assert (first.message_text, first.response_text) == (FIRST, "At nine.")
        assert (near.message_text, near.matched_text) == (SHARED_OTHERWISE, SHARED)
        assert (near.response_text, near.scope, near.threshold) == (
            "Two kilos.",
            "shared",
            THRESHOLD,
        )
        assert THRESHOLD < (near.similarity or 0) < 1
        unknown = [item.least_max_wrong is None for item in (first, near, last)]
        assert unknown == [True, version == "v1", version == "v1"]
        assert last.message_text == "what is it that nobody knows"
        assert await cache.feedback(near.lookup_id, correct=True)

        verdicts = await cache.verdicts()
        assert [(item.verdict, item.source, item.level, item.lookup_id) for item in verdicts] == [
            ("wrong", "feedback", "l1", first.lookup_id),
            ("correct", "review", "l1", first.lookup_id),
            ("correct", "feedback", "l2", near.lookup_id),
            ("correct", "feedback", "l2", near.lookup_id),
        ]

        (record,) = await cache.operator.audit_trail(10)
        assert (record.author, record.action, record.note) == (
            "op", "invalidate message", "outdated",
        )  # fmt: skip
        assert (record.removed, record.complete) == (2, True)
        shown = record.target.startswith("message ") and len(record.target) == 20
        assert shown if world.sealed else record.target == "what is the old price"


async def test_the_history_is_read(world: World, version: str) -> None:
    """The sums of all lookups, of verdicts and of intents; of earlier versions there are none."""
    async with reading(world) as cache:
        sums = total(await cache.operator.history(0))
        if version == "v1":
            assert sums == NONE
            return
        assert sums.outcomes == {"hit": 2, "miss": 1}
        assert (sums.hits, sums.reasons) == ({"l1": 1, "l2": 1}, {"below_threshold": 1})
        assert sums.saved == {"l1": 0.02, "l2": 0.036}
        assert sums.verdicts == {"feedback": {"correct": 1, "wrong": 1}, "review": {"correct": 1}}
        hours = sums.intents["hours"]
        assert (hours.l1, hours.computed, hours.correct, hours.wrong) == (1, 2, 1, 1)


async def test_tuning_is_read(world: World, version: str) -> None:
    """The last version is in force, the trail tells of all, and the next one is numbered on."""
    async with reading(world, semantic_threshold=None) as cache:
        assert (cache.tuning.version, cache.tuning.promote_after) == (4, 2)
        assert (cache.tuning.l3_ttl, cache.tuning.ttl("l1", "hours")) == (30_000, 7_200)
        assert cache.tuning_origins["l3_ttl"] == "tuned"
        fourth, third, second, first = await cache.tuning_history()
        assert (fourth.author, fourth.note, fourth.reverts) == ("boss", "it was better", 2)
        assert (fourth.before, fourth.after) == ({"l3_ttl": 25_000}, {"l3_ttl": 30_000})
        assert (third.author, third.note, third.reverts) == ("op", "too long", None)
        assert second.after == {"intent.hours.l1_ttl": 7_200}
        assert first.after == {"promote_after": 2, "l3_ttl": 30_000}
        votes = 0 if version in TIMELESS else 5
        assert first.before == {"promote_after": votes, "l3_ttl": 21_600}
        assert (await cache.revert_tuning(1, author="op")).version == 5
        assert cache.tuning.ttl("l1", "hours") == cache.tuning.l1_ttl


async def test_heartbeats_are_read(world: World) -> None:
    """A tool goes by the values that the replica in the snapshot reported."""
    if isinstance(world, Embedded):
        world.later(-59)
    async with reading(world, semantic_threshold=None) as cache:
        assert cache.tuning.semantic_threshold != THRESHOLD
        await cache.stand_in()
        assert cache.tuning.semantic_threshold == THRESHOLD


async def test_pending_invalidations_are_made(world: World) -> None:
    """A cache makes what another process left in its file, and deletes that."""
    assert world.raw()["files"]
    async with reading(world) as cache:
        assert (await answer(cache, "what did the red lamp cost", "bob"))[0] == "Twelve."
        assert (await answer(cache, "what did the green lamp cost", "ann"))[0] == "Thirteen."
        assert (await cache.lookup("where is the typed form", "ann")).rag_results == TYPED
    async with reading(world, heartbeat=True) as cache:

        async def made() -> bool:
            return not list(world.directory.glob("unconfirmed-*"))

        await until(made)
        assert (await answer(cache, "what did the red lamp cost", "bob"))[0] is None
        assert (await answer(cache, "what did the green lamp cost", "ann"))[0] is None
        assert (await cache.lookup("where is the typed form", "ann")).rag_results is None
        assert (await answer(cache, FIRST, "ann"))[0] == "At nine."


async def test_the_log_of_invalidations_is_read(world: World) -> None:
    """An answer whose index was lost is not served: the log says that its tag was invalidated."""
    async with reading(world) as cache:
        assert await answer(cache, LOST, "ann") == (None, None)
    assert world.lose("*{invalidations}")
    async with reading(world) as cache:
        assert (await answer(cache, LOST, "ann"))[0] == "The kiosk."


@pytest.mark.parametrize(
    ("invalidate", "of_ann"),
    [
        (lambda cache: cache.invalidate(FIRST), False),
        (lambda cache: cache.invalidate_document("doc-hours"), False),
        (lambda cache: cache.invalidate_tag("shop"), False),
        (lambda cache: cache.invalidate_writer("ann"), True),
        (lambda cache: cache.forget_user("ann"), True),
    ],
)
async def test_indexes_are_read(world: World, invalidate: Any, of_ann: bool) -> None:
    """The entries of a document, a tag, a writer or a user are found, and no others."""
    async with reading(world) as cache:
        assert (await invalidate(cache)).removed
        assert (await answer(cache, FIRST, "ann"))[0] is None
        assert (await answer(cache, SHARED, "bob"))[0] == (None if of_ann else "Two kilos.")
        assert (await answer(cache, PRIVATE, "ann"))[0] == (None if of_ann else "Forty miles.")
        assert (await answer(cache, "is parking free", "bob"))[0] == "Parking is free."


async def test_votes_are_read(world: World, version: str) -> None:
    """One more user with the same answer, an hour later, is enough for it to be everybody's.

    Those of 0.2 and before have no time and do not count, but do no harm: two more are enough.
    """
    world.later(3_600)
    async with reading(world, sharing="auto") as cache:
        await cache.put(PRIVATE, "bob", "Forty miles.")
        counts = version not in TIMELESS
        assert (await answer(cache, PRIVATE, "carl"))[0] == ("Forty miles." if counts else None)
    world.later(3_600)
    async with reading(world, sharing="auto") as cache:
        await cache.put(PRIVATE, "dan", "Forty miles.")
        assert (await answer(cache, PRIVATE, "carl"))[0] == "Forty miles."


async def test_leases_are_read(world: World) -> None:
    """Another process waits while the lease of the snapshot lasts, then computes for itself."""
    if isinstance(world, Embedded):
        world.later(-60)
    async with reading(world, compute_wait=0.5) as cache:
        held: list[int] = []

        async def compute() -> str:
            held.append(len(inside(cache).leases._held))
            return "Wide or deep."

        await cache.get_or_compute("how wide is the lake", "ann", compute)
        begun = time.monotonic()
        await cache.get_or_compute("how deep is the lake", "ann", compute)
        assert time.monotonic() - begun >= 0.5
        assert held == [1, 0], "it has the lease of the first, and waits for that of the second"


@pytest.mark.parametrize("world", [kind for kind in KINDS if "sealed" in kind], indirect=True)
async def test_another_key_opens_nothing(world: World) -> None:
    """With another key, or none, what is sealed is a miss and stays for processes with the key."""
    for key in (OTHER_KEY, ""):
        async with reading(world, key=key, semantic_threshold=0.7) as cache:
            # Before this cache writes lookups of its own, which without a key are readable.
            decisions = await cache.decisions()
            assert decisions
            assert FIRST not in [item.message_text for item in decisions]
            for message, user in (
                (FIRST, "ann"),
                (SHARED_OTHERWISE, "bob"),
                (PRIVATE_OTHERWISE, "ann"),
            ):
                found = await cache.lookup(message, user)
                assert (found.response, found.outcome) == (None, "miss"), found
            assert cache.tuning.version == 4
    async with reading(world, key=f"{OTHER_KEY},{KEY}", semantic_threshold=0.7) as cache:
        assert await answer(cache, FIRST, "ann") == ("At nine.", "l1")
        assert await answer(cache, SHARED_OTHERWISE, "bob") == ("Two kilos.", "l2")
        assert await answer(cache, PRIVATE_OTHERWISE, "ann") == ("Forty miles.", "l2")


@pytest.mark.parametrize("world", [kind for kind in KINDS if "embedded" in kind], indirect=True)
async def test_the_feed_is_read(world: Embedded) -> None:
    """A process without a semantic index makes one of what the others logged."""
    world.forget_index()
    async with reading(world) as cache:

        async def known() -> bool:
            return await answer(cache, SHARED_OTHERWISE, "bob") == ("Two kilos.", "l2")

        await until(known)
        assert await answer(cache, "is old price what the", "bob") == (None, None)


@pytest.mark.parametrize("kind", KINDS)
async def test_the_same_is_written(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Data stored by today's cache has the form of the last snapshot, key by key."""
    was = make_world(kind, tmp_path / "was", request)
    was.restore(LATEST)
    expected = parsed(was.raw(), sealed=was.sealed)
    made = make_world(kind, tmp_path / "made", request)
    await write(made, tmp_path)
    now = make_world(kind, tmp_path / "now", request)
    now.restore(tmp_path)
    found = parsed(now.raw(), sealed=now.sealed)
    # Of a heartbeat, which is read within seconds, a later version may tell more.
    (before,), (after,) = (part.pop("heartbeats").values() for part in (expected, found))
    assert before.pop("counters").items() <= after.pop("counters").items()
    assert before == {name: after[name] for name in before}
    for part, values in expected.items():
        assert found[part] == values, part
    assert found.keys() == expected.keys()
