"""Causes of the four troubles, named from what real caches recorded."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from cache_core import MultiLevelCache
from cache_core.cli.doctor.causes import CAUSES, causes
from cache_core.cli.doctor.finding import Finding
from cache_core.cli.doctor.traffic import FEW, hit_rate
from cache_core.cli.doctor.troubles import check_l2, check_misses
from cache_core.config.tuning import Tuning
from cache_core.model.reasons import REASONS
from cache_core.model.values import MISS_REASONS, OUTCOMES
from cache_core.observability.decisions import Decision
from cache_core.testing import ManualClock
from tests.support.caches import opened
from tests.support.patience import PATIENT

Traffic = Callable[[MultiLevelCache, ManualClock], Awaitable[None]]

TOPICS = (
    "refunds", "delivery", "invoices", "warranty", "vouchers", "parking", "breakfast", "laundry",
    "bicycles", "gardens",
)  # fmt: skip
ASKED = (
    "Who sells {}?", "When does {} start?", "May children have {}?", "Why is {} so expensive?",
    "What is included in {}?", "Do you offer {} abroad?",
)  # fmt: skip
QUESTIONS = [f"Where can I read about {topic}?" for topic in TOPICS]


async def ask(
    cache: MultiLevelCache,
    message: str,
    user: str | None = "ann",
    context: dict[str, int] | None = None,
    *,
    puts: bool = True,
) -> None:
    """Look a message up, and put an answer if there is none."""
    found = await cache.lookup(message, user, context=context)
    if found.response is None and puts:
        await cache.put(message, user, "an answer", context=context)


async def without_a_user(cache: MultiLevelCache, _: ManualClock) -> None:
    for number in range(60):
        await ask(cache, QUESTIONS[number % 10], None)


async def never_put(cache: MultiLevelCache, _: ManualClock) -> None:
    for number in range(60):
        await ask(cache, QUESTIONS[number % 10], puts=False)


async def another_context_each_time(cache: MultiLevelCache, _: ManualClock) -> None:
    for number in range(60):
        await ask(cache, QUESTIONS[number % 10], context={"request": number})


async def a_user_each_time(cache: MultiLevelCache, _: ManualClock) -> None:
    for number in range(60):
        await ask(cache, QUESTIONS[0], f"user {number}")


async def new_questions(cache: MultiLevelCache, _: ManualClock) -> None:
    for number in range(60):
        await ask(cache, ASKED[number // 10].format(TOPICS[number % 10]))


async def too_late(cache: MultiLevelCache, clock: ManualClock) -> None:
    for number in range(60):
        await ask(cache, QUESTIONS[number % 10])
        if number % 10 == 9:
            clock.advance(1.5 * 86_400)


async def much_too_late(cache: MultiLevelCache, clock: ManualClock) -> None:
    for number in range(60):
        await ask(cache, QUESTIONS[number % 10])
        if number % 10 == 9:
            clock.advance(30 * 86_400)


async def recorded(traffic: Traffic, directory: Path) -> list[Decision]:
    """Return the decision log of a cache with this traffic."""
    clock = ManualClock()
    async with opened(directory, clock=clock, **PATIENT) as cache:
        await traffic(cache, clock)
        await cache.operator.flush_decisions()
        return await cache.decisions()


def by_name(decisions: list[Decision]) -> dict[str, Finding]:
    findings = [*check_misses(Tuning(), decisions), *check_l2(Tuning(), decisions, ())]
    return {item.name: item for item in findings}


@pytest.mark.parametrize(
    ("traffic", "cause"),
    [
        (without_a_user, "no_user"),
        (never_put, "not_stored"),
        (another_context_each_time, "context"),
        (a_user_each_time, "other_scope"),
        (new_questions, "new"),
        (too_late, "expired"),
        (much_too_late, "expired"),
    ],
)
async def test_the_cause_of_all_misses(traffic: Traffic, cause: str, tmp_path: Path) -> None:
    """The largest cause is named with its remedy, and L2's trouble has one, too."""
    decisions = await recorded(traffic, tmp_path)
    found = by_name(decisions)
    assert found["all-misses"].level == "failure", found
    assert f"are {cause}: {CAUSES[cause].text}" in found["all-misses"].found
    assert found["all-misses"].fix == CAUSES[cause].fix
    assert found["low-hit-rate"].level == "skipped"
    assert found["l2-never-hits"].level == "warning"
    if cause == "no_user":
        assert CAUSES[cause].text in found["l2-never-hits"].found
    assert sum(causes(decisions, Tuning()).values()) == len(decisions)


