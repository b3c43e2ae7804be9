"""Answers that age with the day: none outlives its day, on any store, in any tier or zone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from cache_core import MultiLevelCache, Settings
from cache_core.config.settings import load_settings
from cache_core.model.exceptions import ConfigurationError
from cache_core.model.question.days import Days, ages, names_a_day, of_other_days
from cache_core.testing import HashEmbedder, ManualClock
from tests.support.inside import inside

CacheFactory = Callable[..., Any]

TODAY = [
    "Are you open today?", "Who is on duty right now?", "What is tomorrow's special?",
    "How many days until Christmas?", "ARE YOU OPEN TONIGHT", "tomorrow\u2019s menu", "open 2day?",
    "What's on this weekend?", "Are you closed next Friday?", "this week's deals", "current price",
    "What's the weather in Paris?", "what time is it", "When is the next bus?", "how long until 5?",
    "Will it be here by Monday?", "\uff54\uff4f\uff44\uff41\uff59", "what happened yesterday",
    "How many hours left?", "What is the latest version?", "who was here 2 days ago",
    "Is there a ferry in the next hour?", "is the bar open at this hour", "Who is in at this point?",
    "Is the sauna still open?", "Has the parade started yet?", "which films run these days",
    "a taxi in half an hour?", "open for the rest of the day?", "any room 2moro?", "ist heut zu",
    "Habt ihr heute offen?", "Wie ist das heutige Menü?", "nächsten Montag offen?",
    "Wie viele Tage bis Weihnachten?", "Quels sont les horaires aujourd\u2019hui ?", "aujourd'hui ?",
    "C'était ouvert hier ?", "ouvert ce dimanche ?", "¿Abren mañana?", "abren manana", "abierto ahora",
    "Siete aperti oggi?", "aberto amanhã?", "Zijn jullie vandaag open?", "Är ni öppna idag?",
    "har I åbent i dag?", "oletteko auki tänään", "czy dziś otwarte", "máte dnes otevřeno?",
    "nyitva vannak ma", "sunteți deschis astăzi?", "bugün açık mı", "yarınki menü",
    "Сегодня открыто?", "завтрашнее меню", "сьогодні відкрито?", "отворено ли е днес?",
    "jeste li otvoreni danas", "είστε ανοιχτά σήμερα;", "هل انتم مفتوحون اليوم؟", "غدًا",
    "האם אתם פתוחים היום?", "امروز باز هستید؟", "आज खुला है?", "今天开门吗", "明日は開いていますか",
    "What time does the next ferry leave?", "Ist der Laden noch offen?", "Wie ist das Wetter?",
    "Wann kommt der nächste Bus?", "Le musée est-il encore ouvert ?", "Quelle heure est-il ?",
    "Quel temps fait-il ?", "¿Sigue abierto el museo?", "¿Cuánto falta para Pascua?", "¿Qué hora es?",
    "È ancora aperto il bar?", "Che tempo fa?", "Ainda está aberto?", "Que horas são?",
    "Is het museum nog open?", "Wanneer gaat de volgende bus?", "Hoe laat is het?",
    "Är museet fortfarande öppet?", "Hvornår går næste bus?", "Czy muzeum jest jeszcze otwarte?",
    "Kiedy jest następny autobus?", "Je muzeum ještě otevřené?", "Mennyi az idő?",
    "Mai este deschis muzeul?", "Müze hâlâ açık mı?", "Onko museo vielä auki?", "Музей ещё открыт?",
    "Когда следующий автобус?", "Τι ώρα είναι;", "まだ開いていますか", "天气怎么样", "还开着吗",
    "아직 열려 있나요", "كم الساعة", "מה השעה", "अगली बस कब है", "toko masih buka?",
    "오늘은 영업하나요", "วันนี้เปิดไหม", "hôm nay có mở cửa không", "apakah buka hari ini",
]  # fmt: skip
ALWAYS = [
    "How do I reset my password?", "What are your opening hours?", "Do you ship to Norway?",
    "Are you open on Sundays?", "How do I boil eggs?", "an hour of parking", "I know nowhere else", "Wo finde ich das hier?", "hier klicken bitte",
    "Wie lautet die Adresse?", "¿Cómo cambio mi contraseña?", "Comment changer mon mot de passe ?",
    "手机密码怎么重置", "パスワードを忘れました", "비밀번호를 재설정하는 방법", "मैं निकल गया", "كيف أغير كلمة المرور", "",
    "What is the next step?", "Was ist der nächste Schritt?", "Quelle est l'étape suivante ?",
    "¿Cuál es el siguiente paso?", "Jaki jest następny krok?", "次の手順を教えてください",
    "Wie lange habe ich Zeit für die Rückgabe?", "¿Cuánto tiempo tengo?", "Quanto tempo ho?",
    "Сколько времени занимает доставка?", "何時に開きますか", "जल्दी कैसे करें",
]  # fmt: skip


@pytest.mark.parametrize("message", TODAY)
def test_messages_that_ask_for_a_day(message: str) -> None:
    """A word that says when from now is enough, in any of many languages and forms."""
    assert ages(message)


@pytest.mark.parametrize("message", ALWAYS)
def test_messages_that_ask_for_no_day(message: str) -> None:
    """Words that contain such a word, or look like one, do not age."""
    assert not ages(message)


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        ("habt ihr heute offen", "habt ihr morgen offen", True),
        ("abren hoy", "abren mañana", True),
        ("今天开门吗", "明天开门吗", True),
        ("сегодня открыто", "вчера открыто", True),
        ("are you open today", "are you open right now", True),
        ("habt ihr heute offen", "heute abend offen", False),
        ("habt ihr heute offen", "habt ihr offen", False),
        ("offen", "geöffnet", False),
    ],
)
def test_messages_about_other_days(one: str, other: str, apart: bool) -> None:
    """Messages that name different days are recognised in languages that no guard knows."""
    assert of_other_days(one, other) == of_other_days(other, one) == apart


def test_responses_that_name_a_day() -> None:
    """In a response only a day counts: "currently" is in answers that hold for years."""
    assert names_a_day("Yes, until 20:00 today.")
    assert names_a_day("Das Tagesgericht gibt es morgen wieder.")
    assert not names_a_day("We currently do not ship abroad.")
    assert not names_a_day("It takes 3 days from now on.")


def test_a_long_message_takes_no_time() -> None:
    """The search is linear: 32 KB of what almost matches take milliseconds, not minutes."""
    assert not ages("how many a " * 3_000)


def at(zone: str, *when: int) -> float:
    return datetime(*when, tzinfo=ZoneInfo(zone)).timestamp()  # type: ignore[misc, arg-type]


@pytest.mark.parametrize(
    ("zone", "now", "ends"),
    [
        ("UTC", (2026, 5, 1, 23, 59, 59), (2026, 5, 2)), ("UTC", (2026, 5, 1), (2026, 5, 2)),
        ("Europe/Berlin", (2026, 3, 29, 1), (2026, 3, 30)), # 23 hours
        ("Europe/Berlin", (2026, 10, 25, 1), (2026, 10, 26)),  # 25 hours
        ("Asia/Kolkata", (2026, 5, 1, 3), (2026, 5, 2)),
        ("Pacific/Kiritimati", (2026, 12, 31, 12), (2027, 1, 1)),
        ("Asia/Beirut", (2022, 3, 26, 12), (2022, 3, 27)),  # at midnight the clock goes to 01:00
    ],
)  # fmt: skip
def test_when_a_day_ends(zone: str, now: tuple[int, ...], ends: tuple[int, ...]) -> None:
    """At the next local midnight, also on days of 23 or 25 hours and without a midnight."""
    days = Days(zone)
    assert days.end(at(zone, *now)) == at(zone, *ends)
    assert days.begin(at(zone, *now)) <= at(zone, *now) < days.end(at(zone, *now))


def test_the_zone_of_the_machine() -> None:
    """Without a zone the machine's is taken."""
    noon = datetime(2026, 5, 1, 12).astimezone()
    midnight = (noon + timedelta(days=1)).replace(hour=0)
    assert Days().end(noon.timestamp()) == midnight.timestamp()


