"""Functions that compute an answer: where they run, what they raise, and what they ask for."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Self

import httpx
import pytest

from cache_core import MultiLevelCache
from cache_core.model.values import LookupResult
from cache_core.operations.compute.flight import own_copy
from tests.support.caches import CacheFactory
from tests.support.patience import PATIENT

KEYED = {**PATIENT, "tiers": "l1"}
REQUEST: ContextVar[str] = ContextVar("request", default="")


@pytest.fixture
async def cache(make_cache: CacheFactory) -> MultiLevelCache:
    """A cache of exact answers, on both stores in turn."""
    found: MultiLevelCache = await make_cache(settings=KEYED)
    return found


# ----------------------------------------------------------------------------- plain functions


async def test_a_plain_function_does_not_stop_the_loop(cache: MultiLevelCache) -> None:
    """While a function waits, others are served; its result is stored as any other."""
    go, threads = threading.Event(), []

    def compute() -> str:
        threads.append(threading.current_thread())
        assert go.wait(30)
        return "made"

    asked = asyncio.create_task(cache.get_or_compute("alpha", "ann", compute))
    await cache.put("beta", "bob", "hi")
    assert (await cache.lookup("beta", "bob")).response == "hi"
    assert not asked.done()
    go.set()
    assert await asked == "made"
    assert (await cache.lookup("alpha", "ann")).response == "made"
    assert threads != [threading.main_thread()]


async def test_a_plain_function_has_the_callers_context(cache: MultiLevelCache) -> None:
    """Context variables, and so spans, are those of the caller; a `LookupResult` is passed."""
    REQUEST.set("r1")

    def compute(result: LookupResult) -> str:
        return f"{REQUEST.get()} {result.outcome}"

    assert await cache.get_or_compute("alpha", "ann", compute) == "r1 miss"


class Called:
    """An object with an asynchronous call."""

    async def __call__(self) -> str:
        return _place()


async def _coroutine(name: str = "") -> str:
    return _place() + name


def _place() -> str:
    return "loop" if threading.current_thread() is threading.main_thread() else "thread"


@pytest.mark.parametrize(
    "compute",
    [
        _coroutine,
        Called(),
        functools.partial(_coroutine, name=""),
        functools.partial(functools.partial(_coroutine), name=""),
        functools.partial(Called()),
        lambda: _coroutine(""),
        lambda: asyncio.get_event_loop().create_task(_coroutine()),
        lambda: asyncio.get_running_loop().create_task(_coroutine()),
    ],
)
async def test_whatever_is_awaitable_runs_in_the_loop(
    cache: MultiLevelCache, compute: Callable[[], Any]
) -> None:
    """A coroutine function runs in the caller's loop, however it is wrapped."""
    assert await cache.get_or_compute("alpha", "ann", compute) == "loop"


async def test_a_cancelled_caller_does_not_wait_for_a_thread(cache: MultiLevelCache) -> None:
    """Cancelling the only caller ends immediately, though the function goes on."""
    begun, go = threading.Event(), threading.Event()

    def compute() -> str:
        begun.set()
        assert go.wait(30)
        return "late"

    asked = asyncio.create_task(cache.get_or_compute("alpha", "ann", compute))
    assert await asyncio.to_thread(begun.wait, 30)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    go.set()
    assert (await cache.lookup("alpha", "ann")).response is None


@pytest.mark.slow
async def test_plain_functions_that_ask_the_cache_need_no_pool(cache: MultiLevelCache) -> None:
    """A hundred functions that each wait for another answer, of the same loop, all end."""
    loop = asyncio.get_running_loop()

    def compute(number: int) -> str:
        inner = cache.get_or_compute(f"inner {number}", "ann", lambda: f"i{number}")
        return asyncio.run_coroutine_threadsafe(inner, loop).result(60)

    found = await asyncio.gather(
        *(
            cache.get_or_compute(f"outer {n}", "ann", functools.partial(compute, n))
            for n in range(100)
        )
    )
    assert found == [f"i{n}" for n in range(100)]


