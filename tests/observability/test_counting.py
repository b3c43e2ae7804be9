"""The counting contract: scripted scenarios and the very numbers that they must give."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from cache_core import Answer, MultiLevelCache, Settings, Tuning
from cache_core.backends.sqlite.store import EmbeddedStore
from cache_core.model.values import LookupResult, Miss, Query, Where
from cache_core.observability import decisions
from cache_core.observability.decisions import FORMAT, Decision, decided
from cache_core.observability.evidence import Evidence, Found, TierAnswer
from cache_core.observability.instruments import CacheState
from cache_core.observability.records import LookupRecord, Record, ScopedRecord, TierRecord
from cache_core.testing import HashEmbedder, ManualClock, RecordingInstrument
from tests.support import servers
from tests.support.caches import CacheFactory, check_balance
from tests.support.patience import PATIENT


@pytest.fixture
def watcher() -> RecordingInstrument:
    return RecordingInstrument()


@pytest.fixture
async def cache(make_cache: CacheFactory, watcher: RecordingInstrument) -> MultiLevelCache:
    made: MultiLevelCache = await make_cache(settings=PATIENT, instruments=[watcher])
    return made


def tiers(record: LookupRecord) -> list[tuple[Any, str, str]]:
    """Return tier, outcome and reason of each tier that a lookup counted."""
    return [(part.level, part.outcome, part.reason) for part in record.calls]


# --------------------------------------------------------------------------------- scenarios


async def test_a_day_in_numbers(cache: MultiLevelCache) -> None:
    """A scripted day gives exactly these counts, rates and savings."""
    await cache.put("alpha beta gamma", "ann", "answer", "faq", [{"id": 1}])
    assert (await cache.lookup("alpha beta gamma", "ann")).outcome == "hit"
    assert (await cache.lookup("alpha, beta gamma", "ann")).outcome == "hit"
    assert await cache.get_multilevel("alpha beta gamma", "bob") is None
    assert (await cache.lookup("alpha beta gamma", "bob")).outcome == "partial"
    assert (await cache.lookup("delta", "ann")).outcome == "miss"
    assert (await cache.lookup("delta", "bob")).outcome == "miss"
    assert (await cache.lookup("  ", "ann")).outcome == "bypass"
    found = cache.get_metrics()
    assert found["outcomes"] == {"hit": 2, "partial": 2, "miss": 2, "error": 0, "bypass": 1}
    assert found["operations"] == 7
    assert found["hit_rates"] == {
        "overall": 33.33, "l1": 16.67, "l2": 20.0, "l3": 50.0, "l4": 0.0,
    }  # fmt: skip
    assert found["miss_reasons"] == {
        "l1": {"cold": 3, "other_scope": 2},
        "l2": {"below_threshold": 1, "cold": 3},
        "l3": {"cold": 2},
        "l4": {"cold": 4},
    }
    assert found["error_reasons"] == {}
    assert found["bypass_reasons"] == {"empty": 1}
    assert found["puts"] == {level: {"stored": 1} for level in ("l1", "l2", "l3", "l4")}
    saved = {level: values["saved_usd"] for level, values in found["tiers"].items()}
    assert saved == {"l1": 0.036, "l2": 0.036, "l3": 0.001, "l4": 0.0}
    assert found["cost_savings_usd"] == 0.073
    assert found["tiers"]["l1"]["served_share"] == 0.1667
    assert (cache.metrics.l1_hits, cache.metrics.l1_misses) == (1, 5)
    assert (cache.metrics.l3_hits, cache.metrics.l4_misses) == (2, 4)


async def test_later_tiers_count_only_when_needed(
    cache: MultiLevelCache, watcher: RecordingInstrument
) -> None:
    """An L1 hit counts L1 alone, an L2 hit L1 and L2, anything less all four."""
    await cache.put("alpha beta", "ann", "answer", "faq", [{"id": 1}])
    await cache.lookup("alpha beta", "ann")
    await cache.lookup("beta alpha", "ann")
    await cache.lookup("delta", "bob")
    assert [tiers(call) for call in watcher.of("lookup")] == [
        [("l1", "hit", "")],
        [("l1", "miss", "cold"), ("l2", "hit", "")],
        [("l1", "miss", "cold"), ("l2", "miss", "cold"), ("l3", "miss", "cold"),
         ("l4", "miss", "cold")],
    ]  # fmt: skip


async def test_credit_only_where_handed_out(cache: MultiLevelCache) -> None:
    """Intent and documents save something in lookup, and nothing in get_multilevel."""
    await cache.put("alpha", "ann", None, "faq", [{"id": 1}])
    await cache.get_multilevel("alpha", "ann")
    assert cache.metrics.cost_saved_usd == 0
    await cache.lookup("alpha", "ann")
    assert round(cache.metrics.cost_saved_usd, 6) == 0.006


async def test_an_answers_own_cost_is_what_it_saves(cache: MultiLevelCache) -> None:
    """With cost_usd a hit saves that, exactly and by similarity."""
    await cache.put("alpha beta", "ann", "answer", cost_usd=1.5)
    await cache.lookup("alpha beta", "ann")
    await cache.lookup("beta alpha", "ann")
    assert cache.get_metrics()["cost_savings_usd"] == 3.0


async def test_tiers_that_are_off_count_nothing(make_cache: CacheFactory) -> None:
    """A tier that is switched off has neither hits nor misses nor errors."""
    cache = await make_cache(settings={**PATIENT, "tiers": "l1,l4"})
    await cache.put("alpha", "ann", "answer", "faq", [{"id": 1}])
    await cache.lookup("alpha", "bob")
    assert cache.get_metrics()["miss_reasons"] == {"l1": {"other_scope": 1}, "l4": {"cold": 1}}
    assert cache.get_metrics()["puts"] == {"l1": {"stored": 1}, "l4": {"stored": 1}}


@pytest.mark.parametrize("on", ["l3", "l4", "l3,l4", "l2"])
async def test_a_cache_without_l1(make_cache: CacheFactory, on: str) -> None:
    """Any tiers may be off: what is left still works, and a put of nothing for them is no error."""
    cache = await make_cache(settings={**PATIENT, "tiers": on})
    await cache.put("alpha", "ann", "answer")
    await cache.put("beta", "ann", "answer", "faq", [{"id": 1}])
    found = await cache.lookup("beta", "ann")
    assert found.outcome == ("hit" if on == "l2" else "partial")
    assert (await cache.lookup("gamma", "ann")).outcome == "miss"


async def test_every_tier_off_is_a_bypass(make_cache: CacheFactory) -> None:
    """With no tier on every lookup is a bypass for the reason `disabled`."""
    cache = await make_cache(settings={**PATIENT, "tiers": ""})
    assert (await cache.lookup("alpha", "ann")).reasons == ("disabled",)
    assert cache.get_metrics()["bypass_reasons"] == {"disabled": 1}


async def test_reset_counts_from_zero(cache: MultiLevelCache) -> None:
    """After reset_metrics everything is zero."""
    await cache.lookup("alpha", "ann")
    cache.reset_metrics()
    found = cache.get_metrics()
    assert (found["operations"], found["miss_reasons"], found["hit_rates"]["overall"]) == (0, {}, 0)


async def test_the_whole_report_is_json(cache: MultiLevelCache) -> None:
    """get_metrics returns nothing but JSON values."""
    await cache.lookup("alpha", "ann")
    assert json.loads(json.dumps(cache.get_metrics()))["operations"] == 1


# ----------------------------------------------------------------------------------- sharing


async def test_misses_for_anothers_answer_are_reported(cache: MultiLevelCache) -> None:
    """Misses that another user's answer could have served are counted by intent, with advice."""
    await cache.put("opening hours", "ann", "9 to 5", "faq.hours")
    for user in ("bob", "cleo", "dan"):
        assert (await cache.lookup("opening hours", user)).reasons[0] == "other_scope"
    await cache.lookup("opening hours", "ann")
    sharing = cache.get_metrics()["sharing"]
    assert sharing["other_scope_misses"] == 3
    assert sharing["other_scope_share"] == 0.75
    assert sharing["by_intent"] == {"faq.hours": 3}
    assert "CACHE_SHARED_INTENTS=faq.hours" in sharing["advice"]