def test_a_clock_without_a_calendar() -> None:
    """A time that no calendar has still ends within a day."""
    assert 0 < Days("UTC").end(1e17) - 1e17 <= 86_400


def test_a_wrong_zone_is_named() -> None:
    """The error has the value and what is expected; an empty one is none."""
    with pytest.raises(ConfigurationError, match=r"Mars/Olympus.*Europe/Berlin"):
        load_settings(timezone="Mars/Olympus")
    assert load_settings(timezone="").timezone is None


EVENING = at("America/New_York", 2026, 1, 31, 23)
NEW_YORK = {"timezone": "America/New_York"}


@pytest.fixture
def store_kind() -> str:
    return "embedded"


@pytest.fixture
async def shop(make_cache: CacheFactory) -> tuple[MultiLevelCache, ManualClock]:
    clock = ManualClock(EVENING)
    cache = await make_cache(settings=NEW_YORK, clock=clock, sharing="all")
    return cache, clock


async def test_no_tier_serves_it_on_the_next_day(shop: tuple[MultiLevelCache, ManualClock]) -> None:
    """L1, L2 and L4 serve it until midnight, then not; the intent stays; explain says why."""
    cache, clock = shop
    asked = ("are you open today", "how many days until christmas")
    for message in asked:
        await cache.put(message, "ann", "Yes, until 23:30.", "hours", [{"id": "d"}])
    clock.advance(3_599)
    for message in asked:
        assert (await cache.lookup(message, "bob")).response is not None
    clock.advance(1)
    for message in asked:
        found = await cache.lookup(message, "bob")
        assert (found.response, found.rag_results, found.intent) == (None, None, "hours")
        assert found.reasons == ("day_over",)
        reasons = [tier.reason for tier in await cache.explain(message, "bob")]
        assert reasons == ["day_over", "day_over", "", "day_over"]


