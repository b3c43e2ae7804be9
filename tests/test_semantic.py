"""L2: what it serves for what, with the real model where the meaning matters."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from cache_core import ConfigurationError, MultiLevelCache, Settings
from cache_core.embedder import QUEUE_LIMIT, ThreadEmbedder
from cache_core.exceptions import BackendError
from cache_core.stores.base import Write
from cache_core.testing import HashEmbedder, ManualClock, RecordingInstrument
from cache_core.tiers.private_vectors import KEPT_VECTORS
from tests import servers
from tests.conftest import CacheFactory
from tests.patient import PATIENT

RESET = "How do I reset my password?"


@pytest.fixture
async def real(make_cache: CacheFactory, real_embedder: ThreadEmbedder) -> MultiLevelCache:
    """A cache with the real model."""
    cache: MultiLevelCache = await make_cache(embedding_model=real_embedder, settings=PATIENT)
    await cache.ready()
    return cache


# ---------------------------------------------------------------------------------- real model


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    "asked",
    ["How can I reset my password?", "how do i reset my password please",
     "I want to reset my password, how?"],
)  # fmt: skip
async def test_a_paraphrase_is_answered(real: MultiLevelCache, asked: str, shared: bool) -> None:
    """A question in other words gets the answer, and the similarity is told."""
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
    assert not await real.parts.semantic.similar.count_messages([real.parts.keys.tag(head)])


@pytest.mark.parametrize("text", ["\ud800 hello", "a\x00b", "\u202eolleh", "\U0001f600" * 300, "?"])
async def test_the_model_takes_odd_texts(real: MultiLevelCache, text: str) -> None:
    """Whatever a user types, L2 stores and finds it, or leaves it alone."""
    await real.put(text, "ann", "answer")
    assert (await real.lookup(text, "ann")).response == "answer"
    assert (await real.lookup(text + " friend", "ann")).outcome in {"hit", "miss"}


# ------------------------------------------------------------------------------------- history


async def test_a_follow_up_is_not_searched(
    make_cache: CacheFactory, embedder: HashEmbedder
) -> None:
    """A message with a history is not even embedded; rewritten to stand alone it is."""
    cache = await make_cache(settings=PATIENT)
    await cache.put("alpha beta", "ann", "answer")
    embedder.calls.clear()
    found = await cache.lookup("beta alpha", "ann", history=["earlier"])
    assert (found.response, found.reasons[1]) == (None, "has_history")
    assert embedder.calls == []
    found = await cache.lookup("and?", "ann", history=["earlier"], standalone="beta alpha")
    assert (found.response, found.tier) == ("answer", "l2")


async def test_a_follow_ups_answer_is_not_found_by_similarity(make_cache: CacheFactory) -> None:
    """What was put with a history is served to nobody who asks without it."""
    cache = await make_cache(settings=PATIENT)
    await cache.put("alpha beta", "ann", "answer", history=["earlier"])
    assert (await cache.lookup("beta alpha", "ann")).response is None


# ------------------------------------------------------------------------------- dead neighbours


def permutations(words: str, count: int) -> list[str]:
    """Return texts of the same words: all have the same vector."""
    return [
        " ".join(order) for order in itertools.islice(itertools.permutations(words.split()), count)
    ]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("dead", ["expired", "invalidated"])
async def test_dead_neighbours_do_not_hide_a_live_one(
    make_cache: CacheFactory, clock: ManualClock, store_kind: str, shared: bool, dead: str
) -> None:
    """Behind forty nearer questions that are dead the live one is found."""
    if (store_kind, dead) == ("redis", "expired"):
        pytest.skip("a clock of its own; test_tier_contract waits for it")
    cache = await make_cache(settings=PATIENT, clock=clock, semantic_threshold=0.8)
    nearer = permutations("alpha beta gamma delta epsilon", 40)
    for text in nearer:
        await cache.put(text, "ann", "dead", shared=shared, ttl=100)
    await cache.put("alpha beta gamma delta epsilon zeta", "ann", "live", shared=shared)
    if dead == "expired":
        clock.advance(150)
    else:
        keys = cache.parts.keys
        writes = [Write(keys.generation(keys.tag(text)), "i0", 60.0) for text in nearer]
        await cache.parts.store.write(writes)
    found = await cache.lookup("epsilon delta gamma beta alpha", "ann")
    assert (found.response, found.tier) == ("live", "l2")


async def test_private_questions_are_remembered_up_to_a_limit(make_cache: CacheFactory) -> None:
    """Of a user's private questions the newest 64 are matched by similarity."""
    cache = await make_cache(settings=PATIENT)
    for number in range(KEPT_VECTORS + 40):
        await cache.put(f"word{number} alpha", "ann", f"answer {number}")
    keys = cache.parts.keys
    rows = await cache.parts.store.rows(keys.vectors(keys.user("ann"), keys.no_context))
    assert KEPT_VECTORS <= len(rows) <= KEPT_VECTORS * 1.25
    newest = KEPT_VECTORS + 39
    assert (await cache.lookup(f"alpha word{newest}", "ann")).response == f"answer {newest}"
    assert (await cache.lookup("alpha word0", "ann")).response is None
    assert (await cache.lookup("word0 alpha", "ann")).response == "answer 0"


