"""Write the snapshots of the stored formats: `python -m tests.formats.write DIRECTORY`.

Each version of the formats has a directory, and the snapshots in it are never written again:
`v1`, of release 0.1; `v2`, of release 0.2, in which the rows of private vectors end with a
checksum, a lease names a trace, a vote its writer, time and generation, a shared answer has a label
and an index of its copies, the tuning has `max_wrong`, `recheck_share` and `prices`, lookups have a
history of sums, and decisions say what the policy would have done. A change of a released format
gets the next number; `test_formats.py` goes on reading the old ones. It needs `redis-server` and
`chroma`.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cache_core import MultiLevelCache
from cache_core.testing import ChaosStore, Faults
from tests.formats.worlds import Embedded, OnServers, World
from tests.support import servers
from tests.support.inside import inside

THRESHOLD = 0.91
"""Given to the writing caches as an argument: a reader knows it from their heartbeat only."""

CONTEXT = {"model": "m-1", "locale": "en"}
HISTORY = [
    {"role": "user", "content": "Tell me of the red bike"},
    {"role": "assistant", "content": "It has seven gears."},
]
DOCUMENTS = [{"id": "doc-hours", "text": "Opens at nine", "page": 3}]
TYPED = [{"id": "doc-typed", "made": datetime(2023, 11, 14, tzinfo=UTC), "size": (3, 4)}]
COMPUTED = "how deep is the lake"
"""A computation of it runs while the snapshot is made."""

TOO_LARGE = [{"id": "doc-large", "text": "x" * 3_000}]


async def fill(world: World, cache: MultiLevelCache) -> None:
    """Store something of every kind, through the public methods."""
    await cache.tune({"promote_after": 2, "l3_ttl": 30_000.0}, author="op", note="to begin with")
    await cache.tune({"intent.hours.l1_ttl": 7_200.0}, author="op")
    await cache.tune({"l3_ttl": 25_000.0}, author="op", note="too long")
    await cache.revert_tuning(2, author="boss", note="it was better")

    await cache.put(
        "when does the shop open", "ann", "At nine.", "hours", DOCUMENTS, tags=["shop"],
        cost_usd=0.02,
    )  # fmt: skip
    await cache.put(
        "what does the blue tent weigh", "ann", "Two kilos.", "weight", shared=True, ttl=50_000.0
    )
    await cache.put("where is the typed form", "ann", None, None, TYPED)
    await cache.put("where is the long form", "ann", None, "forms", TOO_LARGE)
    await cache.put("is it open today", "ann", "Yes, today.", shared=True)
    await cache.put("is it open in this context", "ann", "Yes.", context=CONTEXT, shared=True)
    await cache.put("and how heavy is it", "ann", "Nine kilos.", history=HISTORY)
    await cache.put("which label has this ticket", "ann", None, "billing", DOCUMENTS)
    await cache.put("how long is the river", "ann", "Forty miles.")
    await cache.warm_cache([("is parking free", "op", "Parking is free.")])

    await cache.put("who sells the lost map", "ann", "The kiosk.", tags=["lost"])
    assert world.lose("*:i:tag")
    # The tag of the first answer is lost, too; it is put again to be found by it.
    await cache.invalidate_tag("lost")
    await cache.put(
        "when does the shop open", "ann", "At nine.", "hours", DOCUMENTS, tags=["shop"],
        cost_usd=0.02,
    )  # fmt: skip

    await cache.put("what is the old price", "ann", "Ten.", shared=True)
    await cache.operator.invalidate(
        "message", "what is the old price", author="op", note="outdated"
    )
    await cache.put("what did the red lamp cost", "ann", "Twelve.", shared=True)
    await cache.put("what did the green lamp cost", "ann", "Thirteen.")

    hit = await cache.lookup("when does the shop open", "ann")
    assert (hit.outcome, hit.tier) == ("hit", "l1")
    assert await cache.feedback(hit.lookup_id, correct=False)
    assert await cache.feedback(hit.lookup_id, correct=True, source="review")
    near = await cache.lookup("the blue tent what does it weigh", "bob")
    assert (near.outcome, near.tier) == ("hit", "l2"), near
    assert await cache.feedback(near.lookup_id, correct=True)
    await cache.lookup("what is it that nobody knows", "bob")
    while len(await cache.decisions()) < 3:
        await asyncio.sleep(0.05)


async def write(world: World, target: Path) -> None:
    """Fill *world* and write its snapshot to *target*."""
    world.directory.mkdir()
    await world.seed()
    async with world.cache(semantic_threshold=THRESHOLD, sharing="auto") as cache:
        await fill(world, cache)
        # Rows for Chroma wait less long than this.
        await asyncio.sleep(1.5)
        # The heartbeat has the counts of the lookups.
        await inside(cache).housekeeper._beat()
        await inside(cache).housekeeper.write_history()
        begun = asyncio.Event()

        async def never() -> str:
            begun.set()
            return await asyncio.Future()

        # Of a cache that logs no decisions: it is by chance whether a row would be in the snapshot.
        silent = {"decisions": 0, "heartbeat": False, "tiers": "l1"}
        async with world.cache(**silent) as other:
            computing = asyncio.create_task(other.get_or_compute(COMPUTED, "ann", never))
            await begun.wait()
            world.save_store()
            computing.cancel()
            await asyncio.gather(computing, return_exceptions=True)
    world.save_index()
    await _leave_pending(world)
    world.save(target)


async def _leave_pending(world: World) -> None:
    """Ask for invalidations which the store does not confirm, and save the file that has them."""
    faults = Faults()

    def failing(store: Any) -> Any:
        return ChaosStore(store, faults)

    async with world.cache(wrap_store=failing, heartbeat=False) as cache:
        with faults.during("throw"):
            assert not (await cache.invalidate("what did the red lamp cost")).complete
            assert not (await cache.invalidate("what did the green lamp cost", "ann")).complete
            assert not (await cache.invalidate_document("doc-typed")).complete
            assert not (await cache.invalidate_tag("no such tag")).complete
            assert not (await cache.invalidate_writer("mallory")).complete
            assert not (await cache.forget_user("trudy")).complete
            world.save_files()


async def _write_all(target: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for part in ("redis", "chroma"):
            (place / part).mkdir()
        with (
            servers.redis_server(place / "redis") as redis_url,
            servers.chroma_server(place / "chroma") as chroma_url,
        ):
            for sealed in (False, True):
                await write(Embedded(place / f"embedded-{sealed}", sealed=sealed), target)
                on_servers = OnServers(
                    place / f"servers-{sealed}", redis_url, chroma_url, sealed=sealed
                )
                await write(on_servers, target)


def main() -> None:
    """Write all snapshots to the directory named on the command line, which is made."""
    target = Path(sys.argv[1])
    target.mkdir(parents=True)
    asyncio.run(_write_all(target))


if __name__ == "__main__":
    main()
