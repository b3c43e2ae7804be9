"""Isolation: a random history of puts, lookups and invalidations against a simple model."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as redis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cache_core import MultiLevelCache, Settings
from cache_core.model.keys import Keys
from cache_core.model.question.wording import exact_form, loose_form
from cache_core.model.values import LookupResult
from cache_core.testing import HashEmbedder
from tests.support import servers
from tests.support.caches import CacheFactory
from tests.support.patience import PATIENT
from tests.support.votes import vote

USERS = ("shared", "", None, "bob", "u:1", "ü", "u\u0308", "Shared ")
WORDS = ("alpha beta", "beta alpha", "Alpha  Beta?", "yes", "alpha not beta")
CONTEXTS = (None, "alpha", {"locale": "de"})
HISTORIES = (None, ["first"], ["second"], [{"role": "user", "content": "first"}])
MODES = ("private", "intents", "all")
ACTIONS = (
    *["put"] * 5, *["lookup"] * 6,
    *["invalidate"] * 2, "invalidate own", "forget", "invalidate document",
)  # fmt: skip


@dataclass(frozen=True)
class Step:
    """One call, drawn at random."""

    action: str
    words: str
    user: str | None
    context: Any
    history: Any
    standalone: bool
    shared: bool | None
    share_documents: bool | None
    intent: str | None
    document: str | None


@st.composite
def scenarios(draw: st.DrawFn) -> tuple[str, list[Step]]:
    """Draw a sharing mode and steps. Few users and places each time, so that they meet often."""

    def some(values: tuple[Any, ...]) -> st.SearchStrategy[Any]:
        chosen = draw(
            st.lists(st.integers(0, len(values) - 1), min_size=2, max_size=3, unique=True)
        )
        return st.sampled_from([values[number] for number in chosen])

    step = st.builds(
        Step,
        action=st.sampled_from(ACTIONS),
        words=some(WORDS),
        user=some(USERS),
        context=some(CONTEXTS),
        history=some(HISTORIES),
        standalone=st.sampled_from([False, False, True]),
        shared=st.sampled_from([None, True, False]),
        share_documents=st.sampled_from([None, True, False]),
        intent=st.sampled_from([None, "faq", "own", "not a label!"]),
        document=st.sampled_from([None, "d1", "d2"]),
    )
    return draw(st.sampled_from(MODES)), draw(st.lists(step, min_size=12, max_size=30))


@dataclass
class Stored:
    """One put, as the model sees it. Its values name its number, so a wrong one shows."""

    number: int
    user: str | None
    loose: str
    tag: str
    bag: frozenset[str]
    context: str
    history: str
    shared: bool
    documents_shared: bool
    intent_shared: bool
    document: str | None
    intent: str | None
    stored_response: bool
    alive: bool = True
    sure: bool = True

    @property
    def place(self) -> tuple[Any, ...]:
        return (self.tag, self.context, self.history, None if self.shared else self.user)


@dataclass
class Model:
    """Model of what may be served to each user."""

    mode: str
    puts: list[Stored] = field(default_factory=list)
    documents: dict[str, set[str]] = field(default_factory=dict)

    def of(self, number: int) -> Stored:
        return next(item for item in self.puts if item.number == number)

    def put(self, item: Stored) -> None:
        for other in self.puts:
            if item.stored_response and other.place == item.place:
                other.alive = False
        self.puts.append(item)
        if item.document is not None:
            self.documents.setdefault(item.document, set()).add(item.loose)

    def kill(self, item: Stored) -> None:
        item.alive = False

    def invalidate(self, loose: str, bag: frozenset[str], user: str | None) -> None:
        mine = [
            item for item in self.puts if user is None or (item.user == user and not item.shared)
        ]
        similar = {item.loose for item in mine if item.bag == bag and not item.history}
        for item in mine:
            if item.loose == loose or (item.bag == bag and not item.history):
                self.kill(item)
            elif item.loose in similar:
                item.sure = False
        # Another's shared or private answer may go with a similar one of a dead message.
        for item in self.puts:
            if item.loose == loose or item.bag == bag:
                item.sure = item.sure and user is not None

    def forget(self, user: str) -> None:
        for item in self.puts:
            if item.user == user:
                self.kill(item)

    def invalidate_document(self, document: str) -> None:
        tags = self.documents.pop(document, set())
        for item in self.puts:
            if item.loose in tags:
                self.kill(item)


class World:
    """A cache and the model of it, moved step by step together."""

    def __init__(
        self, cache: MultiLevelCache, run: int, mode: str, numbers: itertools.count[int]
    ) -> None:
        self.cache = cache
        self.run = run
        self.model = Model(mode)
        self.numbers = numbers
        self.keys: Keys = cache._parts.keys
        self.forgot = False

    def where(self, step: Step) -> tuple[str, dict[str, Any]]:
        message = f"run{self.run} {step.words}"
        more = {"context": step.context, "history": step.history}
        if step.standalone:
            more["standalone"] = message
            message = "and that?"
        return message, more

    async def take(self, step: Step) -> None:
        message, more = self.where(step)
        text = more.get("standalone") or message
        user = step.user or None
        if step.action == "put":
            await self.put(step, message, more)
        elif step.action == "lookup":
            result = await self.cache.lookup(message, step.user, **more)
            self.check(step, message, more, result)
        elif step.action == "invalidate":
            assert (await self.cache.invalidate(text)).complete
            self.model.invalidate(loose_form(text), bag(text), None)
        elif step.action == "invalidate own" and user is not None:
            assert (await self.cache.invalidate(text, user)).complete
            self.model.invalidate(loose_form(text), bag(text), user)
        elif step.action == "forget" and user is not None:
            assert (await self.cache.forget_user(user)).complete
            self.model.forget(user)
            self.forgot = True
        elif step.action == "invalidate document" and step.document is not None:
            await self.cache.invalidate_document(f"{self.run}-{step.document}")
            self.model.invalidate_document(step.document)

    async def put(self, step: Step, message: str, more: dict[str, Any]) -> None:
        number = next(self.numbers)
        intent = f"own-{number}" if step.intent == "own" else step.intent
        if step.intent == "not a label!":
            intent = f"not a label {number}"
        documents = None
        if step.document is not None:
            documents = [{"id": f"{self.run}-{step.document}", "number": number}]
        if self.forgot:
            # Where an invalidation lost its text, a put of a lookup before is refused.
            await self.cache.lookup(message, step.user, **more)
        await self.cache.put(
            message, step.user, f"answer {number}", intent, documents,
            shared=step.shared, share_documents=step.share_documents, **more,
        )  # fmt: skip
        query = self.keys.query(message, step.user, **more)
        by_rule = self.model.mode == "all" or (self.model.mode == "intents" and intent == "faq")
        shared = by_rule if step.shared is None else step.shared
        label = intent is not None and not intent.startswith("not") and step.shared is not False
        documents_shared = shared if step.share_documents is None else step.share_documents
        item = Stored(
            number, step.user or None, loose_form(query.text), exact_form(query.text),
            bag(query.text), query.context, query.history, shared, documents_shared, label or shared, step.document, intent,
            stored_response=shared or bool(step.user),
        )  # fmt: skip
        if item.user is None and not (shared or (documents_shared and documents) or label):
            return
        self.model.put(item)

    def check(self, step: Step, message: str, more: dict[str, Any], result: LookupResult) -> None:
        query = self.keys.query(message, step.user, **more)
        tag, words, user = exact_form(query.text), bag(query.text), step.user or None
        assert result.outcome != "error", result
        if result.response is not None:
            item = self.model.of(int(result.response.removeprefix("answer ")))
            assert item.shared or (item.user == user and user is not None), (item, step)
            assert item.context == query.context, (item, step)
            assert item.alive, (item, step)
            if result.tier == "l1":
                assert (item.tag, item.history) == (tag, query.history), (item, step)
            else:
                assert not query.history, (item, step)
                assert not item.history, (item, step)
                assert item.bag == words, (item, step)
            return
        if result.rag_results is not None:
            item = self.model.of(result.rag_results[0]["number"])
            assert item.documents_shared or (item.user == user and user is not None), (item, step)
            assert (item.tag, item.context, item.history) == (tag, query.context, query.history)
        if result.intent is not None and result.intent[-1].isdigit():
            item = self.model.of(int(result.intent.replace("-", " ").split()[-1]))
            assert item.intent_shared or (item.user == user and user is not None), (item, step)
            assert (item.tag, item.context, item.history) == (tag, query.context, query.history)
        expected = [
            item for item in self.model.puts
            if item.alive and item.sure and item.stored_response
            and (item.shared or (item.user == user and user is not None))
            and (item.tag, item.context, item.history) == (tag, query.context, query.history)
        ]  # fmt: skip
        assert not expected, (expected, step, result)


def bag(text: str) -> frozenset[str]:
    """Return the words of a text: those with the same ones have similarity 1."""
    return frozenset(loose_form(text).split())


@pytest.mark.slow
def test_nobody_gets_what_is_not_theirs(
    store_kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Whatever happens, no user gets another's answer, context or history, nor a dead answer.

    And nobody is refused their own live answer.
    """
    url = (
        request.getfixturevalue(servers.EMPTY[store_kind]) if store_kind in servers.EMPTY else None
    )
    numbers, runs = itertools.count(1), itertools.count(1)
    fixed = Settings(dir=tmp_path, redis_url=url, decisions=0, **PATIENT)  # type: ignore[arg-type]
    caches = {
        mode: MultiLevelCache(
            settings=fixed, embedding_model=HashEmbedder(), instruments=(), namespace=mode,
            sharing=mode, shared_intents=["faq"],  # type: ignore[arg-type]
        )
        for mode in MODES
    }  # fmt: skip

    async def play(mode: str, steps: list[Step]) -> None:
        cache = caches[mode]
        await cache.initialize()
        # To the model, questions of the same words in any order mean the same.
        await cache.tune({"guards": ["negation"]}, author="test")
        for user in filter(None, USERS):
            await cache.forget_user(user)
        world = World(cache, next(runs), mode, numbers)
        for step in steps:
            await world.take(step)

    async def close() -> None:
        for cache in caches.values():
            await cache.close()

    with asyncio.Runner() as runner:

        @settings(
            max_examples=30, database=None,
            phases=[Phase.generate],  # a failure names the answer and the step: no need to shrink
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        )  # fmt: skip
        @given(scenarios())
        def check(scenario: tuple[str, list[Step]]) -> None:
            runner.run(play(*scenario))

        try:
            check()
        finally:
            runner.run(close())


