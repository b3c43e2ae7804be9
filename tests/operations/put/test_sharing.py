"""Sharing: which answers are shared, which are not, and limits on one user's writes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import pytest

from cache_core import MultiLevelCache
from cache_core.backends.base import RowWrite
from cache_core.config.tuning import Tuning
from cache_core.model.logs import RateLimited
from cache_core.model.values import Query
from cache_core.operations.promotion import Promotion, Vote
from cache_core.operations.put import scopes as sharing
from cache_core.operations.put.limits import WriteLimits
from cache_core.operations.put.personal import personal
from tests.support.caches import CacheFactory
from tests.support.patience import PATIENT
from tests.support.votes import age_votes, vote
from tests.support.waiting import until

# ------------------------------------------------------------------------------------- personal


@pytest.mark.parametrize(
    ("question", "answer", "kind"),
    [
        ("my mail is ann@example.org", "Noted.", "email"),
        ("What is my address?", "We write to ann.smith@example.org.", "email"),
        ("call me at +49 170 1234567", "We will.", "phone"),
        ("How will you reach me?", "On your mobile, +49 170 1234567.", "phone"),
        ("is 4111 1111 1111 1111 charged?", "Yes.", "card"),
        ("Which card?", "The one with 4111-1111-1111-1111.", "card"),
        ("Where does it go?", "To DE89 3704 0044 0532 0130 00.", "iban"),
        ("Where is order #48213?", "On its way.", "number"),
        ("Where is it?", "Your order number is 48213-77.", "number"),
        ("Wo ist meine Bestellung 4711-0815?", "Unterwegs.", "number"),
        ("Who am I?", "You are u-4711.", "user_id"),
        ("Who am I?", "You are Ann Smith, of course.", "name"),
    ],
)
def test_what_looks_personal(question: str, answer: str, kind: str) -> None:
    """Texts with something personal are recognised, with its kind."""
    assert personal(question, [answer], "u-4711", ["Ann Smith"]) == kind


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("How do I return something?", "Write to support@example.org within 30 days."),
        ("What is your phone number?", "+49 30 901820, Monday to Friday, 9:00-17:00."),
        ("What does it cost?", "1,299.00 EUR, or 12 payments of 119.99."),
        ("When was it founded?", "In 1987. In order 2024 onwards we grew."),
        ("Which models are there?", "The X-2000 and the 16-inch ZBook 8."),
        ("What are your opening hours?", "24/7, also on 2026-12-24."),
        ("How do I log in?", "As the user or as a guest."),
        ("How many customers do you have?", "More than 1,000,000,000."),
        ("What is 1234567890123456?", "A number of 16 digits."),
        ("How do I track an order?", "In your account, under orders."),
        ("Is there an account for students?", "Yes."),
    ],
)
def test_what_companies_publish_is_not_personal(question: str, answer: str) -> None:
    """Contact data and figures that companies publish are not personal."""
    assert personal(question, [answer], "guest", ["Ann Smith"]) is None


async def test_what_looks_personal_is_not_shared_by_policy(
    make_cache: CacheFactory, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays its user's, in every tier; counted, and the log says how to share it anyway."""
    monkeypatch.setattr(sharing, "log", RateLimited(logging.getLogger("glasscache")))
    cache: MultiLevelCache = await make_cache(settings=PATIENT, sharing="all")
    await cache.put("where is my order", "ann", "order 48213 left", "faq", [{"id": "d"}])
    mine = await cache.lookup("where is my order", "ann")
    theirs = await cache.lookup("where is my order", "bob")
    assert mine.response == "order 48213 left"
    assert (theirs.response, theirs.rag_results) == (None, None)
    assert (await cache.lookup("order my is where", "bob")).response is None
    assert cache.metrics.put_reasons == {(level, "personal"): 1 for level in ("l1", "l2", "l4")}
    assert "shared=True" in caplog.text
    assert "48213" not in caplog.text