async def test_the_cause_of_a_low_hit_rate(tmp_path: Path) -> None:
    """A third of hits is too few: the rest asks what nobody asked."""

    async def mixed(cache: MultiLevelCache, clock: ManualClock) -> None:
        for _ in range(4):
            await ask(cache, QUESTIONS[0])
        await new_questions(cache, clock)

    decisions = await recorded(mixed, tmp_path)
    found = by_name(decisions)
    assert found["all-misses"].level == "ok"
    assert found["low-hit-rate"].level == "warning"
    assert "are new" in found["low-hit-rate"].found
    assert hit_rate(Tuning(), decisions).level == "warning"
    assert hit_rate(Tuning(hit_rate_objective=0.01), decisions).level == "ok"


async def test_a_threshold_that_is_too_high(tmp_path: Path) -> None:
    """L2's trouble names the nearest similarity beside the threshold."""

    async def rephrased(cache: MultiLevelCache, _: ManualClock) -> None:
        for question in QUESTIONS:
            await ask(cache, question)
        for _ in range(6):
            for question in QUESTIONS:
                await ask(cache, f"Please, {question[0].lower()}{question[1:]}", puts=False)

    found = by_name(await recorded(rephrased, tmp_path))
    assert "below_threshold" in found["l2-never-hits"].found
    assert "the threshold is 0.95" in found["l2-never-hits"].found


async def test_few_lookups_say_nothing(tmp_path: Path) -> None:
    """Below the least number every trouble is skipped."""

    async def few(cache: MultiLevelCache, _: ManualClock) -> None:
        for number in range(FEW - 1):
            await ask(cache, QUESTIONS[number % 10], puts=False)

    found = by_name(await recorded(few, tmp_path))
    assert {item.level for item in found.values()} == {"skipped"}


def test_lookups_that_all_bypass_the_cache() -> None:
    """The counts of the running replicas report what the log does not have."""
    bypassed = dict.fromkeys(OUTCOMES, 0) | {"bypass": FEW}
    found = [*check_misses(Tuning(), (), [bypassed, bypassed])]
    assert [item.level for item in found] == ["failure", "skipped"]
    assert f"all {2 * FEW} lookups" in found[0].found
    missed = {**bypassed, "miss": 1}
    assert {item.level for item in check_misses(Tuning(), (), [missed])} == {"skipped"}


def test_every_reason_of_a_miss_is_a_cause() -> None:
    """Only `cold`, nothing stored, is explained by the lookups before."""
    for reason in MISS_REASONS:
        lookup = Decision(
            0, "1", "miss", "l2", reason, ("cold", reason), 0.9, 0.9, 0.95, None, 0.0, 0, "m",
            "", "u", "", 1,
        )  # fmt: skip
        wanted = "new" if reason == "cold" else reason
        assert causes([lookup], Tuning()) == {wanted: 1}
        assert wanted in CAUSES


def test_every_cause_that_is_a_reason_has_its_words() -> None:
    """Causes of a tier are in the words of the one table of reasons."""
    own = {"not_stored", "no_user", "context", "history", "new", "error"}
    assert own < CAUSES.keys()
    assert all(CAUSES[name].text == REASONS[name].long for name in CAUSES.keys() - own)
