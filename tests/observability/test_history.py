"""History in the store: what it keeps equals what was counted, whatever happens meanwhile."""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cache_core import MultiLevelCache
from cache_core.backends.base import RowWrite
from cache_core.backends.redis.client import connect
from cache_core.backends.redis.store import RedisStore
from cache_core.backends.sqlite.store import EmbeddedStore
from cache_core.model.exceptions import BackendError
from cache_core.model.keys import Keys
from cache_core.model.values import Level
from cache_core.observability import history
from cache_core.observability.history import DAY, KEPT_DAYS, History, Period, total
from cache_core.observability.hours import HOUR
from cache_core.observability.records import (
    ComputeRecord,
    EmbedRecord,
    LookupRecord,
    PutRecord,
    TierRecord,
    VerdictRecord,
)
from cache_core.observability.stats import CacheStats
from cache_core.observability.sums import LATENCIES, NONE, Sums
from cache_core.testing import ChaosStore, Faults, ManualClock
from tests.support import servers
from tests.support.caches import CacheFactory
from tests.support.inside import inside
from tests.support.patience import PATIENT

KEYS = Keys("history", bytes(32))
FIRST = 20_000 * DAY
"""Midnight of UTC: the beginning of all that is counted here."""

PRICE = 0.036
OPEN: Any = {"breaker_failures": 1_000_000}
"""The faults of these tests open no breaker."""

INTENTS = ("faq", "hours", "prices", "returns", "")


class World:
    """A store whose clock a test moves.

    Args:
        store: An open store.
        clock: That of the embedded store.
        faults: Of the store.
    """

    def __init__(self, store: Any, clock: ManualClock, faults: Faults) -> None:
        self._inner = store
        self._clock = clock
        self.faults = faults
        self.store: Any = ChaosStore(store, faults)

    def at(self, when: float) -> None:
        """Set the store's time."""
        if isinstance(self._inner, RedisStore):
            self._inner._clock.set(when)
        self._clock.now = when

    def history(self) -> History:
        """Return the history as another process has it."""
        return History(self.store, KEYS)

    async def merge(self) -> None:
        """Merge, as a replica does some time after the last one did."""
        # A lease in Redis ends by the server's own time.
        await self._inner.delete([KEYS.own("history-merging")])
        await self.history().merge()

    async def size(self) -> int:
        """Return the bytes that the history takes, without the store's own."""
        found = 0
        for key in (KEYS.own("history"), KEYS.own("history-live")):
            rows = await self._inner.rows(key)
            found += sum(len(name) + len(text) for name, text in rows.items())
        return found


class Process:
    """A process that counts and writes what it counted, as a replica does."""

    def __init__(self, world: World) -> None:
        self.stats = CacheStats()
        self.history = world.history()

    async def write(self) -> None:
        await self.history.write(self.stats.hours, PRICE)

    async def try_to_write(self) -> None:
        with contextlib.suppress(BackendError):
            await self.write()

    def hit(self, level: Level = "l1", intent: str = "faq", seconds: float = 0.002) -> None:
        calls = [TierRecord(level, outcome="hit", saved_usd=PRICE)]
        if level == "l2":
            calls.insert(0, TierRecord("l1", outcome="miss", reason="cold"))
        self.stats.record(
            LookupRecord(
                "x", 1, level, saved_usd=PRICE, calls=calls, intent=intent, outcome="hit",
                seconds=seconds,
            )
        )  # fmt: skip

    def miss(self, reason: str = "cold", intent: str = "") -> None:
        calls = [TierRecord("l1", outcome="miss", reason=reason)]
        self.stats.record(
            LookupRecord("x", 1, calls=calls, outcome="miss", reason=reason, seconds=0.3)
        )
        if intent:
            call = PutRecord(1, intent=intent, outcome="stored")
            self.stats.record(call)

    def bypass(self) -> None:
        self.stats.record(LookupRecord("x", 1, outcome="bypass", reason="empty"))