async def test_declaring_the_intent_ends_the_misses(make_cache: CacheFactory) -> None:
    """The same traffic with the intent shared hits, and no advice is left to give."""
    cache = await make_cache(settings=PATIENT, shared_intents=["faq.hours"])
    await cache.put("opening hours", "ann", "9 to 5", "faq.hours")
    assert (await cache.lookup("opening hours", "bob")).response == "9 to 5"
    assert cache.get_metrics()["sharing"]["advice"] == ""


async def test_an_intent_that_is_no_label_is_not_reported(cache: MultiLevelCache) -> None:
    """Free text given as an intent does not show in what other users' misses say."""
    await cache.put("alpha", "ann", "answer", "ann wants a refund")
    result = await cache.lookup("alpha", "bob")
    assert result.reasons[0] == "other_scope"
    assert cache.get_metrics()["sharing"]["by_intent"] == {"(none)": 1}
    assert "refund" not in json.dumps(cache.get_metrics())


# ------------------------------------------------------------------------------------ errors


async def test_a_broken_embedder_is_an_error_not_a_miss(
    cache: MultiLevelCache, embedder: HashEmbedder, watcher: RecordingInstrument
) -> None:
    """A failure of L2 alone makes an error, or a partial if intent or documents are there."""
    await cache.put("known", "ann", None, "faq")
    embedder.failure = RuntimeError("broken")
    assert (await cache.lookup("unknown", "ann")).outcome == "error"
    assert (await cache.lookup("known", "ann")).outcome == "partial"
    assert tiers(watcher.of("lookup")[0])[1] == ("l2", "error", "backend_error")
    assert cache.get_metrics()["error_reasons"] == {"l2": {"backend_error": 2}}


