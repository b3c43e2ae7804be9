"""Live tuning: compare-and-set, who follows how soon, what is refused, and what can be undone."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import pytest

from cache_core import MultiLevelCache
from cache_core.config.intents import MAX_INTENTS
from cache_core.config.layers import make_tuning
from cache_core.config.live import TuningChange
from cache_core.config.trail import CHANGES_KEPT
from cache_core.config.tuning import Tuning
from cache_core.model.exceptions import ConfigurationError, TuningConflict
from cache_core.testing import ManualClock, RecordingInstrument
from tests.support import servers
from tests.support.caches import CacheFactory
from tests.support.inside import inside
from tests.support.patience import PATIENT
from tests.support.tuning import SOON, Scribble, record
from tests.support.waiting import until

# ------------------------------------------------------------------------------------ one change


async def test_a_change_is_in_force_everywhere(make_cache: CacheFactory) -> None:
    """Another replica has a change soon, with its version, and knows where the value comes from."""
    one = await make_cache(semantic_threshold=0.93)
    other = await make_cache(semantic_threshold=0.93)
    assert (one.tuning.version, one.tuning_origins["semantic_threshold"]) == (0, "the constructor")
    assert one.tuning_origins["l2_ttl"] == "default"
    change = await one.tune({"semantic_threshold": 0.9, "l1_ttl": 7200}, author="ana", note="why")
    assert change.version == one.tuning.version == 1
    assert change.before == {"semantic_threshold": 0.93, "l1_ttl": 3600.0}
    assert change.after == {"semantic_threshold": 0.9, "l1_ttl": 7200.0}
    assert (change.author, change.note, change.reverts) == ("ana", "why", None)
    await until(lambda: other.tuning.version == 1, SOON)
    assert other.tuning == one.tuning
    assert other.tuning_origins["semantic_threshold"] == "tuned"
    assert other.get_metrics()["tuning"] == {"applied": 1, "rejected": 0}


async def test_who_starts_later_has_it_from_the_start(
    make_cache: CacheFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """A tuned value immediately beats a later constructor; the log names each value's origin."""
    await (await make_cache()).tune({"semantic_threshold": 0.9}, author="ana")
    with caplog.at_level("INFO", "glasscache"):
        late = await make_cache(semantic_threshold=0.99, shared_intents=["faq"])
    assert late.tuning.semantic_threshold == 0.9
    assert late.tuning.sharing == "intents"
    assert "semantic_threshold=0.9 from tuned" in caplog.text
    assert "shared_intents=frozenset({'faq'}) from the constructor" in caplog.text
    assert late.get_metrics()["tuning"]["applied"] == 0, "it came into force with the cache"


async def test_only_what_was_tuned_is_kept(make_cache: CacheFactory) -> None:
    """Replicas keep their own constructor's values for what nobody tuned; None gives them back."""
    one, other = (
        await make_cache(semantic_threshold=0.91),
        await make_cache(semantic_threshold=0.92),
    )
    await one.tune({"l1_ttl": 60, "semantic_threshold": 0.8}, author="ana")
    await until(lambda: other.tuning.version == 1, SOON)
    change = await other.tune({"semantic_threshold": None}, author="ben")
    assert change.after == {"semantic_threshold": None}
    await until(lambda: one.tuning.version == 2, SOON)
    assert (one.tuning.semantic_threshold, other.tuning.semantic_threshold) == (0.91, 0.92)
    assert one.tuning.l1_ttl == other.tuning.l1_ttl == 60


async def test_a_dry_run_changes_nothing(make_cache: CacheFactory) -> None:
    """A dry run says what would change, refuses what would be refused, and leaves no trace."""
    cache = await make_cache()
    change = await cache.tune({"l1_ttl": 60}, author="ana", dry_run=True)
    assert (change.version, change.after) == (1, {"l1_ttl": 60.0})
    with pytest.raises(ConfigurationError):
        await cache.tune({"l1_ttl": -60}, author="ana", dry_run=True)
    assert cache.tuning == Tuning()
    assert await cache.tuning_history() == []