async def test_others_private_questions_leave_no_trace(make_cache: CacheFactory) -> None:
    """For another user a private question is as if it had never been asked: no similarity either."""
    cache = await make_cache(settings=PATIENT)
    await cache.put("alpha beta", "ann", "private")
    found = await cache.lookup("beta alpha", "bob")
    assert (found.response, found.reasons) == (None, ("cold",))
    assert cache.recent(1)[0].similarity is None


async def test_too_many_contexts_are_told(make_cache: CacheFactory) -> None:
    """In a context that got no index L2 says so, and private answers are found all the same."""
    cache = await make_cache(settings={**PATIENT, "max_contexts": 2})
    for context in ("one", "two", "three"):
        await cache.put("alpha beta", "ann", context, context=context, shared=True)
    assert (await cache.lookup("beta alpha", "ann", context="one")).response == "one"
    assert (await cache.lookup("beta alpha", "ann", context="three")).reasons == (
        "cold", "context_limit",
    )  # fmt: skip
    await cache.put("gamma delta", "ann", "private", context="three")
    assert (await cache.lookup("delta gamma", "ann", context="three")).response == "private"


# --------------------------------------------------------------------------------------- outage


async def test_shared_answers_while_redis_is_away(tmp_path: Path) -> None:
    """With Redis killed L2 goes on serving shared answers, and says that they are unconfirmed."""
    with servers.redis_server(tmp_path) as url:
        fixed = Settings(dir=tmp_path / "cache", redis_url=url)
        cache = MultiLevelCache(settings=fixed, embedding_model=HashEmbedder(), instruments=())
        await cache.initialize()
        await cache.put("alpha beta", "ann", "shared answer", shared=True)
        await cache.put("gamma delta", "ann", "private answer")
    for _ in range(10):
        found = await cache.lookup("beta alpha", "bob")
        assert (found.response, found.tier) == ("shared answer", "l2")
        assert "unconfirmed" in found.reasons
        assert (await cache.lookup("delta gamma", "ann")).outcome == "error"
    await cache.close()


# --------------------------------------------------------------------------------- invalidation


@pytest.mark.parametrize("shared", [False, True])
async def test_invalidating_takes_the_similar_too(make_cache: CacheFactory, shared: bool) -> None:
    """Invalidating a question takes out what L2 would serve for it, in every context, no more."""
    cache = await make_cache(settings=PATIENT)
    for context in (None, "german"):
        await cache.put("alpha beta", "ann", "similar", context=context, shared=shared)
        await cache.put("gamma delta", "ann", "other", context=context, shared=shared)
    assert (await cache.invalidate("beta alpha", dry_run=True)).removed > 0
    assert (await cache.lookup("alpha beta", "ann")).response == "similar"
    removed = await cache.invalidate("beta alpha")
    assert (removed.complete, removed.removed > 0) == (True, True)
    for context in (None, "german"):
        for asked in ("alpha beta", "beta alpha"):
            assert (await cache.lookup(asked, "ann", context=context)).response is None
        assert (await cache.lookup("delta gamma", "ann", context=context)).response == "other"
    assert (await cache.invalidate("beta alpha")).removed == 0