@pytest.mark.server
async def test_a_killed_store_is_an_outage_not_misses(tmp_path: Path) -> None:
    """With Redis killed lookups are errors, never misses, and every count balances."""
    with servers.redis_server(tmp_path) as url:
        fixed = Settings(dir=tmp_path / "cache", redis_url=url)
        cache = MultiLevelCache(settings=fixed, embedding_model=HashEmbedder(), instruments=())
        await cache.initialize()
        await cache.put("alpha", "ann", "answer")
    for _ in range(20):
        result = await cache.lookup("alpha", "ann")
        assert (result.outcome, result.response) == ("error", None)
    await cache.put("beta", "ann", "answer")
    found = cache.get_metrics()
    assert found["outcomes"]["error"] == 20
    assert found["miss_reasons"].get("l1", {}) == {}
    assert found["tiers"]["l1"]["errors"] == 20
    assert set(found["error_reasons"]["l1"]) <= {"timeout", "backend_error", "breaker_open"}
    assert found["error_reasons"]["l1"]["breaker_open"] > 5
    assert found["puts"]["l1"]["dropped"] == 1
    check_balance(cache.metrics)
    await cache.close()


class _Broken:
    """An instrument that fails at everything."""

    def scope(self, operation: Any, level: Any) -> Any:
        raise RuntimeError("scope")

    def record(self, record: Record) -> None:
        raise RuntimeError("record")

    def report(self, state: CacheState) -> None:
        raise RuntimeError("report")


class _BrokenScope(_Broken):
    """An instrument whose scopes cannot be closed."""

    detailed = True

    def scope(self, operation: Any, level: Any) -> Any:
        return self

    def close(self, record: ScopedRecord | TierRecord) -> None:
        raise RuntimeError("close")


async def test_a_broken_instrument_hurts_nobody(
    make_cache: CacheFactory, watcher: RecordingInstrument
) -> None:
    """An instrument's exception never reaches the caller, nor keeps others from recording."""
    cache = await make_cache(settings=PATIENT, instruments=[_Broken(), _BrokenScope(), watcher])
    await cache.put("alpha", "ann", "answer")
    assert (await cache.lookup("alpha", "ann")).response == "answer"
    assert await cache.get_or_compute("beta", "ann", lambda: "made") == "made"
    assert (await cache.invalidate("alpha")).complete
    assert [call.outcome for call in watcher.of("lookup")] == ["hit", "miss"]
    assert cache.metrics.lookups == 2


