"""The guard for what two texts must agree in to the letter, and what it lets pass."""

from __future__ import annotations

import string
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_core import MultiLevelCache
from cache_core.backends.embedder.pool import ThreadEmbedder
from cache_core.testing import RecordingInstrument
from cache_core.tiers.guards.letters import agree
from tests.support.caches import CacheFactory
from tests.support.patience import PATIENT

SIMILAR_ONLY = {**PATIENT, "tiers": frozenset({"l2"})}

APART = [
    # Flags, ids, hashes, keys, coupons
    ("explain chmod -r", "explain chmod -R"),
    ("what does curl -o do", "what does curl -O do"),
    ("run tar with -x", "run tar without it"),
    ("which commit is aBc1234", "which commit is abc1234"),
    ("status of product ab-12", "status of product AB-12"),
    ("my coupon is Save10", "my coupon is SAVE10"),
    ("key QWERTYUI works", "key qwertyui works"),
    ("flight LH400 today", "flight lh400 today"),
    ("gate A5", "gate a5"),
    ("what does && do", "what does || do"),
    ("decode dGVzdA== please", "decode dgvzda== please"),
    # URLs, paths, addresses, files, versions, names in code
    ("open https://sho.rt/Xy7Q", "open https://sho.rt/xy7q"),
    ("mail ann@x.org", "mail Ann@x.org"),
    ("open README.md", "open readme.md"),
    ("is v1.2.3 out", "is v1.2.4 out"),
    ("rename a.txt to b.txt", "rename b.txt to a.txt"),
    ("is src/App there", "is src/app there"),
    ("is $HOME set", "is $home set"),
    ("ask @Bob", "ask @bob"),
    ("call getUser now", "call getuser now"),
    ("what is f(X)", "what is f(x)"),
    ("run `ls -l`", "run `ls -L`"),
    ("git add .", "git add"),
    ("cd ..", "cd ."),
    # Units, single letters, words that are others in capitals
    ("is a 5 mW laser safe", "is a 5 MW laser safe"),
    ("is a 500mW laser safe", "is a 500MW laser safe"),
    ("is 100 Mb enough", "is 100 MB enough"),
    ("wait 5 S", "wait 5 s"),
    ("what is the ASCII code of a", "what is the ASCII code of A"),
    ("who made C", "who made c"),
    ("should I take plan B", "should I take a plan"),
    ("Do you ship to us?", "Do you ship to US?"),
    ("who is responsible for it?", "who is responsible for IT?"),
    ("what helps against aids?", "what helps against AIDS?"),
    ("translate to German: polish", "translate to German: Polish"),
    ("is turkey safe", "is Turkey safe"),
    ("how was march", "how was March"),
    ("what is the pH of it", "what is the PH of it"),
    # Signs
    ("simplify 5!", "simplify 5"),
    ("what is n!", "what is n!!"),
    ("rate the move Nf3!", "rate the move Nf3?"),
    ("explain the regex a.*?", "explain the regex a.*"),
    ("is a ≠ b true", "is a = b true"),
    ("is a ∉ B", "is a ∈ B"),
    ("does a ⊄ b hold", "does a ⊂ b hold"),
    ("x * y is", "x + y is"),
    ("jobs for C++", "jobs for C"),
    ("jobs for C#", "jobs for C"),
    ("prices in € today", "prices in ¥ today"),
    # Marks, forms, signs that nobody sees
    ("my résumé", "my resume"),
    ("is x̂ the estimator", "is x̄ the estimator"),
    ("años", "anos"),
    ("Maße", "Masse"),
    ("laska", "łaska"),
    ("バス", "パス"),
    ("मेल कब", "मल कब"),
    ("سَلَام", "سِلَام"),
    ("is x² right", "is x2 right"),
    ("ﬁne", "fine"),
    ("５", "5"),
    ("a\u200bb", "ab"),
    ("sign \ue001", "sign \ue002"),
    ("\u202eabc", "abc"),
    ("a\x00b", "ab"),
    # Names
    ("do I need a visa for Niger", "do I need a visa for Nigeria"),
    ("do i need a visa for austria", "do i need a visa for australia"),
    ("Is Turkey in the network?", "Is Jersey in the network?"),
    ("How much is the Starter plan?", "How much is the Team plan?"),
    ("when does Anna's shift end", "when does Anne's shift end"),
    ("is Sudan safe to travel to", "is South Sudan safe to travel to"),
    ("does the Pixel 8 have a slot", "does the Pixel 8 Pro have a slot"),
    ("is Notion free for schools", "is Notion Calendar free for schools"),
    ("Amazon takes how long?", "Amazon Prime takes how long?"),
    # Layout
    ("ok?\nif a:\n    b()\n    c()", "ok?\nif a:\n    b()\nc()"),
    ("a:\n  b\n  c", "a:\n  b\nc"),
    ("rows 1 2\n3 4", "rows 1\n2 3 4"),
    ("columns a\tb c", "columns a b\tc"),
    ("one\ntwo", "one two"),
    # Quotations
    ("fix this text: I am here.", "fix this text: i am here"),
    ("translate: You are ready!", "translate: You are ready"),
    ("is 'a  b' right", "is 'a b' right"),
    ('define "Bank"', 'define "bank"'),
    ("what does “cancel” mean", "what does cancel mean"),
]