async def test_a_user_called_shared(make_cache: CacheFactory) -> None:
    """A user whose id is "shared" is a user like any other, for reading and for writing."""
    cache = await make_cache(settings=PATIENT)
    await cache.put("what is my balance", "shared", "12 USD")
    await cache.put("opening hours", "ann", "9 to 5", shared=True)
    assert (await cache.lookup("what is my balance", "ann")).response is None
    assert (await cache.lookup("what is my balance")).response is None
    assert (await cache.lookup("what is my balance", "shared")).response == "12 USD"
    assert (await cache.lookup("opening hours", "shared")).response == "9 to 5"


async def test_user_ids_are_taken_as_they_are(make_cache: CacheFactory) -> None:
    """User ids that differ in case, spaces or Unicode form are different users."""
    cache = await make_cache(settings=PATIENT)
    users = ["ann", "Ann", " ann", "ann ", "ü", "u\u0308", "a:b", "a", "b", "\ud800", "x" * 1_024]
    for number, user in enumerate(users):
        await cache.put("who am I", user, str(number))
    for number, user in enumerate(users):
        assert (await cache.lookup("who am I", user)).response == str(number)


async def test_documents_follow_the_answer(make_cache: CacheFactory) -> None:
    """Documents are as private as the answer they came with, unless share_documents says other."""
    cache = await make_cache(settings=PATIENT)
    await cache.put("private one", "ann", "a", rag_results=[{"id": 1}])
    await cache.put("shared one", "ann", "a", rag_results=[{"id": 2}], shared=True)
    await cache.put("shared documents", "ann", "a", rag_results=[{"id": 3}], share_documents=True)
    await cache.put("kept documents", "ann", "a", rag_results=[{"id": 4}], shared=True,
                    share_documents=False)  # fmt: skip
    tier, keys = cache._parts.tiers["l4"], cache._parts.keys
    seen = {}
    for message in ("private one", "shared one", "shared documents", "kept documents"):
        answer = await tier.get(keys.query(message, "bob"), cache.tuning)
        seen[message] = hasattr(answer, "entry")
    assert seen == {"private one": False, "shared one": True, "shared documents": True,
                    "kept documents": False}  # fmt: skip