async def test_every_scope_is_closed_once(
    cache: MultiLevelCache, watcher: RecordingInstrument
) -> None:
    """Each scope that an instrument opened is closed, with the finished call."""
    await cache.put("alpha", "ann", "answer")
    await cache.lookup("alpha", "ann")
    await cache.lookup("beta", "ann")
    await asyncio.sleep(0.01)
    assert len(watcher.opened) == len(watcher.closed)
    assert all(call.seconds > 0 for call in watcher.closed)


async def test_records_carry_no_text(cache: MultiLevelCache, watcher: RecordingInstrument) -> None:
    """No record holds a message, a user id, an answer or a key."""
    await cache.put("alpha-secret", "ann-secret", "answer-secret", "faq", [{"id": "doc-secret"}])
    await cache.lookup("alpha-secret", "ann-secret")
    await cache.lookup("alpha-secret", "bob-secret")
    await cache.invalidate("alpha-secret")
    told = repr([watcher.recorded, watcher.closed, watcher.states])
    assert "secret" not in told
    assert cache._parts.keys.tag("alpha-secret") not in told


# ------------------------------------------------------------------------------ cancellation


async def test_a_cancelled_lookup_counts_only_as_cancelled(cache: MultiLevelCache) -> None:
    """Wherever a lookup is cancelled, it is counted once: as cancelled, or as what it became."""
    await cache.put("alpha", "ann", "answer", "faq", [{"id": 1}])
    ended, cancelled = 0, 0
    for steps in range(1, 60):
        task = asyncio.ensure_future(cache.lookup(f"question {steps}", "ann"))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            cancelled += 1
        else:
            ended += 1
        assert (cache.metrics.cancelled, cache.metrics.lookups) == (cancelled, ended)
    assert cancelled > 0
    assert (await cache.lookup("alpha", "ann")).response == "answer"


async def test_a_put_cancelled_anywhere_leaves_the_cache_sound(cache: MultiLevelCache) -> None:
    """After a cancelled put the next put and lookup of the same message are right."""
    for steps in range(1, 30):
        task = asyncio.ensure_future(cache.put(f"alpha {steps}", "ann", "torn", "faq", [{"id": 1}]))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await cache.get_multilevel(f"alpha {steps}", "ann") in {None, "torn"}
        await cache.put(f"alpha {steps}", "ann", "whole")
        assert await cache.get_multilevel(f"alpha {steps}", "ann") == "whole"


async def test_the_first_use_cancelled_anywhere(
    store_kind: str, request: Any, tmp_path: Path
) -> None:
    """A first lookup that is cancelled while the cache opens leaves a cache that still opens."""
    url = request.getfixturevalue("empty_redis") if store_kind == "redis" else None
    fixed = Settings(dir=tmp_path, redis_url=url, **PATIENT)  # type: ignore[arg-type]
    for wait in (0.0, 0.001, 0.005, 0.02, 0.05):
        cache = MultiLevelCache(settings=fixed, embedding_model=HashEmbedder(), instruments=())
        task = asyncio.ensure_future(cache.lookup("alpha", "ann"))
        await asyncio.sleep(wait)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await cache.put("alpha", "ann", "answer")
        assert await cache.get_multilevel("alpha", "ann") == "answer"
        await cache.close()


# ------------------------------------------------------------------------------ decision log


async def test_the_decision_log_has_the_reason(make_cache: CacheFactory, store_kind: str) -> None:
    """Each lookup leaves its outcome and evidence in the log, newest last, for every replica."""
    cache = await make_cache(settings=PATIENT)
    await cache.put("alpha beta gamma", "ann", "answer", "faq")
    served = await cache.lookup("alpha, beta gamma", "ann")
    near = await cache.lookup("alpha beta delta", "ann")
    await cache.lookup("alpha beta gamma", "bob")
    await cache._parts.decisions.flush()
    other = await make_cache(settings=PATIENT)
    hit, miss, partial = await other._parts.decisions.last(10)
    keys = cache._parts.keys
    assert (hit.outcome, hit.level, hit.lookup_id) == ("hit", "l2", served.lookup_id)
    assert hit.similarity is not None
    assert hit.similarity > 0.99
    assert hit.matched == keys.tag("alpha beta gamma") != hit.message
    assert (hit.user, hit.threshold, hit.saved_usd) == (keys.user("ann"), 0.95, 0.036)
    assert (miss.outcome, miss.reason, miss.lookup_id) == (
        "miss",
        "below_threshold",
        near.lookup_id,
    )
    assert miss.similarity is not None
    assert 0.5 < miss.similarity < 0.95
    assert miss.similarity == miss.unvetoed
    assert (partial.outcome, partial.reason, partial.intent) == ("partial", "other_scope", "faq")
    assert all(item.seconds > 0 and item.at > 1e9 for item in (hit, miss, partial))