TOGETHER = [
    ("Hello, Hi, Please tell me the price", "Hello, please tell me the price"),
    ("Hello Support Team, is Kenya included?", "Is Kenya included?"),
    ("Is the flight to Oslo on Monday late?", "Is the flight to Oslo late?"),
    ("Do I reset my Account Password here?", "Do I reset my account Password here?"),
    ("When do you open on New Year's Day?", "Are you open on New Year's Day?"),
    ("Is Anna's flight late?", "Is the flight of Anna late?"),
    ("Do you deliver to Kenya?", "Do you ship to Kenya?"),
    ("I think I've paid", "I think I'm done paying"),
    ("Is it shut in January?", "Is it shut in Jan?"),
    ("Wann kommt meine Lieferung?", "Wann kommt mein Paket?"),
    ("How do I reset my PIN?", "how do i reset my pin"),
    ("WHERE IS MY ORDER", "where is my order?"),
    ("I want a refund!!", "i want a refund"),
    ("How Do I Cancel My Order", "how do i cancel my order"),
    ("Can I pay with Google Pay?", "can i pay with google pay"),
    ("what’s my balance", "what's my balance"),
    ("Can I pay with PayPal?", "can I pay with paypal"),
    ("Does the iPhone have a slot?", "does the iphone have a slot"),
    ("hello ,  where is  my order ?", "Hello, where is my order?"),
    ("Is it open on Monday", "is it open on monday"),
    ("please,cancel my order", "please, cancel my order"),
    ("Do you ship to the USA?", "do you ship to the usa"),
    ("open at 10am", "open at 10AM"),
    ("8 a.m. today", "8 am today"),
    ("on the 1st", "on the 1ST"),
    ("Where is it (my order)", "where is it my order"),
    ("wait...what is it", "wait, what is it"),
    ("Can I get a T-shirt", "can i get a t-shirt"),
    ("the ATMs nearby", "the atms nearby"),
    ("My E-mail is wrong", "my e-mail is wrong"),
    ("Tell me: where is my order", "tell me where is my order"),
    ("does it run on Windows 11", "does it run on windows 11"),
    ("Thanks - where is it", "Thanks, where is it"),
    ("terms & conditions", "terms and conditions"),
    ("Is Netflix included", "is netflix included"),
    ("ok. where is it", "Ok. Where is it"),
    ("\n Where is it \n", "where is it"),
    ("cancel order #123", "cancel order 123"),
    ("is it 5 GB", "is it 5GB"),
    ("at 20 °C", "at 20°C"),
    ("at 20 °C", "at 20 degrees"),
    ("60 m2 is enough", "60 m² is enough"),
    ("50 Mbit/s line", "50 Mbps line"),
    ("open 9am-5pm", "open 9am to 5pm"),
    ("a 5-day trip", "a five day trip"),
    ("costs $5M", "costs 5 million dollars"),
    ("a ½ cup", "half a cup"),
    ("pay $ 5", "pay $5"),
    ("cafe\u0301 nearby", "caf\u00e9 nearby"),
    ("where is\u00a0it", "where is it"),
    ("What is the refund policy?", "how do refunds work"),
    ("costs 30 dollars", "costs $30"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "two"), APART)
def test_what_matters_to_the_letter_keeps_texts_apart(one: str, two: str) -> None:
    """Codes, case that means something, signs, marks, layout and quotations must be the same."""
    assert not agree(one, two)
    assert not agree(two, one)


@pytest.mark.parametrize(("one", "two"), TOGETHER)
def test_what_customers_type_differently_passes(one: str, two: str) -> None:
    """Capitals that say nothing, spaces, final signs and typeset signs are harmless."""
    assert agree(one, two)
    assert agree(two, one)


