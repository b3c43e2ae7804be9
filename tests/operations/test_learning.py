"""Learning from misses, and the policy that serves by what was learned."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

import pytest

from cache_core import LookupResult, MultiLevelCache
from cache_core.backends.base import Vector
from cache_core.backends.embedder.encoder import PACKAGED_MODEL
from cache_core.backends.embedder.pool import ThreadEmbedder
from cache_core.model.exceptions import BackendError
from cache_core.observability import decisions
from cache_core.observability.decisions import Decision
from cache_core.operations import recognition
from cache_core.operations.recognition import WAITING
from cache_core.runtime.background import TICK
from cache_core.testing import HashEmbedder
from cache_core.tiers.semantic import candidates
from tests.support.caches import CacheFactory
from tests.support.inside import inside
from tests.support.patience import PATIENT
from tests.support.waiting import until

ASKED = "can the shop send my parcel on to the office"
NEAR = ASKED.replace("office", "garden")
"""Differs in one word of ten: a similarity of 0.92 by the test's embedder."""

SENT_ON = "We can send your parcel on to another address for 5 euros until it has left the depot."
REWORDED = (
    "As long as your parcel is still at the depot, we forward it to another address; "
    "that costs €5.00."
)
TURNED = REWORDED.replace("we forward", "we never forward")


async def learned(cache: MultiLevelCache, message: str, answer_id: str) -> None:
    """Let a user miss, and put the fresh answer."""
    assert (await cache.lookup(message, "bob")).response is None
    await cache.put(message, "bob", f"answer {answer_id}", shared=True, answer_id=answer_id)


def judged(cache: MultiLevelCache) -> tuple[int, int, int]:
    """Return the misses whose nearest answer was right, wrong, and neither for certain."""
    found = cache.get_metrics()["judged_misses"]
    assert found.keys() == {"right", "wrong", "unknown"}
    return found["right"], found["wrong"], found["unknown"]


async def answered(cache: MultiLevelCache, response: str, message: str = NEAR) -> None:
    """Let a user miss, put the fresh answer without a name, and wait until it is compared."""
    before = sum(judged(cache))
    user = f"user-{before}"  # whose own answers are no candidates
    assert (await cache.lookup(message, user)).response is None
    await cache.put(message, user, response)
    await compared(cache, before + 1)


async def compared(cache: MultiLevelCache, count: int) -> None:
    """Put something else until so many misses are judged: each put takes one embedding at most."""

    async def reached() -> bool:
        await cache.put("hello", "ann", intent="greeting")
        return sum(judged(cache)) == count

    await until(reached)


async def test_a_miss_teaches_whether_the_nearest_answer_was_right(
    make_cache: CacheFactory,
) -> None:
    """The fresh answer is compared with the nearest stored one, and both results are counted."""
    cache = await make_cache(settings=PATIENT)
    await cache.put(ASKED, "ann", "answer a", shared=True, answer_id="a")
    await learned(cache, NEAR, "a")
    found = cache.get_metrics()
    assert (judged(cache), found["missed_hit_rate"]) == ((1, 0, 0), 1.0)
    await learned(cache, NEAR.replace("parcel", "letter"), "b")
    found = cache.get_metrics()
    assert (judged(cache), found["missed_hit_rate"]) == ((1, 1, 0), 0.5)


async def test_private_answers_teach_nothing(make_cache: CacheFactory) -> None:
    """A candidate that only its user may read leaves no label behind."""
    cache = await make_cache(settings=PATIENT)
    await cache.put(ASKED, "bob", "answer a", answer_id="a")
    await learned(cache, NEAR, "a")
    assert judged(cache) == (0, 0, 0)


async def test_the_threshold_decides_until_max_wrong_is_set(make_cache: CacheFactory) -> None:
    """By default a neighbour below the threshold is a miss; under the policy its answer is known."""
    cache = await make_cache(settings=PATIENT)
    for word in ("school", "kitchen", "library"):
        await cache.put(
            ASKED.replace("office", word), "ann", "answer a", shared=True, answer_id="a"
        )
    missed = await cache.lookup(NEAR, "bob")
    assert (missed.response, missed.reasons[-1]) == (None, "below_threshold")
    await cache.tune({"max_wrong": 0.05}, author="ann")
    found = await cache.lookup(NEAR, "bob")
    assert (found.response, found.tier) == ("answer a", "l2")
    explained = (await cache.explain(NEAR, "bob"))[1]
    assert "policy: " in explained.detail
    await cache.tune({"max_wrong": 0.0005}, author="ann")
    held = await cache.lookup(NEAR, "bob")
    assert (held.response, held.reasons[-1]) == (None, "unsure")
    assert "needed" in (await cache.explain(NEAR, "bob"))[1].detail


