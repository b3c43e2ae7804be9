"""A staged change: watched by every replica, taken back by exactly one, or confirmed at its end."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from cache_core import ConfigurationError, MultiLevelCache, Stage
from cache_core.config.live import TuningChange
from cache_core.config.stage import WATCH
from cache_core.config.trail import TrailRecord, parse
from cache_core.model.exceptions import BackendError, TuningConflict
from tests.support.caches import CacheFactory
from tests.support.inside import inside
from tests.support.patience import PATIENT
from tests.support.tuning import Scribble
from tests.support.waiting import until

BY_HAND = {**PATIENT, "heartbeat": False}
"""Settings of a replica whose watch only looks when the test says so."""

LOWER = {"semantic_threshold": 0.6}


async def ask(cache: MultiLevelCache, right: bool, times: int = 12) -> None:
    """Ask different questions that L2 answers from 0.6 on, and review the answers."""
    for number in range(times):
        await cache.put(f"topic{number} alpha beta gamma", "ann", f"answer {number}")
        assert (await cache.lookup(f"topic{number} alpha beta", "ann")).tier == "l2"
    await cache._parts.decisions.flush()
    for decision in (await cache.decisions())[-times:]:
        assert await cache.judge(decision, correct=right)


async def fail(cache: MultiLevelCache, times: int = 10) -> None:
    """Ask different questions while the embedder fails."""

    async def embed(_: str) -> Any:
        raise BackendError("backend_error")

    cache._parts.semantic.embedder.embed = embed
    for number in range(times):
        assert (await cache.lookup(f"question {number}", "ann")).outcome == "error"
    await cache._parts.decisions.flush()


def staged_long_ago(before: dict[str, Any], after: dict[str, Any]) -> str:
    """The row of a first version whose stage has ended."""
    change = TuningChange(1, 1_700_000_000.0, "ana", "", before, after, None, Stage(600))
    return TrailRecord(change, after).text


async def look(*caches: MultiLevelCache) -> None:
    """Let the watch of all replicas look, concurrently."""
    await asyncio.gather(*(inside(cache).staging.tend() for cache in caches))


async def test_wrong_hits_take_it_back_once(
    make_cache: CacheFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """Three replicas see wrong hits; one takes the change back, and the audit says why."""
    replicas = [await make_cache(settings=BY_HAND) for _ in range(3)]
    first = replicas[0]
    await first.tune({"l1_ttl": 60}, author="ben")
    staged = await first.tune(LOWER, author="ana", note="more hits", stage=Stage(600))
    assert (staged.version, staged.stage) == (2, Stage(600))
    for cache in replicas:
        await cache._engine.live.refresh()
    await ask(replicas[1], right=False)
    await look(*replicas)
    back, change, before = await first.tuning_history()
    assert (back.version, back.author, back.reverts) == (3, WATCH, 1)
    assert "12 of 12 judged" in back.note
    assert "version 2 is taken back: at least" in back.note
    assert "more than 1.0%" in back.note
    assert (change.author, change.note) == ("ana", "more hits")
    assert before.after == {"l1_ttl": 60.0}
    assert "version 2 is taken back" in caplog.text
    for cache in replicas:
        await cache._engine.live.refresh()
        assert (cache.tuning.version, cache.tuning.semantic_threshold) == (3, 0.95)
        assert cache.tuning.l1_ttl == 60
    await look(*replicas)
    assert first.tuning.version == 3


async def test_failing_lookups_take_it_back(make_cache: CacheFactory) -> None:
    """Errors break the other limit, with their number in the audit."""
    cache = await make_cache(settings=BY_HAND)
    await cache.tune(LOWER, author="ana", stage=Stage(600, max_errors=0.05))
    await fail(cache, 5)
    await look(cache)
    (back, _) = await cache.tuning_history()
    assert back.author == WATCH
    assert "(5 of 5), more than 5.0%" in back.note
    assert cache.tuning.semantic_threshold == 0.95


async def test_it_is_confirmed_at_its_end(make_cache: CacheFactory, scribble: Scribble) -> None:
    """A replica confirms what another one staged long ago, with the counts."""
    cache = await make_cache(settings=BY_HAND)
    scribble("1", staged_long_ago({"semantic_threshold": 0.95}, LOWER))
    await cache._engine.live.refresh()
    assert cache.tuning.semantic_threshold == 0.6
    await ask(cache, right=True)
    await look(cache)
    end, begin = await cache.tuning_history()
    assert begin.stage == Stage(600)
    assert (end.version, end.author, end.after, end.stage) == (2, WATCH, {}, None)
    assert end.note == ("version 1 is confirmed: 12 lookups, 0 failed, 0 of 12 judged hits wrong")
    assert (cache.tuning.version, cache.tuning.semantic_threshold) == (2, 0.6)
    await look(cache)
    assert cache.tuning.version == 2
    await cache.tune({"l1_ttl": 60}, author="ben")


async def test_without_lookups_it_is_not_confirmed(
    make_cache: CacheFactory, scribble: Scribble
) -> None:
    """A change of which nothing is known at its end is taken back, with the reason."""
    cache = await make_cache(settings=BY_HAND)
    scribble("1", staged_long_ago({"semantic_threshold": 0.95}, LOWER))
    await cache._engine.live.refresh()
    await ask(cache, right=True, times=9)
    await look(cache)
    assert cache.tuning.semantic_threshold == 0.95
    back = (await cache.tuning_history())[0]
    assert back.note == "version 1 is taken back: too few lookups to judge it (9 of 10)"


async def test_without_the_log_nothing_is_staged(make_cache: CacheFactory) -> None:
    """A stage would see no lookup, so it is rejected with the remedy; other changes are not."""
    cache = await make_cache(settings={**BY_HAND, "decisions": 0})
    with pytest.raises(ConfigurationError, match="CACHE_DECISIONS"):
        await cache.tune({"sharing": "all"}, author="ana", stage=Stage(600))
    assert (await cache.tune({"sharing": "all"}, author="ana")).version == 1


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"sharing": "all"}, {"sharing": "private"}),
        ({"intent.faq.shared": True}, {"intent.faq.shared": False}),
        ({"semantic_threshold": 0.6}, {"semantic_threshold": 0.8, "max_wrong": 0.0}),
        ({"l1_ttl": 7_200}, {"l1_ttl": 60, "semantic_threshold": 0.6}),
    ],
)
async def test_taking_back_never_loosens(
    make_cache: CacheFactory,
    caplog: pytest.LogCaptureFixture,
    before: dict[str, Any],
    after: dict[str, Any],
) -> None:
    """A stricter value stays, whatever fails; the log says once why."""
    cache = await make_cache(settings=BY_HAND)
    await cache.tune(before, author="ana")
    await cache.tune(after, author="ana", note="a leak", stage=Stage(600))
    await fail(cache)
    for _ in range(2):
        await look(cache)
    assert cache.tuning.version == 2
    assert cache._engine.live.staged is not None
    (said,) = [item.getMessage() for item in caplog.records if "not taken back" in item.message]
    assert "at least 72.2% of the lookups fail (10 of 10)" in said
    await cache.revert_tuning(1, author="ana")


async def test_what_must_not_be_taken_back_is_confirmed_with_the_reason(
    make_cache: CacheFactory, scribble: Scribble
) -> None:
    """At the end of its stage a stricter value stays, and the audit says what spoke against it."""
    cache = await make_cache(settings=BY_HAND, sharing="all")
    scribble("1", staged_long_ago({"sharing": "all"}, {"sharing": "private"}))
    await cache._engine.live.refresh()
    await fail(cache)
    await look(cache)
    assert (cache.tuning.version, cache.tuning.sharing) == (2, "private")
    end = (await cache.tuning_history())[0]
    assert end.note.startswith("version 1 is confirmed: 10 lookups, 10 failed, no hit was judged; ")
    assert end.note.endswith("but taking it back would loosen sharing")


async def test_wrong_hits_that_the_log_has_dropped(make_cache: CacheFactory) -> None:
    """A replica that looks late holds no verdict on older hits against the few left in the log."""
    cache = await make_cache(settings={**BY_HAND, "decisions": 20})
    await cache.tune(LOWER, author="ana", stage=Stage(600, max_wrong=0.04))
    await ask(cache, right=False)
    for _ in range(3):
        for _ in range(100):
            await cache.lookup("topic1 alpha beta gamma", "ann")
        await cache._parts.decisions.flush()
    assert len(await cache.decisions(1_000)) < 200
    await look(cache)
    assert cache._engine.live.staged is not None
    assert inside(cache).staging._seen.wrong == 12


async def test_an_erased_user_leaves_the_number_of_lookups(make_cache: CacheFactory) -> None:
    """The rows that an erasure writes again are not counted again."""
    settings = {**BY_HAND, "capture_message_content": True}
    cache = await make_cache(settings=settings, sharing="all")
    await cache.tune(LOWER, author="ana", stage=Stage(600))
    await cache.put("alpha beta gamma delta", "ben", "answer")
    for _ in range(12):
        await cache.lookup("alpha beta gamma delta", "ann")
    await cache._parts.decisions.flush()
    await look(cache)
    await cache.forget_user("ben")
    await look(cache)
    assert inside(cache).staging._seen.lookups == 12


async def test_it_survives_the_replica_that_made_it(make_cache: CacheFactory) -> None:
    """The replica that staged it ends; one that starts later takes it back."""
    first = await make_cache(settings=BY_HAND)
    await first.tune(LOWER, author="ana", stage=Stage(600))
    await ask(first, right=False)
    await first.close()
    later = await make_cache(settings=BY_HAND)
    assert later.tuning.semantic_threshold == 0.6
    await look(later)
    assert later.tuning.semantic_threshold == 0.95
    assert (await later.tuning_history())[0].reverts == 0


async def test_little_evidence_leaves_it(make_cache: CacheFactory) -> None:
    """Two wrong hits may be chance, and right ones are no reason: the stage goes on."""
    cache = await make_cache(settings=BY_HAND)
    await cache.tune(LOWER, author="ana", stage=Stage(600))
    await ask(cache, right=True)
    await ask(cache, right=False, times=2)
    await look(cache)
    assert cache.tuning.version == 1
    assert cache._engine.live.staged is not None


async def test_a_verdict_that_was_taken_back_does_not_count(make_cache: CacheFactory) -> None:
    """Reviews that the watch had read, and that were withdrawn, do not take a change back."""
    cache = await make_cache(settings=BY_HAND)
    await cache.tune(LOWER, author="ana", stage=Stage(600))
    await ask(cache, right=True)
    decisions = await cache.decisions()
    for number, decision in enumerate(decisions[:3]):
        await cache.judge(decision, correct=False)
        if number < 2:
            await look(cache)
            assert await cache.operator.withdraw(decision, author="ana") is None
    await look(cache)
    assert cache._engine.live.staged is not None
    for decision in decisions[3:5]:
        await cache.judge(decision, correct=False)
    await look(cache)
    assert "3 of 10 judged" in (await cache.tuning_history())[0].note


async def test_verdicts_on_other_versions_do_not_count(make_cache: CacheFactory) -> None:
    """Hits that were wrong before the change say nothing of it."""
    cache = await make_cache(settings=BY_HAND)
    await cache.tune(LOWER, author="ana")
    await ask(cache, right=False)
    await cache.tune({"l1_ttl": 60}, author="ana", stage=Stage(600))
    await look(cache)
    assert cache.tuning.version == 2


async def test_no_other_change_meanwhile(make_cache: CacheFactory) -> None:
    """While it is staged, a change is rejected with the remedy; confirming or reverting ends it."""
    cache = await make_cache(settings=BY_HAND)
    await cache.tune(LOWER, author="ana", stage=Stage(600))
    for stage in (None, Stage(60)):
        with pytest.raises(ConfigurationError, match=r"by ana, is staged until .*tune confirm"):
            await cache.tune({"l1_ttl": 60}, author="ben", stage=stage)
    assert cache.tuning.version == 1
    with pytest.raises(TuningConflict):
        await cache.confirm_tuning(author="ben", expected_version=7)
    with pytest.raises(ConfigurationError, match=r"version 1 has the values .*tune confirm"):
        await cache.revert_tuning(1, author="ben")
    assert cache._engine.live.staged is not None
    done = await cache.confirm_tuning(author="ben", note="looked at it", expected_version=1)
    assert (done.version, done.note) == (2, "version 1 is confirmed: looked at it")
    with pytest.raises(ConfigurationError, match="nothing to confirm"):
        await cache.confirm_tuning(author="ben")
    await cache.tune({"l1_ttl": 60}, author="ben", stage=Stage(600))
    await cache.revert_tuning(1, author="ben")
    assert cache._engine.live.staged is None
    assert cache.tuning.l1_ttl == 3600


async def test_a_lost_trail_still_goes_back(make_cache: CacheFactory) -> None:
    """The store loses everything, a replica restores the staged version: the old values return."""
    cache = await make_cache(settings=BY_HAND)
    await cache.tune({"semantic_threshold": 0.9, "l1_ttl": 60}, author="ben")
    await cache.tune(LOWER, author="ana", stage=Stage(600))
    live = cache._engine.live
    await cache._parts.store.delete_rows(live._trail.key, ["1", "2"])
    await live.refresh()
    await ask(cache, right=False)
    await look(cache)
    assert cache.tuning.semantic_threshold == 0.9
    assert cache.tuning.l1_ttl == 60


async def test_an_unavailable_store_lets_it_wait(
    make_cache: CacheFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the logs cannot be read nothing ends; afterwards the watch goes on."""
    cache = await make_cache(settings=BY_HAND)
    await cache.tune(LOWER, author="ana", stage=Stage(600))
    await ask(cache, right=False)

    async def fail(*_: Any) -> Any:
        raise BackendError("timeout")

    with monkeypatch.context() as away:
        away.setattr(cache._parts.store, "after", fail)
        with pytest.raises(BackendError):
            await look(cache)
    assert cache.tuning.version == 1
    await look(cache)
    assert cache.tuning.version == 2


