"""Answers that age with the day: their recognition, and the end of their day.

"Are you open today?" has another answer tomorrow, at any TTL. A message or response that names a
day or a moment relative to now limits the life of its answer to the end of the local day. The words
are a closed class, about a dozen in each language. A superfluous one ends an answer's
life at midnight; a missing one serves yesterday's answer.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

_DAY_SECONDS = 86_400.0

_DAYS = """
today tonight tomorrow yesterday todays tomorrows tonite tmrw tmr 2day 2morrow 2moro 2nite
, y day
, right now, as we speak, this morning, this afternoon, this evening, this weekend
heute heut morgen morgn gestern übermorgen vorgestern, heute abend
aujourd'hui aujourdhui auj demain hier, ce soir, ce matin, cet après midi, cette nuit, en ce moment
hoy mañana ayer anteayer anoche ahorita, esta noche, esta tarde, ahora mismo
oggi domani ieri stasera stamattina stamani stanotte dopodomani
hoje hj amanhã ontem, esta noite
vandaag gisteren vanavond vanmiddag vanmorgen vanochtend vannacht overmorgen eergisteren
idag imorgon igår ikväll imorgen inatt, i dag, i morgon, i morgen, i går, i kväll, i aften, i kveld
tänään huomenna eilen ylihuomenna, tänä iltana
dziś dzisiaj jutro wczoraj pojutrze
dnes dneska zítra zajtra včera pozítří
holnap tegnap holnapután mára, ma este, ma reggel, ma nyitva, nyitva ma, vannak ma, van ma
azi astăzi mâine ieri diseară poimâine
bugün yarın dün, bu akşam, bu gece
сегодня завтра вчера послезавтра сьогодні вчора днес утре довечера данас сутра јуче вечерас
danas sutra jučer juče večeras danes jutri včeraj nocoj
σήμερα αύριο χθες χτες απόψε
šiandien rytoj vakar šodien rīt täna homme eile
avui demà ahir hoxe onte gaur bihar atzo
bukas kahapon leo kesho jana besok kemarin esok lusa, hari ini, malam ini
hôm nay, ngày mai, hôm qua, tối nay, sáng nay, chiều nay
आज कल परसों उद्या আজ আগামীকাল গতকাল இன்று நாளை நேற்று ఈరోజు రేపు నిన్న, ఈ రోజు آج کل
"""
"""Words, and phrases after a comma, for today, tonight, tomorrow and yesterday."""

_MOMENTS = """
now nowadays currently current presently lately latest newest recent recently upcoming ongoing rn
ago, at the moment, at present, these days, rest of the day, so far, up to date, from now
jetzt derzeit aktuell momentan zurzeit gerade, zur zeit, im moment, wie viele tage, wie lange noch
maintenant actuellement prochain prochaine, combien de jours
ahora actualmente próximo próxima faltan, en este momento, cuántos días
adesso ora attualmente prossimo prossima mancano, al momento, in questo momento, quanti giorni
agora atualmente faltam, neste momento, no momento
nu momenteel, op dit moment, just nu, lige nu, akkurat nå, hoeveel dagen
nyt parhaillaan, tällä hetkellä, ensi viikolla, tällä viikolla
teraz obecnie aktualnie nyní teď aktuálně momentálně, w tej chwili, w tym tygodniu, w ten weekend
most jelenleg, ezen a héten, a héten
acum, în prezent, săptămâna asta, săptămâna aceasta
şimdi şuanda halen güncel, şu an, şu anda, bu hafta, kaç gün
сейчас теперь ныне зараз наразі сега сада тренутно, на этой неделе, в эти выходные, сколько дней
цього тижня, тази седмица, в момента
sada trenutno zdaj dabar tagad praegu nüüd ara orain
τώρα, αυτή τη στιγμή, αυτή την εβδομάδα
sekarang kini ngayon sasa, saat ini, minggu ini
bây giờ, hiện tại, hiện nay, tuần này, lúc này
अभी फिलहाल आता এখন இப்போது ఇప్పుడు ابھی, इस समय, इस सप्ताह, इस हफ्ते
"""
"""The same for now, and for counting from now; too frequent in responses to mean a day."""

_STATES = """
, wie ist das wetter, wie wird das wetter, wie spät ist es, wie viel uhr, immer noch, noch immer
, grad offen, grade offen
, quelle heure est, quel temps fait, quel temps fera, la météo, combien de temps avant
, toujours ouvert, toujours ouverte
todavía sigue siguen, qué hora es, qué tiempo hace, qué tiempo hará, cómo está el tiempo
, cuánto falta, cuánto queda
, che ore sono, che ora è, che tempo fa, quanto manca, quanti giorni mancano
ainda, que horas são, previsão do tempo, como está o tempo, quanto falta
, hoe laat is het, wat voor weer, hoe is het weer, hoe lang nog
fortfarande stadig fremdeles fortsatt, vad är klockan, hvad er klokken, hva er klokka
, hva er klokken, hur är vädret, hvordan er vejret, hvordan er været, hur många dagar
wciąż, czy nadal, nadal jest, która godzina, jaka jest pogoda, jaka będzie pogoda, ile zostało
, kolik je hodin, jaké je počasí, koľko je hodín, aké je počasie
, mennyi az idő, milyen az idő, hány óra van, van még, még nyitva, még mindig
, cât e ceasul, ce oră e, cum e vremea, mai e, mai este, mai sunt, mai aveți
, hâlâ açık, hâlâ var, saat kaç, bir sonraki, hava nasıl
vielä, paljonko kello, millainen sää
ακόμα ακόμη, τι ώρα είναι, τι καιρό
, который час, какая погода, все еще, котра година, яка погода, все ще, колко е часът
, колико је сати, koliko je sati
masih cuaca, còn mở, vẫn còn, thời tiết, mấy giờ rồi
मौसम, अब भी, कितने बजे हैं, لا يزال, ما زال, كم الساعة, מה השעה
"""
"""The same for what is still so, comes next, or is asked of the clock and the weather."""

_STEMS = """
heutig morgig gestrig jetzig aktuell derzeitig dzisiejsz jutrzejsz dnešn bugün yarın
сегодняшн завтрашн вчерашн текущ нынешн
"""
"""Stems of words that are inflected."""

_UNSPACED = """
今 明天 明日 明晚 后天 後天 昨天 昨日 昨晚 现在 現在 目前 当前 當前 此刻
本周 本週 本月 本日 这周 這週 下周 下週 上周
周末 週末 来週 先週 来月 明年 刚才 剛才 最新 最近 几天 幾天 多少天 あした きのう きょう 何日
오늘 내일 어제 지금 현재 모레 이번 다음주 다음 지난주 주말 최근 며칠
วันนี้ พรุ่งนี้ เมื่อวาน ตอนนี้ คืนนี้ ขณะนี้ สัปดาห์นี้ ปัจจุบัน เดี๋ยวนี้
اليوم الليلة غدا أمس البارحة الآن حاليا بكرة امبارح دلوقتي النهارده امروز امشب فردا دیروز اکنون الان
היום הלילה הערב מחר אתמול עכשיו כרגע השבוע
"""
"""Words of languages without spaces, or that join articles and particles to the word."""

_STATES_UNSPACED = """
まだ 次の電車 次のバス 次の便 次はいつ 天気
还开 還開 还在 還在 还有 還有 仍然 下一班 下一趟 下一场 几点了 天气 天氣
아직 여전히 날씨 몇시예요 ยังเปิด ยังมี ถัดไป กี่โมงแล้ว อากาศ الطقس עדיין
"""
"""Such words of languages without spaces, or that join articles and particles to the word."""

_PERIOD = (
    "moment|minute|hour|morning|afternoon|evening|night|week|weekend|month|quarter|year|season|spring|summer|autumn|"
    "fall|winter|monday|tuesday|wednesday|thursday|friday|saturday|sunday|woche|wochenende|monat|"
    "jahr|montag|dienstag|mittwoch|donnerstag|freitag|samstag|sonntag|semaine|week end|mois|annee|"
    "lundi|mardi|mercredi|jeudi|vendredi|samedi|dimanche|semana|fin de semana|mes|ano|lunes|martes|"
    "miercoles|jueves|viernes|sabado|domingo|settimana|fine settimana|mese|anno|maand|jaar|vecka|"
    "helg|uke|uge|tyden|tyzden|vikend"
)
_RELATIVE = re.compile(
    rf" (?:this|next|last|past|coming|previous|dies\w{{0,2}}|nachste\w?|letzte\w?|kommende\w?|"
    rf"ce|cet|cette|la|este|esta|essa|questa|questo|quest|deze|dit|volgende|denna|denne|nasta|neste|tento)"
    rf" (?:very |few )?(?:{_PERIOD})s? "
    r"| (?:at|as of|by) this (?:time|point|second) "
    r"| in (?:an|half an|a few|\d+) (?:hour|minute)s? "
    r"| (?:is|are|do|does|has|have|will) (?:\S+ ){1,5}?(?:still|already|yet) "
    r"| (?:ist|sind|hat|habt|haben|gibt) (?:\S+ ){1,5}?noch "
    r"| (?:est|sont|a|ont|avez|reste|y) (?:\S+ ){1,4}?encore "
    r"| (?:e|sono|c|ci|avete|ha|hanno) (?:\S+ ){0,4}?ancora "
    r"| (?:is|zijn|heeft|hebben|hebt) (?:\S+ ){1,4}?nog "
    r"| (?:jest|sa|je|jsou|mate) (?:\S+ ){0,4}?(?:jeszcze|jeste|este) "
    r"| (?:еще|ще) (?:открыт|работа|есть|идет|доступн|відкрит|працю|є)"
    r"| (?:wann|wanneer|hoe laat|nar|hvornar|kiedy|ktorej|kdy|mikor|cand|milloin|kapan|когда|коли|"
    r"ποτε|متى|מתי) (?:\S+ ){0,5}?(?:nachst|volgende|nasta|næste|neste|nastepn|pristi|dalsi|"
    r"kovetkez|urmato|seuraava|berikutnya|следующ|наступн|επομεν|القادم|הבא)"
    r"| (?:अगला|अगली|अगले) (?:\S+ ){0,4}?कब | tiep theo (?:\S+ ){0,3}?(?:may gio|khi nao) "
    r"| (?:how (?:many|long|much|soon)|wie ?viele?|wie lange) (?:\S+ ){0,6}?"
    r"(?:until|till|til|left|before|since|remaining|away|bis|seit) "
    r"| what (?:s |is )?(?:the )?(?:day|date|time|month|year) (?:is |of )?(?:it|this|the) "
    r"| what (?:s |is )the (?:day|date|time|weather) "
    r"| (?:when|what time|how soon) (?:is|s|are|does|do|will) (?:\S+ ){0,4}?next "
    r"| (?:minutes|hours|days|weeks|nights|time) (?:left|remaining|to go) "
    r"| by (?:monday|tuesday|wednesday|thursday|friday|saturday|sunday) "
)
_NOT_FRENCH = frozenset(
    "der die das ist und ich ein eine nicht wie wo kann mit zu sind sie wir im den bitte klicken "
    "het een hoe ik kan van is er".split()
)
"""Words beside which `hier` is German or Dutch for "here", not French for "yesterday"."""


_LONGEST = 16_384
"""Most characters that are read, half of them at the end: folding them takes 5 ms."""

_ASCII = {code: " " for code in range(128) if not chr(code).isalnum()}


def _folded(text: str) -> str:
    """Return *text* in lower case, without accents and punctuation, with single spaces."""
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]} {text[-_LONGEST // 2 :]}"
    if text.isascii():
        return f" {' '.join(text.lower().translate(_ASCII).split())} "
    decomposed = unicodedata.normalize("NFKD", text.lower().replace("ı", "i"))
    kept: list[str] = []
    for sign in decomposed:
        kind = unicodedata.category(sign)
        if kind != "Mn":
            # vowel signs of Indic scripts are part of the word, but not alphanumeric to Python
            kept.append(sign if sign.isalnum() or kind == "Mc" else " ")
    return " " + " ".join(unicodedata.normalize("NFC", "".join(kept)).split()) + " "


def _words(text: str) -> tuple[frozenset[str], tuple[str, ...]]:
    """Return the single words of a list, and its phrases with a space on each side."""
    words: set[str] = set()
    phrases: list[str] = []
    for line in text.strip().splitlines():
        first, *others = line.split(",")
        words.update(_folded(first).split())
        phrases += [_folded(phrase) for phrase in others if phrase.strip()]
    return frozenset(words), tuple(phrases)


_DAY_WORDS, _DAY_PHRASES = _words(_DAYS)
_MOMENT_WORDS, _MOMENT_PHRASES = _words(_MOMENTS + _STATES)
_STEMS_FOLDED = tuple(_folded(_STEMS).split())
_UNSPACED_FOLDED = tuple(_folded(_UNSPACED).split())
_STATES_UNSPACED_FOLDED = tuple(_folded(_STATES_UNSPACED).split())


def names_a_day(text: str) -> bool:
    """Return whether *text*, a response, names a day relative to now."""
    return _names_a_day(_folded(text))


def of_other_days(text: str, other: str) -> bool:
    """Return whether both texts name a day, but none in common: today and tomorrow."""
    if text == other:
        return False
    days = set(_days_in(_folded(text)))
    return bool(days) and bool(others := set(_days_in(_folded(other)))) and days.isdisjoint(others)


def _names_a_day(folded: str) -> bool:
    return any(True for _ in _days_in(folded))


def _days_in(folded: str) -> Iterator[str]:
    """Yield the words and phrases of *folded* that name a day."""
    words = set(folded.split())
    found = words & _DAY_WORDS
    if found == {"hier"} and words & _NOT_FRENCH:
        found = set()
    yield from found
    yield from (phrase for phrase in _DAY_PHRASES if phrase in folded)
    if not folded.isascii():
        yield from (word for word in _UNSPACED_FOLDED if word in folded)


def ages(text: str) -> bool:
    """Return whether an answer to the message *text* is true for a day at most."""
    folded = _folded(text)
    words = folded.split()
    return (
        _names_a_day(folded)
        or not _MOMENT_WORDS.isdisjoint(words)
        or any(phrase in folded for phrase in (*_MOMENT_PHRASES, *_STATES_UNSPACED_FOLDED))
        or any(word.startswith(_STEMS_FOLDED) for word in words)
        or _RELATIVE.search(folded) is not None
    )


class Days:
    """Days of a time zone.

    Args:
        zone: An IANA name; `None` for this machine's zone.
    """

    def __init__(self, zone: str | None = None) -> None:
        self._zone = ZoneInfo(zone) if zone else None
        self._today = (0.0, 0.0)

    def begin(self, now: float) -> float:
        """Return the begin of the local day of *now*, in seconds since the epoch."""
        return self._midnight(now, 0)

    def end(self, now: float) -> float:
        """Return the end of the local day of *now*, in seconds since the epoch."""
        # every lookup asks, mostly on the same day
        begin, end = self._today
        if not begin <= now < end:
            end = self._midnight(now, 1)
            self._today = self._midnight(now, 0), end
        return end

    def _midnight(self, now: float, days: int) -> float:
        try:
            day: date = datetime.fromtimestamp(now, self._zone).date() + timedelta(days)
            return datetime.combine(day, time.min, self._zone).timestamp()
        except (ValueError, OverflowError, OSError):
            # a clock that far off has no calendar
            return (now // _DAY_SECONDS + days) * _DAY_SECONDS