@pytest.mark.parametrize("failure", [ValueError("no"), StopIteration("no"), KeyError(1)])
async def test_what_a_plain_function_raises(cache: MultiLevelCache, failure: Exception) -> None:
    """It reaches the caller; `StopIteration`, which no coroutine may raise, as `RuntimeError`."""

    def compute() -> str:
        raise failure

    expected = RuntimeError if isinstance(failure, StopIteration) else type(failure)
    with pytest.raises(expected):
        await cache.get_or_compute("alpha", "ann", compute)
    assert (await cache.lookup("alpha", "ann")).response is None


# ----------------------------------------------------------------------------- exceptions


class OddError(Exception):
    def __init__(self, code: int, *, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class OddFileError(OSError):
    def __init__(self, name: str, _: int, __: int) -> None:
        super().__init__(5, "broken", name)


class SlottedError(Exception):
    __slots__ = ("more",)

    def __init__(self) -> None:
        super().__init__()
        self.more = [1]


class MadeError(Exception):
    def __new__(cls, one: int, _: int) -> Self:
        return super().__new__(cls, one)

    def __init__(self, _: int, two: int) -> None:
        self.two = two


def _raised(work: Callable[[], object]) -> Exception:
    try:
        work()
    except Exception as error:
        return error
    raise AssertionError


FAILURES = [
    ValueError("no"),
    OddError(1, message="no"),
    OddFileError("name", 1, 2),
    SlottedError(),
    MadeError(1, 2),
    ExceptionGroup("several", [ValueError(1), KeyError(2)]),
    TimeoutError(),
    _raised(lambda: open("/nowhere/at/all")),  # noqa: PTH123, SIM115 - what Python says itself
    _raised(b"\xff".decode),
    _raised(lambda: __import__("nothing_of_that_name")),
    _raised(lambda: compile("a b", "file", "exec")),
    httpx.HTTPStatusError(
        "500", request=httpx.Request("GET", "http://x"), response=httpx.Response(500)
    ),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_an_exception_is_copied_without_its_constructor(failure: Exception) -> None:
    """Type, arguments, text, attributes, notes, cause and traceback are those of the original."""
    failure.add_note("of the original")
    copied = own_copy(failure)
    assert copied is not failure
    assert type(copied) is type(failure)
    assert (copied.args, str(copied), repr(copied)) == (failure.args, str(failure), repr(failure))
    assert vars(copied) == vars(failure)
    for name in ("errno", "filename", "name", "object", "start", "more", "exceptions", "lineno"):
        assert getattr(copied, name, None) == getattr(failure, name, None)
    assert copied.__traceback__ is failure.__traceback__
    copied.add_note("of the copy")
    assert failure.__notes__ == ["of the original"]


async def test_every_caller_gets_an_exception_of_their_own(cache: MultiLevelCache) -> None:
    """A hundred callers of a computation that raises see nothing of each other's notes or frames."""
    begun: list[int] = []

    async def compute() -> str:
        begun.append(1)
        while cache._engine.flight._flights and _waiting(cache) < 100:
            await asyncio.sleep(0.001)
        raise OddError(7, message="no")

    async def request(number: int) -> OddError:
        try:
            await cache.get_or_compute("alpha", "ann", compute)
        except OddError as error:
            error.add_note(f"request {number}")
            return error
        raise AssertionError

    found = await asyncio.gather(*map(request, range(100)))
    assert len(begun) == 1
    assert len({id(error) for error in found}) == 100
    assert {(error.code, str(error)) for error in found} == {(7, "7: no")}
    assert all(error.__notes__ == [f"request {n}"] for n, error in enumerate(found))
    assert all(error.__context__ is error.__cause__ is None for error in found)
    frames = [[frame.name for frame in traceback.extract_tb(e.__traceback__)] for e in found]
    assert {tuple(names) for names in frames} == {tuple(frames[0])}
    assert frames[0][-1] == "compute"


def _waiting(cache: MultiLevelCache) -> int:
    return sum(flight.waiting for flight in cache._engine.flight._flights.values())


# ----------------------------------------------------------------------------- circles


@pytest.mark.parametrize("length", [2, 3, 5])
@pytest.mark.parametrize("plain", [False, True])
async def test_computations_that_ask_for_each_other(
    cache: MultiLevelCache, length: int, plain: bool
) -> None:
    """In a circle of any length, asked for concurrently, no caller waits: one computes what it asked for."""
    loop = asyncio.get_running_loop()
    together = threading.Barrier(length)
    begun: list[int] = []

    async def needs(number: int) -> str:
        begun.append(number)
        while len(begun) < length:
            await asyncio.sleep(0.001)
        following = (number + 1) % length
        return f"{number} after " + await cache.get_or_compute(
            f"number {following}", "ann", lambda: str(following)
        )

    def waits(number: int) -> str:
        together.wait(30)
        following = (number + 1) % length
        inner = cache.get_or_compute(f"number {following}", "ann", lambda: str(following))
        return f"{number} after " + asyncio.run_coroutine_threadsafe(inner, loop).result(30)

    compute = waits if plain else needs
    found = await asyncio.wait_for(
        asyncio.gather(
            *(
                cache.get_or_compute(f"number {n}", "ann", functools.partial(compute, n))
                for n in range(length)
            )
        ),
        30,
    )
    assert all(answer.startswith(f"{n} after ") for n, answer in enumerate(found))
    assert cache._engine.flight._flights == {}


@pytest.mark.parametrize("plain", [False, True])
async def test_computations_that_ask_for_each_other_endlessly(
    cache: MultiLevelCache, plain: bool
) -> None:
    """They raise, long before the machine has no more threads."""
    loop = asyncio.get_running_loop()
    begun: list[int] = []

    async def needs(number: int) -> str:
        begun.append(number)
        following = functools.partial(compute, 1 - number)
        return await cache.get_or_compute(f"number {1 - number}", "ann", following)

    def waits(number: int) -> str:
        return asyncio.run_coroutine_threadsafe(needs(number), loop).result(30)

    compute = waits if plain else needs
    with pytest.raises(RecursionError, match="ask for each other endlessly"):
        await cache.get_or_compute("number 0", "ann", functools.partial(compute, 0))
    assert len(begun) < 100


async def test_computations_of_several_caches_that_ask_for_each_other(
    make_cache: CacheFactory,
) -> None:
    """The circle may go through caches of several namespaces."""
    one = await make_cache(settings=KEYED, namespace="one")
    two = await make_cache(settings=KEYED, namespace="two")
    both = asyncio.Barrier(2)

    async def compute(other: MultiLevelCache) -> str:
        await both.wait()
        return "after " + await other.get_or_compute("alpha", "ann", lambda: "the other")

    found = await asyncio.wait_for(
        asyncio.gather(
            one.get_or_compute("alpha", "ann", lambda: compute(two)),
            two.get_or_compute("alpha", "ann", lambda: compute(one)),
        ),
        30,
    )
    assert min(found, key=len) == "after the other"


async def test_who_is_in_no_circle_still_waits(cache: MultiLevelCache) -> None:
    """Computations that need the same third one share it."""
    begun: list[int] = []

    async def third() -> str:
        begun.append(1)
        await asyncio.sleep(0.05)
        return "third"

    async def needs() -> str:
        return await cache.get_or_compute("third", "ann", third)

    started = time.monotonic()
    found = await asyncio.gather(
        *(cache.get_or_compute(f"number {n}", "ann", needs) for n in range(10))
    )
    assert (found, len(begun)) == (["third"] * 10, 1)
    assert time.monotonic() - started < 30
