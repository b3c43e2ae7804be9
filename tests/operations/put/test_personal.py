"""Personal data is recognised in any spelling, and what companies publish is not."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, defaultdict
from typing import Any

import pytest

from cache_core.model.values import Entry
from cache_core.operations.put.personal import LONGEST, personal
from cache_core.operations.put.personal.folded import fold, has_word
from cache_core.operations.put.scopes import _texts
from tests.support.caches import CacheFactory
from tests.support.personal_rates import cases, taken_wrongly, without_libphonenumber
from tests.support.personal_texts import PUBLIC, phones

ORDINARY = "The shop is open from 9 to 18 and has 120 kinds of tea, for 4.50 each.\n"


@pytest.mark.slow
def test_every_kind_is_seen_in_every_spelling_and_language() -> None:
    """All but mobile numbers in an answer that says nothing of them: of these 85 in 100."""
    missed = defaultdict(list)
    total: Counter[str] = Counter()
    for case in cases():
        total[case.kind] += 1
        if not case.found:
            missed[case.kind].append(case.text)
    alone = missed.pop("phone, answered alone", [])
    assert sum(map(len, missed.values())) <= 2, dict(missed)
    assert len(alone) <= 0.15 * total["phone, answered alone"], alone
    assert total["number"] > 1_000


def test_what_companies_publish_can_be_shared() -> None:
    """At most two of 149 ordinary answers with numbers, addresses and hours are withheld."""
    assert len(PUBLIC) >= 140
    assert len(taken_wrongly()) <= 2, taken_wrongly()


@pytest.mark.slow
def test_without_libphonenumber_the_check_is_stricter() -> None:
    """All that the exact check finds is found without it, and every mobile number in an answer."""
    exact = [case for case in cases() if case.found]
    with without_libphonenumber():
        assert [case.text for case in exact if not case.found] == []
        missed = [phone for _, phone in phones() if personal("q", [f"We have {phone}."]) is None]
        held = taken_wrongly()
    # one block of digits in an answer is more often an article's or an amount
    assert all(phone.isdigit() and not phone.startswith("0") for phone in missed), missed
    assert len(held) <= 15, held


@pytest.mark.parametrize("text", ["電話は090-1234-5678です", "电话是13812345678"])
def test_a_phone_right_after_a_word_of_a_language_without_spaces(text: str) -> None:
    """Letters of such a language before the digits belong to another word."""
    assert personal(text, ["Yes."]) == "phone"


@pytest.mark.parametrize(
    "text", ["+1234567", "+123456789012345", "+49 (30) 901-820", "0171 234567"]
)
def test_without_libphonenumber_what_looks_like_a_phone_number_is_one(text: str) -> None:
    """A plus and 7 to 15 digits, or a leading 0, are enough, in the question and in the answer."""
    with without_libphonenumber():
        assert personal(f"please note {text} as mine", ["noted"]) == "phone"
        assert personal("q", [f"Call {text}."]) == "phone"


@pytest.mark.slow
def test_without_libphonenumber_no_random_number_passes_that_would_be_found_with_it() -> None:
    """Every one of 600 random groupings of digits that the exact check finds is found."""
    chosen = random.Random(11)
    texts = []
    for _ in range(600):
        groups = [chosen.randint(1, 5) for _ in range(chosen.randint(1, 5))]
        digits = ["".join(chosen.choices("0123456789", k=size)) for size in groups]
        start = chosen.choice(["", "", "0", "00", "+", "+49 ", "+65 ", "("])
        texts.append(start + chosen.choice([" ", "-", "."]).join(digits))
    found = [(asked, text) for text in texts for asked in (True, False) if _is_found(text, asked)]
    assert len(found) > 40
    with without_libphonenumber():
        assert [text for asked, text in found if not _is_found(text, asked)] == []


def _is_found(number: str, asked: bool) -> bool:
    asks, answers = (f"note {number} please", "Yes.") if asked else ("q", f"We have {number} here")
    return personal(asks, [answers]) is not None


@pytest.mark.parametrize(
    ("text", "names", "user"),
    [
        ("Hello O’Brien!", ["O'Brien"], None), ("Hello O'Brien!", ["O’Brien"], None),
        ("Hello Jose\u0301!", ["José"], None), ("Hello José!", ["Jose\u0301"], None),
        ("HELLO JOSÉ!", ["josé"], None), ("You are _alice_.", [], "alice"),
        ("see alice_profile", [], "alice"), ("https://shop.test/u/ALICE", [], "alice"),
        ("**alice**", [], "alice"), ("您好王小明先生", ["王小明"], None), ("Ｊｏｓé", ["José"], None),
        ("Guten Tag, Frau Groß", ["GROSS"], None), ("you are ann@lee#7", [], "ann@lee#7"),
        ("x" * 20_001 + " Ann Smith", ["Ann Smith"], None),
    ],
)  # fmt: skip
def test_the_user_is_found_in_every_spelling(text: str, names: list[str], user: str | None) -> None:
    """Accents, case, typographic marks and Markdown do not hide a name or an id."""
    assert personal("who am I", [text], user, names) in {"name", "user_id", "email"}


def test_a_name_within_a_word_is_none() -> None:
    """Ann is not in annual, and ids of three characters are not looked for."""
    assert personal("who", ["The annual fee is due."], "u12", ["Ann"]) is None
    assert not has_word("annual", "ann")
    assert has_word("ann, ann", "ann")


@pytest.mark.slow
def test_all_of_a_text_is_looked_at() -> None:
    """Personal data at the end of a text, or across two searched pieces, is recognised."""
    for before in (0, 15_980, 15_995, 20_001, 300_000):
        text = (ORDINARY * (before // len(ORDINARY) + 1))[:before]
        assert personal("q", [text + " write to ann.lee@example.com"]) == "email", before
        assert personal("q", [text + " order 48213 ships"]) == "number", before
    assert personal("q", ["x" * LONGEST]) == "length"


def test_documents_are_looked_at_with_their_names() -> None:
    """A number in a document is known by the names of its fields, the outer ones included."""
    for document in (
        {"order": 48213}, {"order": {"id": 48213}}, [{"orders": {"order_no": "48213"}}],
        {"data": {"invoice": {"reference": "48213"}}},
    ):  # fmt: skip
        assert personal("q", _texts(Entry(rag_results=[document]))) == "number", document
    article = {"id": "kb-48213", "source": "kb/returns.md", "score": 0.98765432, "page": 1234567}
    assert personal("q", _texts(Entry(rag_results=[article]))) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "unit",
    ["1 " + "a" * 500, "+12345678 ", "0171 234567 ", "order 12 ", "a@", "-", "4111 ", "de12", "ü1 ",
     "| 1 ", "#", "(", "1.", "born ", "<b ", "订单"],
)  # fmt: skip
def test_it_takes_a_time_that_is_linear(unit: str) -> None:
    """Twice as long a text takes at most about twice as long, whatever it is of."""

    def seconds(length: int) -> float:
        text = (unit * (length // len(unit) + 1))[:length] + "!"
        found = []
        for _ in range(3):
            start = time.thread_time()
            personal("q", [text])
            found.append(time.thread_time() - start)
        return min(found)

    seconds(2_000)
    one, four = seconds(8_000), seconds(32_000)
    assert four < 12 * max(one, 0.002)


@pytest.mark.parametrize("store_kind", ["embedded"])
async def test_the_event_loop_goes_on_meanwhile(make_cache: CacheFactory, store_kind: str) -> None:
    """A put with long documents under a sharing rule is checked in a thread."""
    cache = await make_cache(sharing="all", settings={"tiers": frozenset({"l1", "l4"})})
    await cache.put("first", "ann", "call 0171 2345678")
    text = "".join(f"017{n:02d} {n:07d} and 12 of 30 " for n in range(2_000))
    turns = 0

    async def watch() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.001)
            turns += 1

    watching = asyncio.create_task(watch())
    document: dict[str, Any] = {"id": "d", "text": ORDINARY * 2_000 + text}
    await cache.put("second", "ann", "yes", None, [document])
    watching.cancel()
    # On the loop there would be a turn or two: one at each await of the put.
    assert turns >= 6


def test_folding_leaves_ordinary_text() -> None:
    """Folding changes case, width, marks and digits of ordinary text, and nothing else."""
    assert fold("Straße, ÉCOLE, ４２, Ⅷ, «x»") == 'strasse, ecole, 42, viii, "x"'
    assert fold("a\u200bb\u00adc\ufe0f") == "abc"
    assert fold("٤٢ ४२ – ‑ ﹘") == "42 42 - - -"