async def test_invalidating_spares_what_a_guard_keeps_apart(make_cache: CacheFactory) -> None:
    """What a guard would not have served is not invalidated along."""
    cache = await make_cache(settings=PATIENT, semantic_threshold=0.7)
    await cache.put("status of my order 1", "ann", "one", shared=True)
    await cache.put("status of my order 2", "ann", "two", shared=True)
    await cache.invalidate("status of my order 2")
    assert (await cache.lookup("status of my order 1", "ann")).response == "one"


async def test_another_process_learns_of_answers_and_invalidations(
    make_cache: CacheFactory, tmp_path: Path, store_kind: str
) -> None:
    """A shared answer reaches another process's own index within a second, its end as well."""
    if store_kind == "embedded":
        pytest.skip("two processes on one file: tests of the command line")
    here = await make_cache(settings=PATIENT)
    there = await make_cache(settings={**PATIENT, "dir": tmp_path / "elsewhere"})
    assert here.parts.semantic.feed.place != there.parts.semantic.feed.place
    questions, keys = there.parts.semantic.similar, there.parts.keys
    tag = keys.tag("alpha beta")
    await here.put("alpha beta", "ann", "answer", shared=True)
    assert await _within(1.5, lambda: questions.count_messages([tag]), 1)
    assert (await there.lookup("beta alpha", "bob")).tier == "l2"
    await here.invalidate("beta alpha")
    assert (await there.lookup("beta alpha", "bob")).response is None
    assert await _within(1.5, lambda: questions.count_messages([tag]), 0)


@pytest.mark.parametrize("how", ["invalidate", "forget_user"])
async def test_a_row_written_after_its_invalidation_does_not_stay(
    make_cache: CacheFactory, chroma_url: str, store_kind: str, how: str
) -> None:
    """On a shared index nobody leaves what another process invalidated before it was written."""
    if store_kind == "embedded":
        pytest.skip("processes with a Chroma server share a Redis")
    settings = {**PATIENT, "chroma_url": chroma_url}
    here = await make_cache(settings=settings, namespace=f"late-rows-{how}")
    there = await make_cache(settings=settings, namespace=f"late-rows-{how}")
    index, keys = there.parts.semantic.index, there.parts.keys
    tag, kept = keys.tag("alpha beta"), keys.tag("gamma delta")
    # Its duties are done by hand here.
    await here._engine.running.housekeeper.close()
    for message, user in (("alpha beta", "ann"), ("gamma delta", "bob")):
        await here.put(message, user, "answer", shared=True)
    # It waits to be written out, where nobody else can remove it.
    gone = there.invalidate("alpha beta") if how == "invalidate" else there.forget_user("ann")
    assert (await gone).complete
    await here.parts.semantic.index.tend(here.parts.store.now())
    assert await index.present(keys.no_context, [tag, kept]) == {tag, kept}
    await here.parts.semantic.tier.tend()
    assert await index.present(keys.no_context, [tag, kept]) == {kept}
    assert (await there.lookup("beta alpha", "eve")).response is None
    assert (await there.lookup("delta gamma", "eve")).response == "answer"


class GatedEmbedder(HashEmbedder):
    """Embeds so many at once, and then when it is told to."""

    def __init__(self, at_once: int) -> None:
        super().__init__()
        self.at_once = at_once
        self.asked, self.gate = asyncio.Event(), asyncio.Event()

    async def embed(self, text: str) -> Any:
        if len(self.calls) >= self.at_once:
            self.asked.set()
            await self.gate.wait()
        return await super().embed(text)