async def test_the_developers_word_counts(make_cache: CacheFactory) -> None:
    """`shared=True`, an operator's answer, and the tuning that ends the check share all the same."""
    cache: MultiLevelCache = await make_cache(settings=PATIENT, sharing="all")
    await cache.put("forced", "ann", "order 48213", shared=True)
    await cache.warm_cache([("warmed", "ann", "order 48213")])
    await cache.tune({"personal": "share"}, author="ana")
    await cache.put("tuned", "ann", "order 48213")
    for message in ("forced", "warmed", "tuned"):
        assert await cache.get_multilevel(message, "bob") == "order 48213", message


async def test_without_a_user_what_looks_personal_is_not_stored(make_cache: CacheFactory) -> None:
    """A personal answer without a user is not stored."""
    cache: MultiLevelCache = await make_cache(settings=PATIENT, sharing="all")
    await cache.put("where is order 48213", None, "gone")
    assert await cache.get_multilevel("where is order 48213", "bob") is None


async def test_a_users_names_may_be_given(make_cache: CacheFactory) -> None:
    """An answer with one of the given names stays private."""
    cache: MultiLevelCache = await make_cache(settings=PATIENT, sharing="all")
    await cache.put("hello there", "ann", "Good morning, Ann Smith!", personal=("Ann Smith",))
    await cache.put("who are you", "ann", "Your assistant.", personal=("Ann Smith",))
    assert await cache.get_multilevel("hello there", "bob") is None
    assert await cache.get_multilevel("who are you", "bob") == "Your assistant."


# ------------------------------------------------------------------------------------ promotion


async def promoting(make_cache: CacheFactory, k: int = 3, **more: Any) -> MultiLevelCache:
    cache: MultiLevelCache = await make_cache(settings=PATIENT, sharing="auto", **more)
    await cache.tune({"promote_after": k}, author="ana")
    return cache


async def test_what_enough_users_got_becomes_everybodys(make_cache: CacheFactory) -> None:
    """By the k-th user, in L1 and L2; before that no other user gets it. It says why."""
    cache = await promoting(make_cache)
    for user in ("ann", "bob"):
        await vote(cache, "alpha beta", user, "answer")
        assert await cache.get_multilevel("alpha beta", "eve") is None
    await vote(cache, "alpha beta", "cid", "answer")
    assert (await cache.lookup("alpha beta", "eve")).tier == "l1"
    assert (await cache.lookup("beta alpha", "eve")).response == "answer"
    assert cache.metrics.put_reasons["l1", "promoted"] == 1
    (l1, *_) = await cache.explain("alpha beta", "eve")
    assert "promoted" in l1.detail
    await cache.tune({"sharing": "private"}, author="ana")
    assert await cache.get_multilevel("alpha beta", "eve") is None, "the policy can be undone"


async def test_only_auto_promotes(make_cache: CacheFactory) -> None:
    """Without `sharing="auto"` no answer is promoted, however many users got it."""
    cache: MultiLevelCache = await make_cache(settings=PATIENT)
    await cache.tune({"promote_after": 2}, author="ana")
    await vote(cache, "alpha", "ann bob cid", "answer")
    assert await cache.get_multilevel("alpha", "eve") is None


@pytest.mark.parametrize(
    ("users", "seconds"), [("ann bob cid dan", 0.0), ("ann bob cid dan", 900.0), ("ann bob", 9e3)]
)
async def test_a_burst_promotes_nothing(
    make_cache: CacheFactory, users: str, seconds: float
) -> None:
    """Votes that span less than an hour are not enough, nor are too few that span more."""
    cache = await promoting(make_cache)
    await vote(cache, "alpha", users, "answer", seconds)
    assert await cache.get_multilevel("alpha", "eve") is None


async def test_two_bursts_promote_nothing(make_cache: CacheFactory) -> None:
    """The votes come in as many parts of the hour as users are needed."""
    cache = await promoting(make_cache, 4)
    await vote(cache, "alpha", "ann bob cid", "answer", 0.0)
    await vote(cache, "alpha", "dan", "answer", 3_700.0)
    await vote(cache, "alpha", "fay gus", "answer", 0.0)
    assert await cache.get_multilevel("alpha", "eve") is None


