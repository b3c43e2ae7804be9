"""Vectors of models that no replica uses any more are swept; the record says which those are."""

from __future__ import annotations

import pytest

from cache_core.backends.base import RowWrite
from cache_core.tiers.semantic import models
from tests.support.caches import CacheFactory
from tests.support.embedding_models import KINDS, answer, cache_of_a_model, closed


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """The engine of shared answers."""
    return str(request.param)


@pytest.fixture
def store_kind(kind: str) -> str:
    return "embedded" if kind == "server" else kind


@pytest.fixture
def with_model(make_cache: CacheFactory, kind: str, request: pytest.FixtureRequest) -> CacheFactory:
    """Make open caches of one namespace, with the model of a name."""
    return cache_of_a_model(make_cache, kind, request)


async def test_an_abandoned_model_is_swept_and_one_in_use_is_not(with_model: CacheFactory) -> None:
    """Only after a day without any replica that uses it, and a day of another model."""
    old = await with_model("old")
    await old.put("alpha beta gamma", "ann", "for all", shared=True)
    await old.put("delta beta gamma", "ann", "own")
    await closed(old)
    new = await with_model("new")
    former, parts = new._parts.semantic.former, new._parts
    name = parts.keys.own(models.MODELS)
    (found,) = await former.models.others()
    now = parts.store.now()

    async def seen(last: float, mine: float) -> None:
        """Record when the old model was last in use, and since when the new one is."""
        rows = {
            digest: models._FORMAT.text(models._Row(identity, *times))
            for digest, identity, times in (
                (found.digest, found.identity, (0, last)),
                (parts.keys.model, "new", (mine, now)),
            )
        }
        await parts.store.put_rows([RowWrite(name, rows, None)])

    async def answers_of_old() -> tuple[str | None, str | None]:
        cache = await with_model("old")
        try:
            return (
                await answer(cache, "alpha beta gamma", "bob"),
                await answer(cache, "delta beta gamma", "ann"),
            )
        finally:
            await closed(cache)

    day = models.GRACE_SECONDS
    for last, mine in ((now, now - 9 * day), (now - day / 2, now - 9 * day), (now - 9 * day, now)):
        await seen(last, mine)
        assert await former.sweep() == 0
    assert await answers_of_old() == ("for all", "own")
    await seen(now - 2 * day, now - 2 * day)
    assert await former.sweep() == 1
    assert await former.sweep() == 0
    assert await answers_of_old() == (None, None)


async def test_the_record_names_a_model_once_for_all_its_replicas(
    with_model: CacheFactory,
) -> None:
    """Replicas with one model renew one row, and no model in use counts as abandoned."""
    one, two = await with_model("same"), await with_model("same")
    for cache in (one, two):
        await cache._parts.semantic.former.models.renew()
    rows = await one._parts.store.rows(one._parts.keys.own(models.MODELS))
    assert list(rows) == [one._parts.keys.model]
    assert await one._parts.semantic.former.models.abandoned() == []