@pytest.mark.parametrize("known", [False, True], ids=["not yet known", "known"])
async def test_what_was_embedded_too_long_reaches_no_index(
    make_cache: CacheFactory, tmp_path: Path, store_kind: str, known: bool
) -> None:
    """A put that its message's invalidation overtook leaves no row in anybody's own index."""
    if store_kind == "embedded":
        pytest.skip("two processes on one file: tests of the command line")
    gated = GatedEmbedder(at_once=int(known))
    here = await make_cache(settings=PATIENT, embedding_model=gated)
    there = await make_cache(settings={**PATIENT, "dir": tmp_path / "elsewhere"})
    both = (here, there)
    for cache in both:
        await cache._engine.running.housekeeper.close()
    put = asyncio.ensure_future(here.put("alpha beta", "ann", "answer", shared=True))
    await gated.asked.wait()
    assert (await there.invalidate("alpha beta")).complete
    gated.gate.set()
    await put
    tag, context = here.parts.keys.tag("alpha beta"), here.parts.keys.no_context
    assert bool(await here.parts.semantic.index.present(context, [tag])) is known
    for cache in both:
        await cache._engine.running.invalidator.apply(cache.tuning)
        await cache.parts.semantic.index.tend(cache.parts.store.now())
        await cache.parts.semantic.tier.tend()
        assert not await cache.parts.semantic.index.present(context, [tag])


async def _within(seconds: float, ask: Any, expected: Any) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if await ask() == expected:
            return True
        await asyncio.sleep(0.05)
    return False


# --------------------------------------------------------------------------------------- warming


async def test_puts_while_warming_are_made_later(
    make_cache: CacheFactory, embedder: HashEmbedder
) -> None:
    """While the model loads L2 answers `warming`, and what was put meanwhile is found afterwards."""
    embedder.ready = False
    cache = await make_cache(settings=PATIENT)
    await cache.put("alpha beta", "ann", "private")
    await cache.put("gamma delta", "ann", "shared", shared=True)
    assert (await cache.lookup("beta alpha", "ann")).reasons == ("cold", "warming")
    assert (await cache.lookup("alpha beta", "ann")).response == "private"
    embedder.ready = True
    await cache.ready()
    assert (await cache.lookup("beta alpha", "ann")).response == "private"
    assert (await cache.lookup("delta gamma", "bob")).response == "shared"


async def test_waiting_puts_are_forgotten_too(
    make_cache: CacheFactory, embedder: HashEmbedder
) -> None:
    """What waits for the model is neither served after an invalidation nor kept of a forgotten user."""
    embedder.ready = False
    cache = await make_cache(settings=PATIENT)
    await cache.put("alpha beta", "ann", "invalidated", shared=True)
    await cache.put("gamma delta", "ann", "forgotten")
    await cache.put("epsilon zeta", "bob", "kept")
    await cache.invalidate("alpha beta")
    await cache.forget_user("ann")
    embedder.ready = True
    await cache.ready()
    assert (await cache.lookup("beta alpha", "ann")).response is None
    assert (await cache.lookup("delta gamma", "ann")).response is None
    assert (await cache.lookup("zeta epsilon", "bob")).response == "kept"


async def test_forgetting_a_user_erases_their_vectors(make_cache: CacheFactory) -> None:
    """After forget_user nothing of the user is left in the store, and others keep theirs."""
    cache = await make_cache(settings=PATIENT)
    await cache.put("alpha beta", "ann", "hers", context="x")
    await cache.put("alpha beta", "bob", "his", context="x")
    keys, store = cache.parts.keys, cache.parts.store
    assert (await cache.forget_user("ann")).removed > 0
    query = keys.query("alpha beta", "ann", "x")
    assert await store.rows(keys.vectors(keys.user("ann"), query.context)) == {}
    assert await store.rows(keys.index("user", keys.user("ann"))) == {}
    assert (await cache.lookup("beta alpha", "ann", context="x")).response is None
    assert (await cache.lookup("beta alpha", "bob", context="x")).response == "his"


# -------------------------------------------------------------------------------------- embedder