async def test_a_single_intent_may_have_its_own_bound(make_cache: CacheFactory) -> None:
    """An override turns the policy on for the answers of one intent alone."""
    cache = await make_cache(settings=PATIENT)
    for word, intent in (("school", "faq"), ("kitchen", "faq")):
        text = ASKED.replace("office", word)
        await cache.put(text, "ann", "answer a", intent, shared=True, answer_id="a")
    await cache.tune({"intent.faq.max_wrong": 0.1}, author="ann")
    assert (await cache.lookup(NEAR, "bob")).response == "answer a"
    await cache.tune({"intent.faq.max_wrong": 0.0, "max_wrong": 0.1}, author="ann")
    assert (await cache.lookup(NEAR, "bob")).response is None


async def test_replicas_share_what_they_learned(make_cache: CacheFactory) -> None:
    """A label of one replica changes what another one serves, within its duties' pace."""
    one = await make_cache(settings=PATIENT)
    other = await make_cache(settings=PATIENT)
    await one.tune({"max_wrong": 0.02}, author="ann")
    await one.put(ASKED, "ann", "answer a", shared=True, answer_id="a")
    for word in ("school", "kitchen", "library", "station", "museum", "theatre"):
        result = await one.lookup(ASKED.replace("office", word), "bob")
        await one.put(
            ASKED.replace("office", word), "bob", "other", answer_id=f"of {word}", lookup=result
        )
    assert one.get_metrics()["judged_misses"]["wrong"] > 0

    learned_by, known_to = (inside(cache).parts.evidence for cache in (one, other))
    assert len(learned_by) > 0
    await until(lambda: len(known_to) == len(learned_by))
    key = next(iter(learned_by.keys()))
    assert known_to.chance(key, 0.86) == learned_by.chance(key, 0.86)


async def shadow_of(cache: MultiLevelCache, asked: LookupResult) -> Decision:
    """Return the decision of a lookup, with what the policy would have done."""
    await cache.operator.flush_decisions()
    return next(item for item in await cache.decisions() if item.lookup_id == asked.lookup_id)


async def test_the_threshold_records_what_the_policy_would_have_done(
    make_cache: CacheFactory,
) -> None:
    """The least share of a miss is exactly where the policy, turned on, begins to serve it."""
    cache = await make_cache(settings=PATIENT)
    for word in ("school", "kitchen", "library"):
        await cache.put(
            ASKED.replace("office", word), "ann", "answer a", shared=True, answer_id="a"
        )
    exact = await cache.lookup(ASKED.replace("office", "school"), "bob")
    assert exact.tier == "l1"
    assert (await shadow_of(cache, exact)).least_max_wrong is None
    missed = await cache.lookup(NEAR, "bob")
    assert missed.response is None
    found = await shadow_of(cache, missed)
    assert found.least_max_wrong is not None
    assert 0.0005 < found.least_max_wrong < 0.05
    assert found.chance is not None
    for share, served in ((found.least_max_wrong, True), (found.least_max_wrong - 0.0002, False)):
        await cache.tune({"max_wrong": share}, author="ann")
        asked = await cache.lookup(NEAR, "bob")
        assert (asked.response is not None) is served
        under = await shadow_of(cache, asked)
        assert under[-2:] == found[-2:], "the policy in force records the same"
    own = await cache.lookup(NEAR, "bob", max_wrong=0.01)
    assert (await shadow_of(cache, own)).least_max_wrong is None