async def test_it_is_explained_while_it_lives(shop: tuple[MultiLevelCache, ManualClock]) -> None:
    """`explain` says that an answer ends with its day, and its TTL is what is left of that."""
    cache, _ = shop
    await cache.put("are you open today", "ann", "Yes.")
    exact, similar, *_ = await cache.explain("are you open today", "ann")
    assert "speaks of its day" in exact.detail
    assert exact.ttl_seconds == similar.ttl_seconds == 3_600


async def test_a_ttl_of_its_own_is_not_extended(shop: tuple[MultiLevelCache, ManualClock]) -> None:
    """The end of the day bounds every TTL, and never extends one."""
    cache, clock = shop
    await cache.put("are you open today", "ann", "Yes.", ttl=86_400)
    await cache.put("are you open tonight", "ann", "Yes.", ttl=60)
    clock.advance(61)
    assert (await cache.lookup("are you open tonight", "ann")).reasons[0] == "expired"
    clock.advance(3_600)
    assert (await cache.lookup("are you open today", "ann")).response is None


async def test_the_response_names_the_day(shop: tuple[MultiLevelCache, ManualClock]) -> None:
    """An answer that speaks of today ends with it, even if its question does not."""
    cache, clock = shop
    await cache.put("do you sell bread", "ann", "Yes, fresh today until eight.")
    await cache.put("do you sell rolls", "ann", "Yes, always.")
    clock.advance(2 * 3_600)
    assert (await cache.lookup("do you sell bread", "ann")).response is None
    assert (await cache.lookup("do you sell rolls", "ann")).response == "Yes, always."


async def test_a_follow_up_ages_with_the_day_before_it(
    shop: tuple[MultiLevelCache, ManualClock],
) -> None:
    """A follow-up ("And then?") to a question about tomorrow asks for tomorrow."""
    cache, clock = shop
    history = ["I come tomorrow", {"role": "assistant", "content": "Good."}]
    await cache.put("are you open then", "ann", "Yes.", history=history, ttl=86_400)
    clock.advance(2 * 3_600)
    assert (await cache.lookup("are you open then", "ann", history=history)).response is None