class SlowEncoder:
    """An encoder that waits until it is let go, and notes what it was given."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.batches: list[list[str]] = []
        self.failure: Exception | None = None

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        if list(texts) != ["warm up"]:
            self.go.wait(10)
            self.batches.append(list(texts))
            if self.failure is not None:
                raise self.failure
        return np.eye(8, dtype=np.float32)[[len(text) % 8 for text in texts]]

    def knows(self, text: str) -> bool:
        return True

    def fits(self, text: str) -> bool:
        return True


@pytest.fixture
async def slow() -> Any:
    encoder = SlowEncoder()
    made = ThreadEmbedder("slow", load=lambda _: encoder)
    await made.wait_ready()
    yield made, encoder
    encoder.go.set()
    made.close()


async def test_what_waits_together_is_encoded_once(slow: Any) -> None:
    """A text that many wait for is encoded once, and what nobody waits for not at all."""
    embedder, encoder = slow
    first = asyncio.ensure_future(embedder.embed("first"))
    await asyncio.sleep(0.05)
    many = [asyncio.ensure_future(embedder.embed("same")) for _ in range(10)]
    dropped = asyncio.ensure_future(embedder.embed("nobody's"))
    await asyncio.sleep(0.05)
    dropped.cancel()
    await asyncio.sleep(0)
    encoder.go.set()
    await asyncio.gather(first, *many)
    assert encoder.batches == [["first"], ["same"]]
    await embedder.embed("same")
    assert len(encoder.batches) == 2


async def test_a_full_queue_says_so_at_once(slow: Any) -> None:
    """Beyond its limit the queue answers `overloaded` instead of growing."""
    embedder, encoder = slow
    waiting = [asyncio.ensure_future(embedder.embed(f"t{n}")) for n in range(QUEUE_LIMIT + 40)]
    await asyncio.sleep(0.1)
    refused = [task for task in waiting if task.done()]
    assert refused
    assert {task.exception().reason for task in refused} == {"overloaded"}  # type: ignore[union-attr]
    encoder.go.set()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_failing_model_fails_every_waiter(slow: Any) -> None:
    """What the model raises reaches all who waited, and the next text is tried again."""
    embedder, encoder = slow
    encoder.failure = MemoryError("too much")
    encoder.go.set()
    errors = await asyncio.gather(*(embedder.embed("a") for _ in range(3)), return_exceptions=True)
    assert [(type(e), e.error_type) for e in errors] == [(BackendError, "MemoryError")] * 3
    encoder.failure = None
    assert (await embedder.embed("a")).shape == (8,)


async def test_a_model_that_cannot_be_loaded() -> None:
    """Loading that fails is told to who waits for it, and embedding fails with a BackendError."""

    def load(name: str) -> Any:
        raise OSError("no such file")

    embedder = ThreadEmbedder("broken", load=load)
    with pytest.raises(ConfigurationError, match="broken"):
        await embedder.wait_ready()
    assert embedder.failed
    with pytest.raises(BackendError):
        await embedder.embed("a")


async def test_without_a_model_an_invalidation_is_not_complete(
    make_cache: CacheFactory,
) -> None:
    """Who cannot find similar questions says so, and makes it up when they can."""
    embedder = HashEmbedder()
    here = await make_cache(settings=PATIENT, embedding_model=embedder)
    await here.put("beta alpha", "ann", "similar")
    embedder.ready, embedder.failed = False, True
    done = await here.invalidate("alpha beta")
    assert (done.complete, done.pending) == (False, ("embedder",))
    embedder.ready, embedder.failed = True, False
    await here._engine.running.invalidator.steps.retry()
    assert (await here.lookup("alpha beta", "ann")).response is None
    assert here._engine.running.invalidator.steps.pending == 0


async def test_a_slow_embedding_costs_its_budget_and_no_more(
    slow: Any, make_cache: CacheFactory
) -> None:
    """An embedding that hangs is a timeout of L2; the lookup ends within its budget."""
    embedder, _ = slow
    cache = await make_cache(embedding_model=embedder, settings={"embedding_budget": 0.1})
    started = time.monotonic()
    found = await cache.lookup("alpha", "ann")
    assert time.monotonic() - started < 0.5
    # Which of the two is known first depends on the machine.
    assert (found.outcome, set(found.reasons)) == ("error", {"cold", "timeout"})
