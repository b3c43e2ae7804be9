"""Log records: none quotes the text of an error that may quote a message."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from cache_core import Answer, MultiLevelCache
from cache_core.config.live import LiveTuning
from cache_core.model.exceptions import BackendError
from cache_core.model.remedies import said
from cache_core.tiers.keyed import KeyedTier
from tests.support.caches import CacheFactory
from tests.support.inside import inside
from tests.support.patience import PATIENT

SECRET = "canary-7f3a"
PLACE = "RuntimeError at test_log_texts.py:"

pytestmark = pytest.mark.parametrize("store_kind", ["embedded"])


def fail(*_: Any, **__: Any) -> Any:
    raise RuntimeError(f"cannot read {SECRET}")


async def fail_later(*_: Any, **__: Any) -> Any:
    fail()


class Failing:
    """Instrument that fails in every method."""

    detailed = True
    scope = close = record = report = staticmethod(fail)


class Documents(list[Any]):
    """Documents that cannot be read."""

    def __iter__(self) -> Iterator[Any]:
        fail()
        return super().__iter__()


class Tags(list[Any]):
    """Tags that cannot be read."""

    def __iter__(self) -> Iterator[Any]:
        fail()
        return super().__iter__()


async def tier_that_fails(cache: MultiLevelCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KeyedTier, "get", fail_later)
    monkeypatch.setattr(KeyedTier, "put", fail_later)
    await cache.put(SECRET, "ann", SECRET)
    await cache.lookup(SECRET, "ann")


async def compute_that_fails(cache: MultiLevelCache) -> None:
    with pytest.raises(RuntimeError, match=SECRET):
        await cache.get_or_compute(SECRET, "ann", fail)


async def answers_that_fail(cache: MultiLevelCache) -> None:
    for number, answer in enumerate(
        (Answer(SECRET, rag_results=Documents([1])), Answer(SECRET, tags=Tags(["t"])))
    ):
        made = await cache.get_or_compute(f"{SECRET} {number}", "ann", lambda made=answer: made)  # type: ignore[misc]
        assert made == SECRET


async def upkeep_that_fails(cache: MultiLevelCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LiveTuning, "refresh", fail_later)
    await cache._engine.live._refresh_safely()
    await inside(cache).housekeeper._quietly(fail_later)


async def test_no_record_quotes_an_error(
    make_cache: CacheFactory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Errors of tiers, functions, documents, instruments, upkeep are logged by type and place."""
    with caplog.at_level(logging.DEBUG):
        cache: MultiLevelCache = await make_cache(settings=PATIENT, instruments=[Failing()])
        await compute_that_fails(cache)
        await answers_that_fail(cache)
        await tier_that_fails(cache, monkeypatch)
        await upkeep_that_fails(cache, monkeypatch)
        monkeypatch.undo()
        await cache.close()
    found = {line.partition(": ")[0] for line in caplog.messages if PLACE in line}
    assert found >= {
        "an answer was returned and not stored", "housekeeping", "tuning", "l1",
        "instrument Failing is broken",
    }, caplog.messages  # fmt: skip
    assert SECRET not in caplog.text


def test_arguments_that_redis_quotes_are_cut_off(store_kind: str) -> None:
    """The name of an unknown command stays, without its key and value."""
    text = f"unknown command 'SET', with args beginning with: 'gc1:k' '{SECRET}'"
    error = BackendError("backend_error", "ResponseError", text)
    error.backend = "redis"
    assert said(error) == "ResponseError: unknown command 'SET'"