@pytest.fixture
async def world(
    store_kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[World]:
    clock, store = ManualClock(FIRST), None
    if store_kind == "redis":
        url = request.getfixturevalue("empty_redis")
        store = RedisStore(connect(url, timeout=10), read_timeout=10, write_timeout=10, **OPEN)
        # Its clock is not set back, and is set by no server.
        store._clock.set(FIRST)
    else:
        store = EmbeddedStore(tmp_path / "store", clock=clock, **OPEN)
        await store.open()
    made = World(store, clock, Faults())
    yield made
    await store.close()


async def everything(world: World, by: Any = "hour") -> list[Period]:
    return await world.history().periods(0, FIRST + 1_000 * DAY, by)


async def lookups(world: World) -> dict[int, int]:
    """Return the lookups of each period, as another process reads them."""
    return {item.start: item.sums.lookups for item in await everything(world)}


# --------------------------------------------------------------------------------- what is kept


async def test_everything_that_was_counted_is_kept(world: World) -> None:
    """Outcomes, tiers, reasons, money, latencies, verdicts and intents come back as counted."""
    one = Process(world)
    world.at(FIRST + 10)
    for _ in range(3):
        one.hit()
    one.hit("l2", "hours", 0.02)
    one.miss("expired", intent="hours")
    one.bypass()
    one.stats.record(VerdictRecord("wrong", "review", "hours"))
    one.stats.record(EmbedRecord(spent_usd=0.001))
    one.stats.record(ComputeRecord(seconds=2.0, saved_usd={"l3": 0.001}))
    await one.write()
    (found,) = await everything(world)
    assert (found.start, found.seconds) == (FIRST, HOUR)
    sums = found.sums
    assert sums.outcomes == {"hit": 4, "miss": 1, "bypass": 1}
    assert (sums.hits, sums.misses) == ({"l1": 3, "l2": 1}, {"l1": {"cold": 1, "expired": 1}})
    assert sums.reasons == {"expired": 1, "empty": 1}
    assert sums.saved == {"l1": 0.108, "l2": 0.036, "l3": 0.001}
    assert (sums.spent_usd, sums.unanswered_usd, sums.prices) == (0.001, 0.036, {"0.036": 4})
    assert sums.verdicts == {"review": {"wrong": 1}}
    assert (sums.computed, sums.compute_seconds) == (1, 2.0)
    faq, hours = sums.intents["faq"], sums.intents["hours"]
    assert (faq.l1, faq.hit_rate, faq.saved_usd) == (3, 1.0, 0.108)
    assert (hours.l2, hours.computed, hours.wrong, hours.hit_rate) == (1, 1, 1, 0.5)
    assert (sums.hit_rate, sums.served("l1"), sums.within(0.01)) == (0.8, 0.6, 0.75)
    assert sums.full_usd == pytest.approx(0.18)
    assert sums.saved_share == pytest.approx(0.8)
    assert sums.saved_seconds == 8.0


async def test_what_was_reset_stays_in_the_history(world: World) -> None:
    """`reset_metrics` begins the counts anew; the history goes on, and counts nothing twice."""
    one = Process(world)
    one.hit()
    await one.write()
    one.hit()
    one.stats.reset()
    one.hit()
    await one.write()
    assert one.stats.lookups == 1
    assert await lookups(world) == {FIRST: 3}


async def test_a_forked_child_leaves_its_parents_counts_to_the_parent(world: World) -> None:
    """Counts from before a fork are written once."""
    one = Process(world)
    one.hit()
    one.stats.begin_anew()
    one.hit()
    await one.write()
    assert await lookups(world) == {FIRST: 1}


async def test_nothing_is_written_while_nothing_happens(world: World) -> None:
    """A process without lookups writes nothing, so that an idle cache leaves the store alone."""
    one = Process(world)
    await one.write()
    one.hit()
    await one.write()
    before = world.faults.calls["put_rows"]
    world.at(FIRST + 60)
    await one.write()
    assert world.faults.calls["put_rows"] == before == 1


# --------------------------------------------------------------------------------- hours


async def test_hours_end_on_the_hour(world: World) -> None:
    """Counts up to the end of an hour are of that hour, though they are read a moment later."""
    one = Process(world)
    world.at(FIRST + HOUR - 5)
    await one.write()
    one.hit()
    world.at(FIRST + HOUR + 0.01)
    await one.write()
    one.hit()
    world.at(FIRST + HOUR + 5)
    await one.write()
    assert await lookups(world) == {FIRST: 1, FIRST + HOUR: 1}


async def test_a_machine_that_slept_counts_when_it_woke_up(world: World) -> None:
    """Hours in which the process did not run have no lookups."""
    one = Process(world)
    await one.write()
    world.at(FIRST + 9 * HOUR + 100)
    one.hit()
    await one.write()
    assert await lookups(world) == {FIRST + 9 * HOUR: 1}


async def test_days_are_of_utc(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A day has 24 hours from midnight of UTC, whatever the machine's zone and its summer time."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    one = Process(world)
    try:
        for hour in range(48):
            world.at(FIRST + hour * HOUR + 60)
            one.hit()
            await one.write()
        found = await everything(world, "day")
    finally:
        monkeypatch.undo()
        time.tzset()
    assert [(item.start, item.seconds, item.sums.lookups) for item in found] == [
        (FIRST, DAY, 24),
        (FIRST + DAY, DAY, 24),
    ]


async def test_a_part_of_the_history_begins_with_a_whole_hour(world: World) -> None:
    """The hour that a range begins in counts whole, the one that it ends before does not."""
    one = Process(world)
    for hour in range(4):
        world.at(FIRST + hour * HOUR + 60)
        one.hit()
        await one.write()
    found = await world.history().periods(FIRST + HOUR + 1_800, FIRST + 3 * HOUR)
    assert [item.start for item in found] == [FIRST + HOUR, FIRST + 2 * HOUR]
    assert await world.history().periods(FIRST + 5 * HOUR, FIRST + 5 * HOUR) == []


# --------------------------------------------------------------------------------- failures


@pytest.mark.parametrize("fault", ["throw", "lose_reply"])
async def test_a_failed_write_is_made_again_and_counts_once(world: World, fault: Any) -> None:
    """The sums of a failed write, made or not, are there once after the next one."""
    one, two = Process(world), Process(world)
    one.hit()
    two.hit()
    await two.write()
    with world.faults.during(fault, only=frozenset({"put_rows"})):
        await one.try_to_write()
        one.hit()
        await one.try_to_write()
    world.at(FIRST + 30)
    await one.write()
    assert await lookups(world) == {FIRST: 3}


async def test_an_outage_of_hours_loses_nothing(world: World) -> None:
    """After three hours without a store each hour has its own lookups, merged with the others'."""
    one, two = Process(world), Process(world)
    one.hit()
    await one.write()
    with world.faults.during("throw", only=frozenset({"put_rows"})):
        for hour in range(3):
            for minutes in (20, 40):
                world.at(FIRST + hour * HOUR + minutes * 60)
                one.miss()
                two.miss()
                await one.try_to_write()
                await two.try_to_write()
    world.at(FIRST + 3 * HOUR + 60)
    await two.write()
    await world.merge()
    await one.write()
    await one.write()
    assert await lookups(world) == {FIRST: 5, FIRST + HOUR: 4, FIRST + 2 * HOUR: 4}
    world.at(FIRST + 3 * HOUR + 160)
    await world.merge()
    assert await lookups(world) == {FIRST: 5, FIRST + HOUR: 4, FIRST + 2 * HOUR: 4}


async def test_an_outage_of_days_is_bounded_and_counted(world: World) -> None:
    """The first of four days without a store is lost, and that is counted."""
    one = Process(world)
    with world.faults.during("throw", only=frozenset({"put_rows"})):
        for hour in range(4 * 24):
            world.at(FIRST + hour * HOUR + 60)
            one.miss()
            await one.try_to_write()
    await one.write()
    assert one.stats.hours.dropped == 24
    assert sum((await lookups(world)).values()) == 3 * 24


async def test_a_merge_that_breaks_off_counts_nothing_twice(world: World) -> None:
    """A merge that could write and not delete is read right, and is ended by the next one."""
    one, two = Process(world), Process(world)
    for process in (one, two):
        process.hit()
        await process.write()
    world.at(FIRST + 2 * HOUR)
    with (
        world.faults.during("throw", only=frozenset({"delete_rows"})),
        pytest.raises(BackendError),
    ):
        await world.merge()
    assert await lookups(world) == {FIRST: 2}
    world.at(FIRST + 2 * HOUR + 60)
    await world.merge()
    assert await lookups(world) == {FIRST: 2}
    assert not await world.store.row_names(KEYS.own("history-live"))


async def test_batches_that_break_off_count_nothing_twice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of a batch that could not be deleted count once, though later ones mix with them."""
    monkeypatch.setattr(history, "_TOGETHER", 2)
    processes = [Process(world) for _ in range(4)]
    late = Process(world)
    for number, process in enumerate([*processes, late]):
        process.stats.hours._process = "a" * number or "b"
        process.hit()
    late.stats.hours._process = "0"
    for process in processes:
        await process.write()
    world.at(FIRST + 2 * HOUR)
    faults = world.faults.during("throw", only=frozenset({"delete_rows"}))
    with faults, pytest.raises(BackendError):
        await world.merge()
    late.stats.hours.take(FIRST + 60, PRICE)
    await late.write()
    world.at(FIRST + 2 * HOUR + 60)
    await world.merge()
    assert await lookups(world) == {FIRST: 5}
    assert not await world.store.row_names(KEYS.own("history-live"))


async def test_days_that_break_off_count_nothing_twice(world: World) -> None:
    """Hours that a day has already, and that could not be deleted, are not read."""
    one = Process(world)
    for hour in (3, 7):
        world.at(FIRST + hour * HOUR + 60)
        one.hit()
        await one.write()
    world.at(FIRST + 2 * DAY)
    await world.merge()
    world.at(FIRST + 8 * DAY)
    with (
        world.faults.during("throw", only=frozenset({"delete_rows"})),
        pytest.raises(BackendError),
    ):
        await world.merge()
    assert await lookups(world) == {FIRST: 2}
    world.at(FIRST + 8 * DAY + 60)
    await world.merge()
    assert await lookups(world) == {FIRST: 2}
    assert await world.store.row_names(KEYS.own("history")) == [f"d{FIRST}"]


async def test_a_row_of_a_merged_day_is_added_to_it(world: World) -> None:
    """A process that wakes up after a week adds what it counted before to the day."""
    one, two = Process(world), Process(world)
    one.hit()
    await one.write()
    two.hit()
    two.stats.hours.take(FIRST + 60, PRICE)
    world.at(FIRST + 8 * DAY)
    await world.merge()
    await two.write()
    assert await lookups(world) == {FIRST: 2}
    world.at(FIRST + 8 * DAY + 60)
    await world.merge()
    assert await lookups(world) == {FIRST: 2}


async def test_one_replica_merges_at_a_time(world: World) -> None:
    """While one has the lease, another does nothing."""
    one = Process(world)
    one.hit()
    await one.write()
    world.at(FIRST + 3 * HOUR)
    await one.history.merge()
    before = world.faults.calls["row_names"]
    await world.history().merge()
    assert world.faults.calls["row_names"] == before


async def test_clocks_that_differ_lose_nothing(world: World) -> None:
    """Processes whose clocks are 20 s apart put a lookup into neighbouring hours, and into one."""
    one, two = Process(world), Process(world)
    one.hit()
    two.hit()
    one.stats.hours.take(FIRST + HOUR - 10, PRICE)
    two.stats.hours.take(FIRST + HOUR + 10, PRICE)
    world.at(FIRST + HOUR + 10)
    await one.write()
    await two.write()
    assert await lookups(world) == {FIRST: 1, FIRST + HOUR: 1}
    one.hit()
    one.stats.hours.take(FIRST + 100, PRICE)
    world.at(FIRST + HOUR + 30)
    await one.write()
    assert await lookups(world) == {FIRST: 2, FIRST + HOUR: 1}


@pytest.mark.parametrize("text", ["", "[2,[],[]]", '[1,[{"hit":-1}],[]]', "[1", "7"])
async def test_rows_that_cannot_be_read_are_left_alone(world: World, text: str) -> None:
    """A damaged row, or one of a later version, is not counted, not merged and not deleted."""
    one = Process(world)
    one.hit()
    await one.write()
    live, merged = KEYS.own("history-live"), KEYS.own("history")
    await world.store.put_rows([RowWrite(live, {f"{FIRST}-b.0": text, "x": text}, None)])
    await world.store.put_rows([RowWrite(merged, {f"h{FIRST + HOUR}": text}, None)])
    world.at(FIRST + 3 * HOUR)
    await world.merge()
    assert await lookups(world) == {FIRST: 1}
    assert sorted(await world.store.row_names(live)) == [f"{FIRST}-b.0", "x"]
    assert f"h{FIRST + HOUR}" in await world.store.row_names(merged)


# --------------------------------------------------------------------------------- bounds


async def test_intents_are_bounded(world: World) -> None:
    """The largest of many intents are apart, and the sum of all is right."""
    one, two = Process(world), Process(world)
    for number in range(300):
        for process in (one, two):
            for _ in range(1 + (number < 20)):
                process.hit(intent=f"intent-{number}")
    await one.write()
    await two.write()
    world.at(FIRST + 3 * HOUR)
    await world.merge()
    ((_, _, sums),) = await everything(world)
    assert len(sums.intents) == 51
    assert sum(found.hits for found in sums.intents.values()) == sums.answered == 640
    assert all(sums.intents[f"intent-{number}"].hits == 4 for number in range(20))
    assert await world.size() < 5_000


async def test_the_history_stops_growing(tmp_path: Path) -> None:
    """After 90 days rows expire: 200 days take no more rows than 100."""
    clock = ManualClock(FIRST)
    store = EmbeddedStore(tmp_path / "store", clock=clock, **OPEN)
    await store.open()
    world = World(store, clock, Faults())
    one, sizes = Process(world), []
    for number in range(200 * 4):
        world.at(FIRST + number * 6 * HOUR + 60)
        one.hit(intent=f"intent-{number % 30}")
        one.miss(intent=f"intent-{number % 30}")
        await one.write()
        await world.merge()
        if number in (399, 799):
            sizes.append(await world.size())
    rows = await everything(world, "day")
    assert KEPT_DAYS <= len(rows) <= KEPT_DAYS + 2
    assert sizes[1] < 1.1 * sizes[0]
    await store.close()


def drawn(random_: random.Random, process: Process, truth: Counter[str]) -> None:
    """Let a process count something, and add it to the truth."""
    kind = random_.choices(("l1", "l2", "miss", "bypass"), (33, 40, 22, 5))[0]
    intent = random_.choice(INTENTS)
    truth[kind] += 1
    if kind == "miss":
        process.miss(random_.choice(("cold", "expired", "below_threshold")), intent)
        truth[f"computed {intent}"] += bool(intent)
    elif kind == "bypass":
        process.bypass()
    else:
        process.hit("l1" if kind == "l1" else "l2", intent, random_.choice(LATENCIES))
        truth[f"hits {intent}"] += bool(intent)


def counted(sums: Sums) -> Counter[str]:
    found = Counter({
        "l1": sums.hits.get("l1", 0),
        "l2": sums.hits.get("l2", 0),
        "miss": sums.outcomes.get("miss", 0),
        "bypass": sums.outcomes.get("bypass", 0),
    })  # fmt: skip
    for name, intent in sums.intents.items():
        found[f"hits {name}"] = intent.hits
        found[f"computed {name}"] = intent.computed
    return +found


@pytest.mark.slow
async def test_thirty_days_are_the_truth(world: World, capsys: Any) -> None:
    """Thirty days of two replicas, which restart and whose writes fail at times, sum up exactly.

    By hour in the last week, by day before; a few kilobytes a day; read within a second.
    """
    random_ = random.Random(18)
    replicas = [Process(world), Process(world)]
    truth: dict[int, Counter[str]] = {}
    for hour in range(30 * 24):
        for minutes in (15, 45):
            world.at(FIRST + hour * HOUR + minutes * 60)
            for number, process in enumerate(replicas):
                for _ in range(random_.randrange(8)):
                    drawn(random_, process, truth.setdefault(hour, Counter()))
                if random_.random() < 0.1:
                    world.faults.always(
                        random_.choice(("throw", "lose_reply")), only=frozenset({"put_rows"})
                    )
                await process.try_to_write()
                world.faults.never()
                if minutes == 45:
                    await process.write()
                    if random_.random() < 0.05:
                        replicas[number] = Process(world)
        await world.merge()
    started = time.perf_counter()
    found = await everything(world)
    seconds = time.perf_counter() - started

    whole: Counter[str] = sum(truth.values(), Counter())
    assert counted(total(found)) == +whole
    for period in found:
        first = (period.start - FIRST) // HOUR
        true: Counter[str] = sum(
            (truth.get(first + number, Counter()) for number in range(period.seconds // HOUR)),
            Counter(),
        )
        assert counted(period.sums) == +true, period.start
    assert {item.seconds for item in found[-7 * 24 :]} == {HOUR}
    assert {item.seconds for item in found[:20]} == {DAY}
    by_day = await everything(world, "day")
    assert len(by_day) == 30
    assert total(by_day) == total(found)
    a_day = await world.size() / 30
    with capsys.disabled():
        print(f"\n{a_day:,.0f} bytes a day, read in {1000 * seconds:.0f} ms", end=" ")
    assert a_day < 8_000
    assert seconds < 1.0


@pytest.mark.server
async def test_on_a_cluster(tmp_path: Path) -> None:
    """Rows that are in different slots are written, merged and read."""
    with servers.redis_cluster(tmp_path) as nodes:
        store = RedisStore(connect(nodes[0].url, timeout=10), read_timeout=10, write_timeout=10)
        await store.open()
        start = int(store.now()) // HOUR * HOUR
        world = World(store, ManualClock(), Faults())
        one, two = Process(world), Process(world)
        for process in (one, two):
            process.hit()
            await process.write()
        assert await lookups(world) == {start: 2}
        store._clock.set(start + 3 * HOUR)
        await world.merge()
        assert await lookups(world) == {start: 2}
        store._clock.set(start + 10 * DAY)
        await world.merge()
        assert list((await lookups(world)).values()) == [2]
        await store.close()


# --------------------------------------------------------------------------------- of caches


async def seen(cache: MultiLevelCache) -> Sums:
    return total(await cache.operator.history(0))


async def test_two_readers_agree_whenever_they_were_started(make_cache: CacheFactory) -> None:
    """A dashboard that was there from the start and one that came later show the same sums.

    They are those of all replicas, of those that have ended, too.
    """
    tool = {**PATIENT, "heartbeat": False}
    early = await make_cache(namespace="n", settings=tool)
    one = await make_cache(namespace="n", settings=PATIENT)
    two = await make_cache(namespace="n", settings=PATIENT)
    await one.put("alpha beta", "ann", "answer", "faq")
    hit = await one.lookup("alpha beta", "ann")
    assert await one.feedback(hit.lookup_id, correct=False)
    await two.lookup("alpha beta", "ann")
    await two.lookup("alpha beta", "bob")
    await two.lookup("  ", "bob")
    await one.close()
    await two.close()
    late = await make_cache(namespace="n", settings=tool)
    found = await seen(early)
    assert found == await seen(late)
    assert found.outcomes == {"hit": 2, "partial": 1, "bypass": 1}
    assert found.verdicts == {"feedback": {"wrong": 1}}
    faq = found.intents["faq"]
    assert (faq.l1, faq.partial, faq.computed, faq.wrong) == (2, 1, 1, 1)
    assert found.unanswered_usd == pytest.approx(0.036)


async def test_a_cache_that_is_opened_again_goes_on(make_cache: CacheFactory) -> None:
    """Counts from before and after a close are in the history once each."""
    cache = await make_cache(namespace="n", settings=PATIENT)
    await cache.lookup("alpha", "ann")
    await cache.close()
    await cache.lookup("beta", "ann")
    cache.reset_metrics()
    await cache.lookup("gamma", "ann")
    await cache.close()
    await cache.initialize()
    assert (await seen(cache)).lookups == 3


async def test_a_failing_history_fails_no_lookup(make_cache: CacheFactory) -> None:
    """While it cannot be written lookups are answered, and it has all of them later."""
    faults = Faults()
    cache = await make_cache(
        namespace="n", settings=PATIENT, wrap_store=lambda store: ChaosStore(store, faults)
    )
    await cache.put("alpha", "ann", "answer")
    keeper = inside(cache).housekeeper
    with faults.during("throw", only=frozenset({"put_rows"})):
        assert (await cache.lookup("alpha", "ann")).response == "answer"
        with pytest.raises(BackendError):
            await keeper.write_history()
    await keeper.write_history()
    assert (await seen(cache)).outcomes == {"hit": 1}


async def test_an_unknown_grouping_is_refused(make_cache: CacheFactory) -> None:
    """Only hours and days are there."""
    cache = await make_cache(namespace="n", settings=PATIENT)
    with pytest.raises(ValueError, match="one of hour, day"):
        await cache.operator.history(0, by="week")


async def test_no_text_is_in_the_history(make_cache: CacheFactory) -> None:
    """Neither messages, users nor an intent that is free text are stored in it."""
    cache = await make_cache(namespace="n", settings=PATIENT)
    await cache.put("secret question", "ann smith", "secret answer", "she asks about secret")
    await cache.lookup("secret question", "ann smith")
    await inside(cache).housekeeper.write_history()
    parts = inside(cache).parts
    rows = await parts.store.rows(parts.keys.own("history-live"))
    assert len(rows) == 1
    text = str(rows)
    assert not [word for word in ("secret", "ann", "smith", "asks") if word in text]


def test_quantiles_lie_in_their_bucket() -> None:
    """A quantile is linear within its bucket, and of nothing there is none."""
    stats = CacheStats()
    for seconds in (0.003, 0.004, 0.007, 9.0):
        calls = [TierRecord("l1", outcome="hit")]
        stats.record(LookupRecord("x", 1, "l1", outcome="hit", seconds=seconds, calls=calls))
    sums = stats.sums()
    assert sums.quantile(0.25) == pytest.approx(0.00375)
    assert sums.quantile(0.5) == pytest.approx(0.005)
    assert sums.quantile(0.75, hits_only=True) == pytest.approx(0.01)
    assert sums.quantile(1.0) == LATENCIES[-1]
    assert NONE.quantile(0.5) is None