@pytest.mark.slow
async def test_only_labels_are_shared_intents(make_cache: CacheFactory) -> None:
    """An intent is everybody's if it looks like a label, unless its answer is put as private."""
    cache = await make_cache(settings=PATIENT)
    await cache.put("one", "ann", "a", "order.status")
    await cache.put("two", "ann", "a", "ann lives in Kiel")
    await cache.put("three", "ann", "a", "order.status", shared=False)
    found = {text: (await cache.lookup(text, "bob")).intent for text in ("one", "two", "three")}
    assert found == {"one": "order.status", "two": None, "three": None}
    assert (await cache.lookup("one", "bob")).response is None


async def test_nobody_in_particular_reads_only_what_is_shared(make_cache: CacheFactory) -> None:
    """Without a user nothing private is stored or read."""
    cache = await make_cache(settings=PATIENT)
    for nobody in (None, ""):
        await cache.put("a private matter", nobody, "secret", rag_results=[{"id": 1}])
        await cache.put("a public matter", nobody, "open", shared=True)
        assert (await cache.lookup("a private matter", nobody)).outcome == "miss"
        assert (await cache.lookup("a public matter", nobody)).response == "open"


async def test_warmed_answers_are_everybodys(make_cache: CacheFactory) -> None:
    """An operator's answer from warm_cache is served to every user."""
    cache = await make_cache(settings=PATIENT)
    assert await cache.warm_cache([("opening hours", "operator", "9 to 5")]) == 1
    assert await cache.get_multilevel("Opening hours?", "bob") == "9 to 5"


