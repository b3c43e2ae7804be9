"""Messages, users and histories as they come: any text works, anything else is a clear error."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest

from cache_core import MultiLevelCache
from tests.support.caches import CacheFactory
from tests.support.patience import PATIENT


@pytest.fixture
async def cache(make_cache: CacheFactory) -> MultiLevelCache:
    made: MultiLevelCache = await make_cache(settings=PATIENT)
    return made


@pytest.mark.parametrize("message", ["", " ", "\t\n", "\u2003\u00a0", "\u3000"])
async def test_empty_messages_bypass(cache: MultiLevelCache, message: str) -> None:
    """A message without content is neither looked up nor stored."""
    await cache.put(message, "ann", "answer")
    found = await cache.lookup(message, "ann")
    assert (found.outcome, found.reasons, found.response) == ("bypass", ("empty",), None)


async def test_huge_messages_bypass(cache: MultiLevelCache) -> None:
    """A message of a megabyte bypasses immediately; one at the limit is cached."""
    huge = "x" * 1_048_576
    started = time.monotonic()
    assert (await cache.lookup(huge, "ann")).reasons == ("too_large",)
    assert (await cache.lookup("\u00fc" * 20_000, "ann")).reasons == ("too_large",)
    await cache.put(huge, "ann", "answer")
    assert await cache.get_or_compute(huge, "ann", lambda: "made") == "made"
    assert time.monotonic() - started < 10
    largest = "x" * 32_768
    await cache.put(largest, "ann", "answer")
    assert await cache.get_multilevel(largest, "ann") == "answer"


@pytest.mark.parametrize(
    "message",
    ["a\x00b", "\x00", "\ud800", "a\udfffb", "\u202eolleh", "\u0645\u0631\u062d\u0628\u0627",
     "e\u0301" * 500, "\U0001f468\u200d\U0001f469\u200d\U0001f467", "{}:*?[]\r\n$-1", "'; DROP TABLE entries; --",
     "?", "...", "\ufeff", "NaN"],
)  # fmt: skip
async def test_odd_messages_are_messages(cache: MultiLevelCache, message: str) -> None:
    """Whatever text a user types is stored, found again, and invalidated."""
    document, user = {"id": message, "source": message, "text": message}, f"user of {message}"
    answer = f"{message}!"
    await cache.put(message, user, answer, message[:256], [document], tags=[message],
                    context=message, history=[message])  # fmt: skip
    where: dict[str, Any] = {"context": message, "history": [message]}
    found = await cache.lookup(message, user, **where)
    assert found.response == answer
    assert (await cache.lookup(message, "another", **where)).response is None
    assert (await cache.invalidate(message)).complete
    assert (await cache.lookup(message, user, **where)).response is None
    await cache.put(message, "ann", message, rag_results=[document])
    assert (await cache.invalidate_document(message)).complete
    assert (await cache.lookup(message, "ann")).rag_results is None
    assert await cache.explain(message, user)
    assert (await cache.forget_user(user)).complete


@pytest.mark.parametrize("message", [None, 5, b"bytes", ["list"], {"a": 1}, math.nan, object()])
async def test_what_is_no_text_is_a_type_error(cache: MultiLevelCache, message: Any) -> None:
    """A message of another type raises a TypeError that names it, everywhere, and counts nothing."""
    for use in (
        cache.lookup(message, "ann"), cache.put(message, "ann", "a"),
        cache.invalidate(message), cache.get_multilevel(message, "ann"),
        cache.get_or_compute(message, "ann", lambda: "a"), cache.explain(message, "ann"),
    ):  # fmt: skip
        with pytest.raises(TypeError, match="message"):
            await use
    assert cache.metrics.lookups == 0


@pytest.mark.parametrize("user", [5, b"ann", ["ann"], 1.5, True, object()])
async def test_users_are_texts(cache: MultiLevelCache, user: Any) -> None:
    """A user id of another type raises a TypeError that says what to do."""
    for use in (cache.lookup("alpha", user), cache.put("alpha", user, "a")):
        with pytest.raises(TypeError, match=r"user_id must be a str or None.*None for a visitor"):
            await use
    with pytest.raises(TypeError):
        await cache.forget_user(user)


async def test_nobody_cannot_be_forgotten(cache: MultiLevelCache) -> None:
    """Forgetting nobody, or invalidating no document or tag, is a mistake and says so."""
    for use in (cache.forget_user(""), cache.invalidate_document(""), cache.invalidate_tag("")):
        with pytest.raises(TypeError, match="non-empty"):
            await use


@pytest.mark.parametrize("history", [5, 1.5, True, object(), {"role": "user"}, "text", b"text"])
async def test_a_history_of_another_type_is_named(cache: MultiLevelCache, history: Any) -> None:
    """The error says what a history is, and what was given."""
    told = rf"history must be a list of str .*, not {type(history).__name__}"
    with pytest.raises(TypeError, match=told):
        await cache.lookup("alpha", "ann", history=history)