async def test_no_change_is_no_version(make_cache: CacheFactory) -> None:
    """Setting what is set already makes no entry in the audit trail, and says so."""
    cache = await make_cache()
    await cache.tune({"l1_ttl": 60}, author="ana")
    again = await cache.tune({"l1_ttl": "60", "l2_ttl": None}, author="ben")
    assert (again.version, again.after) == (1, {})
    assert [change.author for change in await cache.tuning_history()] == ["ana"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"semantic_threshold": 1.5}, "Similarity threshold: 0 to 1"),
        ({"semantic_threshold": "high"}, "semantic_threshold='high'"),
        ({"semantic_threshold": True}, "a number is expected"),
        ({"semantic_threshold": float("nan")}, "semantic_threshold=nan"),
        ({"l1_ttl": 0}, "l1_ttl=0"),
        ({"l1_ttl": 31 * 86_400}, "more than 0, to 30 d"),
        ({"response_usd": -1}, "response_usd=-1"),
        ({"guards": ["numbers", "no such"]}, "any of numbers, negation"),
        ({"sharing": "everything"}, "one of private, intents, auto, all"),
        ({"shared_intents": [""]}, "shared_intents"),
        ({"shared_intents": [str(number) for number in range(1_001)]}, "1,000 at most"),
        ({"nothing": 1}, "'nothing' cannot be tuned. Fields: semantic_threshold"),
        (
            {"semantic_treshold": 0.9},
            "cannot be tuned; probably 'semantic_threshold' is meant. Fields: ",
        ),
        ({"l1_ttl": "1x"}, "refused: expected seconds, or a duration such as 250ms, 90s"),
        ({"version": 7}, "'version' cannot be tuned"),
        ({}, "nothing to change"),
        ({"intents": {"not a label": {"l1_ttl": 1}}}, "not 'not a label'"),
        ({"intents": ["faq"]}, "a mapping is expected"),
        ({"intent.faq.semantic_threshold": 2}, "intent.faq.semantic_threshold=2"),
        ({"intent.faq.l3_ttl": 2}, "a mapping is expected"),
        ({"intents": {f"i{n}": {"l1_ttl": 1} for n in range(MAX_INTENTS + 1)}}, "at most"),
    ],
)
async def test_what_cannot_work_is_refused(
    cache: MultiLevelCache, changes: dict[str, Any], said: str
) -> None:
    """A bad value is refused with its name and what it may be; nothing changes."""
    with pytest.raises(ConfigurationError) as refused:
        await cache.tune(changes, author="ana")
    assert said in str(refused.value)
    assert cache.tuning.version == 0
    assert await cache.tuning_history() == []


@pytest.mark.parametrize("words", [{"author": ""}, {"author": "a" * 201}, {"note": "n" * 2_001}])
async def test_who_and_why_are_bounded(cache: MultiLevelCache, words: dict[str, str]) -> None:
    """A change without an author, or with a novel as its note, is refused."""
    with pytest.raises(ConfigurationError):
        await cache.tune({"l1_ttl": 60}, **{"author": "ana", **words})


async def test_a_lost_race_is_a_conflict(make_cache: CacheFactory) -> None:
    """A change of an unseen version is rejected, with both versions named, and changes nothing."""
    one, other = await make_cache(), await make_cache()
    await one.tune({"l1_ttl": 60}, author="ana", expected_version=0)
    with pytest.raises(TuningConflict) as conflict:
        await other.tune({"l1_ttl": 90}, author="ben", expected_version=0)
    assert (conflict.value.expected, conflict.value.found) == (0, 1)
    assert "version 1, not 0" in str(conflict.value)
    assert (await other.tune({"l1_ttl": 90}, author="ben", expected_version=1)).version == 2


