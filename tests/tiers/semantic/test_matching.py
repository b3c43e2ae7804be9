"""Answers that L2 serves for another wording, with the real model."""

from __future__ import annotations

import pytest

from cache_core import MultiLevelCache
from cache_core.backends.embedder.pool import ThreadEmbedder
from cache_core.testing import RecordingInstrument
from tests.support.caches import CacheFactory
from tests.support.patience import PATIENT

RESET = "How do I reset my password?"


@pytest.fixture
async def real(make_cache: CacheFactory, real_embedder: ThreadEmbedder) -> MultiLevelCache:
    """A cache with the real model."""
    cache: MultiLevelCache = await make_cache(embedding_model=real_embedder, settings=PATIENT)
    await cache.ready()
    return cache


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    "asked",
    ["How can I reset my password?", "how do i reset my password please",
     "I want to reset my password, how?"],
)  # fmt: skip
async def test_a_paraphrase_is_answered(real: MultiLevelCache, asked: str, shared: bool) -> None:
    """A question in other words gets the answer, and the similarity is reported."""
    await real.put(RESET, "ann", "Click on 'forgot'.", shared=shared)
    found = await real.lookup(asked, "ann")
    assert (found.response, found.tier) == ("Click on 'forgot'.", "l2")
    assert found.similarity is not None
    assert 0.95 <= found.similarity < 1


async def test_another_question_is_not_answered(real: MultiLevelCache) -> None:
    """A question about something else misses, and the best similarity is in the log."""
    await real.put(RESET, "ann", "answer", shared=True)
    found = await real.lookup("What are your opening hours?", "ann")
    assert (found.response, found.reasons) == (None, ("cold", "below_threshold"))
    decision = real.recent(1)[0]
    assert decision.similarity is not None
    assert 0 <= decision.similarity < 0.6
    assert (await real.lookup("what are the steps to reset my password", "ann")).response is None
    decision = real.recent(1)[0]
    assert decision.similarity is not None
    assert (decision.reason, round(decision.similarity, 2)) == ("below_threshold", 0.94)


async def test_the_threshold_decides(
    make_cache: CacheFactory, real_embedder: ThreadEmbedder
) -> None:
    """The same pair hits under a lower threshold and misses under a higher one."""
    asked = "what are the steps to reset my password"
    for threshold, expected in ((0.93, "answer"), (0.945, None)):
        cache = await make_cache(
            embedding_model=real_embedder, semantic_threshold=threshold, settings=PATIENT
        )
        await cache.ready()
        await cache.put(RESET, "ann", "answer", shared=True)
        assert (await cache.lookup(asked, "ann")).response == expected


@pytest.mark.parametrize(
    ("stored", "asked", "guard"),
    [
        ("What is the status of order 4711?", "What is the status of order 4712?", "numbers"),
        ("Can I cancel my subscription?", "Can I not cancel my subscription?", "negation"),
    ],
)
async def test_guards_veto_what_no_threshold_could(
    make_cache: CacheFactory, real_embedder: ThreadEmbedder, stored: str, asked: str, guard: str
) -> None:
    """A changed number and a negation are vetoed, whatever their similarity."""
    watcher = RecordingInstrument()
    cache = await make_cache(
        embedding_model=real_embedder, semantic_threshold=0.9, settings=PATIENT,
        instruments=[watcher],
    )  # fmt: skip
    await cache.ready()
    await cache.put(stored, "ann", "wrong", shared=True)
    found = await cache.lookup(asked, "ann")
    assert (found.response, found.reasons[1]) == (None, "guard_veto")
    (_, semantic, *_) = watcher.of("lookup")[0].calls
    assert (semantic.guard, semantic.reason) == (guard, "guard_veto")
    assert semantic.similarity is not None
    assert semantic.similarity > 0.9
    assert cache.recent(1)[0].unvetoed is None


async def test_texts_with_the_same_head_never_match(real: MultiLevelCache) -> None:
    """A text longer than the model's window is not matched by its first 256 tokens."""
    head = " ".join(["the parcel has not arrived at my house yet"] * 60)
    await real.put(head + " so please send it again", "ann", "sent again", shared=True)
    found = await real.lookup(head + " so please give me my money back", "ann")
    assert (found.response, found.reasons[1]) == (None, "truncated")
    assert await real.get_multilevel(head + " so please send it again", "bob") == "sent again"
    assert not await real._parts.semantic.similar.count_messages([real._parts.keys.tag(head)])


@pytest.mark.parametrize("text", ["\ud800 hello", "a\x00b", "\u202eolleh", "\U0001f600" * 300, "?"])
async def test_the_model_takes_odd_texts(real: MultiLevelCache, text: str) -> None:
    """Whatever a user types, L2 stores and finds it, or leaves it alone."""
    await real.put(text, "ann", "answer")
    assert (await real.lookup(text, "ann")).response == "answer"
    assert (await real.lookup(text + " friend", "ann")).outcome in {"hit", "miss"}
