"""Savings are what somebody got, and an answer is made anew once, where the old one was."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from cache_core import Answer, LookupResult, MultiLevelCache
from cache_core.testing import ManualClock
from telemetry import PrometheusInstrument, names
from tests.support.inside import inside
from tests.support.patience import PATIENT
from tests.support.waiting import until

CacheFactory = Callable[..., Any]
KEYED = {**PATIENT, "tiers": frozenset({"l1", "l3", "l4"})}
REFRESH = {"l1_ttl": 30.0, "l2_ttl": 30.0, "refresh_share": 0.5}


@pytest.fixture
def store_kind(request: pytest.FixtureRequest) -> str:
    return str(getattr(request, "param", "embedded"))


# ------------------------------------------------------------------------------- savings


@pytest.mark.parametrize(("takes", "saved"), [(True, 0.006), (False, 0.0)])
async def test_partial_savings_are_what_compute_got(
    make_cache: CacheFactory, takes: bool, saved: float
) -> None:
    """A hundred who wait for one computation save once, and only if it takes what is known."""
    registry = CollectorRegistry()
    instrument = PrometheusInstrument("default", registry)
    cache = await make_cache(settings=KEYED, instruments=(instrument,))
    await cache.put("alpha", "ann", None, "faq", [{"id": "d"}])
    go = asyncio.Event()

    async def with_it(result: LookupResult) -> str:
        assert (result.intent, result.rag_results) == ("faq", [{"id": "d"}])
        await go.wait()
        return "answer"

    async def without() -> str:
        await go.wait()
        return "answer"

    compute = with_it if takes else without
    calls = [asyncio.create_task(cache.get_or_compute("alpha", "ann", compute)) for _ in range(100)]
    await until(lambda: cache.metrics.lookups == 100)
    go.set()
    await asyncio.gather(*calls)
    assert cache.metrics.cost_saved_usd == pytest.approx(saved)
    instrument.count()
    gross = [registry.get_sample_value(names.SAVED.name, {"cache": "default", "level": level})
             for level in ("l1", "l2", "l3", "l4")]  # fmt: skip
    assert gross == pytest.approx([0, 0, saved and 0.001, saved and 0.005])
    assert await cache.get_or_compute("alpha", "ann", compute) == "answer"
    assert cache.metrics.cost_saved_usd == pytest.approx(saved + 0.036)


async def test_what_fails_saves_nothing(make_cache: CacheFactory) -> None:
    """A computation that raises has saved nothing; a lookup hands out what it knows."""
    cache = await make_cache(settings=KEYED)
    await cache.put("alpha", "ann", None, "faq", [{"id": "d"}])

    def fails(result: LookupResult) -> str:
        raise RuntimeError(result.outcome)

    with pytest.raises(RuntimeError):
        await cache.get_or_compute("alpha", "ann", fails)
    assert cache.metrics.cost_saved_usd == 0
    await cache.lookup("alpha", "ann")
    assert cache.metrics.cost_saved_usd == pytest.approx(0.006)


# ------------------------------------------------------------------------------- refresh


class Old:
    """A cache with an answer in the last half of its life."""

    def __init__(self, cache: MultiLevelCache, clock: ManualClock) -> None:
        self.cache = cache
        self.computed = 0
        self.go = asyncio.Event()

    async def compute(self) -> str:
        self.computed += 1
        await self.go.wait()
        return f"new {self.computed}"

    async def ask(self, *users: str, **more: Any) -> None:
        calls = (
            self.cache.get_or_compute("alpha beta", user, self.compute, **more) for user in users
        )
        assert set(await asyncio.gather(*calls)) == {"old"}

    async def settled(self) -> None:
        self.go.set()
        await until(lambda: not inside(self.cache).computing.refreshing)


@pytest.fixture
async def old(make_cache: CacheFactory, clock: ManualClock) -> Callable[..., Any]:
    async def make(tuning: dict[str, Any] | None = None, age: float = 16.0, **how: Any) -> Old:
        settings = how.pop("settings", KEYED)
        shared = how.pop("shared_intents", ())
        cache = await make_cache(settings=settings, clock=clock, shared_intents=shared)
        await cache.tune({**REFRESH, **(tuning or {})}, author="a test")
        await cache.put("alpha beta", "editor", "old", **how)
        clock.advance(age)
        return Old(cache, clock)

    return make


USERS = tuple(f"user {number}" for number in range(20))


@pytest.mark.parametrize("how", [{"shared": True}, {"intent": "faq", "shared_intents": ["faq"]}])
async def test_a_shared_answer_is_made_anew_once_and_for_all(
    old: Callable[..., Any], how: dict[str, Any]
) -> None:
    """One of many users' hits refreshes an answer, and the new one replaces the old."""
    made = await old(**how)
    await made.ask(*USERS)
    await until(lambda: made.computed)
    await made.settled()
    assert made.computed == 1
    for user in ("editor", *USERS, "a stranger"):
        assert (await made.cache.lookup("alpha beta", user)).response == "new 1"
    assert made.cache.metrics.refreshes["stored"] == 1