@pytest.fixture
async def decoding_pool(empty_redis: str) -> AsyncIterator[Any]:
    pool = redis.ConnectionPool.from_url(empty_redis, decode_responses=True, max_connections=20)
    yield pool
    await pool.aclose()


async def test_a_customers_decoding_pool(decoding_pool: Any, tmp_path: Path) -> None:
    """With a pool of decode_responses=True everything works, and the pool stays open."""
    made = Settings(dir=tmp_path, **PATIENT)  # type: ignore[arg-type]
    async with MultiLevelCache(
        redis_pool=decoding_pool, settings=made, embedding_model=HashEmbedder(), instruments=()
    ) as cache:
        await cache.put("alpha beta", "ann", "a \u2603 \ud800", "faq", [{"id": "d"}])
        assert (await cache.lookup("alpha beta", "ann")).response == "a \u2603 \ud800"
        assert (await cache.lookup("beta alpha", "ann")).tier == "l2"
        assert (await cache.lookup("alpha beta", "bob")).outcome == "partial"
        assert (await cache.invalidate_document("d")).complete
        assert (await cache.lookup("alpha beta", "ann")).outcome == "miss"
        assert (await cache.forget_user("ann")).complete
        assert cache.redis_client.connection_pool is decoding_pool
    client = redis.Redis(connection_pool=decoding_pool)
    assert await client.ping()


# ------------------------------------------------------------------------------------ promotion