async def test_a_crowd_is_a_crowd_in_every_part(make_cache: CacheFactory) -> None:
    """Many votes in a short time do not displace those of the time before."""
    cache = await promoting(make_cache, 2)
    await vote(cache, "alpha", "ann", "answer")
    await vote(cache, "alpha", " ".join(f"user{number}" for number in range(40)), "answer", 30.0)
    await vote(cache, "alpha", "bob", "answer", 3_600.0)
    assert await cache.get_multilevel("alpha", "eve") == "answer"


async def test_one_in_five_may_have_got_another(make_cache: CacheFactory) -> None:
    """Four users for each who got another answer promote it; three do not."""
    cache = await promoting(make_cache, 2)
    await vote(cache, "alpha", "eve", "other")
    await vote(cache, "alpha", "ann bob cid", "answer")
    assert await cache.get_multilevel("alpha", "fay") is None
    await vote(cache, "alpha", "dan", "answer")
    assert await cache.get_multilevel("alpha", "fay") == "answer"


@pytest.mark.parametrize(
    "against",
    [{"response": "another"}, {"response": "order 48213 left"}, {"response": "x", "shared": False},
     {"response": "answer", "intent": "mine"}, {"response": "answer", "answer_id": "other"}],
    ids=str,
)  # fmt: skip
async def test_dissent_takes_it_back(make_cache: CacheFactory, against: dict[str, Any]) -> None:
    """From every user, in every tier and replica; another, a personal or a private answer does.

    The putting user keeps their own answer, and it is counted.
    """
    cache = await promoting(make_cache, 2)
    other = await promoting(make_cache, 2)
    await cache.tune({"intent.mine.shared": False}, author="ana")
    await vote(cache, "alpha beta", "ann bob", "answer")
    for one in (cache, other):
        await until(lambda one=one: _got(one, "alpha beta", "eve", "answer"))
        await until(lambda one=one: _got(one, "beta alpha", "eve", "answer"))
    await other.put("alpha beta", "dan", **against)
    for one in (cache, other):
        await until(lambda one=one: _got(one, "alpha beta", "eve", None))
        await until(lambda one=one: _got(one, "beta alpha", "eve", None))
    assert await other.get_multilevel("alpha beta", "dan") == against["response"]
    assert other.metrics.put_reasons["l1", "withdrawn"] == 1
    await vote(cache, "alpha beta", "ann bob", "answer")
    assert await cache.get_multilevel("alpha beta", "eve") is None, "the dissent is remembered"


@pytest.mark.parametrize("mine", [{"shared": False}, {}], ids=["private", "other"])
async def test_dissent_counts_in_a_full_part(make_cache: CacheFactory, mine: Any) -> None:
    """However many votes were cast at the same time, those against the answer are recorded."""
    cache = await promoting(make_cache, 2)
    await vote(cache, "alpha", "ann bob", "answer")
    for user in ("cid", "dan", "fay"):
        await cache.put("alpha", user, "answer")
    assert await cache.get_multilevel("alpha", "eve") == "answer"
    for user in ("gus", "hal"):
        await cache.put("alpha", user, f"of {user}", **mine)
    assert await cache.get_multilevel("alpha", "eve") is None


async def test_private_answers_count_in_a_full_part(make_cache: CacheFactory) -> None:
    """A crowd that got the same is no sample of those who got a private answer beside it."""
    cache = await promoting(make_cache, 2)
    for user in ("ann", "bob", "cid", "dan"):
        await cache.put("alpha", user, "answer")
    for user in ("fay", "gus"):
        await cache.put("alpha", user, f"of {user}", shared=False)
    await vote(cache, "alpha", "hal", "answer")
    assert await cache.get_multilevel("alpha", "eve") is None


