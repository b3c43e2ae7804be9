"""Arguments are taken when a call is made, whatever the caller does with them afterwards."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any
from unittest.mock import create_autospec

import pytest

from cache_core import MultiLevelCache
from tests.support.caches import CacheFactory
from tests.support.patience import PATIENT

KEYED = {**PATIENT, "tiers": "l1,l3,l4"}


class Agent:
    """Arguments that an agent goes on changing while the cache works."""

    def __init__(self) -> None:
        self.history: list[Any] = [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
        self.context: dict[str, Any] = {"model": "m", "tools": ["search"]}
        self.documents: list[Any] = [{"id": "d", "text": "Open at nine", "tags": ["a"]}]
        self.tags = ["t"]
        self.items: list[Any] = [["alpha", None, "At ten."]]

    @property
    def where(self) -> dict[str, Any]:
        return {"history": self.history, "context": self.context}

    def go_on(self) -> None:
        self.history[0]["content"][0]["text"] = "CHANGED"
        self.history.append({"role": "assistant", "content": "Hello"})
        self.context["tools"].append("more")
        self.context["model"] = "other"
        self.documents[0]["text"] = "CHANGED"
        self.documents[0]["tags"].append("b")
        self.documents.append({"id": "other"})
        self.tags.append("other")
        self.items[0][2] = "CHANGED"
        self.items.append(["beta", None, "x"])


Call = Callable[[MultiLevelCache, Agent], Awaitable[Any]]


async def put(cache: MultiLevelCache, agent: Agent) -> Any:
    agent.call = cache.put(  # type: ignore[attr-defined]
        "alpha", "ann", "At ten.", None, agent.documents, tags=agent.tags, **agent.where
    )


async def compute(cache: MultiLevelCache, agent: Agent) -> Any:
    agent.call = cache.get_or_compute(  # type: ignore[attr-defined]
        "alpha", "ann", lambda: "At ten.", tags=agent.tags, **agent.where
    )


@pytest.mark.parametrize("opened", [True, False])
@pytest.mark.parametrize("how", [put, compute])
@pytest.mark.parametrize("when", ["before it runs", "while it runs"])
async def test_what_is_stored_is_as_of_the_call(
    make_cache: CacheFactory, opened: bool, how: Any, when: str
) -> None:
    """A put in a task, and an answer that is computed, are of the arguments as they were."""
    cache: MultiLevelCache = await make_cache(settings=KEYED)
    if not opened:
        await cache.close()
    agent, before = Agent(), Agent()
    await how(cache, agent)
    task = asyncio.ensure_future(agent.call)  # type: ignore[attr-defined]
    if when == "while it runs":
        await asyncio.sleep(0)
    agent.go_on()
    await task
    found = await cache.lookup("alpha", "ann", **before.where)
    assert found.response == "At ten."
    assert (await cache.lookup("alpha", "ann", **agent.where)).response is None
    assert not (await cache.invalidate_tag("other")).removed
    assert (await cache.invalidate_tag("t")).removed
    if how is put:
        await cache.put("beta", "ann", None, None, before.documents)
        assert (await cache.lookup("beta", "ann")).rag_results == Agent().documents


async def test_documents_are_as_of_the_call(make_cache: CacheFactory) -> None:
    """Documents are copied before the first wait, with all that is in them."""
    cache: MultiLevelCache = await make_cache(settings=KEYED)
    agent = Agent()
    putting = cache.put("alpha", "ann", None, None, agent.documents)
    agent.go_on()
    await putting
    assert (await cache.lookup("alpha", "ann")).rag_results == Agent().documents


async def test_what_is_asked_is_as_of_the_call(make_cache: CacheFactory) -> None:
    """Lookups and explanations are of the history and context that they were given."""
    cache: MultiLevelCache = await make_cache(settings=KEYED)
    before = Agent()
    await cache.put("alpha", "ann", "At ten.", **before.where)
    for closed in (False, True):
        if closed:
            await cache.close()
        agent = Agent()
        calls = [
            cache.lookup("alpha", "ann", **agent.where),
            cache.get_multilevel("alpha", "ann", **agent.where),
            cache.explain("alpha", "ann", **agent.where),
        ]
        agent.go_on()
        looked, got, explained = [await call for call in calls]
        assert looked.response == got == "At ten."
        assert explained[0].outcome == "hit"


async def test_what_is_warmed_is_as_of_the_call(make_cache: CacheFactory) -> None:
    """Items that change while the store is opened are stored as they were."""
    cache: MultiLevelCache = await make_cache(settings=KEYED)
    agent = Agent()
    warming = cache.warm_cache(agent.items, context=agent.context, tags=agent.tags)
    agent.go_on()
    assert await warming == 1
    assert await cache.get_multilevel("alpha", context=Agent().context) == "At ten."


async def test_errors_are_raised_where_the_call_is_awaited(make_cache: CacheFactory) -> None:
    """Bad arguments raise when awaited, as of any coroutine function: other calls are made."""
    cache: MultiLevelCache = await make_cache(settings=KEYED)
    bad: Any = 5
    good, wrong = await asyncio.gather(
        cache.put("alpha", "ann", "answer"),
        cache.put("beta", "ann", "answer", history=bad),
        return_exceptions=True,
    )
    assert good is None
    assert isinstance(wrong, TypeError)


def test_the_methods_are_coroutine_functions_to_others() -> None:
    """Mocks made from the class can be awaited."""
    for name in ("lookup", "get_multilevel", "put", "get_or_compute", "explain", "warm_cache"):
        assert asyncio.iscoroutinefunction(getattr(MultiLevelCache, name)), name
        assert inspect.signature(getattr(MultiLevelCache, name)).parameters
    mock = create_autospec(MultiLevelCache, instance=True)
    mock.lookup.return_value = None
    assert asyncio.run(mock.lookup("alpha", "ann")) is None


# ---------------------------------------------------------------------------------------- joins


async def both(cache: MultiLevelCache, one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Ask for the same concurrently, with other arguments; each computes what says whose it is."""
    running: list[str] = []
    done = asyncio.Event()

    async def work(name: str) -> str:
        running.append(name)
        if len(running) == 2:
            done.set()
        # Those who join never start another computation: then nobody sets it.
        try:
            async with asyncio.timeout(2):
                await done.wait()
        except TimeoutError:
            pass
        return name

    await asyncio.gather(
        cache.get_or_compute("alpha", "ann", lambda: work("one"), **one),
        cache.get_or_compute("alpha", "ann", lambda: work("other"), **other),
    )
    return sorted(running)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"shared": True}, {"shared": False}),
        ({"shared": False}, {"shared": True}),
        ({"shared": False}, {}),
        ({"share_documents": True}, {}),
        ({"ttl": 60}, {"ttl": 600}),
        ({"tags": ["a"]}, {"tags": ["b"]}),
        ({"intent": "faq"}, {"intent": "own"}),
        ({"personal": ["Ann"]}, {}),
        ({"document_ids": ["d"]}, {}),
    ],
)
@pytest.mark.parametrize("store_kind", ["embedded"])
async def test_who_stores_otherwise_computes_apart(
    make_cache: CacheFactory, one: dict[str, Any], other: dict[str, Any]
) -> None:
    """Nobody's answer is stored for more people, longer or under other labels than they said."""
    cache: MultiLevelCache = await make_cache(settings=KEYED)
    assert await both(cache, one, other) == ["one", "other"]
    shared = [terms.get("shared") for terms in (one, other)]
    theirs = (await cache.lookup("alpha", "bob")).response
    assert theirs == ({True: "one", False: "other"}[shared[0] is True] if True in shared else None)


async def test_who_stores_alike_joins(make_cache: CacheFactory) -> None:
    """The same arguments in another order are one computation."""
    cache: MultiLevelCache = await make_cache(settings=KEYED)
    terms = {"shared": False, "tags": ["a", "b"], "ttl": 60}

    async def work() -> str:
        await asyncio.sleep(0)
        made.append(1)
        return "made"

    made: list[int] = []
    await asyncio.gather(
        cache.get_or_compute("alpha", "ann", work, **terms),
        cache.get_or_compute("alpha", "ann", work, **{**terms, "tags": {"b", "a"}}),
    )
    assert made == [1]