async def test_the_decision_log_has_no_texts(cache: MultiLevelCache) -> None:
    """Neither messages nor users nor answers are in the log, only digests."""
    await cache.put("alpha-secret", "ann-secret", "answer-secret")
    await cache.lookup("alpha-secret", "ann-secret")
    await cache._parts.decisions.flush()
    raw = await cache._parts.store.last(cache._parts.keys.own("decisions"), 10)
    assert len(raw) == 1
    assert "secret" not in raw[0][1]


async def test_the_decision_log_keeps_the_last(make_cache: CacheFactory) -> None:
    """The log holds about as many lookups as it was given to keep, the newest."""
    cache = await make_cache(settings={**PATIENT, "decisions": 50, "tiers": "l1"})
    for number in range(200):
        await cache.lookup(f"question {number}", "ann")
    await cache._parts.decisions.flush()
    found = await cache._parts.decisions.last(1_000)
    assert 50 <= len(found) < 200
    assert found[-1].message == cache._parts.keys.tag("question 199")


async def test_decisions_are_made_only_of_lookups_that_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sample that stands for all is kept of more lookups than one flush writes."""
    made: list[str] = []

    def counted(evidence: Evidence, at: float) -> Decision:
        made.append(evidence.record.lookup_id)
        return decided(evidence, at)

    monkeypatch.setattr(decisions, "decided", counted)
    store = EmbeddedStore(tmp_path)
    await store.open()
    log = decisions.DecisionLog(store, "decisions", 10_000)
    found = Found([TierAnswer(TierRecord("l1", outcome="miss"), Miss("cold"), None)])
    query, result = Query("q", "t", "u", "s", "c", "", "e"), LookupResult(None, None, None, "miss")
    for number in range(10_000):
        record = LookupRecord(f"r-{number}", 1, outcome="miss", reason="cold")
        log.note(Evidence(record, query, Where(), found, result, Tuning()))
    await log.flush()
    kept = await log.last(10_000)
    assert len(kept) == 250
    assert sum(item.stands_for for item in kept) == pytest.approx(10_000, rel=0.01)
    assert {item.lookup_id for item in kept} <= set(made)
    assert len(made) < 2_000  # 250 * (1 + ln(10_000 / 250)) are expected
    await store.close()


@pytest.mark.parametrize("text", ["", "garbage", "[]", "{}", "5", '{"at": 1}'])
def test_foreign_records_are_left_out(text: str) -> None:
    """A record that is no decision of this version is ignored."""
    assert FORMAT.parse(text) is None


async def test_recent_is_this_replicas(cache: MultiLevelCache) -> None:
    """`recent` returns the last lookups immediately, bounded, without a trip to the store."""
    for number in range(5):
        await cache.lookup(f"question {number}", "ann")
    assert [item.message for item in cache.recent(2)] == [
        cache._parts.keys.tag("question 3"),
        cache._parts.keys.tag("question 4"),
    ]


# ------------------------------------------------------------------------------ single flight


class Computer:
    """Computes slowly, and counts how often."""

    def __init__(self, seconds: float = 0.05, failure: Exception | None = None) -> None:
        self.seconds = seconds
        self.failure = failure
        self.started = 0
        self.finished = 0
        self.cancelled = 0

    async def __call__(self) -> str:
        self.started += 1
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.failure is not None:
            raise self.failure
        self.finished += 1
        return f"answer {self.started}"


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.5])
async def test_one_computation_for_all_who_ask_at_once(
    cache: MultiLevelCache, watcher: RecordingInstrument, seconds: float
) -> None:
    """Two hundred concurrent callers cost one computation, however short, and get one answer."""
    compute = Computer(seconds)
    found = await asyncio.gather(
        *(cache.get_or_compute("alpha", "ann", compute) for _ in range(200))
    )
    assert compute.started == 1
    assert set(found) == {"answer 1"}
    assert len([call for call in watcher.of("compute") if call.outcome == "ok"]) == 1


async def test_users_do_not_share_a_computation(cache: MultiLevelCache) -> None:
    """Each user's answer is computed for that user, even when they ask concurrently."""
    compute = Computer()
    await asyncio.gather(
        *(cache.get_or_compute("alpha", user, compute) for user in ("ann", "bob", None, None))
    )
    assert compute.started == 4


