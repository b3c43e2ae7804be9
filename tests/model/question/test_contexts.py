"""Contexts: what they may be, how large, and which of their keys change with every request."""

from __future__ import annotations

from typing import Any

import pytest

from cache_core import MultiLevelCache
from cache_core.model.question.contexts import ContextWatch
from tests.support.caches import CacheFactory
from tests.support.patience import PATIENT


def test_the_churning_key_is_found() -> None:
    """The key that changes with every request is named among those of many contexts."""
    watch = ContextWatch()
    for number in range(200):
        watch.note({"locale": "de", "request_id": number, "model": f"m{number % 3}"})
    assert watch.churning() == "request_id"
    assert ContextWatch().churning() == ""


def test_a_churning_list_is_found() -> None:
    """Lists and mappings are told apart by what is in them."""
    watch = ContextWatch()
    for number in range(50):
        watch.note({"locale": "de", "tools": ["search", f"t{number}"], "model": {"name": "m"}})
    assert watch.churning() == "tools"
    watch = ContextWatch()
    for number in range(50):
        watch.note({"tools": ["search"], "model": {"name": f"m{number}"}, "deep": {"a": [{}]}})
    assert watch.churning() == "model"


def test_keys_that_churn_take_no_more_memory() -> None:
    """A key made anew for every request is named as what it is, and not kept for ever."""
    watch = ContextWatch()
    for number in range(10_000):
        watch.note({f"request-{number}": number, "locale": "de"})
    assert watch.churning() == "(the keys themselves)"
    assert len(watch._values) <= 64
    watch = ContextWatch()
    for number in range(1_000):
        watch.note({f"key-{number % 70}": 1, "request_id": number})
    assert watch.churning() == "request_id"


@pytest.fixture
async def cache(make_cache: CacheFactory) -> MultiLevelCache:
    made: MultiLevelCache = await make_cache(settings=PATIENT)
    return made


@pytest.mark.parametrize("context", [5, ["a"], b"bytes", {"a": object()}, {"a": {1, 2}}])
async def test_contexts_are_text_or_json(cache: MultiLevelCache, context: Any) -> None:
    """A context that is neither text nor JSON raises a TypeError that names it."""
    with pytest.raises(TypeError, match="context"):
        await cache.lookup("alpha", "ann", context=context)


class Detached:
    """An object whose session is gone."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("outside of the request")


@pytest.mark.parametrize(
    "where",
    [
        {"context": Detached()},
        {"context": {"tenant": Detached()}},
        {"history": [Detached()]},
        {"history": [{"role": "user", "content": Detached()}]},
    ],
    ids=["context", "in a context", "turn", "content"],
)
async def test_objects_that_cannot_be_read_are_named(
    cache: MultiLevelCache, where: dict[str, Any]
) -> None:
    """Whatever their attributes raise: misuse is a TypeError, and says what was raised."""
    for call in (cache.lookup, cache.put, cache.explain):
        with pytest.raises(TypeError, match="reading one raised RuntimeError"):
            await call("alpha", "ann", **where)


@pytest.mark.slow
async def test_a_bottomless_context(cache: MultiLevelCache) -> None:
    """A context nested too deeply for JSON is a TypeError; such documents are omitted."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(TypeError, match="context"):
        await cache.lookup("alpha", "ann", context={"deep": deep})
    await cache.put("alpha", "ann", "a", rag_results=deep)
    assert (await cache.lookup("alpha", "ann")).response == "a"
    while deep:
        deep = deep.pop()


@pytest.mark.parametrize(
    "context",
    [{1: "a"}, {"a": {1: "b"}}, {"a": [{None: 1}]}, {True: 1}, {"a": float("nan")},
     {"a": [float("inf")]}],
    ids=repr,
)  # fmt: skip
async def test_contexts_that_json_would_confuse(cache: MultiLevelCache, context: Any) -> None:
    """{1: ...} and {"1": ...} would be one context; NaN is no JSON: a TypeError that says so.

    What was said before may be anything, and is told from what JSON would make of it.
    """
    for call in (
        cache.lookup("m", "u", context=context),
        cache.put("m", "u", "r", context=context),
    ):
        with pytest.raises(TypeError, match="context must be JSON"):
            await call
    said, confused = ([{"role": "user", "content": item}] for item in (context, _as_json(context)))
    await cache.put("m", "u", "r", history=said)
    assert (await cache.lookup("m", "u", history=said)).response == "r"
    assert (await cache.lookup("m", "u", history=confused)).response is None


def _as_json(value: Any) -> Any:
    """Return what JSON makes of a value: text keys, and texts for what it has no number for."""
    if isinstance(value, dict):
        return {str(key).lower(): _as_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_json(item) for item in value]
    return str(value) if isinstance(value, float) else value


@pytest.mark.parametrize(
    ("user", "context"),
    [
        ("u" * 1_025, None),
        ("u", "c" * 65_537),
        ("u", {"prompt": "c" * 65_537}),
        ("u", {"c" * 65_537: 1}),
        ("u", {"many": list(range(65_537))}),
        ("u", {f"k{n}": {} for n in range(65_537)}),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_large_users_and_contexts_bypass(
    cache: MultiLevelCache, user: str, context: Any
) -> None:
    """A context that is too large bypasses, as such a message does: the agent continues."""
    await cache.put("m", user, "r", context=context)
    result = await cache.lookup("m", user, context=context)
    assert (result.outcome, result.reasons) == ("bypass", ("too_large",))
    assert await cache.get_or_compute("m", user, lambda: "made", context=context) == "made"


async def test_what_is_just_small_enough(cache: MultiLevelCache) -> None:
    """At the bounds everything works; an intent beyond them is omitted, and nothing else."""
    user, context = "u" * 1_024, {"prompt": "c" * 65_000}
    await cache.put("m", user, "r", context=context, intent="i" * 256)
    assert (await cache.lookup("m", user, context=context)).response == "r"
    await cache.put("long label", user, "r", intent="i" * 257)
    found = await cache.lookup("long label", user)
    assert (found.response, found.intent) == ("r", None)