async def test_a_lookup_is_judged_by_what_was_known_before_its_own_answer(
    make_cache: CacheFactory,
) -> None:
    """The label that a miss's put brings does not change what the policy would have done."""
    cache = await make_cache(settings=PATIENT)
    await cache.put(ASKED, "ann", "answer a", shared=True, answer_id="a")
    chance = inside(cache).parts.evidence.chance
    asked = await cache.lookup(NEAR, "bob")
    await cache.put(NEAR, "bob", "answer b", shared=True, answer_id="b", lookup=asked)
    found = await shadow_of(cache, asked)
    (key,) = inside(cache).parts.evidence.keys()
    assert found.unvetoed is not None
    assert found.chance == chance("of no label", found.unvetoed)
    assert found.chance > chance(key, found.unvetoed) + 0.05


async def test_guards_are_asked_for_the_shadow_off_the_path(
    make_cache: CacheFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hit compares its own question; the others are compared when the log is written."""
    cache = await make_cache(settings=PATIENT, semantic_threshold=0.9)
    for word in ("office", "school", "kitchen", "library"):
        text = ASKED.replace("office", word)
        await cache.put(text, "ann", "answer a", shared=True, answer_id="a")
    compared: list[str] = []

    def veto(_: str, stored: str, __: object) -> str:
        compared.append(stored)
        return ""

    monkeypatch.setattr(candidates, "veto", veto)
    found = await cache.lookup(f"{ASKED} :", "bob")
    on_path = len(compared)
    assert (found.tier, on_path) == ("l2", 1)
    await shadow_of(cache, found)
    assert len(compared) > on_path


async def test_only_so_many_shadows_are_computed_a_second(
    make_cache: CacheFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log knows some of many lookups between two flushes, so that the others stay fast."""
    monkeypatch.setattr(decisions, "_SHADOWS", 1)
    cache = await make_cache(settings=PATIENT)
    await cache.put(ASKED, "ann", "answer a", shared=True)
    started = time.monotonic()
    await asyncio.gather(*(cache.lookup(f"{NEAR} number {n}", "bob") for n in range(60)))
    await cache.operator.flush_decisions()
    flushes = (time.monotonic() - started) / TICK + 2
    known = sum(item.least_max_wrong is not None for item in await cache.decisions())
    assert 1 <= known <= flushes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fresh", "expected"),
    [
        (REWORDED, (1, 0, 0)),
        (REWORDED.replace("5.00", "7.00"), (0, 1, 0)),
        ("Our office plants are watered by the gardener.", (0, 1, 0)),
        (TURNED, (0, 0, 1)),
    ],
    ids=["the same", "another price", "another subject", "unsure"],
)
async def test_an_answer_without_a_name_is_known_by_facts_and_vector(
    make_cache: CacheFactory, real_embedder: ThreadEmbedder, fresh: str,
    expected: tuple[int, int, int],
) -> None:  # fmt: skip
    """Another wording is right, another fact or subject wrong; what is unsure teaches nothing."""
    cache = await make_cache(settings=PATIENT, embedding_model=real_embedder)
    await cache.ready()
    await cache.put(ASKED, "ann", SENT_ON, shared=True)
    await answered(cache, fresh)
    assert judged(cache) == expected
    assert len(inside(cache).parts.evidence) == expected[0] + expected[1]


OF_PLANS = "On the {} plan you keep your files for {} days after you cancel it."
"""From one page, for every plan."""

OF_PLANS_TOO = "After you cancel the {} plan, your files are kept {} days longer."


@pytest.mark.parametrize(
    ("fresh", "expected"),
    [
        (OF_PLANS_TOO.format("Basic", 30), (1, 0, 0)),
        (OF_PLANS_TOO.format("Business", 30), (0, 1, 0)),
        (OF_PLANS_TOO.format("Basic", 90), (0, 0, 1)),
        ("Refunds arrive within 30 banking hours.", (0, 0, 1)),
    ],
    ids=["the same", "another plan", "another number", "another subject"],
)
async def test_an_answer_from_the_same_documents_is_known_by_facts_and_words(
    make_cache: CacheFactory, fresh: str, expected: tuple[int, int, int]
) -> None:
    """Under any model: with another name or number it is not the same, despite its documents."""
    cache = await make_cache(settings=PATIENT)
    await cache.put(ASKED, "ann", OF_PLANS.format("Basic", 30), shared=True, document_ids=["plans"])
    assert (await cache.lookup(NEAR, "bob")).response is None
    await cache.put(NEAR, "bob", fresh, document_ids=["plans"])
    await until(lambda: sum(judged(cache)) == 1)
    assert judged(cache) == expected