async def test_it_can_be_taken_back_as_long_as_it_is_kept(
    make_cache: CacheFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A promoted answer is recorded for the TTL of its intent, which may exceed that of votes."""
    cache = await promoting(make_cache, 2)
    await cache.tune({"intent.faq.l1_ttl": 864_000.0}, author="ana")
    store, lives = cache._parts.store, list[float]()
    put_rows = store.put_rows

    async def watched(writes: Sequence[RowWrite]) -> None:
        lives.extend(write.ttl or 0.0 for write in writes if "promoted" in write.rows)
        await put_rows(writes)

    for user in ("ann", "bob"):
        await age_votes(cache, "alpha")
        monkeypatch.setattr(store, "put_rows", watched)
        await cache.put("alpha", user, "answer", "faq")
        monkeypatch.undo()
    assert lives == [2 * 864_000.0]


@pytest.mark.parametrize("asked", ["alpha beta", "beta alpha"], ids=["l1", "l2"])
async def test_what_was_shared_on_purpose_is_not_replaced(
    make_cache: CacheFactory, asked: str
) -> None:
    """Neither by what enough users got instead, nor by the same answer, put again."""
    cache = await promoting(make_cache, 2)
    await cache.warm_cache([("alpha beta", None, "right")])
    await vote(cache, "alpha beta", "ann bob", "right")
    await cache.tune({"sharing": "private"}, author="ana")
    assert await cache.get_multilevel(asked, "eve") == "right"
    await cache.tune({"sharing": "auto"}, author="ana")
    await vote(cache, "alpha beta", "ann bob cid dan fay", "other")
    assert await cache.get_multilevel(asked, "eve") == "right"
    assert await cache.get_multilevel("alpha beta", "fay") == "other"


async def _got(cache: MultiLevelCache, message: str, user: str, answer: str | None) -> bool:
    return (await cache.lookup(message, user)).response == answer


async def test_dissent_while_it_is_promoted_takes_it_back(
    make_cache: CacheFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vote that arrives between the last vote for an answer and its storing still counts."""
    cache = await promoting(make_cache, 2)
    await vote(cache, "alpha", "ann", "answer")
    voted = Promotion.vote

    async def overtaken(self: Promotion, query: Query, *rest: Any) -> str:
        ballot = await voted(self, query, *rest)
        if query.user == cache._parts.keys.user("bob"):
            name = cache._parts.keys.votes(query)
            vote = Vote("-", "f" * 32, int(cache._parts.store.now()), rest[1])
            await cache._parts.store.put_rows([RowWrite(name, {"x": str(vote)}, 60.0)])
        return ballot

    monkeypatch.setattr(Promotion, "vote", overtaken)
    await vote(cache, "alpha", "bob", "answer", 3_600.0)
    assert await cache.get_multilevel("alpha", "eve") is None


@pytest.mark.parametrize("forget", ["forget_user", "invalidate_writer"])
async def test_it_goes_with_the_user_without_whom_it_would_not_be(
    make_cache: CacheFactory, forget: str
) -> None:
    """Without a voter too few are left: nobody gets it, until enough others got it again."""
    cache = await promoting(make_cache)
    await vote(cache, "alpha beta", "ann bob cid", "answer")
    await getattr(cache, forget)("ann")
    assert await cache.get_multilevel("alpha beta", "eve") is None
    assert await cache.get_multilevel("beta alpha", "eve") is None
    await vote(cache, "alpha beta", "bob cid dan", "answer")
    assert await cache.get_multilevel("alpha beta", "eve") == "answer"


async def test_it_stays_while_enough_others_got_it(make_cache: CacheFactory) -> None:
    """A voter who is forgotten takes nothing from others, if they are enough."""
    cache = await promoting(make_cache, 2)
    await vote(cache, "alpha", "ann bob cid", "answer")
    await cache.forget_user("bob")
    assert await cache.get_multilevel("alpha", "eve") == "answer"


@pytest.mark.parametrize("label", ["document", "tag"])
async def test_votes_go_with_the_answer(make_cache: CacheFactory, label: str) -> None:
    """An invalidated document or tag takes the promoted answer, and the votes for it."""
    cache = await promoting(make_cache, 2)
    more: dict[str, Any] = {"document_ids": ["x"]} if label == "document" else {"tags": ["x"]}
    for user in ("ann", "bob"):
        await cache.put("alpha", user, "answer", **more)
        await age_votes(cache, "alpha")
    await cache.put("alpha", "cid", "answer", **more)
    assert await cache.get_multilevel("alpha", "eve") == "answer"
    await getattr(cache, f"invalidate_{label}")("x")
    await cache.put("alpha", "dan", "newer")
    assert await cache.get_multilevel("alpha", "eve") is None
    assert cache.metrics.put_reasons["l1", "withdrawn"] == 0


async def test_answers_in_a_conversation_are_not_promoted(make_cache: CacheFactory) -> None:
    """An answer that depends on earlier turns stays its user's."""
    cache = await promoting(make_cache, 2)
    await vote(cache, "alpha", "ann bob cid", "same", history=["before"])
    assert await cache.get_multilevel("alpha", "eve", history=["before"]) is None


async def test_an_intent_declared_private_is_not_promoted(make_cache: CacheFactory) -> None:
    """Not while it is declared private, and no longer once it is."""
    cache = await promoting(make_cache, 2)
    for user in ("ann", "bob"):
        await cache.put("alpha", user, "answer", "orders")
        await age_votes(cache, "alpha")
    await cache.put("alpha", "cid", "answer", "orders")
    assert await cache.get_multilevel("alpha", "eve") == "answer"
    await cache.tune({"intent.orders.shared": False}, author="ana")
    assert await cache.get_multilevel("alpha", "eve") is None


async def test_a_clock_that_jumps_promotes_nothing(make_cache: CacheFactory) -> None:
    """Neither one jump forward nor votes from the future make up for the hour."""
    cache = await promoting(make_cache)
    await vote(cache, "alpha", "ann bob", "answer", 0.0)
    await vote(cache, "alpha", "cid dan", "answer", -7_200.0)
    assert await cache.get_multilevel("alpha", "eve") is None


async def test_a_free_intent_is_not_promoted_with_its_answer(make_cache: CacheFactory) -> None:
    """A free text as intent stays its user's, even when their vote shares the answer."""
    cache = await promoting(make_cache, 2)
    await cache.put("alpha beta", "ann", "same", "faq")
    await age_votes(cache, "alpha beta")
    await cache.put("alpha beta", "bob", "same", "a divorce, he says")
    for message in ("alpha beta", "beta alpha"):
        result = await cache.lookup(message, "carl")
        assert (result.response, result.intent) == ("same", None)
    assert (await cache.lookup("alpha beta", "bob")).intent is None


@pytest.mark.parametrize(
    "document",
    ["Customer:\nu-4711", "Dear\nAnn Smith", "Card:\n4111 1111 1111 1111", {"order_id": "48213"},
     {"a": [{"order": 48213}]}],
)  # fmt: skip
async def test_documents_are_read_as_they_are(make_cache: CacheFactory, document: Any) -> None:
    """A line break before it, or a field around it, hides nothing that is personal."""
    cache = await make_cache(settings=PATIENT, sharing="all")
    await cache.put("alpha", "u-4711", "r", None, [document], personal=["Ann Smith"])
    found = await cache.lookup("alpha", "bob")
    assert (found.response, found.rag_results) == (None, None)


async def test_nobody_promotes_alone(make_cache: CacheFactory) -> None:
    """However often one user puts, from however many tasks, they have one vote; and only theirs."""
    cache = await promoting(make_cache, 2)
    await asyncio.gather(*(cache.put("alpha", "eve", "poison") for _ in range(20)))
    await cache.put("alpha", "eve", "other")
    await vote(cache, "alpha", "eve", "poison")
    await vote(cache, "alpha", "ann", "right")
    await cache.put("alpha", None, "poison")
    assert await cache.get_multilevel("alpha", "bob") is None
    await vote(cache, "alpha", "cid dan fay", "right")
    assert await cache.get_multilevel("alpha", "bob") == "right"
    assert await cache.get_multilevel("alpha", "eve") == "poison", "their own stays theirs"


async def test_spellings_of_one_id_have_one_vote(make_cache: CacheFactory) -> None:
    """Case, width, outer space and what is invisible make no second voter; another id does."""
    cache = await promoting(make_cache, 2)
    for user in ("Ann@shop", "ann@shop", " ann@shop ", "\uff41nn@shop", "ann\u200b@shop\ufe0f"):
        await cache.put("alpha", user, "answer")
        await age_votes(cache, "alpha")
        assert await cache.get_multilevel("alpha", "eve") is None
    assert (await cache.forget_user("Ann@shop")).counts["votes"] == 1
    await vote(cache, "alpha", "bob", "answer")
    assert await cache.get_multilevel("alpha", "eve") is None
    await vote(cache, "alpha", "cid", "answer", 3_600.0)
    assert await cache.get_multilevel("alpha", "eve") == "answer"


async def test_a_vote_under_way_is_erased_with_its_user(
    make_cache: CacheFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vote that arrives after its user was erased is not counted for the next one."""
    cache = await promoting(make_cache, 2)
    voted = Promotion.vote

    async def late(self: Promotion, query: Query, *rest: Any) -> str:
        if query.user == cache._parts.keys.user("ann"):
            assert (await cache.forget_user("ann")).complete
        return await voted(self, query, *rest)

    monkeypatch.setattr(Promotion, "vote", late)
    await vote(cache, "alpha", "ann bob", "answer", 3_600.0)
    assert await cache.get_multilevel("alpha", "eve") is None


@pytest.mark.parametrize(
    "differs",
    [
        {"context": "x"},
        {"history": ["a"]},
        {"response": "another"},
        {"shared": False},
        {"answer_id": "x"},
    ],
    ids=str,
)
async def test_only_the_same_counts(make_cache: CacheFactory, differs: dict[str, Any]) -> None:
    """Another context, history or response is another vote; who says private is not counted."""
    cache = await promoting(make_cache, 2)
    await cache.put("alpha", "ann", "answer")
    await age_votes(cache, "alpha")
    await cache.put("alpha", "bob", **{"response": "answer", **differs})
    where = {name: value for name, value in differs.items() if name in {"context", "history"}}
    assert await cache.get_multilevel("alpha", "eve") is None
    assert await cache.get_multilevel("alpha", "eve", **where) is None


async def test_votes_end(make_cache: CacheFactory) -> None:
    """With an invalidation, with forget_user, and what looks personal is none."""
    cache = await promoting(make_cache, 2)
    await cache.put("alpha", "ann", "answer")
    await cache.invalidate("alpha")
    await vote(cache, "alpha", "bob", "answer", 3_600.0)
    assert await cache.get_multilevel("alpha", "eve") is None
    assert (await cache.forget_user("bob")).counts["votes"] == 1
    await vote(cache, "alpha", "cid", "answer", 3_600.0)
    assert await cache.get_multilevel("alpha", "eve") is None
    await vote(cache, "where is it", "ann bob cid", "order 48213 left", 3_600.0)
    assert await cache.get_multilevel("where is it", "eve") is None


def test_one_user_is_no_crowd() -> None:
    """`promote_after` below 2 is rejected."""
    with pytest.raises(ValueError, match="2 or more"):
        Tuning(promote_after=1)


# --------------------------------------------------------------------------------------- limits


def test_a_bucket_is_a_minutes_worth_and_refills() -> None:
    """Limits allow a minute's worth at most, per user, and refill with time."""
    now = 0.0
    limits = WriteLimits(lambda: now)
    tuning = Tuning(puts_per_minute=10, shared_puts_per_minute=4)
    assert [limits.take("ann", tuning, shared=True) for _ in range(6)] == [True] * 4 + [False] * 2
    assert [limits.take("ann", tuning, shared=False) for _ in range(5)] == [True] * 4 + [False]
    assert limits.take("bob", tuning, shared=True)
    assert all(limits.take(None, tuning, shared=True) for _ in range(50))
    now = 15.0
    assert [limits.take("ann", tuning, shared=True) for _ in range(2)] == [True, False]


async def test_who_writes_too_much_is_not_stored(make_cache: CacheFactory) -> None:
    """Beyond the limit nothing is stored, and it is counted; others and operators go on."""
    cache: MultiLevelCache = await make_cache(settings=PATIENT)
    await cache.tune({"shared_puts_per_minute": 3}, author="ana")
    for number in range(5):
        await cache.put(f"question {number}", "eve", "poison", shared=True)
    found = [await cache.get_multilevel(f"question {number}", "ann") for number in range(5)]
    assert found == ["poison"] * 3 + [None] * 2
    assert cache.metrics.put_reasons["l1", "rate_limited"] == 2
    await cache.put("hers", "eve", "private")
    assert await cache.get_multilevel("hers", "eve") == "private"
    await cache.put("question 4", "ann", "right", shared=True)
    assert await cache.get_multilevel("question 4", "bob") == "right"
    warmed = [(f"warm {number}", "eve", "operator's") for number in range(9)]
    assert await cache.warm_cache(warmed) == 9


# ------------------------------------------------------------------------------------ provenance


@pytest.mark.slow
async def test_all_that_a_writer_stored_can_be_taken_back(make_cache: CacheFactory) -> None:
    """Shared and private, on every replica; other writers' answers to other messages stay."""
    one: MultiLevelCache = await make_cache(settings=PATIENT)
    other: MultiLevelCache = await make_cache(settings=PATIENT)
    await one.put("alpha beta", "eve", "poison", "faq", [{"id": "d"}], shared=True)
    await one.put("gamma delta", "eve", "private poison")
    await one.put("epsilon zeta", "ann", "right", shared=True)

    async def arrived() -> bool:
        found = [await other.lookup(asked, "bob") for asked in ("beta alpha", "zeta epsilon")]
        return [one.response for one in found] == ["poison", "right"]

    await until(arrived)
    counted = await other.invalidate_writer("eve", dry_run=True)
    assert counted.removed > 0
    done = await other.invalidate_writer("eve")
    assert done.complete
    assert done.counts["private entries"] == 2
    for cache in (one, other):
        for message in ("alpha beta", "beta alpha", "gamma delta", "delta gamma"):
            for user in ("bob", "eve"):

                async def erased(asked: Any = (cache, message, user)) -> bool:
                    found = await asked[0].lookup(*asked[1:])
                    return (found.response, found.rag_results) == (None, None)

                await until(erased)
        assert (await cache.lookup("epsilon zeta", "bob")).response == "right"
        assert (await cache.lookup("zeta epsilon", "bob")).response == "right"


@pytest.mark.parametrize("sharing", ["all", "intents"])
@pytest.mark.parametrize("asked", ["alpha beta", "beta alpha"], ids=["l1", "l2"])
async def test_sharing_by_policy_can_be_undone(
    make_cache: CacheFactory, sharing: Any, asked: str
) -> None:
    """Others get an answer shared by policy only while it does; one shared on purpose stays."""
    cache: MultiLevelCache = await make_cache(
        sharing=sharing, shared_intents=("greet",) if sharing == "intents" else (), settings=PATIENT
    )
    await cache.put("alpha beta", "ann", "by policy", intent="greet", rag_results=["document"])
    await cache.put("gamma delta", "ann", "on purpose", intent="greet", shared=True)
    await cache.warm_cache([("epsilon zeta", "ann", "warm")], intent="greet")
    assert (await cache.lookup(asked, "ben")).response == "by policy"
    await cache.tune({"sharing": "private"}, author="test")
    withdrawn = await cache.lookup(asked, "ben")
    assert (withdrawn.response, withdrawn.rag_results) == (None, None)
    assert "other_scope" in withdrawn.reasons
    assert (await cache.lookup(asked)).response is None
    assert (await cache.lookup(asked, "ann")).response == "by policy"
    assert (await cache.lookup("gamma delta", "ben")).response == "on purpose"
    assert (await cache.lookup("delta gamma", "ben")).response == "on purpose"
    assert (await cache.lookup("zeta epsilon", "ben")).response == "warm"
    await cache.tune({"intent.greet.shared": True}, author="test")
    assert (await cache.lookup(asked, "ben")).response == "by policy"