async def test_of_many_with_the_same_expectation_one_wins(make_cache: CacheFactory) -> None:
    """Eight replicas expect version 0 concurrently: one change is made, seven are conflicts."""
    caches = [await make_cache(settings={"tiers": "l1"}) for _ in range(8)]
    results = await asyncio.gather(
        *(
            cache.tune({"l1_ttl": 60 + number}, author=f"a{number}", expected_version=0)
            for number, cache in enumerate(caches)
        ),
        return_exceptions=True,
    )
    assert sum(isinstance(result, TuningChange) for result in results) == 1
    assert sum(isinstance(result, TuningConflict) for result in results) == 7


async def test_concurrent_changes_are_all_made(make_cache: CacheFactory) -> None:
    """Without an expectation changes of different fields are merged: none is lost."""
    caches = [await make_cache(settings={"tiers": "l1"}) for _ in range(6)]
    await asyncio.gather(
        *(
            cache.tune({f"intent.i{number}.l1_ttl": 60 + number}, author="a")
            for number, cache in enumerate(caches)
        )
    )
    await until(lambda: {cache.tuning.version for cache in caches} == {6}, SOON)
    assert {label: own.l1_ttl for label, own in caches[0].tuning.intents.items()} == {
        f"i{number}": 60.0 + number for number in range(6)
    }
    assert [change.version for change in await caches[0].tuning_history()] == [6, 5, 4, 3, 2, 1]


async def test_a_revert_is_a_change(make_cache: CacheFactory) -> None:
    """Reverting restores exactly what was tuned after a version; 0 is nothing; all stays on record."""
    cache, other = await make_cache(), await make_cache()
    await cache.tune({"l1_ttl": 60, "intent.faq.shared": True}, author="ana")
    await cache.tune({"l1_ttl": 90, "l2_ttl": 90, "intent.faq": None}, author="ana")
    change = await other.revert_tuning(1, author="ben", note="too long")
    assert (change.version, change.reverts, change.note) == (3, 1, "too long")
    assert change.before == {"intent.faq.shared": None, "l1_ttl": 90.0, "l2_ttl": 90.0}
    assert change.after == {"intent.faq.shared": True, "l1_ttl": 60.0, "l2_ttl": None}
    await until(lambda: cache.tuning.version == 3, SOON)
    assert (cache.tuning.l1_ttl, cache.tuning.l2_ttl) == (60.0, 86_400.0)
    assert cache.tuning.shares("faq")
    await cache.revert_tuning(0, author="ben")
    assert cache.tuning == Tuning(version=4)
    assert [item.reverts for item in await cache.tuning_history()] == [0, 1, None, None]
    assert [item.version for item in await cache.tuning_history(limit=2)] == [4, 3]
    with pytest.raises(ConfigurationError, match="not in the audit trail"):
        await cache.revert_tuning(99, author="ben")
    with pytest.raises(ValueError, match="version"):
        await cache.revert_tuning(-1, author="ben")


@pytest.mark.slow
async def test_the_trail_is_bounded(make_cache: CacheFactory, scribble: Scribble) -> None:
    """The trail keeps its newest versions; the oldest go as new ones come."""
    cache = await make_cache(settings={"tiers": "l1"})
    for version in range(1, CHANGES_KEPT + 6):
        scribble(str(version), record(version, l1_ttl=float(version)))
    assert (await cache.tune({"l1_ttl": 5}, author="ana")).version == CHANGES_KEPT + 6
    versions = [change.version for change in await cache.tuning_history(limit=2 * CHANGES_KEPT)]
    assert versions == list(range(CHANGES_KEPT + 6, 6, -1))


# ------------------------------------------------------------------------------------ many