_CODE = st.text(string.ascii_letters + string.digits, min_size=6, max_size=12).filter(
    lambda code: any(map(str.isdigit, code)) and any(map(str.isalpha, code[1:-1]))
    and not code[: len(code.rstrip(string.ascii_letters))].isdigit()
)  # fmt: skip


@given(_CODE, st.sampled_from(["which order is {}", "open https://x.org/{} now", "is {}.txt new?"]))
@settings(max_examples=60)
def test_a_code_in_other_case_is_another_code(code: str, frame: str) -> None:
    """Whatever letters and digits a code has, case is part of it."""
    assert agree(frame.format(code), frame.format(code))
    assert not agree(frame.format(code), frame.format(code.swapcase()))


@given(st.lists(st.sampled_from("where is my order please cancel it now".split()), min_size=3))
@settings(max_examples=60)
def test_a_plain_sentence_meets_its_variants(words: list[str]) -> None:
    """Case of all words, an initial capital, spaces and the final sign change no plain sentence."""
    text = " ".join(words)
    for variant in (text.upper(), text.capitalize(), text + "?", text + " !", "  ".join(words)):
        assert agree(text, variant)


@pytest.mark.parametrize(
    "text",
    ["«" * 30_000, "'a" * 15_000, ": a" * 10_000, "(" * 30_000 + "!", "a" * 30_000 + "\ue001",
     "1," * 15_000, "\t a" * 10_000, "a" + "\u0301" * 30_000],
)  # fmt: skip
def test_no_text_takes_long(text: str) -> None:
    """The longest message is compared in well under two seconds, whatever it consists of."""
    started = time.thread_time()
    agree(text, text + " b")
    assert time.thread_time() - started < 2


BLIND = [
    ("what does the option -v mean here", "what does the option -V mean here"),
    ("Do you ship to us?", "Do you ship to US?"),
    ("update the exposé", "update the expose"),
    ("what does a\u200bb mean", "what does ab mean"),
    ("is a ≠ b true", "is a = b true"),
    ("is this right?\nif a:\n    b()\n    c()", "is this right?\nif a:\n    b()\nc()"),
    ("what does the sign \ue001 mean", "what does the sign \ue002 mean"),
]


async def test_what_the_model_cannot_tell_apart_is_vetoed(
    make_cache: CacheFactory, real_embedder: ThreadEmbedder
) -> None:
    """Texts with the same vector and other letters get no answer, shared or private."""
    cache: MultiLevelCache = await make_cache(embedding_model=real_embedder, settings=SIMILAR_ONLY)
    await cache.ready()
    for stored, _ in BLIND:
        await cache.put(stored, "ann", "answer", shared=True)
        await cache.put(stored, "bob", "answer", shared=False)
    for _, asked in BLIND:
        for user in ("bob", "carl"):
            found = await cache.lookup(asked, user)
            assert found.response is None, asked
            assert found.reasons[-1] in {"guard_veto", "unreadable"}, asked


async def test_the_guard_has_a_name_and_can_be_switched_off_live(
    make_cache: CacheFactory, real_embedder: ThreadEmbedder
) -> None:
    """It is named by explain and counted under its name; without it the answer is served."""
    watch = RecordingInstrument()
    cache: MultiLevelCache = await make_cache(
        embedding_model=real_embedder, settings=SIMILAR_ONLY, instruments=[watch]
    )
    await cache.ready()
    await cache.put("Do you ship to us?", "ann", "answer", shared=True)
    asked = "Do you ship to US?"
    await cache.lookup(asked, "bob")
    assert {part.guard for call in watch.of("lookup") for part in call.calls} == {"letters"}
    said = {item.level: item.detail for item in await cache.explain(asked, "bob")}
    assert "'letters'" in said["l2"]
    without = [name for name in cache.tuning.guards if name != "letters"]
    await cache.tune({"guards": without}, author="ann")
    assert (await cache.lookup(asked, "bob")).response == "answer"


async def test_an_invalidation_takes_the_variants_that_the_guard_keeps_apart(
    make_cache: CacheFactory, real_embedder: ThreadEmbedder
) -> None:
    """Finding too much is harmless there, and missing one would serve it on."""
    cache: MultiLevelCache = await make_cache(embedding_model=real_embedder, settings=SIMILAR_ONLY)
    await cache.ready()
    await cache.put("what does the option -V mean", "ann", "answer", shared=True)
    await cache.put("what does the option -V mean", "bob", "answer", shared=False)
    await cache.invalidate("what does the option -v mean")
    for user in ("ann", "bob"):
        assert (await cache.lookup("what does the option -V mean", user)).response is None
