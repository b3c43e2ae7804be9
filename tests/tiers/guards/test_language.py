"""Only what is understood is matched by similarity: English by default, any language if asked for."""

from __future__ import annotations

import time
import uuid

import pytest

from cache_core import MultiLevelCache
from cache_core.backends.embedder.pool import ThreadEmbedder
from cache_core.config.settings import refused_variables
from cache_core.testing import HashEmbedder, RecordingInstrument
from cache_core.tiers.guards.language import english, understood
from tests.support.caches import CacheFactory
from tests.support.patience import PATIENT

OPPOSITES = """
de|Kann ich die Bestellung stornieren?|Kann ich die Bestellung nicht stornieren?
de|Newsletter abonnieren|Newsletter abbestellen
de|Login geht|Login geht nicht
de|Account aktivieren|Account deaktivieren
de|Hat das Hotel WLAN|Hat das Hotel kein WLAN
de|Online Check-in möglich|Online Check-in unmöglich
fr|Je peux annuler ma commande|Je ne peux pas annuler ma commande
fr|Où est l'entrée ?|Où est la sortie ?
fr|Payer avec compte|Payer sans compte
fr|message important|message pas important
fr|La date est possible|La date est impossible
es|¿Puedo cancelar mi pedido?|¿No puedo cancelar mi pedido?
es|pizza con carne|pizza sin carne
es|activar cuenta|desactivar cuenta
it|Posso annullare l'ordine|Non posso annullare l'ordine
it|Come accendere il telefono|Come spegnere il telefono
pt|Posso cancelar o pedido|Não posso cancelar o pedido
pt|Nao quero o produto|Quero o produto
ca|Puc cancel·lar la comanda|No puc cancel·lar la comanda
ro|Pot anula comanda|Nu pot anula comanda
nl|Kan ik mijn bestelling annuleren|Kan ik mijn bestelling niet annuleren
nl|Is de winkel open|Is de winkel toe
nl|Is het water warm|Is het water niet warm
nl|deur open|deur dicht
de|Premium Account kündigen|Premium Account verlängern
de|Router an|Router aus
fr|Ma carte est active|Ma carte est inactive
fr|Client content|Client mécontent
fr|plus de sucre|moins de sucre
es|agua con gas|agua sin gas
es|antes de las dos|después de las dos
it|mai in ritardo|sempre in ritardo
sv|med socker|utan socker
af|my hand is warm|my hand is nie warm nie
sv|Slå på notiser|Slå av notiser
da|Vi har en konto|Vi har ikke en konto
no|er det mulig|er det umulig
is|Get ég hætt við pöntun|Get ég ekki hætt við pöntun
fi|Tili on voimassa|Tili ei ole voimassa
et|Kas ma saan tellimuse tühistada|Kas ma ei saa tellimust tühistada
lv|Vai varu atcelt|Vai nevaru atcelt
lt|Ar galiu atšaukti|Ar negaliu atšaukti
pl|Mam konto|Nie mam konta
pl|Jak włączyć powiadomienia|Jak wyłączyć powiadomienia
cs|Chci email|Nechci email
sk|To je moje|To nie je moje
hu|Van fiókom|Nincs fiókom
hr|trgovina je otvorena|trgovina nije otvorena
sl|Lahko prekličem|Ne morem preklicati
sr|imam nalog|nemam nalog
sq|A mund ta anuloj|A nuk mund ta anuloj
tr|Hesap var|Hesap yok
az|Sifarişi ləğv edə bilərəm|Sifarişi ləğv edə bilmərəm
vi|Tôi có thể hủy đơn|Tôi không thể hủy đơn
vi|toi co the huy don|toi khong the huy don
id|Toko buka jam berapa|Toko tutup jam berapa
ms|order sudah sampai|order belum sampai
tl|gusto ko ng refund|ayaw ko ng refund
sw|Nataka refund|Sitaka refund
ha|Zan iya soke oda|Ba zan iya soke oda ba
zu|Ngingakhansela i-oda|Angikwazi ukukhansela i-oda
cy|Ydw i'n gallu canslo|Dydw i ddim yn gallu canslo
ga|An féidir liom|Ní féidir liom
eu|Eskaera utzi dezaket|Ezin dut eskaera utzi
ht|Mwen ka anile komand|Mwen pa ka anile komand
hi-Latn|order cancel karo|order cancel mat karo
hi-Latn|mujhe refund chahiye|mujhe refund nahi chahiye
ru-Latn|zakaz prishel|zakaz ne prishel
zh-Latn|wo yao quxiao|wo bu yao quxiao
ja-Latn|kyanseru dekimasu ka|kyanseru dekimasen ka
ar-Latn|mumkin cancel el order|mish mumkin cancel el order
ru|мой заказ пришёл|мой заказ не пришёл
ru|как включить уведомления|как отключить уведомления
uk|Я можу скасувати|Я не можу скасувати
bg|Мога да отменя|Не мога да отменя
kk|бас тарта аламын|бас тарта алмаймын
el|πώς ανοίγω λογαριασμό|πώς κλείνω λογαριασμό
ar|هل يمكنني إلغاء الطلب|هل لا يمكنني إلغاء الطلب
fa|می‌توانم لغو کنم|نمی‌توانم لغو کنم
ur|آرڈر منسوخ کر سکتا ہوں|آرڈر منسوخ نہیں کر سکتا
he|אני יכול לבטל|אני לא יכול לבטל
hi|मैं रद्द कर सकता हूँ|मैं रद्द नहीं कर सकता
bn|অর্ডার বাতিল করতে পারি|অর্ডার বাতিল করতে পারি না
ta|ரத்து செய்யலாமா|ரத்து செய்ய முடியாதா
th|ฉันยกเลิกได้|ฉันยกเลิกไม่ได้
ka|შემიძლია გავაუქმო|არ შემიძლია გავაუქმო
hy|Կարող եմ չեղարկել|Չեմ կարող չեղարկել
am|መሰረዝ እችላለሁ|መሰረዝ አልችልም
zh|我要取消订单|我不要取消订单
ja|キャンセルできますか|キャンセルできませんか
ko|취소할 수 있나요|취소할 수 없나요
"""
PAIRS = [line.split("|") for line in OPPOSITES.strip().splitlines()]


