"""The work list: what failed is retried, what is pending is denied, who asked first is served."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any, get_args

import pytest

from cache_core.config.tuning import Tuning
from cache_core.model.exceptions import BackendError
from cache_core.model.logs import RateLimited
from cache_core.operations.invalidate import retries
from cache_core.operations.invalidate.outbox import Outbox, Request, StoreName
from cache_core.operations.invalidate.retries import Done, Worklist
from cache_core.operations.invalidate.steps import (
    AnnounceRows,
    AwaitSearch,
    ConfirmSearch,
    DeleteEntries,
    DropListed,
    Erase,
    FindListed,
    FindSimilar,
    GiveTokens,
    Job,
    RemoveRows,
    Sought,
    Step,
    of_messages,
    of_own,
)
from cache_core.tiers.denylist import Denylist
from cache_core.tiers.journal import Broad

LIKE = Sought("tag", "my salary", 0.9, Tuning())


class Script:
    """Executes steps: fails where it is told to, returns what follows, and keeps what it did."""

    def __init__(self) -> None:
        self.failing: dict[type[Any], BackendError] = {}
        self.done: dict[type[Any], Done] = {}
        self.executed: list[tuple[Step, bool]] = []

    async def __call__(self, step: Step, *, again: bool) -> Done:
        self.executed.append((step, again))
        await asyncio.sleep(0)
        if (error := self.failing.get(type(step))) is not None:
            raise error
        return self.done.get(type(step), Done())


@pytest.fixture(autouse=True)
def unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "log", RateLimited(logging.getLogger("glasscache")))


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path, "a", "one", StoreName("here"))


@pytest.fixture
def denied() -> Denylist:
    return Denylist()


@pytest.fixture
def steps(script: Script, denied: Denylist, outbox: Outbox) -> Worklist:
    return Worklist(script, denied, outbox, "redis")


def unavailable() -> BackendError:
    return BackendError("timeout", "TimeoutError")


# -------------------------------------------------------------------------- the data


def test_steps_that_do_the_same_are_equal() -> None:
    """The same step is one for all callers; one with another threshold is a different step."""
    first, second = Job(), Job()
    assert GiveTokens(first, ("a",)) == GiveTokens(second, ("a",))
    assert GiveTokens(first, ("a",)) != GiveTokens(first, ("a",), "ann")
    assert GiveTokens(first, ("a",)) != DeleteEntries(first, ("a",))
    other = Sought(LIKE.tag, LIKE.text, 0.99, LIKE.tuning)
    assert FindSimilar(first, LIKE, "shared") != FindSimilar(first, other, "shared")


@pytest.mark.parametrize(
    "step",
    [
        FindSimilar(Job(), LIKE, "shared"),
        AnnounceRows(Job(), ("tag",), LIKE),
        ConfirmSearch(Job(), "i1", Broad("i1", [], "my salary")),
    ],
)
def test_a_step_shows_no_text_of_a_user(step: Step) -> None:
    """It may be logged."""
    assert "salary" not in repr(step)


def test_no_messages_make_no_steps() -> None:
    """Without messages there is nothing to plan."""
    assert of_messages(Job(), []) == of_own(Job(), [], "ann") == []


# -------------------------------------------------------------------------- denied meanwhile


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (GiveTokens(Job(), ("a", "b")), {"messages": {"a", "b"}}),
        (GiveTokens(Job(), ("a",), "ann"), {"own": {("a", "ann")}}),
        (GiveTokens(Job(), (), "ann"), {"users": {"ann"}}),
        (RemoveRows(Job(), ("a",)), {"rows": {"a"}}),
        (RemoveRows(Job(), ("a",), writer="u"), {}),
        (FindSimilar(Job(), LIKE, "shared"), {"unsure": {"shared"}}),
        (FindSimilar(Job(), LIKE, "user", "ann"), {"unsure": {"user"}}),
        (FindListed(Job(), "index"), {"unlisted": True}),
        (FindListed(Job(), "index", "d1"), {"unlisted": True, "pending_labels": {"d1"}}),
        (DropListed(Job(), "index", ("a",), ()), {}),
        (DeleteEntries(Job(), ("a",)), {}),
        (AnnounceRows(Job(), ("a",)), {}),
        (AwaitSearch(Job(), "a", 0.9), {}),
        (ConfirmSearch(Job(), "i1", Broad("i1", [])), {}),
        (Erase(Job(), "ann", traces=True), {}),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_what_is_planned_is_denied_until_it_is_done(
    steps: Worklist, denied: Denylist, step: Step, expected: dict[str, Any]
) -> None:
    """Each kind of planned step denies what it will invalidate, until it has been executed."""

    def found() -> dict[str, Any]:
        names = ("messages", "own", "users", "rows", "unsure", "unlisted", "pending_labels")
        return {name: value for name in names if (value := getattr(denied, name))}

    steps.plan([step])
    assert found() == expected
    await steps.retry()
    assert found() == {}
    assert steps.waiting == []


# -------------------------------------------------------------------------- done and retried


async def test_what_follows_is_done_immediately(steps: Worklist, script: Script) -> None:
    """Its counts belong to the invalidation."""
    job = Job()
    script.done = {
        FindListed: Done(0, of_messages(job, ["a"])),
        DeleteEntries: Done(2),
        RemoveRows: Done(3),
        Erase: Done(1, (), {"votes": 1}),
    }
    found = await steps.do(job, [FindListed(job, "index"), Erase(job, "ann", traces=True)])
    assert (found.removed, found.complete, found.counts) == (6, True, {"votes": 1})
    assert steps.waiting == []


async def test_what_failed_is_pending_and_tried_again(
    steps: Worklist, script: Script, outbox: Outbox
) -> None:
    """It is marked as tried; the outbox is cleared once nothing is pending."""
    job, step = Job(), None
    script.failing = {GiveTokens: unavailable()}
    found = await steps.do(job, [step := GiveTokens(job, ("a",)), DeleteEntries(job, ("a",))])
    outbox.add(Request("message", "a"))
    assert (found.complete, found.pending, steps.pending) == (False, ("redis",), 1)
    # The other one needs what did not answer a moment ago.
    assert [item for item, _ in script.executed] == [step]
    script.failing.clear()
    await steps.retry()
    assert [(type(item), again) for item, again in script.executed[1:]] == [
        (GiveTokens, True),
        (DeleteEntries, False),
    ]
    assert (steps.pending, outbox.requests) == (0, ())


async def test_other_backends_are_asked_meanwhile(steps: Worklist, script: Script) -> None:
    """A step that its backend fails stays in the list, and the other steps are executed."""
    job = Job()
    script.failing = {FindSimilar: unavailable()}
    found = await steps.do(job, [FindSimilar(job, LIKE, "shared"), *of_messages(job, ["a"])])
    assert found.pending == ("chroma",)
    assert [type(step) for step in steps.waiting] == [FindSimilar]


async def test_tokens_are_retried_first(steps: Worklist, script: Script) -> None:
    """Retries begin with the new tokens, whatever the order of the plan."""
    job = Job()
    steps.plan([FindListed(job, "index"), DeleteEntries(job, ("a",)), GiveTokens(job, ("a",))])
    await steps.retry()
    assert [type(step) for step, _ in script.executed] == [GiveTokens, FindListed, DeleteEntries]


async def test_a_surprise_is_retried_too(
    steps: Worklist, script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    """An invalidation is lost to no error whatsoever."""
    job = Job()
    script.failing = {DeleteEntries: ZeroDivisionError("odd")}  # type: ignore[dict-item]
    assert (await steps.do(job, [DeleteEntries(job, ("a",))])).pending == ("redis",)
    assert steps.pending == 1
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (lambda job: FindListed(job, "i"), lambda job: Erase(job, "ann", traces=False)),
        (lambda job: GiveTokens(job, ("a",)), lambda job: DropListed(job, "i", ("a",), ["r"])),
        (
            lambda job: RemoveRows(job, ("a",)),
            lambda job: ConfirmSearch(job, "i1", Broad("i1", [])),
        ),
    ],
    ids=["erase", "drop", "confirm"],
)
async def test_a_step_waits_for_what_it_would_make_impossible(
    steps: Worklist, script: Script, first: Any, then: Any
) -> None:
    """Also if another invalidation, which has nothing to wait for, takes it over."""
    job, other = Job(), Job()
    script.failing = {type(first(job)): BackendError("backend_error", "Odd")}
    assert not (await steps.do(job, [first(job), then(job)])).complete
    assert not (await steps.do(other, [then(other)])).complete
    assert then(job) not in [step for step, _ in script.executed]
    script.failing.clear()
    await steps.retry()
    await steps.retry()
    assert steps.pending == 0
    assert script.executed[-1][0] == then(job)


async def test_a_step_has_its_turn_after_those_that_it_waits_for(
    steps: Worklist, script: Script
) -> None:
    """Also after those that follow from others."""
    job = Job()
    script.done = {FindSimilar: Done(0, of_messages(job, ["a"]))}
    confirm = ConfirmSearch(job, "i1", Broad("i1", []))
    assert (await steps.do(job, [confirm, FindSimilar(job, LIKE, "shared")])).complete
    assert script.executed[-1][0] == confirm


async def test_a_step_that_is_taken_over_and_found_again_is_still_to_be_done(
    steps: Worklist, script: Script
) -> None:
    """For the caller that asked for it first, by whatever equal step it is done."""
    script.failing = {GiveTokens: BackendError("backend_error", "Away")}
    first, second = Job(), Job()
    for job in (first, second, second):
        await steps.do(job, [GiveTokens(job, ("tag",))])
        assert steps.has(first, GiveTokens)
    assert (steps.has(second, GiveTokens), steps.pending) == (True, 1)
    script.failing.clear()
    await steps.retry()
    assert (steps.has(first, GiveTokens), steps.pending) == (False, 0)


async def test_a_cancelled_caller_leaves_the_rest_to_the_next_retry(
    steps: Worklist, denied: Denylist
) -> None:
    """Nothing of it is served meanwhile."""
    job = Job()
    doing = asyncio.ensure_future(steps.do(job, of_messages(job, ["a"])))
    await asyncio.sleep(0)
    doing.cancel()
    await asyncio.gather(doing, return_exceptions=True)
    assert (steps.pending, denied.messages) == (1, {"a"})
    await steps.retry()
    assert (steps.pending, denied.messages) == (0, set())


async def test_equal_steps_of_two_callers_wait_for_each_other(
    denied: Denylist, outbox: Outbox
) -> None:
    """Neither invalidation is pending because the other one is being executed."""
    started, go_on = asyncio.Event(), asyncio.Event()

    class Slow(Script):
        async def __call__(self, step: Step, *, again: bool) -> Done:
            done = await super().__call__(step, again=again)
            if isinstance(step, GiveTokens) and len(self.executed) > 1:
                started.set()
                await go_on.wait()
            return done

    script = Slow()
    steps = Worklist(script, denied, outbox, "redis")
    callers = [
        asyncio.create_task(
            steps.do(job, [GiveTokens(job, ("a",)), DropListed(job, "index", ("a",), ())])
        )
        for job in (Job(), Job())
    ]
    await started.wait()
    await asyncio.sleep(0.02)
    assert not any(caller.done() for caller in callers), "the first waits for the second's tokens"
    go_on.set()
    found = await asyncio.wait_for(asyncio.gather(*callers), 5)
    assert [(item.complete, item.pending) for item in found] == [(True, ()), (True, ())]
    assert (steps.waiting, denied.is_pending) == ([], False)


async def test_a_failure_of_another_caller_is_not_waited_for(
    steps: Worklist, script: Script
) -> None:
    """A step that waits for a failed one of somebody else is pending, too, until the retry."""
    script.failing[GiveTokens] = unavailable()
    jobs = Job(), Job()
    found = await asyncio.wait_for(
        asyncio.gather(
            *(
                steps.do(job, [GiveTokens(job, ("a",)), DropListed(job, "index", ("a",), ())])
                for job in jobs
            )
        ),
        5,
    )
    assert not any(item.complete for item in found)
    script.failing.clear()
    await steps.retry()
    assert steps.waiting == []


def test_no_kinds_of_steps_wait_for_each_other() -> None:
    """Otherwise two callers could."""
    kinds = set(get_args(Step))
    for _ in range(len(kinds)):
        kinds -= {kind for kind in kinds if kinds.isdisjoint(kind.waits_for)}
    assert kinds == set()


async def test_nobody_else_retries_what_is_under_way(steps: Worklist, script: Script) -> None:
    """A step that is being executed is not executed by a concurrent retry."""
    job = Job()
    doing = asyncio.ensure_future(steps.do(job, [GiveTokens(job, ("a",))]))
    await asyncio.sleep(0)
    assert steps.pending == 0
    await steps.retry()
    await doing
    assert len(script.executed) == 1


async def test_two_retries_do_nothing_twice(steps: Worklist, script: Script) -> None:
    """Two concurrent retries execute each step once."""
    steps.plan(of_messages(Job(), ["a"]))
    await asyncio.gather(steps.retry(), steps.retry())
    assert len(script.executed) == 4


async def test_beyond_its_most_the_oldest_are_given_up(
    steps: Worklist, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The oldest of too many pending steps is dropped and logged: its answers are served again."""
    monkeypatch.setattr(retries, "MOST_PENDING", 3)
    for number in range(5):
        steps.plan([GiveTokens(Job(), (str(number),))])
    assert [step.tags for step in steps.waiting if isinstance(step, GiveTokens)] == [
        ("2",), ("3",), ("4",),
    ]  # fmt: skip
    assert "too many invalidations are pending" in caplog.text


async def test_closing_tries_once_more_and_logs_what_is_left(
    steps: Worklist, script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    """Closing retries once, and logs how many invalidations could not be made."""
    caplog.set_level(logging.WARNING)
    script.failing = {GiveTokens: unavailable()}
    steps.plan([GiveTokens(Job(), ("a",))])
    await steps.close()
    assert len(script.executed) == 1
    assert "1 invalidations are pending at the end" in caplog.text
