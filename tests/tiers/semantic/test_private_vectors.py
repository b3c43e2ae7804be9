"""Vectors of a user's private questions: bounded, bound to their question, erased with the user."""

from __future__ import annotations

import pytest

from cache_core import MultiLevelCache
from cache_core.backends.base import RowWrite
from cache_core.testing import ChaosStore, Faults
from cache_core.tiers.semantic.private_vectors import KEPT_VECTORS
from tests.support.caches import CacheFactory
from tests.support.patience import PATIENT


@pytest.mark.slow
async def test_private_questions_are_remembered_up_to_a_limit(make_cache: CacheFactory) -> None:
    """The newest 64 of a user's private questions are matched by similarity."""
    cache = await make_cache(settings=PATIENT)
    for number in range(KEPT_VECTORS + 40):
        await cache.put(f"word{number} alpha", "ann", f"answer {number}")
    keys = cache._parts.keys
    rows = await cache._parts.store.rows(keys.vectors(keys.user("ann"), keys.no_context))
    assert KEPT_VECTORS <= len(rows) <= KEPT_VECTORS * 1.25
    newest = KEPT_VECTORS + 39
    assert (await cache.lookup(f"word{newest}, alpha", "ann")).response == f"answer {newest}"
    assert (await cache.lookup("word0, alpha", "ann")).response is None
    assert (await cache.lookup("word0 alpha", "ann")).response == "answer 0"


async def _vectors(cache: MultiLevelCache, context: str | None = None) -> dict[str, str]:
    """Return the rows of ann's private vectors by message tag."""
    keys = cache._parts.keys
    query = keys.query("alpha beta", "ann", context)
    return dict(await cache._parts.store.rows(keys.vectors(keys.user("ann"), query.context)))


async def _replace_vectors(cache: MultiLevelCache, rows: dict[str, str]) -> None:
    keys = cache._parts.keys
    name = keys.vectors(keys.user("ann"), keys.no_context)
    await cache._parts.store.put_rows([RowWrite(name, rows, 600.0)])


async def test_a_vector_of_another_question_is_not_compared(make_cache: CacheFactory) -> None:
    """With vectors swapped, no question gets the answer to the other one."""
    cache = await make_cache(settings=PATIENT)
    await cache.put("alpha beta", "ann", "of alpha")
    await cache.put("gamma delta", "ann", "of gamma")
    (one, first), (two, second) = (await _vectors(cache)).items()
    await _replace_vectors(cache, {one: second, two: first})
    for asked in ("beta alpha", "delta gamma"):
        assert (await cache.lookup(asked, "ann")).response is None
    await _replace_vectors(cache, {one: first, two: second})
    assert (await cache.lookup("beta alpha", "ann")).response == "of alpha"


async def test_a_vector_of_another_context_is_not_compared(make_cache: CacheFactory) -> None:
    """A vector counts for its own question in its own context only."""
    cache = await make_cache(settings=PATIENT)
    await cache.put("alpha beta", "ann", "here")
    await cache.put("alpha beta", "ann", "there", context="c")
    await _replace_vectors(cache, await _vectors(cache, "c"))
    assert (await cache.lookup("beta alpha", "ann")).response is None
    assert (await cache.lookup("beta alpha", "ann", context="c")).response == "there"


async def test_a_changed_vector_is_not_compared_but_invalidated(make_cache: CacheFactory) -> None:
    """A vector that differs from what was stored serves nothing; an invalidation still finds it."""
    cache = await make_cache(settings=PATIENT)
    await cache.put("alpha beta", "ann", "of alpha")
    ((tag, row),) = (await _vectors(cache)).items()
    await _replace_vectors(cache, {tag: ("B" if row[0] == "A" else "A") + row[1:]})
    assert (await cache.lookup("beta alpha", "ann")).response is None
    assert (await cache.lookup("alpha beta", "ann")).response == "of alpha"
    assert (await cache.invalidate("beta alpha")).complete
    assert (await cache.lookup("alpha beta", "ann")).response is None


async def test_a_vector_of_an_earlier_version_is_compared(make_cache: CacheFactory) -> None:
    """Rows that were stored without a checksum are served, and invalidated."""
    cache = await make_cache(settings=PATIENT)
    await cache.put("alpha beta", "ann", "of alpha")
    rows = {tag: row.partition(".")[0] for tag, row in (await _vectors(cache)).items()}
    await _replace_vectors(cache, rows)
    assert await _vectors(cache) == rows
    assert (await cache.lookup("beta alpha", "ann")).response == "of alpha"
    assert (await cache.invalidate("beta alpha")).complete
    assert (await cache.lookup("alpha beta", "ann")).response is None


async def test_vectors_that_are_corrupt_as_read_mix_no_answers(make_cache: CacheFactory) -> None:
    """Whatever is read in place of vectors, a paraphrase gets its own answer or none."""
    faults = Faults(seed=1)
    cache = await make_cache(
        settings=PATIENT, wrap_store=lambda inner: ChaosStore(inner, faults, read_timeout=5.0)
    )
    answers = {"beta alpha": "of alpha", "delta gamma": "of gamma", "zeta epsilon": "of epsilon"}
    for asked, answer in answers.items():
        await cache.put(" ".join(reversed(asked.split())), "ann", answer)
    seen = {asked: set[str | None]() for asked in answers}
    with faults.during("corrupt", only=frozenset({"rows"})):
        faults.corrupt = 0.5
        for _ in range(50):
            for asked in answers:
                seen[asked].add((await cache.lookup(asked, "ann")).response)
    assert seen == {asked: {answer, None} for asked, answer in answers.items()}


async def test_forgetting_a_user_erases_their_vectors(make_cache: CacheFactory) -> None:
    """After forget_user nothing of the user is left in the store, and others keep theirs."""
    cache = await make_cache(settings=PATIENT)
    await cache.put("alpha beta", "ann", "hers", context="x")
    await cache.put("alpha beta", "bob", "his", context="x")
    keys, store = cache._parts.keys, cache._parts.store
    assert (await cache.forget_user("ann")).removed > 0
    query = keys.query("alpha beta", "ann", "x")
    assert await store.rows(keys.vectors(keys.user("ann"), query.context)) == {}
    assert await store.rows(keys.index("user", keys.user("ann"))) == {}
    assert (await cache.lookup("beta alpha", "ann", context="x")).response is None
    assert (await cache.lookup("beta alpha", "bob", context="x")).response == "his"