async def test_what_l2_serves_is_made_anew_by_its_own_message_alone(
    old: Callable[..., Any],
) -> None:
    """After L1 expired: once for the same words; a paraphrase would not replace the answer."""
    made = await old({"l1_ttl": 5.0}, shared=True, settings=PATIENT)
    await made.cache.ready()
    assert await made.cache.get_or_compute("beta alpha", "ann", made.compute) == "old"
    await asyncio.sleep(0.05)
    assert made.computed == 0
    await made.ask(*USERS)
    await until(lambda: made.computed)
    await made.settled()
    assert made.computed == 1
    assert (await made.cache.lookup("alpha beta", "a stranger")).response == "new 1"


async def test_what_looks_personal_does_not_replace_a_shared_answer(
    old: Callable[..., Any],
) -> None:
    """It stays its user's; the others keep the old answer, and it is not computed for each."""
    made = await old(shared=True)
    compute: Any = lambda: Answer("Write to ann.lee@example.org")  # noqa: E731
    assert await made.cache.get_or_compute("alpha beta", "ann", compute) == "old"
    await until(lambda: made.cache.metrics.refreshes["stored"])
    await made.ask(*USERS)
    await asyncio.sleep(0.05)
    assert made.computed == 0
    assert (await made.cache.lookup("alpha beta", "bob")).response == "old"


async def test_who_says_that_theirs_is_private_shares_nothing(old: Callable[..., Any]) -> None:
    """A caller with shared=False keeps what they computed."""
    made = await old(shared=True)
    await made.ask("ann", shared=False)
    await until(lambda: made.computed)
    await made.settled()
    assert (await made.cache.lookup("alpha beta", "bob")).response == "old"


async def test_private_answers_are_made_anew_each(old: Callable[..., Any]) -> None:
    """Two users with answers of their own have one computation each, whatever their terms."""
    made = await old()
    await made.cache.put("alpha beta", "bob", "old", ttl=31.0)
    await made.ask("editor", "editor")
    await made.ask("editor", tags=["t"])
    await until(lambda: made.computed)
    await made.settled()
    assert made.computed == 1
    assert (await made.cache.lookup("alpha beta", "editor")).response == "new 1"
    assert (await made.cache.lookup("alpha beta", "bob")).response == "old"


async def test_a_variant_makes_nothing_anew(make_cache: CacheFactory) -> None:
    """L2 serves an answer to all variants of its message; only that very message renews it."""
    clock = ManualClock(1_800_000_000.0)
    cache = await make_cache(settings=PATIENT, clock=clock, sharing="all")
    await cache.tune(REFRESH | {"l1_ttl": 1.0}, author="a test")
    await cache.put("how do I pay my bill", "ann", "old")
    clock.advance(20)
    made: list[str] = []

    async def ask(message: str) -> str:
        return await cache.get_or_compute(message, "bob", lambda: made.append(message) or "new")

    variants = ["how do I  pay my bill", "how do I pay my bill!", "How do i pay my bill"]
    for message in variants:
        assert await ask(message) == "old"
    await asyncio.sleep(0.05)
    assert made == []
    assert await ask("How do I pay my bill?") == "old"
    await until(lambda: not inside(cache).computing.refreshing)
    assert made == ["How do I pay my bill?"]