@pytest.mark.parametrize(("language", "asked", "opposite"), PAIRS)
def test_opposites_in_other_languages_are_not_understood(
    language: str, asked: str, opposite: str
) -> None:
    """Whatever says the opposite in a language that the guards do not know."""
    assert not understood(asked, opposite)
    assert not understood(opposite, asked)


@pytest.mark.parametrize(
    "text",
    ["how do i reset my password", "Cancel order", "track my order", "Is it open on Monday?",
     "refund", "thanks!", "i dont get it", "Does Lufthansa fly to Zürich?", "12345", "",
     "What's the price of the iPhone 15", "can u pls help me", "my card was stolen in Kraków",
     "GDPR compliance", "enable SSO for my org", "ssl certificate expired", "paypal refund time"],
)  # fmt: skip
def test_english_is_understood(text: str) -> None:
    """Short, informal, with names and without any word."""
    assert english(text)


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        ("i want to cancle my order", "I want to cancel my order"),
        ("how do i get a refnud", "How do I get a refund?"),
        ("cuold you please tell me where my order is", "where is my order please"),
        ("can u cancel my order", "can you cancel my order"),
        ("wher is my order", "where is my order"),
        ("how do i log in", "how do I login"),
        ("i did not recieve it", "I did not get it"),
        ("which ATMs take my card", "which ATM takes my card"),
        ("is the shop open at 10 a.m.", "is the shop open at 10am"),
        ("does it weigh 20 kg", "does it weigh 20 kilograms"),
        ("does it cost 5 EUR", "does it cost €5"),
        ("is a line of 50 Mbps enough", "is a line of 50 Mbit/s enough"),
        ("can I get a T-shirt by e-mail", "can i get a tshirt by email"),
    ],
)
def test_misspellings_are_understood(asked: str, stored: str) -> None:
    """A slip of the hand is no unknown word."""
    assert understood(asked, stored)
    assert understood(stored, asked)


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        ("is my order pqrst", "is my order xyzzy"),
        ("fly to Kraków with my dog", "fly to Łódź with my dog"),
        ("can I cancel my order", "cannnot I cancel my order"),
        ("my order has nto come", "my order has come"),
        ("is my account adjudicatory", "is my account nonadjudicatory"),
        ("what does gnarfle mean", "what does ungnarfle mean"),
    ],
)
def test_unknown_words_on_one_side_are_not_understood(asked: str, stored: str) -> None:
    """Unknown names and words may be anything, and so may a misspelt negation."""
    assert not understood(asked, stored)
    assert not understood(stored, asked)


@pytest.mark.parametrize(
    "text",
    ["s" + "'s" * 16_000, "b" * 32_000 + " the", "the " + "qz" * 200 + " you" * 500,
     " ".join(f"zq{chr(97 + n % 26)}x{chr(97 + n // 26 % 26)}" for n in range(300)) + " the" * 900],
)  # fmt: skip
def test_no_text_takes_long(text: str) -> None:
    """The longest message is compared in well under two seconds, whatever it consists of."""
    started = time.thread_time()
    understood(text, "the " + text[:-3] + "x y")
    assert time.thread_time() - started < 2