@pytest.mark.slow
async def test_ten_replicas_converge_whatever_is_cut_off(
    make_cache: CacheFactory, store_kind: str, request: pytest.FixtureRequest
) -> None:
    """After 200 changes by all of ten, subscribers killed in between, all have the same tuning.

    No replica ever goes back to an older version, and none refuses anything.
    """
    caches = [await make_cache(settings={"tiers": "l1", **PATIENT}) for _ in range(10)]
    url = request.getfixturevalue("redis_url") if store_kind == "redis" else None
    seen: list[list[int]] = [[] for _ in caches]

    async def watch() -> None:
        while True:
            for cache, versions in zip(caches, seen, strict=True):
                versions.append(cache.tuning.version)
            await asyncio.sleep(0.002)

    watcher = asyncio.create_task(watch())
    chance, killed = random.Random(4), 0
    for number in range(200):
        threshold = round(chance.uniform(0.5, 1), 4)
        changed = await chance.choice(caches).tune({"semantic_threshold": threshold}, author="a")
        assert changed.version == number + 1
        if url is not None and number % 20 == 10:
            with servers.admin(url) as client:
                killed += client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    await until(lambda: {cache.tuning.version for cache in caches} == {200}, SOON)
    watcher.cancel()
    await asyncio.gather(watcher, return_exceptions=True)
    assert {cache.tuning.semantic_threshold for cache in caches} == {threshold}
    assert killed >= 10 or store_kind == "embedded", "each subscriber was cut off"
    for versions in seen:
        assert versions == sorted(versions)
    assert all(cache.get_metrics()["tuning"]["rejected"] == 0 for cache in caches)


@pytest.mark.slow
async def test_no_lookup_mixes_two_versions(make_cache: CacheFactory) -> None:
    """Threshold, TTLs, prices and the version of every record belong to one and the same tuning."""
    watching = RecordingInstrument()
    cache = await make_cache(settings=PATIENT, instruments=[watching])
    changer = await make_cache(settings={"tiers": "l1", **PATIENT})
    await cache.put("alpha beta gamma delta", "ann", "answer")
    versions = {0: cache.tuning}
    stop = False

    async def look() -> None:
        number = 0
        while not stop:
            number += 1
            for message in ("alpha beta gamma delta", f"alpha beta gamma x{number}"):
                await cache.lookup(message, "ann")

    looking = [asyncio.create_task(look()) for _ in range(8)]
    for number in range(1, 41):
        values = {
            "semantic_threshold": 0.5 + number / 100,
            "l1_ttl": 1_000 + number,
            "l2_ttl": 2_000 + number,
            "response_usd": number / 100,
        }
        await changer.tune(values, author="a")
        versions[number] = make_tuning(("tuned", values), version=number)[0]
        await asyncio.sleep(0.01)
    await until(lambda: cache.tuning.version == 40, SOON)
    stop = True
    await asyncio.gather(*looking)
    found = watching.of("lookup")
    for call in found:
        tuning = versions[call.tuning_version]
        for part in call.calls:
            assert part.ttl_seconds == tuning.ttl(part.level)
            if part.level == "l2":
                assert part.threshold == tuning.semantic_threshold
                if part.outcome == "hit":
                    assert part.similarity >= tuning.semantic_threshold
                if part.reason == "below_threshold":
                    assert part.similarity < tuning.semantic_threshold
            if part.outcome == "hit":
                assert part.saved_usd == tuning.saves(part.level, None)
    for decision in cache.recent(200):
        assert decision.threshold == versions[decision.tuning_version].semantic_threshold
    assert len({call.tuning_version for call in found}) > 5, "the lookups saw many versions"


@pytest.mark.slow
async def test_the_heartbeat_and_the_gauge_follow_immediately(make_cache: CacheFactory) -> None:
    """A replica reports its new version when it has it, and its values in the next heartbeat."""
    watching = RecordingInstrument()
    cache = await make_cache(settings={"tiers": "l1"}, instruments=[watching])
    await cache.tune({"l1_ttl": 60}, author="ana")
    assert watching.states[-1].tuning.version == 1
    for _ in range(100):
        alive = await cache._parts.fleet.alive()
        if alive and alive[0].tuning_version == 1:
            break
        await asyncio.sleep(0.05)
    assert alive[0].values["l1_ttl"] == 60
    assert alive[0].origins["l1_ttl"] == "tuned"