_PROMOTION_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put"] * 4 + ["lookup"] * 3 + ["invalidate", "forget"]),
        st.sampled_from(["alpha beta", "gamma delta"]),
        st.sampled_from(["ann", "bob", "eve"]),
        st.sampled_from(["one", "two"]),
    ),
    min_size=8, max_size=24,
)  # fmt: skip


class Votes:
    """The model: whose last answer is what, and which answer two of them made everybody's."""

    def __init__(self) -> None:
        self.own: dict[tuple[str, str], str] = {}
        self.votes: dict[tuple[str, str], str] = {}
        self.promoted: dict[str, tuple[str, str]] = {}
        self.chosen: dict[str, str] = {}

    def put(self, message: str, user: str, answer: str) -> None:
        self.votes[message, user] = answer
        if self.choice(message) == answer:
            self.own.pop((message, user), None)
            self.promoted[message], self.chosen[message] = (answer, user), answer
            return
        if self.choice(message) is None and self.chosen.get(message, answer) != answer:
            self.invalidate(message)
            self.votes[message, user] = answer
        self.own[message, user] = answer

    def choice(self, message: str) -> str | None:
        """The answer of all users that got one, if they are two or three."""
        votes = [vote for (of, _), vote in self.votes.items() if of == message]
        return votes[0] if len(votes) > 1 and len(set(votes)) == 1 else None

    def invalidate(self, message: str) -> None:
        self.promoted.pop(message, None)
        self.chosen.pop(message, None)
        for found in (self.own, self.votes):
            for key in [key for key in found if key[0] == message]:
                del found[key]

    def forget(self, user: str) -> None:
        voted = [of for of, voter in self.votes if voter == user]
        self.promoted = {of: by for of, by in self.promoted.items() if by[1] != user}
        for found in (self.own, self.votes):
            for key in [key for key in found if key[1] == user]:
                del found[key]
        for message in voted:
            if message in self.chosen and self.choice(message) is None:
                self.invalidate(message)

    def expected(self, message: str, user: str) -> str | None:
        return self.own.get((message, user), self.promoted.get(message, (None, ""))[0])


@pytest.mark.slow
def test_nobody_gets_what_too_few_got(
    store_kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """With promotion after two: one's own last answer, else what two users got; never another's."""
    url = (
        request.getfixturevalue(servers.EMPTY[store_kind]) if store_kind in servers.EMPTY else None
    )
    fixed = Settings(dir=tmp_path, redis_url=url, decisions=0, **PATIENT)  # type: ignore[arg-type]
    cache = MultiLevelCache(settings=fixed, embedding_model=HashEmbedder(), instruments=())
    runs = itertools.count(1)

    async def play(steps: list[tuple[str, str, str, str]]) -> None:
        await cache.initialize()
        await cache.tune({"sharing": "auto", "promote_after": 2}, author="ana")
        run, model, forgot = next(runs), Votes(), False
        for user in ("ann", "bob", "eve"):
            await cache.forget_user(user)
        for action, words, user, answer in steps:
            message = f"run{run} {words}"
            if action == "put":
                if forgot:
                    # Where an invalidation lost its text, a put of a lookup before is refused.
                    await cache.lookup(message, user)
                await vote(cache, message, user, answer)
                model.put(message, user, answer)
            elif action == "invalidate":
                assert (await cache.invalidate(message)).complete
                model.invalidate(message)
            elif action == "forget":
                assert (await cache.forget_user(user)).complete
                model.forget(user)
                forgot = True
            else:
                found = await cache.lookup(message, user)
                assert found.response == model.expected(message, user), (message, user, steps)

    with asyncio.Runner() as runner:

        @settings(
            max_examples=20, database=None,
            phases=[Phase.generate],  # the sequence is in the message: no need to shrink
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(_PROMOTION_STEPS)
        def example(steps: list[tuple[str, str, str, str]]) -> None:
            runner.run(play(steps))

        try:
            example()
        finally:
            runner.run(cache.close())
