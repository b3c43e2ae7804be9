"""Approval before serving: the band of doubt, what is called, remembered and counted."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import Any

import pytest

from cache_core import MultiLevelCache
from cache_core.backends.approver.base import AT_ONCE, Approver, Opinion
from cache_core.model.exceptions import BackendError
from telemetry import names
from tests.operations.test_learning import ASKED, NEAR
from tests.support.caches import CacheFactory
from tests.support.inside import inside
from tests.support.observing import MakeWatched, Watch
from tests.support.patience import PATIENT
from tests.support.waiting import until

EMBEDDED = pytest.mark.parametrize("store_kind", ["embedded"])
BAND = {"approve_margin": 0.1}
"""0.85 to 0.95: `NEAR` is at 0.92."""


class Judge:
    """An approver that says what it is told to, and remembers what it was asked."""

    def __init__(self, says: Any = True) -> None:
        self.says = says
        self.asked: list[tuple[str, str, str]] = []

    async def __call__(self, message: str, stored: str, response: str) -> Any:
        self.asked.append((message, stored, response))
        if isinstance(self.says, BaseException):
            raise self.says
        return await self.says() if callable(self.says) else self.says


async def doubtful(make_cache: CacheFactory, approve: Any, **more: Any) -> MultiLevelCache:
    """Return a cache that has an answer in doubt for `NEAR`, which every user may get."""
    tuned = {**BAND, **more.pop("tuned", {})}
    settings = {**PATIENT, **more.pop("settings", {})}
    cache: MultiLevelCache = await make_cache(approve=approve, settings=settings, **more)
    await cache.tune(tuned, author="test")
    await cache.put(ASKED, "ann", "the answer", shared=True)
    return cache


async def test_an_approved_answer_is_served_and_explained(make_cache: CacheFactory) -> None:
    """The approver gets both questions and the answer; the hit says that it was approved."""
    judge = Judge()
    cache = await doubtful(make_cache, judge)
    assert "in the band of approval" in (await cache.explain(NEAR, "bob"))[1].detail
    assert judge.asked == []
    found = await cache.lookup(NEAR, "bob")
    assert (found.response, found.tier, found.reasons[-1]) == ("the answer", "l2", "approved")
    assert judge.asked == [(NEAR, ASKED, "the answer")]
    assert "approved before it was served" in (await cache.explain(NEAR, "bob"))[1].detail
    assert cache.recent(1)[0].reasons[-1] == "approved"
    counted = cache.get_metrics()
    assert counted["approvals"] == {
        "approved": 1, "rejected": 0, "failed": 0, "timed_out": 0, "over_budget": 0
    }  # fmt: skip
    assert (counted["outcomes"]["hit"], counted["operations"]) == (1, 1)


async def test_what_was_approved_serves_the_next_lookup_of_any_replica(
    make_cache: CacheFactory,
) -> None:
    """A replica that has no approver serves it, too; another question is asked for again."""
    judge = Judge()
    cache = await doubtful(make_cache, judge)
    other: MultiLevelCache = await make_cache(settings=PATIENT)
    assert (await cache.lookup(NEAR, "bob")).response == "the answer"
    await until(lambda: other.tuning.approve_margin > 0)
    for replica, user in ((cache, "bob"), (cache, "eve"), (other, "kim"), (other, None)):

        async def served(replica: MultiLevelCache = replica, user: str | None = user) -> bool:
            return (await replica.lookup(NEAR, user)).response == "the answer"

        await until(served)
    assert len(judge.asked) == 1
    await cache.lookup(ASKED.replace("office", "school"), "bob")
    assert len(judge.asked) == 2


@EMBEDDED
async def test_without_a_band_nothing_is_asked(make_cache: CacheFactory) -> None:
    """The margin is 0 by default; an answer far below the threshold is never asked about."""
    judge = Judge()
    cache = await doubtful(make_cache, judge, tuned={"approve_margin": 0.0})
    assert (await cache.lookup(NEAR, "bob")).reasons[-1] == "below_threshold"
    await cache.tune({"approve_margin": 0.01}, author="test")
    assert (await cache.lookup(NEAR, "bob")).reasons[-1] == "below_threshold"
    assert (await cache.lookup(ASKED, "bob")).tier == "l1"
    await cache.tune({**BAND, "intent.faq.semantic_threshold": 1.0}, author="test")
    await cache.put(ASKED, "ann", "the answer", "faq", shared=True)
    assert (await cache.lookup(NEAR, "bob")).response is None
    assert judge.asked == []


@EMBEDDED
async def test_a_veto_is_never_approved_away(make_cache: CacheFactory) -> None:
    """A vetoed answer is not put to the approver, however similar its question is."""
    judge = Judge()
    cache = await doubtful(make_cache, judge)
    await cache.put("refund order 17 to my card please", "ann", "done", shared=True)
    found = await cache.lookup("refund order 18 to my card please", "bob")
    assert (found.response, judge.asked) == (None, [])


@EMBEDDED
async def test_the_policy_asks_for_what_it_is_not_sure_of(make_cache: CacheFactory) -> None:
    """Under `max_wrong` a held answer in the band is approved; a call with max_wrong=0 asks not."""
    judge = Judge()
    cache = await doubtful(make_cache, judge, tuned={"max_wrong": 0.0005})
    assert (await cache.lookup(NEAR, "bob", max_wrong=0)).reasons[-1] == "unsure"
    assert judge.asked == []
    found = await cache.lookup(NEAR, "bob")
    assert (found.response, found.reasons[-1]) == ("the answer", "approved")
    judge.says = False
    held = await cache.lookup(ASKED.replace("office", "school"), "bob")
    assert (held.response, held.reasons[-1]) == (None, "not_approved")


@EMBEDDED
async def test_a_rejected_answer_is_not_asked_about_again(make_cache: CacheFactory) -> None:
    """The lookup is a miss for that reason, and so is the next, until the answer is replaced."""
    judge = Judge(says=False)
    cache = await doubtful(make_cache, judge)
    for _ in range(2):
        assert (await cache.lookup(NEAR, "bob")).reasons[-1] == "not_approved"
    assert len(judge.asked) == 1
    await cache.put(ASKED, "ann", "another answer", shared=True)
    await cache.lookup(NEAR, "bob")
    assert len(judge.asked) == 2
    assert cache.get_metrics()["miss_reasons"]["l2"] == {"not_approved": 3}


@pytest.mark.parametrize(
    ("says", "logged"),
    [
        (ValueError("the secret question"), "ValueError"),
        (TimeoutError("the secret question"), "timeout"),
        (BackendError("backend_error", "HTTP 500", "the secret question"), "HTTP 500"),
        (asyncio.CancelledError("the secret question"), "CancelledError"),
        (GeneratorExit("the secret question"), "GeneratorExit"),
        (SystemExit("the secret question"), "SystemExit"),
        (1, "returned <class 'int'>, not True or False"),
        ("approved", "returned <class 'str'>, not True or False"),
        (None, "returned <class 'NoneType'>, not True or False"),
        (Opinion("no"), "returned <class 'str'>, not True or False"),  # type: ignore[arg-type]
        (Opinion(approved=True, tokens_out=-1), "numbers of tokens"),
    ],
)
@EMBEDDED
async def test_a_broken_approver_is_a_miss(
    make_cache: CacheFactory, caplog: pytest.LogCaptureFixture, says: Any, logged: str
) -> None:
    """Nothing is raised or served, the reason is counted, and no text of a message is logged."""
    cache = await doubtful(make_cache, Judge(says))
    with caplog.at_level(logging.DEBUG, "glasscache"):
        found = await cache.lookup(NEAR, "bob")
    late = logged == "timeout"
    reason = "approval_late" if late else "approval_failed"
    assert (found.response, found.outcome, found.reasons[-1]) == (None, "miss", reason)
    assert cache.get_metrics()["approvals"]["timed_out" if late else "failed"] == 1
    assert "secret" not in caplog.text
    assert "parcel" not in caplog.text


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
@EMBEDDED
async def test_a_thread_of_an_approver_ends_nothing_else(
    make_cache: CacheFactory, error: type[BaseException]
) -> None:
    """Anything that a plain function raises to end the process is a miss, as all that it raises."""

    def approve(*texts: str) -> bool:
        raise error(*texts)

    cache = await doubtful(make_cache, approve)
    assert (await cache.lookup(NEAR, "bob")).reasons[-1] == "approval_failed"


@EMBEDDED
async def test_a_slow_approval_serves_the_next_lookup(make_cache: CacheFactory) -> None:
    """The lookup ends within its budget as a miss; the call goes on, and is remembered."""
    release = asyncio.Event()

    async def slowly() -> bool:
        await release.wait()
        return True

    judge = Judge(slowly)
    budgets = {"lookup_budget": 0.2, "approve_budget": 30.0}
    cache = await doubtful(make_cache, judge, settings=budgets)
    started = time.perf_counter()
    found = await cache.lookup(NEAR, "bob")
    assert (found.response, found.outcome, found.reasons[-1]) == (None, "miss", "approval_late")
    assert time.perf_counter() - started < 5.0
    release.set()
    await until(lambda: cache.get_metrics()["approvals"]["approved"] == 1)

    async def served() -> bool:
        return (await cache.lookup(NEAR, "bob")).response == "the answer"

    await until(served)
    assert len(judge.asked) == 1


@EMBEDDED
async def test_a_hung_approver_opens_the_breaker(make_cache: CacheFactory) -> None:
    """A coroutine that hangs is cancelled at its deadline; after some, nothing is called."""
    judge = Judge(asyncio.Event().wait)
    cache = await doubtful(
        make_cache, judge, settings={"approve_budget": 0.02, "breaker_failures": 2}
    )
    for word in ("garden", "school", "kitchen"):
        found = await cache.lookup(ASKED.replace("office", word), "bob")
        assert found.response is None
    assert found.reasons[-1] == "approval_failed"
    assert len(judge.asked) == 2
    counted = cache.get_metrics()["approvals"]
    assert (counted["timed_out"], counted["failed"]) == (2, 1)
    breaker = inside(cache).parts.breakers["approver"]
    assert breaker.state == "open"
    assert "approver" not in inside(cache).state().backends


async def test_concurrent_equal_questions_ask_once(make_cache: CacheFactory) -> None:
    """All who ask the same concurrently get what was approved; a cancelled one disturbs none."""
    release = asyncio.Event()

    async def slowly() -> bool:
        await release.wait()
        return True

    judge = Judge(slowly)
    cache = await doubtful(make_cache, judge)
    lookups = [asyncio.create_task(cache.lookup(NEAR, f"user {n}")) for n in range(10)]
    await until(lambda: len(judge.asked) == 1)
    lookups.pop(0).cancel()
    release.set()
    found = await asyncio.gather(*lookups)
    assert {item.response for item in found} == {"the answer"}
    assert len(judge.asked) == 1
    assert cache.metrics.cancelled == 1


@EMBEDDED
async def test_the_budget_per_minute_holds(make_cache: CacheFactory) -> None:
    """Beyond it nothing is called, and the answer in doubt is a miss for that reason."""
    judge = Judge()
    cache = await doubtful(make_cache, judge, tuned={"approvals_per_minute": 2})
    reasons = [
        (await cache.lookup(ASKED.replace("office", word), "bob")).reasons[-1]
        for word in ("garden", "school", "kitchen")
    ]
    assert reasons == ["approved", "approved", "approval_budget"]
    assert (len(judge.asked), cache.get_metrics()["approvals"]["over_budget"]) == (2, 1)


async def test_a_private_answer_is_approved_for_its_user_alone(make_cache: CacheFactory) -> None:
    """Others neither get it nor its approval; erasing the user erases that, too."""
    judge = Judge()
    cache: MultiLevelCache = await make_cache(approve=judge, settings=PATIENT)
    await cache.tune(BAND, author="test")
    await cache.put(ASKED, "ann", "of ann")
    await cache.put(ASKED, "bob", "of bob")
    assert (await cache.lookup(NEAR, "ann")).response == "of ann"
    assert (await cache.lookup(NEAR, "eve")).response is None
    assert (await cache.lookup(NEAR, None)).response is None
    assert (await cache.lookup(NEAR, "bob")).response == "of bob"
    assert [response for _, _, response in judge.asked] == ["of ann", "of bob"]
    parts = inside(cache).parts
    query = parts.keys.query(NEAR, "ann")
    key = parts.keys.approval(parts.keys.tag(ASKED), query.scope("user"), query)
    assert (await parts.store.read([key]))[0] is not None
    await cache.forget_user("ann")
    assert (await parts.store.read([key]))[0] is None
    assert (await cache.lookup(NEAR, "bob")).response == "of bob"
    assert len(judge.asked) == 2


@pytest.mark.parametrize("ends", ["before it is known", "afterwards"])
async def test_a_call_that_outlives_an_erasure_leaves_no_digest(
    make_cache: CacheFactory, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """An approval that comes once its user is erased, by any process, is not kept."""
    release = asyncio.Event()

    async def slowly() -> bool:
        await release.wait()
        return True

    judge = Judge(slowly)
    cache: MultiLevelCache = await make_cache(approve=judge, settings=PATIENT)
    await cache.tune(BAND, author="test")
    await cache.put(ASKED, "ann", "of ann")
    parts = inside(cache).parts
    keys, store, journal = parts.keys, parts.store, parts.journal
    query = keys.query(NEAR, "ann")
    key = keys.approval(keys.tag(ASKED), query.scope("user"), query)
    lookup = asyncio.create_task(cache.lookup(NEAR, "ann"))
    await until(lambda: len(judge.asked) == 1)
    (flight,) = inside(cache)._approvals._flights.values()  # type: ignore[union-attr]
    if ends == "afterwards":
        await cache.forget_user("ann")
    else:
        catch_up = journal.catch_up

        async def late() -> None:
            """Read the log only once the approval is written."""
            if (await store.read([key]))[0] is not None:
                await catch_up()

        monkeypatch.setattr(journal, "catch_up", late)
        other: MultiLevelCache = await make_cache(settings=PATIENT)
        await other.forget_user("ann")
    release.set()
    await asyncio.wait([flight, lookup])
    assert (await store.read([key]))[0] is None
    assert await store.rows(keys.index("user", query.scope("user"))) == {}


async def test_an_approval_ends_with_its_entry(make_cache: CacheFactory) -> None:
    """A replaced answer is asked about again, and an invalidation reaches as far as the band."""
    judge = Judge()
    cache = await doubtful(make_cache, judge)
    assert (await cache.lookup(NEAR, "bob")).response == "the answer"
    await cache.put(ASKED, "ann", "a new answer", shared=True)
    assert (await cache.lookup(NEAR, "bob")).response == "a new answer"
    assert len(judge.asked) == 2
    await cache.invalidate(NEAR)
    assert (await cache.lookup(NEAR, "bob")).response is None
    assert (await cache.lookup(ASKED, "ann")).response is None
    assert len(judge.asked) == 2


async def test_what_is_invalidated_meanwhile_is_not_served(make_cache: CacheFactory) -> None:
    """The generation is read again after the approval."""
    cache: MultiLevelCache

    async def invalidating() -> bool:
        await cache.invalidate(ASKED)
        return True

    cache = await doubtful(make_cache, Judge(invalidating))
    found = await cache.lookup(NEAR, "bob")
    assert (found.response, found.outcome) == (None, "miss")


@EMBEDDED
async def test_a_plain_function_runs_in_a_thread(make_cache: CacheFactory) -> None:
    """The event loop goes on meanwhile."""
    threads: list[threading.Thread] = []

    def approve(message: str, stored: str, response: str) -> bool:
        threads.append(threading.current_thread())
        return "answer" in response and message != stored

    cache = await doubtful(make_cache, approve)
    assert (await cache.lookup(NEAR, "bob")).response == "the answer"
    assert threads != []
    assert threading.main_thread() not in threads


async def test_calls_that_never_return_are_bounded() -> None:
    """A plain function cannot be cancelled: no more of its threads are made than a few."""
    release = threading.Event()
    approver = Approver(lambda *_: release.wait(), seconds=0.01, failures=100)
    for _ in range(AT_ONCE):
        assert not approver.is_full
        with pytest.raises(BackendError):
            await approver.ask("a", "b", "c")
    assert approver.is_full
    release.set()
    await until(lambda: not approver.is_full)


@EMBEDDED
async def test_what_approvals_cost_is_counted(make_cache: CacheFactory) -> None:
    """By the tokens where the model has a price, else by the price of a call."""
    judge = Judge()
    cache = await doubtful(
        make_cache, judge, tuned={"approval_usd": 0.5, "prices": ["small=1000/2000"]}
    )
    spent = cache.get_metrics()["spent_usd"]
    await cache.lookup(NEAR, "bob")
    judge.says = Opinion(approved=False, model="small", tokens_in=10, tokens_out=5)
    await cache.lookup(ASKED.replace("office", "school"), "bob")
    judge.says = ValueError()
    await cache.lookup(ASKED.replace("office", "kitchen"), "bob")
    assert cache.get_metrics()["spent_usd"] - spent == pytest.approx(0.5 + 0.02 + 0.5)


@EMBEDDED
async def test_closing_ends_calls_under_way(make_cache: CacheFactory) -> None:
    """A call that no lookup waits for any more is cancelled with the cache."""
    ended: list[bool] = []

    async def forever() -> bool:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)
        return True

    cache = await doubtful(make_cache, Judge(forever), settings={"lookup_budget": 0.1})
    assert (await cache.lookup(NEAR, "bob")).response is None
    await cache.close()
    assert ended == [True]


@pytest.mark.parametrize("wrong", ["gpt", 1])
async def test_an_approver_is_a_function(wrong: Any) -> None:
    """Anything else is refused when the cache is made."""
    with pytest.raises(TypeError, match="approve must be a function"):
        MultiLevelCache(approve=wrong)


@EMBEDDED
async def test_metrics_count_approvals(watch: Watch, make_watched: MakeWatched) -> None:
    """The series are there before the first call, by verdict, with what the calls cost."""
    cache = await make_watched(watch, approve=Judge())
    assert watch.value(names.APPROVALS, "approved") == 0
    await cache.tune({**BAND, "approval_usd": 0.25}, author="test")
    await cache.put(ASKED, "ann", "the answer", shared=True)
    assert (await cache.lookup(NEAR, "bob")).response == "the answer"
    assert watch.value(names.APPROVALS, "approved") == 1
    assert watch.value(names.APPROVAL_SECONDS, suffix="_count") == 1
    assert watch.value(names.SPENT, "approval") == 0.25