# ------------------------------------------------------------------------------------ the effects


async def test_a_ttl_acts_on_what_is_stored(make_cache: CacheFactory, clock: ManualClock) -> None:
    """A shorter TTL expires what is there, a longer one revives it, in all tiers."""
    redis_clock = {} if (await make_cache()).redis_client is not None else {"clock": clock}
    cache = await make_cache(namespace="ttl", settings=PATIENT, **redis_clock)
    documents = [{"id": "d1"}]
    await cache.put("alpha beta", "ann", "answer", intent="faq", rag_results=documents)
    if redis_clock:
        clock.advance(5)
    else:
        await asyncio.sleep(0.3)
    short = {f"l{number}_ttl": 2.0 if redis_clock else 0.2 for number in (1, 2, 3, 4)}
    assert (await cache.lookup("alpha beta", "ann")).tier == "l1"
    await cache.tune(short, author="ana")
    missed = await cache.lookup("alpha beta", "ann")
    assert (missed.outcome, missed.reasons[0]) == ("miss", "expired")
    await cache.tune({"l2_ttl": 100}, author="ana")
    assert (await cache.lookup("alpha beta", "ann")).tier == "l2"
    await cache.tune({"l2_ttl": short["l2_ttl"], "l3_ttl": 100, "l4_ttl": 100}, author="ana")
    partial = await cache.lookup("alpha beta", "ann")
    assert (partial.outcome, partial.intent, partial.rag_results) == ("partial", "faq", documents)
    await cache.revert_tuning(0, author="ana")
    assert (await cache.lookup("alpha beta", "ann")).tier == "l1"


async def test_an_intent_has_a_threshold_of_its_own(make_cache: CacheFactory) -> None:
    """L2 goes by the intent of the stored answer, both ways, and says which threshold it was."""
    watching = RecordingInstrument()
    cache = await make_cache(settings=PATIENT, instruments=[watching], semantic_threshold=0.6)
    await cache.put("alpha beta gamma delta eta theta", "ann", "strict", intent="refunds")
    await cache.put("sun moon star sky", "ann", "easy", intent="faq")
    near = "alpha beta gamma delta eta zeta", "sun moon star sea"
    assert [(await cache.lookup(text, "ann")).tier for text in near] == ["l2", "l2"]
    await cache.tune(
        {"intent.refunds.semantic_threshold": 0.97, "semantic_threshold": 0.99,
         "intent.faq.semantic_threshold": 0.6}, author="ana",
    )  # fmt: skip
    strict, easy = [await cache.lookup(text, "ann") for text in near]
    assert (strict.outcome, easy.response) == ("miss", "easy")
    assert "below_threshold" in strict.reasons
    thresholds = [
        part.threshold
        for call in watching.of("lookup")[-2:]
        for part in call.calls
        if part.level == "l2"
    ]
    assert thresholds == [0.97, 0.6]
    assert [item.threshold for item in cache.recent(2)] == [0.97, 0.6]
    told = {item.level: item for item in await cache.explain(near[0], "ann")}
    assert told["l2"].threshold == 0.97
    removed = await cache.invalidate(near[1], dry_run=True)
    assert removed.removed > 0, "what L2 would serve for it"
    assert (await cache.invalidate(near[0], dry_run=True)).removed == 0