async def test_documents_alone_make_no_neighbours_agree(make_cache: CacheFactory) -> None:
    """Two answers from one page are different ones until a miss shows that they are the same."""
    cache = await make_cache(settings=PATIENT)
    await cache.tune({"max_wrong": 0.05}, author="ann")
    for word, plan in (("garden", "Basic"), ("school", "Business"), ("museum", "Free")):
        text, answer = ASKED.replace("office", word), OF_PLANS.format(plan, 30)
        await cache.put(text, "ann", answer, shared=True, document_ids=["plans"])
    asked = await cache.explain(ASKED, "dora")
    assert "a different answer is almost as near" in asked[1].detail


class SlowEmbedder(HashEmbedder):
    """Stands for the packaged model: takes its time for answers, and finds those of one kind alike."""

    def __init__(self) -> None:
        super().__init__(PACKAGED_MODEL, window=60)
        self.gate = asyncio.Event()
        self.gate.set()

    async def embed(self, text: str) -> Vector:
        if "euros" in text or "€" in text:
            await self.gate.wait()
        vector = await super().embed(text)
        return await HashEmbedder().embed("depot") if text in self.answers() else vector

    def answers(self) -> list[str]:
        """Return the answers that were embedded."""
        return [text for text in self.calls if "depot" in text]


async def test_a_put_takes_at_most_one_embedding_of_an_answer(make_cache: CacheFactory) -> None:
    """The next one brings the other; one whose texts or numbers say enough, none, takes none."""
    model = SlowEmbedder()
    cache = await make_cache(settings=PATIENT, embedding_model=model)
    await cache.put(ASKED, "ann", SENT_ON, shared=True)
    await answered(cache, SENT_ON.upper())
    await answered(cache, SENT_ON.replace("5", "8"), NEAR.replace("garden", "gate"))
    assert model.answers() == []
    school = NEAR.replace("garden", "school")
    assert (await cache.lookup(school, "bob")).response is None
    await cache.put(school, "bob", REWORDED)
    await asyncio.sleep(0.3)
    assert (model.answers(), judged(cache)) == ([REWORDED], (1, 1, 0))
    await cache.put("hello", "ann", intent="greeting")
    await until(lambda: judged(cache) == (2, 1, 0))
    assert model.answers() == [REWORDED, SENT_ON]
    again = REWORDED.replace("forward", "send")
    assert (await cache.lookup(school, "carl")).response is None
    await cache.put(school, "carl", again)
    await until(lambda: sum(judged(cache)) == 4)
    assert model.answers() == [REWORDED, SENT_ON, again]