async def test_nothing_is_served_to_its_opposite_by_the_real_model(
    make_cache: CacheFactory, real_embedder: ThreadEmbedder
) -> None:
    """Other languages are not searched, nor stored for similarity, and an exact hit is as ever."""
    watch = RecordingInstrument()
    cache: MultiLevelCache = await make_cache(
        embedding_model=real_embedder, settings=PATIENT, instruments=[watch]
    )
    await cache.ready()
    for _, asked, _ in PAIRS:
        await cache.put(asked, "ann", "answer", shared=True)
    stored = {part.reason for call in watch.of("put") for part in call.calls if part.level == "l2"}
    assert "unreadable" in stored
    for language, asked, opposite in PAIRS:
        found = await cache.lookup(opposite, "bob")
        assert found.response is None, language
        assert found.reasons[-1] in {"unreadable", "guard_veto", "below_threshold"}, language
        assert (await cache.lookup(asked, "bob")).tier == "l1"


async def test_a_pair_that_is_not_understood_ends_as_unreadable(make_cache: CacheFactory) -> None:
    """The guard has a name, and the lookup's reason says more than that a guard vetoed."""
    watch = RecordingInstrument()
    cache: MultiLevelCache = await make_cache(
        embedding_model=_Alike(), settings=PATIENT, instruments=[watch]
    )
    await cache.ready()
    await cache.put("is the order from gnarfle here", "ann", "answer", shared=True)
    asked = "is the order from zibble here"
    found = await cache.lookup(asked, "bob")
    assert (found.response, found.reasons[-1]) == (None, "unreadable")
    assert {part.guard for part in watch.of("lookup")[-1].calls} >= {"language"}
    said = {item.level: item.detail for item in await cache.explain(asked, "bob")}
    assert "'language'" in said["l2"]
    without = [name for name in cache.tuning.guards if name != "language"]
    await cache.tune({"guards": without}, author="ann")
    assert (await cache.lookup(asked, "bob")).response == "answer"


async def test_an_operator_answers_for_other_languages(
    make_cache: CacheFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CACHE_LANGUAGES=any searches every language; the guards that do not know it stay on."""
    monkeypatch.setenv("CACHE_LANGUAGES", "any")
    cache: MultiLevelCache = await make_cache(embedding_model=_Alike(), settings=PATIENT)
    await cache.ready()
    assert "language" not in cache.tuning.guards
    assert cache.tuning_origins["guards"] == "the environment"
    await cache.put("wo ist meine Bestellung", "ann", "answer", shared=True)
    assert (await cache.lookup("wo bleibt meine Bestellung", "bob")).response == "answer"
    assert (await cache.lookup("wo ist Bestellung Nr. 4711", "bob")).response is None


async def test_most_messages_in_another_language_are_reported_once(
    make_cache: CacheFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """Without it users would not know why nothing is matched; a few do not count."""
    cache: MultiLevelCache = await make_cache(embedding_model=_Alike(), settings=PATIENT)
    await cache.ready()
    for number in range(12):
        await cache.put(f"where is my order {number}", "ann", "answer")
    for number in range(40):
        await cache.put(f"wo ist meine Bestellung {number}", "ann", "answer")
    said = [record.message for record in caplog.records if "CACHE_LANGUAGES" in record.message]
    assert len(said) == 1
    assert "Bestellung" not in said[0]


def test_languages_that_are_not_known_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable and its value are reported, with what is expected, and English stays."""
    monkeypatch.setenv("CACHE_LANGUAGES", "de")
    assert "language" in MultiLevelCache().tuning.guards
    [said] = refused_variables()
    assert "CACHE_LANGUAGES='de'" in said
    assert "'en' or 'any'" in said


async def test_forgetting_a_user_forgets_the_texts_that_were_compared(
    make_cache: CacheFactory,
) -> None:
    """Nothing of them stays in what the guards remember."""
    from cache_core.tiers.guards import language as understanding
    from cache_core.tiers.guards import letters

    cache: MultiLevelCache = await make_cache(embedding_model=_Alike(), settings=PATIENT)
    await cache.ready()
    await cache.put(f"where is my order {uuid.uuid4()}", "ann", "answer")
    await cache.lookup(f"where is the order {uuid.uuid4()}", "ann")
    await cache.forget_user("ann")
    assert letters._letters.cache_info().currsize == 0
    assert understanding._read.cache_info().currsize == 0


class _Alike(HashEmbedder):
    """Finds all texts alike."""

    async def embed(self, text: str):
        return await super().embed("the same")