async def test_a_cancelled_leader_leaves_the_others_their_answer(cache: MultiLevelCache) -> None:
    """The other callers get a computation's result if the one that began it is cancelled."""
    compute = Computer(0.3)
    leader = asyncio.ensure_future(cache.get_or_compute("alpha", "ann", compute))
    while not compute.started:
        await asyncio.sleep(0.005)
    followers = [
        asyncio.ensure_future(cache.get_or_compute("alpha", "ann", compute)) for _ in range(3)
    ]
    await asyncio.sleep(0.1)
    leader.cancel()
    assert await asyncio.gather(*followers) == ["answer 1"] * 3
    assert leader.cancelled() or leader.cancelling()
    assert (compute.started, compute.cancelled) == (1, 0)
    assert await cache.get_multilevel("alpha", "ann") == "answer 1"


async def test_nobody_left_cancels_the_computation(cache: MultiLevelCache) -> None:
    """A computation ends with the cancellation of its last caller, and nothing is stored."""
    compute = Computer(5)
    callers = [
        asyncio.ensure_future(cache.get_or_compute("alpha", "ann", compute)) for _ in range(3)
    ]
    while not compute.started:
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.1)
    for caller in callers:
        caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    await asyncio.sleep(0.01)
    assert (compute.started, compute.cancelled) == (1, 1)
    assert (await cache.lookup("alpha", "ann")).outcome == "miss"


async def test_a_failure_reaches_all_and_is_not_stored(cache: MultiLevelCache) -> None:
    """An exception of compute is raised to every waiting caller, and the next call retries."""
    compute = Computer(0.1, ZeroDivisionError("no"))
    found = await asyncio.gather(
        *(cache.get_or_compute("alpha", "ann", compute) for _ in range(5)), return_exceptions=True
    )
    assert [type(item) for item in found] == [ZeroDivisionError] * 5
    assert compute.started == 1
    compute.failure = None
    assert await cache.get_or_compute("alpha", "ann", compute) == "answer 2"


async def test_compute_may_use_what_is_known(cache: MultiLevelCache) -> None:
    """A compute function of one argument gets the lookup's intent and documents."""
    await cache.put("alpha", "ann", None, "faq", [{"id": 1}])
    got: list[LookupResult] = []

    def compute(result: LookupResult) -> Answer:
        got.append(result)
        return Answer("made", intent="faq.two", cost_usd=2.0)

    assert await cache.get_or_compute("alpha", "ann", compute) == "made"
    assert (got[0].intent, got[0].rag_results) == ("faq", [{"id": 1}])
    found = await cache.lookup("alpha", "ann")
    assert (found.response, found.intent) == ("made", "faq.two")


# ------------------------------------------------------------- computed before an invalidation


async def test_a_value_from_before_an_invalidation_is_never_served(cache: MultiLevelCache) -> None:
    """Lookup, then an invalidation elsewhere, then the put: the next lookup misses."""
    assert (await cache.lookup("alpha", "ann")).outcome == "miss"
    await asyncio.create_task(cache.invalidate("alpha"))
    await cache.put("alpha", "ann", "old", "faq", [{"id": 1}])
    assert (await cache.lookup("alpha", "ann")).outcome == "miss"
    assert (await cache.lookup("alpha", "ann")).rag_results is None
    await cache.put("alpha", "ann", "new")
    assert (await cache.lookup("alpha", "ann")).response == "new"