async def test_a_running_replica_watches_by_itself(make_cache: CacheFactory) -> None:
    """The background duty takes a change back within a minute, without anybody's call."""
    cache = await make_cache(settings=PATIENT)
    await cache.tune(LOWER, author="ana", stage=Stage(600))
    await ask(cache, right=False)
    took = await until(lambda: cache.tuning.version == 2, 60.0)
    print(f"taken back {took:.1f} s after the verdicts")
    assert (await cache.tuning_history())[0].author == WATCH


@pytest.mark.parametrize(
    "values", [("30s", 0.01, 0.01), ("8d", 0.01, 0.01), ("x", 0.01, 0.01), ("1h", 0, 0.01),
               ("1h", 0.01, 1.0), ("1h", 0.01, float("nan"))],
)  # fmt: skip
async def test_a_stage_is_bounded(values: Any, cache: MultiLevelCache) -> None:
    """A stage lasts a minute to a week, with limits that mean something."""
    with pytest.raises(ConfigurationError, match="it lasts 1m to 7d"):
        Stage.of(*values)
    with pytest.raises((ConfigurationError, TypeError)):
        await cache.tune(LOWER, author="ana", stage=Stage(*values))
    assert cache.tuning.version == 0


def test_an_ordinary_row_is_as_older_releases_wrote_it() -> None:
    """Only a staged change has the new field in its row, and both are read as they were written."""
    plain = TrailRecord(TuningChange(1, 1.0, "ana", "", {}, {"l1_ttl": 60.0}), {"l1_ttl": 60.0})
    assert "stage" not in json.loads(plain.text)
    staged = TrailRecord(TuningChange(1, 1.0, "ana", "", {}, {}, None, Stage(90.0)), {})
    for record in (plain, staged):
        found = parse(1, record.text)
        assert found == record
        assert found.text == record.text