async def test_an_intent_has_ttls_and_sharing_of_its_own(make_cache: CacheFactory) -> None:
    """Its TTLs act on what is stored; its sharing on what is put, whatever the mode is."""
    cache = await make_cache(settings=PATIENT, sharing="private")
    await cache.put("alpha beta", "ann", "short", intent="prices", rag_results=[{"id": "d"}])
    await cache.put("gamma delta", "ann", "long", intent="faq")
    await asyncio.sleep(0.3)
    values = {f"intent.prices.{tier}_ttl": 0.2 for tier in ("l1", "l2", "l4")}
    await cache.tune({**values, "intent.faq.shared": True}, author="ana")
    expired = await cache.lookup("alpha beta", "ann")
    assert (expired.response, expired.rag_results, expired.intent) == (None, None, "prices")
    assert (await cache.lookup("gamma delta", "ann")).response == "long"
    await cache.put("gamma delta", "ann", "long", intent="faq")
    await cache.put("alpha beta", "ann", "again", intent="prices")
    assert (await cache.lookup("gamma delta", "ben")).response == "long"
    assert (await cache.lookup("alpha beta", "ben")).response is None
    await cache.tune({"sharing": "all", "intent.prices.shared": False}, author="ana")
    await cache.put("alpha beta", "ann", "again", intent="prices")
    assert (await cache.lookup("alpha beta", "ben")).response is None


# ------------------------------------------------------------------------------------ the model


async def test_a_tool_goes_by_what_the_agents_were_started_with(make_cache: CacheFactory) -> None:
    """A tool explains what the agent would serve, not what it would serve itself."""
    started: dict[str, Any] = {"semantic_threshold": 0.7, "sharing": "all", "settings": PATIENT}
    agent: MultiLevelCache = await make_cache(**started)
    await agent.put("alpha beta gamma delta", "ann", "answer")
    assert (await agent.lookup("alpha beta gamma", "ben")).tier == "l2"
    await inside(agent).housekeeper._beat()
    tool: MultiLevelCache = await make_cache(settings={**PATIENT, "heartbeat": False})

    async def outcome() -> str:
        return (await tool.explain("alpha beta gamma", "ben"))[1].outcome

    deadline = time.monotonic() + SOON
    while (await outcome()) != "hit":
        # Without a server a process learns of the others' answers through a feed.
        await tool.stand_in()
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert tool.tuning_origins["semantic_threshold"] == "the replicas"
    assert tool.tuning.version == 0
    await agent.tune({"semantic_threshold": 0.9}, author="ana")
    await until(lambda: tool.tuning.version == 1, SOON)
    assert (tool.tuning.semantic_threshold, tool.tuning.sharing) == (0.9, "all")
    assert await outcome() == "miss"


def test_bounds_come_from_the_fields() -> None:
    """The bounds of a slider are those that validation enforces."""
    bounds = Tuning.bounds()
    assert set(bounds) == set(Tuning.model_fields) - {"version"}
    for name, item in bounds.items():
        assert item.title
        assert item.description
        if item.kind != "number":
            continue
        assert item.minimum is not None
        assert item.maximum is not None
        assert item.step
        make_tuning(("test", {name: item.maximum}))
        for outside in (item.maximum + 1, item.minimum - 1):
            with pytest.raises(ConfigurationError, match="is refused"):
                make_tuning(("test", {name: outside}))
        if item.above:
            with pytest.raises(ConfigurationError):
                make_tuning(("test", {name: item.minimum}))
        else:
            make_tuning(("test", {name: item.minimum}))
    assert bounds["sharing"].choices == ("private", "intents", "auto", "all")
    assert bounds["l1_ttl"].unit == "s"


def test_a_tuning_cannot_be_changed() -> None:
    """It is one frozen value, overrides included: what a lookup read stays what it read."""
    tuning, _ = make_tuning(("test", {"intents": {"faq": {"l1_ttl": 5}}}))
    with pytest.raises(ValueError, match="frozen"):
        tuning.l1_ttl = 5.0  # type: ignore[misc]
    with pytest.raises(TypeError):
        tuning.intents["faq"] = tuning.intents["faq"]  # type: ignore[index]
    with pytest.raises(ValueError, match="frozen"):
        tuning.intents["faq"].l1_ttl = 6.0
    assert Tuning(**tuning.model_dump()) == tuning
    assert Tuning.model_validate_json(tuning.model_dump_json()) == tuning