@pytest.mark.parametrize("given", [True, False])
async def test_an_answer_is_of_the_day_of_its_lookup(
    shop: tuple[MultiLevelCache, ManualClock], given: bool
) -> None:
    """An answer computed over midnight is of the day before, and not stored for the next."""
    cache, clock = shop
    clock.advance(3_595)
    found = await cache.lookup("are you open today", "ann")
    clock.advance(10)
    if given:
        await cache.put("are you open today", "ann", "Yes, it is Saturday.", lookup=found)
    else:
        await asyncio.create_task(cache.put("are you open today", "ann", "Yes, it is Saturday."))
    assert (await cache.lookup("are you open today", "ann")).response is None
    assert cache.metrics.put_reasons["l1", "day_over"] == 1
    await cache.put("are you open today", "ann", "No, it is Sunday.")
    assert (await cache.lookup("are you open today", "ann")).response == "No, it is Sunday."


async def test_computing_over_midnight(shop: tuple[MultiLevelCache, ManualClock]) -> None:
    """Its caller gets the answer; who asks after midnight neither joins nor finds it."""
    cache, clock = shop
    clock.advance(3_595)
    begun, ended = asyncio.Event(), asyncio.Event()

    async def slowly() -> str:
        begun.set()
        await ended.wait()
        return "Yes, it is Saturday."

    first = asyncio.create_task(cache.get_or_compute("are you open today", "ann", slowly))
    await begun.wait()
    clock.advance(10)
    asked = cache.get_or_compute("are you open today", "ann", lambda: "No, it is Sunday.")
    second = asyncio.create_task(asked)
    await asyncio.sleep(0.05)
    ended.set()
    assert (await first, await second) == ("Yes, it is Saturday.", "No, it is Sunday.")
    assert (await cache.lookup("are you open today", "ann")).response == "No, it is Sunday."


class AllAlike(HashEmbedder):
    """An embedder to which every text is the same."""

    async def embed(self, text: str) -> Any:
        return await super().embed("the same")


async def test_nothing_of_another_day_is_matched_by_similarity(make_cache: CacheFactory) -> None:
    """A question about today is not answered by what was said yesterday, whatever was asked."""
    clock = ManualClock(EVENING)
    cache = await make_cache(
        settings=NEW_YORK, clock=clock, sharing="all", embedding_model=AllAlike()
    )
    await cache.put("are you open", "ann", "Yes.")
    assert (await cache.lookup("are you open right now", "bob")).response == "Yes."
    clock.advance(2 * 3_600)
    assert (await cache.lookup("are you open for me", "bob")).response == "Yes."
    found = await cache.lookup("are you open right now", "bob")
    assert (found.response, found.reasons[-1]) == (None, "day_over")


async def test_stale_answers_are_not_of_another_day(
    shop: tuple[MultiLevelCache, ManualClock],
) -> None:
    """An answer that may be served past its TTL is not served past its day."""
    cache, clock = shop
    await cache.tune({"stale_seconds": 86_400}, author="test")
    await cache.put("are you open today", "ann", "Yes.")
    clock.advance(2 * 3_600)
    assert (await cache.lookup("are you open today", "ann", allow_stale=True)).response is None


async def test_on_redis_it_ends_by_the_servers_clock(empty_redis: str) -> None:
    """On Redis the store's time decides, too."""
    settings = Settings(redis_url=empty_redis, tiers=frozenset({"l1", "l4"}), timezone="UTC")
    async with MultiLevelCache(settings=settings, instruments=()) as cache:
        days = Days("UTC")
        await cache.put("are you open today", "ann", "Yes.")
        now = cache._parts.store.now()
        (exact, *_) = await cache.explain("are you open today", "ann")
        assert exact.ttl_seconds == pytest.approx(min(3_600, days.end(now) - now), abs=2)
        inside(cache).puts._days.end = lambda now: now + 0.2  # type: ignore[method-assign]
        await cache.put("are you open tonight", "ann", "Yes.")
        assert (await cache.lookup("are you open tonight", "ann")).response == "Yes."
        while (found := await cache.lookup("are you open tonight", "ann")).response:
            await asyncio.sleep(0.02)
        assert found.reasons == ("day_over", "cold")