async def test_what_no_put_follows_stays_unknown(
    make_cache: CacheFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for its second vector for some time only, and holds up nothing after that."""
    monkeypatch.setattr(recognition, "_PATIENCE", 0.2)
    cache = await make_cache(settings=PATIENT, embedding_model=SlowEmbedder())
    await cache.put(ASKED, "ann", SENT_ON, shared=True)
    assert (await cache.lookup(NEAR, "bob")).response is None
    await cache.put(NEAR, "bob", REWORDED)
    await until(lambda: judged(cache) == (0, 0, 1))
    await answered(cache, REWORDED)
    assert judged(cache) == (1, 0, 1)


@pytest.mark.parametrize("why", ["too long", "another model", "it fails", "it loads"])
async def test_what_cannot_be_compared_teaches_nothing(make_cache: CacheFactory, why: str) -> None:
    """An answer beyond the model's window, a model of another scale, one that has no vector."""
    model = HashEmbedder("own") if why == "another model" else SlowEmbedder()
    cache = await make_cache(settings=PATIENT, embedding_model=model)
    more = " Please ask us first." * 20 if why == "too long" else ""
    await cache.put(ASKED, "ann", SENT_ON + more, shared=True)
    assert (await cache.lookup(NEAR, "bob")).response is None
    if why == "it fails":
        model.failure = BackendError("backend_error", "Broken")
    model.ready = why != "it loads"
    await cache.put(NEAR, "bob", REWORDED + more)
    await until(lambda: judged(cache) == (0, 0, 1))
    assert len(inside(cache).parts.evidence) == 0


async def test_closing_ends_comparisons(make_cache: CacheFactory) -> None:
    """A model that hangs holds up neither the put nor the end; more than a few do not wait for it."""
    model = SlowEmbedder()
    cache = await make_cache(settings=PATIENT, embedding_model=model)
    await cache.put(ASKED, "ann", SENT_ON, shared=True)
    model.gate.clear()
    for number in range(WAITING + 3):
        user = f"user-{number}"
        assert (await cache.lookup(NEAR, user)).response is None
        await asyncio.wait_for(cache.put(NEAR, user, REWORDED), 5.0)
    await until(lambda: judged(cache) == (0, 0, 3))
    comparing = inside(cache).recognition
    assert comparing.full
    await asyncio.wait_for(cache.close(), 5.0)
    assert judged(cache) == (0, 0, WAITING + 3)
    assert comparing.full, "a put that is still under way must start nothing"


async def test_who_is_forgotten_is_not_waited_for(make_cache: CacheFactory) -> None:
    """A comparison that may hold the user's texts ends at once, as unknown."""
    model = SlowEmbedder()
    cache = await make_cache(settings=PATIENT, embedding_model=model)
    await cache.put(ASKED, "ann", SENT_ON, shared=True)
    model.gate.clear()
    for user in ("bob", "carl"):
        assert (await cache.lookup(NEAR, user)).response is None
        await cache.put(NEAR, user, REWORDED)
    await cache.forget_user("bob")
    await until(lambda: judged(cache) == (0, 0, 2))
    model.gate.set()
    gate = NEAR.replace("garden", "gate")
    await answered(cache, REWORDED, gate)
    assert judged(cache) == (1, 0, 2)
    known = len(model.answers())
    await cache.forget_user("bob")
    await answered(cache, REWORDED, gate)
    assert len(model.answers()) == known + 2, "no vector of an answer is kept"


class TimedEmbedder(SlowEmbedder):
    """Notes when it was at work on answers."""

    def __init__(self) -> None:
        super().__init__()
        self.spans: list[tuple[float, float]] = []

    async def embed(self, text: str) -> Vector:
        began = time.monotonic()
        if "depot" in text:
            await asyncio.sleep(0.02)
            self.spans.append((began, time.monotonic()))
        return await super().embed(text)


async def test_the_model_has_most_of_its_time_for_lookups(make_cache: CacheFactory) -> None:
    """The next embedding waits four times as long as the one before it took."""
    model = TimedEmbedder()
    cache = await make_cache(settings=PATIENT, embedding_model=model)
    await cache.put(ASKED, "ann", SENT_ON, shared=True)
    for number in range(3):
        user = f"user-{number}"
        assert (await cache.lookup(NEAR, user)).response is None
        await cache.put(NEAR, user, REWORDED.replace("forward", "forward" + " on" * number))
    await compared(cache, 3)
    assert len(model.spans) == 4
    for (began, ended), (again, _) in pairwise(model.spans):
        assert again - ended >= 3.5 * (ended - began)


async def test_wordings_of_one_answer_agree_as_neighbours(make_cache: CacheFactory) -> None:
    """Once a miss showed that they are the same, in every replica; a private one tells no other."""
    one, other = [
        await make_cache(settings=PATIENT, embedding_model=SlowEmbedder()) for _ in range(2)
    ]
    await one.put(ASKED, "ann", SENT_ON, shared=True)
    await one.tune({"max_wrong": 0.05}, author="ann")
    gate, museum = (NEAR.replace("garden", place) for place in ("gate", "museum"))
    await one.lookup(NEAR, "bob", max_wrong=0)
    await one.put(NEAR, "bob", REWORDED)
    await compared(one, 1)
    await one.put(gate, "ann", REWORDED, shared=True)
    assert "different" in (await one.explain(museum, "dora"))[1].detail
    asked = ASKED.replace("can", "may")
    await one.lookup(asked, "carl", max_wrong=0)
    await one.put(asked, "carl", REWORDED, shared=True)
    await until(lambda: judged(one) == (2, 0, 0))
    for replica in (one, other):
        await until(lambda at=replica: _agree(at, museum))


async def _agree(cache: MultiLevelCache, message: str) -> bool:
    return "3 or more agree" in (await cache.explain(message, "dora"))[1].detail