async def test_a_value_computed_while_a_document_changed(cache: MultiLevelCache) -> None:
    """The same holds for a hit that was refreshed while its document was invalidated."""
    await cache.put("alpha", "ann", "first", rag_results=[{"id": "doc"}])
    assert (await cache.lookup("alpha", "ann")).response == "first"
    await asyncio.create_task(cache.invalidate_document("doc"))
    await cache.put("alpha", "ann", "from the old document")
    assert (await cache.lookup("alpha", "ann")).response is None


@pytest.mark.parametrize("on", ["l3,l4", "l2,l3"])
async def test_the_same_without_l1(make_cache: CacheFactory, on: str) -> None:
    """The promise does not hang on L1 being on."""
    cache = await make_cache(settings={**PATIENT, "tiers": on})
    await cache.lookup("alpha", "ann")
    await asyncio.create_task(cache.invalidate("alpha"))
    await cache.put("alpha", "ann", "old", "faq", [{"id": 1}])
    assert (await cache.lookup("alpha", "ann")).outcome == "miss"


async def test_after_a_failed_lookup_an_invalidation_still_counts(
    make_cache: CacheFactory, tmp_path: Path
) -> None:
    """A value whose lookup could not read the store is not served past an invalidation either."""
    cache = await make_cache(settings=PATIENT)
    await cache.put("alpha", "ann", "first")
    store = cache._parts.store
    for _ in range(5):
        store.breaker.fail(ConnectionError("away"))
    assert (await cache.lookup("alpha", "ann")).outcome == "error"
    while store.breaker.state != "closed":  # it is probed in the background
        await asyncio.sleep(0.05)
    assert (await asyncio.create_task(cache.invalidate("alpha"))).complete
    await cache.put("alpha", "ann", "old")
    assert (await cache.lookup("alpha", "ann")).response is None


async def test_nobody_joins_a_computation_from_before_an_invalidation(
    cache: MultiLevelCache,
) -> None:
    """A caller who comes after an invalidation does not get what was begun before it."""
    await cache.put("alpha", "ann", "first")
    await cache.invalidate("alpha")
    compute = Computer(0.4)
    before = asyncio.create_task(cache.get_or_compute("alpha", "ann", compute))
    while not compute.started:
        await asyncio.sleep(0.005)
    await cache.invalidate("alpha")
    after = asyncio.create_task(cache.get_or_compute("alpha", "ann", compute))
    await asyncio.gather(before, after)
    assert compute.started == 2
    assert await cache.get_multilevel("alpha", "ann") == after.result()


async def test_time_passes_for_stored_answers_only(
    make_cache: CacheFactory, clock: ManualClock, store_kind: str
) -> None:
    """An expired answer counts as expired, and the age of a served one is in the result."""
    if store_kind == "redis":
        pytest.skip("Redis has a clock of its own; tests.contracts.test_tiers waits for it")
    cache = await make_cache(settings=PATIENT, clock=clock)
    await cache.put("alpha", "ann", "answer")
    clock.advance(60)
    assert (await cache.lookup("alpha", "ann")).age_seconds == 60
    clock.advance(3_600)
    result = await cache.lookup("alpha", "ann")
    assert (result.tier, result.reasons) == ("l2", ("expired",))
    clock.advance(86_400)
    assert (await cache.lookup("alpha", "ann")).reasons[0] == "cold"


async def test_dry_runs_are_not_counted(make_cache: CacheFactory) -> None:
    """A dry run is no invalidation, in metrics and among those pending."""
    seen = RecordingInstrument()
    cache = await make_cache(instruments=(seen,))
    await cache.put("alpha", "ann", "one", None, [{"id": "d"}], tags=["t"])
    for user in (None, "ann"):
        assert (await cache.invalidate("alpha", user, dry_run=True)).removed
    await cache.invalidate_document("d", dry_run=True)
    await cache.invalidate_tag("t", dry_run=True)
    await cache.invalidate_writer("ann", dry_run=True)
    assert (len(seen.of("invalidate")), cache._engine._counts.invalidations) == (0, 0)
    await cache.invalidate_tag("t")
    assert (len(seen.of("invalidate")), cache._engine._counts.invalidations) == (1, 1)
